//! Which of the two serves a connection, the lean loop or hyper, is nobody's business: whatever the request, the bytes
//! of the answers are the same, but for dates and the epochs of ids.

use crate::support::{
    server::TestServer,
    stream::{DEADLINE, PATIENCE},
    wait::{in_time, wait_until},
};
use std::time::Duration;
use tidings::config::{Config, Http1};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What is asked last on each connection.
const LAST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Two hubs that differ in nothing but what serves them.
struct Both {
    hubs: [TestServer; 2],
    epochs: [String; 2],
}

/// How a request comes.
#[derive(Clone, Copy, Debug)]
enum How {
    /// With the last request right behind it.
    Together,
    /// The last request comes once the first was answered.
    Apart,
    /// In packets of a few bytes.
    InPieces,
}

impl Both {
    async fn start(turn: impl Fn(&mut Config)) -> Self {
        let start = async |http1| {
            TestServer::with(|config| {
                turn(config);
                config.server.http1 = http1;
                // Not at random.
                config.subscribe.drain_retry_min = Duration::from_secs(3);
                config.subscribe.drain_retry_max = Duration::from_secs(3);
            })
            .await
        };
        let epoch = |hub: &TestServer| format!("{:x}-", hub.server.hub().log().bounds().epoch);
        // Ids as long as each other, so that the lengths of answers are the same.
        loop {
            let hubs = [start(Http1::Lean).await, start(Http1::Library).await];
            let epochs = [epoch(&hubs[0]), epoch(&hubs[1])];
            if epochs[0].len() == epochs[1].len() {
                return Self { hubs, epochs };
            }
        }
    }

    /// Asks both the same, and gives what both answer.
    async fn ask(&self, request: &[u8], how: How) -> String {
        let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        let (lean, library) = tokio::join!(
            ask(&self.hubs[0], request, how),
            ask(&self.hubs[1], request, how)
        );
        let lean = comparable(&lean, &self.epochs[0]);
        let library = comparable(&library, &self.epochs[1]);
        assert_eq!(lean, library, "{how:?}: {shown:?}");
        lean
    }
}

