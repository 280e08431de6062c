//! Sends a file to whoever connects, with a header and a trailer, and never waits for disk or client.
//!
//! ```text
//! cargo run -p kevent-examples --bin sendfile FILE [ADDR:PORT]
//! ```

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kevent_aio::{Aio, Completion, Fd, Op, Sendfile};
use kevent_core::{Queue, Wait};
use kevent_net::{Interest, Mode, Readiness, socket};

enum Event {
    Client,
    Sent(Completion),
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or_else(|| io::Error::other("which FILE is to be sent?"))?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".into());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let file: Fd = Arc::new(File::open(path)?);

    let mut queue = Queue::new()?;
    let readiness = queue.attach(Readiness::new(), |_| Event::Client)?;
    let aio = queue.attach(Aio::new()?, Event::Sent)?;
    let listener = socket::listen(address)?;
    queue[readiness].register(&listener, Interest::READABLE, Mode::Level, 0)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        queue.wait(Wait::forever())?;
        while let Some(event) = queue.next() {
            match event {
                Event::Client => {
                    while let Some((stream, _)) = socket::accept(&listener)? {
                        // One unit: nothing gets in between, whatever else is sent to the socket.
                        let transfer =
                            Sendfile::new(Arc::new(stream), Arc::clone(&file), 0, Sendfile::TO_END)
                                .header("-- begin --\n")
                                .trailer("-- end --\n");
                        queue[aio].submit(transfer, 0)?;
                    }
                }
                // The completion has the last hold on the socket: dropping it closes.
                Event::Sent(done) => match (done.result, *done.op) {
                    (Ok(bytes), _) => println!("sent {bytes} bytes"),
                    (Err(error), Op::Sendfile(transfer)) => {
                        println!("{} bytes, then {error}", transfer.sent().total());
                    }
                    (Err(error), _) => println!("{error}"),
                },
            }
        }
    }
}
