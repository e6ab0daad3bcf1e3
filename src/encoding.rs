//! The wire forms of an event as bytes. Each is made once per event, whatever the number of feeds and
//! readers, and a frame shares or copies it. Knows nothing of connections.

use crate::event::Event;
use bytes::{BufMut, Bytes, BytesMut};
use std::{io::Write as _, sync::OnceLock};

/// How events are put into bytes for a kind of reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Server-Sent Events: `id:`, `event:`, `retry:`, one `data:` line per line of data.
    Sse,
    /// The same, with the data in a JSON envelope on one line.
    SseEnvelope,
    /// The same without the event's name, so that one listener gets events of all names.
    SseMessage,
    /// The envelope, and a newline: NDJSON.
    Line,
    /// The envelope, and a comma: several of them, but for the last comma, are the inside of a JSON array.
    Item,
}

/// The number of [`Encoding`]s.
pub const ENCODINGS: usize = 5;

/// Bytes of one thing in each [`Encoding`], made on first use.
#[derive(Default)]
pub struct Encodings([OnceLock<Bytes>; ENCODINGS]);

impl Encodings {
    /// The bytes in that encoding, from `make` the first time.
    pub fn get(&self, encoding: Encoding, make: impl FnOnce() -> Bytes) -> Bytes {
        self.0[encoding as usize].get_or_init(make).clone()
    }
}

impl Encoding {
    /// The event's bytes, made on the first call and shared by the later ones.
    #[must_use]
    pub fn of(self, event: &Event) -> Bytes {
        event.encodings.get(self, || {
            let mut out = BytesMut::with_capacity(event.data.len() + 96);
            self.encode(event, &mut out);
            out.freeze()
        })
    }

    /// Appends the event's bytes to `out`, keeping nothing.
    pub fn encode(self, event: &Event, out: &mut BytesMut) {
        match self {
            Self::Sse => {
                sse_head(event, true, out);
                data_lines(&event.data, out);
                out.put_u8(b'\n');
            }
            Self::SseEnvelope | Self::SseMessage => {
                sse_head(event, self == Self::SseEnvelope, out);
                out.put_slice(b"data: ");
                envelope(event, out);
                out.put_slice(b"\n\n");
            }
            Self::Line => {
                envelope(event, out);
                out.put_u8(b'\n');
            }
            Self::Item => {
                envelope(event, out);
                out.put_u8(b',');
            }
        }
    }
}

fn sse_head(event: &Event, named: bool, out: &mut BytesMut) {
    put(out, format_args!("id: {}\n", event.cursor));
    if let Some(name) = event.event.as_ref().filter(|_| named) {
        out.put_slice(b"event: ");
        out.put_slice(name.as_str().as_bytes());
        out.put_u8(b'\n');
    }
    if let Some(retry_ms) = event.retry_ms {
        put(out, format_args!("retry: {retry_ms}\n"));
    }
}

/// One `data:` line per line of data. CR, LF and CRLF end a line, as the reader's parser has it; no
/// data at all is `data:` alone, which is delivered as an empty message.
fn data_lines(mut data: &[u8], out: &mut BytesMut) {
    loop {
        let end = memchr::memchr2(b'\n', b'\r', data).unwrap_or(data.len());
        if end == 0 {
            out.put_slice(b"data:\n");
        } else {
            out.put_slice(b"data: ");
            out.put_slice(&data[..end]);
            out.put_u8(b'\n');
        }
        let skip = match data.get(end..) {
            Some([b'\r', b'\n', ..]) => 2,
            Some([_, ..]) => 1,
            _ => return,
        };
        data = &data[end + skip..];
    }
}

/// Appends `{"topic","id","own_id","event","time","data"}` on one line: absent fields null, `data`
/// always a string, `time` RFC 3339 UTC with milliseconds.
pub fn envelope(event: &Event, out: &mut BytesMut) {
    out.put_slice(b"{\"topic\":");
    json_string(event.topic.as_str().as_bytes(), out);
    put(
        out,
        format_args!(",\"id\":\"{}\",\"own_id\":", event.cursor),
    );
    json_option(event.own_id.as_ref().map(|id| id.as_str()), out);
    out.put_slice(b",\"event\":");
    json_option(event.event.as_ref().map(|name| name.as_str()), out);
    put(
        out,
        format_args!(",\"time\":\"{}\",\"data\":", rfc3339(event.time_ms)),
    );
    json_string(&event.data, out);
    out.put_u8(b'}');
}