async fn ask(hub: &TestServer, request: &[u8], how: How) -> Vec<u8> {
    let mut tcp = hub.connect().await;
    tcp.set_nodelay(true).unwrap();
    let mut all = Vec::new();
    let whole = [request, LAST.as_bytes()].concat();
    // The hub may answer and close before it has read everything.
    match how {
        How::Together => drop(tcp.write_all(&whole).await),
        How::Apart => {
            let _ = tcp.write_all(request).await;
            while !is_whole(&all, request.starts_with(b"HEAD")) {
                let read = timeout(DEADLINE, tcp.read_buf(&mut all)).await;
                if !matches!(read.expect("an answer in time"), Ok(1..)) {
                    return all;
                }
            }
            let _ = tcp.write_all(LAST.as_bytes()).await;
        }
        How::InPieces => {
            for piece in whole.chunks(whole.len().div_ceil(40).max(7)) {
                if tcp.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    let _ = timeout(DEADLINE, tcp.read_to_end(&mut all))
        .await
        .unwrap_or_else(|_| {
            let (start, _) = request.split_at(request.len().min(300));
            panic!("not closed: {:?}", String::from_utf8_lossy(start));
        });
    all
}

/// Whether the first answer is there in full.
fn is_whole(raw: &[u8], head_only: bool) -> bool {
    let text = String::from_utf8_lossy(raw);
    let text = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") && !head_only {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    head_only || body.len() >= length.unwrap_or(0)
}

fn comparable(raw: &[u8], epoch: &str) -> String {
    let text = String::from_utf8_lossy(raw).replace(epoch, "epoch-");
    let mut parts = text.split("\r\ndate: ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (date, rest) = part.split_once("\r\n").expect("a date's end");
        assert!(date.ends_with(" GMT"), "{date}");
        out += "\r\ndate: now\r\n";
        out += rest;
    }
    out
}

fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

fn post(target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

fn raw(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Requests whose targets are of all kinds.
fn targets() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = [
        "/",
        "/healthz",
        "/healthz?x=1",
        "/assets/app.js",
        "/problems/",
        "/problems/topic-invalid",
        "/problems/%ff",
        "/nope",
        "/topics",
        "/topics/",
        "//topics/a",
        "/topics/..",
        "/topics/%ff",
        "/topics/a/*",
        "/topics/ü%20ü?nope=1",
        "/events",
        "/events?topic=**&lag=nope",
        "/events?topic=a&tail=x&since=y",
        "/events?topic=a&heartbeat=1ms",
        "/ws",
        "/ws?topic=a",
        "/healthz#fragment",
        "/with space",
        "*",
        "healthz",
        "http://localhost/healthz",
        "http://localhost:80/healthz",
        "http://evil.example/healthz",
        "https://user@localhost/healthz",
        "/\u{7f}",
        "/healthz\t",
        "/<>\"{}|^`\\",
    ]
    .iter()
    .flat_map(|target| {
        [
            get(target, ""),
            raw(&format!(
                "HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )),
        ]
    })
    .collect();
    all.push(b"GET /topics/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec());
    all.push(get(&format!("/{}", "a".repeat(60_000)), ""));
    all.push(get(&format!("/{}", "a".repeat(100_000)), ""));
    all
}

/// Requests with all kinds of headers.
fn headers() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = [
        "Connection: close\r\n",
        "Connection: Keep-Alive\r\n",
        "Connection: keep-alive, Close\r\n",
        "Connection: close\r\nConnection: keep-alive\r\n",
        "Connection: \r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nOrigin: https://evil.example\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade-Insecure-Requests: 1\r\n",
        "Expect: 100-continue\r\n",
        "Expect: something-else\r\n",
        "TE: trailers\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 4\r\n\r\nbody",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n",
        "Transfer-Encoding: identity\r\n",
        "X-Folded: a\r\n b\r\n",
        "X-Empty:\r\nX-Blank:   \r\n",
        "X-Space : a\r\n",
        " X-Space: a\r\n",
        "x-oDD-cASE: a\r\nACCEPT: */*\r\n",
        "X Name: a\r\n",
        "X-Nul: \0\r\n",
        "X-Cr: a\rb\r\n",
        "X-Tab: a\tb\r\n",
        "X-Lf: a\nX-After: b\r\n",
        "no colon\r\n",
        ": no name\r\n",
        "X-Obs: \u{fc}\r\n",
        "Host: localhost\r\n",
        "Host: evil.example\r\n",
        "Origin: http://localhost:3000\r\n",
        "Origin: https://evil.example\r\n",
        "Accept: image/png\r\nAccept: text/html\r\n",
        "Last-Event-ID: nonsense\r\n",
        "Idempotency-Key: a\r\n",
    ]
    .iter()
    .flat_map(|headers| [get("/healthz", headers), get("/nope", headers)])
    .collect();
    all.push(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Obs: \xff\xfe\r\n\r\n".to_vec());
    for fields in [200, 255, 256] {
        all.push(get("/healthz", &"X-Many: 1\r\n".repeat(fields)));
    }
    for bytes in [30_000, 60_000, 70_000] {
        all.push(get(
            "/healthz",
            &format!("X-Long: {}\r\n", "a".repeat(bytes)),
        ));
    }
    all
}

/// First lines of all kinds, and what is no HTTP at all.
fn lines() -> Vec<Vec<u8>> {
    [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        "GET /nope HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
        "HEAD / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        "POST /topics/a HTTP/1.0\r\nContent-Length: 3\r\n\r\nold",
        "POST /topics/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET  /healthz  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET\t/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1 \r\nHost: localhost\r\n\r\n",
        "get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "BREW /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "DELETE /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PUT /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS /topics/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        "OPTIONS /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nxx",
        "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "TRACE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\n\r\n\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\nHost: localhost\n\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n",
        " GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "{\"json\":1}\r\n\r\n",
        "GET\r\n\r\n",
        "HELO example\r\n\r\n",
    ]
    .map(raw)
    .to_vec()
}

/// Publishes of all kinds.
fn publishes() -> Vec<Vec<u8>> {
    let json = "Content-Type: application/json\r\n";
    let chunked = |body: &str| {
        raw(&format!(
            "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ))
    };
    vec![
        post("/topics/a", "", "one"),
        post("/topics/a", "", ""),
        post("/topics/a", "Connection: close\r\n", "one"),
        post("/topics/a", "Expect: 100-continue\r\n", "one"),
        post("/topics/a", "Content-Encoding: gzip\r\n", "one"),
        post("/topics/a", "Idempotency-Key: k\r\n", "keyed"),
        post("/topics/a", "Idempotency-Key: k\r\n", "keyed"),
        post("/topics/a", "Idempotency-Key: k\r\n", "another"),
        post(
            "/topics/a",
            "Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
            "x",
        ),
        post("/topics/a", "Origin: https://evil.example\r\n", "x"),
        post("/topics/a?event=e&own_id=1", "", "x"),
        post("/topics/a?nope", "", "x"),
        post("/topics/%C3%BC", "", "\u{fc}"),
        post("/topics/%zz", "", "x"),
        post("/topics/\u{fc}", "", "\u{fc}"),
        post("/topics/a", "", &"x".repeat(60 << 10)),
        post("/topics/a", "", &"x".repeat(64 << 10)),
        post("/topics/a", "", &"x".repeat((64 << 10) + 1)),
        post("/publish", json, r#"{"topic":"a","data":1}"#),
        post(
            "/publish",
            json,
            r#"[{"topic":"a","data":1},{"topic":"b","data":2}]"#,
        ),
        post(
            "/publish",
            json,
            r#"[{"topic":"a","data":1},{"topic":".."}]"#,
        ),
        post("/publish", json, "{"),
        post(
            "/publish",
            "Content-Type: application/x-ndjson\r\n",
            "{\"topic\":\"a\",\"data\":1}\n",
        ),
        post("/publish", "Content-Type: text/plain\r\n", "x"),
        post("/publish", "", "x"),
        post("/healthz", "", "x"),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        raw(
            "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        ),
        raw(
            "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        ),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 1\r\n\r\nx"),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\nx"),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\nx"),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\nx"),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 001\r\n\r\nx"),
        raw("POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx"),
        raw(
            "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\nx",
        ),
        chunked("3\r\none\r\n0\r\n\r\n"),
        chunked("3;x=y\r\none\r\n0\r\nTrailer: x\r\n\r\n"),
        chunked("zz\r\n"),
        // Several on one connection.
        [get("/healthz", ""), get("/", ""), get("/nope", "")].concat(),
        [
            post("/topics/a", "", "1"),
            post("/topics/a", "", "2"),
            get("/healthz", ""),
        ]
        .concat(),
        [
            get("/healthz", ""),
            chunked("3\r\none\r\n0\r\n\r\n"),
            get("/healthz", ""),
        ]
        .concat(),
        [
            post("/topics/a", "", "1"),
            raw("bad\r\n\r\n"),
            get("/healthz", ""),
        ]
        .concat(),
        [get("/healthz", ""), raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")].concat(),
        [
            get("/healthz", ""),
            raw("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ]
        .concat(),
        [
            raw("HEAD /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            get("/healthz", ""),
        ]
        .concat(),
        [
            get("/healthz", "Connection: close\r\n"),
            get("/healthz", ""),
        ]
        .concat(),
    ]
}

async fn compare(both: &Both, requests: &[Vec<u8>]) {
    for request in requests {
        for how in [How::Together, How::Apart, How::InPieces] {
            let answer = both.ask(request, how).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1."),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn targets_are_answered_alike() {
    compare(&Both::start(|_| {}).await, &targets()).await;
}

#[tokio::test]
async fn headers_are_answered_alike() {
    compare(&Both::start(|_| {}).await, &headers()).await;
}

#[tokio::test]
async fn first_lines_are_answered_alike() {
    compare(&Both::start(|_| {}).await, &lines()).await;
}

#[tokio::test]
async fn publishes_are_answered_alike() {
    compare(&Both::start(|_| {}).await, &publishes()).await;
}

/// Each reads a topic of its own, `{topic}`.
fn streams() -> Vec<String> {
    let get = |headers: &str| {
        format!("GET /topics/{{topic}} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
    };
    let healthz = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    vec![
        get(""),
        get("Connection: close\r\n"),
        get("Connection: keep-alive\r\n"),
        get("Accept: text/event-stream\r\nOrigin: http://localhost:3000\r\n"),
        get("Origin: https://evil.example\r\n"),
        get("Sec-Fetch-Mode: cors\r\nCache-Control: no-cache\r\n"),
        get("Last-Event-ID: nonsense\r\n"),
        get("Last-Event-ID: 1-1\r\n"),
        get("Expect: 100-continue\r\n"),
        get("Upgrade: h2c\r\n"),
        get("Content-Length: 0\r\n"),
        get("Content-Length: 4\r\n\r\nbody"),
        get("X-Obs: \u{fc}\r\nx-EMPTY:\r\n"),
        get(&format!("X-Long: {}\r\n", "a".repeat(60_000))),
        get("") + healthz,
        healthz.to_owned() + &get(""),
        healthz.to_owned() + healthz + &get("") + &get(""),
        format!("\r\n{}", get("")),
        get("").replace("\r\n", "\n"),
        get("").replace("HTTP/1.1", "HTTP/1.0"),
        get("Connection: keep-alive\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        get("Host: x\r\n").replace("Host: localhost\r\nHost: x", "hOST: LocalHost"),
        get("").replace("/topics", "http://localhost/topics"),
        get("").replace("{topic}", "{topic}?open=1"),
        get("").replace("{topic}", "{topic}?since=earliest"),
        get("").replace("{topic}", "{topic}?tail=5&lag=latest"),
        get("").replace("/topics/{topic}", "/events?topic={topic}&topic=none/**"),
        get("").replace("{topic}", "%7Btopic%7D"),
        "POST /topics/other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".to_owned()
            + &get(""),
    ]
}

/// Opens the streams on one hub, lets each read an event, and gives all that they then got until the hub went down.
async fn read(hub: &TestServer, epoch: &str) -> Vec<String> {
    let mut open: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    let requests = streams();
    for (number, request) in requests.iter().enumerate() {
        let mut tcp = hub.connect().await;
        let request = request.replace("{topic}", &format!("s{number}"));
        let request = request.replace("%7Btopic%7D", &format!("s%{:x}{number}", b'/'));
        tcp.write_all(request.as_bytes()).await.unwrap();
        open.push((tcp, Vec::new()));
    }
    wait_until("all have joined", || {
        hub.server.hub().feeds() == requests.len()
    })
    .await;
    for (number, (tcp, got)) in open.iter_mut().enumerate() {
        hub.publish(&format!("s{number}"), "for one").await;
        hub.publish(&format!("s/{number}"), "for one").await;
        in_time(PATIENCE, format!("the event of {number}"), async {
            while !String::from_utf8_lossy(got).contains("data: for one\n\n") {
                let count = tcp.read_buf(got).await.unwrap();
                assert!(count > 0, "{number}: {:?}", String::from_utf8_lossy(got));
            }
        })
        .await;
    }
    hub.server.shutdown();
    let mut all = Vec::new();
    for (mut tcp, mut got) in open {
        let end = timeout(DEADLINE, tcp.read_to_end(&mut got)).await;
        end.expect("closed in time").unwrap();
        all.push(comparable(&got, epoch));
    }
    all
}

#[tokio::test]
async fn streams_are_the_same_to_their_end() {
    let both = Both::start(|_| {}).await;
    let (lean, library) = tokio::join!(
        read(&both.hubs[0], &both.epochs[0]),
        read(&both.hubs[1], &both.epochs[1])
    );
    for ((lean, library), request) in lean.iter().zip(&library).zip(streams()) {
        assert_eq!(lean, library, "{request:?}");
        assert!(lean.contains("retry: 3000\n"), "{lean:?}");
    }
    for hub in both.hubs {
        hub.stop().await;
    }
}

/// A hub that is full answers on further connections, each for itself.
#[tokio::test]
async fn turned_away_alike() {
    let both = Both::start(|config| config.server.connections_max = 1).await;
    let mut held = Vec::new();
    for hub in &both.hubs {
        let mut stream = hub.subscribe("/topics/a").await;
        stream.until(": tidings\n").await;
        held.push(stream);
    }
    for request in [
        get("/topics/a", ""),
        get("/events?topic=a", "Connection: close\r\n"),
        raw("GET /topics/a HTTP/1.0\r\n\r\n"),
        raw("HEAD /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        get("/", ""),
        get("/healthz", ""),
        post("/topics/a", "", "x"),
        post("/topics/a", "Expect: 100-continue\r\n", "x"),
    ] {
        let answer = both.ask(&request, How::Together).await;
        assert!(answer.starts_with("HTTP/1."), "{answer:?}");
    }
    drop(held);
}
