//! The head of an answer, byte for byte as hyper writes it: which of the two serves a connection is nobody's business.

use super::request::Asked;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

/// How much body an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// None at all.
    Empty,
    /// So many bytes.
    Known(usize),
    /// It ends when it ends.
    Unknown,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct After {
    /// Whether the body is sent at all.
    pub(super) body: bool,
    /// Whether the connection serves further requests.
    pub(super) keep_alive: bool,
}

/// Whether an answer's headers say nothing that only hyper knows how to follow.
pub(super) fn is_plain(status: StatusCode, headers: &HeaderMap) -> bool {
    !status.is_informational()
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && !headers.contains_key(header::TRAILER)
}

/// Writes a head that [`is_plain`]; `keep_alive` is what the request and the hub want. Takes the headers out of the map.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &mut HeaderMap,
    asked: &Asked,
    keep_alive: bool,
    length: Length,
) -> After {
    let mut keep_alive = fix_connection(headers, asked.version, keep_alive);
    let version: &[u8] = match asked.version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    };
    out.extend_from_slice(version);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = status.canonical_reason().unwrap_or("<none>");
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let has_length = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let (mut wrote_length, mut wrote_date, mut connection) = (false, false, false);
    let mut name = None;
    for (next, value) in headers.drain() {
        if next.is_some() {
            name = next;
            if std::mem::take(&mut connection) {
                out.extend_from_slice(b"\r\n");
            }
        }
        match name.as_ref() {
            // An empty body tells its length below, unless the length is that of an answer to GET.
            Some(&header::CONTENT_LENGTH) if length == Length::Empty && !asked.head => continue,
            Some(&header::CONTENT_LENGTH) if wrote_length => continue,
            Some(&header::CONTENT_LENGTH) => wrote_length = true,
            Some(&header::CONNECTION) => {
                keep_alive &= !has(&value, "close");
                let before: &[u8] = if std::mem::replace(&mut connection, true) {
                    b", "
                } else {
                    b"connection: "
                };
                out.extend_from_slice(before);
                out.extend_from_slice(value.as_bytes());
                continue;
            }
            Some(&header::DATE) => wrote_date = true,
            _ => {}
        }
        line(
            out,
            name.as_ref().map_or("", |name| name.as_str()),
            value.as_bytes(),
        );
    }
    if connection {
        out.extend_from_slice(b"\r\n");
    }
    if !wrote_length {
        match length {
            Length::Unknown if asked.version == Version::HTTP_10 => keep_alive = false,
            Length::Unknown => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Length::Empty | Length::Known(0) if asked.head || !has_length => {}
            Length::Empty => line(out, "content-length", b"0"),
            Length::Known(bytes) if has_length => {
                line(out, "content-length", bytes.to_string().as_bytes());
            }
            Length::Known(_) => {}
        }
    }
    if !wrote_date {
        DATE.with_borrow_mut(|date| line(out, "date", date.now()));
    }
    out.extend_from_slice(b"\r\n");
    After {
        body: length != Length::Empty && !asked.head && has_length,
        keep_alive,
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Says whether the connection stays open where the version does not say it, and gives whether it does.
fn fix_connection(headers: &mut HeaderMap, version: Version, keep_alive: bool) -> bool {
    let said = |headers: &HeaderMap, word| {
        let mut all = headers.get_all(header::CONNECTION).iter();
        all.any(|value| has(value, word))
    };
    let word = match (version, keep_alive) {
        (Version::HTTP_10, true) => "keep-alive",
        (Version::HTTP_10, false) | (_, true) => return keep_alive,
        (_, false) => "close",
    };
    if !said(headers, word) {
        headers.append(header::CONNECTION, HeaderValue::from_static(word));
    }
    keep_alive
}

/// Whether a `Connection` header has this word.
pub(super) fn has(value: &HeaderValue, word: &str) -> bool {
    let words = value.to_str().unwrap_or_default().split(',');
    words
        .map(str::trim)
        .any(|one| one.eq_ignore_ascii_case(word))
}

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { second: 0, text: String::new() }) };
}

