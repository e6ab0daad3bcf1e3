//! Which requests the hub reads by itself: plain ones, in which nothing is unusual. All others are hyper's, so that
//! what is refused, and in which words, has one place.

use super::answer;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use bytes::Bytes;
use std::mem::MaybeUninit;

/// The fields of a head, as hyper is told.
pub(in crate::http) const FIELDS_MAX: usize = 256;

/// A larger body is hyper's, which hands it on as it comes.
const BODY_BYTES_MAX: usize = 64 << 10; // 64 KiB

/// The longest target of a request. (The path of a request beyond that is hyper's to refuse.)
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;

/// Where a head ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Before this byte.
    At(usize),
    /// Not yet: the search goes on at this byte.
    Beyond(usize),
    /// It has a line end that is none.
    Unusual,
}

/// What of a request the head of its answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    /// Whether only the head is asked for.
    pub(super) head: bool,
}

/// A request as it is routed, but for its body.
pub(super) struct Plain {
    pub(super) request: Request<()>,
    pub(super) asked: Asked,
    pub(super) body_bytes: usize,
    /// Whether the client wants the connection to stay open.
    pub(super) keep_alive: bool,
}

/// Looks for the end of a head, from a byte on.
pub(super) fn end(read: &[u8], from: usize) -> End {
    for at in memchr::memchr_iter(b'\n', read.get(from..).unwrap_or_default()) {
        let at = from + at;
        if at == 0 || at == 1 || read[at - 1] != b'\r' {
            return End::Unusual;
        }
        match &read[at + 1..] {
            [b'\r', b'\n', ..] => return End::At(at + 3),
            [] | [b'\r'] => return End::Beyond(at),
            _ => {}
        }
    }
    End::Beyond(read.len())
}

/// Whether a head that has not ended yet can become a request.
pub(super) fn may_begin(read: &[u8]) -> bool {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(read, &mut fields);
    parsed.is_ok()
}

/// The request of a whole head, if it is plain. The headers go into `map`, which is empty.
pub(super) fn plain(head: &Bytes, mut map: HeaderMap) -> Option<Plain> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(head, &mut fields);
    if status != Ok(httparse::Status::Complete(head.len())) {
        return None;
    }
    let method = match parsed.method? {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "HEAD" => Method::HEAD,
        "OPTIONS" => Method::OPTIONS,
        _ => return None,
    };
    let target = parsed.path.filter(|path| path.starts_with('/'))?;
    if target.len() > TARGET_BYTES_MAX {
        return None;
    }
    let target = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).ok()?;
    let version = match parsed.version? {
        1 => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    map.reserve(parsed.headers.len());
    let mut length = None;
    let (mut close, mut keep_alive) = (false, version == Version::HTTP_11);
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
        match name {
            header::EXPECT | header::TRANSFER_ENCODING | header::UPGRADE => return None,
            header::CONTENT_LENGTH => {
                if method != Method::POST || length.is_some() {
                    return None;
                }
                length = Some(small(&value)?);
            }
            // Lines of events come while they are published.
            header::CONTENT_TYPE if is_ndjson(&value) => return None,
            header::CONNECTION => {
                close |= answer::has(&value, "close");
                keep_alive |= answer::has(&value, "keep-alive");
            }
            _ => {}
        }
        map.append(name, value);
    }
    let asked = Asked {
        version,
        head: method == Method::HEAD,
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = version;
    *request.headers_mut() = map;
    Some(Plain {
        request,
        asked,
        body_bytes: length.unwrap_or(0),
        keep_alive: keep_alive && !close,
    })
}

/// The length of a body that may be taken whole before its request is routed.
fn small(length: &HeaderValue) -> Option<usize> {
    let digits = length.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = length.to_str().ok()?.parse().ok()?;
    (length <= BODY_BYTES_MAX).then_some(length)
}

fn is_ndjson(kind: &HeaderValue) -> bool {
    let name = b"ndjson";
    kind.as_bytes()
        .windows(name.len())
        .any(|part| part.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(head: &str) -> Option<Plain> {
        assert_eq!(end(head.as_bytes(), 0), End::At(head.len()), "{head:?}");
        plain(&Bytes::copy_from_slice(head.as_bytes()), HeaderMap::new())
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
        let whole = head.len() - 4;
        for read in 0..=head.len() {
            let mut from = 0;
            // However it comes: byte by byte, from where the last search ended.
            let mut found = End::Beyond(0);
            for read in 1..=read {
                found = end(&head[..read], from);
                match found {
                    End::Beyond(at) => from = at,
                    _ => break,
                }
            }
            let expected = read >= whole;
            assert_eq!(found == End::At(whole), expected, "{read} bytes");
            assert_ne!(found, End::Unusual);
        }
    }

    #[test]
    fn lines_that_end_otherwise_are_unusual() {
        for head in [
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
        ] {
            assert_eq!(end(head.as_bytes(), 0), End::Unusual, "{head:?}");
        }
    }

    #[test]
    fn plain_requests_are_read_here() {
        let get = judged("GET /events?topic=a HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n").unwrap();
        assert_eq!(get.request.uri(), "/events?topic=a");
        assert_eq!(get.request.headers()["x"], "");
        assert!(get.keep_alive && !get.asked.head);
        let post = "POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(judged(post).unwrap().body_bytes, 3);
        for (version, connection, stays) in [
            ("1.1", "", true),
            ("1.1", "Connection: Close\r\n", false),
            ("1.1", "Connection: keep-alive, close\r\n", false),
            (
                "1.1",
                "Connection: close\r\nConnection: keep-alive\r\n",
                false,
            ),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let head = format!("HEAD / HTTP/{version}\r\n{connection}\r\n");
            let head = judged(&head).unwrap();
            assert!(head.asked.head);
            assert_eq!(head.keep_alive, stays, "{version} {connection}");
        }
    }

    #[test]
    fn what_is_unusual_is_not() {
        for head in [
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
            "GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET http://localhost/ HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET /\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\n\r\n",
            "DELETE / HTTP/1.1\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "POST /topics/a HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST /topics/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST /topics/a HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
            "POST /publish HTTP/1.1\r\nContent-Type: Application/X-NDJSON\r\nContent-Length: 1\r\n\r\n",
        ] {
            assert!(judged(head).is_none(), "{head:?}");
        }
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(FIELDS_MAX + 1)
        );
        assert!(judged(&many).is_none());
    }
}
