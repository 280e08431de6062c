//! Chains on the engine, on both backends and on one that lies.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kevent_aio::{
    Aio, Builder, Chain, Condition, Fd, Group, Header, Op, Open, Read, Sendfile, Span, StepResult,
    Stop, Transform, Unlink, Value, When, testing,
};

use common::{engines, next, queue};

/// Runs one chain on an engine of its own.
fn run(builder: Builder, chain: Chain) -> (io::Result<u64>, Chain) {
    let (mut queue, aio) = queue(builder);
    queue[aio].submit(chain, 7).unwrap();
    let completion = next(&mut queue);
    assert_eq!(completion.key, 7);
    (completion.result, into_chain(*completion.op))
}

fn into_chain(op: Op) -> Chain {
    match op {
        Op::Chain(chain) => chain,
        other => panic!("{other:?} was not submitted"),
    }
}

fn unix() -> (Arc<UnixStream>, UnixStream) {
    let (server, client) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    (Arc::new(server), client)
}

fn received(mut client: UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

/// How many descriptors of this process are open on that file.
fn open_on(path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|at| at == path))
        .count()
}

/// One letter for each step: done, failed, not run; then the steps that were cleaned up behind.
fn outline(chain: &Chain) -> String {
    let letter = |step: &kevent_aio::StepReport| match &step.result {
        StepResult::Done(_) => 'd',
        StepResult::Failed(_) => 'f',
        StepResult::NotRun => '-',
    };
    let cleaned = |cleanup: &kevent_aio::CleanupReport| match &cleanup.result {
        Ok(_) => cleanup.step.to_string(),
        Err(_) => "!".to_owned(),
    };
    chain.report().map(letter).collect::<String>()
        + &chain.cleanups().map(cleaned).collect::<String>()
}

/// A directory with one file in it.
struct Site {
    dir: tempfile::TempDir,
    root: Fd,
}

impl Site {
    fn new(content: &str) -> Site {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        fs::write(dir.path().join("page"), content).unwrap();
        let root = Arc::new(File::open(dir.path()).unwrap());
        Site { dir, root }
    }

    fn page(&self) -> Open {
        Open::new("page").at(self.root.clone()).beneath()
    }

    fn leaks(&self) -> usize {
        open_on(&self.dir.path().join("page"))
    }
}

#[test]
fn open_statx_header_sendfile_close_is_one_submission_and_one_completion() {
    for builder in engines() {
        let site = Site::new("hello");
        let (server, client) = unix();
        let mut chain = Chain::new();
        let file = chain.open(site.page());
        let stat = chain.statx(file);
        let header = Header::from_stat(stat, |stat| format!("length {};", stat.size));
        let sent = chain.sendfile(server.clone(), file, Span::whole(stat), header);
        chain.send(server, "!");
        chain.close(file);
        let (result, chain) = run(builder, chain);
        assert_eq!(result.unwrap(), 15);
        assert_eq!(outline(&chain), "ddddd");
        assert_eq!(chain.sent(sent).unwrap().body, 5);
        assert_eq!(chain.stat(stat).unwrap().size, 5);
        drop(chain);
        assert_eq!(received(client), "length 5;hello!");
        assert_eq!(site.leaks(), 0);
    }
}

#[test]
fn spans_are_the_bytes_they_name() {
    for builder in engines() {
        let site = Site::new("0123456789");
        let (server, client) = unix();
        let mut chain = Chain::new();
        let file = chain.open(site.page());
        let stat = chain.statx(file);
        chain.sendfile(server.clone(), file, Span::range(2..4), Header::none());
        chain.sendfile(server.clone(), file, Span::to_end(8), Header::bytes("|"));
        let last = Span::new(Value::from(stat.size()).minus(3), 3);
        chain.sendfile(server, file, last, Header::bytes("|"));
        let (result, chain) = run(builder, chain);
        assert_eq!(result.unwrap(), 9);
        // Nobody has closed it in a step, so the chain has, at its end.
        assert_eq!(site.leaks(), 0);
        drop(chain);
        assert_eq!(received(client), "23|89|789");
    }
}

