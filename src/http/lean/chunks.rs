//! Chunked transfer coding, written by the connection around bytes that are shared.
//!
//! A chunk's size is announced before its bytes, but a reader that turns out to be slow may not get them: its stream
//! drops the rest of a piece at the end of an event. So what a chunk still lacks is *owed*: the pieces that come next
//! fill it first, and at the end of the stream a comment does.

use std::io::{self, IoSlice};

/// The longest framing between two pieces: the end of a chunk and the head of the next one.
const FRAMING_BYTES_MAX: usize = 2 + 2 * size_of::<u32>() + 2;

/// How the bytes of a stream are framed, and what of that the socket has not taken yet.
pub(super) struct Chunks {
    /// HTTP/1.0 has no chunks: its streams end with the connection.
    chunked: bool,
    /// Framing that was begun and has to be ended before anything else is sent.
    begun: Framing,
    /// Bytes that the chunk under way lacks.
    owed: u32,
}

/// What the socket took.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes of the piece.
    pub(super) bytes: usize,
    /// Whether that was all, with its framing.
    pub(super) all: bool,
}

impl Chunks {
    pub(super) fn new(chunked: bool) -> Self {
        Self {
            chunked,
            begun: Framing::default(),
            owed: 0,
        }
    }

    /// Whether the socket took all framing that was begun.
    pub(super) fn is_settled(&self) -> bool {
        self.begun.rest().is_empty()
    }

