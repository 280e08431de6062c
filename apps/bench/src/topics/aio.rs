//! Files: read, copied, sent.

mod by_hand;
mod calls;
mod files;
mod kevent;
mod probe;
mod reads;
mod receiver;
mod runtimes;
mod sends;
mod sys;
mod trees;
mod work;

use crate::group::{Group, Topic};

pub(crate) const TOPIC: Topic = Topic {
    name: "aio",
    title: "Files: read, copied, sent",
    groups,
    helper: Some(receiver::receive),
};

fn groups() -> Vec<Group> {
    [reads::groups(), trees::groups(), sends::groups()].into_iter().flatten().collect()
}
