//! What a socket asks for is done, and answered, in the order in which it asks, whatever carries it.

use super::{Clients, KINDS, TestServer, packets::Packets};
use serde_json::{Value, json};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// The data of all events of a topic, in the order of the log.
async fn stored(hub: &TestServer, topic: &str) -> Vec<u32> {
    let path = format!("/topics/{topic}?format=json&since=earliest&limit=1000");
    let page = hub.get(&path, &[]).await.json();
    let events = page["events"].as_array().expect("events");
    let data = events.iter().map(|event| event["data"].as_str());
    data.map(|data| data.unwrap().parse().unwrap()).collect()
}

/// Packets that publish numbers, acknowledged under the same.
fn publishes(numbers: Range<u32>) -> Vec<String> {
    let packet = |n: u32| format!("42{n}{}", json!(["publish", {"topic": "a", "data": n}]));
    numbers.map(packet).collect()
}

/// The path of a session by polling that is connected.
async fn begin_polling(hub: &TestServer) -> String {
    let open = hub.get(POLLING, &[]).await;
    let open: Value = serde_json::from_str(&open.body[1..]).unwrap();
    let path = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap());
    assert_eq!(hub.post(&path, &[], "40").await.status, 200);
    let mut connected = Vec::new();
    while connected.is_empty() {
        // The first may be a ping alone.
        connected = poll(hub, &path).await.expect("packets");
    }
    assert!(connected[0].starts_with("40{"), "{connected:?}");
    path
}

/// What a session by polling has for its client; `None` at its end.
async fn poll(hub: &TestServer, path: &str) -> Option<Vec<String>> {
    let polled = hub.get(path, &[]).await;
    if polled.status != 200 {
        return None;
    }
    let (pings, packets): (Vec<_>, Vec<_>) = polled
        .body
        .split('\u{1e}')
        .map(str::to_owned)
        .partition(|packet| packet == "2");
    if !pings.is_empty() {
        hub.post(path, &[], "3").await;
    }
    Some(packets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clients_publishes_are_stored_in_their_order() {
    let (hub, mut clients) = (TestServer::start().await, Clients::node().await);
    for (n, kind) in KINDS.into_iter().enumerate() {
        let (name, topic) = (&format!("client {n}"), format!("topic/{n}"));
        // What it sends while it changes its transport included.
        clients.begin(name, &hub.url(""), kind, None);
        clients.connected(name).await;
        let calls: Vec<u64> = (0..300)
            .map(|n| clients.send(name, &json!(["publish", {"topic": topic, "data": n}])))
            .collect();
        for call in calls {
            let answer = clients.answer(name, call).await;
            assert!(answer["ok"].is_object(), "{kind:?}: {answer}");
        }
        let expected: Vec<u32> = (0..300).collect();
        assert_eq!(stored(&hub, &topic).await, expected, "{kind:?}");
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_in_the_order_of_the_requests() {
    let hub = TestServer::start().await;
    let mut socket = Packets::connected(&hub).await;
    for (n, packet) in publishes(0..600).into_iter().enumerate() {
        socket.send(packet).await;
        // Whatever is wrong waits for its turn, too.
        match n % 100 {
            98 => socket.send(r#"421000["publish",{}]"#).await,
            99 => socket.send(r#"421001["greet"]"#).await,
            _ => {}
        }
    }
    for n in 0..600 {
        assert!(socket.answer(n).await["ok"].is_object());
        match n % 100 {
            98 => assert!(socket.answer(1_000).await["error"].is_object()),
            99 => assert!(socket.answer(1_001).await["error"].is_object()),
            _ => {}
        }
    }
    assert_eq!(stored(&hub, "a").await, Vec::from_iter(0..600));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_ends_a_subscription_at_once_has_none() {
    let hub = TestServer::start().await;
    let mut socket = Packets::connected(&hub).await;
    for n in 0..100 {
        let subscribe = json!(["subscribe", "a", {"sub": "s", "since": "earliest"}]);
        socket.send(format!("42{}{subscribe}", 2 * n)).await;
        socket
            .send(format!("42{}[\"unsubscribe\",\"s\"]", 2 * n + 1))
            .await;
    }
    for n in 0..200 {
        let answer = socket.answer(n).await;
        assert_eq!(answer["ok"]["sub"], "s", "{n}: {answer}");
    }
    socket
        .send(r#"42200["subscribe","a",{"sub":"last"}]"#)
        .await;
    assert_eq!(socket.answer(200).await["ok"]["sub"], "last");
    hub.publish("a", "x").await;
    let event = socket.event().await;
    assert_eq!((&event[0], &event[2]), (&json!("event"), &json!("last")));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_begins_between_what_was_published_before_and_after_it() {
    let hub = TestServer::start().await;
    let mut socket = Packets::connected(&hub).await;
    for round in 0..50 {
        let sub = round.to_string();
        for packet in [
            json!(["publish", {"topic": "a", "data": format!("before {sub}")}]),
            json!(["subscribe", "a", {"sub": sub, "tail": 1}]),
            json!(["publish", {"topic": "a", "data": format!("after {sub}")}]),
        ] {
            socket.send(format!("42{packet}")).await;
        }
        let told = socket.event().await;
        assert_eq!((&told[0], &told[2]), (&json!("subscribed"), &json!(sub)));
        let mut last = Value::Null;
        for when in ["before", "after"] {
            let event = socket.event().await;
            let data = json!(format!("{when} {sub}"));
            assert_eq!((&event[1]["data"], &event[2]), (&data, &json!(sub)));
            last = event[1]["id"].clone();
        }
        socket.send(format!("421[\"unsubscribe\",\"{sub}\"]")).await;
        assert_eq!(socket.answer(1).await["ok"]["cursor"], last);
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_stored_whether_or_not_the_client_takes_the_answers() {
    let hub = TestServer::start().await;
    let polling = begin_polling(&hub).await;
    let many = publishes(0..300).join("\u{1e}");
    assert_eq!(hub.post(&polling, &[], many).await.status, 200);
    let begun = Instant::now();
    while stored(&hub, "a").await.len() < 300 {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(stored(&hub, "a").await, Vec::from_iter(0..300));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_in_its_turn() {
    let hub = TestServer::with(|config| config.publish.batch_bytes_max = 64 << 10).await;
    let polling = begin_polling(&hub).await;
    // At once, so that most of them find those before still under way.
    let many = publishes(0..3_000).join("\u{1e}");
    assert_eq!(hub.post(&polling, &[], many).await.status, 200);
    let (mut answered, mut expected) = (0, Vec::new());
    while answered < 3_000 {
        for packet in poll(&hub, &polling).await.expect("packets") {
            let answer = packet.strip_prefix(&format!("43{answered}["));
            let answer = answer.unwrap_or_else(|| panic!("{packet:?} for {answered}"));
            match answer.contains(r#""status":429"#) {
                true => assert!(answer.contains("too-many-requests"), "{answer}"),
                false => expected.push(answered),
            }
            answered += 1;
        }
    }
    assert!((1..3_000).contains(&expected.len()), "{}", expected.len());
    assert_eq!(stored(&hub, "a").await, expected);

    // More than that, of a client that takes no answers, is its end.
    let many = publishes(0..6_000).join("\u{1e}");
    hub.post(&polling, &[], many).await;
    while let Some(packets) = poll(&hub, &polling).await
        && !packets.contains(&"41".to_owned())
    {}
    hub.stop().await;
}
