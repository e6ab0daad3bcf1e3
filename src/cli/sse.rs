//! Server-Sent Events, decoded from chunks cut anywhere. Knows no connection, and nothing of Tidings.

use std::time::Duration;

/// What a stream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Block(Block),
    /// How long to wait before connecting again.
    Retry(Duration),
}

/// The fields up to a blank line, if any were `id`, `event` or `data`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) id: Option<String>,
    /// Empty if none was named.
    pub(super) event: String,
    /// `None` if there was no `data` line: then it is no message, but its id counts.
    pub(super) data: Option<String>,
}

/// The state between chunks.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The line that has not ended yet. As long as the hub makes it, which is bounded by its largest event.
    line: Vec<u8>,
    block: Block,
    /// The last byte was CR: an LF right after it belongs to it.
    after_cr: bool,
    /// A line has ended: no byte order mark can come any more.
    begun: bool,
}

impl Decoder {
    /// Takes the next bytes and gives what they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            let line = std::mem::take(&mut self.line);
            items.extend(self.end_line(&line));
            let crlf = bytes[end..].starts_with(b"\r\n");
            self.after_cr = bytes[end..] == *b"\r";
            bytes = &bytes[end + 1 + usize::from(crlf)..];
        }
        self.line.extend_from_slice(bytes);
        items
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Item> {
        let bom: &[u8] = if self.begun { b"" } else { b"\xEF\xBB\xBF" };
        self.begun = true;
        let line = line.strip_prefix(bom).unwrap_or(line);
        if line.is_empty() {
            let block = std::mem::take(&mut self.block);
            return (block != Block::default()).then_some(Item::Block(block));
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&text());
                }
                none => *none = Some(text()),
            },
            b"event" => self.block.event = text(),
            b"id" if !value.contains(&0) => self.block.id = Some(text()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let ms = text().parse().ok()?;
                return Some(Item::Retry(Duration::from_millis(ms)));
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(id: Option<&str>, event: &str, data: Option<&str>) -> Item {
        Item::Block(Block {
            id: id.map(str::to_owned),
            event: event.to_owned(),
            data: data.map(str::to_owned),
        })
    }

    const STREAM: &str = "\u{FEFF}retry: 2000\n: hello\nid: 1-1\n\nid:1-2\nevent: größer\ndata: a\ndata:  b\ndata\n\n\
         \n: keepalive\nid: 1-3\ndata: 日本語 🚀\n\nid: x\0y\ndata:\n\nretry: 5x\ndata: cut off\n";

    fn expected() -> Vec<Item> {
        vec![
            Item::Retry(Duration::from_secs(2)),
            block(Some("1-1"), "", None),
            block(Some("1-2"), "größer", Some("a\n b\n")),
            block(Some("1-3"), "", Some("日本語 🚀")),
            block(None, "", Some("")),
        ]
    }

    #[test]
    fn each_line_ending_and_each_single_cut() {
        for ending in ["\n", "\r", "\r\n"] {
            let bytes = STREAM.replace('\n', ending).into_bytes();
            for cut in 0..=bytes.len() {
                let mut decoder = Decoder::default();
                let mut items = decoder.push(&bytes[..cut]);
                items.extend(decoder.push(&bytes[cut..]));
                assert_eq!(items, expected(), "{ending:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(bytes in "[a:\r\n ditev]{0,60}", sizes in prop::collection::vec(1_usize..5, 60)) {
            let bytes = bytes.as_bytes();
            let whole = Decoder::default().push(bytes);
            let mut decoder = Decoder::default();
            let (mut items, mut rest) = (Vec::new(), bytes);
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                items.extend(decoder.push(chunk));
                rest = after;
            }
            items.extend(decoder.push(rest));
            prop_assert_eq!(items, whole);
        }
    }
}
