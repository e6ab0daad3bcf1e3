//! One keep-alive connection that publishes and waits for each answer.

use super::{
    response::Response,
    socket::{Dialer, write_some},
    stamp::{Marker, Stamp},
    target::Publish,
};
use mio::{Registry, Token, net::TcpStream};
use std::{collections::VecDeque, io};

/// A publish that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// When, in nanoseconds since the run began.
    pub(super) at_ns: u64,
    /// To which topic, as a number.
    pub(super) topic: u32,
    pub(super) lane: u32,
}

/// A publish without an answer yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) due: Due,
    pub(super) events: u32,
}

/// A publishing connection.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    stream: Option<TcpStream>,
    out: Vec<u8>,
    written: usize,
    pub(super) response: Response,
    pub(super) flight: Option<Flight>,
    pub(super) backlog: VecDeque<Due>,
    /// How often it was asked for its next topic.
    pub(super) turns: u32,
}

impl Publisher {
    /// Begins a connection.
    pub(super) fn connect(
        &mut self,
        dialer: &mut Dialer,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        self.response = Response::default();
        self.stream = Some(dialer.dial(registry, token, None)?);
        Ok(())
    }

    pub(super) fn stream(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut()
    }

    /// Closes the connection; the next publish opens another.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.out.clear();
        self.written = 0;
    }

    /// Sends a publish: its events get the numbers from `seq` on, and their times.
    pub(super) fn send(
        &mut self,
        marker: &Marker,
        publish: &Publish,
        due: Due,
        seq: u32,
    ) -> io::Result<()> {
        self.out.clear();
        self.written = 0;
        self.out.extend_from_slice(&publish.bytes);
        let mut number = seq;
        for at in &publish.data_at {
            let stamp = Stamp {
                lane: due.lane,
                seq: number,
                time_ns: due.at_ns,
            };
            marker.write(&mut self.out[*at..], stamp);
            number += 1;
        }
        self.response = Response::default();
        self.flight = Some(Flight {
            due,
            events: number - seq,
        });
        self.flush()
    }

    /// Writes what is left of the publish. Before the connection is there, that is all of it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Some(stream) = &mut self.stream
            && self.written < self.out.len()
        {
            match write_some(stream, &self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
