//! A connection sees the events of its subscription in the log's order, each once: replay and live join without a hole.

use crate::support::{
    server::TestServer,
    stream::Stream,
    wait::{wait_until, within},
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tidings::{
    encoding::Encoding,
    fanout::{Begin, Delivery, LagPolicy, Subscription},
    log::Start,
    topic::Filter,
};
use tokio::task::JoinSet;

/// Publishes `count` events through one NDJSON request to topics `t/0` to `t/9`, numbered from `from`.
async fn publish_many(hub: &TestServer, from: usize, count: usize) {
    let lines: String = (from..from + count)
        .map(|n| format!("{{\"topic\":\"t/{}\",\"data\":\"{n}\"}}\n", n % 10))
        .collect();
    let kind = [("Content-Type", "application/x-ndjson")];
    let answer = hub.post("/publish?results=errors", &kind, lines).await;
    assert_eq!(answer.json()["summary"]["stored"], count);
}

#[tokio::test]
async fn every_kind_of_subscription_gets_its_events_once_and_in_order() {
    let hub = TestServer::start().await;
    let mut streams = [
        hub.subscribe("/topics/t/3").await,
        hub.subscribe("/events?topic=t/3&topic=t/*&topic=**").await,
        hub.subscribe("/events?topic=t/5&topic=t/3&topic=t/3").await,
    ];
    for stream in &mut streams {
        stream.until(": tidings\n").await;
        stream.until_live(&hub).await;
    }
    publish_many(&hub, 0, 1_000).await;
    assert_eq!(
        streams[0].data(100).await,
        (0..100)
            .map(|n| (10 * n + 3).to_string())
            .collect::<Vec<_>>()
    );
    assert_eq!(
        streams[1].data(1_000).await,
        (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let third = (0..1_000).filter(|n| [3, 5].contains(&(n % 10)));
    assert_eq!(
        streams[2].data(200).await,
        third.map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(hub.server.hub().feeds(), 3);
}

/// Readers come with every start while publishers publish as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_and_live_join_without_a_hole_under_load() {
    const EVENTS: usize = 20_000;
    let hub = Arc::new(TestServer::durable().await);
    let mut work = JoinSet::new();
    publish_many(&hub, 0, 1_000).await;
    let publisher = Arc::clone(&hub);
    work.spawn(async move {
        for group in (1_000..EVENTS).step_by(500) {
            publish_many(&publisher, group, 500).await;
        }
    });
    for reader in 0..24 {
        let hub = Arc::clone(&hub);
        let start = ["since=earliest", "tail=300", "since=1h"][reader % 3];
        work.spawn(async move {
            // They come one after the other, so that joins fall anywhere in the load.
            let mut guide = hub.subscribe("/events?topic=**").await;
            guide.data(50 + 400 * reader).await;
            let mut stream = hub
                .subscribe(&format!("/events?topic=t/*&{start}&frame=data"))
                .await;
            let mut expected: Option<usize> = (start != "tail=300").then_some(0);
            let mut ids = HashSet::new();
            loop {
                let message = stream.next().await;
                assert_eq!(message.event, "message", "{message:?}");
                assert!(ids.insert(message.id.clone()), "twice: {message:?}");
                let number: usize = message.data.parse().unwrap();
                assert_eq!(expected.unwrap_or(number), number, "reader {reader}");
                expected = Some(number + 1);
                if number + 1 == EVENTS {
                    break;
                }
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn an_event_source_learns_its_start_before_its_first_event() {
    let hub = TestServer::start().await;
    let id = hub.publish("a", "before").await;
    let browser = [("Sec-Fetch-Mode", "cors"), ("Cache-Control", "no-cache")];
    let mut stream = hub.subscribe_with("/topics/a", &browser).await;
    stream.until(&format!(": tidings\nid: {id}\n\n")).await;
    let mut open = hub.subscribe_with("/topics/a?open=1", &browser).await;
    let message = open.next().await;
    assert_eq!((message.event.as_str(), &message.id), ("tidings.open", &id));
    assert_eq!(message.data, format!("{{\"cursor\":\"{id}\"}}"));
    // Half of what it sends is not enough: others would fire an empty message.
    for headers in [&browser[..1], &browser[1..], &[]] {
        let mut stream = hub.subscribe_with("/topics/a", headers).await;
        stream.until(": tidings\n").await;
        stream.until_live(&hub).await;
        hub.publish("a", "x").await;
        stream.until("data: x\n\n").await;
        let text = &stream.text;
        assert!(
            text.find("id: ").unwrap() > text.find(": tidings").unwrap()
                && !text.contains(&format!("id: {id}\n\n")),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_on_a_silent_topic() {
    let hub = TestServer::start().await;
    let mut stream = hub.subscribe("/topics/silent").await;
    stream.until(": tidings\n").await;
    stream.until_live(&hub).await;
    assert_eq!(hub.server.hub().feeds(), 1);
    // Bytes that nobody asked for, then the end.
    tokio::io::AsyncWriteExt::write_all(stream.tcp(), b"GET /stray HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    drop(stream);
    let gone = || hub.server.hub().feeds() == 0;
    within(Duration::from_secs(2), "what a stream had is gone", gone).await;
}

/// Feeds of different filters share an event's bytes; a library user sees the end of a hub.
#[tokio::test]
async fn an_event_of_many_feeds_is_encoded_once_and_a_closed_hub_ends_its_readers() {
    let hub = TestServer::start().await;
    let mut readers = Vec::new();
    for n in 0..100 {
        let other = format!("other/{n}");
        let filter = Arc::new(Filter::parse(["a", &other]).unwrap().unwrap());
        let begin = if n % 2 == 0 {
            Begin::Live
        } else {
            Begin::Log(Start::Earliest)
        };
        let reader = Subscription::start(
            hub.server.hub(),
            &filter,
            begin,
            String::new(),
            LagPolicy::Gap,
        );
        readers.push(reader.await);
    }
    for reader in &mut readers {
        // The first poll takes those that replay to their feeds.
        let waiting = tokio::time::timeout(Duration::from_millis(1), reader.next());
        assert!(waiting.await.is_err(), "nothing was published");
    }
    hub.publish("a", "x").await;
    let mut made = HashSet::new();
    for reader in &mut readers {
        let Delivery::Events(chunk) = reader.next().await else {
            panic!("no events")
        };
        assert_eq!(chunk.events().len(), 1);
        made.insert(chunk.bytes(Encoding::Sse).as_ptr() as usize);
    }
    assert_eq!(made.len(), 1);
    hub.stop().await;
    for reader in &mut readers {
        assert!(matches!(reader.next().await, Delivery::Stopped));
    }
}

impl Stream {
    /// Waits until the hub has a feed: the stream's live start lies behind.
    async fn until_live(&mut self, hub: &TestServer) {
        wait_until("a feed", || hub.server.hub().feeds() > 0).await;
    }
}
