//! The same over HTTP/2, by extended CONNECT.

use crate::support::{
    http2::Client,
    server::TestServer,
    stream::DEADLINE,
    wait::{in_time, wait_until},
    witness::Witness,
    ws::Socket,
};
use http_body_util::BodyExt;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn several_share_a_connection_with_requests() {
    let hub = TestServer::start().await;
    let mut client = Client::connect(&hub).await;
    let mut one = Socket::over_http2(&mut client, "/ws?topic=a").await;
    let mut two = Socket::over_http2(&mut client, "/ws").await;
    assert!(one.next().await["subscribed"].is_object());
    two.subscribe("x", &["a"]).await;
    two.send(json!({ "ref": "1", "publish": { "topic": "a", "data": "hello" } }))
        .await;
    let (mut answered, mut got) = (false, false);
    while !(answered && got) {
        let told = two.next().await;
        answered |= told["published"].is_object();
        got |= told["events"][0]["data"] == "hello";
    }
    assert_eq!(one.data("url", 1).await, ["hello"]);
    // More than a stream's window, which is 64 KiB at first.
    let large = "x".repeat(900_000);
    hub.publish("a", large.as_str()).await;
    assert_eq!(one.data("url", 1).await, [large.as_str()]);
    assert_eq!(two.data("x", 1).await, [large]);
    two.send_raw(tokio_tungstenite::tungstenite::Message::Binary(
        vec![1].into(),
    ))
    .await;
    two.closes_with(1003, "messages are text").await;
    assert_eq!(client.get("/healthz").await.status(), 200);
    hub.publish("a", "still there").await;
    assert_eq!(one.data("url", 1).await, ["still there"]);
    drop(one);
    wait_until("both are gone", || hub.server.hub().feeds() == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_so_in_words() {
    let mut hub = Witness::start().await;
    let mut client = Client::connect(&hub).await;
    for (path, headers, status, kind) in [
        (
            "/ws",
            &[("origin", "https://evil.example")][..],
            403,
            "origin-refused",
        ),
        ("/ws?topic=a/**/b", &[], 400, "filter-invalid"),
        (
            "/ws",
            &[("sec-websocket-protocol", "x")],
            400,
            "header-invalid",
        ),
        ("/topics/a", &[], 405, "method-not-allowed"),
    ] {
        let answer = client.connect_socket(path, headers).await;
        assert_eq!(answer.status(), status, "{path}");
        let body = in_time(DEADLINE, "a body", answer.into_body().collect());
        let body = body.await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{path}");
    }
    assert_eq!(client.get("/ws").await.status(), 426);
    hub.unharmed("refused").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_drain_closes_them_with_a_time_to_come_back() {
    let hub = TestServer::start().await;
    let mut client = Client::connect(&hub).await;
    let mut socket = Socket::over_http2(&mut client, "/ws?topic=a").await;
    socket.next().await;
    let (stopped, closed) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(8), hub.stop()),
        async {
            let closed = socket.closed().await;
            drop(socket);
            closed
        }
    );
    let (before, code, reason) = closed;
    assert_eq!((before.len(), code), (0, 1012));
    assert!(reason.starts_with("retry="), "{reason}");
    stopped.expect("the drain waits for no more");
}

#[tokio::test]
async fn one_that_takes_nothing_is_closed_after_the_write_timeout() {
    let hub =
        TestServer::with(|config| config.server.write_timeout = Duration::from_millis(300)).await;
    let mut client = Client::connect(&hub).await;
    let mut socket = Socket::over_http2(&mut client, "/ws?topic=a").await;
    socket.next().await;
    for _ in 0..8 {
        hub.publish("a", "x".repeat(200_000)).await;
    }
    // Nothing is read from its stream, so its window fills.
    wait_until("it is gone", || hub.server.hub().feeds() == 0).await;
    assert_eq!(client.get("/healthz").await.status(), 200);
    drop(socket);
    hub.stop().await;
}
