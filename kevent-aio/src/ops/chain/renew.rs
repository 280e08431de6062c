//! A chain that has run, made ready to run again: for the same with other files, without building it anew.

use std::io;

use super::program::works_on_names;
use super::report::StepResult;
use super::steps::Work;
use super::values::{Opened, StepId};
use super::{Chain, Given, StepReport};
use crate::operation::Operation;
use crate::ops::{Op, Open};

impl Chain {
    /// Makes a chain that has run ready to run again: as it was submitted, except that it has memory
    /// already, and need not be checked again. So many chains of one shape cost less.
    ///
    /// What the last run has given is gone, a file that was kept and that nobody has taken is closed,
    /// variables are what they were at the beginning. [`reopen`](Chain::reopen) gives it other files.
    ///
    /// ```
    /// use kevent_aio::{Aio, Chain, Op, Open};
    /// use kevent_core::Queue;
    ///
    /// let mut queue = Queue::new()?;
    /// let aio = queue.attach(Aio::new()?, |completion| completion)?;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let mut chain = Chain::new();
    /// let file = chain.open(Open::new("-"));
    /// let text = chain.read(file, 0, 4096);
    /// for name in ["one", "another"] {
    /// #   std::fs::write(dir.path().join(name), name)?;
    ///     chain.reopen(file, Open::new(dir.path().join(name)));
    ///     queue[aio].submit(chain, 1)?;
    ///     while queue.is_empty() {
    ///         queue.wait(None)?;
    ///     }
    ///     let completion = queue.next().unwrap();
    ///     let Op::Chain(done) = *completion.op else { unreachable!() };
    ///     assert_eq!(done.data(text).unwrap(), name.as_bytes());
    ///     chain = done;
    ///     chain.renew()?;
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidInput`, and it is left as it is, if it has a step that is done once: an
    /// [operation](Chain::operation) that has buffers or descriptors of its own, or a transform that has
    /// not come to its end.
    pub fn renew(&mut self) -> io::Result<()> {
        if !self.run.begun {
            return Ok(());
        }
        if let Some(at) = (0..self.steps.len()).find(|at| self.is_spent(*at)) {
            let name = self.steps.get(at).map_or("", |step| step.report.name);
            let text = format!("step {at} ({name}) is done once: build another chain");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        for step in &mut self.steps {
            step.report = StepReport::new(step.report.name);
            match &mut step.given {
                // Bytes of its own, which it is to write again; or memory to use again, which nobody sees before.
                Given::Data(_) => {}
                Given::File(file) => file.fd = None,
                given => *given = Given::Nothing,
            }
        }
        self.variables.clone_from(&self.run.starts);
        self.run.renew();
        Ok(())
    }

    /// Has a step open another file, when the chain runs next.
    pub fn reopen(&mut self, step: StepId<Opened>, open: Open) {
        if step.chain != self.number {
            return;
        }
        if let Some(Work::Whole { op, .. }) = self.steps.get_mut(step.index).map(|s| &mut s.work) {
            self.run.checked &= open.check().is_ok();
            match op {
                Some(op) => **op = Op::Open(open),
                None => *op = Some(Box::new(Op::Open(open))),
            }
        }
    }

    /// Whether a step can't be done again.
    fn is_spent(&self, at: usize) -> bool {
        let Some(step) = self.steps.get(at) else { return false };
        match &step.work {
            Work::Whole { op, repeats, .. } => op.is_none() || !repeats,
            Work::Defer { op, .. } => op.as_ref().is_none_or(|op| !works_on_names(op)),
            Work::Feed { stream, .. } | Work::Finish { stream } => {
                let stream = self.streams.get(stream.index).and_then(Option::as_ref);
                let has_failed = matches!(step.report.result, StepResult::Failed(_));
                has_failed || !stream.is_some_and(|stream| stream.is_at_its_beginning())
            }
            _ => false,
        }
    }
}
