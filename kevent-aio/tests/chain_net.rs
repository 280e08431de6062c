//! Chains with sockets: what they wait for they wait for without a thread, on every backend, and what has
//! come is lost by no end.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{self, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{
    Accept, Aio, Buffers, Chain, Completion, Condition, Connect, Data, Fd, Header, Op, Open,
    Opened, Recv, RecvFrom, RecvMany, Send, SendTo, Shutdown, Span, StepId, StepResult, Stop,
    Value, When,
};
use rustix::net::{AddressFamily, SocketType};

use common::{Bench, engines};

fn listener() -> (Arc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (Arc::new(listener), address)
}

fn into_chain(op: Op) -> Chain {
    match op {
        Op::Chain(chain) => chain,
        other => panic!("{other:?} was not submitted"),
    }
}

fn ended(completion: Completion) -> (io::Result<u64>, Chain) {
    (completion.result, into_chain(*completion.op))
}

/// The threads of this process that belong to a pool.
fn workers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.trim() == "kevent-aio").count()
}

fn errno(result: io::Result<u64>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn what_a_connection_brings_is_written_to_a_file() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("got");
        let (listener, address) = listener();
        let mut chain = Chain::new();
        let connection = chain.accept(Accept::new(listener));
        let file = chain.open(Open::new(&path).write_only().create(0o600));
        let position = chain.variable(0);
        chain.repeat(1_000, |chain| {
            let piece = chain.recv(connection, 4096);
            chain.stop(piece, Stop::Zero);
            let written = chain.write(file, position, piece);
            chain.add(position, written.count());
        });
        chain.send(connection, "thanks");
        chain.close(connection);
        chain.close(file);
        bench.submit(chain, 1);
        bench.is_silent();
        let mut client = TcpStream::connect(address).unwrap();
        let sent = [7; 100_000];
        client.write_all(&sent[..50_000]).unwrap();
        bench.is_silent();
        client.write_all(&sent[50_000..]).unwrap();
        client.shutdown(net::Shutdown::Write).unwrap();
        let (result, chain) = ended(bench.next());
        assert_eq!(result.unwrap(), 2 * 100_000 + 6);
        assert_eq!(chain.peer(connection).unwrap().ip(), Some(client.local_addr().unwrap()));
        assert_eq!(chain.cleanups().len(), 0, "all was closed by steps");
        assert_eq!(fs::read(path).unwrap(), sent);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "thanks");
    }
}

#[test]
fn question_is_asked_and_answered_by_two_chains() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("page"), "0123456789").unwrap();
        let (listener, address) = listener();

        let mut server = Chain::new();
        let connection = server.accept(Accept::new(listener));
        let question = server.recv_all(connection, 4);
        let known = Condition::holds(question, b"page".as_slice());
        server.fail_if(!known, io::ErrorKind::InvalidData);
        let page = server.open(Open::new(dir.path().join("page")));
        server.sendfile(connection, page, Span::to_end(0), Header::bytes("10:"));
        server.shutdown(connection, net::Shutdown::Write);

        let socket: Fd =
            Arc::new(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
        let mut client = Chain::new();
        client.operation(Connect::new(socket.clone(), address));
        client.send(socket.clone(), "page");
        let head = client.recv_all(socket.clone(), 3);
        let rest = client.recv_all(socket.clone(), 1000);
        client.stop(rest, Stop::Short);
        client.operation(Shutdown::new(socket, net::Shutdown::Both));

        bench.submit(server, 1);
        bench.submit(client, 2);
        for _ in 0..2 {
            let completion = bench.next();
            let key = completion.key;
            let (result, chain) = ended(completion);
            assert_eq!(result.unwrap(), 4 + 3 + 10);
            if key == 2 {
                assert_eq!(chain.data(head).unwrap(), b"10:");
                assert_eq!(chain.data(rest).unwrap(), b"0123456789");
            }
        }
    }
}

/// Accepts connections until one says nothing, and gives back whatever the others say.
fn echo(listener: Arc<TcpListener>) -> Chain {
    let mut chain = Chain::new();
    chain.repeat(1_000, |chain| {
        let connection = chain.accept(Accept::new(listener).nonblocking());
        let said = chain.recv(connection, 100);
        chain.send(connection, said);
        chain.close(connection);
        chain.leave_if(Condition::equal(said.count(), 0));
    });
    chain
}

