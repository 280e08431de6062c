//! What a subscriber of `tracing` gets to see.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kevent_core::{Queue, Timers};
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn wait_its_look_and_the_turn_of_the_source_are_spans() {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::ENTER)
        .with_writer(move || lines.clone())
        .finish();
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    queue.wait(Duration::ZERO).unwrap();
    queue[timers].after(Duration::from_millis(1), 0);
    tracing::subscriber::with_default(subscriber, || queue.wait(None)).unwrap();

    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
    assert!(at("wait: kevent: enter") < at("wait:look: kevent: enter"), "{text}");
    assert!(at("look: kevent: enter") < at("wait:drain{source="), "{text}");
    assert!(text.contains("Timers"), "{text}");
}
