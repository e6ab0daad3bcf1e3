//! What counts once: entries that come twice or out of their writer's sequence, and keys that several nodes take at once.

use super::*;
use crate::log_support::{join_all, keyed, try_append};
use std::collections::HashSet;
use tidings::{
    cluster::entry::{Body, Entry},
    log::Outcome,
};

#[tokio::test(start_paused = true)]
async fn an_entry_that_comes_again_is_void_everywhere() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 3).await;
    publish(&nodes, 0..6).await;
    settled(&journal, &nodes, 0).await;
    for at in 1..=journal.last() {
        journal.append_raw(&journal.raw(at).unwrap());
    }
    publish(&nodes, 6..9).await;
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await, numbers(0..9));
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_predecessor_is_missing_is_void_everywhere() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 3).await;
    publish(&nodes, 0..6).await;
    settled(&journal, &nodes, 0).await;
    let mut void = 0;
    for at in 1..=journal.last() {
        let mut entry = Entry::read(&journal.raw(at).unwrap()).unwrap();
        if let Body::Records(_) = entry.body {
            entry.number += 5;
            journal.append_raw(&entry.seal(0).bytes);
            void += 1;
        }
    }
    assert!(void >= 6);
    publish(&nodes, 6..9).await;
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await, numbers(0..9));
}

/// The next number of a writer is taken by somebody else's copy: its own entry is void, and it publishes that anew.
#[tokio::test(start_paused = true)]
async fn a_publisher_whose_number_is_taken_still_gets_its_event_in() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    publish(&nodes[..1], 0..1).await;
    settled(&journal, &nodes, 0).await;
    let records = (1..=journal.last()).rev().find_map(|at| {
        let entry = Entry::read(&journal.raw(at)?).ok()?;
        matches!(entry.body, Body::Records(_)).then_some(entry)
    });
    let mut entry = records.unwrap();
    entry.number += 1;
    entry.body = Body::Probe;
    journal.append_raw(&entry.seal(0).bytes);
    let stored = try_append(&*nodes[0].log, vec![draft("a", "mine")]).await;
    settled(&journal, &nodes, 0).await;
    // It cannot know whether what counted was its own: the answer may be that it is not known.
    let kept = the_same(&nodes).await;
    assert_eq!(
        stored.is_ok(),
        kept.contains(&"mine".to_owned()),
        "{stored:?}"
    );
    publish(&nodes, 2..8).await;
    settled(&journal, &nodes, 0).await;
    assert!(the_same(&nodes).await.ends_with(&numbers(2..8)));
}

/// Connections that break under publishers: each event is there once, whatever was handed over again.
#[tokio::test(start_paused = true)]
async fn publishers_over_broken_links_get_each_event_in_once() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 3).await;
    for round in 0..20 {
        let publishing = (0..30).map(|n| {
            let log = &nodes[n % 3].log;
            async move {
                let data = format!("{round} {n}");
                let stored = try_append(&**log, vec![draft("a", &data)]).await;
                stored.is_ok().then_some(data)
            }
        });
        let breaking = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            journal.set_up(false);
            journal.set_up(true);
        };
        let (stored, ()) = tokio::join!(join_all(publishing), breaking);
        settled(&journal, &nodes, 0).await;
        let kept = the_same(&nodes).await;
        for data in stored.into_iter().flatten() {
            assert_eq!(kept.iter().filter(|kept| **kept == data).count(), 1);
        }
        assert_eq!(kept.iter().collect::<HashSet<_>>().len(), kept.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nodes_take_at_once_is_one_event_everywhere() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 3).await;
    let mut conflicts = 0;
    for n in 0..200 {
        let key = format!("k{n}");
        let publishing = nodes.iter().enumerate().map(|(node, one)| {
            // Sometimes with another content.
            let data = if n % 5 == 0 && node == 2 {
                "other"
            } else {
                "data"
            };
            let draft = keyed("a", data, &key);
            async move { try_append(&*one.log, vec![draft]).await.unwrap()[0] }
        });
        let outcomes = join_all(publishing).await;
        let stored: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Stored(cursor) => Some(*cursor),
                _ => None,
            })
            .collect();
        assert_eq!(stored.len(), 1, "{outcomes:?}");
        for outcome in outcomes {
            match outcome {
                Outcome::Stored(cursor) | Outcome::Duplicate(cursor) => {
                    assert_eq!(cursor, stored[0]);
                }
                Outcome::Conflict => conflicts += 1,
                Outcome::TooLarge(_) => panic!("{outcome:?}"),
            }
        }
        // And later, on all of them.
        for node in &nodes {
            let again = try_append(&*node.log, vec![keyed("a", "third", &key)]).await;
            assert_eq!(again.unwrap(), [Outcome::Conflict]);
        }
    }
    assert!(conflicts >= 40);
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await.len(), 200);
}

/// The window of a key ends by the clock of the node that is asked; what then counts is decided by positions.
#[tokio::test(start_paused = true)]
async fn nodes_whose_windows_end_apart_agree_all_the_same() {
    let journal = MemoryJournal::new();
    let clock = ManualClock::new();
    let ahead = Node::with(&journal, |options| {
        options.clock = clock.clock();
        options.key_age_max_ms = 1_000;
    })
    .await;
    let nodes = [ahead, Node::new(&journal).await];
    settled(&journal, &nodes, 0).await;
    append(&*nodes[1].log, vec![keyed("a", "first", "k")]).await;
    settled(&journal, &nodes, 0).await;
    clock.advance(5_000);
    // To this node the key has expired.
    let again = append(&*nodes[0].log, vec![keyed("a", "second", "k")]).await;
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await, ["first", "second"]);
    let outcomes = try_append(&*nodes[1].log, vec![keyed("a", "second", "k")]).await;
    assert_eq!(outcomes.unwrap(), [Outcome::Duplicate(again[0])]);
}
