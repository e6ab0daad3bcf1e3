//! A reader's connection of one kind or another. All give the same items.

pub(super) mod http;
mod pages;
mod socketio;
mod streams;
mod ws;

use pages::Pages;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use socketio::SocketIo;
use std::{io, net::SocketAddr};
use streams::Stream;
use ws::WebSocket;

/// By which a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Sse,
    Lines,
    Poll,
    LongPoll,
    WebSocket,
    SocketIo,
}

impl Transport {
    pub(super) const ALL: [Self; 6] = [
        Self::Sse,
        Self::Lines,
        Self::Poll,
        Self::LongPoll,
        Self::WebSocket,
        Self::SocketIo,
    ];
}

/// From where a reader wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Live,
    Earliest,
    Tail(usize),
    Cursor(String),
}

impl Start {
    /// As members of a JSON object.
    fn put_into(&self, object: &mut Value) {
        match self {
            Self::Live => {}
            Self::Earliest => object["since"] = json!("earliest"),
            Self::Tail(count) => object["tail"] = json!(count),
            Self::Cursor(id) => object["last_event_id"] = json!(id),
        }
    }
}

/// What a connection is to give.
pub(super) struct Wanted<'a> {
    pub(super) topics: &'a [String],
    pub(super) start: &'a Start,
}

/// What came.
#[derive(Debug)]
pub(super) enum Item {
    Event(Seen),
    /// Something is missing: what the hub says of it.
    Gap(Value),
    /// The reader is there now.
    Cursor(String),
    /// The hub ends it, for this reason.
    Closed(String),
}

/// An event as it came. What a form does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) topic: Option<String>,
    pub(super) event: Option<String>,
    pub(super) data: String,
}

impl Seen {
    /// Of an envelope.
    fn of(envelope: &Value) -> Self {
        let text = |name: &str| envelope[name].as_str().map(str::to_owned);
        Self {
            id: text("id").unwrap_or_else(|| panic!("no id: {envelope}")),
            topic: Some(text("topic").unwrap_or_else(|| panic!("no topic: {envelope}"))),
            event: text("event"),
            data: text("data").unwrap_or_else(|| panic!("no data: {envelope}")),
        }
    }
}

/// One connection.
pub(super) enum Session {
    Stream(Box<Stream>),
    Pages(Box<Pages>),
    WebSocket(Box<WebSocket>),
    SocketIo(Box<SocketIo>),
}

impl Session {
    /// Connects, and returns once the start cannot move any more, unless it is one in the log. An error is a hub that is
    /// not there, or goes.
    pub(super) async fn open(
        transport: Transport,
        address: SocketAddr,
        wanted: &Wanted<'_>,
        random: &mut StdRng,
    ) -> io::Result<Self> {
        Ok(match transport {
            Transport::Sse | Transport::Lines => {
                let lines = transport == Transport::Lines;
                let stream = Stream::open(address, wanted, lines, random).await?;
                Self::Stream(Box::new(stream))
            }
            Transport::Poll | Transport::LongPoll => {
                let waits = transport == Transport::LongPoll;
                let pages = Pages::open(address, wanted, waits, random).await?;
                Self::Pages(Box::new(pages))
            }
            Transport::WebSocket => {
                let socket = WebSocket::open(address, wanted, random).await?;
                Self::WebSocket(Box::new(socket))
            }
            Transport::SocketIo => {
                let socket = SocketIo::open(address, wanted, random).await?;
                Self::SocketIo(Box::new(socket))
            }
        })
    }

    /// What comes next; `None` at the end, and for a reader that polls when there is nothing. After it was dropped the
    /// session can only be left.
    pub(super) async fn next(&mut self) -> io::Result<Option<Item>> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Pages(pages) => pages.next().await,
            Self::WebSocket(socket) => socket.next().await,
            Self::SocketIo(socket) => socket.next().await,
        }
    }

    /// Closes it, rudely with a reset. Gives what came meanwhile, where that counts.
    pub(super) async fn leave(self, rudely: bool) -> Vec<Item> {
        match self {
            Self::Stream(stream) => stream.leave(rudely),
            Self::Pages(pages) => pages.leave(rudely),
            Self::WebSocket(socket) => socket.leave(rudely).await,
            Self::SocketIo(socket) => return socket.leave(rudely).await,
        }
        Vec::new()
    }
}

/// The path of a subscription: its topics, and more parameters.
fn path_of(wanted: &Wanted<'_>, more: &[String], random: &mut StdRng) -> String {
    let mut parameters = more.to_vec();
    let path = match wanted.topics {
        [topic] if !topic.contains('*') && random.random() => format!("/topics/{topic}"),
        topics => {
            parameters.extend(topics.iter().map(|topic| format!("topic={topic}")));
            "/events".to_owned()
        }
    };
    match parameters.is_empty() {
        true => path,
        false => format!("{path}?{}", parameters.join("&")),
    }
}

/// A start in a URL's words; a cursor in one of its names.
fn parameter(start: &Start, random: &mut StdRng) -> Option<String> {
    const NAMES: [&str; 3] = ["last_event_id", "lastEventId", "after"];
    Some(match start {
        Start::Live => return None,
        Start::Earliest => "since=earliest".to_owned(),
        Start::Tail(count) => format!("tail={count}"),
        Start::Cursor(id) => format!("{}={id}", NAMES[random.random_range(0..NAMES.len())]),
    })
}

/// What the kernel holds for a reader: little for some, which are soon slow.
fn receive_bytes(random: &mut StdRng) -> Option<u32> {
    (random.random_range(0..3) == 0).then_some(4 << 10)
}

/// An answer that is no stream and no page: of a hub that goes, or a failure.
fn unavailable(status: u16, answer: &str) -> io::Error {
    assert_eq!(status, 503, "{answer}");
    io::Error::other("the hub goes")
}
