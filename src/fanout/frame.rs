//! Consecutive events of one feed, encoded once, shared by all its readers.

use crate::{
    encoding::{ENCODINGS, Encoding},
    event::Event,
};
use bytes::{Bytes, BytesMut};
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// A frame holds events up to about this many bytes, or one event if that is larger.
const FRAME_BYTES_MAX: usize = 32 << 10; // 32 KiB

/// What an event costs on the wire beside its data: its id and field names, about.
const EVENT_WIRE_BYTES: usize = 64;

/// What a frame takes in memory beside its events' bytes, and an event beside its own, about.
const FRAME_COST: usize = 256;
const EVENT_COST: usize = 448;

/// One or more consecutive events of a feed. Never empty.
pub struct Frame {
    /// It has all events of the feed after the first position up to the second.
    pub(super) span: (u64, u64),
    events: Box<[Arc<Event>]>,
    source: Source,
    encoded: [OnceLock<Encoded>; ENCODINGS],
}

/// Where its events come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From the tail: other feeds may have them too, so that each event keeps its bytes.
    Tail,
    /// From the log: for the readers of this frame alone.
    Log,
}

struct Encoded {
    bytes: Bytes,
    /// Where each event ends in `bytes`; empty if there is only one.
    ends: Box<[usize]>,
}

/// What a reader gets at once: a frame but for the events at its beginning that it has already. Never empty.
#[derive(Clone)]
pub struct Chunk {
    pub(super) frame: Arc<Frame>,
    pub(super) known: usize,
}

/// Where a reader stands that has taken only some bytes of a chunk.
pub(super) struct Cut {
    /// What is left of the event under way.
    pub(super) rest: Bytes,
    /// The position of the event under way, or of the last one taken; `None` if not a byte was.
    pub(super) position: Option<u64>,
}

impl Frame {
    /// A frame of these events, or `None` of none. `span` is what of the feed they cover.
    pub(super) fn new(span: (u64, u64), events: Vec<Arc<Event>>, source: Source) -> Option<Self> {
        (!events.is_empty()).then(|| Self {
            span,
            events: events.into(),
            source,
            encoded: Default::default(),
        })
    }

    /// Cuts events into frames of at most about [`FRAME_BYTES_MAX`]. They cover the feed from `from` on.
    pub(super) fn split(mut from: u64, events: Vec<Arc<Event>>) -> Vec<Arc<Self>> {
        let (mut frames, mut rest) = (Vec::new(), Vec::new());
        let mut size = 0;
        let mut cut = |events: Vec<Arc<Event>>| {
            let to = events.last().map_or(from, |last| last.cursor.position);
            frames.extend(Self::new((from, to), events, Source::Tail).map(Arc::new));
            from = to;
        };
        for event in events {
            let event_size = wire_bytes(&event);
            if !rest.is_empty() && size + event_size > FRAME_BYTES_MAX {
                cut(std::mem::take(&mut rest));
                size = 0;
            }
            size += event_size;
            rest.push(event);
        }
        cut(rest);
        frames
    }

    /// Its events, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// The epoch of its events.
    pub(super) fn epoch(&self) -> u64 {
        self.events.first().map_or(0, |event| event.cursor.epoch)
    }

    /// What it takes in memory, about, encoded. An event has its data, and its bytes once more if it came live; it
    /// counts in equal parts for all feeds that have it now.
    pub(super) fn cost(&self) -> usize {
        let events = self.events.iter().map(|event| {
            let own = 2 * wire_bytes(event) + EVENT_COST;
            wire_bytes(event) + size_of::<usize>() + own / Arc::strong_count(event)
        });
        events.sum::<usize>() + FRAME_COST
    }

    /// How many of its events a reader at that position has already.
    pub(super) fn known_at(&self, position: u64) -> usize {
        if position <= self.span.0 {
            return 0;
        }
        self.events
            .partition_point(|event| event.cursor.position <= position)
    }

    /// Its bytes, made on the first call and shared by the later ones.
    fn encoded(&self, encoding: Encoding) -> &Encoded {
        self.encoded[encoding as usize].get_or_init(|| match &*self.events {
            [event] if self.source == Source::Tail => Encoded {
                bytes: encoding.of(event),
                ends: Box::default(),
            },
            events => {
                let size = events.iter().map(|event| wire_bytes(event)).sum();
                let mut bytes = BytesMut::with_capacity(size);
                let ends = events.iter().map(|event| {
                    match self.source {
                        Source::Tail => bytes.extend_from_slice(&encoding.of(event)),
                        Source::Log => encoding.encode(event, &mut bytes),
                    }
                    bytes.len()
                });
                let ends = ends.collect();
                Encoded {
                    bytes: bytes.freeze(),
                    ends,
                }
            }
        })
    }
}

impl Encoded {
    /// Where the event begins.
    fn begin_of(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            None => 0,
            Some(before) => self.end_of(before),
        }
    }

    fn end_of(&self, index: usize) -> usize {
        self.ends.get(index).copied().unwrap_or(self.bytes.len())
    }
}