#[test]
fn whichever_step_fails_the_report_says_so_and_the_file_is_closed() {
    type Build = fn(&mut Chain, &Site, Fd);
    let cases: [(Build, &str, i32); 8] = [
        (
            |chain, site, _| {
                let file = chain.open(Open::new("nothing").at(site.root.clone()));
                chain.fsync(file);
                chain.close(file);
            },
            "f--",
            libc::ENOENT,
        ),
        (
            |chain, site, _| {
                let file = chain.open(site.page().write_only());
                chain.read(file, 0, 10);
                chain.close(file);
            },
            "df-0",
            libc::EBADF,
        ),
        (
            |chain, site, _| {
                let file = chain.open(site.page());
                chain.statx(file);
                chain.write(file, 0, "x");
                chain.fsync(file);
                chain.close(file);
            },
            "ddf--0",
            libc::EBADF,
        ),
        (
            |chain, site, _| {
                let file = chain.open(site.page());
                chain.fallocate(file, 0, 10);
                chain.close(file);
            },
            "df-0",
            libc::EBADF,
        ),
        (
            |chain, _, _| {
                let file = chain.open(Open::new("/proc/self/status"));
                chain.fsync(file);
                chain.close(file);
            },
            "df-0",
            libc::EINVAL,
        ),
        (
            |chain, _, _| {
                let file = chain.open(Open::new("/proc/self/status"));
                chain.fdatasync(file);
                chain.close(file);
            },
            "df-0",
            libc::EINVAL,
        ),
        (
            |chain, site, socket| {
                let page = chain.open(site.page());
                let file = chain.open(Open::new(".").at(site.root.clone()));
                chain.sendfile(socket.clone(), file, Span::range(0..5), Header::bytes("head"));
                chain.send(socket, "tail");
                chain.close(file);
                chain.close(page);
            },
            "ddf---10",
            libc::EISDIR,
        ),
        (
            |chain, site, socket| {
                let file = chain.open(site.page());
                chain.sendfile(socket.clone(), file, Span::range(0..99), Header::none());
                chain.send(socket, "tail");
                chain.close(file);
            },
            "df--0",
            0,
        ),
    ];
    for (number, (build, expected, errno)) in cases.iter().enumerate() {
        for builder in engines() {
            let site = Site::new("hello");
            let (server, client) = unix();
            let mut chain = Chain::new();
            build(&mut chain, &site, server.clone());
            drop(server);
            let (result, chain) = run(builder, chain);
            let error = result.unwrap_err();
            match *errno {
                0 => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
                errno => assert_eq!(error.raw_os_error(), Some(errno), "case {number}"),
            }
            assert_eq!(outline(&chain), *expected, "case {number}");
            assert_eq!(chain.failed().unwrap().0, expected.find('f').unwrap());
            assert_eq!(site.leaks(), 0, "case {number}");
            assert_eq!(chain.moved(), if *errno == 0 { 5 } else { 0 });
            drop(chain);
            assert_eq!(received(client).len(), if *errno == 0 { 5 } else { 0 });
        }
    }
}

#[test]
fn a_copy_is_written_whole_and_synced() {
    for builder in engines() {
        let site = Site::new(&"0123456789".repeat(50_000));
        let mut chain = Chain::new();
        let from = chain.open(site.page());
        let to = chain.open(Open::new("copy").at(site.root.clone()).write_only().create(0o600));
        chain.fallocate(to, 0, 500_000);
        let data = chain.read(from, 5, 1_000_000);
        chain.write(to, 5, data);
        chain.fdatasync(to);
        chain.fsync(to);
        chain.close(from);
        chain.close(to);
        let (result, chain) = run(builder, chain);
        assert_eq!(result.unwrap(), 2 * 499_995);
        assert_eq!(outline(&chain), "ddddddddd");
        assert_eq!(chain.data(data).unwrap().len(), 499_995);
        let copy = fs::read(site.dir.path().join("copy")).unwrap();
        assert!(copy[5..] == fs::read(site.dir.path().join("page")).unwrap()[5..]);
        assert_eq!(site.leaks() + open_on(&site.dir.path().join("copy")), 0);
    }
}

#[test]
fn a_kept_file_is_handed_over_also_by_a_chain_that_failed() {
    for fails in [false, true] {
        for builder in engines() {
            let site = Site::new("hello");
            let mut chain = Chain::new();
            let file = chain.open(site.page());
            chain.keep(file);
            if fails {
                chain.write(file, 0, "x");
            }
            let (result, mut chain) = run(builder, chain);
            assert_eq!(result.is_err(), fails);
            let kept = File::from(chain.take_file(file).unwrap());
            assert!(chain.take_file(file).is_none());
            assert_eq!(io::read_to_string(kept).unwrap(), "hello");
            assert_eq!(site.leaks(), 0);
        }
    }
}

