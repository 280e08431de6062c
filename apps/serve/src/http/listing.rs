//! The page that lists a folder.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use crate::http::date::http_date;
use crate::http::html::{self, Escaped};
use crate::http::path::{self, FilePath};

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, which may be any bytes.
    pub name: OsString,
    /// Whether it is a folder, or a link to one.
    pub is_folder: bool,
    /// The size in bytes. Not shown for folders.
    pub size: u64,
    /// When it was last changed.
    pub modified: SystemTime,
}

/// The page that lists the `entries` of the folder at `path`: folders first, then by name.
///
/// Leaves out names that [`resolve`](path::resolve) refuses, so the page has no dead links. Its
/// links are relative to the folder's URL, which therefore has to end in a slash.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use kevent_serve::http::listing::{Entry, page};
/// use kevent_serve::http::path::FilePath;
///
/// let entry = Entry { name: "a b".into(), is_folder: true, size: 0, modified: UNIX_EPOCH };
/// assert!(page(&FilePath::root(), vec![entry]).contains(r#"<a href="a%20b/">"#));
/// ```
#[must_use]
pub fn page(path: &FilePath, mut entries: Vec<Entry>) -> String {
    entries.retain(|entry| !path::is_hidden(entry.name.as_bytes(), path.is_root()));
    // Names that differ only in case stand together, and the bytes make the order the same each
    // time.
    entries.sort_by_cached_key(|entry| {
        let name = entry.name.to_string_lossy().to_lowercase();
        (Reverse(entry.is_folder), name, entry.name.clone())
    });
    let title = format!("/{}", path.relative().display());
    let mut body = String::with_capacity(1024 + 192 * entries.len());
    push_trail(&mut body, path);
    push_table(&mut body, path, &entries);
    push_summary(&mut body, &entries);
    html::page(&title, &body)
}

/// The heading: the folders on the way here, each a link.
fn push_trail(body: &mut String, path: &FilePath) {
    let parts: Vec<_> = path.relative().iter().collect();
    body.push_str("<h1>");
    // Writing to a string does not fail, here and below.
    let _ = match parts.len() {
        0 => write!(body, "Files"),
        depth => write!(body, "<a href=\"{}\">Files</a>", "../".repeat(depth)),
    };
    for (index, part) in parts.iter().enumerate() {
        let part = part.to_string_lossy();
        let name = Escaped(&part);
        let _ = match parts.len() - index - 1 {
            0 => write!(body, " / {name}"),
            above => write!(body, " / <a href=\"{}\">{name}</a>", "../".repeat(above)),
        };
    }
    body.push_str("</h1>\n");
}

