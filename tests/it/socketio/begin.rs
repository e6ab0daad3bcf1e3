//! How a subscription begins: whoever has its cursor was told of what is gone before it, and nobody goes on without one.

use super::{Clients, KINDS, TestServer, packets::Packets};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gap_comes_before_the_cursor() {
    let hub = TestServer::start().await;
    let first = hub.publish("a", "first").await;
    let gap =
        json!({"reason": "unknown", "requested": "unheard of", "oldest": first, "missed": null});
    let auth = json!({"topics": ["a"], "last_event_id": "unheard of"}).to_string();
    let mut socket = Packets::connected_with(&hub, &auth).await;
    let subscribe = json!(["subscribe", "a", {"sub": "s", "last_event_id": "unheard of"}]);

    assert_eq!(socket.event().await, json!(["gap", gap, "auth"]));
    let told = socket.event().await;
    assert_eq!((&told[0], &told[2]), (&json!("subscribed"), &json!("auth")));
    let from_start = told[1]["cursor"].clone();
    assert!(from_start.is_string(), "{told}");
    assert_eq!(socket.event().await[1]["data"], "first");

    socket.send(format!("427{subscribe}")).await;
    assert_eq!(socket.event().await, json!(["gap", gap, "s"]));
    let ok = json!({"ok": {"sub": "s", "cursor": from_start}});
    assert_eq!(socket.answer(7).await, ok);
    assert_eq!(socket.event().await[1]["data"], "first");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_no_acknowledgement_is_told_the_cursor() {
    let hub = TestServer::start().await;
    let id = hub.publish("a", "first").await;
    let mut socket = Packets::connected_with(&hub, r#"{"topics":["a"]}"#).await;
    let told = json!(["subscribed", {"cursor": id}, "auth"]);
    assert_eq!(socket.event().await, told);
    socket.send(r#"42["subscribe","a",{"sub":"s"}]"#).await;
    let told = json!(["subscribed", {"cursor": id}, "s"]);
    assert_eq!(socket.event().await, told);
    // Who does is not told twice.
    socket.send(r#"421["subscribe","b",{"sub":"t"}]"#).await;
    assert_eq!(socket.answer(1).await["ok"]["cursor"], json!(id));
    hub.publish("b", "second").await;
    assert_eq!(socket.event().await[2], "t");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_before_its_first_event_misses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let hub = TestServer::on(data.path(), |_| {}).await;
    let (address, mut clients) = (hub.address, Clients::node().await);
    for (n, kind) in KINDS.into_iter().enumerate() {
        let name = n.to_string();
        let listen = json!({"topics": ["a"]});
        clients
            .connect(&name, &hub.url(""), kind, Some(listen))
            .await;
        // That is done, and told, after what it connected for.
        clients.ok(&name, json!(["subscribe", "b"])).await;
    }
    let mut python = Clients::python(&hub.url(""), "websocket", &["a"]).await;
    python.find("", "subscribed").await;
    hub.stop().await;

    // Published where nobody listens, so that it is there when they come back.
    let elsewhere = TestServer::on(data.path(), |_| {}).await;
    elsewhere.publish("a", "meanwhile").await;
    elsewhere.stop().await;
    let hub = TestServer::again(data.path(), address).await;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let line = clients.find(&n.to_string(), "event").await;
        assert_eq!(line["event"]["data"], "meanwhile", "{kind:?}");
    }
    let line = python.find("", "event").await;
    assert_eq!(line["event"]["data"], "meanwhile");
    drop((clients, python));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_refused_and_not_taken_for_nothing() {
    let (hub, deep) = (
        TestServer::start().await,
        format!("{}{}", "[".repeat(200), "]".repeat(200)),
    );
    for auth in [
        format!(r#"{{"topics":{deep}}}"#),
        r#"{"topics":["a"]"#.to_owned(),
    ] {
        let mut socket = Packets::open(&hub).await;
        socket.send(format!("40{auth}")).await;
        let refused = socket.next().await.expect("a packet");
        let begin = r#"44{"message":"parameter-invalid: "#;
        assert!(refused.starts_with(begin), "{refused}");
    }
    let mut socket = Packets::connected(&hub).await;
    for arguments in [deep.clone(), format!(r#""a",{{"since":{deep}}}"#)] {
        socket
            .send(format!(r#"421["subscribe",{arguments}]"#))
            .await;
        let answer = socket.answer(1).await;
        assert_eq!(
            answer["error"]["type"], "/problems/parameter-invalid",
            "{answer}"
        );
    }
    hub.stop().await;
}
