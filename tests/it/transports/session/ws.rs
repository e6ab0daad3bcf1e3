//! A WebSocket: the subscription stands in its URL, or is asked for in a message.

use super::{Item, Seen, Wanted, http, parameter, receive_bytes, unavailable};
use futures_util::{SinkExt as _, StreamExt as _};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use std::{collections::VecDeque, io, net::SocketAddr};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

pub(in crate::transports) struct WebSocket {
    socket: Socket,
    sub: &'static str,
    items: VecDeque<Item>,
}

/// The frames of a WebSocket.
pub(super) struct Socket(WebSocketStream<TcpStream>);

impl WebSocket {
    pub(super) async fn open(
        address: SocketAddr,
        wanted: &Wanted<'_>,
        random: &mut StdRng,
    ) -> io::Result<Self> {
        let in_url = random.random();
        let lag = ["gap", "disconnect"][random.random_range(0..2)];
        let (path, sub) = match in_url {
            true => {
                let topics = wanted.topics.iter().map(|topic| format!("topic={topic}"));
                let more = [format!("lag={lag}")];
                let start = parameter(wanted.start, random);
                let parameters: Vec<_> = topics.chain(start).chain(more).collect();
                (format!("/ws?{}", parameters.join("&")), "url")
            }
            false => ("/ws".to_owned(), "mine"),
        };
        let mut this = Self {
            socket: Socket::open(address, &path, random).await?,
            sub,
            items: VecDeque::new(),
        };
        if !in_url {
            let mut subscribe = json!({ "sub": sub, "topics": wanted.topics, "lag": lag });
            wanted.start.put_into(&mut subscribe);
            let message = json!({ "subscribe": subscribe, "ref": "r" });
            this.socket.send(message.to_string()).await?;
        }
        // Until it is told where it begins.
        while !matches!(this.items.back(), Some(Item::Cursor(_) | Item::Closed(_))) {
            if !this.receive().await? {
                return Err(io::Error::other("the hub goes"));
            }
        }
        Ok(this)
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<Item>> {
        while self.items.is_empty() {
            if !self.receive().await? {
                return Ok(None);
            }
        }
        Ok(self.items.pop_front())
    }

    /// Takes a message. `false` at the end.
    async fn receive(&mut self) -> io::Result<bool> {
        let Some(text) = self.socket.receive().await? else {
            return Ok(false);
        };
        let message: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text:?}"));
        assert_eq!(message["sub"], self.sub, "{message}");
        if let Some(events) = message["events"].as_array() {
            assert!(!events.is_empty(), "a message of no events");
            let events = events.iter().map(|event| Item::Event(Seen::of(event)));
            self.items.extend(events);
        } else if let Some(cursor) = message["subscribed"]["cursor"].as_str() {
            self.items.push_back(Item::Cursor(cursor.to_owned()));
        } else if let Some(gap) = message.get("gap") {
            self.items.push_back(Item::Gap(gap.clone()));
        } else if let Some(reason) = message["closed"]["reason"].as_str() {
            self.items.push_back(Item::Closed(reason.to_owned()));
        } else {
            panic!("an odd message: {message}");
        }
        Ok(true)
    }

    pub(super) async fn leave(self, rudely: bool) {
        self.socket.leave(rudely).await;
    }
}

impl Socket {
    pub(super) async fn open(
        address: SocketAddr,
        path: &str,
        random: &mut StdRng,
    ) -> io::Result<Self> {
        let tcp = http::dial(address, receive_bytes(random)).await?;
        match client_async(format!("ws://{address}{path}"), tcp).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                let body = String::from_utf8_lossy(&body);
                Err(unavailable(answer.status().as_u16(), &body))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    pub(super) async fn send(&mut self, text: String) -> io::Result<()> {
        let sent = self.0.send(Message::text(text)).await;
        sent.map_err(io::Error::other)
    }

    /// The next message; `None` at the end.
    pub(super) async fn receive(&mut self) -> io::Result<Option<String>> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(text.as_str().to_owned())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
    }

    pub(super) async fn leave(mut self, rudely: bool) {
        if !rudely {
            // The hub may be gone.
            let _ = self.0.close(None).await;
        }
        http::leave(self.0.into_inner(), rudely);
    }
}
