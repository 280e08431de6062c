//! open, statx, header and file, close: one submission and one completion.
//!
//! ```text
//! cargo run -p kevent-examples --bin chain FILE
//! ```

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kevent_aio::{Aio, Chain, Header, Op, Open, Span, Value};
use kevent_core::Queue;

fn main() -> io::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| "Cargo.toml".into());
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;

    let mut chain = Chain::new();
    let file = chain.open(Open::new(path).read_only());
    let stat = chain.statx(file);
    // Of the first kilobyte, so that it fits into the socket: this example reads only afterwards.
    let span = Span::new(0, Value::from(stat.size()).min(1024));
    let header = Header::from_stat(stat, |stat| format!("the file has {} bytes\n", stat.size));
    chain.sendfile(Arc::new(ours), file, span, header);
    // Also if a step before fails: a file is closed once, whatever happens.
    chain.close(file);

    let mut queue = Queue::new()?;
    let aio = queue.attach(Aio::new()?, |completion| completion)?;
    queue[aio].submit(chain, 0)?;
    queue.wait(None)?;
    let Some(completion) = queue.next() else { return Ok(()) };
    if let Op::Chain(chain) = &*completion.op {
        for step in chain.report() {
            println!("{}: {:?}", step.name, step.result);
        }
    }
    completion.result?;
    drop(completion.op);
    let mut text = String::new();
    theirs.read_to_string(&mut text)?;
    println!("{}", text.lines().next().unwrap_or_default());
    Ok(())
}