#[test]
fn a_chain_that_is_not_wired_right_is_refused_and_given_back() {
    type Build = fn(&mut Chain, &Site);
    let cases: [(Build, &str); 7] = [
        (
            |chain, site| {
                let foreign = Chain::new().open(site.page());
                chain.open(site.page());
                chain.statx(foreign);
            },
            "step 1 (Statx) of the chain uses a step of another chain",
        ),
        (
            |chain, site| {
                let file = chain.open(site.page());
                chain.close(file);
                chain.read(file, 0, 1);
            },
            "step 2 (Read) of the chain uses the file of step 0 (Open) after the step that closes it",
        ),
        (
            |chain, site| {
                let file = chain.open(site.page());
                chain.close(file);
                chain.close(file);
            },
            "after the step that closes it",
        ),
        (
            |chain, site| {
                let file = chain.open(site.page());
                chain.keep(file);
                chain.close(file);
            },
            "closes a file that is to be kept",
        ),
        (
            |chain, _| {
                chain.send(unix().0, "a");
                let other = unix().0;
                chain.send(other, "b");
            },
            "another socket",
        ),
        (
            |chain, site| {
                let file = chain.open(site.page());
                chain.fallocate(file, u64::MAX, 1);
            },
            "bad range",
        ),
        (
            |chain, _| {
                chain.open(Open::new("zero\0byte"));
            },
            "zero byte",
        ),
    ];
    for (build, text) in cases {
        let (mut queue, aio) = queue(Aio::builder());
        let site = Site::new("hello");
        let mut chain = Chain::new();
        build(&mut chain, &site);
        let steps = chain.report().len();
        let refused = queue[aio].submit(chain, 1).unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::InvalidInput);
        assert!(refused.error.to_string().contains(text), "{}", refused.error);
        assert_eq!(outline(&into_chain(refused.op)), "-".repeat(steps));
        assert_eq!(queue[aio].in_flight(), 0);
    }
}

/// Refused with that text, and nothing else happens.
fn refused(chain: Chain, text: &str) {
    let (mut queue, aio) = queue(Aio::builder());
    let refused = queue[aio].submit(chain, 1).unwrap_err();
    assert_eq!(refused.error.kind(), io::ErrorKind::InvalidInput);
    assert!(refused.error.to_string().contains(text), "{}", refused.error);
    assert!(into_chain(refused.op).report().all(|step| step.runs == 0));
    assert_eq!(queue[aio].in_flight(), 0);
}

fn never() -> Condition {
    Condition::equal(0, 1)
}

#[test]
fn what_may_not_be_there_is_not_used() {
    type Build = fn(&mut Chain);
    let cases: [(Build, &str); 8] = [
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                chain.stop(file, Stop::Never);
                chain.statx(file);
            },
            "step 1 (Statx) of the chain uses the file of step 0 (Open), and that may not be open",
        ),
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                let mut read = Vec::new();
                chain.branch(never(), |chain| read.push(chain.read(file, 0, 9)), |_| ());
                chain.write(file, 0, read[0]);
            },
            "step 3 (Write) of the chain uses what step 2 (Read) gives, and that may not have run",
        ),
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                chain.branch(
                    never(),
                    |chain| {
                        chain.close(file);
                    },
                    |_| (),
                );
                chain.fsync(file);
            },
            "may not be open",
        ),
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                let stat = chain.statx(file);
                chain.stop(stat, Stop::Never);
                chain.read(file, 0, stat.size());
            },
            "uses what step 1 (Statx) gives",
        ),
        (
            // Known to be open only where it was asked, and closed there.
            |chain| {
                let file = chain.open(Open::new("a"));
                chain.stop(file, Stop::Never);
                let opened = || Condition::succeeded(file);
                chain.branch(
                    opened(),
                    |chain| {
                        chain.close(file);
                    },
                    |_| (),
                );
                chain.branch(
                    opened(),
                    |chain| {
                        chain.fsync(file);
                    },
                    |_| (),
                );
            },
            "step 4 (Fsync) of the chain uses the file of step 0 (Open)",
        ),
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                let of_loop = chain.repeat(9, |chain| {
                    chain.leave_if(never());
                    chain.read(file, 0, 9);
                });
                // The first round may have been left before the read.
                let read = of_loop.count();
                chain.fallocate(file, 0, read);
                let foreign = Chain::new().open(Open::new("a"));
                chain.close(foreign);
            },
            "step 5 (Close) of the chain uses a step of another chain",
        ),
        (
            |chain| {
                let stream = Chain::new().transform(Nothing);
                chain.finish(stream);
            },
            "step 0 (Finish) of the chain uses a step of another chain",
        ),
        (
            |chain| {
                let foreign = Chain::new().variable(1);
                chain.add(foreign, 1);
            },
            "another chain",
        ),
    ];
    for (build, text) in cases {
        let mut chain = Chain::new();
        build(&mut chain);
        refused(chain, text);
    }
}

