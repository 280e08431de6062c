//! Request paths to file names, and names back to URLs.
//!
//! A path is decoded exactly once, and what comes out is relative, without `.`, `..`, empty
//! segments or NUL: fit for `openat2(2)` beneath the served folder, which is what keeps symbolic
//! links inside.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, PercentEncode, percent_encode};

use crate::http::status::Status;

/// The longest name of one file, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// The longest path the kernel takes, in bytes, without its NUL (`PATH_MAX` counts that).
const PATH_MAX: usize = 4095;

/// Everything but the unreserved characters (RFC 3986 section 2.3). A colon is encoded too, so a
/// relative link cannot be read as a scheme.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same, for whole paths.
const PATH: &AsciiSet = &NAME.remove(b'/');

/// A request path, as the file below the served folder that it names.
///
/// ```
/// use kevent_serve::http::path;
///
/// let path = path::resolve(b"/music/../talks/K%C3%B6ln/").unwrap();
/// assert_eq!(path.relative().to_str(), Some("talks/Köln"));
/// assert!(path.is_folder());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePath {
    relative: PathBuf,
    folder: bool,
}

impl FilePath {
    /// The served folder itself.
    #[must_use]
    pub fn root() -> FilePath {
        FilePath { relative: PathBuf::new(), folder: true }
    }

    /// The path below the served folder: never absolute, and empty for the folder itself.
    #[must_use]
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    /// Whether the URL ended as that of a folder does: with a slash, or with a dot segment.
    ///
    /// Links inside a folder's page work only below such a URL: see [`folder_url`].
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// Whether this is the served folder itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.relative.as_os_str().is_empty()
    }
}

/// The file that a request path names. `path` has no query; it starts with a slash.
///
/// `+` is a plus: only forms write spaces so. Segments that begin with a dot are hidden (see
/// [`is_hidden`]), as are their descendants.
///
/// # Errors
///
/// - [`Status::BadRequest`]: no leading slash, a `%` without two hexadecimal digits, or a path that
///   leads above the root.
/// - [`Status::NotFound`]: no file can have this name (an encoded slash or NUL inside a segment, or
///   longer than the kernel takes), or the server does not show it.
pub fn resolve(path: &[u8]) -> Result<FilePath, Status> {
    let mut encoded = path.split(|&byte| byte == b'/');
    if encoded.next() != Some(b"") || path.is_empty() {
        return Err(Status::BadRequest);
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut folder = false;
    for segment in encoded {
        let name = decode(segment)?;
        folder = matches!(name.as_slice(), b"" | b"." | b"..");
        match name.as_slice() {
            b"" | b"." => {}
            b".." => drop(segments.pop().ok_or(Status::BadRequest)?),
            _ => segments.push(name),
        }
    }
    check(&segments)?;
    let relative = OsString::from_vec(segments.join(&b'/')).into();
    Ok(FilePath { relative, folder })
}

/// Refuses what cannot be a file, and what is not shown.
fn check(segments: &[Vec<u8>]) -> Result<(), Status> {
    let length: usize = segments.iter().map(|name| name.len() + 1).sum();
    let impossible =
        |name: &[u8]| name.len() > NAME_MAX || name.iter().any(|byte| matches!(byte, b'/' | b'\0'));
    let hidden = segments.iter().enumerate().any(|(depth, name)| is_hidden(name, depth == 0));
    if hidden || length > PATH_MAX + 1 || segments.iter().any(|name| impossible(name)) {
        return Err(Status::NotFound);
    }
    Ok(())
}

/// Whether a name is kept from clients: one that starts with a dot, such as `.git` or `.htpasswd`.
///
/// `.well-known` right below the root is shown, since it is there for clients (RFC 8615).
#[must_use]
pub fn is_hidden(name: &[u8], below_root: bool) -> bool {
    name.starts_with(b".") && !(below_root && name == b".well-known")
}

/// One segment with its `%XX` replaced, once: `%2541` is `%41`.
fn decode(segment: &[u8]) -> Result<Vec<u8>, Status> {
    let mut name = Vec::with_capacity(segment.len());
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'%' {
            let high = hex_digit(bytes.next()).ok_or(Status::BadRequest)?;
            let low = hex_digit(bytes.next()).ok_or(Status::BadRequest)?;
            name.push(high << 4 | low);
        } else {
            name.push(byte);
        }
    }
    Ok(name)
}

