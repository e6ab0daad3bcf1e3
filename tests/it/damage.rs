//! A log that is damaged or cannot be used: a clear error at the start, or a gap in the stream; no panic, no silent
//! loss.

use crate::support::{hub::HubProcess, stream::Stream};
use std::{fs, path::PathBuf};
use tidings::log::sqlite;

const EVENTS: usize = 40;
const PAGE_BYTES: usize = 4_096;

fn data(n: usize) -> String {
    format!("<{n}>{}", "x".repeat(600))
}

/// A hub that was stopped with some events in its log; their ids.
async fn stopped() -> (HubProcess, Vec<String>) {
    let mut hub = HubProcess::start("");
    let mut ids = Vec::new();
    for n in 0..EVENTS {
        ids.push(hub.publish("a", &data(n)).await);
    }
    hub.terminate();
    (hub, ids)
}

fn file(hub: &HubProcess) -> PathBuf {
    hub.data_dir().join(sqlite::FILE)
}

async fn resumed(hub: &HubProcess, id: &str) -> Stream {
    Stream::open(hub.address(), "/topics/a", &[("Last-Event-ID", id)]).await
}

#[tokio::test]
async fn flipped_bytes_in_a_row_are_a_gap_and_what_follows_comes() {
    const BAD: usize = 20;
    let (mut hub, ids) = stopped().await;
    let mut bytes = fs::read(file(&hub)).unwrap();
    let needle = data(BAD);
    let mut windows = bytes.windows(needle.len());
    let at = windows
        .position(|window| window == needle.as_bytes())
        .unwrap();
    for byte in &mut bytes[at + 100..at + 110] {
        *byte ^= 0x55;
    }
    fs::write(file(&hub), bytes).unwrap();
    hub.start_again();
    let mut stream = resumed(&hub, &ids[0]).await;
    for id in &ids[1..BAD] {
        assert_eq!(stream.next().await.id, *id);
    }
    let gap = stream.next().await;
    assert_eq!(
        (gap.event.as_str(), &gap.id),
        ("tidings.gap", &ids[BAD - 1])
    );
    let gap: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
    let expected = serde_json::json!({
        "reason": "corrupt", "requested": ids[BAD - 1], "oldest": ids[0], "missed": 1,
    });
    assert_eq!(gap, expected);
    for (n, id) in ids.iter().enumerate().skip(BAD + 1) {
        let message = stream.next().await;
        assert_eq!((&message.id, message.data), (id, data(n)));
    }
    // It goes on live, in the same epoch.
    let next = hub.publish("a", "next").await;
    assert_eq!(stream.next().await.id, next);
    assert!(hub.log().contains("an event of the log is damaged"));
}

/// Each page in turn.
#[tokio::test]
async fn a_damaged_page_is_refused_at_the_start_or_a_gap() {
    let (mut hub, ids) = stopped().await;
    let whole = fs::read(file(&hub)).unwrap();
    let (mut refused, mut gaps) = (0, 0);
    for page in 1..whole.len() / PAGE_BYTES {
        let mut bytes = whole.clone();
        bytes[page * PAGE_BYTES..][..12].fill(0xa5);
        fs::write(file(&hub), &bytes).unwrap();
        if let Err(text) = hub.try_start_again() {
            assert!(
                text.contains("is damaged, or no log"),
                "page {page}: {text}"
            );
            refused += 1;
            continue;
        }
        let mut stream = resumed(&hub, &ids[0]).await;
        let mut next = 1;
        while next < EVENTS {
            let message = stream.next().await;
            if message.event == "tidings.gap" {
                assert!(
                    message.data.contains(r#""reason":"corrupt""#),
                    "{message:?}"
                );
                assert!(hub.log().contains("damaged"));
                gaps += 1;
                break;
            }
            assert_eq!(
                (&message.id, message.data),
                (&ids[next], data(next)),
                "page {page}"
            );
            next += 1;
        }
        hub.kill();
    }
    assert!(refused > 0 && gaps > 0, "{refused} {gaps}");
    fs::write(file(&hub), &whole).unwrap();
    hub.start_again();
    assert_eq!(
        resumed(&hub, &ids[0]).await.data(EVENTS - 1).await.len(),
        EVENTS - 1
    );
}

#[tokio::test]
async fn a_damaged_file_header_is_refused() {
    let (mut hub, ids) = stopped().await;
    let whole = fs::read(file(&hub)).unwrap();
    for range in [0..16, 16..24, 40..100, 0..PAGE_BYTES] {
        let mut bytes = whole.clone();
        bytes[range.clone()].fill(0xa5);
        fs::write(file(&hub), bytes).unwrap();
        let text = hub.try_start_again().expect_err("a hub on a damaged file");
        assert!(
            text.contains("is damaged, or no log") || text.contains("has format"),
            "{range:?}: {text}"
        );
        assert!(text.contains(sqlite::FILE), "{text}");
    }
    fs::write(file(&hub), whole).unwrap();
    hub.start_again();
    assert_eq!(resumed(&hub, &ids[0]).await.next().await.id, ids[1]);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (mut hub, ids) = stopped().await;
    let path = file(&hub);
    let format = |version: i32| {
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.pragma_update(None, "user_version", version).unwrap();
    };
    format(7);
    let text = hub.try_start_again().expect_err("a refusal");
    assert!(
        text.contains("has format 7") && text.contains("run the version that made it"),
        "{text}"
    );
    format(1);
    hub.start_again();
    assert_eq!(resumed(&hub, &ids[0]).await.next().await.id, ids[1]);
}

/// Neither depends on who runs the test: root may write wherever modes alone forbid it.
#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for dir in [
        file.clone(),
        file.join("below"),
        "/proc/tidings-data".into(),
    ] {
        let mut hub = HubProcess::not_started(dir.clone());
        let text = hub.try_start_again().expect_err("a refusal");
        assert!(text.contains("cannot be written"), "{text}");
        assert!(text.contains(dir.to_str().unwrap()), "{text}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "in the way");
}
