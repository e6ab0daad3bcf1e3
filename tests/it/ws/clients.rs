//! Real clients: Chromium's own WebSocket, npm `ws` and PyPI `websockets`.

use crate::support::{
    client::{Client, Library, Message},
    hub::HubProcess,
    server::TestServer,
};
use serde_json::json;

const SOON: &str = "subscribe.drain_retry_min = \"100ms\"\nsubscribe.drain_retry_max = \"200ms\"\n";

/// What a client saw up to an event, but for what it was told of its connections and publishes.
async fn events(client: &mut Client, stream: &str, last: &str) -> Vec<Message> {
    let mut seen = client.until_of(stream, last).await;
    seen.retain(|message| !matches!(message.event.as_str(), "close" | "published"));
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_publish_and_resume_over_a_drain_and_a_crash() {
    let mut hub = HubProcess::start(SOON);
    let url = format!(
        "{}/ws?topic=demo/*",
        hub.origin().replace("http://", "ws://")
    );
    let mut clients = [
        (Client::ws(&url), "", "ws"),
        (Client::websockets(&url), "", "websockets"),
        (
            Client::chromium(&hub.origin()).await,
            "chromium",
            "chromium",
        ),
    ];
    clients[2]
        .0
        .try_to_open("chromium", &url, Library::WebSocket);
    for (client, stream, _) in &mut clients {
        client.opened_of(stream).await;
    }
    let mut expected: Vec<Message> = Vec::new();
    for stop in [HubProcess::terminate, HubProcess::kill] {
        // Each publishes, one after the other, and all see it.
        for publisher in 0..clients.len() {
            let (client, stream, name) = &mut clients[publisher];
            let data = format!("by {name}, \"ä\"\n{}", expected.len());
            let event = json!({ "topic": "demo/a", "data": data });
            client.publish(stream, name, &event);
            let mut told = client.message_of(stream).await;
            let mut seen = None;
            while told.event != "published" {
                if told.event == "message" {
                    seen = Some(told);
                }
                told = client.message_of(stream).await;
            }
            assert_eq!(told.data, *name);
            expected.push(Message::new(&told.id, &data));
            if let Some(seen) = seen {
                // It came before its answer.
                assert_eq!(Some(&seen), expected.last());
                expected.pop();
                for (at, (client, stream, name)) in clients.iter_mut().enumerate() {
                    if at != publisher {
                        assert_eq!(
                            events(client, stream, &data).await,
                            [seen.clone()],
                            "{name}"
                        );
                    }
                }
            } else {
                let seen = expected.pop().unwrap();
                for (client, stream, name) in &mut clients {
                    assert_eq!(
                        events(client, stream, &data).await,
                        [seen.clone()],
                        "{name}"
                    );
                }
            }
        }
        stop(&mut hub);
        // Published before anybody can be back, however quick.
        hub.start_elsewhere();
        let id = hub.publish("demo/b", "while you were away").await;
        hub.terminate();
        hub.start_again();
        for (client, stream, name) in &mut clients {
            let seen = events(client, stream, "while you were away").await;
            assert_eq!(seen, [Message::new(&id, "while you were away")], "{name}");
        }
        expected.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_seen_as_1012_with_a_time_to_come_back() {
    let mut hub = HubProcess::start(SOON);
    let url = format!("{}/ws?topic=demo", hub.origin().replace("http://", "ws://"));
    let mut clients = [
        (Client::ws(&url), "", "ws"),
        (Client::websockets(&url), "", "websockets"),
        (
            Client::chromium(&hub.origin()).await,
            "chromium",
            "chromium",
        ),
    ];
    clients[2]
        .0
        .try_to_open("chromium", &url, Library::WebSocket);
    for (client, stream, _) in &mut clients {
        client.opened_of(stream).await;
    }
    hub.terminate();
    for (client, stream, name) in &mut clients {
        let close = client.message_of(stream).await;
        assert_eq!(
            (close.event.as_str(), close.id.as_str()),
            ("close", "1012"),
            "{name}"
        );
        let retry = close
            .data
            .strip_prefix("retry=")
            .and_then(|ms| ms.parse::<u64>().ok());
        assert!(
            retry.is_some_and(|ms| (100..=200).contains(&ms)),
            "{name}: {close:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_on_a_foreign_page_gets_no_websocket() {
    let hub = TestServer::start().await;
    let origin = format!("http://{}", hub.address);
    let url = format!("ws://{}/ws?topic=a", hub.address);
    let mut foreign = Client::chromium_as(&origin, "evil.example").await;
    foreign.try_to_open("", &url, Library::WebSocket);
    let close = foreign.message().await;
    assert_eq!(
        (close.event.as_str(), close.id.as_str()),
        ("close", "1006"),
        "{close:?}"
    );
    drop(foreign);
    // A page under development on this machine is welcome.
    let mut welcome = Client::chromium_elsewhere(&origin).await;
    welcome.open("", &url, Library::WebSocket).await;
    let event = json!({ "topic": "a", "data": "hello" });
    welcome.publish("", "1", &event);
    while welcome.message().await.event != "published" {}
    drop(welcome);
    hub.stop().await;
}
