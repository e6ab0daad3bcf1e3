//! A journal whose beginning is gone, and nodes that begin with nothing.

use super::*;
use crate::log_support::{NEW_YEAR, keyed, start, try_append};
use tidings::{
    cluster::{
        entry::{Body, Entry},
        records::Records,
    },
    log::{Batch, Loss, Outcome, PageGap},
};
use tokio::time::Instant;

const REMOVED: PageGap = PageGap {
    loss: Loss::Removed,
    missed: None,
};

/// A record with a key that was on its way when a node began: the others know an earlier one with it, and that node does not.
#[tokio::test(start_paused = true)]
async fn who_cannot_know_a_key_begins_after_it() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 1).await;
    append(&*nodes[0].log, vec![keyed("a", "0", "k")]).await;
    publish(&nodes, 1..20).await;
    let epoch = settled(&journal, &nodes, 0).await;
    journal.trim(10);
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    publish(&nodes, 20..25).await;
    settled(&journal, &nodes, 0).await;
    let record = Entry {
        epoch,
        writer: 7,
        number: 1,
        time_ms: NEW_YEAR,
        body: Body::Records(vec![Records {
            looked: 0,
            batch: Batch {
                drafts: vec![keyed("a", "other", "k"), draft("a", "beside")],
                all_or_nothing: false,
            },
        }]),
    };
    let at = journal.append_raw(&record.seal(0).bytes);
    settled(&journal, &nodes, 0).await;
    publish(&nodes, 25..30).await;
    settled(&journal, &nodes, 0).await;
    let all = nodes[0].kept().await;
    assert!(!all.data().contains(&"other"), "its key is known");
    let late = nodes[1].kept().await;
    assert_eq!(late.data(), numbers(25..30));
    assert_eq!(
        seen(&late.events),
        seen(&all.events[all.events.len() - 5..])
    );
    assert!(nodes[1].log.bounds().removed_to >= at << 16);
    // From then on both know the same.
    let again = append(&*nodes[1].log, vec![keyed("a", "30", "k2")]).await[0];
    let same = try_append(&*nodes[0].log, vec![keyed("a", "30", "k2")]).await;
    assert_eq!(same, Ok(vec![Outcome::Duplicate(again)]));
}

#[tokio::test(start_paused = true)]
async fn who_begins_late_tells_of_what_it_cannot_know_and_agrees_on_the_rest() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 1).await;
    let cursors = publish(&nodes, 0..40).await;
    let epoch = settled(&journal, &nodes, 0).await;
    journal.trim(20);
    nodes.push(Node::new(&journal).await);
    nodes.push(Node::new(&journal).await);
    assert_eq!(settled(&journal, &nodes, 0).await, epoch);
    publish(&nodes, 40..50).await;
    settled(&journal, &nodes, 0).await;
    let all = nodes[0].kept().await;
    assert_eq!(all.data(), numbers(0..50));
    for node in &nodes[1..] {
        let from = node.log.bounds().removed_to;
        assert!(from >= 20 << 16);
        let late = node.kept().await;
        let known = all.events.iter().filter(|one| one.cursor.position > from);
        let known: Vec<_> = known.cloned().collect();
        assert!(known.len() >= 10);
        assert_eq!(seen(&late.events), seen(&known));
        for (n, cursor) in cursors.iter().enumerate() {
            let (gap, replay) = start(&*node.log, Start::Cursor(*cursor), ALL).await;
            assert_eq!(gap, None);
            let told: &[_] = if cursor.position < from {
                &[REMOVED]
            } else {
                &[]
            };
            assert_eq!(replay.gaps, told, "{n} of {from}");
            let rest = &all.events[n + 1..];
            let rest: Vec<_> = rest
                .iter()
                .filter(|one| one.cursor.position > from)
                .cloned()
                .collect();
            assert_eq!(seen(&replay.events), seen(&rest));
        }
    }
    // An id of one's own beginning is good everywhere.
    for node in &nodes[1..] {
        let begin = Cursor {
            epoch,
            position: node.log.bounds().removed_to,
        };
        for other in &nodes {
            let (gap, replay) = start(&*other.log, Start::Cursor(begin), ALL).await;
            assert_eq!((gap, replay.gaps.len()), (None, 0));
        }
    }
}