struct Nothing;

impl Transform for Nothing {
    fn feed(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn loops_have_an_end_and_leave_nothing_open_behind_them() {
    type Build = fn(&mut Chain);
    let cases: [(Build, &str); 8] = [
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                chain.repeat(9, |chain| {
                    chain.read(file, 0, 9);
                });
            },
            "step 1 (Loop) of the chain is a loop without a way out",
        ),
        (
            |chain| {
                chain.repeat(9, |chain| {
                    chain.leave_if(never());
                    chain.open(Open::new("a"));
                });
            },
            "step 0 (Loop) of the chain is a loop that opens a file, and goes on without closing",
        ),
        (
            |chain| {
                let file = chain.open(Open::new("a"));
                chain.repeat(9, |chain| {
                    chain.leave_if(never());
                    chain.close(file);
                });
            },
            "step 1 (Loop) of the chain is a loop that closes a file from outside",
        ),
        (
            |chain| {
                chain.repeat(0, |chain| {
                    chain.leave_if(never());
                });
            },
            "between 1 and",
        ),
        (
            |chain| {
                chain.repeat(1 << 30, |chain| {
                    chain.leave_if(never());
                    chain.repeat(1 << 11, |chain| {
                        chain.leave_if(never());
                    });
                });
            },
            "step 2 (Loop) of the chain is a loop of 2048 rounds, with those around it 2199023255552",
        ),
        (
            |chain| {
                chain.repeat(9, |chain| {
                    chain.leave_if(never());
                    chain.defer(Unlink::new("a"), When::Always);
                });
            },
            "step 2 (Defer) of the chain runs only once",
        ),
        (
            |chain| {
                chain.repeat(9, |chain| {
                    let file: Fd = Arc::new(File::open("/dev/null").unwrap());
                    let read = chain.operation(Read::new(file, 0, Vec::new()));
                    chain.stop(read, Stop::Zero);
                });
            },
            "step 1 (Read) of the chain runs only once",
        ),
        (
            |chain| {
                chain.branch(
                    never(),
                    |chain| {
                        chain.fail_if(never(), io::ErrorKind::Other);
                    },
                    |_| (),
                );
                fn deep(chain: &mut Chain, left: u32) {
                    if left > 0 {
                        chain.branch(never(), |chain| deep(chain, left - 1), |_| ());
                    }
                }
                deep(chain, 9);
            },
            "within more than 8 loops and branches",
        ),
    ];
    for (build, text) in cases {
        let mut chain = Chain::new();
        build(&mut chain);
        refused(chain, text);
    }
}

#[test]
fn chains_have_bounds_and_only_steps_that_they_can_do() {
    let mut chain = Chain::new();
    let at = chain.variable(0);
    (0..129).for_each(|_| {
        chain.add(at, 1);
    });
    refused(chain, "the chain has 129 steps, and 128 are the most");

    let mut chain = Chain::new();
    let at = chain.variable(0);
    chain.set(at, (0..16).fold(Value::from(0), |value, more| value.plus(more)));
    refused(chain, "step 0 (Set) of the chain has a value of more than 16 operands");

    let mut chain = Chain::new();
    chain.operation(Chain::new());
    refused(chain, "step 0 (Chain) of the chain is a chain itself");
    let mut chain = Chain::new();
    chain.operation(Group::all());
    refused(chain, "step 0 (Group) of the chain is a group");

    let mut chain = Chain::new();
    chain.operation(Sendfile::bytes(unix().0, "a"));
    refused(chain, "step 0 (Sendfile) of the chain sends to a socket");

    let mut chain = Chain::new();
    chain.defer(Unlink::new("zero\0byte"), When::Failed);
    refused(chain, "step 0 (Defer) of the chain can't be done: the path has a zero byte in it");

    let mut chain = Chain::new();
    let file = chain.open(Open::new("a"));
    let closed = chain.close(file);
    chain.stop(closed, Stop::Short);
    refused(chain, "step 1 (Close) of the chain can't be told to stop at Short");

    let mut chain = Chain::new();
    let leave = |chain: &mut Chain| {
        chain.leave_if(never());
    };
    let file = chain.open(Open::new("a"));
    chain.repeat(9, |chain| {
        let read = chain.read(file, 0, 9);
        chain.stop(read, Stop::Zero);
        chain.branch(never(), leave, leave);
    });
    // That one is fine: a leave may not happen.
    let (mut queue, aio) = queue(Aio::builder());
    queue[aio].submit(chain, 1).unwrap();
}