fn push_table(body: &mut String, path: &FilePath, entries: &[Entry]) {
    if entries.is_empty() && path.is_root() {
        return;
    }
    body.push_str(
        "<table>\n<thead><tr><th>Name</th><th class=\"n\">Size</th>\
         <th class=\"n\">Changed (UTC)</th></tr></thead>\n<tbody>\n",
    );
    if !path.is_root() {
        body.push_str("<tr class=\"d\"><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        push_row(body, entry);
    }
    body.push_str("</tbody>\n</table>\n");
}

fn push_row(body: &mut String, entry: &Entry) {
    let (class, slash) = if entry.is_folder { (" class=\"d\"", "/") } else { ("", "") };
    let size = if entry.is_folder { String::new() } else { human_size(entry.size) };
    let link = path::encode_name(&entry.name);
    let name = entry.name.to_string_lossy();
    let date = http_date(entry.modified);
    // "Sun, 06 Nov 1994 08:49:37 GMT", without the day of the week, the seconds and the zone.
    let date = date.get(5..22).unwrap_or_default();
    let _ = writeln!(
        body,
        "<tr{class}><td><a href=\"{link}{slash}\">{name}{slash}</a></td>\
         <td class=\"n\">{size}</td><td class=\"n\">{date}</td></tr>",
        name = Escaped(&name),
    );
}

fn push_summary(body: &mut String, entries: &[Entry]) {
    if entries.is_empty() {
        body.push_str("<p>This folder is empty.</p>\n");
        return;
    }
    let folders = entries.iter().filter(|entry| entry.is_folder).count();
    let files = entries.len() - folders;
    let bytes = entries.iter().filter(|entry| !entry.is_folder).map(|entry| entry.size);
    let total = human_size(bytes.fold(0, u64::saturating_add));
    let _ = writeln!(
        body,
        "<footer>{}, {} ({total})</footer>",
        counted(folders, "folder"),
        counted(files, "file")
    );
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A size that people can compare: `17 B`, `1.5 KiB`, `230 MiB`.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Whole units, and the rest of the unit below, which alone decides the digit after the point.
    // Cut off rather than rounded, so 1,023.99 KiB doesn't become 1,024.0.
    let (mut whole, mut rest, mut unit) = (bytes, 0, "B");
    for larger in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, rest, unit) = (whole / 1024, whole % 1024, larger);
    }
    if whole < 100 {
        format!("{whole}.{} {unit}", rest * 10 / 1024)
    } else {
        format!("{whole} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, size: u64) -> Entry {
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        Entry { name: name.into(), is_folder: false, size, modified }
    }

    fn folder(name: &str) -> Entry {
        Entry { is_folder: true, ..file(name, 4096) }
    }

    fn at(path: &str) -> FilePath {
        path::resolve(path.as_bytes()).unwrap()
    }

    /// The links of the table, in order.
    fn links(html: &str) -> Vec<&str> {
        let rows = html.split("<td><a href=\"").skip(1);
        rows.map(|row| row.split('"').next().unwrap()).collect()
    }

    #[test]
    fn folders_come_first_then_names_without_regard_to_case() {
        let entries = vec![file("b", 1), file("A", 1), folder("z"), file("a", 1), folder("Y")];
        assert_eq!(links(&page(&at("/"), entries)), ["Y/", "z/", "A", "a", "b"]);
    }

    #[test]
    fn a_link_leads_to_the_file_and_its_name_is_text() {
        let html = page(&at("/"), vec![file("<b>50% \"off\"?#:.txt", 1)]);
        assert!(
            html.contains(
                "<a href=\"%3Cb%3E50%25%20%22off%22%3F%23%3A.txt\">\
             &lt;b&gt;50% &quot;off&quot;?#:.txt</a>"
            ),
            "{html}"
        );
    }

    #[test]
    fn names_that_are_not_text_are_shown_and_linked() {
        let name = OsStr::from_bytes(b"a\xff\n.txt").to_owned();
        let html = page(&at("/"), vec![Entry { name, ..file("", 1) }]);
        assert!(html.contains("<a href=\"a%FF%0A.txt\">a\u{fffd}\u{fffd}.txt</a>"), "{html}");
    }

    #[test]
    fn hidden_names_are_not_listed() {
        let entries = || vec![file(".env", 1), folder(".git"), folder(".well-known"), file("a", 1)];
        assert_eq!(links(&page(&at("/"), entries())), [".well-known/", "a"]);
        assert_eq!(links(&page(&at("/b/"), entries())), ["../", "a"]);
    }

    #[test]
    fn the_parent_and_each_folder_on_the_way_are_linked() {
        let html = page(&at("/a/b&c/d/"), vec![]);
        assert!(
            html.contains(
                "<h1><a href=\"../../../\">Files</a> / <a href=\"../../\">a</a> / \
             <a href=\"../\">b&amp;c</a> / d</h1>"
            ),
            "{html}"
        );
        assert_eq!(links(&html), ["../"]);
        assert!(html.contains("<title>/a/b&amp;c/d</title>"));
    }

    #[test]
    fn the_root_has_no_parent() {
        assert!(!page(&at("/"), vec![file("a", 1)]).contains("../"));
    }

    #[test]
    fn an_empty_folder_says_so() {
        for path in ["/", "/a/"] {
            assert!(page(&at(path), vec![file(".hidden", 1)]).contains("This folder is empty."));
        }
    }

    #[test]
    fn rows_have_size_and_date() {
        let html = page(&at("/"), vec![file("a", 1536), folder("b")]);
        assert!(
            html.contains("<td class=\"n\">1.5 KiB</td><td class=\"n\">06 Nov 1994 08:49</td>")
        );
        assert!(html.contains("<footer>1 folder, 1 file (1.5 KiB)</footer>"), "{html}");
        assert!(!html.contains("4.0 KiB"));
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (100 * 1024, "100 KiB"),
            (1024 * 1024 - 1, "1023 KiB"),
            (1024 * 1024, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn the_page_needs_nothing_else_and_fits_any_screen() {
        let html = page(&at("/"), vec![file("a", 1)]);
        assert!(html.starts_with("<!DOCTYPE html>\n"));
        for part in [
            "charset=\"utf-8\"",
            "width=device-width",
            "prefers-color-scheme:dark",
            "max-width:36rem",
        ] {
            assert!(html.contains(part), "{part}");
        }
        for part in ["<script", "src=", "url(", "@import"] {
            assert!(!html.contains(part), "{part}");
        }
    }

    proptest! {
        #[test]
        fn every_listed_link_is_resolved_to_its_name(
            names in prop::collection::hash_set(prop::collection::vec(1u8.., 1..20), 0..20),
        ) {
            let servable = |name: &Vec<u8>| !name.contains(&b'/') && !name.starts_with(b".");
            let mut names: Vec<_> = names.into_iter().filter(servable).collect();
            let entry = |name: &Vec<u8>| {
                Entry { name: OsStr::from_bytes(name).to_owned(), ..file("", 1) }
            };
            let html = page(&at("/"), names.iter().map(entry).collect());
            let mut found: Vec<_> = links(&html).into_iter().map(|link| {
                let path = path::resolve(format!("/{link}").as_bytes()).unwrap();
                path.relative().as_os_str().as_bytes().to_vec()
            }).collect();
            names.sort();
            found.sort();
            prop_assert_eq!(found, names);
        }
    }
}
