//! Content types, from names.

use std::borrow::Cow;
use std::path::Path;

/// What a file is sent as when its name says nothing: browsers save it instead of guessing.
const DEFAULT: &str = "application/octet-stream";

/// The content type of the file with this name, by its extension.
///
/// Text is said to be UTF-8, which is what text files are today: without a word, browsers take some
/// legacy encoding of the reader's country. XML names its encoding itself, and a parameter would
/// overrule it (RFC 7303 section 3.2), so it gets none.
///
/// ```
/// use kevent_serve::http::mime::content_type;
///
/// assert_eq!(content_type("notes/index.html".as_ref()), "text/html; charset=utf-8");
/// assert_eq!(content_type("logo.png".as_ref()), "image/png");
/// assert_eq!(content_type("LICENSE".as_ref()), "application/octet-stream");
/// ```
#[must_use]
pub fn content_type(name: &Path) -> Cow<'static, str> {
    let guess = mime_guess::from_path(name).first_raw().unwrap_or(DEFAULT);
    // The types a web site is made of come without an allocation.
    Cow::Borrowed(match guess {
        "text/html" => "text/html; charset=utf-8",
        "text/css" => "text/css; charset=utf-8",
        "text/javascript" => "text/javascript; charset=utf-8",
        "text/plain" => "text/plain; charset=utf-8",
        "text/xml" => guess,
        other if other.starts_with("text/") => {
            return Cow::Owned(format!("{other}; charset=utf-8"));
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn the_extension_decides_in_any_case() {
        assert_eq!(content_type("a/INDEX.HTML".as_ref()), "text/html; charset=utf-8");
        assert_eq!(content_type("photo.JPeG".as_ref()), "image/jpeg");
        assert_eq!(content_type("data.json".as_ref()), "application/json");
        assert_eq!(content_type("a.tar.gz".as_ref()), "application/gzip");
    }

    #[test]
    fn text_is_utf8_and_xml_speaks_for_itself() {
        assert_eq!(content_type("a.txt".as_ref()), "text/plain; charset=utf-8");
        assert_eq!(content_type("a.js".as_ref()), "text/javascript; charset=utf-8");
        assert_eq!(content_type("a.csv".as_ref()), "text/csv; charset=utf-8");
        assert_eq!(content_type("a.xml".as_ref()), "text/xml");
        assert_eq!(content_type("a.svg".as_ref()), "image/svg+xml");
    }

    #[test]
    fn names_that_say_nothing_are_bytes() {
        for name in ["", "README", ".", "a.", "a.no-such-extension"] {
            assert_eq!(content_type(name.as_ref()), DEFAULT, "{name}");
        }
        assert_eq!(content_type(OsStr::from_bytes(b"a.\xff").as_ref()), DEFAULT);
    }
}
