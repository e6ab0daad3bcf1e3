//! Socket.IO over a WebSocket or over HTTP: topics stand in `auth`, or are asked for with `subscribe`.

use super::{Item, Seen, Wanted, http::Http, receive_bytes, unavailable, ws::Socket};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use std::{collections::VecDeque, io, net::SocketAddr};

pub(in crate::transports) struct SocketIo {
    engine: Engine,
    /// The subscription's name.
    sub: String,
    items: VecDeque<Item>,
}

/// Engine.IO: packets, whatever carries them.
enum Engine {
    Socket(Box<Socket>),
    Polling {
        http: Http,
        path: String,
        packets: VecDeque<String>,
    },
}

impl SocketIo {
    pub(super) async fn open(
        address: SocketAddr,
        wanted: &Wanted<'_>,
        random: &mut StdRng,
    ) -> io::Result<Self> {
        let engine = match random.random_range(0..3) {
            0 => Engine::polling(address, random).await?,
            _ => Engine::socket(address, random).await?,
        };
        let mut this = Self {
            engine,
            sub: "auth".to_owned(),
            items: VecDeque::new(),
        };
        let lag = ["gap", "disconnect"][random.random_range(0..2)];
        let mut options = json!({ "lag": lag });
        wanted.start.put_into(&mut options);
        let in_auth = random.random();
        if in_auth {
            options["topics"] = json!(wanted.topics);
            this.engine.send(format!("40{options}")).await?;
        } else {
            this.engine.send("40".to_owned()).await?;
        }
        this.until("40").await?;
        if !in_auth {
            let subscribe = json!(["subscribe", wanted.topics, options]);
            this.engine.send(format!("420{subscribe}")).await?;
        }
        // Until it is told where it begins.
        while !matches!(this.items.back(), Some(Item::Cursor(_) | Item::Closed(_))) {
            let packet = this.engine.receive().await?;
            let packet = packet.ok_or_else(|| io::Error::other("the hub goes"))?;
            if packet.starts_with("41") {
                return Err(io::Error::other("the hub goes"));
            }
            let Some(answer) = packet.strip_prefix("430") else {
                this.items.push_back(Self::item(&packet));
                continue;
            };
            let answer: Value = serde_json::from_str(answer).expect("an acknowledgement");
            let ok = &answer[0]["ok"];
            let (Some(cursor), Some(sub)) = (ok["cursor"].as_str(), ok["sub"].as_str()) else {
                assert_eq!(answer[0]["error"]["status"], 503, "{answer}");
                return Err(io::Error::other("the hub goes"));
            };
            this.items.push_back(Item::Cursor(cursor.to_owned()));
            sub.clone_into(&mut this.sub);
        }
        Ok(this)
    }

