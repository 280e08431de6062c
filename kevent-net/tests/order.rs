//! The strict order over descriptors of several sources.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kevent_core::{Order, Queue, UserEvents};
use kevent_net::{Interest, Mode, Readiness};
use proptest::prelude::*;

const SOCKETS: usize = 3;

proptest! {
    /// Each socket of two sources gets a byte, and posts come in between, before anybody looks; also
    /// through a ring of one: the sockets come out as they were written to, the posts as they were made.
    #[test]
    fn descriptors_come_out_in_the_order_in_which_they_got_ready(
        order in Just((0..2 * SOCKETS).collect::<Vec<_>>()).prop_shuffle(),
        capacity in 1_usize..8,
    ) {
        let mut queue = Queue::with_capacity(capacity.try_into().unwrap()).unwrap();
        queue.set_order(Order::Strict);
        let (users, poster) = UserEvents::new();
        queue.attach(users, |n: u64| n).unwrap();
        let sources: Vec<_> = (0..2)
            .map(|_| queue.attach(Readiness::new(), |event| event.key).unwrap())
            .collect();
        let mut pairs = Vec::new();
        for n in 0..2 * SOCKETS {
            let (here, there) = UnixStream::pair().unwrap();
            let source = &mut queue[sources[n % 2]];
            source.register(&here, Interest::READABLE, Mode::Edge, n as u64).unwrap();
            pairs.push((here, there));
        }
        for n in &order {
            pairs[*n].1.write_all(b"x").unwrap();
            poster.post(100 + *n as u64).unwrap();
        }
        let mut taken = Vec::new();
        while taken.len() < 4 * SOCKETS {
            queue.wait(Duration::from_secs(20)).unwrap();
            taken.extend(queue.next());
        }
        let (posts, sockets): (Vec<u64>, Vec<u64>) = taken.into_iter().partition(|n| *n >= 100);
        let expected: Vec<u64> = order.iter().map(|n| *n as u64).collect();
        prop_assert_eq!(&sockets, &expected);
        prop_assert_eq!(posts, expected.iter().map(|n| 100 + n).collect::<Vec<_>>());
    }
}
