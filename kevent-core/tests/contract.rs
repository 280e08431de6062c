//! The contract suite over every source of this crate.

use kevent_core::UserEvents;
use kevent_core::testing::Contract;

#[test]
fn user_events_keep_the_contract() {
    Contract::new(UserEvents::new)
        .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n).unwrap()))
        .check();
}
