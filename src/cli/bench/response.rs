//! An HTTP/1.1 response, read as it comes: its head, and its body without the chunks it came in. It keeps no byte
//! of the body, so that a thousand streams cost nothing.

use memchr::{memchr, memmem};

/// A head longer than this is none.
const HEAD_BYTES_MAX: usize = 16 << 10; // 16 KiB

/// How far a response has come.
#[derive(Debug, Default)]
pub(super) struct Response {
    state: State,
    /// The head, as long as it is not complete.
    head: Vec<u8>,
    status: u16,
    closes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Head,
    /// A body of so many more bytes.
    Length(u64),
    UntilClose,
    /// In a chunk's size; whether its digits are over.
    Size(u64, bool),
    /// So many more bytes of a chunk.
    Chunk(u64),
    /// In the line end behind a chunk.
    ChunkEnd,
    /// In the fields behind the last chunk; whether the line has anything in it.
    Trailer(bool),
    Done,
}

/// What came is no HTTP/1.1 response.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not HTTP/1.1")]
pub(super) struct NotHttp;

impl Response {
    /// The status, once the head is there.
    pub(super) fn status(&self) -> Option<u16> {
        (self.state != State::Head).then_some(self.status)
    }

    /// Whether the connection ends with it.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Whether the body has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what came from the connection, and hands on what is the body's.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut body: impl FnMut(&[u8]),
    ) -> Result<(), NotHttp> {
        if self.state == State::Head {
            bytes = self.feed_head(bytes)?;
        }
        while !bytes.is_empty() {
            match self.state {
                State::Head | State::Done => return Ok(()),
                State::UntilClose => {
                    body(bytes);
                    return Ok(());
                }
                State::Length(left) | State::Chunk(left) => {
                    let len =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (piece, rest) = bytes.split_at(len);
                    body(piece);
                    bytes = rest;
                    let left = left - len as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk(left),
                    };
                }
                State::ChunkEnd => {
                    if bytes[0] == b'\n' {
                        self.state = State::Size(0, false);
                    } else if bytes[0] != b'\r' {
                        return Err(NotHttp);
                    }
                    bytes = &bytes[1..];
                }
                State::Size(size, over) => {
                    self.state = next_of_size(bytes[0], size, over)?;
                    bytes = &bytes[1..];
                }
                State::Trailer(any) => {
                    self.state = match bytes[0] {
                        b'\n' if !any => State::Done,
                        b'\n' => State::Trailer(false),
                        b'\r' => State::Trailer(any),
                        _ => State::Trailer(true),
                    };
                    bytes = &bytes[1..];
                }
            }
        }
        Ok(())
    }

    /// Gives what follows the head.
    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], NotHttp> {
        // Most heads come in one piece, and are not copied.
        if self.head.is_empty() {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                self.head.extend_from_slice(bytes);
                return Ok(&[]);
            };
            self.parse_head(&bytes[..end + 4])?;
            return self.after_head(&bytes[end + 4..]);
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else {
            return if self.head.len() > HEAD_BYTES_MAX {
                Err(NotHttp)
            } else {
                Ok(&[])
            };
        };
        let head = std::mem::take(&mut self.head);
        self.parse_head(&head[..end + 4])?;
        self.after_head(&bytes[end + 4 - before..])
    }

    fn after_head<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], NotHttp> {
        if self.state == State::Head && !rest.is_empty() {
            // Behind an interim response.
            return self.feed_head(rest);
        }
        Ok(rest)
    }

    fn parse_head(&mut self, head: &[u8]) -> Result<(), NotHttp> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut fields);
        parsed.parse(head).map_err(|_| NotHttp)?;
        self.status = parsed.code.ok_or(NotHttp)?;
        let value = |name: &str| {
            let mut fields = parsed.headers.iter();
            let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        let chunked = value("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        self.closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let length = value("content-length").map(|value| value.trim().parse());
        self.state = match (self.status, chunked, length) {
            (101, ..) => State::UntilClose,
            (100..200, ..) => State::Head,
            (204 | 304, ..) | (_, false, Some(Ok(0))) => State::Done,
            (_, true, _) => State::Size(0, false),
            (_, _, Some(Ok(length))) => State::Length(length),
            (_, _, Some(Err(_))) => return Err(NotHttp),
            (_, _, None) => State::UntilClose,
        };
        Ok(())
    }
}

fn next_of_size(byte: u8, size: u64, over: bool) -> Result<State, NotHttp> {
    Ok(match byte {
        b'\n' if size == 0 => State::Trailer(false),
        b'\n' => State::Chunk(size),
        b'\r' | b';' | b' ' => State::Size(size, true),
        _ if over => State::Size(size, true),
        digit => {
            let digit = char::from(digit).to_digit(16).ok_or(NotHttp)?;
            let size = size.checked_mul(16).ok_or(NotHttp)? + u64::from(digit);
            State::Size(size, false)
        }
    })
}

/// The value of the last `id:` line that is complete in this part of a stream.
pub(super) fn last_id(stream: &[u8]) -> Option<&[u8]> {
    let mut lines_end = stream.len();
    while let Some(at) = memmem::rfind(&stream[..lines_end], b"id:") {
        let at_line_start = at == 0 || stream[at - 1] == b'\n';
        let value = &stream[at + 3..];
        if at_line_start && let Some(end) = memchr(b'\n', value) {
            let value = &value[..end];
            return Some(value.strip_prefix(b" ").unwrap_or(value).trim_ascii_end());
        }
        lines_end = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(response: &[u8], step: usize) -> (Option<u16>, String, bool) {
        let mut parser = Response::default();
        let mut out = Vec::new();
        for piece in response.chunks(step) {
            let fed = parser.feed(piece, |body| out.extend_from_slice(body));
            fed.unwrap();
        }
        let out = String::from_utf8(out).unwrap();
        (parser.status(), out, parser.is_done())
    }

    #[test]
    fn bodies_however_they_are_cut() {
        let table: [(&[u8], u16, &str, bool); 6] = [
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0a;x=1\r\n0123456789\r\n0\r\n\r\n",
                200,
                "abc0123456789",
                true,
            ),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n",
                200,
                "a",
                true,
            ),
            (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 201, "ok", true),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
            (b"HTTP/1.1 200 OK\r\n\r\nrest", 200, "rest", false),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\nx",
                503,
                "x",
                true,
            ),
        ];
        for (response, status, text, done) in table {
            for step in 1..=response.len() {
                let expected = (Some(status), text.to_owned(), done);
                assert_eq!(body(response, step), expected, "{step}");
            }
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for nonsense in [
            &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(Response::default().feed(nonsense, |_| ()).is_err());
        }
    }

    #[test]
    fn the_last_id() {
        assert_eq!(
            last_id(b"id: a-1\ndata: x\n\nid:b-2\r\ndata: id: 9\n\n"),
            Some(&b"b-2"[..])
        );
        assert_eq!(last_id(b"data: x\nid: 1\n\nid: 2"), Some(&b"1"[..]));
        assert_eq!(last_id(b"data: x\n\n"), None);
    }
}
