//! A client of `/ws`.

use super::{
    http2,
    server::{Answer, TestServer},
    stream::{DEADLINE, PATIENCE},
    wait::in_time,
};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fmt::Debug;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue},
        protocol::Role,
    },
};

/// One connection.
pub(crate) struct Socket<S = TcpStream> {
    pub(crate) inner: WebSocketStream<S>,
    /// What was selected.
    pub(crate) subprotocol: Option<String>,
}

impl Socket {
    /// A WebSocket to the hub, which has to let it in.
    pub(crate) async fn open(hub: &TestServer, path: &str) -> Self {
        let opened = Self::try_open(hub, path, &[]).await;
        opened.unwrap_or_else(|answer| panic!("{path}: {answer:?}"))
    }

    /// The same with headers, and with what the hub says if it does not.
    pub(crate) async fn try_open(
        hub: &TestServer,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        let url = format!("ws://{}{path}", hub.address);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            let value: HeaderValue = value.parse().unwrap();
            request.headers_mut().insert(name, value);
        }
        let opening = client_async(request, hub.connect().await);
        match timeout(DEADLINE, opening).await.expect("an answer in time") {
            Ok((inner, answer)) => {
                let selected = answer.headers().get("sec-websocket-protocol");
                let subprotocol = selected.map(|name| name.to_str().unwrap().to_owned());
                Ok(Self { inner, subprotocol })
            }
            Err(Error::Http(answer)) => {
                let (head, body) = answer.into_parts();
                let lines = head.headers.iter();
                let lines: String = lines
                    .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
                    .collect();
                let status = head.status.as_u16();
                Err(Answer {
                    status,
                    head: format!("HTTP/1.1 {status}\r\n{lines}"),
                    body: String::from_utf8(body.unwrap_or_default()).unwrap(),
                })
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

impl Socket<TokioIo<Upgraded>> {
    /// One of the streams of an HTTP/2 connection.
    pub(crate) async fn over_http2(client: &mut http2::Client, path: &str) -> Self {
        let answer = client.connect_socket(path, &[]).await;
        assert_eq!(answer.status(), 200);
        let upgraded = timeout(DEADLINE, hyper::upgrade::on(answer)).await;
        let io = TokioIo::new(upgraded.expect("in time").unwrap());
        Self {
            inner: WebSocketStream::from_raw_socket(io, Role::Client, None).await,
            subprotocol: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(crate) async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        let sent = self.inner.send(message);
        timeout(DEADLINE, sent)
            .await
            .expect("sent in time")
            .unwrap();
    }

    /// Subscribes, and gives the cursor that the subscription begins at.
    pub(crate) async fn subscribe(&mut self, sub: &str, topics: &[&str]) -> String {
        self.send(json!({ "subscribe": { "sub": sub, "topics": topics } }))
            .await;
        let told = self.next().await;
        assert_eq!(told["sub"], sub, "{told}");
        told["subscribed"]["cursor"].as_str().unwrap().to_owned()
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        match self.next_raw().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of a message"),
        }
    }

    /// The next message but for pings and pongs; `None` once the connection is gone.
    pub(crate) async fn next_raw(&mut self) -> Option<Message> {
        let next = async {
            loop {
                match self.inner.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(message)) => return Some(message),
                    Some(Err(_)) | None => return None,
                }
            }
        };
        in_time(PATIENCE, "a message or the end", next).await
    }

    /// The next events of a subscription, of one message: nothing else may come before.
    pub(crate) async fn events(&mut self, sub: &str) -> Vec<Value> {
        let told = self.next().await;
        assert_eq!(told["sub"], sub, "{told}");
        let events = told["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{told}"));
        assert!(!events.is_empty());
        events.clone()
    }

    /// The next so many events' data.
    pub(crate) async fn data(&mut self, sub: &str, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            let events = self.events(sub).await;
            all.extend(
                events
                    .iter()
                    .map(|event| event["data"].as_str().unwrap().to_owned()),
            );
        }
        assert_eq!(all.len(), count, "{all:?}");
        all
    }

    /// The hub's close, before which only messages may come; gives those, too.
    pub(crate) async fn closed(&mut self) -> (Vec<Value>, u16, String) {
        let mut before = Vec::new();
        loop {
            match self.next_raw().await {
                Some(Message::Text(text)) => before.push(serde_json::from_str(&text).unwrap()),
                Some(Message::Close(Some(close))) => {
                    return (before, close.code.into(), close.reason.to_string());
                }
                other => panic!("{other:?} after {before:?}"),
            }
        }
    }

    /// Waits until the hub has closed the connection in words, with nothing before.
    pub(crate) async fn closes_with(&mut self, code: u16, reason: &str)
    where
        S: Debug,
    {
        let (before, told, why) = self.closed().await;
        assert!(before.is_empty(), "{before:?}");
        assert_eq!((told, why.as_str()), (code, reason));
        assert!(self.next_raw().await.is_none());
    }
}
