//! The registrations of a source, and the entries of the queue's set through which they hear.
//!
//! epoll takes a descriptor once, so the registrations of one share an entry, which bears the name of
//! one of them. A registration that is alone has the entry as its mode wants it. A shared one is
//! edge-triggered, for all that its registrations together want to know, whatever their modes: so it
//! tells each change, never repeats itself, and is not touched when one of them is enabled, disabled or
//! delivered. Who has to be told of what holds already (level-triggered, or just enabled) asks
//! poll(2), which no other registration notices.

use std::io;
use std::iter;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use kevent_core::{Interest, PollKey, PollSet, Ready, Table, Token, Trigger};

use crate::registration::{Registration, Watch};

/// The registrations of a source.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    /// The queue's set, while the source is attached.
    poll_set: Option<PollSet>,
    table: Table<Registration>,
}

impl Registrations {
    pub(crate) fn attach(&mut self, poll_set: PollSet) {
        self.poll_set = Some(poll_set);
    }

    /// Takes every descriptor out of the set. The registrations end.
    pub(crate) fn detach(&mut self) {
        if let Some(poll_set) = self.poll_set.take() {
            for (token, registration) in self.table.iter() {
                // Of those that share an entry, one has its name.
                let _ = poll_set.delete_raw(registration.fd, token.into());
            }
        }
        // Not a new table: a token of today shall name nothing tomorrow either.
        self.table.drain().for_each(drop);
    }

