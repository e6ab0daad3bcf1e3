//! Real clients: Chromium's own WebSocket, npm `ws` and PyPI `websockets`.

use crate::support::{
    client::{Client, Library, Message},
    hub::HubProcess,
    server::TestServer,
};
use serde_json::json;

const SOON: &str = "subscribe.drain_retry_min = \"100ms\"\nsubscribe.drain_retry_max = \"200ms\"\n";

/// A client, the name of its stream, and its own.
type Named = (Client, &'static str, &'static str);

/// All three, listening.
async fn clients(hub: &HubProcess, topic: &str) -> [Named; 3] {
    let url = format!(
        "{}/ws?topic={topic}",
        hub.origin().replace("http://", "ws://")
    );
    let mut chromium = Client::chromium(&hub.origin()).await;
    chromium.try_to_open("c", &url, Library::WebSocket);
    let mut clients = [
        (Client::ws(&url), "", "ws"),
        (Client::websockets(&url), "", "websockets"),
        (chromium, "c", "chromium"),
    ];
    for (client, stream, _) in &mut clients {
        client.opened_of(stream).await;
    }
    clients
}

/// The next event that a client sees, and, if it published one, the id that it was told; in either order.
async fn event((client, stream, _): &mut Named, published: bool) -> (Message, Option<String>) {
    let (mut event, mut id) = (None, None);
    loop {
        let message = client.message_of(stream).await;
        match message.event.as_str() {
            "close" => {}
            "published" => id = Some(message.id),
            _ => assert!(event.replace(message).is_none(), "two events"),
        }
        if let Some(event) = &event
            && id.is_some() == published
        {
            return (event.clone(), id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_publish_and_resume_over_a_drain_and_a_crash() {
    let mut hub = HubProcess::start(SOON);
    let mut clients = clients(&hub, "demo/*").await;
    for stop in [HubProcess::terminate, HubProcess::kill] {
        for publisher in 0..clients.len() {
            let (client, stream, name) = &mut clients[publisher];
            let data = format!("by {name}, \"ä\"\n");
            client.publish(stream, name, &json!({ "topic": "demo/a", "data": data }));
            let (seen, id) = event(&mut clients[publisher], true).await;
            assert_eq!(seen, Message::new(&id.unwrap(), &data));
            for (at, client) in clients.iter_mut().enumerate() {
                if at != publisher {
                    assert_eq!(event(client, false).await.0, seen, "{}", client.2);
                }
            }
        }
        stop(&mut hub);
        // Published before anybody can be back, however quick.
        hub.start_elsewhere();
        let id = hub.publish("demo/b", "while you were away").await;
        hub.terminate();
        hub.start_again();
        for client in &mut clients {
            let expected = Message::new(&id, "while you were away");
            assert_eq!(event(client, false).await.0, expected, "{}", client.2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_seen_as_1012_with_a_time_to_come_back() {
    let mut hub = HubProcess::start(SOON);
    let mut clients = clients(&hub, "demo").await;
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
