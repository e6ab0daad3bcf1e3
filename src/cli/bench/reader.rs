//! One connection that reads a stream.

use super::{
    response::last_id,
    socket::{Dialer, is_connected, write_some},
    stamp::Carry,
    transport::{Request, Wire},
};
use mio::{Registry, Token, net::TcpStream};
use std::io;

/// Of a stream's end so much is kept for its last id.
const TAIL_BYTES: usize = 8 << 10; // 8 KiB

/// What the kernel holds for a reader that never reads.
const STALLED_BYTES: usize = 4 << 10; // 4 KiB

/// A reader, over all its connections.
#[derive(Debug)]
pub(super) struct Reader {
    /// The topic whose events it gets, as a number.
    pub(super) topic: u32,
    pub(super) state: State,
    /// Stops reading as soon as its stream is there.
    pub(super) stalls: bool,
    /// Whether it got an event.
    pub(super) is_ready: bool,
    pub(super) stream: Option<TcpStream>,
    pub(super) wire: Wire,
    pub(super) carry: Carry,
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    /// The end of the stream's text, if it is wanted.
    pub(super) tail: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Away,
    Connecting,
    /// Asked for a stream.
    Waiting,
    Open,
    /// Its connection failed or ended, or it was refused.
    Lost,
}

impl Reader {
    pub(super) fn new(topic: u32) -> Self {
        Self {
            topic,
            state: State::Away,
            stalls: false,
            is_ready: false,
            stream: None,
            wire: Wire::default(),
            carry: Carry::default(),
            out: Vec::new(),
            tail: None,
        }
    }

    /// Begins a connection with that request.
    pub(super) fn connect(
        &mut self,
        dialer: &mut Dialer,
        registry: &Registry,
        token: Token,
        request: Request,
    ) -> io::Result<()> {
        self.wire = Wire::new(request.then);
        self.carry = Carry::default();
        self.out = request.first;
        // Else the kernel would read a megabyte in its place.
        let receive_bytes = self.stalls.then_some(STALLED_BYTES);
        self.stream = Some(dialer.dial(registry, token, receive_bytes)?);
        self.state = State::Connecting;
        Ok(())
    }

    /// Sends what is to be sent, as far as the socket takes it; of the request that is all but of thousands of topics.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if self.out.is_empty() || (self.state == State::Connecting && !is_connected(stream)?) {
            return Ok(());
        }
        let written = write_some(stream, &self.out)?;
        self.out.drain(..written);
        if self.out.is_empty() {
            self.out = Vec::new();
            if self.state == State::Connecting {
                self.state = State::Waiting;
            }
        }
        Ok(())
    }

    /// Notes what came, and gives whether that opened the stream.
    pub(super) fn opened(&mut self) -> bool {
        let opens = self.state == State::Waiting && self.wire.is_open();
        if opens {
            self.state = State::Open;
        }
        opens
    }

    /// Stops reading, but keeps the connection.
    pub(super) fn stall(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.stream {
            Some(stream) => registry.deregister(stream),
            None => Ok(()),
        }
    }

    /// Closes the connection.
    pub(super) fn leave(&mut self) {
        self.stream = None;
        self.state = State::Away;
    }

    /// The id that the newest event had.
    pub(super) fn last_id(&self) -> Option<&[u8]> {
        last_id(self.tail.as_deref()?)
    }
}

/// Keeps the end of a stream's text.
pub(super) fn keep_tail(tail: &mut Vec<u8>, piece: &[u8]) {
    tail.extend_from_slice(&piece[piece.len().saturating_sub(TAIL_BYTES)..]);
    if tail.len() > 2 * TAIL_BYTES {
        tail.drain(..tail.len() - TAIL_BYTES);
    }
}