/// The time as HTTP writes it, made once a second.
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &[u8] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = now.unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = i64::try_from(second)
                .ok()
                .and_then(|second| jiff::Timestamp::from_second(second).ok())
                .and_then(|time| {
                    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
                    printer.timestamp_to_rfc9110_string(&time).ok()
                })
                .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 GMT".to_owned());
        }
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(
        status: u16,
        headers: &[(&'static str, &'static str)],
        asked: Asked,
        keep_alive: bool,
        length: Length,
    ) -> (String, After) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let mut out = Vec::new();
        let status = StatusCode::from_u16(status).unwrap();
        let after = write_head(&mut out, status, &mut map, &asked, keep_alive, length);
        let text = String::from_utf8(out).unwrap();
        let (text, date) = text.rsplit_once("date: ").unwrap();
        assert_eq!(date.len(), "Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".len());
        (text.to_owned(), after)
    }

    const GET: Asked = Asked {
        version: Version::HTTP_11,
        head: false,
    };
    const HEAD: Asked = Asked {
        version: Version::HTTP_11,
        head: true,
    };
    const OLD: Asked = Asked {
        version: Version::HTTP_10,
        head: false,
    };

    #[test]
    fn bodies_are_framed_as_version_method_and_status_want() {
        let go_on = |body| After {
            body,
            keep_alive: true,
        };
        let last = |body| After {
            body,
            keep_alive: false,
        };
        for (asked, status, length, expected, after) in [
            (
                GET,
                200,
                Length::Known(3),
                "content-length: 3\r\n",
                go_on(true),
            ),
            (
                GET,
                200,
                Length::Empty,
                "content-length: 0\r\n",
                go_on(false),
            ),
            (GET, 204, Length::Empty, "", go_on(false)),
            (
                GET,
                200,
                Length::Unknown,
                "transfer-encoding: chunked\r\n",
                go_on(true),
            ),
            (
                HEAD,
                200,
                Length::Known(3),
                "content-length: 3\r\n",
                go_on(false),
            ),
            (HEAD, 200, Length::Empty, "", go_on(false)),
        ] {
            let (text, got) = head(status, &[], asked, true, length);
            assert_eq!(
                text.split_once("\r\n").unwrap().1,
                expected,
                "{status} {length:?}"
            );
            assert_eq!(got, after, "{status} {length:?}");
        }
        let (text, after) = head(200, &[], OLD, false, Length::Unknown);
        assert_eq!((text.as_str(), after), ("HTTP/1.0 200 OK\r\n", last(true)));
    }

    #[test]
    fn a_connection_says_whether_it_stays_open() {
        for (asked, keep_alive, said, expected, stays) in [
            (GET, true, None, "", true),
            (GET, false, None, "connection: close\r\n", false),
            (GET, false, Some("close"), "connection: close\r\n", false),
            (GET, true, Some("close"), "connection: close\r\n", false),
            (OLD, true, None, "connection: keep-alive\r\n", true),
            (OLD, false, None, "", false),
            (
                OLD,
                true,
                Some("close"),
                "connection: close, keep-alive\r\n",
                false,
            ),
        ] {
            let headers: Vec<_> = said.map(|said| ("connection", said)).into_iter().collect();
            let (text, after) = head(204, &headers, asked, keep_alive, Length::Empty);
            assert_eq!(text.split_once("\r\n").unwrap().1, expected);
            assert_eq!(after.keep_alive, stays, "{expected}");
        }
    }

    #[test]
    fn a_length_that_was_given_stands_where_it_was_given() {
        let headers = [("content-length", "3"), ("vary", "origin")];
        let (text, _) = head(200, &headers, GET, true, Length::Known(3));
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nvary: origin\r\n"
        );
        let (text, _) = head(200, &headers, HEAD, true, Length::Empty);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nvary: origin\r\n"
        );
        let headers = [("content-length", "0"), ("vary", "origin")];
        let (text, _) = head(200, &headers, GET, true, Length::Empty);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nvary: origin\r\ncontent-length: 0\r\n"
        );
    }
}
