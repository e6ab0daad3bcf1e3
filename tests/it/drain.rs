//! Going down: every stream is told when to come back, and the hub ends in time whatever its readers do.

use crate::support::{
    server::TestServer,
    stream::{DEADLINE, Stream},
};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

#[tokio::test]
async fn streams_end_with_a_time_to_come_back() {
    let hub = TestServer::start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = hub.subscribe("/topics/a").await;
        stream.until(": tidings\n").await;
        streams.push(stream);
    }
    let begun = Instant::now();
    hub.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let mut times = std::collections::HashSet::new();
    for stream in &mut streams {
        assert!(stream.rest().await.is_empty());
        let (_, last) = stream
            .text
            .trim_end()
            .rsplit_once("\nretry: ")
            .expect("a last retry");
        let retry: u64 = last.parse().unwrap();
        assert!((1_000..=10_000).contains(&retry), "{retry}");
        times.insert(retry);
    }
    assert!(times.len() > 10, "jitter");
}

#[tokio::test]
async fn a_stalled_reader_does_not_hold_up_the_end() {
    let hub =
        TestServer::with(|config| config.server.drain_timeout = Duration::from_millis(500)).await;
    let mut stalled = hub.subscribe("/topics/a?open=1").await;
    assert_eq!(stalled.next().await.event, "tidings.open");
    for _ in 0..20 {
        hub.publish("a", "x".repeat(900_000)).await;
    }
    let begun = Instant::now();
    hub.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn while_draining_streams_are_turned_away_in_words_and_the_rest_gets_503() {
    let hub =
        TestServer::with(|config| config.server.drain_timeout = Duration::from_secs(20)).await;
    // An upload under way keeps the hub from ending while the test looks around.
    let mut upload = hub.connect().await;
    let head = format!(
        "POST /topics/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\n12",
        hub.address
    );
    tokio::io::AsyncWriteExt::write_all(&mut upload, head.as_bytes())
        .await
        .unwrap();
    assert_eq!(hub.get("/readyz", &[]).await.status, 200);
    hub.server.shutdown();
    let ready = hub.get("/readyz", &[]).await;
    assert_eq!((ready.status, ready.problem().as_str()), (503, "draining"));
    assert!(ready.header("retry-after").is_some());
    assert_eq!(hub.get("/healthz", &[]).await.status, 200);
    let mut stream = hub.subscribe("/topics/a").await;
    assert_eq!(stream.status(), 200);
    let close = stream.next().await;
    assert_eq!(
        (close.event.as_str(), close.data.as_str()),
        ("tidings.close", r#"{"reason":"draining"}"#)
    );
    assert!(stream.text.starts_with("retry: "), "{:?}", stream.text);
    assert!(stream.message().await.is_none());
    // A publish under way finishes.
    tokio::io::AsyncWriteExt::write_all(&mut upload, b"345")
        .await
        .unwrap();
    let answer = Stream::on(upload).await;
    assert_eq!(answer.status(), 201);
    hub.stop().await;
}

#[tokio::test]
async fn who_connected_right_before_is_told_like_who_comes_after() {
    let hub = TestServer::start().await;
    let (mut early, idle) = (hub.connect().await, hub.connect().await);
    // They are accepted one after the other.
    assert_eq!(hub.get("/healthz", &[]).await.status, 200);
    hub.server.shutdown();
    assert_eq!(hub.get("/readyz", &[]).await.status, 503); // whereupon all tasks have seen it
    let request = b"GET /topics/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    early.write_all(request).await.unwrap();
    let mut told = String::new();
    let reading = early.read_to_string(&mut told);
    timeout(DEADLINE, reading).await.unwrap().unwrap();
    assert!(
        told.contains("event: tidings.close") && told.contains("draining"),
        "{told}"
    );
    // One that asks for nothing holds up nobody for long.
    let begun = Instant::now();
    hub.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(idle);
}