#[test]
fn one_chain_serves_one_connection_after_the_other() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let (listener, address) = listener();
        bench.submit(echo(listener), 1);
        let client = std::thread::spawn(move || {
            for number in 0..50 {
                let mut stream = TcpStream::connect(address).unwrap();
                let text = number.to_string();
                stream.write_all(text.as_bytes()).unwrap();
                let mut got = String::new();
                stream.read_to_string(&mut got).unwrap();
                assert_eq!(got, text);
            }
            drop(TcpStream::connect(address).unwrap());
        });
        let (result, chain) = ended(bench.next());
        client.join().unwrap();
        // 0 to 9 take one digit, the others two; each is received and sent.
        assert_eq!(result.unwrap(), 2 * (10 + 2 * 40));
        assert_eq!(chain.report().next().unwrap().runs, 51);
    }
}

#[test]
fn hundreds_of_chains_wait_for_one_listener_and_hold_no_thread() {
    for builder in engines() {
        let mut bench = Bench::new(builder.capacity(400));
        let before = workers();
        let (listener, address) = listener();
        let mut steps = Vec::new();
        for key in 0..300 {
            let mut chain = Chain::new();
            let connection = chain.accept(Accept::new(listener.clone()));
            steps.push(chain.recv_all(connection, 4));
            bench.submit(chain, key);
        }
        bench.turn();
        let mut streams = Vec::new();
        for number in 0..300_u32 {
            let mut stream = TcpStream::connect(address).unwrap();
            // They come to rest in the middle of receiving.
            stream.write_all(&number.to_ne_bytes()[..2]).unwrap();
            streams.push(stream);
            if number % 100 == 99 {
                // The listener takes 128 that nobody has accepted.
                bench.is_silent();
            }
        }
        bench.is_silent();
        assert!(workers() <= before + 1, "{} threads wait", workers() - before);
        for (number, stream) in (0_u32..).zip(&mut streams) {
            stream.write_all(&number.to_ne_bytes()[2..]).unwrap();
        }
        let mut got: Vec<_> = (0..300)
            .map(|_| {
                let completion = bench.next();
                let step = steps[completion.key as usize];
                let (result, chain) = ended(completion);
                assert_eq!(result.unwrap(), 4);
                u32::from_ne_bytes(chain.data(step).unwrap().try_into().unwrap())
            })
            .collect();
        got.sort_unstable();
        assert!(got.into_iter().eq(0..300));
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

/// Waits for a connection, and for ten bytes of it.
struct Guest {
    chain: Chain,
    connection: StepId<Opened>,
    said: StepId<Data>,
}

fn guest(listener: &Arc<TcpListener>, keep: bool) -> Guest {
    let mut chain = Chain::new();
    let connection = chain.accept(Accept::new(listener.clone()));
    if keep {
        chain.keep(connection);
    }
    let said = chain.recv_all(connection, 10);
    Guest { chain, connection, said }
}

#[test]
fn chain_that_ends_while_it_waits_gives_back_what_has_come_and_closes_what_it_has_accepted() {
    for keep in [false, true] {
        for late in [false, true] {
            for builder in engines() {
                let mut bench = Bench::new(builder);
                let (listener, address) = listener();
                let Guest { chain, connection, said } = guest(&listener, keep);
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(b"seven..").unwrap();
                let token = if late {
                    let soon = Instant::now() + Duration::from_millis(60);
                    bench.aio().submit_until(chain, 1, soon).unwrap()
                } else {
                    bench.submit(chain, 1)
                };
                if !late {
                    bench.is_silent();
                    bench.aio().cancel(token);
                }
                let (result, mut chain) = ended(bench.next());
                let expected = if late { libc::ETIMEDOUT } else { libc::ECANCELED };
                assert_eq!(errno(result), Some(expected));
                assert_eq!(chain.failed().unwrap().0, said.index());
                assert_eq!(chain.data(said).unwrap(), b"seven..");
                assert_eq!(chain.moved(), 7);
                let mut rest = Vec::new();
                if keep {
                    let mut kept = TcpStream::from(chain.take_file(connection).unwrap());
                    kept.write_all(b"sorry").unwrap();
                    drop(kept);
                    client.read_to_end(&mut rest).unwrap();
                    assert_eq!(rest, b"sorry");
                } else {
                    assert!(matches!(chain.cleanups().next(), Some(c) if c.step == 0));
                    assert_eq!(client.read_to_end(&mut rest).unwrap(), 0, "it is closed");
                }
            }
        }
    }
}

#[test]
fn cancelled_first_of_the_chains_that_wait_leaves_the_others_awake() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let (listener, address) = listener();
        let tokens: Vec<_> =
            (0..4).map(|key| bench.submit(guest(&listener, false).chain, key)).collect();
        // And one that is no chain, behind them.
        bench.submit(Accept::new(listener.clone()), 4);
        bench.is_silent();
        let mut cancelled = Vec::new();
        for (token, key) in tokens.into_iter().zip(0_u64..) {
            bench.aio().cancel(token);
            let completion = bench.next();
            assert!(completion.was_cancelled());
            cancelled.push((completion.key, key));
        }
        assert!(cancelled.iter().all(|(key, expected)| key == expected));
        let _client = TcpStream::connect(address).unwrap();
        let completion = bench.next();
        assert_eq!(completion.key, 4);
        completion.result.unwrap();
    }
}

