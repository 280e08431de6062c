//! What the process may have, and how it is shared out.

use std::fs;

/// Descriptors that a thread needs for itself: its queue, its file I/O, its listeners.
const PER_THREAD: usize = 12;

/// Descriptors for everything else: standard streams, root, log, signals, watch, a folder that is
/// being listed.
const FOR_THE_PROCESS: usize = 12;

/// Connections and files that one thread may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Connections at one time. Those beyond wait in the listener's backlog.
    pub connections: usize,
    /// Files kept open for the next request.
    pub files: usize,
}

/// The most connections that one thread takes, however many descriptors there are.
const CONNECTIONS_MAX: usize = 16_384;

/// The most files that one thread keeps open.
const FILES_MAX: usize = 2_048;

impl Share {
    /// Shares `descriptors` out among `threads`. A connection may need two: its socket and the file
    /// that it sends.
    pub fn of(descriptors: usize, threads: usize) -> Share {
        let free = descriptors.saturating_sub(FOR_THE_PROCESS) / threads.max(1);
        let free = free.saturating_sub(PER_THREAD);
        let files = (free / 4).min(FILES_MAX);
        let connections = ((free - files) / 2).clamp(1, CONNECTIONS_MAX);
        Share { connections, files }
    }

    /// Operations that may be under way: one for each connection, one more for the connection that was
    /// there before, since what is cancelled counts until the kernel has let go of it, and one for the
    /// log.
    pub fn operations(&self) -> usize {
        2 * self.connections + 1
    }
}

/// How many descriptors the process may have, as the kernel tells in /proc/self/limits. Where that
/// can't be read it is what systems mostly allow.
pub fn descriptors() -> usize {
    fs::read_to_string("/proc/self/limits").ok().and_then(|text| soft_limit(&text)).unwrap_or(1024)
}

fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            64                   20000                files\n";
        assert_eq!(soft_limit(text), Some(64));
        assert!(descriptors() > 0);
    }

    #[test]
    fn shares_never_exceed_what_there_is() {
        for descriptors in [64, 128, 1024, 20_000, 1_000_000] {
            for threads in [1, 2, 3, 16] {
                let share = Share::of(descriptors, threads);
                assert!(share.connections >= 1);
                assert!(share.operations() > 2 * share.connections);
                let own = FOR_THE_PROCESS + threads * PER_THREAD;
                if descriptors > own + threads * 4 {
                    let used = own + threads * (share.connections * 2 + share.files);
                    assert!(used <= descriptors, "{used} of {descriptors} for {threads} threads");
                }
            }
        }
    }
}
