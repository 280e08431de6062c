//! Asynchronous I/O: each operation completes once, with what was in the file, or is abandoned.

use std::io::{Seek, Write as _};
use std::sync::Arc;

use kevent_aio::{Aio, Choice, Completion, Fd, Op, Read, Write};
use kevent_core::{Queue, SourceId, Token};

use crate::dice::Dice;
use crate::ledger::{Once, Tally};
use crate::loads::Event;

pub(crate) struct AioLoad {
    id: SourceId<Aio>,
    file: Fd,
    operations: Once<Operation>,
    pub(crate) tally: Tally,
}

struct Operation {
    token: Token,
    offset: u64,
    len: usize,
}

const LEN: usize = 1 << 16;

impl AioLoad {
    pub(crate) fn new(queue: &mut Queue<Event>, dice: &mut Dice) -> AioLoad {
        let choice = if dice.once_in(2) { Choice::Pool } else { Choice::Auto };
        let aio = Aio::builder().backend(choice).build().expect("an engine");
        let id = queue.attach(aio, |completion| Event::Aio(Box::new(completion)));
        let id = id.expect("an engine attaches");
        let mut file = tempfile::tempfile().expect("a file of our own");
        let content: Vec<u8> = (0..LEN as u64).map(byte_at).collect();
        file.write_all(&content).expect("room for the file");
        file.rewind().expect("a file has a beginning");
        AioLoad { id, file: Arc::new(file), operations: Once::new(32), tally: Tally::default() }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice) {
        let place = self.operations.pick(dice);
        let aio = &mut queue[self.id];
        if let Some(operation) = self.operations.get(place) {
            match dice.below(10) {
                // A completion comes all the same, or is in the hands of a thread.
                0 => drop(aio.cancel(operation.token)),
                1 if aio.abandon(operation.token) => {
                    self.operations.empty(place);
                    self.tally.taken_back += 1;
                }
                _ => {}
            }
            return;
        }
        let (len, offset) = (1 + dice.below(4096), dice.roll() % (LEN as u64 - 4096));
        let op = if dice.once_in(4) {
            let content: Vec<u8> = (offset..offset + len as u64).map(byte_at).collect();
            Op::from(Write::new(Arc::clone(&self.file), offset, content))
        } else {
            Op::from(Read::new(Arc::clone(&self.file), offset, Vec::with_capacity(len)))
        };
        self.operations.fill(place, |key| {
            let token = aio.submit(op, key).expect("the engine has room");
            Operation { token, offset, len }
        });
        self.tally.provoked += 1;
    }

    pub(crate) fn told(&mut self, completion: Completion) {
        let operation = self.operations.take(completion.key);
        let operation = operation.expect("once, and not after it was abandoned");
        assert_eq!(operation.token, completion.token);
        self.tally.told += 1;
        if completion.was_cancelled() {
            return;
        }
        let done = completion.result.expect("reading and writing a file works");
        assert!((1..=operation.len as u64).contains(&done), "{done} of {} bytes", operation.len);
        if let Op::Read(read) = *completion.op {
            let content = read.into_buffer();
            let right = (operation.offset..).map(byte_at).take(content.len());
            assert!(content.iter().copied().eq(right), "what was read is not what was written");
        }
    }
}

/// What is in the file there.
fn byte_at(offset: u64) -> u8 {
    (offset % 251) as u8
}
