//! One request and how far its answer is.

use std::collections::VecDeque;
use std::sync::Arc;

use kevent_aio::{Opened, Stat, StepId};
use kevent_core::Token;

use crate::files::OpenFile;
use crate::http::Status;
use crate::http::path::FilePath;
use crate::http::request::{Method, Request};
use crate::reply::Part;

/// A request and how far its answer is.
#[derive(Debug)]
pub struct Exchange {
    /// `None` for bytes that are no request.
    pub request: Option<Request>,
    /// The request line, for the log.
    pub line: String,
    pub seek: Option<Seek>,
    pub file: Option<Arc<OpenFile>>,
    /// What is still to be sent, behind what is under way.
    pub parts: VecDeque<Part>,
    /// The operation under way.
    pub operation: Option<Token>,
    /// What the log says of it. Until there is an answer: that none was possible.
    pub status: Status,
    pub sent: u64,
    pub keep_alive: bool,
}

/// A file that is being opened.
#[derive(Debug)]
pub struct Seek {
    pub target: Target,
    /// Its path below the root.
    pub path: Vec<u8>,
    /// The version of the cache when the opening began.
    pub version: u64,
    pub opened: StepId<Opened>,
    pub stat: StepId<Stat>,
}

/// What the file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// What the request names.
    File,
    /// The index of the folder that it names.
    Index,
    /// That folder, to be listed.
    Folder,
}

impl Exchange {
    pub fn new(request: Option<Request>, line: String, keep_alive: bool) -> Exchange {
        Exchange {
            request,
            line,
            seek: None,
            file: None,
            parts: VecDeque::new(),
            operation: None,
            status: Status::ServiceUnavailable,
            sent: 0,
            keep_alive,
        }
    }

    pub fn is_head(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.method == Method::Head)
    }

    pub fn path(&self) -> Option<&FilePath> {
        self.request.as_ref()?.path.as_ref().ok()
    }
}
