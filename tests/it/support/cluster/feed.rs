//! A stream as a reader of a crowd sees it: parsed as it comes, and nothing kept of it.

use crate::support::{stream::PATIENCE, wait::in_time};
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// One event of a stream. A control event has its name, others none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
}

/// An open stream over HTTP/1.1.
pub(crate) struct Feed {
    tcp: TcpStream,
    /// As it came, chunk heads included.
    raw: Vec<u8>,
    /// What is not parsed yet.
    text: Vec<u8>,
    has_head: bool,
    chunked: bool,
}

impl Feed {
    /// Connects and asks; the answer is not waited for.
    pub(crate) async fn open(
        address: SocketAddr,
        path: &str,
        last_event_id: Option<&str>,
    ) -> io::Result<Self> {
        let mut tcp = timeout(PATIENCE, TcpStream::connect(address)).await??;
        let id = last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{id}\r\n");
        tcp.write_all(head.as_bytes()).await?;
        Ok(Self {
            tcp,
            raw: Vec::new(),
            text: Vec::new(),
            has_head: false,
            chunked: false,
        })
    }

    /// Reads on; `false` once the stream has ended, however it did. Dropping the future loses nothing.
    pub(crate) async fn more(&mut self) -> bool {
        match self.tcp.read_buf(&mut self.raw).await {
            Ok(1..) => self.unchunk(),
            _ => false,
        }
    }

    /// The next whole block with data in what has come.
    pub(crate) fn block(&mut self) -> Option<Block> {
        loop {
            let end = memchr::memmem::find(&self.text, b"\n\n")?;
            let text: Vec<u8> = self.text.drain(..end + 2).collect();
            let text = std::str::from_utf8(&text).expect("UTF-8");
            let mut block = Block::default();
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut block.id),
                    Some(("event", name)) => name.clone_into(&mut block.event),
                    Some(("data", data)) => data.clone_into(&mut block.data),
                    _ => {}
                }
            }
            if !block.data.is_empty() {
                return Some(block);
            }
        }
    }

    /// The next whole block, which must come in time; `None` if the stream ends before.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        let next = async {
            loop {
                if let Some(block) = self.block() {
                    return Some(block);
                }
                if !self.more().await {
                    return self.block();
                }
            }
        };
        in_time(PATIENCE, "an event or the end", next).await
    }

    /// `false` at the last chunk.
    fn unchunk(&mut self) -> bool {
        if !self.has_head {
            let Some(end) = memchr::memmem::find(&self.raw, b"\r\n\r\n") else {
                return true;
            };
            let head = String::from_utf8_lossy(&self.raw[..end]).to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            // Who is turned away gets a whole body at once.
            self.chunked = head.contains("transfer-encoding: chunked");
            self.raw.drain(..end + 4);
            self.has_head = true;
        }
        if !self.chunked {
            self.text.append(&mut self.raw);
            return true;
        }
        let mut read = 0;
        let goes_on = loop {
            let rest = &self.raw[read..];
            let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
                break true;
            };
            let size = std::str::from_utf8(&rest[..end]).expect("a chunk's size");
            let size = usize::from_str_radix(size, 16).expect("a chunk's size");
            let whole = end + 2 + size + 2;
            if rest.len() < whole {
                break true;
            }
            self.text.extend_from_slice(&rest[end + 2..end + 2 + size]);
            read += whole;
            if size == 0 {
                break false;
            }
        };
        self.raw.drain(..read);
        goes_on
    }
}