/// RFC 3339 in UTC with milliseconds, such as `2026-11-20T08:30:00.125Z`.
#[must_use]
pub fn rfc3339(time_ms: u64) -> String {
    let ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{:.3}", jiff::Timestamp::MAX),
    }
}

fn json_option(text: Option<&str>, out: &mut BytesMut) {
    match text {
        Some(text) => json_string(text.as_bytes(), out),
        None => out.put_slice(b"null"),
    }
}

/// Characters that JSON leaves as they are, and at which some clients cut what they read into lines, as Unicode would have it:
/// Python's `iter_lines` does, in two of its libraries.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// JSON that has been written already, with no end of a line in it.
#[must_use]
pub fn on_one_line(mut json: String) -> String {
    if json.contains(LINE_ENDS) {
        for end in LINE_ENDS {
            // They stand nowhere but in strings.
            json = json.replace(end, &format!("\\u{:04x}", u32::from(end)));
        }
    }
    json
}

/// A JSON string of UTF-8 bytes: what JSON demands is escaped, and [`LINE_ENDS`].
fn json_string(text: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    let (mut rest, mut seen) = (text, 0);
    let may_need = |byte: &u8| MAY_NEED_ESCAPE[usize::from(*byte)];
    while let Some(at) = rest[seen..].iter().position(may_need) {
        let (before, found) = rest.split_at(seen + at);
        let short = match found[0] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            byte @ (b'"' | b'\\') => byte,
            _ => {
                if let Some((code, bytes)) = code_to_escape(found) {
                    out.put_slice(before);
                    put(out, format_args!("\\u{code:04x}"));
                    (rest, seen) = (&found[bytes..], 0);
                } else {
                    seen += at + 1;
                }
                continue;
            }
        };
        out.put_slice(before);
        out.put_slice(&[b'\\', short]);
        (rest, seen) = (&found[1..], 0);
    }
    out.put_slice(rest);
    out.put_u8(b'"');
}

/// The bytes that begin something to escape. A table costs each byte of data a load, and comparisons cost it twice as much.
static MAY_NEED_ESCAPE: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0;
    while byte < bytes.len() {
        // The last two begin the characters of LINE_ENDS, and some that are common.
        bytes[byte] = matches!(byte as u8, ..0x20 | b'"' | b'\\' | 0xc2 | 0xe2);
        byte += 1;
    }
    bytes
};

/// What is to be escaped by its code at the beginning of a text, and how many bytes it is.
fn code_to_escape(text: &[u8]) -> Option<(u16, usize)> {
    match *text {
        [byte @ ..0x20, ..] => Some((byte.into(), 1)),
        [0xc2, 0x85, ..] => Some((0x85, 2)),
        [0xe2, 0x80, 0xa8, ..] => Some((0x2028, 3)),
        [0xe2, 0x80, 0xa9, ..] => Some((0x2029, 3)),
        _ => None,
    }
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // A BytesMut grows as it needs: writing to it cannot fail.
    let _ = out.writer().write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> String {
        let mut out = BytesMut::new();
        json_string(text.as_bytes(), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_ends_a_line_anywhere_is_escaped_and_what_does_not_is_not() {
        for (text, expected) in [
            ("", r#""""#),
            ("\u{2028}", r#""\u2028""#),
            ("a\u{2029}b\u{85}", r#""a\u2029b\u0085""#),
            (
                "\u{85}\u{85}\u{2028}\"\u{2028}",
                r#""\u0085\u0085\u2028\"\u2028""#,
            ),
            (
                "\u{84}\u{86}§»\u{2027}\u{202a}–“€",
                "\"\u{84}\u{86}§»\u{2027}\u{202a}–“€\"",
            ),
            (
                "\n\r\t\\\"\u{0}\u{1f}\u{7f}",
                "\"\\n\\r\\t\\\\\\\"\\u0000\\u001f\u{7f}\"",
            ),
        ] {
            assert_eq!(string(text), expected);
        }
    }

    proptest! {
        #[test]
        fn strings_are_read_as_they_were(text in "([a-z\u{80}-\u{ff}\u{2020}-\u{2030}]|.|\n){0,40}") {
            let json = string(&text);
            prop_assert!(!json.contains(LINE_ENDS) && !json.contains(|c: char| c < ' '));
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            let other = on_one_line(serde_json::Value::from(text.as_str()).to_string());
            prop_assert!(!other.contains(LINE_ENDS));
            prop_assert_eq!(serde_json::from_str::<String>(&other).unwrap(), text);
        }
    }
}