#[test]
fn chain_and_receives_at_one_socket_get_a_datagram_each() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let address = socket.local_addr().unwrap();
        bench.submit(Recv::new(socket.clone(), Vec::with_capacity(9)), 0);
        let mut chain = Chain::new();
        let _all = [(); 3].map(|()| chain.recv(socket.clone(), 9));
        bench.submit(chain, 1);
        bench.submit(Recv::new(socket.clone(), Vec::with_capacity(9)), 2);
        bench.is_silent();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..5 {
            client.send_to(b"x", address).unwrap();
            bench.turn();
        }
        let mut total = 0;
        for _ in 0..3 {
            total += bench.next().result.unwrap();
        }
        assert_eq!(total, 5);
    }
}

#[test]
fn datagrams_go_and_come_within_a_chain() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let [one, two] = [(); 2].map(|()| Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap()));
        let to = two.local_addr().unwrap();
        let mut chain = Chain::new();
        chain.operation(SendTo::new(one.clone(), to, "ask"));
        let from = chain.operation(RecvFrom::new(one.clone(), Vec::with_capacity(100)));
        bench.submit(chain, 1);
        bench.is_silent();
        let mut got = [0; 100];
        let (count, back) = two.recv_from(&mut got).unwrap();
        assert_eq!(&got[..count], b"ask");
        two.send_to(b"answer", back).unwrap();
        let (result, mut chain) = ended(bench.next());
        result.unwrap();
        let Some(Op::RecvFrom(from)) = chain.take_op(from) else { panic!("it is gone") };
        assert_eq!((from.data(), from.from().unwrap().ip()), (b"answer".as_slice(), Some(to)));
    }
}

#[test]
fn chain_that_waits_for_an_answer_keeps_its_place_among_those_who_send() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = Arc::new(near);
        let mut chain = Chain::new();
        chain.send(near.clone(), "one;");
        let answer = chain.recv(near.clone(), 100);
        chain.send(near.clone(), answer);
        bench.submit(chain, 1);
        bench.submit(Send::new(near.clone(), "last"), 2);
        bench.is_silent();
        far.write_all(b"two;").unwrap();
        assert_eq!([bench.next().key, bench.next().key], [1, 2]);
        let mut got = [0; 12];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one;two;last");
    }
}

