//! Subscribing and publishing.

use crate::support::{server::TestServer, wait::wait_until, ws::Socket};
use serde_json::json;

#[tokio::test]
async fn topics_in_the_url_need_no_message() {
    let hub = TestServer::start().await;
    let first = hub.publish("a", "before").await;
    let mut socket = Socket::open(&hub, "/ws?topic=a&topic=b/*").await;
    assert_eq!(
        socket.next().await,
        json!({ "sub": "url", "subscribed": { "cursor": first } })
    );
    let id = hub.publish("b/c", "hello").await;
    hub.publish("c", "not this").await;
    let events = socket.events("url").await;
    assert_eq!(events.len(), 1);
    let time = &events[0]["time"];
    assert!(
        time.as_str().is_some_and(|time| time.ends_with('Z')),
        "{time}"
    );
    let expected = json!({ "topic": "b/c", "id": id, "own_id": null, "event": null, "time": time, "data": "hello" });
    assert_eq!(events[0], expected);
    hub.stop().await;
}

#[tokio::test]
async fn subscriptions_come_and_go_and_each_has_its_own_events() {
    let hub = TestServer::start().await;
    let mut socket = Socket::open(&hub, "/ws").await;
    socket.subscribe("one", &["a", "b"]).await;
    let cursor = socket.subscribe("two", &["b", "c/**"]).await;
    let id = hub.publish("b", "both").await;
    // An event that matches both comes once for each.
    let mut subs = Vec::new();
    for _ in 0..2 {
        let told = socket.next().await;
        let events = told["events"].as_array().unwrap();
        assert_eq!((events.len(), &events[0]["id"]), (1, &json!(id)), "{told}");
        subs.push(told["sub"].as_str().unwrap().to_owned());
    }
    subs.sort_unstable();
    assert_eq!(subs, ["one", "two"]);
    hub.publish("a", "for one").await;
    assert_eq!(socket.data("one", 1).await, ["for one"]);
    hub.publish("c/d", "for two").await;
    assert_eq!(socket.data("two", 1).await, ["for two"]);

    socket
        .send(json!({ "unsubscribe": { "sub": "one" } }))
        .await;
    let closed = json!({ "sub": "one", "closed": { "reason": "unsubscribed" } });
    assert_eq!(socket.next().await, closed);
    assert_eq!(hub.server.hub().feeds(), 1);
    hub.publish("b", "for two only").await;
    assert_eq!(socket.data("two", 1).await, ["for two only"]);
    // The name is free again, with another filter and a start of its own.
    let again = json!({ "sub": "one", "topics": ["b"], "last_event_id": cursor });
    socket.send(json!({ "subscribe": again })).await;
    assert_eq!(
        socket.next().await,
        json!({ "sub": "one", "subscribed": { "cursor": cursor } })
    );
    assert_eq!(socket.data("one", 2).await, ["both", "for two only"]);
    drop(socket);
    wait_until("its feeds are gone", || hub.server.hub().feeds() == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_publish_is_answered_by_its_ref() {
    let hub = TestServer::start().await;
    let mut socket = Socket::open(&hub, "/ws").await;
    let event = json!({ "topic": "a", "data": { "n": 1 }, "event": "x", "own_id": "o", "idempotency_key": "k" });
    socket.send(json!({ "ref": "1", "publish": event })).await;
    let told = socket.next().await;
    let published = &told["published"];
    assert_eq!(
        (&told["ref"], &published["topic"]),
        (&json!("1"), &json!("a")),
        "{told}"
    );
    assert_eq!(published["duplicate"], false);
    let id = published["id"].as_str().unwrap();
    socket.send(json!({ "publish": event })).await;
    let again = json!({ "published": { "id": id, "topic": "a", "duplicate": true } });
    assert_eq!(socket.next().await, again);

    let other = json!({ "topic": "a", "data": "other", "idempotency_key": "k" });
    socket.send(json!({ "ref": "3", "publish": other })).await;
    let told = socket.next().await;
    assert_eq!(
        (&told["ref"], &told["error"]["status"]),
        (&json!("3"), &json!(422))
    );
    assert_eq!(told["error"]["type"], "/problems/idempotency-conflict");
    assert!(
        told["message"].as_str().unwrap().contains("other"),
        "{told}"
    );

    let mut stream = hub.subscribe("/topics/a?since=earliest").await;
    let message = stream.next().await;
    assert_eq!(
        (
            message.id.as_str(),
            message.event.as_str(),
            message.data.as_str()
        ),
        (id, "x", r#"{"n":1}"#)
    );
    hub.stop().await;
}

#[tokio::test]
async fn many_publishes_at_once_are_all_answered_and_stored_in_order() {
    const COUNT: usize = 1_000;
    let hub = TestServer::durable().await;
    let mut socket = Socket::open(&hub, "/ws").await;
    for n in 0..COUNT {
        let event = json!({ "topic": "a", "data": n.to_string() });
        socket
            .send(json!({ "ref": n.to_string(), "publish": event }))
            .await;
    }
    for n in 0..COUNT {
        let told = socket.next().await;
        assert!(told["published"]["id"].is_string(), "{told}");
        assert_eq!(told["ref"], n.to_string());
    }
    let mut stream = hub.subscribe("/topics/a?since=earliest").await;
    for (n, data) in stream.data(COUNT).await.iter().enumerate() {
        assert_eq!(*data, n.to_string());
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_frame_of_any_size_comes_whole() {
    let hub = TestServer::start().await;
    let mut socket = Socket::open(&hub, "/ws?topic=a").await;
    socket.next().await;
    // Around the lengths at which a frame's head grows, and more than a socket takes at once.
    for size in [
        0, 1, 10, 60_000, 65_000, 65_300, 65_400, 65_500, 66_000, 900_000,
    ] {
        let data = "é\"\n".repeat(size / 4);
        hub.publish("a", data.as_str()).await;
        assert_eq!(socket.data("url", 1).await, [data], "{size}");
    }
    hub.stop().await;
}
