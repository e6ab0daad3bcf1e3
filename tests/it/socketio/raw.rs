//! Socket.IO byte by byte: whom it refuses, and what no client library asks.

use super::TestServer;
use crate::support::{server::Answer, stream::DEADLINE, wait::in_time};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

const OPEN: &str = "/socket.io/?EIO=4&transport=polling";
const UPGRADE: &[(&str, &str)] = &[
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn sid(hub: &TestServer) -> String {
    let open = hub.get(OPEN, &[]).await;
    assert_eq!(open.status, 200);
    let open: serde_json::Value = serde_json::from_str(&open.body[1..]).unwrap();
    open["sid"].as_str().unwrap().to_owned()
}

async fn websocket(hub: &TestServer, path: &str, more: &[(&str, &str)]) -> (u16, TcpStream) {
    let mut tcp = hub.connect().await;
    let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", hub.address);
    for (name, value) in UPGRADE.iter().chain(more) {
        head += &format!("{name}: {value}\r\n");
    }
    tcp.write_all(format!("{head}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    in_time(DEADLINE, "a head", async {
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            let count = tcp.read_buf(&mut answer).await.unwrap();
            assert!(count > 0, "{answer:?}");
        }
    })
    .await;
    (Answer::parse(&answer).status, tcp)
}

#[tokio::test]
async fn a_foreign_origin_is_refused_before_any_handshake() {
    let hub = TestServer::with(|config| {
        config.server.origins = vec!["https://app.example.com".to_owned()];
    })
    .await;
    let sid = sid(&hub).await;
    let with_sid = format!("{OPEN}&sid={sid}");
    let ws = "/socket.io/?EIO=4&transport=websocket";
    for origin in ["https://evil.example", "null", "http://app.example.com"] {
        let origin = &[("Origin", origin)];
        for path in [
            OPEN,
            "/socket.io?EIO=3&transport=polling",
            &with_sid,
            "/socket.io/",
        ] {
            let answer = hub.get(path, origin).await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (403, "origin-refused"),
                "{path}"
            );
            let answer = hub.post(path, origin, "40").await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (403, "origin-refused"),
                "{path}"
            );
        }
        for path in [ws, &format!("{ws}&sid={sid}")] {
            assert_eq!(websocket(&hub, path, origin).await.0, 403, "{path}");
        }
    }
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let origin = &[("Origin", origin)];
        let answer = hub.get(OPEN, origin).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(origin[0].1)
        );
        assert_eq!(websocket(&hub, ws, origin).await.0, 101);
    }
    hub.stop().await;
}

#[tokio::test]
async fn what_is_no_request_of_a_client_is_refused() {
    let hub = TestServer::with(|config| config.publish.event_bytes_max = 1_000).await;
    let ws = "/socket.io/?EIO=4&transport=websocket";
    let (key, version, upgrade) = (UPGRADE[3], UPGRADE[2], UPGRADE[0]);
    for headers in [&[key][..], &[key, version], &[key, version, upgrade], &[]] {
        let answer = hub.get(ws, headers).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "header-invalid"),
            "{headers:?}"
        );
    }
    for path in [
        "/socket.io/",
        "/socket.io/?EIO=2&transport=polling",
        "/socket.io/?EIO=4&transport=x",
    ] {
        assert_eq!(hub.get(path, &[]).await.status, 400, "{path}");
    }
    for path in ["/socket.io/x", "/socket.iox"] {
        assert_eq!(hub.get(path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(hub.post(OPEN, &[], "40").await.status, 400);
    let with_sid = format!("{OPEN}&sid={}", sid(&hub).await);
    let large = hub.post(&with_sid, &[], "4".repeat(30_000)).await;
    assert_eq!((large.status, large.problem().as_str()), (413, "too-large"));
    assert_eq!(hub.post(&with_sid, &[], "40").await.status, 200);
    hub.stop().await;
}

#[tokio::test]
async fn a_websocket_keeps_its_place_among_the_connections() {
    let hub = TestServer::with(|config| config.server.connections_max = 2).await;
    let ws = "/socket.io/?EIO=4&transport=websocket";
    let (status, one) = websocket(&hub, ws, &[]).await;
    let (status_2, two) = websocket(&hub, ws, &[]).await;
    assert_eq!((status, status_2), (101, 101));
    let full = hub.get(OPEN, &[]).await;
    assert_eq!((full.status, full.problem().as_str()), (503, "overloaded"));
    drop((one, two));
    let mut answer = hub.get(OPEN, &[]).await;
    let begun = tokio::time::Instant::now();
    while answer.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(30));
        answer = hub.get(OPEN, &[]).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_session_that_says_nothing_does_not_hold_up_the_end() {
    let hub =
        TestServer::with(|config| config.server.drain_timeout = Duration::from_millis(500)).await;
    let ws = "/socket.io/?EIO=4&transport=websocket";
    let (_, mut silent) = websocket(&hub, ws, &[]).await;
    let with_sid = format!("{OPEN}&sid={}", sid(&hub).await);
    let begun = tokio::time::Instant::now();
    let mut polling = hub.connect().await;
    let poll = format!("GET {with_sid} HTTP/1.1\r\nHost: {}\r\n\r\n", hub.address);
    polling.write_all(poll.as_bytes()).await.unwrap();
    hub.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(5), silent.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the socket is closed");
}
