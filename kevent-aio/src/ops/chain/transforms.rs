//! The transforms that come with the crate: each by the crate that people use for it.

use std::fmt;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::transform::Transform;

/// The checksum CRC-32C (Castagnoli), as iSCSI, ext4 and many protocols have it.
///
/// It ends with four bytes, the most significant first.
///
/// ```
/// use kevent_aio::{Crc32c, Transform};
///
/// let mut digest = Vec::new();
/// let mut crc = Crc32c::new();
/// crc.feed(b"123456789", &mut digest)?;
/// crc.finish(&mut digest)?;
/// assert_eq!(digest, 0xe306_9283_u32.to_be_bytes());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Of nothing so far.
    #[must_use]
    pub fn new() -> Crc32c {
        Crc32c::default()
    }
}

impl Transform for Crc32c {
    fn feed(&mut self, input: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        self.0 = crc32c::crc32c_append(self.0, input);
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        output.extend(std::mem::take(&mut self.0).to_be_bytes());
        Ok(())
    }
}

/// The hash BLAKE3. It ends with 32 bytes.
///
/// ```
/// use kevent_aio::{Blake3, Transform};
///
/// let mut digest = Vec::new();
/// Blake3::new().finish(&mut digest)?;
/// assert_eq!(digest[..4], [0xaf, 0x13, 0x49, 0xb9]);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Blake3(Box<blake3::Hasher>);

impl Blake3 {
    /// Of nothing so far.
    #[must_use]
    pub fn new() -> Blake3 {
        Blake3::default()
    }
}

impl Transform for Blake3 {
    fn feed(&mut self, input: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        self.0.update(input);
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        output.extend(self.0.finalize().as_bytes());
        self.0.reset();
        Ok(())
    }
}

/// Compression as gzip(1) does it.
///
/// ```
/// use kevent_aio::{Gzip, Transform};
///
/// let mut packed = Vec::new();
/// let mut gzip = Gzip::new(6);
/// gzip.feed(&[7; 10_000], &mut packed)?;
/// gzip.finish(&mut packed)?;
/// assert!(packed.len() < 100);
/// # std::io::Result::Ok(())
/// ```
pub struct Gzip {
    encoder: GzEncoder<Vec<u8>>,
    level: Compression,
}

impl Gzip {
    /// From 0, which only stores, to 9, which takes its time. More counts as 9.
    #[must_use]
    pub fn new(level: u32) -> Gzip {
        let level = Compression::new(level.min(9));
        Gzip { encoder: GzEncoder::new(Vec::new(), level), level }
    }
}

impl Transform for Gzip {
    fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        self.encoder.write_all(input)?;
        output.append(self.encoder.get_mut());
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        let next = GzEncoder::new(Vec::new(), self.level);
        output.append(&mut std::mem::replace(&mut self.encoder, next).finish()?);
        Ok(())
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("level", &self.level).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// What comes out when the bytes go in by pieces of that size, twice one after the other.
    fn through(mut transform: impl Transform, bytes: &[u8], piece: usize) -> [Vec<u8>; 2] {
        [(); 2].map(|()| {
            let mut output = Vec::new();
            for piece in bytes.chunks(piece) {
                transform.feed(piece, &mut output).unwrap();
            }
            transform.finish(&mut output).unwrap();
            output
        })
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives_and_the_end_is_a_new_beginning(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            piece in 1..6000_usize,
        ) {
            let crc = crc32c::crc32c(&bytes).to_be_bytes().to_vec();
            prop_assert_eq!(through(Crc32c::new(), &bytes, piece), [crc.clone(), crc]);
            let hash = blake3::hash(&bytes).as_bytes().to_vec();
            prop_assert_eq!(through(Blake3::new(), &bytes, piece), [hash.clone(), hash]);
            for packed in through(Gzip::new(6), &bytes, piece) {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
                prop_assert_eq!(&unpacked, &bytes);
            }
        }
    }
}
