//! A hub inside the test process, on a free port, that drains on drop.

use super::{http1, stream::Stream, wait::in_time, watchdog};
use std::{net::SocketAddr, path::Path, time::Duration};
use tempfile::TempDir;
use tidings::{
    Server,
    config::{Config, Engine, RetentionRule},
    topic::Pattern,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Longer than an answer or a drain takes on a busy machine: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running hub. Its data directory goes with it, unless it was given one.
pub(crate) struct TestServer {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    serving: Option<JoinHandle<()>>,
    _data: Option<TempDir>,
}

impl TestServer {
    /// A hub with its log in memory.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A hub with its log in memory and some knobs turned.
    pub(crate) async fn with(turn: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        config.log.engine = Engine::Memory;
        turn(&mut config);
        Self::run(config, None).await
    }

    /// A hub with an SQLite log in a directory of its own.
    pub(crate) async fn durable() -> Self {
        let data = TempDir::new().unwrap();
        let config = Config {
            data_dir: data.path().to_owned(),
            ..config()
        };
        Self::run(config, Some(data)).await
    }

    /// A hub with an SQLite log in a directory that outlives it.
    pub(crate) async fn on(data: &Path, turn: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            data_dir: data.to_owned(),
            ..config()
        };
        turn(&mut config);
        Self::run(config, None).await
    }

    /// The hub that was at that address, started again.
    pub(crate) async fn again(data: &Path, address: SocketAddr) -> Self {
        Self::run(
            Config {
                data_dir: data.to_owned(),
                listen: address,
                ..config()
            },
            None,
        )
        .await
    }

    async fn run(config: Config, data: Option<TempDir>) -> Self {
        watchdog::watch();
        let listen = if config.listen == Config::default().listen {
            "127.0.0.1:0".parse().unwrap()
        } else {
            config.listen
        };
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let opened = in_time(PATIENCE, "an open log", Server::open(&config));
        let server = opened.await.unwrap();
        let running = server.clone();
        #[expect(clippy::disallowed_methods, reason = "the task is awaited in `stop`")]
        let serving = tokio::spawn(async move { running.serve(listener).await });
        Self {
            server,
            address,
            serving: Some(serving),
            _data: data,
        }
    }

    /// Drains the hub and waits until it is down.
    pub(crate) async fn stop(mut self) {
        self.server.shutdown();
        if let Some(serving) = self.serving.take() {
            in_time(PATIENCE, "a hub that is down", serving)
                .await
                .unwrap();
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Publishes data and gives the event's id.
    pub(crate) async fn publish(&self, topic: &str, data: impl Into<String>) -> String {
        let answer = self
            .post(&format!("/topics/{topic}"), &[], data.into())
            .await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, Vec::new()).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        self.ask("POST", path, headers, body.into()).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut raw = head.into_bytes();
        raw.extend_from_slice(b"\r\n");
        raw.extend_from_slice(&body);
        Answer::parse(&self.raw(&raw).await)
    }

    /// Sends bytes as they are, and gives all that comes back until the hub closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(1_000)]);
        in_time(PATIENCE, format!("the end after {sent:?}"), async {
            let mut tcp = self.connect().await;
            // The hub may answer and close before it has read everything.
            let _ = tcp.write_all(bytes).await;
            let mut all = Vec::new();
            let _ = tcp.read_to_end(&mut all).await;
            all
        })
        .await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let connect = TcpStream::connect(self.address);
        in_time(PATIENCE, "a connection", connect).await.unwrap()
    }

    /// Opens an SSE stream and reads its head.
    pub(crate) async fn subscribe(&self, path: &str) -> Stream {
        self.subscribe_with(path, &[]).await
    }

    /// The same, with headers.
    pub(crate) async fn subscribe_with(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        Stream::open(self.address, path, headers).await
    }
}

/// Keeps so many events of each topic that matches.
pub(crate) fn keep(topics: &str, events_max: u64) -> RetentionRule {
    RetentionRule {
        topics: Pattern::parse(topics).unwrap(),
        age_max: None,
        events_max: Some(events_max),
        bytes_max: None,
    }
}

/// A hub that keeps so many events of each topic, on which whoever is behind has to go to the log.
pub(crate) async fn hub_for_slow_readers(events_max: u64) -> TestServer {
    TestServer::with(|config| {
        config.log.retention = vec![keep("**", events_max)];
        config.subscribe.cache_bytes_max = 100_000;
    })
    .await
}

fn config() -> Config {
    let mut config = Config::default();
    config.server.http1 = http1();
    config
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.server.shutdown();
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw).into_owned();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap();
        let mut body = body.to_owned();
        let this = Self {
            status,
            head: head.to_owned(),
            body: String::new(),
        };
        if this.header("transfer-encoding").is_some() {
            body = unchunk(&body);
        }
        Self { body, ..this }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| {
            line.split(':')
                .next()
                .is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        self.head
            .lines()
            .skip(1)
            .find(named)
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The last segment of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        json["type"]
            .as_str()
            .unwrap()
            .strip_prefix("/problems/")
            .unwrap()
            .to_owned()
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole += &rest[..size];
        body = &rest[size + 2..];
    }
    whole
}