#[test]
fn a_chain_runs_once() {
    let site = Site::new("hello");
    let mut chain = Chain::new();
    chain.open(site.page());
    let (_, chain) = run(Aio::builder(), chain);
    let (mut queue, aio) = queue(Aio::builder());
    let refused = queue[aio].submit(chain, 1).unwrap_err();
    assert!(refused.error.to_string().contains("build another"));
}

#[test]
fn a_cancelled_chain_closes_its_file_and_lets_the_next_one_go() {
    for builder in engines() {
        let site = Site::new(&"0123456789".repeat(200_000));
        let (server, mut client) = unix();
        let (mut queue, aio) = queue(builder);
        let mut chain = Chain::new();
        let file = chain.open(site.page());
        let sent = chain.sendfile(server.clone(), file, Span::to_end(0), Header::none());
        chain.close(file);
        let token = queue[aio].submit(chain, 1).unwrap();
        queue[aio].submit(Sendfile::bytes(server.clone(), "next"), 2).unwrap();
        // It is over with the opening when the socket is full.
        assert_eq!(queue.wait(Duration::from_millis(100)).unwrap(), 0);
        assert_eq!(site.leaks(), 1);
        queue[aio].cancel(token);
        let completion = next(&mut queue);
        assert!(completion.was_cancelled());
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        let chain = into_chain(*completion.op);
        assert_eq!(outline(&chain), "df-0");
        assert_eq!(site.leaks(), 0);
        let sent = chain.sent(sent).unwrap().body;
        assert!(sent > 0 && sent < 2_000_000);
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; sent as usize + 4];
            client.read_exact(&mut got).unwrap();
            got
        });
        assert_eq!(next(&mut queue).key, 2);
        assert!(reader.join().unwrap().ends_with(b"next"));
    }
}

#[test]
fn chains_to_one_socket_follow_each_other() {
    for builder in engines() {
        let (server, client) = unix();
        let (mut queue, aio) = queue(builder);
        let mut expected = String::new();
        let site = Site::new("page;");
        for key in 0..20 {
            let mut chain = Chain::new();
            let file = chain.open(site.page());
            let head = Header::bytes(format!("{key}:"));
            chain.sendfile(server.clone(), file, Span::to_end(0), head);
            expected += &format!("{key}:page;");
            queue[aio].submit(chain, key).unwrap();
        }
        drop(server);
        for key in 0..20 {
            let completion = next(&mut queue);
            assert_eq!(completion.key, key);
            completion.result.unwrap();
        }
        assert_eq!(received(client), expected);
        assert_eq!(site.leaks(), 0);
    }
}

#[test]
fn on_a_backend_that_lies_a_copy_is_right_or_the_chain_has_failed() {
    let mut copied = 0;
    for seed in 0..60 {
        let site = Site::new(&"0123456789".repeat(1000));
        let mut chain = Chain::new();
        let from = chain.open(site.page());
        let to = chain.open(Open::new("copy").at(site.root.clone()).write_only().create(0o600));
        let data = chain.read(from, 0, 20_000);
        chain.write(to, 0, data);
        chain.close(to);
        chain.close(from);
        let (result, chain) = run(testing::lying(Aio::builder(), seed), chain);
        match result {
            Ok(count) => {
                assert_eq!(count, 20_000);
                let copy = fs::read(site.dir.path().join("copy")).unwrap();
                assert!(copy == "0123456789".repeat(1000).as_bytes());
                copied += 1;
            }
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::EAGAIN)));
                assert!(chain.failed().is_some());
            }
        }
        drop(chain);
    }
    assert!(copied > 3, "only {copied} of 60 succeeded");
}