    /// Sends a piece at once, as much of it as `send` takes. An empty one sends what framing was begun.
    pub(super) fn send(
        &mut self,
        piece: &[u8],
        send: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Taken> {
        if !self.chunked {
            let bytes = send(&[IoSlice::new(piece)])?;
            let all = bytes == piece.len();
            return Ok(Taken { bytes, all });
        }
        let (first, second) = piece.split_at(piece.len().min(self.owed as usize));
        let ends = !first.is_empty() && first.len() == self.owed as usize;
        let size = u32::try_from(second.len())
            .map_err(|_| io::Error::other("a piece is larger than a chunk may be"))?;
        let mut between = Framing::default();
        if ends {
            between.push(b"\r\n");
        }
        let end_bytes = between.rest().len();
        if size > 0 {
            between.push_size(size);
        }
        let end: &[u8] = if size > 0 { b"\r\n" } else { b"" };
        let parts = [self.begun.rest(), first, between.rest(), second, end];
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let mut left = send(&parts.map(IoSlice::new))?;
        let all = left == whole;
        let mut took = |most: usize| {
            let count = left.min(most);
            left -= count;
            count
        };
        self.begun.advance(took(self.begun.rest().len()));
        let mut bytes = took(first.len());
        self.owe(bytes);
        if bytes == first.len() && self.is_settled() {
            match took(between.rest().len()) {
                // Nothing of the next head went out, so its size is not a promise yet.
                count if count == end_bytes => {}
                count => {
                    if count > end_bytes {
                        self.owed = size;
                    } else {
                        between.truncate(end_bytes);
                    }
                    between.advance(count);
                    self.begun = between;
                }
            }
            let count = took(second.len());
            bytes += count;
            self.owe(count);
            if count > 0 && count == second.len() {
                self.begun = Framing::default();
                self.begun.push(b"\r\n");
                self.begun.advance(took(2));
            }
        }
        Ok(Taken { bytes, all })
    }

    /// Adds a piece to bytes that will be sent as they are, before anything else.
    pub(super) fn add(&self, piece: &[u8], out: &mut Vec<u8>) {
        if self.chunked {
            out.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
        }
        out.extend_from_slice(piece);
        if self.chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The end of the stream. What is owed becomes a comment, which readers ignore: one line, and never a blank one,
    /// at which popular clients would dispatch an empty message.
    pub(super) fn end(self) -> Vec<u8> {
        let mut out = self.begun.rest().to_vec();
        if !self.chunked {
            return out;
        }
        match self.owed as usize {
            0 => {}
            // The line flows over into a chunk of its own.
            1 => out.extend_from_slice(b":\r\n1\r\n\n\r\n"),
            owed => {
                out.push(b':');
                out.resize(out.len() + owed - 2, b' ');
                out.extend_from_slice(b"\n\r\n");
            }
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }

    fn owe(&mut self, less: usize) {
        let less = u32::try_from(less).unwrap_or(u32::MAX);
        self.owed = self.owed.saturating_sub(less);
    }
}

/// A few bytes of framing, some of them sent.
#[derive(Clone, Copy, Default)]
struct Framing {
    bytes: [u8; FRAMING_BYTES_MAX],
    from: u8,
    to: u8,
}

impl Framing {
    fn rest(&self) -> &[u8] {
        &self.bytes[usize::from(self.from)..usize::from(self.to)]
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.bytes[usize::from(self.to)] = *byte;
            self.to += 1;
        }
    }

    /// A chunk's head, with its size as hyper writes it.
    fn push_size(&mut self, size: u32) {
        let digits = (u32::BITS - size.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let nibble = (size >> (4 * digit)) & 0xF;
            self.push(&[b"0123456789ABCDEF"[nibble as usize]]);
        }
        self.push(b"\r\n");
    }

    fn truncate(&mut self, bytes: usize) {
        self.to = self.to.min(u8::try_from(bytes).unwrap_or(u8::MAX));
    }

    fn advance(&mut self, bytes: usize) {
        let bytes = u8::try_from(bytes).unwrap_or(u8::MAX);
        self.from = self.from.saturating_add(bytes).min(self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a socket was given, of which it takes only so much at a time.
    #[derive(Default)]
    struct Socket {
        got: Vec<u8>,
    }

    impl Socket {
        fn take(&mut self, parts: &[IoSlice<'_>], most: usize) -> usize {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            let count = all.len().min(most);
            self.got.extend_from_slice(&all[..count]);
            count
        }
    }

    /// The body in chunks, decoded without mercy; it must have an end, and nothing after it.
    fn decode(mut raw: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let at = memchr::memmem::find(raw, b"\r\n").expect("a chunk's head");
            let digits = std::str::from_utf8(&raw[..at]).unwrap();
            assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits:?}");
            let size = usize::from_str_radix(digits, 16).unwrap();
            raw = &raw[at + 2..];
            body.extend_from_slice(&raw[..size]);
            assert_eq!(&raw[size..size + 2], b"\r\n");
            raw = &raw[size + 2..];
            if size == 0 {
                assert_eq!(raw, b"");
                return body;
            }
        }
    }

    /// Sends a piece to a socket that takes less and less often, but for its last bytes, which are dropped if `keeps` is
    /// less than what is left when it is first full. Gives what the reader must see of it.
    fn piece(
        chunks: &mut Chunks,
        socket: &mut Socket,
        bytes: &[u8],
        takes: &[usize],
        keeps: usize,
    ) -> Vec<u8> {
        let mut takes = takes.iter().copied().chain(std::iter::repeat(usize::MAX));
        let mut next = |chunks: &mut Chunks, rest: &[u8]| {
            let most = takes.next().unwrap();
            chunks
                .send(rest, |parts| Ok(socket.take(parts, most)))
                .unwrap()
        };
        let taken = next(chunks, bytes);
        if taken.all {
            assert_eq!(taken.bytes, bytes.len());
            return bytes.to_vec();
        }
        let kept = taken.bytes.saturating_add(keeps).min(bytes.len());
        let mut rest = &bytes[taken.bytes..kept];
        loop {
            let taken = next(chunks, rest);
            rest = &rest[taken.bytes..];
            if taken.all {
                assert_eq!(rest, b"");
                return bytes[..kept].to_vec();
            }
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_body_is_the_pieces_and_perhaps_a_comment(
            pieces in prop::collection::vec(
                (
                    prop::collection::vec(any::<u8>(), 0..40),
                    prop::collection::vec(0_usize..50, 0..6),
                    prop_oneof![Just(usize::MAX), 0_usize..30],
                ),
                0..12,
            ),
        ) {
            let (mut chunks, mut socket) = (Chunks::new(true), Socket::default());
            let mut expected = Vec::new();
            for (bytes, takes, keeps) in &pieces {
                expected.extend(piece(&mut chunks, &mut socket, bytes, takes, *keeps));
            }
            socket.got.extend_from_slice(&chunks.end());
            let body = decode(&socket.got);
            let (seen, comment) = body.split_at(expected.len());
            prop_assert_eq!(seen, expected);
            if !comment.is_empty() {
                prop_assert_eq!(comment[0], b':');
                prop_assert_eq!(comment.iter().position(|b| *b == b'\n'), Some(comment.len() - 1));
            }
        }
    }

    #[test]
    fn what_goes_out_whole_is_framed_as_hyper_does() {
        let (mut chunks, mut socket) = (Chunks::new(true), Socket::default());
        let mut head = b"head".to_vec();
        chunks.add(b"one", &mut head);
        assert_eq!(head, b"head3\r\none\r\n");
        piece(&mut chunks, &mut socket, &[b'x'; 31], &[], 0);
        piece(&mut chunks, &mut socket, &[b'y'; 4_096], &[], 0);
        let expected = format!(
            "1F\r\n{}\r\n1000\r\n{}\r\n",
            "x".repeat(31),
            "y".repeat(4_096)
        );
        assert_eq!(String::from_utf8(socket.got).unwrap(), expected);
        assert_eq!(chunks.end(), b"0\r\n\r\n");
    }

    #[test]
    fn what_a_chunk_lacks_comes_with_later_pieces_or_a_comment() {
        for (dropped, end) in [
            (4, &b":  \n\r\n0\r\n\r\n"[..]),
            (2, b":\n\r\n0\r\n\r\n"),
            (1, b":\r\n1\r\n\n\r\n0\r\n\r\n"),
            (0, b"0\r\n\r\n"),
        ] {
            let (mut chunks, mut socket) = (Chunks::new(true), Socket::default());
            let bytes = b"0123456789";
            // The head of three bytes, and one of the piece.
            piece(&mut chunks, &mut socket, bytes, &[4], 9 - dropped);
            assert_eq!(
                socket.got.len(),
                3 + 10 - dropped + if dropped == 0 { 2 } else { 0 }
            );
            assert_eq!(chunks.end(), end, "{dropped} dropped");
        }
        let (mut chunks, mut socket) = (Chunks::new(true), Socket::default());
        piece(&mut chunks, &mut socket, b"0123456789", &[4], 0);
        piece(&mut chunks, &mut socket, b"abc", &[], 0);
        piece(&mut chunks, &mut socket, b"defghijk", &[], 0);
        assert_eq!(socket.got, b"A\r\n0abcdefghi\r\n2\r\njk\r\n");
    }

    #[test]
    fn a_head_of_which_nothing_was_sent_is_no_promise() {
        let (mut chunks, mut socket) = (Chunks::new(true), Socket::default());
        assert_eq!(piece(&mut chunks, &mut socket, b"dropped", &[0], 0), b"");
        piece(&mut chunks, &mut socket, b"x", &[], 0);
        assert_eq!(socket.got, b"1\r\nx\r\n");
    }

    #[test]
    fn http_1_0_has_no_chunks() {
        let (mut chunks, mut socket) = (Chunks::new(false), Socket::default());
        let mut head = b"head".to_vec();
        chunks.add(b"one", &mut head);
        assert_eq!(head, b"headone");
        piece(&mut chunks, &mut socket, b"two", &[1], usize::MAX);
        assert_eq!(socket.got, b"two");
        assert_eq!(chunks.end(), b"");
    }
}
