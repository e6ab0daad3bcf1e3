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

/// A JSON string of UTF-8 bytes: only what JSON demands is escaped.
fn json_string(text: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|b| *b < 0x20 || matches!(b, b'"' | b'\\'))
    {
        out.put_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            b @ (b'"' | b'\\') => out.put_slice(&[b'\\', b]),
            b => put(out, format_args!("\\u{b:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
    out.put_u8(b'"');
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // A BytesMut grows as it needs: writing to it cannot fail.
    let _ = out.writer().write_fmt(text);
}
