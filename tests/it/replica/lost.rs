//! What is not published, or not known to be: a journal that is down, that does not show, a node that lags, clocks, sizes.

use super::*;
use crate::log_support::{keyed, try_append};
use tidings::log::{AppendError, Batch, Outcome, TAIL_GROUPS};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_while_the_journal_is_down() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    publish(&nodes, 0..3).await;
    let epoch = settled(&journal, &nodes, 0).await;
    journal.set_up(false);
    within(SOON, "it is seen", || !nodes[0].log.standing().linked).await;
    let refused = try_append(&*nodes[0].log, vec![draft("a", "x")]).await;
    assert_eq!(refused, Err(AppendError::Unavailable));
    // Readers go on.
    let standing = nodes[0].log.standing();
    assert!(standing.is_ready() && !standing.takes_publishes());
    assert!(standing.last_error.is_some());
    assert_eq!(the_same(&nodes).await, numbers(0..3));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    journal.set_up(true);
    let begun = Instant::now();
    assert_eq!(settled(&journal, &nodes, 0).await, epoch);
    assert!(begun.elapsed() < Duration::from_secs(5));
    publish(&nodes, 3..6).await;
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await, numbers(0..6));
}

/// The entry is in the journal, and does not come back: the same key settles what became of it.
#[tokio::test(start_paused = true)]
async fn what_does_not_come_back_in_time_is_unknown_and_its_key_settles_it() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    let held = nodes[1].local.tail();
    for n in 0..TAIL_GROUPS {
        put(&*nodes[0].log, "a", &n.to_string()).await;
    }
    settled(&journal, &nodes, 0).await;
    let begun = Instant::now();
    let unknown = try_append(&*nodes[1].log, vec![keyed("a", "once", "k")]).await;
    assert_eq!(unknown, Err(AppendError::TimedOut));
    assert_eq!(begun.elapsed().as_secs(), 10);
    // By now it is far behind.
    let refused = try_append(&*nodes[1].log, vec![keyed("a", "once", "k")]).await;
    assert_eq!(refused, Err(AppendError::Unavailable));
    let standing = nodes[1].log.standing();
    assert!(!standing.is_ready() && standing.lag > Duration::from_secs(2));
    assert!(standing.lag_entries > 0);
    drop(held);
    settled(&journal, &nodes, 0).await;
    for node in &nodes {
        let settled = try_append(&*node.log, vec![keyed("a", "once", "k")]).await;
        assert!(matches!(settled.unwrap()[..], [Outcome::Duplicate(_)]));
    }
    let kept = the_same(&nodes).await;
    assert_eq!(kept.iter().filter(|data| *data == "once").count(), 1);
    publish(&nodes, 100..103).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_journal_cannot_take_is_refused_by_name() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    let log = &*nodes[0].log;
    let large = "x".repeat(1 << 20);
    let refused = try_append(log, vec![draft("a", &large)]).await;
    let Ok([Outcome::TooLarge(max)]) = refused.as_deref() else {
        panic!("{refused:?}");
    };
    let max = *max;
    let alone = Batch {
        drafts: vec![draft("a", &large)],
        all_or_nothing: true,
    };
    assert_eq!(log.append(alone).await, Err(AppendError::TooLarge(max)));
    assert!(max > 1_000_000 && max < 1 << 20);
    let half = "x".repeat(600_000);
    let both = vec![draft("a", &half), draft("a", &half)];
    let all_or_nothing = Batch {
        drafts: both.clone(),
        all_or_nothing: true,
    };
    assert_eq!(
        log.append(all_or_nothing).await,
        Err(AppendError::TooLarge(max))
    );
    assert_eq!(append(log, both).await.len(), 2);
    let many = vec![draft("a", "x"); 65_537];
    let all_or_nothing = Batch {
        drafts: many.clone(),
        all_or_nothing: true,
    };
    assert_eq!(
        log.append(all_or_nothing).await,
        Err(AppendError::TooMany(65_536))
    );
    // In pieces they are welcome. 65,536 at once fit an entry.
    assert_eq!(append(log, many).await.len(), 65_537);
    let all_or_nothing = Batch {
        drafts: vec![draft("a", ""); 65_536],
        all_or_nothing: true,
    };
    let entry = journal.last();
    assert_eq!(log.append(all_or_nothing).await.unwrap().len(), 65_536);
    assert_eq!(journal.last(), entry + 1);
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await.len(), 2 + 65_537 + 65_536);
}

/// Others came with it by chance: what else a connection sent meanwhile.
#[tokio::test(start_paused = true)]
async fn one_that_is_too_large_does_not_keep_the_others_out() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    let log = &*nodes[0].log;
    let large = "x".repeat(1 << 20);
    put(log, "a", "before").await;
    try_append(log, vec![keyed("a", "1", "k")]).await.unwrap();
    for known in [false, true] {
        let mut batch = vec![
            draft("a", &large),
            draft("a", "2"),
            draft("a", &large),
            draft("a", "3"),
        ];
        if known {
            batch.insert(1, keyed("a", "1", "k"));
            batch.push(keyed("a", &large, "other"));
        }
        let outcomes = try_append(log, batch).await.unwrap();
        let told: String = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Stored(_) => 's',
                Outcome::Duplicate(_) => 'd',
                Outcome::Conflict => 'c',
                Outcome::TooLarge(_) => 'l',
            })
            .collect();
        assert_eq!(told, if known { "ldslsl" } else { "lsls" });
    }
    // What was refused has used up no key.
    let other = try_append(log, vec![keyed("a", "4", "other")]).await;
    assert!(matches!(other.as_deref(), Ok([Outcome::Stored(_)])));
    settled(&journal, &nodes, 0).await;
    let kept = ["before", "1", "2", "3", "2", "3", "4"];
    assert_eq!(the_same(&nodes).await, kept);
}

/// A node whose clock is wrong publishes nothing; the others are not misled by it.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_its_own_nodes_trouble() {
    for (off_ms, publishes) in [
        (0, true),
        (6_000, true),
        (59_000, true),
        (61_000, false),
        (3_600_000, false),
    ] {
        let journal = MemoryJournal::new();
        let wall = ManualClock::new();
        let wrong = ManualClock::new();
        wrong.advance(off_ms);
        let mut nodes = Vec::new();
        for clock in [&wall, &wall, &wrong] {
            let options = options(&ManualClock::new());
            let local = Arc::new(MemoryLog::replica(options));
            nodes.push(Node::on(&journal, local, &clock.clock()).await);
        }
        within(SOON, "all know each other", || {
            nodes.iter().all(|node| node.log.nodes().len() == 3)
        })
        .await;
        within(SOON, "it is known", || {
            nodes[2].log.standing().clock_off_ms == off_ms
                && nodes[..2]
                    .iter()
                    .all(|node| node.log.standing().clock_off_ms == 0)
        })
        .await;
        assert_eq!(nodes[2].log.standing().takes_publishes(), publishes);
        let stored = try_append(&*nodes[2].log, vec![draft("a", "x")]).await;
        assert_eq!(stored.is_ok(), publishes);
        put(&*nodes[0].log, "a", "y").await;
        // It is set.
        wrong.back(off_ms);
        within(SOON, "it is well again", || {
            nodes[2].log.standing().takes_publishes()
        })
        .await;
    }
}