fn hex_digit(byte: Option<&u8>) -> Option<u8> {
    let digit = char::from(*byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// A file name as one segment of a URL, for links.
///
/// ```
/// use kevent_serve::http::path::encode_name;
///
/// assert_eq!(encode_name("50% off?.txt".as_ref()).to_string(), "50%25%20off%3F.txt");
/// ```
#[must_use]
pub fn encode_name(name: &OsStr) -> PercentEncode<'_> {
    percent_encode(name.as_bytes(), NAME)
}

/// The URL of the folder `path`, with the slash at its end and the query it was asked with.
///
/// It starts with exactly one slash, so it can't lead to another host.
#[must_use]
pub fn folder_url(path: &FilePath, query: Option<&[u8]>) -> Vec<u8> {
    let mut url = b"/".to_vec();
    let mut push_encoded = |bytes, set| {
        for part in percent_encode(bytes, set) {
            url.extend_from_slice(part.as_bytes());
        }
    };
    push_encoded(path.relative.as_os_str().as_bytes(), PATH);
    if !path.is_root() {
        push_encoded(b"/", PATH);
    }
    if let Some(query) = query {
        push_encoded(b"?", CONTROLS);
        // It is encoded already, but for characters that some clients send as they are.
        push_encoded(query, CONTROLS);
    }
    url
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn relative(path: &str) -> Result<String, Status> {
        resolve(path.as_bytes()).map(|path| path.relative().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_root_is_the_empty_path() {
        let root = resolve(b"/").unwrap();
        assert_eq!(root, FilePath::root());
        assert!(root.is_root() && root.is_folder());
    }

    #[test]
    fn rfc3986_2_1_percent_triplets_are_decoded_exactly_once() {
        assert_eq!(relative("/a%20b"), Ok("a b".into()));
        assert_eq!(relative("/%e4%BD%a0"), Ok("你".into()));
        assert_eq!(relative("/%2541"), Ok("%41".into()));
        assert_eq!(relative("/%252e%252e/x"), Ok("%2e%2e/x".into()));
        assert_eq!(resolve(b"/%ff\xfe").unwrap().relative().as_os_str().as_bytes(), b"\xff\xfe");
    }

    #[test]
    fn a_plus_stays_a_plus() {
        assert_eq!(relative("/c++.txt"), Ok("c++.txt".into()));
    }

    #[test]
    fn rfc3986_2_1_broken_triplets_are_refused() {
        for path in ["/%", "/%4", "/%zz", "/a%2", "/%+1", "/%4/1"] {
            assert_eq!(relative(path), Err(Status::BadRequest), "{path}");
        }
    }

    #[test]
    fn rfc3986_5_2_4_dot_segments_are_resolved() {
        assert_eq!(relative("/a/./b"), Ok("a/b".into()));
        assert_eq!(relative("/a/b/../c"), Ok("a/c".into()));
        assert_eq!(relative("/a/%2e%2E/c"), Ok("c".into()));
        assert_eq!(relative("/a/.."), Ok("".into()));
    }

    #[test]
    fn nothing_leads_above_the_root() {
        for path in ["/..", "/../etc/passwd", "/a/../../b", "/%2e%2e/x", "/.%2e/x", "/a//../../b"] {
            assert_eq!(relative(path), Err(Status::BadRequest), "{path}");
        }
    }

    #[test]
    fn empty_segments_collapse() {
        assert_eq!(relative("//a///b"), Ok("a/b".into()));
        assert!(resolve(b"////").unwrap().is_root());
    }

    #[test]
    fn a_final_slash_or_dot_segment_means_a_folder() {
        for (path, folder) in [
            ("/a", false),
            ("/a/", true),
            ("/a//", true),
            ("/a/.", true),
            ("/a/b/..", true),
            ("/a/../b", false),
            ("/a%2e", false),
        ] {
            assert_eq!(resolve(path.as_bytes()).unwrap().is_folder(), folder, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_or_nul_is_in_no_file_name() {
        for path in ["/a%2Fb", "/..%2f..%2fetc/passwd", "/a%00b", "/index.html%00.png"] {
            assert_eq!(relative(path), Err(Status::NotFound), "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_does_not_make_a_dot_segment() {
        assert_eq!(relative("/a/x%2F..%2F..%2Fb"), Err(Status::NotFound));
    }

    #[test]
    fn names_that_start_with_a_dot_are_hidden() {
        for path in ["/.git/config", "/a/.env", "/%2ehtpasswd", "/...", "/a/.well-known/x"] {
            assert_eq!(relative(path), Err(Status::NotFound), "{path}");
        }
    }

    #[test]
    fn rfc8615_well_known_is_shown_below_the_root() {
        assert_eq!(relative("/.well-known/security.txt"), Ok(".well-known/security.txt".into()));
    }

    #[test]
    fn names_longer_than_the_kernel_takes_are_not_found() {
        let longest = format!("/{}", "n".repeat(255));
        assert!(relative(&longest).is_ok());
        assert_eq!(relative(&format!("{longest}n")), Err(Status::NotFound));
        let deep = "/n".repeat(2048);
        assert_eq!(relative(&deep).unwrap().len(), PATH_MAX);
        assert_eq!(relative(&format!("{deep}n")), Err(Status::NotFound));
    }

    #[test]
    fn a_path_starts_with_a_slash() {
        assert_eq!(relative(""), Err(Status::BadRequest));
        assert_eq!(relative("a/b"), Err(Status::BadRequest));
    }

    #[test]
    fn the_url_of_a_folder_ends_in_a_slash_and_keeps_the_query() {
        let path = resolve(b"//evil.example/a%20b").unwrap();
        assert_eq!(folder_url(&path, None), b"/evil.example/a%20b/");
        assert_eq!(folder_url(&path, Some(b"x=1")), b"/evil.example/a%20b/?x=1");
        let query = Some("%20=ü".as_bytes());
        assert_eq!(folder_url(&path, query), b"/evil.example/a%20b/?%20=%C3%BC");
        assert_eq!(folder_url(&FilePath::root(), None), b"/");
    }

    #[test]
    fn a_link_cannot_be_read_as_a_scheme_or_a_query() {
        let name = OsStr::new("javascript:a?b#c&\"'<>");
        let link = encode_name(name).to_string();
        assert!(link.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%'), "{link}");
    }

    proptest! {
        #[test]
        fn what_comes_out_stays_below_the_root(path in "(/|\\.|%2[eEfF]|%00|[a-c%]|\\PC){0,24}") {
            let Ok(path) = resolve(path.as_bytes()) else { return Ok(()) };
            let bytes = path.relative().as_os_str().as_bytes();
            prop_assert!(!bytes.contains(&0) && !bytes.starts_with(b"/") && !bytes.ends_with(b"/"));
            for part in path.relative().components() {
                prop_assert!(matches!(part, Component::Normal(_)));
            }
            prop_assert!(!path.is_root() || path.is_folder());
        }

        #[test]
        fn any_bytes_are_resolved_or_refused(path: Vec<u8>) {
            let _ = resolve(&path);
        }

        #[test]
        fn the_link_to_a_name_leads_to_it(
            first in prop_oneof![1..b'.', b'0'..],
            rest in prop::collection::vec(prop_oneof![1..b'/', b'0'..], 0..255),
        ) {
            let name = [vec![first], rest].concat();
            let link = format!("/{}", encode_name(OsStr::from_bytes(&name)));
            let path = resolve(link.as_bytes()).unwrap();
            prop_assert_eq!(path.relative().as_os_str().as_bytes(), &name[..]);
            let url = folder_url(&path, None);
            let folder = resolve(&url).unwrap();
            prop_assert_eq!(folder.relative(), path.relative());
        }
    }
}
