//! Clients of streams that do what no client should, and that go away: the hub forgets them soon, and the others
//! notice nothing.

use crate::support::{
    http2::{self, Client},
    stream::{DEADLINE, Stream},
    wait::within,
    witness::Witness,
};
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

/// How soon a client that went away is forgotten.
const SOON: Duration = Duration::from_secs(2);

/// A stream of a topic on which nothing happens.
async fn silent(hub: &Witness, version: &str) -> Stream {
    let mut tcp = hub.connect().await;
    let head = format!("GET /topics/silent HTTP/{version}\r\nHost: localhost\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut stream = Stream::on(tcp).await;
    assert_eq!(stream.status(), 200);
    stream.until(": tidings\n").await;
    joined(hub, 2).await;
    stream
}

/// Waits until so many different streams are read, the witness's among them.
async fn joined(hub: &Witness, feeds: usize) {
    within(SOON, "streams have joined, or are gone", || {
        hub.server.hub().feeds() == feeds
    })
    .await;
}

fn reset(tcp: &TcpStream) {
    socket2::SockRef::from(tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_is_forgotten_on_a_silent_topic() {
    let mut hub = Witness::start().await;
    for version in ["1.0", "1.1"] {
        for bytes in [0, 1, 100, 200_000] {
            for by_reset in [false, true] {
                let what = format!("HTTP/{version}, {bytes} stray bytes, reset: {by_reset}");
                let mut stream = silent(&hub, version).await;
                // As much of them as the hub's socket takes: it reads none of them.
                let stray = vec![b'x'; bytes];
                let _ = timeout(Duration::from_millis(100), stream.tcp().write_all(&stray)).await;
                hub.unharmed(&what).await;
                joined(&hub, 2).await;
                hub.publish("silent", "still there").await;
                assert_eq!(stream.next().await.data, "still there", "{what}");
                hub.expect(&["still there"], &what).await;
                if by_reset {
                    reset(stream.tcp());
                }
                drop(stream);
                joined(&hub, 1).await;
            }
        }
    }
    hub.unharmed("all of them").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_half_closed_connection_is_a_client_gone() {
    let hub = Witness::start().await;
    let mut stream = silent(&hub, "1.1").await;
    stream
        .tcp()
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    stream.tcp().shutdown().await.unwrap();
    joined(&hub, 1).await;
    stream.rest().await;
    assert!(
        !stream.text.contains("ok\n"),
        "nothing is served behind a stream"
    );
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer() {
    let mut hub = Witness::start().await;
    for _ in 0..50 {
        let mut tcp = hub.connect().await;
        tcp.write_all(b"GET /topics/silent HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        reset(&tcp);
    }
    joined(&hub, 1).await;
    hub.unharmed("fifty resets").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_over_http2() {
    let mut hub = Witness::start().await;
    let mut client = Client::connect(&hub).await;
    let (mut first, mut second) = (
        client.get("/topics/silent").await,
        client.get("/topics/other").await,
    );
    let (mut read_first, mut read_second) = (String::new(), String::new());
    http2::until(first.body_mut(), &mut read_first, ": tidings\n").await;
    http2::until(second.body_mut(), &mut read_second, ": tidings\n").await;
    joined(&hub, 3).await;
    // One stream of the connection ends, the other goes on.
    drop(first);
    joined(&hub, 2).await;
    hub.publish("other", "x").await;
    http2::until(second.body_mut(), &mut read_second, "data: x\n\n").await;
    hub.expect(&["x"], "a stream reset").await;
    client.cut();
    joined(&hub, 1).await;
    hub.unharmed("a cut connection").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_stream_over_http_1_0_is_not_chunked() {
    let mut hub = Witness::start().await;
    let mut stream = silent(&hub, "1.0").await;
    let head = stream.head.to_ascii_lowercase();
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    for i in 0..100 {
        hub.publish("silent", i.to_string()).await;
        hub.expect(&[&i.to_string()], "HTTP/1.0").await;
    }
    let expected: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    assert_eq!(stream.data(100).await, expected);
    assert!(
        stream.text.starts_with("retry: 2000\n: tidings\n"),
        "no chunk heads"
    );
    hub.stop().await;
}

/// Publishes until the feeds of those who do not read are gone.
async fn until_forgotten(hub: &mut Witness, feeds: usize) {
    let large = "x".repeat(100 << 10);
    let flood = async {
        while hub.server.hub().feeds() > feeds {
            hub.publish("flood", large.as_str()).await;
            hub.expect(&[&large], "a flood").await;
        }
    };
    timeout(DEADLINE, flood).await.expect("forgotten in time");
}

#[tokio::test]
async fn a_client_that_never_reads_its_stream_is_closed() {
    let mut hub = Witness::with(|config| {
        config.server.write_timeout = Duration::from_millis(300);
        config.log.bytes_max = 8 << 20;
    })
    .await;
    let mut rude = Vec::new();
    for version in ["1.0", "1.1"] {
        for path in [
            "/topics/flood",
            "/events?topic=flood/*&topic=flood",
            "/topics/flood?frame=envelope",
        ] {
            let mut tcp = hub.connect().await;
            let head = format!("GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n");
            tcp.write_all(head.as_bytes()).await.unwrap();
            rude.push(tcp);
        }
    }
    joined(&hub, 3).await;
    until_forgotten(&mut hub, 1).await;
    drop(rude);
    hub.stop().await;
}

#[tokio::test]
async fn an_http2_client_that_never_reads_one_of_its_streams() {
    let mut hub = Witness::with(|config| {
        config.server.write_timeout = Duration::from_millis(300);
        config.log.bytes_max = 8 << 20;
    })
    .await;
    let mut client = Client::connect(&hub).await;
    let unread = client.get("/topics/flood").await;
    let mut other = client.get("/topics/other").await;
    joined(&hub, 3).await;
    until_forgotten(&mut hub, 2).await;
    // The connection and its other stream go on.
    let mut read = String::new();
    hub.publish("other", "x").await;
    http2::until(other.body_mut(), &mut read, "data: x\n\n").await;
    assert_eq!(client.get("/healthz").await.status(), 200);
    drop(unread);
    hub.stop().await;
}
