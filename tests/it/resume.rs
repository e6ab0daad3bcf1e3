//! Over reconnects nothing is missing and nothing comes twice; loss is never silent, and never told where there is none.

use crate::support::{
    server::{TestServer, keep},
    stream::Message,
};
use tidings::config::Config;

fn gap(message: &Message) -> serde_json::Value {
    assert_eq!(
        (message.event.as_str(), message.id.as_str()),
        ("tidings.gap", ""),
        "{message:?}"
    );
    serde_json::from_str(&message.data).unwrap()
}

#[tokio::test]
async fn a_reader_resumes_by_header_and_by_parameter() {
    let hub = TestServer::start().await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(hub.publish("a", n.to_string()).await);
        hub.publish("b", "other").await;
    }
    let from = |name: &str, id: &str| format!("/topics/a?{name}={id}");
    let expected = ["4", "5", "6", "7", "8", "9"];
    let mut by_header = hub
        .subscribe_with(
            "/topics/a?last_event_id=x&since=earliest",
            &[("Last-Event-ID", &ids[3])],
        )
        .await;
    assert_eq!(by_header.data(6).await, expected);
    assert_eq!(
        hub.subscribe(&from("last_event_id", &ids[3]))
            .await
            .data(6)
            .await,
        expected
    );
    assert_eq!(
        hub.subscribe(&from("lastEventId", &ids[3]))
            .await
            .data(6)
            .await,
        expected
    );
    // The polyfill's name comes before ours.
    let both = format!("/topics/a?last_event_id={}&lastEventId={}", ids[7], ids[3]);
    assert_eq!(hub.subscribe(&both).await.data(6).await, expected);
    let tail = hub.subscribe("/events?topic=*&tail=3").await.data(3).await;
    assert_eq!(tail, ["other", "9", "other"]);
}

#[tokio::test]
async fn an_own_id_is_a_start_and_an_unknown_one_a_gap() {
    let hub = TestServer::start().await;
    for (topic, own_id) in [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")] {
        let path = format!("/topics/{topic}?own_id={own_id}");
        assert_eq!(
            hub.post(&path, &[], format!("{topic}{own_id}"))
                .await
                .status,
            201
        );
    }
    let mut stream = hub.subscribe("/topics/a?last_event_id=x").await;
    assert_eq!(stream.data(2).await, ["ay", "ax"]);
    for unknown in ["nobody", "%ff%fe", "with%20space", "b"] {
        let mut stream = hub
            .subscribe(&format!("/topics/a?last_event_id={unknown}"))
            .await;
        let told = gap(&stream.next().await);
        assert_eq!(told["reason"], "unknown");
        assert!(told["oldest"].is_string(), "{told}");
        assert_eq!(stream.data(3).await, ["ax", "ay", "ax"]);
    }
    let mut stream = hub
        .subscribe_with("/topics/empty", &[("Last-Event-ID", "nobody")])
        .await;
    let told = gap(&stream.next().await);
    assert_eq!(
        told,
        serde_json::json!({"reason": "unknown", "requested": "nobody", "oldest": null, "missed": null})
    );
}

#[tokio::test]
async fn another_epoch_and_a_future_are_a_gap() {
    let hub = TestServer::start().await;
    let id = hub.publish("a", "one").await;
    let (epoch, _) = id.split_once('-').unwrap();
    for requested in ["1-1".to_owned(), format!("{epoch}-99")] {
        let mut stream = hub
            .subscribe_with("/topics/a", &[("Last-Event-ID", &requested)])
            .await;
        let told = gap(&stream.next().await);
        assert_eq!(
            (&told["reason"], &told["requested"], &told["oldest"]),
            (&"epoch".into(), &requested.into(), &id.as_str().into())
        );
        assert_eq!(stream.next().await.data, "one");
    }
}

#[tokio::test]
async fn removed_events_are_a_gap_and_only_for_those_who_wanted_them() {
    let hub =
        TestServer::with(|config: &mut Config| config.log.retention = vec![keep("busy", 10)]).await;
    let quiet = hub.publish("quiet", "q1").await;
    for n in 0..100 {
        hub.publish("busy", n.to_string()).await;
    }
    hub.publish("quiet", "q2").await;
    let mut stream = hub
        .subscribe_with("/topics/quiet", &[("Last-Event-ID", &quiet)])
        .await;
    assert_eq!(stream.next().await.data, "q2");
    for path in ["/topics/busy", "/events?topic=*"] {
        let mut stream = hub.subscribe_with(path, &[("Last-Event-ID", &quiet)]).await;
        let told = gap(&stream.next().await);
        assert_eq!(
            (&told["reason"], &told["requested"]),
            (&"expired".into(), &quiet.as_str().into())
        );
        let kept: Vec<String> = (90..100).map(|n| n.to_string()).collect();
        assert_eq!(stream.data(10).await, kept);
    }
    // Starts that name no place have missed nothing.
    for start in ["since=earliest", "tail=10"] {
        let mut stream = hub.subscribe(&format!("/topics/busy?{start}")).await;
        assert_eq!(stream.next().await.data, "90");
    }
    let mut stream = hub.subscribe("/topics/busy?since=1h").await;
    assert_eq!(gap(&stream.next().await)["requested"], "1h");
    assert_eq!(stream.next().await.data, "90");
}

#[tokio::test]
async fn since_in_the_future_is_live() {
    let hub = TestServer::start().await;
    hub.publish("a", "before").await;
    let mut stream = hub
        .subscribe("/topics/a?since=2999-01-01T00:00:00Z&open=1")
        .await;
    assert_eq!(stream.next().await.event, "tidings.open");
    hub.publish("a", "after").await;
    assert_eq!(stream.next().await.data, "after");
}
