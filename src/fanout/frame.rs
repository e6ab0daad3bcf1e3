//! Consecutive events of one feed, encoded once, shared by all its readers.

use crate::{
    encoding::{Encoding, Encodings},
    event::Event,
};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A frame holds events up to about this many bytes, or one event if that is larger.
const FRAME_BYTES_MAX: usize = 32 << 10; // 32 KiB

/// What an event costs on the wire beside its data: its id and field names, about.
const EVENT_WIRE_BYTES: usize = 64;

/// One or more consecutive events of a feed. Never empty.
pub struct Frame {
    events: Box<[Arc<Event>]>,
    encodings: Encodings,
}

/// What a reader gets at once. Never empty.
pub enum Chunk {
    /// A frame that it shares with others, but for so many events at its beginning, which it has already.
    Shared(Arc<Frame>, usize),
    /// Events that this reader alone asked for now.
    Own(Vec<Arc<Event>>),
}

impl Frame {
    /// Cuts events into frames of at most about [`FRAME_BYTES_MAX`].
    pub(super) fn split(events: Vec<Arc<Event>>) -> Vec<Self> {
        let (mut frames, mut rest) = (Vec::new(), Vec::new());
        let mut size = 0;
        for event in events {
            let event_size = event.data.len() + EVENT_WIRE_BYTES;
            if !rest.is_empty() && size + event_size > FRAME_BYTES_MAX {
                frames.push(Self::new(std::mem::take(&mut rest)));
                size = 0;
            }
            size += event_size;
            rest.push(event);
        }
        if !rest.is_empty() {
            frames.push(Self::new(rest));
        }
        frames
    }

    fn new(events: Vec<Arc<Event>>) -> Self {
        Self {
            events: events.into(),
            encodings: Encodings::default(),
        }
    }

    /// Its events, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// Its bytes, made on the first call and shared by the later ones.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding) -> Bytes {
        match &*self.events {
            [event] => encoding.of(event),
            events => self.encodings.get(encoding, || joined(events, encoding)),
        }
    }
}

impl Chunk {
    /// The events in it, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        match self {
            Self::Shared(frame, known) => &frame.events()[*known..],
            Self::Own(events) => events,
        }
    }

    /// Its bytes: shared with other readers where they are.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding) -> Bytes {
        match self {
            Self::Shared(frame, 0) => frame.bytes(encoding),
            Self::Shared(frame, known) => joined(&frame.events()[*known..], encoding),
            Self::Own(events) => {
                let size = events
                    .iter()
                    .map(|event| event.data.len() + EVENT_WIRE_BYTES)
                    .sum();
                let mut out = BytesMut::with_capacity(size);
                for event in events {
                    encoding.encode(event, &mut out);
                }
                out.freeze()
            }
        }
    }
}

/// The bytes of several events, from those that each has made once.
fn joined(events: &[Arc<Event>], encoding: Encoding) -> Bytes {
    let parts: Vec<Bytes> = events.iter().map(|event| encoding.of(event)).collect();
    parts.concat().into()
}
