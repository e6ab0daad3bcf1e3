//! A journal that loses its newest entries, or all: a new epoch, in which all nodes have the same.

use super::*;
use crate::log_support::start;
use tidings::log::{
    StartGap,
    sqlite::{Durability, SqliteLog},
};

/// How nodes come upon another history.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// The broker was down meanwhile.
    AfterAnOutage,
    /// Their connections broke.
    OnReconnecting,
    /// They did not reach the broker while it had none of this.
    Cut,
}

const WAYS: [Seen; 3] = [Seen::AfterAnOutage, Seen::OnReconnecting, Seen::Cut];

async fn put_back(journal: &MemoryJournal, nodes: &[Node], saved: &Saved, seen: Seen) {
    match seen {
        Seen::OnReconnecting => journal.put_back(saved),
        Seen::AfterAnOutage => {
            journal.set_up(false);
            within(SOON, "all see it", || {
                nodes.iter().all(|node| !node.log.standing().linked)
            })
            .await;
            journal.put_back(saved);
            journal.set_up(true);
        }
        Seen::Cut => {
            nodes.iter().for_each(|node| node.journal.cut(true));
            journal.put_back(saved);
            nodes.iter().for_each(|node| node.journal.cut(false));
        }
    }
}

/// A cursor at or before the fork goes on; a later one is told, and goes on after the fork.
async fn cursors_go_on(nodes: &[Node], good: &[Cursor], lost: &[Cursor]) {
    let all = nodes[0].kept().await;
    for node in nodes {
        for (n, cursor) in good.iter().enumerate() {
            let (gap, replay) = start(&*node.log, Start::Cursor(*cursor), ALL).await;
            assert_eq!((gap, replay.gaps.len()), (None, 0));
            assert_eq!(seen(&replay.events), seen(&all.events[n + 1..]));
        }
        for cursor in lost {
            let (gap, replay) = start(&*node.log, Start::Cursor(*cursor), ALL).await;
            assert_eq!((gap, replay.gaps.len()), (Some(StartGap::Epoch), 0));
            assert_eq!(seen(&replay.events), seen(&all.events[good.len()..]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_rollback_all_nodes_go_on_from_the_fork() {
    for how in WAYS {
        let journal = MemoryJournal::new();
        let nodes = nodes(&journal, 3).await;
        let good = publish(&nodes, 0..10).await;
        let before = settled(&journal, &nodes, 0).await;
        let saved = journal.save();
        let lost = publish(&nodes, 10..17).await;
        settled(&journal, &nodes, 0).await;
        put_back(&journal, &nodes, &saved, how).await;
        let after = settled(&journal, &nodes, before).await;
        assert_eq!(the_same(&nodes).await, numbers(0..10), "{how:?}");
        publish(&nodes, 20..30).await;
        assert_eq!(settled(&journal, &nodes, before).await, after);
        let all = [numbers(0..10), numbers(20..30)].concat();
        assert_eq!(the_same(&nodes).await, all);
        cursors_go_on(&nodes, &good, &lost).await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_of_everything_all_nodes_go_on_with_nothing() {
    for how in ["unseen", "cut", "down"] {
        for count in [1, 3, 12] {
            let journal = MemoryJournal::new();
            let mut nodes = nodes(&journal, 3).await;
            let lost = publish(&nodes, 0..count).await;
            let before = settled(&journal, &nodes, 0).await;
            match how {
                "cut" => nodes.iter().for_each(|node| node.journal.cut(true)),
                "down" => journal.set_up(false),
                _ => {}
            }
            journal.wipe();
            nodes.iter().for_each(|node| node.journal.cut(false));
            if how == "down" {
                journal.set_up(true);
            }
            // One that knows nothing of it is there as soon as they.
            nodes.push(Node::new(&journal).await);
            settled(&journal, &nodes, before).await;
            assert_eq!(the_same(&nodes).await, [""; 0], "{how} {count}");
            publish(&nodes, 20..30).await;
            settled(&journal, &nodes, before).await;
            assert_eq!(the_same(&nodes).await, numbers(20..30));
            cursors_go_on(&nodes[..3], &[], &lost).await;
        }
    }
}

/// A publisher whose entries were on their way gets them into the new history, once.
#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_is_in_the_new_history_once() {
    for count in [1, 5, 40] {
        let journal = MemoryJournal::new();
        let nodes = nodes(&journal, 3).await;
        publish(&nodes, 0..count).await;
        let before = settled(&journal, &nodes, 0).await;
        journal.wipe();
        let publishing = nodes.iter().enumerate().map(|(n, node)| async move {
            let mut stored = Vec::new();
            for i in 0..20 {
                let data = format!("{n}-{i}");
                // Refused while it is verified.
                let batch = tidings::log::Batch {
                    drafts: vec![draft("a", &data)],
                    all_or_nothing: false,
                };
                if node.log.append(batch).await.is_ok() {
                    stored.push(data);
                }
            }
            stored
        });
        crate::log_support::join_all(publishing).await;
        let after = settled(&journal, &nodes, before).await;
        let mut kept = the_same(&nodes).await;
        kept.sort();
        let len = kept.len();
        kept.dedup();
        assert_eq!(kept.len(), len, "none twice");
        assert_ne!(after, before);
        publish(&nodes, 100..110).await;
        settled(&journal, &nodes, before).await;
        assert_eq!(the_same(&nodes).await[len..], numbers(100..110));
    }
}

#[tokio::test(start_paused = true)]
async fn rollbacks_follow_each_other_also_past_an_earlier_epoch() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 3).await;
    let first = publish(&nodes, 0..5).await;
    let e1 = settled(&journal, &nodes, 0).await;
    let early = journal.save();
    let second = publish(&nodes, 5..10).await;
    settled(&journal, &nodes, 0).await;
    let middle = journal.save();
    publish(&nodes, 10..15).await;
    settled(&journal, &nodes, 0).await;
    journal.put_back(&middle);
    let e2 = settled(&journal, &nodes, e1).await;
    let third = publish(&nodes, 20..25).await;
    settled(&journal, &nodes, e1).await;
    let late = journal.save();
    // Within the present epoch.
    publish(&nodes, 25..28).await;
    settled(&journal, &nodes, e1).await;
    journal.put_back(&late);
    let e3 = settled(&journal, &nodes, e2).await;
    let all = [numbers(0..10), numbers(20..25)].concat();
    assert_eq!(the_same(&nodes).await, all);
    cursors_go_on(
        &nodes,
        &[first.clone(), second.clone(), third.clone()].concat(),
        &[],
    )
    .await;
    // To the time before two of them.
    journal.put_back(&early);
    let e4 = settled(&journal, &nodes, e3).await;
    assert_eq!(the_same(&nodes).await, numbers(0..5));
    cursors_go_on(&nodes, &first, &[second.clone(), third.clone()].concat()).await;
    publish(&nodes, 30..35).await;
    settled(&journal, &nodes, e3).await;
    cursors_go_on(&nodes, &first, &[second.clone(), third].concat()).await;
    // And to a copy in which an epoch began that nobody has any more.
    journal.put_back(&late);
    settled(&journal, &nodes, e4).await;
    let kept = the_same(&nodes).await;
    assert_eq!(kept[..5], numbers(0..5));
    let fresh = Node::new(&journal).await;
    let nodes: Vec<_> = nodes.into_iter().chain([fresh]).collect();
    publish(&nodes, 40..45).await;
    settled(&journal, &nodes, e4).await;
    let kept = the_same(&nodes).await;
    assert_eq!(kept[kept.len() - 5..], numbers(40..45));
}

/// Whoever was away comes back to an epoch that the others began, with what it has: all of the old, some, or nothing.
#[tokio::test(start_paused = true)]
async fn who_was_away_joins_the_epoch_of_the_others() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 3).await;
    let good = publish(&nodes, 0..6).await;
    let before = settled(&journal, &nodes, 0).await;
    let old = nodes.pop().unwrap().killed().await;
    publish(&nodes, 6..9).await;
    settled(&journal, &nodes, 0).await;
    let saved = journal.save();
    let lost = publish(&nodes, 9..12).await;
    settled(&journal, &nodes, 0).await;
    let newest = nodes.pop().unwrap().killed().await;
    journal.put_back(&saved);
    settled(&journal, &nodes, before).await;
    publish(&nodes, 20..40).await;
    for local in [old, newest] {
        nodes.push(Node::on(&journal, local, &system()).await);
        settled(&journal, &nodes, before).await;
    }
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, before).await;
    assert_eq!(
        the_same(&nodes).await,
        [numbers(0..9), numbers(20..40)].concat()
    );
    for node in &nodes {
        for cursor in &good {
            assert_eq!(start(&*node.log, Start::Cursor(*cursor), ALL).await.0, None);
        }
        for cursor in &lost {
            let (gap, _) = start(&*node.log, Start::Cursor(*cursor), ALL).await;
            assert_eq!(gap, Some(StartGap::Epoch));
        }
    }
}

/// The journal's beginning is gone: where two histories part is found all the same.
#[tokio::test(start_paused = true)]
async fn a_trimmed_journal_is_rolled_back_to_the_fork_and_no_further() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 3).await;
    let good = publish(&nodes, 0..40).await;
    let before = settled(&journal, &nodes, 0).await;
    journal.trim(30);
    let saved = journal.save();
    let lost = publish(&nodes, 40..45).await;
    settled(&journal, &nodes, 0).await;
    journal.put_back(&saved);
    settled(&journal, &nodes, before).await;
    assert_eq!(the_same(&nodes).await, numbers(0..40));
    cursors_go_on(&nodes, &good, &lost).await;
}

