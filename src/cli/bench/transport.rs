//! How readers listen: what is sent to ask for events, what is answered to what comes, and which of its bytes are
//! events'. No byte of them is kept.

use super::{frames::Frames, response::Response, target::Kind};
use memchr::memmem;
use std::io;

/// By which a reader listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Transport {
    /// Server-Sent Events
    #[default]
    Sse,
    /// A stream of lines of JSON
    Ndjson,
    /// Pages of JSON, each waited for, the next from its cursor, over one connection (Tidings)
    Longpoll,
    /// A WebSocket (Tidings)
    Ws,
    /// Socket.IO over a WebSocket (Tidings)
    Socketio,
}

impl Transport {
    /// As the command line calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Longpoll => "longpoll",
            Self::Ws => "ws",
            Self::Socketio => "socketio",
        }
    }

    /// What a request for events accepts.
    pub(super) fn accept(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
            Self::Longpoll => "application/json",
            Self::Ws | Self::Socketio => "*/*",
        }
    }

    /// Where a hub of that kind has it, with one topic and with several, if not where its streams are.
    pub(super) fn routes(self, kind: Kind) -> anyhow::Result<Option<[&'static str; 2]>> {
        anyhow::ensure!(
            kind == Kind::Tidings || matches!(self, Self::Sse | Self::Ndjson),
            "only Tidings has --transport {}",
            self.name()
        );
        Ok(match self {
            Self::Sse | Self::Ndjson | Self::Longpoll => None,
            Self::Ws => Some(["/ws?topic={topics:&topic=}"; 2]),
            Self::Socketio => Some(["/socket.io/?EIO=4&transport=websocket"; 2]),
        })
    }
}

/// What a reader sends: at once, and later.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) first: Vec<u8>,
    pub(super) then: Then,
}

/// What a reader sends later.
#[derive(Clone, Debug, Default)]
pub(super) enum Then {
    /// Nothing: it has a stream.
    #[default]
    Nothing,
    /// This request, with the last page's cursor in between.
    Next([Vec<u8>; 2]),
    /// What a WebSocket asks for; that packet of Socket.IO's, once it is open.
    Frames(Option<Vec<u8>>),
}

/// A reader's end of a connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    response: Response,
    /// Of the last answer whose head is there.
    status: Option<u16>,
    kind: Kinds,
}

#[derive(Debug, Default)]
enum Kinds {
    #[default]
    Stream,
    Pages(Pages),
    Frames(Box<Frames>),
}

impl Wire {
    pub(super) fn new(then: Then) -> Self {
        Self {
            response: Response::default(),
            status: None,
            kind: match then {
                Then::Nothing => Kinds::Stream,
                Then::Next(next) => Kinds::Pages(Pages {
                    next,
                    end: Vec::new(),
                }),
                Then::Frames(connect) => Kinds::Frames(Box::new(Frames::new(connect))),
            },
        }
    }

    /// The answer's status, once it is there.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether the hub has said yes.
    pub(super) fn is_open(&self) -> bool {
        let yes = match self.kind {
            Kinds::Frames(_) => 101,
            _ => 200,
        };
        self.status == Some(yes)
    }

    /// Takes what came, hands on what may have events in it, and adds to `out` what is to be sent. An error is a hub
    /// that ended it, or that speaks otherwise.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut body: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let Self {
            response,
            status,
            kind,
        } = self;
        let mut result = Ok(());
        let fed = response.feed(bytes, |piece| match kind {
            Kinds::Stream => body(piece),
            Kinds::Pages(pages) => {
                pages.keep(piece);
                body(piece);
            }
            Kinds::Frames(frames) if result.is_ok() => result = frames.feed(piece, out, &mut body),
            Kinds::Frames(_) => {}
        });
        fed.map_err(io::Error::other)?;
        result?;
        *status = response.status().or(*status);
        if let Kinds::Pages(pages) = kind
            && response.is_done()
            && response.status() == Some(200)
        {
            pages.ask_next(out)?;
            *response = Response::default();
        }
        Ok(())
    }
}

/// A page's end is kept until all of it is there: it has the cursor.
const END_BYTES: usize = 1 << 10; // 1 KiB, more than a gap takes

#[derive(Debug)]
struct Pages {
    next: [Vec<u8>; 2],
    end: Vec<u8>,
}

impl Pages {
    fn keep(&mut self, piece: &[u8]) {
        self.end
            .extend_from_slice(&piece[piece.len().saturating_sub(END_BYTES)..]);
        let more = self.end.len().saturating_sub(END_BYTES);
        self.end.drain(..more);
    }

    fn ask_next(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        const NAME: &[u8] = b"\"cursor\":\"";
        let end = std::mem::take(&mut self.end);
        let cursor = memmem::rfind(&end, NAME).and_then(|at| {
            let cursor = &end[at + NAME.len()..];
            Some(&cursor[..memchr::memchr(b'"', cursor)?])
        });
        let cursor = cursor.ok_or_else(|| io::Error::other("a page without a cursor"))?;
        let [before, behind] = &self.next;
        out.extend_from_slice(before);
        out.extend_from_slice(cursor);
        out.extend_from_slice(behind);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_with_the_cursor_of_the_last() {
        let page = "{\"events\":[{\"data\":\"\\\"cursor\\\":\\\"x\"}],\"cursor\":\"e-7\",\"more\":false,\"gap\":null}\n";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}",
            page.len()
        );
        for step in 1..=answer.len() {
            let next = [b"<".to_vec(), b">".to_vec()];
            let mut wire = Wire::new(Then::Next(next));
            for _ in 0..2 {
                let (mut out, mut body) = (Vec::new(), Vec::new());
                for piece in answer.as_bytes().chunks(step) {
                    assert!(out.is_empty());
                    let fed = wire.feed(piece, &mut out, |piece| body.extend_from_slice(piece));
                    fed.unwrap();
                }
                assert_eq!(out, b"<e-7>", "{step}");
                assert_eq!(body, page.as_bytes());
                assert!(wire.is_open());
            }
        }
    }

    #[test]
    fn what_is_no_page_is_found_out() {
        let mut wire = Wire::new(Then::Next(Default::default()));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(wire.feed(answer, &mut Vec::new(), |_| ()).is_err());
        let mut wire = Wire::new(Then::Next(Default::default()));
        let answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}";
        wire.feed(answer, &mut Vec::new(), |_| ()).unwrap();
        assert!(!wire.is_open());
        assert_eq!(wire.status(), Some(503));
    }
}
