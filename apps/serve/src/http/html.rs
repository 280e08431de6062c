//! The frame of every page, and text made safe for it.

use std::fmt;

/// Small enough to stand in each page, so a page is one request. Light or dark as the reader's
/// system is.
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1f2328;--dim:#656d76;--line:#d8dee4;--hover:#f3f6f9;\
--link:#0a58ca}\
@media(prefers-color-scheme:dark){:root{--text:#e2e6ea;--dim:#8d96a0;--line:#30363d;\
--hover:#1d232a;--link:#79b8ff}body{background:#14181d}}\
*{box-sizing:border-box}\
body{margin:0 auto;max-width:60rem;padding:2rem 1rem;color:var(--text);\
font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
h1{margin:0 0 1rem;font-size:1.35rem;font-weight:600;overflow-wrap:anywhere}\
a{color:var(--link);text-decoration:none}a:hover,a:focus-visible{text-decoration:underline}\
p,footer{color:var(--dim)}footer{margin-top:1.5rem;font-size:.85rem}\
table{width:100%;border-collapse:collapse}\
th,td{padding:.45rem .6rem;text-align:left;border-bottom:1px solid var(--line)}\
th{color:var(--dim);font-size:.85rem;font-weight:500}\
tbody tr:hover{background:var(--hover)}\
td:first-child{overflow-wrap:anywhere}\
.n{text-align:right}td+td{color:var(--dim);white-space:nowrap;font-variant-numeric:tabular-nums}\
.d a{font-weight:600}\
@media(max-width:36rem){body{padding:1rem .5rem}th:nth-child(3),td:nth-child(3){display:none}}";

/// A whole page. `title` is any text, `body` is HTML.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// Text, displayed so that HTML reads it as text, also inside of quotes.
///
/// Control characters are shown as a replacement character, and so are those that turn the
/// direction of writing: with them, a name can be made to look as if it had another extension.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other if other.is_control() || turns_direction(other) => {
                    f.write_char('\u{fffd}')?
                }
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The marks, embeddings, overrides and isolates of the Unicode bidirectional algorithm.
fn turns_direction(character: char) -> bool {
    matches!(character,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_in_text_is_shown_and_not_followed() {
        let text = "<a href=\"x\" id='y'>&amp;</a>";
        let expected = "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;amp;&lt;/a&gt;";
        assert_eq!(Escaped(text).to_string(), expected);
    }

    #[test]
    fn a_name_cannot_turn_its_extension_round() {
        assert_eq!(Escaped("a\u{202e}gpj.exe").to_string(), "a\u{fffd}gpj.exe");
    }

    proptest! {
        #[test]
        fn no_text_opens_a_tag_or_closes_a_quote(text: String) {
            let escaped = Escaped(&text).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(!escaped.contains(char::is_control));
        }
    }
}
