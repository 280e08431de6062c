//! Every registration with its tree, and who of them is told of an event.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use kevent_core::{Sink, Table, Token};

use crate::change::Change;
use crate::intake::{Event, Mask, Wd};
use crate::registration::{Closed, Registration, Scope, Work};
use crate::rename::Recent;
use crate::scan::Pass;
use crate::tree::NodeId;
use crate::watches::{Holder, Watches};

/// An entry of a watched directory, as the kernel names it.
pub(crate) type Spot<'a> = (Wd, &'a OsStr);

pub(crate) struct Trees {
    pub(crate) watches: Watches,
    pub(crate) registrations: Table<Registration>,
    /// What the ring had no room for.
    pub(crate) told: VecDeque<Change>,
    recent: Recent,
}

impl Trees {
    pub(crate) fn new(watches: Watches) -> Trees {
        Trees {
            watches,
            registrations: Table::new(),
            told: VecDeque::new(),
            recent: Recent::default(),
        }
    }

    pub(crate) fn register(&mut self, path: &Path, key: u64, scope: Scope) -> io::Result<Token> {
        let registration = Registration::new(path, key, scope);
        let root = registration.tree.root();
        let wd = self.watches.add(path, registration.target(root))?;
        let token = self.registrations.insert(registration);
        self.watches.hold(wd, token, root);
        self.at_work(token, &mut Closed, |work| {
            if let Some(root) = work.tree().get_mut(root) {
                root.wd = Some(wd);
            }
            if scope != Scope::File {
                work.scan(root, Pass::Before);
            }
        });
        Ok(token)
    }

    pub(crate) fn unregister(&mut self, token: Token) -> bool {
        self.at_work(token, &mut Closed, |work| work.let_go());
        self.told.retain(|change| change.token != token);
        let stood = self.registrations.remove(token).is_some();
        self.feed(&mut Closed);
        stood
    }

    /// Anything but a rename.
    pub(crate) fn happened(&mut self, event: &Event<'_>, sink: &mut dyn Sink<Change>) {
        let Event { wd, mask, name, .. } = *event;
        if mask.contains(Mask::Q_OVERFLOW) {
            self.watches.overflowed();
            self.all_at_work(sink, |work| work.overflowed());
        } else if mask.contains(Mask::IGNORED) {
            for (token, node) in self.watches.ignored(wd) {
                self.at_work(token, sink, |work| work.ignored(node));
            }
        } else if let [(token, node)] = *self.watches.holders(wd) {
            self.at_work(token, sink, |work| work.event(node, name, mask));
        } else {
            for (token, node) in self.watches.holders(wd).to_vec() {
                self.at_work(token, sink, |work| work.event(node, name, mask));
            }
        }
    }

    /// Each registration that has one end of the rename is told of it, those that have both once.
    pub(crate) fn renamed(
        &mut self,
        from: Option<Spot<'_>>,
        to: Option<Spot<'_>>,
        is_dir: bool,
        sink: &mut dyn Sink<Change>,
    ) {
        let holders =
            |spot: Option<Spot<'_>>| spot.map_or(&[][..], |(wd, _)| self.watches.holders(wd));
        let exchanged = self.recent.takes_back(from, to);
        let mut ends = Vec::with_capacity(1);
        for &(token, node) in holders(from) {
            ends.push((token, Some(node), find(holders(to), token)));
        }
        for &(token, node) in holders(to) {
            if find(holders(from), token).is_none() {
                ends.push((token, None, Some(node)));
            }
        }
        for (token, source, target) in ends {
            let from = source.zip(from.map(|(_, name)| name));
            let to = target.zip(to.map(|(_, name)| name));
            self.at_work(token, sink, |work| work.renamed(from, to, is_dir, exchanged));
        }
    }

    /// One change of a registration is told, or lost. One that has ended goes with its last change.
    pub(crate) fn set_undelivered(&mut self, token: Token, undelivered: usize) {
        let Some(registration) = self.registrations.get_mut(token) else { return };
        registration.undelivered = undelivered;
        if registration.ended && undelivered == 0 {
            self.registrations.remove(token);
        }
    }

    /// Gives watches that got free to directories that have none.
    pub(crate) fn feed(&mut self, sink: &mut dyn Sink<Change>) {
        if self.watches.take_freed() {
            self.all_at_work(sink, |work| work.feed());
        }
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.registrations.iter().map(|(token, _)| token).collect()
    }

    fn at_work(
        &mut self,
        token: Token,
        sink: &mut dyn Sink<Change>,
        act: impl FnOnce(&mut Work<'_>),
    ) {
        let Some(registration) = self.registrations.get_mut(token) else { return };
        if registration.ended {
            return;
        }
        let (watches, told) = (&mut self.watches, &mut self.told);
        act(&mut Work { token, registration, watches, sink, told });
    }

    fn all_at_work(&mut self, sink: &mut dyn Sink<Change>, act: impl Fn(&mut Work<'_>)) {
        for token in self.tokens() {
            self.at_work(token, sink, &act);
        }
    }
}

fn find(holders: &[Holder], token: Token) -> Option<NodeId> {
    holders.iter().find(|holder| holder.0 == token).map(|holder| holder.1)
}
