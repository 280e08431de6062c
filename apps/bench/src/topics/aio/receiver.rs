//! Who takes what is sent, in a process of its own, and looks whether it is right.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::thread;

use super::files::is_right;
use crate::group::Result;
use crate::measure;
use crate::runner;

/// The other process. Killed when dropped.
pub(super) struct Receiver {
    process: Child,
    cpu: usize,
}

/// The most that is taken at a time.
const BUFFER: usize = 256 * 1024;

impl Receiver {
    /// Starts one on that processor, with a connection for each of `starts`. What is sent there is the stream
    /// of all files from this place on, and from the beginning again after `period` bytes.
    pub(super) fn start(
        cpu: usize,
        period: u64,
        starts: &[u64],
    ) -> Result<(Receiver, Vec<TcpStream>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut command = runner::helper_command(super::TOPIC.name)?;
        command.args([listener.local_addr()?.to_string(), cpu.to_string(), period.to_string()]);
        command.args(starts.iter().map(u64::to_string)).stdout(Stdio::piped());
        let receiver = Receiver { process: command.spawn()?, cpu };
        let sockets = starts.iter().map(|_| Ok(listener.accept()?.0)).collect::<Result<_>>()?;
        Ok((receiver, sockets))
    }

    /// Waits until it has taken all, once all sockets are closed, and checks that it was so much.
    pub(super) fn finish(mut self, sent: u64) -> Result<()> {
        let mut line = String::new();
        BufReader::new(self.process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let_go(self.cpu)?;
        measure::cpus()?.into_iter().try_for_each(let_go)?;
        match line.trim().parse::<u64>() {
            Ok(taken) if taken == sent => Ok(()),
            Ok(taken) => Err(format!("{taken} of {sent} bytes have arrived").into()),
            Err(_) => Err("what was sent has not arrived as it was".into()),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has a processor free what was sent from it: with the last of that it keeps pages of the file, which then stay
/// in the page cache, until it next receives something.
///
/// What is read on another processor than it came from is put on a list of the latter, and the kernel goes
/// through that list when it works on that processor's network (`skb_attempt_defer_free`, Linux 5.19).
fn let_go(cpu: usize) -> Result<()> {
    let itself = thread::spawn(move || {
        measure::pin(cpu)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.send_to(b"x", socket.local_addr()?)?;
        socket.recv(&mut [0])?;
        Result::Ok(())
    });
    itself.join().map_err(|_| "a thread panicked")?
}

/// The process: `ADDRESS PROCESSOR PERIOD START...`. Says how many bytes it has taken.
pub(super) fn receive(arguments: &[String]) -> Result<()> {
    let [address, cpu, period, starts @ ..] = arguments else {
        return Err("wrong arguments".into());
    };
    measure::pin(cpu.parse()?)?;
    let period = period.parse()?;
    let mut threads = Vec::new();
    // One after another, so that they are accepted in this order.
    for start in starts {
        let (socket, start) = (TcpStream::connect(address)?, start.parse()?);
        threads.push(thread::spawn(move || take(socket, start, period)));
    }
    let mut taken = 0;
    for thread in threads {
        taken += thread.join().map_err(|_| "a thread panicked")??;
    }
    println!("{taken}");
    Ok(())
}

/// Takes all that comes. Says how much that was.
fn take(mut socket: TcpStream, start: u64, period: u64) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut taken = 0;
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(taken);
        }
        let at = (start + taken) % period;
        if !is_due(at, period, &buffer[..count]) {
            return Err(format!("what came at {at} is not what is there").into());
        }
        taken += count as u64;
    }
}

/// Whether those bytes begin at that place, as far as numbers of the content are wholly in them before it begins
/// again.
fn is_due(at: u64, period: u64, bytes: &[u8]) -> bool {
    let number = at.next_multiple_of(8);
    let end = usize::try_from(period - at).map_or(bytes.len(), |left| left.min(bytes.len()));
    let numbers = bytes.get((number - at) as usize..end).filter(|bytes| bytes.len() >= 8);
    numbers.is_none_or(|numbers| is_right(number, numbers))
}

#[cfg(test)]
mod tests {
    use super::super::files::content;
    use super::*;

    #[test]
    fn what_arrives_in_pieces_of_any_length_is_compared() {
        let bytes = content(0, 4096);
        for (from, to) in [(0, 4096), (1, 100), (5, 13), (7, 9), (4090, 4096)] {
            assert!(is_due(from as u64, 4096, &bytes[from..to]), "{from}");
        }
        assert!(!is_due(8, 4096, &bytes[16..100]));
        assert!(!is_due(3, 4096, &bytes[11..100]));
    }

    #[test]
    fn what_comes_behind_the_end_is_that_of_the_beginning() {
        let twice = [content(0, 64), content(0, 64)].concat();
        assert!(is_due(40, 64, &twice[40..]));
        assert!(!is_due(40, 128, &twice[48..]));
    }
}
