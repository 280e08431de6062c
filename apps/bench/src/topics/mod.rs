//! The topics. A new one is a file here and a line in each of the two lists.

mod aio;
mod echo;
mod memory;
mod readiness;
mod timers;
mod user;
mod watch;

use crate::group::Topic;

/// In the order in which they are measured.
pub(crate) const TOPICS: &[Topic] = &[
    user::TOPIC,
    readiness::TOPIC,
    timers::TOPIC,
    watch::TOPIC,
    aio::TOPIC,
    echo::TOPIC,
    memory::TOPIC,
];
