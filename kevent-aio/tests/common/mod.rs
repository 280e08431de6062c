//! What the tests share: an engine of each backend in a queue.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its part.

pub mod counted;
pub mod files;

use std::time::{Duration, Instant};

use kevent_aio::{Aio, Builder, Choice, Completion, Op, SubmitError, testing};
use kevent_core::{Queue, SourceId, Token, Wait};

/// How long a completion may take on a busy machine before it is lost.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing is waited for.
pub const SILENCE: Duration = Duration::from_millis(30);

/// An engine in a queue of its own.
pub struct Bench {
    pub queue: Queue<Completion>,
    pub id: SourceId<Aio>,
}

impl Bench {
    pub fn new(builder: Builder) -> Bench {
        Bench::around(builder.build().expect("an engine"))
    }

    pub fn around(aio: Aio) -> Bench {
        let mut queue = Queue::new().expect("a queue");
        let id = queue.attach(aio, |completion| completion).expect("it attaches");
        Bench { queue, id }
    }

    pub fn aio(&mut self) -> &mut Aio {
        &mut self.queue[self.id]
    }

    pub fn submit(&mut self, op: impl Into<Op>, key: u64) -> Token {
        self.aio().submit(op, key).map_err(|e: SubmitError| e.error).expect("it is taken")
    }

    /// The next completion.
    pub fn next(&mut self) -> Completion {
        self.next_within(PATIENCE).expect("a completion")
    }

    pub fn next_within(&mut self, patience: Duration) -> Option<Completion> {
        next_within(&mut self.queue, patience)
    }

    pub fn is_silent(&mut self) {
        assert!(self.next_within(SILENCE).is_none(), "a completion came that nobody is to see");
    }

    /// Lets the engine hand over what is batched.
    pub fn turn(&mut self) {
        self.queue.wait(Wait::poll()).expect("waiting works");
    }

    /// One operation, to its end.
    pub fn complete(&mut self, op: impl Into<Op>) -> Completion {
        let token = self.submit(op, 42);
        let completion = self.next();
        assert_eq!((completion.token, completion.key), (token, 42));
        completion
    }

    /// One operation, made again as long as the backend fails for no reason.
    pub fn insist(&mut self, op: impl Fn() -> Op) -> Completion {
        for _ in 0..200 {
            let completion = self.complete(op());
            match completion.result.as_ref().map_err(|e| e.raw_os_error()) {
                Err(Some(libc::EIO | libc::EAGAIN)) => {}
                _ => return completion,
            }
        }
        panic!("200 times bad luck");
    }
}

/// Every backend that can be had here, by name.
pub fn honest() -> Vec<(&'static str, Builder)> {
    let mut all = vec![("pool", Aio::builder().backend(Choice::Pool))];
    let uring = || Aio::builder().backend(Choice::Uring);
    match uring().build() {
        Ok(_) => all.push(("uring", uring())),
        // Once in a test, which is a thread.
        Err(error) if !SAID.replace(true) => println!("skipped: {error}"),
        Err(_) => {}
    }
    all
}

thread_local! {
    static SAID: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Those, where the name does not matter.
pub fn engines() -> Vec<Builder> {
    honest().into_iter().map(|(_, builder)| builder).collect()
}

/// An engine in a queue of its own, where no more is wanted.
pub fn queue(builder: Builder) -> (Queue<Completion>, SourceId<Aio>) {
    let Bench { queue, id } = Bench::new(builder);
    (queue, id)
}

pub fn next_within(queue: &mut Queue<Completion>, patience: Duration) -> Option<Completion> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(completion) = queue.next() {
            return Some(completion);
        }
        if Instant::now() >= deadline {
            return None;
        }
        queue.wait(Wait::until(deadline)).expect("waiting works");
    }
}

/// The next completion.
pub fn next(queue: &mut Queue<Completion>) -> Completion {
    next_within(queue, PATIENCE).expect("a completion comes")
}

/// Those, and some that lie.
pub fn all() -> Vec<(&'static str, Builder)> {
    let mut all = honest();
    all.extend((1..4).map(|seed| ("liar", testing::lying(Aio::builder(), seed))));
    all
}
