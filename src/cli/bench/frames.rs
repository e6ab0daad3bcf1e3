//! A WebSocket's frames as a client gets them, and the packets of Socket.IO that they may carry. It keeps no byte of a
//! message.

use std::io;

/// A server's head of a frame is no longer: it does not mask.
const HEAD_BYTES_MAX: usize = 10;

/// What a control frame carries is no longer.
const CONTROL_BYTES_MAX: u64 = 125;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// How far a WebSocket has come.
#[derive(Debug)]
pub(super) struct Frames {
    /// The head of a frame, as long as it is not complete.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    opcode: u8,
    /// So many more bytes of the frame.
    left: u64,
    /// What a control frame carries, so far.
    control: Vec<u8>,
    /// Whether the next byte is a message's first.
    at_message: bool,
    /// Of Socket.IO: to be sent once Engine.IO is open.
    connect: Option<Vec<u8>>,
    is_socketio: bool,
}

impl Frames {
    /// With the packet that connects to Socket.IO, if it is that.
    pub(super) fn new(connect: Option<Vec<u8>>) -> Self {
        Self {
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            opcode: 0,
            left: 0,
            control: Vec::new(),
            at_message: false,
            is_socketio: connect.is_some(),
            connect,
        }
    }

    /// Takes what came, hands on what messages carry, and adds to `out` what is to be sent.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        body: &mut impl FnMut(&[u8]),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.feed_head(bytes);
                if !self.is_headed() {
                    return Ok(());
                }
            }
            let len = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (piece, rest) = bytes.split_at(len);
            bytes = rest;
            self.left -= len as u64;
            if self.opcode >= CLOSE {
                self.control.extend_from_slice(piece);
            } else if !piece.is_empty() {
                if std::mem::take(&mut self.at_message) && self.is_socketio {
                    self.packet(piece[0], out)?;
                }
                body(piece);
            }
            if self.left == 0 {
                self.head_len = 0;
                self.end_of_frame(out)?;
            }
        }
        Ok(())
    }

    /// Gives what follows the head.
    fn feed_head<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !self.is_headed()
            && let Some((first, rest)) = bytes.split_first()
        {
            self.head[self.head_len] = *first;
            self.head_len += 1;
            bytes = rest;
        }
        if self.is_headed() {
            self.opcode = self.head[0] & 0xf;
            // Not a continuation.
            self.at_message = (1..CLOSE).contains(&self.opcode);
            let long = &self.head[2..self.head_len];
            self.left = match self.head[1] {
                short if long.is_empty() => u64::from(short),
                _ => long.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
            };
        }
        bytes
    }

    fn is_headed(&self) -> bool {
        let long = match self.head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.head_len >= 2 && self.head_len == 2 + long
    }

    fn end_of_frame(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let control = std::mem::take(&mut self.control);
        match self.opcode {
            CLOSE => Err(io::Error::other("the hub closed the WebSocket")),
            PING if control.len() as u64 <= CONTROL_BYTES_MAX => {
                frame(PONG, &control, out);
                Ok(())
            }
            PING => Err(io::Error::other("a ping that is too long")),
            _ => Ok(()),
        }
    }

    /// Answers a packet of Engine.IO by its first byte. (What it is of Socket.IO does not matter: events are found by
    /// their stamps.)
    fn packet(&mut self, kind: u8, out: &mut Vec<u8>) -> io::Result<()> {
        match kind {
            b'0' => {
                let connect = self.connect.take().unwrap_or_default();
                frame(TEXT, &connect, out);
            }
            b'1' => return Err(io::Error::other("the hub closed the connection")),
            b'2' => frame(TEXT, b"3", out),
            _ => {}
        }
        Ok(())
    }
}

/// Appends a client's frame. A mask of zeros is one.
fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(len) if u64::from(len) <= CONTROL_BYTES_MAX => out.push(0x80 | len as u8),
        Ok(len) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame.
    fn served(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![opcode];
        match payload.len() {
            len @ 0..126 => out.push(len as u8),
            len @ 126..65_536 => {
                out.push(126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn messages_however_they_are_cut() {
        let texts = [vec![b'a'; 125], vec![b'b'; 126], vec![], vec![b'c'; 70_000]];
        let mut stream = Vec::new();
        for text in &texts {
            stream.extend(served(0x80 | TEXT, text));
            stream.extend(served(0x80 | PING, b"are you there?"));
        }
        // In two frames, with a pong in between.
        stream.extend(served(TEXT, b"d"));
        stream.extend(served(0x80 | PONG, b""));
        stream.extend(served(0x80, b"e"));
        let expected = [texts.concat(), b"de".to_vec()].concat();
        let mut pongs = Vec::new();
        for _ in &texts {
            frame(PONG, b"are you there?", &mut pongs);
        }
        for step in [1, 2, 3, 5, 127, 128, 1_000, stream.len()] {
            let (mut frames, mut out, mut body) = (Frames::new(None), Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                let fed = frames.feed(piece, &mut out, &mut |piece: &[u8]| {
                    body.extend_from_slice(piece);
                });
                fed.unwrap();
            }
            assert_eq!(body, expected, "{step}");
            assert_eq!(out, pongs, "{step}");
        }
    }

    #[test]
    fn socketio_connects_once_it_is_open_and_answers_pings() {
        let mut frames = Frames::new(Some(b"40{}".to_vec()));
        let mut out = Vec::new();
        let mut feed = |payload: &[u8]| {
            out.clear();
            let fed = frames.feed(&served(0x80 | TEXT, payload), &mut out, &mut |_: &[u8]| ());
            fed.map(|()| out.clone())
        };
        let mut expected = Vec::new();
        frame(TEXT, b"40{}", &mut expected);
        assert_eq!(feed(b"0{\"sid\":\"x\"}").unwrap(), expected);
        assert_eq!(feed(b"40{\"sid\":\"y\"}").unwrap(), b"");
        assert_eq!(feed(b"42[\"event\",{}]").unwrap(), b"");
        expected.clear();
        frame(TEXT, b"3", &mut expected);
        assert_eq!(feed(b"2").unwrap(), expected);
        assert!(feed(b"1").is_err());
    }

    #[test]
    fn a_close_ends_it() {
        let close = served(0x80 | CLOSE, &[3, 232]);
        let fed = Frames::new(None).feed(&close, &mut Vec::new(), &mut |_: &[u8]| ());
        assert!(fed.is_err());
    }
}
