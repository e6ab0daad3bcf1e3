//! A client of Socket.IO that sends packets as they are, over a WebSocket, and what becomes of those that no library sends.

use super::TestServer;
use crate::support::ws::Socket;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// Longer than anything takes on a busy machine. (Pings go on whatever happens.)
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Packets(Socket);

impl Packets {
    /// One that is about to connect to the namespace.
    pub(super) async fn open(hub: &TestServer) -> Self {
        let path = "/socket.io/?EIO=4&transport=websocket";
        let mut this = Self(Socket::open(hub, path).await);
        let open = this.next().await.expect("a packet");
        assert!(open.starts_with("0{"), "{open}");
        this
    }

    /// One that has, and asks for nothing.
    pub(super) async fn connected(hub: &TestServer) -> Self {
        Self::connected_with(hub, "").await
    }

    /// The same with that `auth`.
    pub(super) async fn connected_with(hub: &TestServer, auth: &str) -> Self {
        let mut this = Self::open(hub).await;
        this.send(format!("40{auth}")).await;
        let connected = this.next().await.expect("a packet");
        assert!(connected.starts_with("40{"), "{connected}");
        this
    }

    pub(super) async fn send(&mut self, packet: impl Into<String>) {
        self.0.send_raw(Message::text(packet.into())).await;
    }

    /// The next packet; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<String> {
        let next = timeout(PATIENCE, self.next_but_pings()).await;
        next.expect("a packet in time")
    }

    async fn next_but_pings(&mut self) -> Option<String> {
        loop {
            match self.0.next_raw().await {
                Some(Message::Text(ping)) if ping == "2" => self.send("3").await,
                Some(Message::Text(packet)) => return Some(packet.as_str().to_owned()),
                Some(Message::Close(_)) | None => return None,
                Some(other) => panic!("{other:?} in place of a packet"),
            }
        }
    }

    /// What the next packet has, which begins so.
    async fn json(&mut self, begin: &str) -> Value {
        let packet = self.next().await.expect("a packet");
        let json = packet.strip_prefix(begin);
        let json = json.unwrap_or_else(|| panic!("{packet} in place of {begin}"));
        serde_json::from_str(json).unwrap()
    }

    /// The acknowledgement of that number, which has to come next.
    pub(super) async fn answer(&mut self, ack: u32) -> Value {
        let answer = self.json(&format!("43{ack}")).await;
        assert_eq!(answer.as_array().map(Vec::len), Some(1), "{answer}");
        answer[0].clone()
    }

    /// An event's name and arguments, which have to come next.
    pub(super) async fn event(&mut self) -> Value {
        self.json("42").await
    }
}

#[tokio::test]
async fn odd_packets_end_the_connection_or_get_no_answer() {
    let hub = TestServer::start().await;
    for packet in [
        "42[]",
        "42{}",
        r#"427["x",{]"#,
        r#"427["publis\u0068",{"topic":"a","data":1}]"#,
    ] {
        let mut socket = Packets::connected(&hub).await;
        socket.send(packet).await;
        assert_eq!(socket.next().await.as_deref(), Some("1"), "{packet}");
        assert_eq!(socket.next().await, None, "{packet}");
    }
    for begin in ["427 ", "4299999999999999999999"] {
        let mut socket = Packets::connected(&hub).await;
        let publish = json!(["publish", {"topic": "a", "data": begin}]);
        socket.send(format!("{begin}{publish}")).await;
        socket.send(r#"428["subscribe","a",{"tail":1}]"#).await;
        assert!(socket.answer(8).await["ok"].is_object());
        assert_eq!(socket.event().await[1]["data"], begin);
    }
    hub.stop().await;
}
