//! 2xx means stored: `kill -9` in a loop under load loses nothing that was answered, doubles nothing,
//! and tears no array; a reader that resumes sees the log's one order throughout.

use crate::support::{hub::HubProcess, load, stream::Stream};
use std::{collections::HashMap, time::Duration};
use tidings::cursor::Cursor;

/// Kills in a test, unless `KILL_ROUNDS` says otherwise. (No name of Tidings: the hub refuses variables
/// of its own that it does not know.)
const ROUNDS: u64 = 20;

/// For all rounds of a test on a busy machine; more if more are asked for.
const PATIENCE: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn rounds() -> u64 {
    std::env::var("KILL_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_a_loop_with_durability_sync() {
    kill_in_a_loop("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_a_loop_with_durability_os() {
    kill_in_a_loop("[log]\ndurability = \"os\"\n").await;
}

async fn kill_in_a_loop(config: &str) {
    let rounds = rounds();
    let hub = HubProcess::start(config);
    let patience = PATIENCE.max(Duration::from_secs(5) * u32::try_from(rounds).unwrap());
    let run = tokio::time::timeout(patience, run(hub, rounds));
    run.await.expect("an end in time");
}

async fn run(mut hub: HubProcess, rounds: u64) {
    let mut load = load::Load::new(hub.origin());
    let reader = load.spawn_reader("/events?topic=load/**&since=earliest");
    let publishers = load.spawn_publishers();
    for round in 0..rounds {
        // Sometimes at once, while it still recovers; sometimes when its reader has come far.
        match round % 3 {
            0 => load.answered_more(rand::random_range(0..20)).await,
            1 => load.answered_more(rand::random_range(50..400)).await,
            _ => load.delivered_more(rand::random_range(50..400)).await,
        }
        hub.kill();
        hub.start_again();
        load.started_again();
    }
    load.answered_more(50).await;
    load.stop();
    let sent = publishers.await;
    let end = hub.publish("load/end", load::END).await;
    let delivered = reader.await;
    let fresh = load.spawn_reader("/events?topic=load/**&since=earliest");
    let stored = fresh.await;
    assert_eq!(stored.connections, 1);
    assert_eq!(stored.events.last().unwrap().0, end);

    // The reader that lived through it all got the log's list.
    assert!(delivered.connections > rounds / 3, "{delivered:?}");
    for (got, kept) in delivered.events.iter().zip(&stored.events) {
        assert_eq!(got, kept);
    }
    assert_eq!(delivered.events.len(), stored.events.len());
    in_order(&stored.events);

    let by_data: HashMap<&str, &str> = stored
        .events
        .iter()
        .map(|(id, data)| (data.as_str(), id.as_str()))
        .collect();
    assert_eq!(by_data.len(), stored.events.len(), "something is twice");
    let mut unanswered = 0;
    for publisher in &sent {
        let mut last = None;
        assert!(publisher.batches.len() > 10, "{}", publisher.name);
        for batch in &publisher.batches {
            let found = batch.data.iter().filter_map(|data| by_data.get(&**data));
            let found: Vec<&str> = found.copied().collect();
            match &batch.ids {
                // Answered, and so there, under the ids that the answer gave.
                Some(ids) => assert_eq!(found, *ids, "{}", publisher.name),
                None => {
                    unanswered += 1;
                    let whole = found.is_empty() || found.len() == batch.data.len();
                    assert!(whole, "torn: {:?}", batch.data);
                }
            }
            for id in found {
                let position = position(id);
                assert!(last < Some(position), "{} out of order", publisher.name);
                last = Some(position);
            }
        }
    }
    // Nothing is there that nobody sent.
    let ours = sent.iter().flat_map(|publisher| &publisher.batches);
    let ours: usize = ours.map(|batch| batch.data.len()).sum();
    assert!(stored.events.len() <= ours + 1);
    assert!(unanswered > 0, "no kill met a publish under way");
    let retried: usize = sent.iter().map(|publisher| publisher.settled).sum();
    assert!(
        retried > 0,
        "no retry was told that its first try was stored"
    );
}

/// One epoch, rising positions.
fn in_order(events: &[(String, String)]) {
    assert!(!events.is_empty());
    let cursors = events.iter().map(|(id, _)| id.parse::<Cursor>().unwrap());
    let cursors: Vec<_> = cursors.collect();
    for pair in cursors.windows(2) {
        assert_eq!(pair[0].epoch, pair[1].epoch);
        assert!(pair[0].position < pair[1].position, "{pair:?}");
    }
}

fn position(id: &str) -> u64 {
    id.parse::<Cursor>().unwrap().position
}

/// Has the log believe that the machine was started since.
fn change_boot_id(hub: &HubProcess) {
    let path = hub.data_dir().join(tidings::log::sqlite::FILE);
    let conn = rusqlite::Connection::open(path).unwrap();
    let changed = conn.execute("UPDATE meta SET boot = 'another'", []);
    assert_eq!(changed.unwrap(), 1);
}

async fn resumed(hub: &HubProcess, id: &str) -> Stream {
    Stream::open(hub.address(), "/topics/a", &[("Last-Event-ID", id)]).await
}

#[tokio::test]
async fn a_crash_of_the_machine_is_told_with_durability_os() {
    let mut hub = HubProcess::start("[log]\ndurability = \"os\"\n");
    let first = hub.publish("a", "1").await;
    // A crash of the process alone loses nothing.
    hub.kill();
    hub.start_again();
    let second = hub.publish("a", "2").await;
    let mut stream = resumed(&hub, &first).await;
    assert_eq!(stream.next().await.id, second);
    hub.kill();
    change_boot_id(&hub);
    hub.start_again();
    let third = hub.publish("a", "3").await;
    let epoch = |id: &str| id.parse::<Cursor>().unwrap().epoch;
    assert_eq!(epoch(&first), epoch(&second));
    assert_ne!(epoch(&first), epoch(&third));
    assert!(position(&second) < position(&third));
    let mut stream = resumed(&hub, &second).await;
    let gap = stream.next().await;
    assert_eq!(gap.event, "tidings.gap");
    let gap: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!(
        (&gap["reason"], &gap["requested"]),
        (&"epoch".into(), &(*second).into())
    );
    // From the oldest kept, under ids of the new epoch.
    assert_eq!(stream.data(3).await, ["1", "2", "3"]);
    let mut again = resumed(&hub, gap["oldest"].as_str().unwrap()).await;
    assert_eq!(again.data(2).await, ["2", "3"]);
}

#[tokio::test]
async fn a_clean_stop_before_the_machine_starts_again_keeps_the_epoch() {
    let mut hub = HubProcess::start("[log]\ndurability = \"os\"\n");
    let first = hub.publish("a", "1").await;
    let second = hub.publish("a", "2").await;
    hub.terminate();
    change_boot_id(&hub);
    hub.start_again();
    let message = resumed(&hub, &first).await.next().await;
    assert_eq!((message.event.as_str(), message.id), ("message", second));
}

/// With `sync`, what was answered survived the machine's crash too.
#[tokio::test]
async fn durability_sync_keeps_the_epoch_over_a_crash_of_the_machine() {
    let mut hub = HubProcess::start("");
    let first = hub.publish("a", "1").await;
    let second = hub.publish("a", "2").await;
    hub.kill();
    change_boot_id(&hub);
    hub.start_again();
    let message = resumed(&hub, &first).await.next().await;
    assert_eq!((message.event.as_str(), message.id), ("message", second));
}
