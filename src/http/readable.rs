//! JSON made readable without changing it: numbers and strings stay as they were written. The same as `public/json.js`
//! does on a page.

use serde::de::IgnoredAny;
use std::borrow::Cow;

/// What fits into a line of so many characters stays on one line.
const LINE_CHARS: usize = 72;

/// What a piece of JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Key,
    String,
    Number,
    Literal,
}

impl Kind {
    /// Its class in the style sheet.
    pub(super) fn class(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Key => Some("key"),
            Self::String => Some("string"),
            Self::Number => Some("number"),
            Self::Literal => Some("literal"),
        }
    }
}

/// The text indented, in pieces; `None` if it is no JSON object or array, or one too deep.
pub(super) fn pretty(text: &str) -> Option<Vec<(Kind, Cow<'_, str>)>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let tokens = tokens(text);
    let widths = flat_widths(&tokens);
    let mut out: Vec<(Kind, Cow<'_, str>)> = Vec::with_capacity(2 * tokens.len());
    // Of the open brackets so many are on one line with their contents.
    let (mut depth, mut flat) = (0, 0);
    let newline = |depth: usize| (Kind::Plain, Cow::Owned(format!("\n{}", "  ".repeat(depth))));
    for (at, &token) in tokens.iter().enumerate() {
        match token {
            "{" | "[" => {
                depth += 1;
                out.push((Kind::Plain, token.into()));
                if flat > 0 || 2 * depth + widths[at] <= LINE_CHARS {
                    flat += 1;
                } else {
                    out.push(newline(depth));
                }
            }
            "}" | "]" => {
                depth -= 1;
                if flat > 0 {
                    flat -= 1;
                } else {
                    out.push(newline(depth));
                }
                out.push((Kind::Plain, token.into()));
            }
            "," if flat > 0 => out.push((Kind::Plain, ", ".into())),
            "," => {
                out.push((Kind::Plain, ",".into()));
                out.push(newline(depth));
            }
            ":" => out.push((Kind::Plain, ": ".into())),
            _ => out.push((kind(token, tokens.get(at + 1)), token.into())),
        }
    }
    Some(out)
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
        let pieces = pretty(text)?;
        Some(pieces.into_iter().map(|(_, text)| text).collect())
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
