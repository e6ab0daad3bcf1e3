//! Coming back: nothing is missing, nothing comes twice, and what is gone is told.

use crate::support::{
    server::{TestServer, keep},
    ws::Socket,
};
use serde_json::json;

#[tokio::test]
async fn over_reconnects_while_others_publish_nothing_is_lost_and_nothing_comes_twice() {
    const COUNT: usize = 3_000;
    let hub = TestServer::start().await;
    let publish = async {
        let mut socket = Socket::open(&hub, "/ws").await;
        for n in 0..COUNT {
            let event = json!({ "topic": "a", "data": n.to_string() });
            socket.send(json!({ "publish": event })).await;
            if n % 50 == 49 {
                for _ in 0..50 {
                    assert!(socket.next().await["published"].is_object());
                }
            }
        }
    };
    let read = async {
        let mut socket = Socket::open(&hub, "/ws?topic=a").await;
        let mut last = socket.next().await["subscribed"]["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
        let (mut seen, mut connections) = (0, 1);
        while seen < COUNT {
            for event in socket.events("url").await {
                assert_eq!(event["data"], seen.to_string());
                seen += 1;
                event["id"].as_str().unwrap().clone_into(&mut last);
            }
            if seen / 100 >= connections {
                connections += 1;
                // By turns in the URL and in a message.
                socket = match connections % 2 {
                    0 => Socket::open(&hub, &format!("/ws?topic=a&last_event_id={last}")).await,
                    _ => Socket::open(&hub, "/ws").await,
                };
                if connections % 2 == 1 {
                    let asked = json!({ "sub": "url", "topics": ["a"], "last_event_id": last });
                    socket.send(json!({ "subscribe": asked })).await;
                }
                let told = socket.next().await;
                assert_eq!(told["subscribed"]["cursor"], last, "{told}");
            }
        }
        connections
    };
    let (connections, ()) = tokio::join!(read, publish);
    assert!(connections > 5, "{connections}");
    hub.stop().await;
}

#[tokio::test]
async fn each_subscription_is_told_of_its_own_gap_before_it_begins() {
    let hub = TestServer::with(|config| config.log.retention = vec![keep("**", 5)]).await;
    let quiet = hub.publish("quiet", "q").await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(hub.publish("busy", n.to_string()).await);
    }
    let mut socket = Socket::open(&hub, &format!("/ws?topic=quiet&after={quiet}")).await;
    assert_eq!(
        socket.next().await,
        json!({ "sub": "url", "subscribed": { "cursor": quiet } })
    );
    let asked = json!({ "sub": "b", "topics": ["busy"], "last_event_id": ids[3] });
    socket.send(json!({ "subscribe": asked })).await;
    assert_eq!(
        socket.next().await,
        json!({ "sub": "b", "subscribed": { "cursor": ids[3] } })
    );
    let gap = socket.next().await;
    assert_eq!(
        (&gap["sub"], &gap["gap"]["reason"]),
        (&json!("b"), &json!("expired")),
        "{gap}"
    );
    assert_eq!(gap["gap"]["oldest"], ids[15]);
    assert_eq!(socket.data("b", 5).await, ["15", "16", "17", "18", "19"]);
    // What the start itself shows to be gone comes first.
    let asked = json!({ "sub": "c", "topics": ["busy"], "last_event_id": "nobody knows" });
    socket.send(json!({ "subscribe": asked })).await;
    let gap = socket.next().await;
    assert_eq!(
        (&gap["sub"], &gap["gap"]["reason"]),
        (&json!("c"), &json!("unknown")),
        "{gap}"
    );
    assert_eq!(gap["gap"]["requested"], "nobody knows");
    assert!(socket.next().await["subscribed"].is_object());
    assert_eq!(socket.data("c", 5).await.len(), 5);
    hub.stop().await;
}

#[tokio::test]
async fn starts_are_those_of_the_other_transports() {
    let hub = TestServer::start().await;
    for n in 0..5 {
        hub.publish("a", n.to_string()).await;
    }
    for (start, expected) in [
        (json!({ "tail": 2 }), &["3", "4"][..]),
        (json!({ "since": "earliest" }), &["0", "1", "2", "3", "4"]),
        (json!({ "since": "1h" }), &["0", "1", "2", "3", "4"]),
        (json!({ "last_event_id": "", "tail": 1 }), &["4"]),
    ] {
        let mut asked = json!({ "sub": "s", "topics": ["a"] });
        asked
            .as_object_mut()
            .unwrap()
            .extend(start.as_object().unwrap().clone());
        let mut socket = Socket::open(&hub, "/ws").await;
        socket.send(json!({ "subscribe": asked })).await;
        assert!(socket.next().await["subscribed"].is_object(), "{start}");
        assert_eq!(socket.data("s", expected.len()).await, expected, "{start}");
    }
    let mut socket = Socket::open(&hub, "/ws?topic=a&tail=1").await;
    socket.next().await;
    assert_eq!(socket.data("url", 1).await, ["4"]);
    let header = [("Last-Event-ID", "nobody knows")];
    let mut socket = Socket::try_open(&hub, "/ws?topic=a", &header)
        .await
        .unwrap();
    assert_eq!(socket.next().await["gap"]["reason"], "unknown");
    hub.stop().await;
}
