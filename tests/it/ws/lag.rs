//! A client that stops reading: the policies of its subscriptions, and that nobody waits for it.

use crate::support::{
    server::{TestServer, hub_for_slow_readers},
    stream::Stream,
    wait::wait_until,
    ws::Socket,
};
use serde_json::{Value, json};
use std::time::Duration;

const DATA: usize = 4_000;
const COUNT: usize = 4_000;

/// Publishes events `0..COUNT` while a brisk reader takes each, which shows that nobody waits for the slow one.
async fn publish(hub: &TestServer, topics: &[&str], brisk: &mut Stream) {
    for start in (0..COUNT).step_by(100) {
        let mut lines = String::new();
        for n in start..start + 100 {
            for topic in topics {
                let data = format!("{n} {}", "x".repeat(DATA));
                lines += &format!("{}\n", json!({ "topic": topic, "data": data }));
            }
        }
        let kind = [("Content-Type", "application/x-ndjson")];
        let answer = hub.post("/publish?results=errors", &kind, lines).await;
        assert_eq!(answer.json()["summary"]["refused"], 0);
        brisk.data(100).await;
    }
}

fn number(event: &Value) -> usize {
    let data = event["data"].as_str().unwrap();
    data.split(' ').next().unwrap().parse().unwrap()
}

async fn brisk(hub: &TestServer) -> Stream {
    let mut stream = hub.subscribe("/topics/a?open=1").await;
    assert_eq!(stream.next().await.event, "tidings.open");
    stream
}

#[tokio::test]
async fn it_gets_everything_that_is_kept() {
    let hub = hub_for_slow_readers(100_000).await;
    let mut brisk = brisk(&hub).await;
    let mut slow = Socket::open(&hub, "/ws").await;
    slow.subscribe("one", &["a"]).await;
    slow.subscribe("two", &["b"]).await;
    publish(&hub, &["a", "b"], &mut brisk).await;
    let (mut one, mut two) = (0, 0);
    while one + two < 2 * COUNT {
        let told = slow.next().await;
        let next = match told["sub"].as_str() {
            Some("one") => &mut one,
            _ => &mut two,
        };
        for event in told["events"].as_array().unwrap() {
            assert_eq!(number(event), *next, "{}", told["sub"]);
            *next += 1;
        }
    }
    assert_eq!((one, two), (COUNT, COUNT));
    hub.stop().await;
}

#[tokio::test]
async fn each_subscription_has_its_own_policy() {
    let hub = hub_for_slow_readers(500).await;
    let mut brisk = brisk(&hub).await;
    let mut slow = Socket::open(&hub, "/ws").await;
    for lag in ["gap", "disconnect", "latest"] {
        let asked = json!({ "sub": lag, "topics": ["a"], "lag": lag });
        slow.send(json!({ "subscribe": asked })).await;
        assert!(slow.next().await["subscribed"].is_object());
    }
    publish(&hub, &["a"], &mut brisk).await;
    let (mut next, mut gaps) = ([0; 3], [0; 3]);
    let mut closed = false;
    while next[0] < COUNT || next[2] < COUNT || !closed {
        let told = slow.next().await;
        let of = ["gap", "disconnect", "latest"]
            .iter()
            .position(|sub| told["sub"] == *sub)
            .unwrap();
        if told["gap"].is_object() {
            assert_eq!(told["gap"]["reason"], "lagged", "{told}");
            gaps[of] += 1;
            next[of] = 0;
        } else if told["closed"].is_object() {
            assert_eq!(
                told,
                json!({ "sub": "disconnect", "closed": { "reason": "lagged" } })
            );
            closed = true;
        } else {
            for event in told["events"].as_array().unwrap() {
                let number = number(event);
                assert!(
                    next[of] == 0 || number == next[of],
                    "{number} after {next:?} without a gap"
                );
                next[of] = number + 1;
            }
        }
    }
    assert!(gaps[0] >= 1 && gaps[1] == 0 && gaps[2] >= 1, "{gaps:?}");
    // The connection goes on.
    hub.publish("c", "after").await;
    slow.subscribe("after", &["c"]).await;
    hub.stop().await;
}

#[tokio::test]
async fn the_end_of_the_urls_subscription_ends_the_connection() {
    let hub = hub_for_slow_readers(500).await;
    let mut brisk = brisk(&hub).await;
    let mut slow = Socket::open(&hub, "/ws?topic=a&lag=disconnect").await;
    assert!(slow.next().await["subscribed"].is_object());
    publish(&hub, &["a"], &mut brisk).await;
    let (before, code, reason) = slow.closed().await;
    assert_eq!((code, reason.as_str()), (1008, "lagged"));
    let (last, events) = before.split_last().unwrap();
    assert_eq!(
        *last,
        json!({ "sub": "url", "closed": { "reason": "lagged" } })
    );
    assert!(!events.is_empty());
    hub.stop().await;
}

#[tokio::test]
async fn one_that_takes_nothing_is_closed_after_the_write_timeout() {
    let hub =
        TestServer::with(|config| config.server.write_timeout = Duration::from_millis(300)).await;
    let mut brisk = brisk(&hub).await;
    let mut stalled = Socket::open(&hub, "/ws?topic=a&topic=b").await;
    stalled.next().await;
    assert_eq!(hub.server.hub().feeds(), 2);
    publish(&hub, &["a"], &mut brisk).await;
    wait_until("the stalled one is closed", || {
        hub.server.hub().feeds() == 1
    })
    .await;
    drop(stalled);
    hub.stop().await;
}
