//! Bytes that are sent from memory: a header, a trailer, a whole answer.

use std::fmt;
use std::sync::Arc;

/// Bytes to send, owned or shared.
///
/// Made with `into()`: of a `Vec<u8>`, of an `Arc<[u8]>` that many transfers share, or of bytes that
/// are part of the program.
///
/// ```
/// use kevent_aio::Payload;
///
/// let owned: Payload = format!("Content-Length: {}\r\n", 5).into_bytes().into();
/// let fixed: Payload = b"0\r\n\r\n".as_slice().into();
/// assert_eq!((owned.len(), fixed.len()), (19, 5));
/// ```
#[derive(Clone)]
pub struct Payload(Kind);

#[derive(Clone)]
enum Kind {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
}

impl Payload {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Kind::Owned(bytes) => bytes,
            Kind::Shared(bytes) => bytes,
            Kind::Static(bytes) => bytes,
        }
    }

    /// The bytes for somebody who owns them; copied if they are shared.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Kind::Owned(bytes) => bytes,
            Kind::Shared(bytes) => bytes.to_vec(),
            Kind::Static(bytes) => bytes.to_vec(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl Default for Payload {
    fn default() -> Payload {
        Payload(Kind::Static(&[]))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Payload {
        Payload(Kind::Owned(bytes))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Payload {
        Payload(Kind::Owned(text.into_bytes()))
    }
}

impl From<Arc<[u8]>> for Payload {
    fn from(bytes: Arc<[u8]>) -> Payload {
        Payload(Kind::Shared(bytes))
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Payload {
        Payload(Kind::Static(bytes))
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Payload {
        Payload(Kind::Static(text.as_bytes()))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}
