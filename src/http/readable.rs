//! Data made readable, as markup: JSON is indented, and its numbers and strings stay as they were written. The same as
//! `public/json.js` does on a page, but within bounds: what a page of the hub's takes is the hub's to pay for.

use askama::filters::{Escaper, Html};
use serde::de::IgnoredAny;
use std::fmt::Write as _;

/// What fits into a line of so many characters stays on one line.
const LINE_CHARS: usize = 72;

/// Longer data stays as it is.
const INDENTED_BYTES_MAX: usize = 64 << 10; // 64 KiB

/// So does what would become so many times as long. Each item has some 30 bytes of markup and mostly a line for itself, so that
/// objects become about 5 times as long, small ones with short names 12 times; but what is deep within others up to 130 times.
const GROWTH_MAX: usize = 16;

/// Little data may become so long in any case.
const GROWN_BYTES_MIN: usize = 16 << 10; // 16 KiB

/// And so does what has more brackets than that within each other.
const DEPTH_MAX: usize = 127;

/// What a piece of JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Brackets, and what is between the others: nothing that markup escapes.
    Plain,
    Key,
    String,
    Number,
    Literal,
}

impl Kind {
    /// Its class in the style sheet.
    fn class(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Key => Some("key"),
            Self::String => Some("string"),
            Self::Number => Some("number"),
            Self::Literal => Some("literal"),
        }
    }
}

/// The text as markup, of at most [`GROWTH_MAX`] times its bytes, or [`GROWN_BYTES_MIN`].
pub(super) fn markup(text: &str) -> String {
    indented(text).unwrap_or_else(|| {
        let mut markup = String::with_capacity(escaped_bytes(text));
        escape(text, &mut markup);
        markup
    })
}

/// What a text takes as markup.
pub(super) fn escaped_bytes(text: &str) -> usize {
    const ESCAPED: usize = "&#38;".len();
    let escapes = |byte: &&u8| matches!(byte, b'<' | b'>' | b'&' | b'"' | b'\'');
    text.len() + (ESCAPED - 1) * text.as_bytes().iter().filter(escapes).count()
}

fn escape(text: &str, markup: &mut String) {
    // Nothing fails to be written to a string.
    let _ = Html.write_escaped_str(markup, text);
}

/// JSON as markup, indented; `None` of anything else, and of what would become too long.
fn indented(text: &str) -> Option<String> {
    if text.len() > INDENTED_BYTES_MAX {
        return None;
    }
    let bytes_max = (GROWTH_MAX * text.len()).max(GROWN_BYTES_MIN);
    let mut markup = String::with_capacity(2 * text.len());
    pretty(text, |kind, piece| {
        match kind.class() {
            None => markup.push_str(piece),
            Some(class) => {
                let _ = write!(markup, "<span class=\"{class}\">");
                escape(piece, &mut markup);
                markup.push_str("</span>");
            }
        }
        (markup.len() <= bytes_max).then_some(())
    })?;
    Some(markup)
}

/// Hands out the text indented, in pieces, for as long as they are taken; `None` if they are not, or if it is no JSON object
/// or array, or one too deep.
fn pretty(text: &str, mut take: impl FnMut(Kind, &str) -> Option<()>) -> Option<()> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let tokens = tokens(text);
    let widths = flat_widths(&tokens);
    let lines = format!("\n{}", "  ".repeat(DEPTH_MAX));
    let newline = |depth: usize| lines.get(..=2 * depth).unwrap_or(&lines);
    // Of the open brackets so many are on one line with their contents.
    let (mut depth, mut flat) = (0, 0);
    for (at, &token) in tokens.iter().enumerate() {
        match token {
            "{" | "[" => {
                depth += 1;
                (depth <= DEPTH_MAX).then_some(())?;
                take(Kind::Plain, token)?;
                if flat > 0 || 2 * depth + widths[at] <= LINE_CHARS {
                    flat += 1;
                } else {
                    take(Kind::Plain, newline(depth))?;
                }
            }
            "}" | "]" => {
                depth -= 1;
                if flat > 0 {
                    flat -= 1;
                } else {
                    take(Kind::Plain, newline(depth))?;
                }
                take(Kind::Plain, token)?;
            }
            "," if flat > 0 => take(Kind::Plain, ", ")?,
            "," => {
                take(Kind::Plain, ",")?;
                take(Kind::Plain, newline(depth))?;
            }
            ":" => take(Kind::Plain, ": ")?,
            _ => take(kind(token, tokens.get(at + 1)), token)?,
        }
    }
    Some(())
}

fn kind(token: &str, next: Option<&&str>) -> Kind {
    match token.as_bytes().first() {
        Some(b'"') if next == Some(&":") => Kind::Key,
        Some(b'"') => Kind::String,
        Some(b'-' | b'0'..=b'9') => Kind::Number,
        _ => Kind::Literal,
    }
}