/// Nobody else has events, so the id that a newcomer gives out before any is all that its reader has.
#[tokio::test(start_paused = true)]
async fn the_first_id_of_a_newcomers_stream_is_good_on_the_others() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 1).await;
    publish(&nodes, 0..10).await;
    settled(&journal, &nodes, 0).await;
    journal.trim(journal.last());
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    let hubs = [nodes[0].hub(), nodes[1].hub()];
    let cursor = Subscription::live_now(&hubs[1], &filter(ALL), LagPolicy::Gap).cursor();
    let mut back = reader(&hubs[0], Begin::Log(Start::Cursor(cursor))).await;
    publish(&nodes, 10..12).await;
    assert_eq!(taken(&mut back, 2).await, numbers(10..12));
}

#[tokio::test(start_paused = true)]
async fn nobody_who_knows_is_there_so_a_new_epoch_begins() {
    for count in [1, 2, 3] {
        let journal = MemoryJournal::new();
        let old = nodes(&journal, 1).await;
        publish(&old, 0..10).await;
        let before = settled(&journal, &old, 0).await;
        for node in old {
            node.killed().await;
        }
        journal.trim(5);
        let begun = Instant::now();
        let mut fresh = Vec::new();
        for _ in 0..count {
            fresh.push(Node::new(&journal).await);
        }
        settled(&journal, &fresh, before).await;
        assert!(
            begun.elapsed() > Duration::from_secs(3),
            "others are waited for"
        );
        publish(&fresh, 20..30).await;
        settled(&journal, &fresh, before).await;
        // One that comes later finds it, though the journal's beginning is gone.
        fresh.push(Node::new(&journal).await);
        settled(&journal, &fresh, before).await;
        assert_eq!(the_same(&fresh).await, numbers(20..30), "{count}");
    }
}

/// Those who know are there, and slow to say so: nobody takes it on itself to throw all away.
#[tokio::test(start_paused = true)]
async fn a_newcomer_waits_for_others_that_live() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 1).await;
    publish(&nodes, 0..70).await;
    let epoch = settled(&journal, &nodes, 0).await;
    // It lags, so that it writes nothing.
    let held = nodes[0].local.tail();
    for n in 0..80 {
        let at = journal.append_raw(format!("foreign {n}").as_bytes());
        assert!(at > 70);
    }
    let publishing = async {
        for n in 70..140 {
            let _ = try_append(&*nodes[0].log, vec![draft("a", &n.to_string())]).await;
        }
    };
    publishing.await;
    assert!(!nodes[0].log.standing().takes_publishes());
    journal.trim(30);
    let fresh = Node::new(&journal).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    drop(held);
    nodes.push(fresh);
    assert_eq!(settled(&journal, &nodes, 0).await, epoch);
}

/// A node that was away for too long: what it lacks is told, and what it had is not mixed with what follows.
#[tokio::test(start_paused = true)]
async fn who_comes_back_too_late_begins_anew() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 2).await;
    let cursors = publish(&nodes, 0..10).await;
    let epoch = settled(&journal, &nodes, 0).await;
    let local = nodes.pop().unwrap().killed().await;
    publish(&nodes, 10..40).await;
    settled(&journal, &nodes, 0).await;
    journal.trim(30);
    nodes.push(Node::on(&journal, local, &system()).await);
    assert_eq!(settled(&journal, &nodes, 0).await, epoch);
    let from = nodes[1].log.bounds().removed_to;
    let (gap, replay) = start(&*nodes[1].log, Start::Cursor(cursors[9]), ALL).await;
    assert_eq!((gap, &replay.gaps[..]), (None, &[REMOVED][..]));
    let all = nodes[0].kept().await;
    let rest: Vec<_> = all
        .events
        .iter()
        .filter(|one| one.cursor.position > from)
        .cloned()
        .collect();
    assert_eq!(seen(&replay.events), seen(&rest));
}