    /// When the kernel tells what it tells now, if the queue wants to know that.
    pub(crate) fn told_at(&self) -> Option<Instant> {
        self.poll_set.as_ref()?.told_at()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Registration> {
        self.table.get_mut(token)
    }

    /// The registration whose name the entry `key` bears.
    pub(crate) fn find(&self, key: PollKey) -> Option<Token> {
        self.table.find(key)
    }

    /// Whether others share the entry of `token`.
    pub(crate) fn is_shared(&self, token: Token) -> bool {
        self.table.get(token).is_some_and(|registration| registration.next != token)
    }

    /// Adds the registration of `fd` that `make` makes.
    pub(crate) fn add(
        &mut self,
        fd: BorrowedFd<'_>,
        make: impl FnOnce(Token) -> Registration,
    ) -> io::Result<Token> {
        let poll_set = self.poll_set.as_ref().ok_or_else(not_attached)?;
        let token = self.table.try_insert_with(|token| Ok::<_, io::Error>(make(token)))?;
        let added = self.table.get(token).map_or(Ok(()), |registration| {
            let Registration { interest, mode, exclusive, .. } = *registration;
            let add = if exclusive { PollSet::add_exclusive } else { PollSet::add };
            add(poll_set, fd, token.into(), interest, mode.trigger())
        });
        let added = added.or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => self.join(token, error),
            _ => Err(error),
        });
        if added.is_err() {
            self.table.remove(token);
        }
        added.map(|()| token)
    }

    /// Has `token` share the entry that its descriptor has already; it `exists`, the kernel said.
    fn join(&mut self, token: Token, exists: io::Error) -> io::Result<()> {
        let Some(joining) = self.table.get(token).copied() else { return Err(exists) };
        let entry = self.poll_set.as_ref().and_then(|set| set.key_raw(joining.fd));
        let Some(first) = entry.and_then(|key| self.table.find(key)) else { return Err(exists) };
        match self.table.get_mut(first) {
            Some(registration) if !registration.exclusive && !joining.exclusive => {
                registration.share();
            }
            _ => return Err(exists),
        }
        self.link(first, token);
        // Which tells what holds already.
        let arranged = self.arrange(first.into(), first);
        if arranged.is_err() {
            self.unlink(token);
        }
        arranged
    }

    /// Has the entry that goes by `key` tell what `token`, whose name it bears from now on, and those
    /// that share it want to know; beginning with what holds now.
    fn arrange(&self, key: PollKey, token: Token) -> io::Result<()> {
        let poll_set = self.poll_set.as_ref().ok_or_else(not_attached)?;
        let registration = self.table.get(token).ok_or_else(no_such)?;
        let (interest, trigger) = if self.is_shared(token) {
            (self.wanted(token), Trigger::Edge)
        } else if registration.watch == Watch::On {
            (registration.interest, registration.mode.trigger())
        } else {
            // Interest in nothing would not do: hang-up and errors are told all the same, for ever
            // if level-triggered. One-shot, they are told once. Taking the descriptor out of the set
            // would be silent at once, but then it could only be put back by its number, and that
            // may be a stranger's by then.
            (Interest::NONE, Trigger::OneShot)
        };
        poll_set.replace_raw(registration.fd, key, token.into(), interest, trigger)
    }

    /// Sets whether `token`, which is alone, listens. It is as it was when that fails: its descriptor
    /// was closed.
    pub(crate) fn set_watch(&mut self, token: Token, watch: Watch) -> io::Result<()> {
        let registration = self.table.get_mut(token).ok_or_else(no_such)?;
        let before = std::mem::replace(&mut registration.watch, watch);
        let arranged = self.arrange(token.into(), token);
        if let (Err(_), Some(registration)) = (&arranged, self.table.get_mut(token)) {
            registration.watch = before;
        }
        arranged
    }

    /// Gives `token` other terms, under which it listens. It is as it was when that fails. What holds
    /// for its descriptor already, if the kernel is not going to tell.
    pub(crate) fn change(&mut self, token: Token, to: Registration) -> io::Result<Ready> {
        let entry = self.entry(token);
        let wanted = self.wanted(token);
        let registration = self.table.get_mut(token).ok_or_else(no_such)?;
        let before = std::mem::replace(registration, to);
        let changed = match entry {
            // The others need not be told again what they know.
            Some(_) if self.is_shared(token) && self.wanted(token) == wanted => self.ask(token),
            Some(key) => {
                let bearer = self.find(key).unwrap_or(token);
                self.arrange(key, bearer).map(|()| Ready::default())
            }
            None => Err(gone()),
        };
        if let (Err(_), Some(registration)) = (&changed, self.table.get_mut(token)) {
            *registration = before;
        }
        changed
    }

    /// What of its interest holds for the descriptor of `token` now.
    pub(crate) fn ask(&self, token: Token) -> io::Result<Ready> {
        let poll_set = self.poll_set.as_ref().ok_or_else(not_attached)?;
        let registration = self.table.get(token).ok_or_else(no_such)?;
        let ready = poll_set.ready_raw(registration.fd, registration.interest)?;
        let mine = || self.entry(token).is_some_and(|key| poll_set.holds_raw(registration.fd, key));
        if !ready.is_empty() && !mine() {
            return Err(gone());
        }
        Ok(ready)
    }

    /// Whether any of `told` still holds for the descriptor of `token`; also if that can't be found out.
    pub(crate) fn still_holds(&self, token: Token, told: Ready) -> bool {
        let asked = self.poll_set.as_ref().zip(self.table.get(token));
        let now = asked.map(|(poll_set, registration)| {
            poll_set.ready_raw(registration.fd, registration.interest)
        });
        !matches!(now, Some(Ok(now)) if told.bits() & now.bits() == 0)
    }

    /// Ends a registration. What it shared an entry with hears on.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Registration> {
        // Both ways out of the set fail if the descriptor was closed: then it is out.
        if self.is_shared(token) {
            let entry = self.entry(token);
            let heir = self.unlink(token);
            let _ = entry.map(|key| self.arrange(key, heir));
        } else if let Some(poll_set) = &self.poll_set {
            let fd = self.table.get(token)?.fd;
            let _ = poll_set.delete_raw(fd, token.into());
        }
        self.table.remove(token)
    }

    /// The key of `token`'s entry: its own name, or that of another one that shares it. `None` when the
    /// number is not in the set, or for somebody else.
    fn entry(&self, token: Token) -> Option<PollKey> {
        let key = self.poll_set.as_ref()?.key_raw(self.table.get(token)?.fd)?;
        self.sharing(token).any(|sharing| PollKey::from(sharing) == key).then_some(key)
    }

    /// What those that share the entry of `token` want to know, together.
    fn wanted(&self, token: Token) -> Interest {
        let sharing = self.sharing(token).filter_map(|token| self.table.get(token));
        sharing.fold(Interest::NONE, |wanted, registration| wanted | registration.interest)
    }

    /// Those that share the entry of `token`, beginning with itself.
    fn sharing(&self, token: Token) -> impl Iterator<Item = Token> {
        let next = move |at: &Token| Some(self.table.get(*at)?.next).filter(|next| *next != token);
        iter::successors(self.table.get(token).map(|_| token), next)
    }

    /// Puts `token` behind `first`.
    fn link(&mut self, first: Token, token: Token) {
        let Some(registration) = self.table.get_mut(first) else { return };
        let next = std::mem::replace(&mut registration.next, token);
        if let Some(registration) = self.table.get_mut(token) {
            registration.next = next;
        }
    }

    /// Takes `token` out from among those that share its entry, and names one of them.
    fn unlink(&mut self, token: Token) -> Token {
        let Some(next) = self.table.get(token).map(|registration| registration.next) else {
            return token;
        };
        let last = self.sharing(token).last().unwrap_or(token);
        if let Some(registration) = self.table.get_mut(last) {
            registration.next = next;
        }
        if let Some(registration) = self.table.get_mut(token) {
            registration.next = token;
        }
        next
    }
}

fn not_attached() -> io::Error {
    let text = "attach the readiness source to a queue before registering with it";
    io::Error::new(io::ErrorKind::NotConnected, text)
}

pub(crate) fn no_such() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such registration")
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the descriptor was closed, or taken out of the set")
}
