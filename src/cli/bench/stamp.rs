//! What the load writes into an event's data and finds again in any stream: the run's marker, the lane, the sequence
//! number in it, and the time. It knows nothing of HTTP or of Server-Sent Events, so that it fits every hub.

use memchr::memmem;

/// Bytes of a stamp, and so the least size of an event: 10 of the marker and three numbers in hexadecimal.
pub(super) const STAMP_BYTES: usize = MARKER_BYTES + 8 + 8 + 16;

const MARKER_BYTES: usize = 10;

/// The lane of events that only find out whether a reader is there. They are not counted.
pub(super) const PROBE: u32 = u32::MAX;

/// What is known of an event from its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Events of one publishing connection to one topic: a hub has to keep their order.
    pub(super) lane: u32,
    /// Counted from 0 in each lane.
    pub(super) seq: u32,
    /// When it was to be sent, in nanoseconds since the run began.
    pub(super) time_ns: u64,
}

/// What all events of one run begin with: unreserved in URLs, and nothing that JSON would escape.
#[derive(Clone, Debug)]
pub(super) struct Marker {
    text: [u8; MARKER_BYTES],
    finder: memmem::Finder<'static>,
}

/// The part of a stamp that the last piece of a stream ended with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carry {
    bytes: [u8; STAMP_BYTES],
    len: u8,
}

impl Default for Carry {
    fn default() -> Self {
        Self {
            bytes: [0; STAMP_BYTES],
            len: 0,
        }
    }
}

impl Marker {
    /// The marker of a run with that number.
    pub(super) fn new(run: u32) -> Self {
        let mut text = *b"~t........";
        write_hex(&mut text[2..], u64::from(run));
        Self {
            text,
            finder: memmem::Finder::new(&text).into_owned(),
        }
    }

    /// Writes a stamp over the first [`STAMP_BYTES`] of an event's data.
    pub(super) fn write(&self, data: &mut [u8], stamp: Stamp) {
        data[..MARKER_BYTES].copy_from_slice(&self.text);
        write_hex(&mut data[10..18], u64::from(stamp.lane));
        write_hex(&mut data[18..26], u64::from(stamp.seq));
        write_hex(&mut data[26..42], stamp.time_ns);
    }

    /// Finds the stamps in the next piece of a stream whose events have at least `size` bytes of data each.
    pub(super) fn scan(
        &self,
        carry: &mut Carry,
        piece: &[u8],
        size: usize,
        mut found: impl FnMut(Stamp),
    ) {
        let mut from = 0;
        if carry.len > 0 {
            // Long enough for a stamp that begins with the carry's last byte.
            let mut joint = [0; 2 * STAMP_BYTES];
            let old = usize::from(carry.len);
            let new = piece.len().min(STAMP_BYTES);
            joint[..old].copy_from_slice(&carry.bytes[..old]);
            joint[old..old + new].copy_from_slice(&piece[..new]);
            let joint = &joint[..old + new];
            let at = self.begin(joint).filter(|at| *at < old);
            carry.len = 0;
            if let Some(at) = at {
                if joint.len() < at + STAMP_BYTES {
                    carry.keep(&joint[at..]);
                    return;
                }
                found(read(&joint[at..]));
                from = at + STAMP_BYTES - old;
            }
        }
        while let Some(at) = self.finder.find(piece.get(from..).unwrap_or_default()) {
            let at = from + at;
            if piece.len() < at + STAMP_BYTES {
                carry.keep(&piece[at..]);
                return;
            }
            found(read(&piece[at..]));
            from = at + size;
        }
        let rest = piece.get(from..).unwrap_or_default();
        let rest = &rest[rest.len().saturating_sub(MARKER_BYTES - 1)..];
        if let Some(at) = self.begin(rest) {
            carry.keep(&rest[at..]);
        }
    }

    /// Where the marker begins, or its first bytes do at the end.
    fn begin(&self, bytes: &[u8]) -> Option<usize> {
        memchr::memchr_iter(self.text[0], bytes).find(|at| {
            let len = (bytes.len() - at).min(MARKER_BYTES);
            bytes[*at..at + len] == self.text[..len]
        })
    }
}

impl Carry {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.len = u8::try_from(bytes.len()).unwrap_or(0);
    }
}

/// What follows the marker.
fn read(stamp: &[u8]) -> Stamp {
    let numbers = &stamp[MARKER_BYTES..STAMP_BYTES];
    let [lane, seq, high, low] = [0, 8, 16, 24].map(|at| {
        let mut digits = [0; 8];
        digits.copy_from_slice(&numbers[at..at + 8]);
        read_hex(digits)
    });
    Stamp {
        lane,
        seq,
        time_ns: u64::from(high) << 32 | u64::from(low),
    }
}

/// Eight digits at once, since millions of stamps are read in a second.
fn read_hex(digits: [u8; 8]) -> u32 {
    let digits = u64::from_be_bytes(digits);
    let letters = (digits >> 6) & 0x0101_0101_0101_0101;
    let nibbles = (digits & 0x0f0f_0f0f_0f0f_0f0f) + 9 * letters;
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let words = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    // The other half is that of the shifted number.
    ((words | words >> 16) & 0xffff_ffff) as u32
}

fn write_hex(out: &mut [u8], number: u64) {
    let len = out.len();
    for (at, digit) in out.iter_mut().enumerate() {
        let nibble = (number >> (4 * (len - 1 - at))) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 50;

    fn stamp(n: u32) -> Stamp {
        Stamp {
            lane: 0xfeed_0000 + n,
            seq: 0x89ab_cdef - n,
            time_ns: 0x0123_4567_89ab_cdef + u64::from(n),
        }
    }

    fn stream(marker: &Marker, count: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for n in 0..count {
            let mut data = [b'.'; SIZE];
            marker.write(&mut data, stamp(n));
            out.extend_from_slice(format!("id: ~t{n}\ndata: ").as_bytes());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\n\n: ~t0\n");
        }
        out
    }

    #[test]
    fn finds_each_stamp_once_however_the_stream_is_cut() {
        let marker = Marker::new(0x00c0_ffee);
        let stream = stream(&marker, 4);
        let expected: Vec<_> = (0..4).map(stamp).collect();
        for first in 1..=stream.len() {
            for second in [1, 2, 3, 9, 10, 41, 42, 43, stream.len()] {
                let mut carry = Carry::default();
                let mut found = Vec::new();
                let (head, tail) = stream.split_at(first);
                for piece in [head].into_iter().chain(tail.chunks(second)) {
                    marker.scan(&mut carry, piece, SIZE, |stamp| found.push(stamp));
                }
                assert_eq!(found, expected, "cut at {first}, then every {second}");
            }
        }
    }

    #[test]
    fn another_runs_events_are_not_seen() {
        let stream = stream(&Marker::new(1), 3);
        Marker::new(2).scan(&mut Carry::default(), &stream, SIZE, |_| panic!("seen"));
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(read_hex(*b"0123abcd"), 0x0123_abcd);
        assert_eq!(read_hex(*b"ffffffff"), u32::MAX);
        assert_eq!(read_hex(*b"00000000"), 0);
    }
}
