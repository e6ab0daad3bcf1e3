//! Which hub, and in which words it is asked: the requests' bytes, made before the run.

use super::{
    args::Target,
    stamp::STAMP_BYTES,
    transport::{Request, Then, Transport},
};
use anyhow::{Context as _, anyhow};
use std::{
    fmt::Write as _,
    net::{SocketAddr, ToSocketAddrs as _},
};

/// A kind of hub whose routes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Tidings,
    /// With `/pub/{topic}` and `/sub/{topic}`.
    Nchan,
    /// With a token for publishing in `--publish-header`.
    Mercure,
    /// With an API key in `--publish-header`, over its unidirectional SSE.
    Centrifugo,
    /// `POST` and `GET /topics/{topic}`: the ceiling, and `examples/plain.rs`.
    Plain,
}

/// How a kind of hub is asked.
struct Routes {
    publish: &'static str,
    body: &'static str,
    content_type: &'static str,
    /// With one topic, and with several.
    subscribe: [&'static str; 2],
    /// From the oldest event.
    replay: &'static str,
}

impl Kind {
    fn routes(self) -> Routes {
        match self {
            Self::Tidings => Routes {
                publish: "/topics/{topic}",
                body: "{data}",
                content_type: "text/plain",
                subscribe: ["/topics/{topic}", "/events?topic={topics:&topic=}"],
                replay: "/topics/{topic}?since=earliest",
            },
            Self::Nchan => Routes {
                publish: "/pub/{topic}",
                body: "{data}",
                content_type: "text/plain",
                subscribe: ["/sub/{topic}", "/sub/{topics:/}"],
                replay: "/old/{topic}",
            },
            Self::Mercure => Routes {
                publish: "/.well-known/mercure",
                body: "topic={topic}&data={data}",
                content_type: "application/x-www-form-urlencoded",
                subscribe: ["/.well-known/mercure?topic={topics:&topic=}"; 2],
                replay: "/.well-known/mercure?topic={topic}&lastEventID=earliest",
            },
            Self::Centrifugo => Routes {
                publish: "/api/publish",
                body: "{\"channel\":\"{topic}\",\"data\":{\"text\":\"{data}\"}}",
                content_type: "application/json",
                // {"subs":{"a":{},"b":{}}}
                subscribe: ["/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{topics:%22%3A%7B%7D%2C%22}%22%3A%7B%7D%7D%7D";
                    2],
                replay: "",
            },
            Self::Plain => Routes {
                publish: "/topics/{topic}",
                body: "{data}",
                content_type: "text/plain",
                subscribe: ["/topics/{topic}"; 2],
                replay: "/topics/{topic}",
            },
        }
    }
}

/// A hub, and all that is needed to ask it for something.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    pub(super) address: SocketAddr,
    /// Where readers connect: another node of the same cluster, perhaps.
    pub(super) read_address: SocketAddr,
    host: String,
    publish_path: String,
    publish_body: String,
    publish_head: String,
    subscribe_paths: [String; 2],
    replay_path: String,
    subscribe_head: String,
    transport: Transport,
}

/// A request with room for events' data.
#[derive(Clone, Debug, Default)]
pub(super) struct Publish {
    pub(super) bytes: Vec<u8>,
    /// Where the data of each event begins.
    pub(super) data_at: Vec<usize>,
}

