//! The bytes of Server-Sent Events, against decoders that others wrote.

use crate::support::{server::TestServer, stream::PATIENCE, wait::in_time};
use bytes::{Bytes, BytesMut};
use eventsource_client::{Client, ClientBuilder, SSE};
use proptest::prelude::*;
use sse_stream::{Sse, SseByteStream};
use std::{convert::Infallible, sync::Arc};
use tidings::{
    cursor::Cursor,
    encoding::{Encoding, Encodings},
    event::{Event, EventName, OwnId},
    topic::Topic,
};
use tokio_stream::StreamExt;

fn event(position: u64, data: &str) -> Event {
    Event {
        cursor: Cursor {
            epoch: 0xfeed,
            position,
        },
        time_ms: 1_763_626_200_125,
        topic: Topic::parse("a/b").unwrap(),
        event: None,
        own_id: None,
        retry_ms: None,
        data: Bytes::copy_from_slice(data.as_bytes()),
        encodings: Encodings::default(),
    }
}

/// What a reader's parser makes of line ends.
fn as_lines(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

/// Decodes bytes that come cut at these places.
fn decode(bytes: &Bytes, cuts: &[usize]) -> Vec<Sse> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let parts: Vec<_> = cuts
        .windows(2)
        .map(|pair| Ok::<_, Infallible>(bytes.slice(pair[0]..pair[1])))
        .collect();
    let decoded = SseByteStream::new(tokio_stream::iter(parts)).collect::<Result<Vec<Sse>, _>>();
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(decoded)
        .unwrap()
}

/// Text with more line ends, colons and characters of several bytes than text usually has.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "\n", "\r", "\r\n", ":", " ", "a", "data: x", "é", "🦀", "\u{feff}", "\0", "\"", "\\",
            "\t",
        ]),
        0..24,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn plain_frames_decode_to_the_event(
        data in text(),
        name in prop::option::of("[ -~é]{1,12}"),
        retry_ms in prop::option::of(0u32..60_001),
        cuts in prop::collection::vec(any::<usize>(), 0..5),
    ) {
        let name = name.and_then(|name| EventName::parse(&name).ok());
        let mut event = event(7, &data);
        (event.event, event.retry_ms) = (name.clone(), retry_ms);
        let decoded = decode(&Encoding::Sse.of(&event), &cuts);
        prop_assert_eq!(decoded.len(), 1);
        let sse = &decoded[0];
        prop_assert_eq!(sse.id.as_deref(), Some("feed-7"));
        prop_assert_eq!(sse.event.as_deref(), name.as_ref().map(EventName::as_str));
        prop_assert_eq!(sse.retry, retry_ms.map(u64::from));
        prop_assert_eq!(sse.data.as_deref().unwrap_or_default(), as_lines(&data));
    }

    #[test]
    fn envelopes_keep_every_byte(data in text(), own_id in prop::option::of("[!-~]{1,20}"), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
        let own_id = own_id.and_then(|id| OwnId::parse(&id).ok());
        let mut event = event(7, &data);
        event.own_id = own_id.clone();
        let decoded = decode(&Encoding::SseEnvelope.of(&event), &cuts);
        prop_assert_eq!(decoded.len(), 1);
        let line = decoded[0].data.clone().unwrap_or_default();
        prop_assert!(!line.contains('\n'));
        let envelope: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&envelope, &serde_json::json!({
            "topic": "a/b",
            "id": "feed-7",
            "own_id": own_id.as_ref().map(OwnId::as_str),
            "event": null,
            "time": "2025-11-20T08:10:00.125Z",
            "data": data,
        }));
    }

    #[test]
    fn events_in_a_row_stay_apart(all in prop::collection::vec(text(), 1..6)) {
        let mut bytes = BytesMut::new();
        for (position, data) in (1..).zip(&all) {
            Encoding::Sse.encode(&event(position, data), &mut bytes);
        }
        let decoded: Vec<_> = decode(&bytes.freeze(), &[]).into_iter().map(|sse| sse.data.unwrap_or_default()).collect();
        prop_assert_eq!(decoded, all.iter().map(|data| as_lines(data)).collect::<Vec<_>>());
    }
}

#[test]
fn an_event_is_encoded_once() {
    let event = event(1, "x");
    let (first, second) = (Encoding::Sse.of(&event), Encoding::Sse.of(&event));
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert_eq!(&*first, b"id: feed-1\ndata: x\n\n");
}

#[test]
fn no_data_is_an_empty_data_line() {
    assert_eq!(&*Encoding::Sse.of(&event(1, "")), b"id: feed-1\ndata:\n\n");
}

/// Keepalives, `retry:` and comments must not make messages: no blank line follows them.
#[tokio::test]
async fn a_stream_begins_with_single_lines_and_stays_clean() {
    let hub = TestServer::with(|config| {
        config.subscribe.keepalive = std::time::Duration::from_millis(20);
    })
    .await;
    let mut stream = hub.subscribe("/topics/a").await;
    stream.until("retry: 2000\n: tidings\n:\n:\n").await;
    let id = hub.publish("a", "x").await;
    stream.until("data: x\n\n").await;
    let block = format!("id: {id}\ndata: x\n\n");
    let (before, _) = stream.text.split_once(&block).expect("the event's block");
    assert!(!before.contains("\n\n"), "{before:?}");
}

#[tokio::test]
async fn heartbeats_come_as_named_events() {
    let hub = TestServer::start().await;
    let mut stream = hub.subscribe("/topics/a?heartbeat=1s").await;
    let heartbeat = stream.next().await;
    assert_eq!(
        (heartbeat.event.as_str(), heartbeat.id.as_str()),
        ("tidings.heartbeat", "")
    );
    assert!(
        heartbeat.data.starts_with("{\"time\":\"2"),
        "{}",
        heartbeat.data
    );
}

/// A client that others wrote, over a connection that breaks: it resumes by the ids of the hub.
#[tokio::test]
async fn eventsource_client_resumes() {
    let data = tempfile::TempDir::new().unwrap();
    let hub = TestServer::on(data.path(), |_| {}).await;
    let first = hub.publish("a", "one").await;
    let url = hub.url("/events?topic=a&since=earliest");
    let client = ClientBuilder::for_url(&url).unwrap();
    let transport = launchdarkly_sdk_transport::HyperTransport::new().unwrap();
    let client = Arc::new(client.build_with_transport(transport));
    let mut events = client.stream();
    let mut next = async |what: &str| {
        let next = async {
            loop {
                match events.next().await.expect("the client goes on") {
                    Ok(SSE::Event(event)) if !event.event_type.starts_with("tidings.") => {
                        return (event.id, event.data);
                    }
                    // Also an error: it says that it comes back.
                    _ => {}
                }
            }
        };
        in_time(PATIENCE, what, next).await
    };
    assert_eq!(next("one").await, (Some(first), "one".to_owned()));
    let address = hub.address;
    hub.stop().await;
    let hub = TestServer::again(data.path(), address).await;
    for text in ["two", "three"] {
        let id = hub.publish("a", text).await;
        assert_eq!(next(text).await, (Some(id), text.to_owned()));
    }
}