#[test]
fn nothing_is_received_without_waiting_and_the_end_of_a_stream_stops() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let (listener, address) = listener();
        let far = TcpStream::connect(address).unwrap();
        let near = Arc::new(listener.accept().unwrap().0);
        let mut chain = Chain::new();
        let none = chain.variable(0);
        let nothing = chain.recv(near.clone(), none);
        let end = chain.recv_all(near.clone(), Value::from(nothing.count()).plus(9));
        chain.stop(end, Stop::Short);
        let not_run = chain.recv(near, 9);
        let token = bench.submit(chain, 1);
        bench.is_silent();
        // It can be looked at where the ring does not have it.
        if let Some(Op::Chain(chain)) = bench.aio().get(token) {
            assert!(
                matches!(chain.report().next().unwrap().result, StepResult::Done(0)),
                "{chain:?}"
            );
        }
        (&far).write_all(b"short").unwrap();
        drop(far);
        let (result, chain) = ended(bench.next());
        assert_eq!(result.unwrap(), 5);
        assert_eq!(chain.data(nothing), Some(b"".as_slice()));
        assert_eq!(chain.data(end), Some(b"short".as_slice()));
        assert!(matches!(chain.report().nth(not_run.index()).unwrap().result, StepResult::NotRun));
    }
}

#[test]
fn length_beyond_all_memory_is_an_error_of_the_receive() {
    let mut bench = Bench::new(Aio::builder());
    let (near, _far) = UnixStream::pair().unwrap();
    let mut chain = Chain::new();
    chain.recv(Arc::new(near), u64::MAX >> 2);
    bench.submit(chain, 1);
    assert_eq!(bench.next().result.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
}

#[test]
fn what_no_chain_can_do_with_sockets_is_refused() {
    type Build = fn(&mut Chain, Arc<UnixStream>);
    let cases: [(Build, &str); 8] = [
        (
            |chain, socket| {
                let one = NonZero::new(1).unwrap();
                let page = NonZero::new(4096).unwrap();
                chain.operation(RecvMany::new(socket, &Buffers::new(one, page).unwrap()));
            },
            "step 0 (RecvMany) of the chain has no end",
        ),
        (
            |chain, socket| {
                chain.send(socket, "a");
                chain.operation(Send::new(Arc::new(UnixStream::pair().unwrap().0), "b"));
            },
            "step 1 (Send) of the chain sends to another socket",
        ),
        (
            |chain, _| {
                let blocking = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
                chain.accept(Accept::new(blocking));
            },
            "step 0 (Accept) of the chain accepts from a blocking listener",
        ),
        (
            |chain, _| {
                let connection = chain.accept(Accept::new(listener().0));
                chain.close(connection);
                chain.recv(connection, 9);
            },
            "step 2 (Recv) of the chain uses the file of step 0 (Accept) after",
        ),
        (
            |chain, _| {
                let connection = chain.accept(Accept::new(listener().0));
                chain.stop(connection, Stop::Never);
                chain.send(connection, "a");
            },
            "step 1 (Send) of the chain uses the file of step 0 (Accept), and that may not be open",
        ),
        (
            |chain, socket| {
                chain.defer(Recv::new(socket, Vec::with_capacity(9)), When::Always);
            },
            "step 0 (Defer) of the chain may wait for a socket",
        ),
        (
            |chain, socket| {
                let some = chain.recv(socket, 9);
                chain.stop(some, Stop::Short);
            },
            "step 0 (Recv) of the chain can't be told to stop at Short",
        ),
        (
            |chain, _| {
                let foreign = Chain::new().accept(Accept::new(listener().0));
                chain.shutdown(foreign, net::Shutdown::Both);
            },
            "step 0 (Shutdown) of the chain uses a step of another chain",
        ),
    ];
    for (build, text) in cases {
        let mut bench = Bench::new(Aio::builder());
        let mut chain = Chain::new();
        build(&mut chain, Arc::new(UnixStream::pair().unwrap().0));
        let refused = bench.aio().submit(chain, 1).unwrap_err();
        assert!(refused.error.to_string().contains(text), "{}", refused.error);
    }
}

#[test]
fn connection_is_ended_as_a_clean_up() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Arc::new(near);
        let mut chain = Chain::new();
        chain.defer(Shutdown::new(near.clone(), net::Shutdown::Write), When::Failed);
        chain.fail_if(Condition::equal(1, 1), io::ErrorKind::InvalidData);
        bench.submit(chain, 1);
        let (result, chain) = ended(bench.next());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(matches!(chain.cleanups().next(), Some(c) if c.result.is_ok()));
        let mut rest = Vec::new();
        assert_eq!(far.read_to_end(&mut rest).unwrap(), 0);
    }
}