impl Hub {
    pub(super) fn new(target: &Target, transport: Transport) -> anyhow::Result<Self> {
        let routes = target.hub.routes();
        let base = target.url.trim_end_matches('/');
        let or = |given: &Option<String>, path: &str| {
            given.clone().unwrap_or_else(|| format!("{base}{path}"))
        };
        let (host, publish_path) = split(&or(&target.publish_url, routes.publish))?;
        let subscribe = transport.routes(target.hub)?;
        let subscribe = subscribe
            .unwrap_or(routes.subscribe)
            .map(|path| split(&or(&target.subscribe_url, path)));
        let [one, several] = subscribe;
        let ((read_host, one), (_, several)) = (one?, several?);
        let (_, replay_path) = split(&or(&target.replay_url, routes.replay))?;
        let mut publish_head = format!("Host: {host}\r\n");
        let mut subscribe_head = format!("Host: {read_host}\r\nAccept: {}\r\n", transport.accept());
        let content_type = target.content_type.as_deref();
        let content_type = content_type.unwrap_or(routes.content_type);
        let _ = write!(publish_head, "Content-Type: {content_type}\r\n");
        for header in &target.publish_header {
            let _ = write!(publish_head, "{header}\r\n");
        }
        for header in &target.subscribe_header {
            let _ = write!(subscribe_head, "{header}\r\n");
        }
        Ok(Self {
            address: resolve(&host)?,
            read_address: resolve(&read_host)?,
            host,
            publish_path,
            publish_body: target
                .publish_body
                .clone()
                .unwrap_or_else(|| routes.body.to_owned()),
            publish_head,
            subscribe_paths: [one, several],
            replay_path,
            subscribe_head,
            transport,
        })
    }

    /// `host:port`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A stream of these topics; after the event with that id, if there is one.
    pub(super) fn subscribe(&self, topics: &[String], last_id: Option<&[u8]>) -> Request {
        let path = &self.subscribe_paths[usize::from(topics.len() > 1)];
        self.ask(path, topics, last_id)
    }

    /// The same by the route that takes several.
    pub(super) fn subscribe_filter(&self, topics: &[String], last_id: Option<&[u8]>) -> Request {
        self.ask(&self.subscribe_paths[1], topics, last_id)
    }

    /// A stream of all that is kept of the topic.
    pub(super) fn replay(&self, topic: &str) -> Request {
        let path = with_topics(&self.replay_path, &[topic.to_owned()]);
        Request {
            first: self.get(&path, None),
            then: Then::Nothing,
        }
    }

    /// What a reader sends by its transport.
    fn ask(&self, path: &str, topics: &[String], last_id: Option<&[u8]>) -> Request {
        let path = with_topics(path, topics);
        let (first, then) = match self.transport {
            Transport::Sse | Transport::Ndjson => (self.get(&path, last_id), Then::Nothing),
            Transport::Longpoll => {
                let mark = if path.contains('?') { '&' } else { '?' };
                let next = format!("{path}{mark}limit=1000&wait=60&after=");
                let behind = format!(" HTTP/1.1\r\n{}\r\n", self.subscribe_head);
                let next = [format!("GET {next}").into_bytes(), behind.into_bytes()];
                let first = self.get(&format!("{path}{mark}tail=0"), last_id);
                (first, Then::Next(next))
            }
            Transport::Ws => (self.upgrade(&path), Then::Frames(None)),
            Transport::Socketio => {
                let auth = serde_json::json!({ "topics": topics });
                let connect = format!("40{auth}").into_bytes();
                (self.upgrade(&path), Then::Frames(Some(connect)))
            }
        };
        Request { first, then }
    }