/// The engine on disk does the same as the one in memory.
#[tokio::test]
async fn on_disk_and_in_memory_the_history_is_the_same() {
    let journal = MemoryJournal::new();
    let dir = tempfile::tempdir().unwrap();
    let local = SqliteLog::open(
        dir.path(),
        Durability::Replica,
        options(&ManualClock::new()),
    );
    let disk = Node::on(&journal, Arc::new(local.unwrap()), &system()).await;
    let nodes = [disk, Node::new(&journal).await];
    settled(&journal, &nodes, 0).await;
    let good = publish(&nodes, 0..10).await;
    let before = settled(&journal, &nodes, 0).await;
    let saved = journal.save();
    let lost = publish(&nodes, 10..15).await;
    settled(&journal, &nodes, 0).await;
    journal.put_back(&saved);
    let second = settled(&journal, &nodes, before).await;
    publish(&nodes, 20..30).await;
    settled(&journal, &nodes, 0).await;
    assert_eq!(
        the_same(&nodes).await,
        [numbers(0..10), numbers(20..30)].concat()
    );
    cursors_go_on(&nodes, &good, &lost).await;
    journal.wipe();
    settled(&journal, &nodes, second).await;
    publish(&nodes, 30..35).await;
    settled(&journal, &nodes, second).await;
    assert_eq!(the_same(&nodes).await, numbers(30..35));
    cursors_go_on(&nodes, &[], &good).await;
}
