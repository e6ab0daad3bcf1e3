//! The end: a hub that goes down says when to come back, and one whose clients are gone finds out.

use crate::support::{
    server::TestServer,
    stream::DEADLINE,
    wait::{in_time, wait_until},
    ws::Socket,
};
use futures_util::StreamExt;
use serde_json::json;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_drain_closes_with_a_time_to_come_back_after_publishes_are_answered() {
    const COUNT: usize = 20;
    let hub = TestServer::durable().await;
    let mut sockets = Vec::new();
    for _ in 0..COUNT {
        let mut socket = Socket::open(&hub, "/ws?topic=a").await;
        socket.next().await;
        sockets.push(socket);
    }
    let mut publisher = Socket::open(&hub, "/ws").await;
    for n in 0..COUNT {
        publisher
            .send(json!({ "ref": n.to_string(), "publish": { "topic": "a", "data": "x" } }))
            .await;
    }
    // What is answered later was under way when the drain began.
    let mut answered = 1;
    publisher.next().await;
    let begun = Instant::now();
    let (_, ()) = tokio::join!(hub.stop(), async {
        let (before, code, _) = publisher.closed().await;
        assert_eq!(code, 1012);
        answered += before.len();
        assert!(
            before.iter().all(|told| told["published"].is_object()),
            "{before:?}"
        );
        drop(publisher);
        let mut times = HashSet::new();
        for mut socket in sockets {
            let (before, code, reason) = socket.closed().await;
            assert!(
                before.iter().all(|told| told["events"].is_array()),
                "{before:?}"
            );
            assert_eq!(code, 1012);
            let retry: u64 = reason.strip_prefix("retry=").unwrap().parse().unwrap();
            assert!((1_000..=10_000).contains(&retry), "{retry}");
            times.insert(retry);
        }
        assert!(times.len() > 5, "jitter");
    });
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert!(answered >= 1);
}

#[tokio::test]
async fn a_client_that_does_not_answer_does_not_hold_up_the_end() {
    let hub =
        TestServer::with(|config| config.server.drain_timeout = Duration::from_millis(500)).await;
    let mut silent = Socket::open(&hub, "/ws?topic=a").await;
    silent.next().await;
    let mut stalled = Socket::open(&hub, "/ws?topic=b").await;
    stalled.next().await;
    for _ in 0..20 {
        hub.publish("b", "x".repeat(900_000)).await;
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
async fn whoever_comes_during_a_drain_gets_503() {
    let hub =
        TestServer::with(|config| config.server.drain_timeout = Duration::from_secs(20)).await;
    // An upload under way keeps the hub from ending while the test looks around.
    let mut upload = hub.connect().await;
    let head = format!(
        "POST /topics/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\n12",
        hub.address
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(hub.get("/readyz", &[]).await.status, 200);
    hub.server.shutdown();
    let refused = Socket::try_open(&hub, "/ws?topic=a", &[])
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (503, "draining")
    );
    assert!(refused.header("retry-after").is_some());
    drop(upload);
    hub.stop().await;
}

#[tokio::test]
async fn a_full_hub_turns_away_and_has_room_again_when_one_ends() {
    let hub = TestServer::with(|config| config.server.connections_max = 2).await;
    let mut one = Socket::open(&hub, "/ws?topic=a").await;
    one.next().await;
    let mut two = Socket::open(&hub, "/ws?topic=b").await;
    two.next().await;
    let refused = Socket::try_open(&hub, "/ws?topic=a", &[])
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (503, "overloaded")
    );
    drop(one);
    wait_until("its place is free", || hub.server.hub().feeds() == 1).await;
    // The place is given back a moment after the feed.
    let opened = async {
        loop {
            if let Ok(socket) = Socket::try_open(&hub, "/ws?topic=a", &[]).await {
                return socket;
            }
            tokio::task::yield_now().await;
        }
    };
    let _opened = in_time(DEADLINE, "a place", opened).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_is_silent_is_asked_and_then_closed() {
    let hub =
        TestServer::with(|config| config.subscribe.keepalive = Duration::from_millis(200)).await;
    // This one never reads, and so never answers a ping.
    let mut mute = Socket::open(&hub, "/ws?topic=mute").await;
    let mut alive = Socket::open(&hub, "/ws?topic=alive").await;
    alive.next().await;
    // It answers each as it reads the next, and lives for longer than it would without.
    for _ in 0..6 {
        let ping = timeout(DEADLINE, alive.inner.next())
            .await
            .expect("a ping in time");
        assert!(matches!(ping, Some(Ok(Message::Ping(_)))), "{ping:?}");
    }
    wait_until("the mute one is closed", || hub.server.hub().feeds() == 1).await;
    hub.publish("alive", "still there").await;
    assert_eq!(alive.data("url", 1).await, ["still there"]);
    assert!(mute.next().await["subscribed"].is_object());
    mute.closes_with(1001, "idle").await;
    hub.stop().await;
}
