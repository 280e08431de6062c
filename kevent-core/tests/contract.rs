//! The contract suite over every source of this crate.

use std::time::Duration;

use kevent_core::testing::Contract;
use kevent_core::{Timers, Token, UserEvents};

#[test]
fn timers_keep_the_contract() {
    Contract::new(|| (Timers::new(), Vec::<Token>::new()))
        .provoke(|timers, armed, count| {
            for key in 0..count as u64 {
                armed.push(timers.after(Duration::from_micros(50 * key), key));
            }
        })
        .remove(|timers, armed| armed.drain(..).for_each(|token| assert!(timers.cancel(token))))
        .check();
}

#[test]
fn user_events_keep_the_contract() {
    Contract::new(UserEvents::new)
        .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n).unwrap()))
        .check();
}
