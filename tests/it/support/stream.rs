//! A reader of Server-Sent Events on a raw connection.

use super::wait::in_time;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// How long any step of a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How long a message may take on a busy machine. What keeps a connection alive comes more often, and does not count.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long all may take that is read of a stream up to some text, or to its end.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(180);

/// What an `EventSource` would dispatch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
}

/// An open stream.
pub(crate) struct Stream {
    tcp: TcpStream,
    pub(crate) head: String,
    /// The body as it came, chunk heads removed.
    pub(crate) text: String,
    raw: Vec<u8>,
    chunked: bool,
    read_to: usize,
    last_id: String,
    ended: bool,
}

impl Stream {
    pub(crate) async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut head =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let asked = in_time(PATIENCE, "a connection", async {
            let mut tcp = TcpStream::connect(address).await?;
            tcp.write_all(format!("{head}\r\n").as_bytes()).await?;
            std::io::Result::Ok(tcp)
        });
        Self::on(asked.await.unwrap()).await
    }

    /// A stream whose request was already sent.
    pub(crate) async fn on(mut tcp: TcpStream) -> Self {
        let (mut raw, by) = (Vec::new(), Instant::now() + PATIENCE);
        let end = loop {
            if let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let count = timeout_at(by, tcp.read_buf(&mut raw))
                .await
                .expect("a head in time")
                .unwrap();
            assert!(
                count > 0,
                "closed before the head: {:?}",
                String::from_utf8_lossy(&raw)
            );
        };
        let head = String::from_utf8(raw.drain(..end).collect()).unwrap();
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let mut this = Self {
            tcp,
            head,
            text: String::new(),
            raw,
            chunked,
            read_to: 0,
            last_id: String::new(),
            ended: false,
        };
        this.unchunk();
        this
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next message, which must come in time.
    pub(crate) async fn next(&mut self) -> Message {
        self.message()
            .await
            .unwrap_or_else(|| panic!("the stream ended after {:?}", self.text))
    }

    /// The next so many messages' data.
    pub(crate) async fn data(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await.data);
        }
        all
    }

    /// The next message, or `None` if the stream ends before.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        self.message_by(Instant::now() + PATIENCE).await
    }

    async fn message_by(&mut self, by: Instant) -> Option<Message> {
        loop {
            if let Some(message) = self.parsed() {
                return Some(message);
            }
            if !self.read(by).await {
                // What came with the end counts.
                return self.parsed();
            }
        }
    }

    /// Reads until the hub ends the stream, and gives the messages on the way.
    pub(crate) async fn rest(&mut self) -> Vec<Message> {
        let (mut all, by) = (Vec::new(), Instant::now() + PATIENCE_FOR_ALL);
        while let Some(message) = self.message_by(by).await {
            all.push(message);
        }
        all
    }

    /// Reads until the body has `text` in it.
    pub(crate) async fn until(&mut self, text: &str) {
        let by = Instant::now() + PATIENCE_FOR_ALL;
        while !self.text.contains(text) {
            assert!(
                self.read(by).await || self.text.contains(text),
                "ended before {text:?}: {:?}",
                self.text
            );
        }
    }

    /// Reads what comes next into the text; whether anything did.
    pub(crate) async fn more(&mut self) -> bool {
        let (before, by) = (self.text.len(), Instant::now() + PATIENCE);
        while self.text.len() == before {
            if !self.read(by).await {
                return self.text.len() > before;
            }
        }
        true
    }

    /// The connection itself, for tests that misbehave.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    async fn read(&mut self, by: Instant) -> bool {
        if self.ended {
            return false;
        }
        let read = timeout_at(by, self.tcp.read_buf(&mut self.raw)).await;
        let read = read.unwrap_or_else(|_| {
            panic!(
                "what is awaited does not come after {:?}",
                tail_of(&self.text)
            )
        });
        self.ended |= !matches!(read, Ok(1..));
        self.unchunk();
        !self.ended
    }

    fn unchunk(&mut self) {
        if !self.chunked {
            self.text.push_str(std::str::from_utf8(&self.raw).unwrap());
            self.raw.clear();
            return;
        }
        while let Some(end) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size =
                usize::from_str_radix(std::str::from_utf8(&self.raw[..end]).unwrap(), 16).unwrap();
            let whole = end + 2 + size + 2;
            if self.raw.len() < whole {
                return;
            }
            self.text
                .push_str(std::str::from_utf8(&self.raw[end + 2..whole - 2]).unwrap());
            self.raw.drain(..whole);
            self.ended |= size == 0;
        }
    }

    /// The next whole message in what has come.
    fn parsed(&mut self) -> Option<Message> {
        loop {
            let rest = &self.text[self.read_to..];
            let block = &rest[..rest.find("\n\n")? + 2];
            self.read_to += block.len();
            let (mut event, mut data) = (String::from("message"), Vec::new());
            for line in block.lines().filter(|line| !line.starts_with(':')) {
                match line
                    .split_once(": ")
                    .unwrap_or((line.trim_end_matches(':'), ""))
                {
                    ("id", id) => id.clone_into(&mut self.last_id),
                    ("event", name) => name.clone_into(&mut event),
                    ("data", line) => data.push(line),
                    _ => {}
                }
            }
            if !data.is_empty() {
                return Some(Message {
                    id: self.last_id.clone(),
                    event,
                    data: data.join("\n"),
                });
            }
        }
    }
}

fn tail_of(text: &str) -> String {
    text.chars()
        .rev()
        .take(300)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}