    fn get(&self, path: &str, last_id: Option<&[u8]>) -> Vec<u8> {
        let mut request = format!("GET {path} HTTP/1.1\r\n{}", self.subscribe_head).into_bytes();
        if let Some(id) = last_id {
            request.extend_from_slice(b"Last-Event-ID: ");
            request.extend_from_slice(id);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    /// The handshake of a WebSocket, with any key.
    fn upgrade(&self, path: &str) -> Vec<u8> {
        let head = &self.subscribe_head;
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        format!("GET {path} HTTP/1.1\r\n{head}{upgrade}\r\n").into_bytes()
    }

    /// A publish of one event of `size` bytes, or of as many as its body has places for.
    pub(super) fn publish(&self, topic: &str, size: usize) -> Publish {
        let body = with_topics(&self.publish_body, &[topic.to_owned()]);
        self.publish_of(&self.publish_path, &self.publish_head, topic, &body, size)
    }

    /// A publish of a JSON array, to `POST /publish`.
    pub(super) fn publish_array(&self, topic: &str, events: usize, size: usize) -> Publish {
        let item = format!("{{\"topic\":\"{topic}\",\"data\":\"{{data}}\"}}");
        let body = format!("[{}]", vec![item; events].join(","));
        let head = format!("Host: {}\r\nContent-Type: application/json\r\n", self.host);
        self.publish_of("/publish", &head, topic, &body, size)
    }

    /// A publish whose body has as many events as it has places for data.
    fn publish_of(&self, path: &str, head: &str, topic: &str, body: &str, size: usize) -> Publish {
        let path = with_topics(path, &[topic.to_owned()]);
        let events = body.matches("{data}").count();
        let length = body.len() - events * "{data}".len() + events * size;
        let head = format!("POST {path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n");
        let mut publish = Publish {
            bytes: head.into_bytes(),
            data_at: Vec::with_capacity(events),
        };
        for (at, text) in body.split("{data}").enumerate() {
            if at > 0 {
                publish.data_at.push(publish.bytes.len());
                publish.bytes.resize(publish.bytes.len() + size, b'.');
            }
            publish.bytes.extend_from_slice(text.as_bytes());
        }
        publish
    }

    /// The head of an open-ended request for NDJSON, and one line with room for an event's data.
    pub(super) fn publish_lines(&self, topic: &str, size: usize) -> (Vec<u8>, Publish) {
        let head = format!(
            "POST /publish?results=errors HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-ndjson\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            self.host
        );
        let mut line = Publish {
            bytes: format!("{{\"topic\":\"{topic}\",\"data\":\"").into_bytes(),
            data_at: Vec::new(),
        };
        line.data_at.push(line.bytes.len());
        line.bytes.resize(line.bytes.len() + size, b'.');
        line.bytes.extend_from_slice(b"\"}\n");
        (head.into_bytes(), line)
    }
}

/// The sizes that an event may have.
pub(super) fn check_size(size: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        (STAMP_BYTES..=1 << 20).contains(&size),
        "--size {size}: an event has {STAMP_BYTES} bytes at least, and 1 MiB at most"
    );
    Ok(())
}

/// `{topic}` is the first of the topics, `{topics:SEPARATOR}` all of them.
fn with_topics(template: &str, topics: &[String]) -> String {
    let first = topics.first().map_or("", String::as_str);
    let mut text = template.replace("{topic}", first);
    while let Some(from) = text.find("{topics:")
        && let Some(len) = text[from..].find('}')
    {
        let separator = text[from + "{topics:".len()..from + len].to_owned();
        text.replace_range(from..=from + len, &topics.join(&separator));
    }
    text
}

/// Host and port, and the path with what follows it.
fn split(url: &str) -> anyhow::Result<(String, String)> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| anyhow!("{url}: expected an address that begins with http://"))?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    Ok((host, path.to_owned()))
}

fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = host
        .to_socket_addrs()
        .with_context(|| format!("cannot find {host}"))?;
    addresses
        .next()
        .ok_or_else(|| anyhow!("{host} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let topics = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert_eq!(with_topics("/x/{topic}", &topics), "/x/a");
        assert_eq!(
            with_topics("/e?topic={topics:&topic=}", &topics),
            "/e?topic=a&topic=b&topic=c"
        );
        assert_eq!(with_topics("/{topics:/}", &topics[..1]), "/a");
    }

    #[test]
    fn addresses() {
        let parts = |url: &str| split(url).unwrap();
        assert_eq!(parts("http://a:8080/x?y"), ("a:8080".into(), "/x?y".into()));
        assert_eq!(parts("http://a"), ("a:80".into(), "/".into()));
        assert!(split("https://a").is_err());
    }
}
