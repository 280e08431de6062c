//! Copies a file by way of a temporary one, which has the name only when all of it is on the disk.
//!
//! One chain: a loop reads and writes until the file ends, and whatever goes wrong, nothing of the
//! temporary file stays.
//!
//! ```text
//! cargo run -p kevent-examples --bin copy FROM TO
//! ```

use std::ffi::OsString;
use std::io;

use kevent_aio::{Aio, Chain, Op, Open, Rename, Stop, Unlink, When};
use kevent_core::Queue;

/// Bytes that are read and written at once.
const PIECE: u64 = 128 * 1024;

/// So many pieces at most: a terabyte.
const PIECES: u64 = 1 << 23;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        let text = "say what to copy, and whereto: copy FROM TO";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let mut queue = Queue::new()?;
    let aio = queue.attach(Aio::new()?, |completion| completion)?;
    queue[aio].submit(copy(from, to), 0)?;
    let completion = loop {
        queue.wait(None)?;
        if let Some(completion) = queue.next() {
            break completion;
        }
    };
    if let Op::Chain(chain) = &*completion.op {
        for step in chain.report() {
            println!("{}: {} times, {} bytes, {:?}", step.name, step.runs, step.moved, step.result);
        }
        for cleanup in chain.cleanups() {
            println!("cleaned up behind step {}: {:?}", cleanup.step, cleanup.result);
        }
    }
    completion.result.map(drop)
}

fn copy(from: OsString, to: OsString) -> Chain {
    let mut temporary = to.clone();
    temporary.push(".tmp");
    let mut chain = Chain::new();
    let source = chain.open(Open::new(from));
    let target = chain.open(Open::new(&temporary).write_only().create_new(0o666));
    // Behind the open: a file that was there before is somebody else's, and not ours to remove.
    chain.defer(Unlink::new(&temporary), When::Failed);
    let position = chain.variable(0);
    chain.repeat(PIECES, |chain| {
        let piece = chain.read(source, position, PIECE);
        chain.stop(piece, Stop::Zero);
        chain.write(target, position, piece);
        chain.add(position, piece.count());
    });
    chain.fsync(target);
    chain.close(target);
    chain.operation(Rename::new(temporary, to));
    chain
}