    /// What follows the beginning of the packet that has to come next.
    async fn until(&mut self, begin: &str) -> io::Result<String> {
        match self.engine.receive().await? {
            Some(packet) if packet.starts_with(begin) => Ok(packet[begin.len()..].to_owned()),
            Some(packet) if packet.starts_with("44") => {
                assert!(
                    packet.contains("503") || packet.contains("down"),
                    "{packet}"
                );
                Err(io::Error::other("the hub goes"))
            }
            Some(packet) if packet.starts_with("42[\"closed\"") || packet.starts_with("41") => {
                Err(io::Error::other("the hub goes"))
            }
            Some(packet) => panic!("{packet:?} in place of {begin:?}"),
            None => Err(io::Error::other("the hub goes")),
        }
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<Item>> {
        if let Some(item) = self.items.pop_front() {
            return Ok(Some(item));
        }
        let Some(packet) = self.engine.receive().await? else {
            return Ok(None);
        };
        if packet.starts_with("41") {
            return Ok(None);
        }
        Ok(Some(Self::item(&packet)))
    }

    fn item(packet: &str) -> Item {
        let event = packet
            .strip_prefix("42")
            .unwrap_or_else(|| panic!("{packet:?}"));
        let event: Value = serde_json::from_str(event).unwrap_or_else(|_| panic!("{packet:?}"));
        match event[0].as_str() {
            Some("event") => Item::Event(Seen::of(&event[1])),
            Some("subscribed") => {
                let cursor = event[1]["cursor"].as_str().expect("a cursor");
                Item::Cursor(cursor.to_owned())
            }
            Some("gap") => Item::Gap(event[1].clone()),
            Some("closed") => {
                let reason = event[1]["reason"].as_str().expect("a reason");
                Item::Closed(reason.to_owned())
            }
            _ => panic!("an odd event: {event}"),
        }
    }

    /// Closes it. If it is asked to end the subscription, the hub tells where its reader is; gives what came until then.
    pub(super) async fn leave(mut self, rudely: bool) -> Vec<Item> {
        let mut items = Vec::new();
        if !rudely {
            // The hub may be gone.
            let _ = self.unsubscribe(&mut items).await;
            let _ = self.engine.goodbye().await;
        }
        match self.engine {
            Engine::Socket(socket) => socket.leave(rudely).await,
            Engine::Polling { http, .. } => http.leave(rudely),
        }
        items
    }

    async fn unsubscribe(&mut self, items: &mut Vec<Item>) -> io::Result<()> {
        if let Engine::Polling { .. } = self.engine {
            // What the answer of a poll had that was left may be missing.
            return Ok(());
        }
        let unsubscribe = json!(["unsubscribe", self.sub]);
        self.engine.send(format!("421{unsubscribe}")).await?;
        items.extend(self.items.drain(..));
        while let Some(packet) = self.engine.receive().await? {
            if let Some(answer) = packet.strip_prefix("431") {
                let answer: Value = serde_json::from_str(answer)?;
                let cursor = answer[0]["ok"]["cursor"].as_str();
                items.extend(cursor.map(|cursor| Item::Cursor(cursor.to_owned())));
                return Ok(());
            }
            if packet.starts_with("41") {
                return Ok(());
            }
            items.push(Self::item(&packet));
        }
        Ok(())
    }
}

impl Engine {
    async fn socket(address: SocketAddr, random: &mut StdRng) -> io::Result<Self> {
        let path = "/socket.io/?EIO=4&transport=websocket";
        let mut socket = Socket::open(address, path, random).await?;
        match socket.receive().await? {
            Some(open) => assert!(open.starts_with("0{"), "{open:?}"),
            None => return Err(io::Error::other("the hub goes")),
        }
        Ok(Self::Socket(Box::new(socket)))
    }

    async fn polling(address: SocketAddr, random: &mut StdRng) -> io::Result<Self> {
        let mut http = Http::connect(address, receive_bytes(random)).await?;
        let path = "/socket.io/?EIO=4&transport=polling";
        let status = http.ask("GET", path, &[], "").await?;
        let open = http.whole().await?;
        if status != 200 {
            return Err(unavailable(status, &open));
        }
        let open: Value = serde_json::from_str(open.strip_prefix('0').expect("an open packet"))?;
        let sid = open["sid"].as_str().expect("a session");
        Ok(Self::Polling {
            http,
            path: format!("{path}&sid={sid}"),
            packets: VecDeque::new(),
        })
    }

    async fn send(&mut self, packet: String) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.send(packet).await,
            Self::Polling { http, path, .. } => {
                let text = [("Content-Type", "text/plain")];
                let status = http.ask("POST", path, &text, &packet).await?;
                let answer = http.whole().await?;
                polled(status, &answer)
            }
        }
    }

    async fn goodbye(&mut self) -> io::Result<()> {
        if let Self::Polling { http, .. } = self {
            // On the old one a poll may wait for its answer.
            *http = http.another().await?;
        }
        self.send("41".to_owned()).await
    }

    /// The next packet of Socket.IO; `None` at the end.
    async fn receive(&mut self) -> io::Result<Option<String>> {
        loop {
            let packet = match self {
                Self::Socket(socket) => socket.receive().await?,
                Self::Polling {
                    http,
                    path,
                    packets,
                } => {
                    if packets.is_empty() {
                        let status = http.ask("GET", path, &[], "").await?;
                        let answer = http.whole().await?;
                        polled(status, &answer)?;
                        packets.extend(answer.split('\u{1e}').map(str::to_owned));
                    }
                    packets.pop_front()
                }
            };
            match packet.as_deref() {
                None | Some("1") => return Ok(None),
                Some("2") => self.send("3".to_owned()).await?,
                Some("6" | "") => {}
                Some(_) => return Ok(packet),
            }
        }
    }
}

/// A session that a new hub does not know is over.
fn polled(status: u16, answer: &str) -> io::Result<()> {
    match status {
        200 => Ok(()),
        400 if answer.contains("sid") || answer.contains("ession") => {
            Err(io::Error::other("the session is over"))
        }
        _ => Err(unavailable(status, answer)),
    }
}
