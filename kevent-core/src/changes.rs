//! Changes to a source as data, so that many can be made in one go.

use std::io;

use crate::source::Source;

/// A source to which changes can be made by [`Queue::change`](crate::Queue::change).
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, TimerChange, Timers};
///
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), |event| event.key)?;
/// let soon = Duration::from_millis(1);
/// let done = queue.change_and_wait(
///     timers,
///     [TimerChange::After(soon, 1), TimerChange::Every(1000 * soon, 2)],
///     None,
/// );
/// let ticking = done.changes[1].as_ref().unwrap();
/// assert_eq!((done.waited?, queue.next()), (1, Some(1)));
/// assert!(queue.change(timers, [TimerChange::Cancel(*ticking)])[0].is_ok());
/// # std::io::Result::Ok(())
/// ```
pub trait Changes: Source {
    /// What can be changed.
    type Change<'c>;

    /// What a change gives back.
    type Done;

    /// Makes one change.
    ///
    /// # Errors
    ///
    /// Those of the method that makes the same change.
    fn change(&mut self, change: Self::Change<'_>) -> io::Result<Self::Done>;
}

/// What became of changes, and of the wait that followed.
#[derive(Debug)]
pub struct Changed<D> {
    /// Of each change, in their order.
    pub changes: Vec<io::Result<D>>,
    /// What [`Queue::wait`](crate::Queue::wait) said.
    pub waited: io::Result<usize>,
}