impl Chunk {
    /// The events in it, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        &self.frame.events()[self.known..]
    }

    /// Its bytes, shared with other readers.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding) -> Bytes {
        let encoded = self.frame.encoded(encoding);
        match self.known {
            0 => encoded.bytes.clone(),
            known => encoded.bytes.slice(encoded.begin_of(known)..),
        }
    }

    /// The bytes of some of its events, shared with other readers.
    #[must_use]
    pub fn bytes_of(&self, encoding: Encoding, events: Range<usize>) -> Bytes {
        let encoded = self.frame.encoded(encoding);
        let [begin, end] = [events.start, events.end].map(|at| encoded.begin_of(self.known + at));
        encoded.bytes.slice(begin..end)
    }

    /// Where its reader stands that has taken so many of its bytes.
    pub(super) fn cut(&self, encoding: Encoding, taken: usize) -> Cut {
        let encoded = self.frame.encoded(encoding);
        let begin = encoded.begin_of(self.known);
        let at = (begin + taken).min(encoded.bytes.len());
        let events = self.events().len();
        // The first event that is wholly taken or under way at `at`, searched among those of the chunk.
        let mut index = self.known;
        while index < self.known + events && encoded.end_of(index) < at {
            index += 1;
        }
        if taken == 0 {
            return Cut {
                rest: Bytes::new(),
                position: None,
            };
        }
        Cut {
            rest: encoded.bytes.slice(at..encoded.end_of(index)),
            position: self
                .frame
                .events
                .get(index)
                .map(|event| event.cursor.position),
        }
    }
}

/// What it takes on the wire, about.
pub(super) fn wire_bytes(event: &Event) -> usize {
    event.data.len() + EVENT_WIRE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cursor::Cursor, event::Draft, topic::Topic};

    fn events(sizes: &[usize]) -> Vec<Arc<Event>> {
        let topic = Topic::parse("a").unwrap();
        let event = |(n, size): (usize, &usize)| {
            let cursor = Cursor {
                epoch: 1,
                position: n as u64 + 11,
            };
            let draft = Draft::new(topic.clone(), "x".repeat(*size));
            Arc::new(Event::from_draft(draft, cursor, 0))
        };
        sizes.iter().enumerate().map(event).collect()
    }

    #[test]
    fn frames_are_bounded_and_cover_the_feed_without_a_hole() {
        let large = FRAME_BYTES_MAX;
        let frames = Frame::split(
            5,
            events(&[10, large / 2, large / 2, 3 * large, 1, large / 4]),
        );
        let counts: Vec<usize> = frames.iter().map(|frame| frame.events().len()).collect();
        assert_eq!(counts, [2, 1, 1, 2]);
        let spans: Vec<_> = frames.iter().map(|frame| frame.span).collect();
        assert_eq!(spans, [(5, 12), (12, 13), (13, 14), (14, 16)]);
        assert!(Frame::split(5, Vec::new()).is_empty());
    }

    #[test]
    fn a_chunk_shares_the_bytes_of_its_frame() {
        for source in [Source::Tail, Source::Log] {
            let frame = Arc::new(Frame::new((10, 13), events(&[1, 2, 3]), source).unwrap());
            let whole = Chunk {
                frame: Arc::clone(&frame),
                known: frame.known_at(10),
            };
            let bytes = whole.bytes(Encoding::Sse);
            let part = Chunk {
                known: frame.known_at(12),
                frame,
            };
            assert_eq!(part.events().len(), 1);
            let last = part.bytes(Encoding::Sse);
            assert_eq!(part.bytes_of(Encoding::Sse, 0..1), last);
            assert_eq!(whole.bytes_of(Encoding::Sse, 2..3), last);
            assert!(bytes.ends_with(&last) && last.starts_with(b"id: "));
            assert_eq!(
                last.as_ptr(),
                bytes[bytes.len() - last.len()..].as_ptr(),
                "no copy"
            );
        }
    }

    #[test]
    fn a_cut_is_at_the_end_of_the_event_under_way() {
        for sizes in [&[5][..], &[1, 20, 3]] {
            let frame = Arc::new(Frame::new((10, 20), events(sizes), Source::Tail).unwrap());
            for known in 0..sizes.len() {
                let chunk = Chunk {
                    frame: Arc::clone(&frame),
                    known,
                };
                let bytes = chunk.bytes(Encoding::Sse);
                assert!(chunk.cut(Encoding::Sse, 0).position.is_none());
                for taken in 1..=bytes.len() {
                    let cut = chunk.cut(Encoding::Sse, taken);
                    let sent = [&bytes[..taken], &cut.rest].concat();
                    let until = chunk
                        .events()
                        .iter()
                        .position(|e| Some(e.cursor.position) == cut.position);
                    let expected: Vec<u8> = chunk.events()[..=until.unwrap()]
                        .iter()
                        .flat_map(|event| Encoding::Sse.of(event))
                        .collect();
                    assert_eq!(sent, expected, "{taken} of {}", bytes.len());
                    assert!(cut.rest.len() < expected.len());
                }
            }
        }
    }
}
