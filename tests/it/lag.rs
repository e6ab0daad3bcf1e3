//! A slow reader hurts nobody: it is served from the log, and what it misses is told as it asked.

use crate::support::{
    server::{TestServer, hub_for_slow_readers},
    stream::{DEADLINE, Stream},
    wait::within,
};
use std::time::Duration;

const DATA: usize = 4_000;

/// Publishes events `from..to` while a brisk reader takes each, which shows that nobody waits for the slow one.
async fn publish(hub: &TestServer, brisk: &mut Stream, range: std::ops::Range<usize>) {
    for start in range.clone().step_by(100) {
        let lines: String = (start..(start + 100).min(range.end))
            .map(|n| {
                format!(
                    "{{\"topic\":\"a\",\"data\":\"{n} {}\"}}\n",
                    "x".repeat(DATA)
                )
            })
            .collect();
        let answer = hub
            .post(
                "/publish?results=errors",
                &[("Content-Type", "application/x-ndjson")],
                lines,
            )
            .await;
        assert_eq!(answer.json()["summary"]["refused"], 0);
        for n in start..(start + 100).min(range.end) {
            assert_eq!(number(&brisk.next().await.data), n);
        }
    }
}

fn number(data: &str) -> usize {
    data.split(' ').next().unwrap().parse().unwrap()
}

async fn live(hub: &TestServer, path: &str) -> Stream {
    let mut stream = hub.subscribe(path).await;
    stream.until("tidings.open").await;
    assert_eq!(stream.next().await.event, "tidings.open");
    stream
}

#[tokio::test]
async fn a_reader_behind_the_live_frames_gets_everything_from_the_log() {
    let hub = hub_for_slow_readers(100_000).await;
    let mut brisk = live(&hub, "/topics/a?open=1").await;
    let mut slow = live(&hub, "/topics/a?open=1").await;
    // More than the sockets' buffers and the feed's ring hold: 12 MB.
    publish(&hub, &mut brisk, 0..3_000).await;
    for n in 0..3_000 {
        let message = slow.next().await;
        assert_eq!(
            (message.event.as_str(), number(&message.data)),
            ("message", n)
        );
    }
}

#[tokio::test]
async fn a_reader_behind_retention_is_told_once_and_goes_on() {
    let hub = hub_for_slow_readers(500).await;
    let mut brisk = live(&hub, "/topics/a?open=1").await;
    let mut slow = live(&hub, "/topics/a?open=1").await;
    publish(&hub, &mut brisk, 0..4_000).await;
    let (mut next, mut last_id, mut gaps) = (0, String::new(), 0);
    while next < 4_000 {
        let message = slow.next().await;
        if message.event == "tidings.gap" {
            let told: serde_json::Value = serde_json::from_str(&message.data).unwrap();
            assert_eq!(
                (&told["reason"], &told["requested"]),
                (&"lagged".into(), &last_id.as_str().into())
            );
            gaps += 1;
            let message = slow.next().await;
            assert_eq!(number(&message.data), 3_500, "the oldest kept");
            (next, last_id) = (3_501, message.id);
            continue;
        }
        assert_eq!(number(&message.data), next);
        (next, last_id) = (next + 1, message.id);
    }
    assert_eq!(gaps, 1);
}

#[tokio::test]
async fn lag_disconnect_ends_the_stream() {
    let hub = hub_for_slow_readers(500).await;
    let mut brisk = live(&hub, "/topics/a?open=1").await;
    let mut slow = live(&hub, "/topics/a?open=1&lag=disconnect").await;
    publish(&hub, &mut brisk, 0..4_000).await;
    let rest = slow.rest().await;
    let (last, events) = rest.split_last().expect("events and a close");
    assert_eq!(
        (last.event.as_str(), last.data.as_str()),
        ("tidings.close", r#"{"reason":"lagged"}"#)
    );
    assert!(!events.is_empty());
    for (n, event) in events.iter().enumerate() {
        assert_eq!(number(&event.data), n);
    }
}

#[tokio::test]
async fn lag_latest_skips_to_the_newest() {
    let hub = hub_for_slow_readers(100_000).await;
    let mut brisk = live(&hub, "/topics/a?open=1").await;
    let mut slow = live(&hub, "/topics/a?open=1&lag=latest").await;
    publish(&hub, &mut brisk, 0..4_000).await;
    let (mut next, mut gaps, mut received) = (0, 0, 0);
    while next < 4_000 {
        let message = slow.next().await;
        if message.event == "tidings.gap" {
            assert!(message.data.contains("\"lagged\""), "{}", message.data);
            gaps += 1;
            next = 0;
            continue;
        }
        let number = number(&message.data);
        assert!(
            next == 0 || number == next,
            "{number} after {next} without a gap"
        );
        next = number + 1;
        received += 1;
    }
    assert!(
        gaps >= 1 && received < 4_000,
        "{gaps} gaps, {received} events"
    );
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_closed_after_the_write_timeout() {
    let hub =
        TestServer::with(|config| config.server.write_timeout = Duration::from_millis(300)).await;
    let mut brisk = live(&hub, "/topics/a?open=1").await;
    let stalled = live(&hub, "/events?topic=a&topic=b&open=1").await;
    assert_eq!(hub.server.hub().feeds(), 2);
    publish(&hub, &mut brisk, 0..3_000).await;
    within(DEADLINE, "the stalled reader is closed", || {
        hub.server.hub().feeds() == 1
    })
    .await;
    drop(stalled);
    publish(&hub, &mut brisk, 3_000..3_100).await;
}
