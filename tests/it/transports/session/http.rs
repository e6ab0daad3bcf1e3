//! HTTP/1.1 on a raw connection: one request after the other, each answer read as it comes.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// A connection, perhaps in the middle of an answer.
pub(in crate::transports) struct Http {
    tcp: TcpStream,
    address: SocketAddr,
    /// What came and is not looked at.
    raw: Vec<u8>,
    left: Left,
    /// The body so far, without what was taken.
    body: Vec<u8>,
}

/// What is left of the answer.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Nothing,
    Bytes(usize),
    /// A chunk's size comes next.
    Chunks,
    Chunk(usize),
    ChunkEnd,
    /// Until the connection ends.
    All,
}

impl Http {
    /// Connects. Of what is sent to it the kernel holds about so many bytes, or as it likes.
    pub(in crate::transports) async fn connect(
        address: SocketAddr,
        receive_bytes: Option<u32>,
    ) -> io::Result<Self> {
        Ok(Self {
            tcp: dial(address, receive_bytes).await?,
            address,
            raw: Vec::new(),
            left: Left::Nothing,
            body: Vec::new(),
        })
    }

    /// Another connection to the same server.
    pub(super) async fn another(&self) -> io::Result<Self> {
        Self::connect(self.address, None).await
    }

    /// Asks, and gives the answer's status.
    pub(in crate::transports) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<u16> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let request = format!("{head}\r\n{body}");
        self.tcp.write_all(request.as_bytes()).await?;
        let end = loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let head: Vec<u8> = self.raw.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        self.left = match length {
            _ if head.contains("transfer-encoding: chunked") => Left::Chunks,
            Some(0) => Left::Nothing,
            Some(length) => Left::Bytes(length),
            None => Left::All,
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        status.ok_or_else(|| io::Error::other(format!("no status: {head}")))
    }

    /// The next line of the body; `None` at its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = find(&self.body, b"\n") {
                let line: Vec<u8> = self.body.drain(..=end).collect();
                let line = String::from_utf8(line).expect("a stream is UTF-8");
                return Ok(Some(line.trim_end_matches('\n').to_owned()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// The whole body.
    pub(in crate::transports) async fn whole(&mut self) -> io::Result<String> {
        while self.more().await? {}
        let body = std::mem::take(&mut self.body);
        Ok(String::from_utf8(body).expect("a body is UTF-8"))
    }

    /// Closes it: in the middle of what comes, or with a reset.
    pub(super) fn leave(self, rudely: bool) {
        leave(self.tcp, rudely);
    }

    /// Moves what came to the body; waits for more if that is nothing. Gives whether there may be more.
    async fn more(&mut self) -> io::Result<bool> {
        loop {
            let before = self.body.len();
            self.sort();
            if self.body.len() > before {
                return Ok(true);
            }
            if self.left == Left::Nothing {
                return Ok(false);
            }
            match self.read().await {
                Err(error)
                    if self.left == Left::All && error.kind() == ErrorKind::UnexpectedEof =>
                {
                    self.left = Left::Nothing;
                }
                other => other?,
            }
        }
    }

    fn sort(&mut self) {
        loop {
            self.left = match self.left {
                Left::Nothing => return,
                Left::All => return self.body.append(&mut self.raw),
                Left::Bytes(left) => match self.take(left) {
                    0 => Left::Nothing,
                    left => return self.left = Left::Bytes(left),
                },
                Left::Chunk(left) => match self.take(left) {
                    0 => Left::ChunkEnd,
                    left => return self.left = Left::Chunk(left),
                },
                Left::ChunkEnd if self.raw.len() < 2 => return,
                Left::ChunkEnd => {
                    self.raw.drain(..2);
                    Left::Chunks
                }
                Left::Chunks => match find(&self.raw, b"\r\n") {
                    None => return,
                    // No fields follow the last chunk.
                    Some(_) if self.raw.starts_with(b"0\r\n") => match self.raw.len() {
                        5.. => {
                            self.raw.drain(..5);
                            Left::Nothing
                        }
                        _ => return,
                    },
                    Some(end) => {
                        let size = std::str::from_utf8(&self.raw[..end]).expect("a chunk's size");
                        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
                        self.raw.drain(..end + 2);
                        Left::Chunk(size)
                    }
                },
            }
        }
    }

    /// Moves at most so many bytes to the body, and gives how many are left to come.
    fn take(&mut self, most: usize) -> usize {
        let count = most.min(self.raw.len());
        self.body.extend(self.raw.drain(..count));
        most - count
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.tcp.read_buf(&mut self.raw).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Connects, as [`Http::connect`].
pub(super) async fn dial(address: SocketAddr, receive_bytes: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Closes a connection, if rudely with a reset.
pub(super) fn leave(tcp: TcpStream, rudely: bool) {
    if rudely {
        // It may be closed already.
        let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    }
    drop(tcp);
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|some| some == what)
}
