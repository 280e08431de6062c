//! Where a socket is: what std has for it, and how the kernel writes it.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr as UnixAddr;

/// Where a socket is: on a network, or on this machine.
///
/// Made with `into()`. The address of a path is made by std, which knows how long one may be:
///
/// ```
/// use std::net::SocketAddr;
/// use std::os::unix::net::SocketAddr as UnixAddr;
/// use kevent_aio::Address;
///
/// let inet: Address = SocketAddr::from(([127, 0, 0, 1], 8080)).into();
/// assert_eq!(inet.ip().unwrap().port(), 8080);
/// let unix: Address = UnixAddr::from_pathname("/run/service")?.into();
/// assert!(unix.ip().is_none());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Address {
    /// IPv4 or IPv6.
    Ip(SocketAddr),
    /// A path, a name, or, as most clients have it, nothing at all.
    Unix(UnixAddr),
}

impl Address {
    /// The address on a network, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl From<UnixAddr> for Address {
    fn from(address: UnixAddr) -> Address {
        Address::Unix(address)
    }
}

/// How many bytes the longest address takes (`sockaddr_storage`).
const ROOM: usize = size_of::<libc::sockaddr_storage>();

/// Where the path or name of a `sockaddr_un` begins.
const PATH: usize = 2;

/// An address as the kernel reads and writes it: the bytes of a `sockaddr_in`, `sockaddr_in6` or
/// `sockaddr_un`.
#[derive(Clone)]
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; ROOM],
    length: libc::socklen_t,
}

impl RawAddress {
    /// Room for an address that the kernel is to write.
    pub(crate) fn blank() -> RawAddress {
        RawAddress { bytes: [0; ROOM], length: 0 }
    }

    pub(crate) fn new(address: &Address) -> RawAddress {
        let mut raw = RawAddress::blank();
        match address {
            Address::Ip(SocketAddr::V4(v4)) => {
                raw.family(libc::AF_INET);
                raw.append(&v4.port().to_be_bytes());
                raw.append(&v4.ip().octets());
                raw.append(&[0; 8]);
            }
            Address::Ip(SocketAddr::V6(v6)) => {
                raw.family(libc::AF_INET6);
                raw.append(&v6.port().to_be_bytes());
                // std keeps it as it was given, too.
                raw.append(&v6.flowinfo().to_ne_bytes());
                raw.append(&v6.ip().octets());
                raw.append(&v6.scope_id().to_ne_bytes());
            }
            Address::Unix(unix) => {
                raw.family(libc::AF_UNIX);
                if let Some(path) = unix.as_pathname() {
                    raw.append(path.as_os_str().as_bytes());
                    raw.append(&[0]);
                } else if let Some(name) = unix.as_abstract_name() {
                    raw.append(&[0]);
                    raw.append(name);
                }
            }
        }
        raw
    }

    fn family(&mut self, family: i32) {
        // All families are small numbers.
        self.append(&(family as u16).to_ne_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        let at = self.length as usize;
        // What std made is never longer than the room.
        if let Some(room) = self.bytes.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len() as libc::socklen_t;
        }
    }

    /// What the kernel has written; `None` for nothing, and for families that std has no word for.
    pub(crate) fn address(&self) -> Option<Address> {
        // The kernel says how long an address is, also when there was less room.
        let bytes = self.bytes.get(..self.length as usize).unwrap_or(&self.bytes);
        match u16::from_ne_bytes(array(bytes, 0)?).into() {
            libc::AF_INET => {
                let port = u16::from_be_bytes(array(bytes, 2)?);
                let ip = Ipv4Addr::from(array::<4>(bytes, 4)?);
                Some(Address::Ip(SocketAddrV4::new(ip, port).into()))
            }
            libc::AF_INET6 => {
                let port = u16::from_be_bytes(array(bytes, 2)?);
                let flow = u32::from_ne_bytes(array(bytes, 4)?);
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                let scope = u32::from_ne_bytes(array(bytes, 24)?);
                Some(Address::Ip(SocketAddrV6::new(ip, port, flow, scope).into()))
            }
            libc::AF_UNIX => unix(bytes.get(PATH..)?).map(Address::Unix),
            _ => None,
        }
    }

    /// For a call that reads the address: where it is, and how long.
    pub(crate) fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (self.bytes.as_ptr().cast(), self.length)
    }

    /// For a call that writes an address: where to, and where its length is, which is now that of the
    /// room.
    pub(crate) fn room(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.length = ROOM as libc::socklen_t;
        (self.bytes.as_mut_ptr().cast(), &raw mut self.length)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The address with these bytes behind its family.
fn unix(bytes: &[u8]) -> Option<UnixAddr> {
    if let Some((0, name)) = bytes.split_first() {
        return UnixAddr::from_abstract_name(name).ok();
    }
    let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    // No path at all makes the address of a socket without a name.
    UnixAddr::from_pathname(OsStr::from_bytes(path)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(address: impl Into<Address>) -> Address {
        RawAddress::new(&address.into()).address().unwrap()
    }

    proptest! {
        #[test]
        fn network_addresses_come_back_as_they_went(
            v4: [u8; 4], v6: [u8; 16], port: u16, flow: u32, scope: u32,
        ) {
            let four = SocketAddr::from((v4, port));
            let six = SocketAddr::V6(SocketAddrV6::new(v6.into(), port, flow, scope));
            prop_assert_eq!(there_and_back(four).ip(), Some(four));
            prop_assert_eq!(there_and_back(six).ip(), Some(six));
        }

        #[test]
        fn local_addresses_come_back_as_they_went(
            path in "[a-z/]{0,107}",
            name in prop::collection::vec(any::<u8>(), 0..107),
        ) {
            let Address::Unix(back) = there_and_back(UnixAddr::from_pathname(&path).unwrap()) else {
                panic!("another family");
            };
            prop_assert_eq!(back.as_pathname(), (!path.is_empty()).then(|| path.as_ref()));
            prop_assert_eq!(back.is_unnamed(), path.is_empty());
            let unix = UnixAddr::from_abstract_name(&name).unwrap();
            let Address::Unix(back) = there_and_back(unix) else { panic!("another family") };
            prop_assert_eq!(back.as_abstract_name(), Some(&name[..]));
        }

        #[test]
        fn whatever_the_kernel_writes_is_an_address_or_nothing(
            bytes in prop::collection::vec(any::<u8>(), ROOM),
            family in 0..20_u16,
            length in 0..300_u32,
        ) {
            let mut raw = RawAddress::blank();
            raw.bytes.copy_from_slice(&bytes);
            raw.bytes[..2].copy_from_slice(&family.to_ne_bytes());
            raw.length = length;
            let _ = raw.address();
        }
    }
}