/// The tokens of a text that is JSON.
fn tokens(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let begin = at;
        at += 1;
        match bytes[begin] {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'{' | b'}' | b'[' | b']' | b',' | b':' => {}
            b'"' => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            _ => {
                let ends = |byte: &u8| b" \t\r\n{}[],:\"".contains(byte);
                at += bytes[at..]
                    .iter()
                    .position(ends)
                    .unwrap_or(bytes.len() - at);
            }
        }
        tokens.push(&text[begin..at.min(text.len())]);
    }
    tokens
}

/// For each opening bracket, how many characters it and its contents are on one line.
fn flat_widths(tokens: &[&str]) -> Vec<usize> {
    let mut widths = vec![0; tokens.len()];
    let (mut open, mut width) = (Vec::new(), 0);
    for (at, &token) in tokens.iter().enumerate() {
        if matches!(token, "{" | "[") {
            open.push((at, width));
        }
        width += match token {
            "," | ":" => 2,
            _ => token.chars().count(),
        };
        if matches!(token, "}" | "]")
            && let Some((from, before)) = open.pop()
        {
            widths[from] = width - before;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Option<String> {
        let mut whole = String::new();
        pretty(text, |_, piece| {
            whole.push_str(piece);
            Some(())
        })?;
        Some(whole)
    }

    #[test]
    fn what_fits_stays_on_a_line_and_all_stays_as_it_was_written() {
        for (text, expected) in [
            ("{}", "{}"),
            (" [1.0 ,\n-2e400] ", "[1.0, -2e400]"),
            (
                r#"{"a":"\u00e9 \" }","n":12345678901234567890}"#,
                r#"{"a": "\u00e9 \" }", "n": 12345678901234567890}"#,
            ),
        ] {
            assert_eq!(whole(text).unwrap(), expected);
        }
        let long = format!(
            r#"{{"a":[{}],"b":true}}"#,
            "\"0123456789\",".repeat(9) + "null"
        );
        let lines = "    \"0123456789\",\n".repeat(9);
        let expected = format!("{{\n  \"a\": [\n{lines}    null\n  ],\n  \"b\": true\n}}");
        assert_eq!(whole(&long).unwrap(), expected);
    }

    #[test]
    fn what_is_no_object_or_array_is_left_alone() {
        for text in ["", "1", "\"{}\"", "{", "{'a':1}", "[1,]", "hello {}"] {
            assert_eq!(whole(text), None, "{text:?}");
        }
        assert_eq!(whole(&"[".repeat(100_000)), None);
        let nested = |deep| "[".repeat(deep) + &"]".repeat(deep);
        assert!(whole(&nested(DEPTH_MAX)).is_some());
        assert_eq!(whole(&nested(DEPTH_MAX + 1)), None);
    }

    #[test]
    fn markup_is_escaped_and_has_colors() {
        let json = r#"{"<a>":[1,"&",null]}"#;
        assert_eq!(
            markup(json),
            "{<span class=\"key\">&#34;&#60;a&#62;&#34;</span>: [<span class=\"number\">1</span>, \
             <span class=\"string\">&#34;&#38;&#34;</span>, <span class=\"literal\">null</span>]}"
        );
        assert_eq!(markup("<'&\">"), "&#60;&#39;&#38;&#34;&#62;");
    }

    #[test]
    fn what_would_become_long_stays_as_it_is() {
        let nested = |deep: usize, item: &str, count: usize| {
            let items = vec![item; count].join(",");
            format!("{}{items}{}", "[".repeat(deep), "]".repeat(deep))
        };
        let (name, small) = (
            r#""name of a usual length""#,
            r#"{"x":1,"y":[2,3],"name":"a"}"#,
        );
        for (text, is_indented) in [
            (nested(1, name, 2_500), true),
            (nested(5, name, 2_500), true),
            (nested(1, name, 3_000), false),
            (nested(1, small, 2_000), true),
            (nested(1, "12", 10_000), true),
            (nested(1, "1", 10_000), false),
            (nested(1, "1", 300), true),
            (nested(120, "1", 10_000), false),
            (nested(120, name, 1_000), true),
            ("1,".repeat(1_000), false),
        ] {
            let markup = markup(&text);
            let begin = &text[..20];
            assert_eq!(markup.contains('\n'), is_indented, "{begin}");
            assert!(markup.len() <= (GROWTH_MAX * text.len()).max(GROWN_BYTES_MIN));
            if !is_indented {
                assert_eq!(markup.len(), escaped_bytes(&text), "{begin}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_json(text in any_json(4)) {
            let pretty = whole(&text).unwrap();
            let squeezed = |text: &str| tokens(text).concat();
            prop_assert_eq!(squeezed(&text), squeezed(&pretty));
        }
    }

    fn any_json(depth: u32) -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<f32>()
                .prop_filter("finite", |n| n.is_finite())
                .prop_map(|n| n.to_string()),
            any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        ];
        leaf.prop_recursive(depth, 64, 8, |inner| {
            prop::collection::vec(inner, 0..8).prop_map(|items| format!("[{}]", items.join(" ,")))
        })
        .prop_map(|text| format!("{{\"a\" :\n{text}}}"))
    }
}
