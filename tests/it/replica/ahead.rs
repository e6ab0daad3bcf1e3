//! A reader whose cursor its node does not know yet, or that nobody knows.

use super::*;
use crate::log_support::start;
use tidings::log::{ReadError, StartGap, TAIL_GROUPS, Tail};
use tokio::time::Instant;

/// Two nodes; the second one is as far as it gets until that tail is let go of.
async fn one_behind(journal: &MemoryJournal) -> (Vec<Node>, Tail, Vec<Cursor>) {
    let nodes = nodes(journal, 2).await;
    let held = nodes[1].local.tail();
    let mut cursors = Vec::new();
    for n in 0..TAIL_GROUPS + 10 {
        cursors.push(put(&*nodes[0].log, "a", &n.to_string()).await);
    }
    within(SOON, "it is full", || held.groups.len() == TAIL_GROUPS).await;
    assert!(nodes[1].log.bounds().head < nodes[0].log.bounds().head);
    (nodes, held, cursors)
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_its_node_does_not_know_yet_is_waited_for() {
    let journal = MemoryJournal::new();
    let (nodes, held, cursors) = one_behind(&journal).await;
    let last = *cursors.last().unwrap();
    let asked = start(&*nodes[1].log, Start::Cursor(last), ALL);
    tokio::pin!(asked);
    let early = timeout(Duration::from_secs(5), &mut asked).await;
    assert!(early.is_err(), "{early:?}");
    drop(held);
    let (gap, replay) = timeout(Duration::from_secs(4), asked).await.unwrap();
    assert_eq!((gap, replay.events.len()), (None, 0));
    settled(&journal, &nodes, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_does_not_come_in_time_ends_the_stream() {
    let journal = MemoryJournal::new();
    let (nodes, held, cursors) = one_behind(&journal).await;
    let begun = Instant::now();
    let hub = nodes[1].hub();
    let begin = Begin::Log(Start::Cursor(*cursors.last().unwrap()));
    let mut reader = reader(&hub, begin).await;
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(matches!(reader.next().await, Delivery::Stopped));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_is_down_a_cursor_ahead_cannot_be_judged() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    let cursors = publish(&nodes, 0..5).await;
    settled(&journal, &nodes, 0).await;
    journal.set_up(false);
    let log = &*nodes[0].log;
    // What it has, it has.
    let (gap, replay) = start(log, Start::Cursor(cursors[2]), ALL).await;
    assert_eq!((gap, replay.data()), (None, vec!["3", "4"]));
    let beyond = Cursor {
        position: cursors[4].position + (5 << 16),
        ..cursors[4]
    };
    let begun = Instant::now();
    let filter = filter(ALL);
    let located = log.locate(Start::Cursor(beyond), &filter).await;
    assert_eq!(located, Err(ReadError::Behind));
    assert_eq!(begun.elapsed().as_secs(), 10);
    // It comes back meanwhile.
    let asked = log.locate(Start::Cursor(beyond), &filter);
    let up = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        journal.set_up(true);
    };
    let (located, ()) = tokio::join!(asked, up);
    assert_eq!(located.unwrap().gap, Some(StartGap::Epoch));
}

/// Anybody can send an id: it begins nothing.
#[tokio::test(start_paused = true)]
async fn a_cursor_that_nobody_has_is_told_as_unknown() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    let cursors = publish(&nodes, 0..5).await;
    let epoch = settled(&journal, &nodes, 0).await;
    let last = journal.last();
    for node in &nodes {
        let hub = node.hub();
        for position in [
            cursors[4].position + 1,
            cursors[4].position + (9 << 16),
            i64::MAX as u64,
        ] {
            let forged = Cursor { epoch, position };
            let mut reader = reader(&hub, Begin::Log(Start::Cursor(forged))).await;
            let told = [vec!["unknown".to_owned()], numbers(0..5)].concat();
            assert_eq!(taken(&mut reader, 6).await, told, "{position}");
        }
        let forged = Cursor {
            epoch: epoch ^ 1,
            ..cursors[4]
        };
        let mut reader = reader(&hub, Begin::Log(Start::Cursor(forged))).await;
        let told = [vec!["epoch".to_owned()], numbers(0..5)].concat();
        assert_eq!(taken(&mut reader, 6).await, told);
    }
    assert_eq!(
        (settled(&journal, &nodes, 0).await, journal.last()),
        (epoch, last)
    );
}
