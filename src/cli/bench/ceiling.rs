//! `tidings bench ceiling`: a server that does nothing but write. One loop, one chunk made per event, one call per
//! reader and event: no server that writes events one by one can need less of the same kernel.
//!
//! It has no log and bounds nothing: it is there to be measured against.

use super::{
    args::CeilingArgs,
    socket::{read_some, write_some},
    system,
};
use anyhow::Context as _;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::HashMap,
    io::{self, Write as _},
    process::ExitCode,
};

const LISTENER: Token = Token(usize::MAX - 1);

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n:\n\r\n";
const PUBLISHED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const REFUSED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

pub(super) fn run(args: &CeilingArgs) -> anyhow::Result<ExitCode> {
    if let Some(cpu) = args.cpu {
        system::pin(cpu)?;
    }
    // Each connection is an open file; with fewer it serves fewer.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let socket = Socket::new(
        Domain::for_address(args.listen),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&args.listen.into())
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    socket.listen(4_096)?;
    let listener = TcpListener::from_std(socket.into());
    let address = listener.local_addr().context("the socket has no address")?;
    writeln!(
        io::stdout().lock(),
        "The ceiling is listening on http://{address}"
    )?;
    Ceiling::new(listener)?.serve()
}

struct Ceiling {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    topics: HashMap<Vec<u8>, Topic>,
    buffer: Vec<u8>,
    chunk: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// Of a request that is not complete.
    input: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    /// What it reads.
    topic: Option<Vec<u8>>,
}

#[derive(Default)]
struct Topic {
    published: u64,
    readers: Vec<usize>,
}

/// A request that is complete, and how long it was.
enum Request {
    Stream(Vec<u8>),
    Publish(Vec<u8>, std::ops::Range<usize>),
}

impl Ceiling {
    fn new(mut listener: TcpListener) -> anyhow::Result<Self> {
        let poll = Poll::new().context("cannot wait for sockets")?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            topics: HashMap::new(),
            buffer: vec![0; 64 << 10], // 64 KiB
            chunk: Vec::new(),
        })
    }

    fn serve(&mut self) -> anyhow::Result<ExitCode> {
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.context("cannot wait for sockets")?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let at = event.token().0;
                if self.flush(at).and_then(|()| self.read(at)).is_err() {
                    self.close(at);
                }
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("cannot accept connections"),
            };
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(at), both)?;
            self.connections[at] = Some(Connection {
                stream,
                input: Vec::new(),
                unsent: Vec::new(),
                topic: None,
            });
        }
    }

    fn close(&mut self, at: usize) {
        let Some(connection) = self.connections[at].take() else {
            return;
        };
        self.free.push(at);
        if let Some(topic) = connection.topic.and_then(|name| self.topics.get_mut(&name)) {
            topic.readers.retain(|reader| *reader != at);
        }
    }

    fn flush(&mut self, at: usize) -> io::Result<()> {
        if let Some(connection) = &mut self.connections[at]
            && !connection.unsent.is_empty()
        {
            let written = write_some(&mut connection.stream, &connection.unsent)?;
            connection.unsent.drain(..written);
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> io::Result<()> {
        loop {
            let Some(connection) = &mut self.connections[at] else {
                return Ok(());
            };
            let Some(count) = read_some(&mut connection.stream, &mut self.buffer)? else {
                return Ok(());
            };
            connection.input.extend_from_slice(&self.buffer[..count]);
            if connection.topic.is_some() {
                connection.input.clear();
                continue;
            }
            let mut input = std::mem::take(&mut connection.input);
            let mut done = 0;
            loop {
                match next_request(&input[done..]) {
                    Ok(None) => break,
                    Ok(Some((request, length))) => {
                        self.answer(at, request, &input[done..])?;
                        done += length;
                    }
                    Err(error) => {
                        self.send(at, REFUSED)?;
                        return Err(error);
                    }
                }
            }
            input.drain(..done);
            if let Some(connection) = &mut self.connections[at] {
                connection.input = input;
            }
        }
    }

    fn answer(&mut self, at: usize, request: Request, input: &[u8]) -> io::Result<()> {
        match request {
            Request::Stream(topic) => {
                self.send(at, STREAM_HEAD)?;
                self.topics
                    .entry(topic.clone())
                    .or_default()
                    .readers
                    .push(at);
                if let Some(connection) = &mut self.connections[at] {
                    connection.topic = Some(topic);
                }
                Ok(())
            }
            Request::Publish(topic, data) => {
                self.publish(topic, &input[data]);
                self.send(at, PUBLISHED)
            }
        }
    }

    fn publish(&mut self, topic: Vec<u8>, data: &[u8]) {
        let topic = self.topics.entry(topic).or_default();
        topic.published += 1;
        let head = format!("id: {}\ndata: ", topic.published);
        let length = head.len() + data.len() + 2;
        self.chunk.clear();
        self.chunk
            .extend_from_slice(format!("{length:x}\r\n{head}").as_bytes());
        self.chunk.extend_from_slice(data);
        self.chunk.extend_from_slice(b"\n\n\r\n");
        for reader in &topic.readers {
            if let Some(connection) = &mut self.connections[*reader] {
                // An error shows when the connection is read.
                let _ = connection.send(&self.chunk);
            }
        }
    }

    fn send(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        match &mut self.connections[at] {
            Some(connection) => connection.send(bytes),
            None => Ok(()),
        }
    }
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.unsent.is_empty() {
            true => write_some(&mut self.stream, bytes)?,
            false => 0,
        };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }
}

/// The first request of the input and its length, once it is all there. A topic is a path.
fn next_request(input: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad("no request")),
    };
    let topic = head.path.unwrap_or("/").as_bytes().to_vec();
    match head.method {
        Some("GET") => Ok(Some((Request::Stream(topic), length))),
        Some("POST") => {
            let mut fields = head.headers.iter();
            let body = fields.find(|field| field.name.eq_ignore_ascii_case("content-length"));
            let body = body.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
            let body: usize = body.ok_or_else(|| bad("no length"))?;
            let data = length..length + body;
            let end = data.end;
            Ok((input.len() >= end).then_some((Request::Publish(topic, data), end)))
        }
        _ => Err(bad("neither GET nor POST")),
    }
}
