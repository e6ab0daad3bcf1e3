//! Entries that no hub wrote, that were damaged, or that a later version wrote.

use super::*;
use crate::log_support::try_append;
use tidings::log::AppendError;

#[tokio::test(start_paused = true)]
async fn what_no_hub_wrote_or_was_damaged_is_passed_over_and_counted() {
    let journal = MemoryJournal::new();
    journal.append_raw(b"before the first hub");
    let mut nodes = nodes(&journal, 2).await;
    publish(&nodes, 0..3).await;
    settled(&journal, &nodes, 0).await;
    let whole = journal.raw(journal.last()).unwrap();
    let mut odd = 1;
    for entry in [&b""[..], b"TDGJ", b"somebody else's"] {
        journal.append_raw(entry);
        odd += 1;
    }
    for at in 4..whole.len() {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 1;
        journal.append_raw(&damaged);
        odd += 1;
    }
    journal.append_raw(&whole[..whole.len() - 1]);
    odd += 1;
    publish(&nodes, 3..6).await;
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    assert_eq!(the_same(&nodes).await, numbers(0..6));
    for node in &nodes {
        assert_eq!(node.log.standing().unreadable, odd);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_versions_entry_makes_a_node_useless_but_not_dead() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    publish(&nodes, 0..3).await;
    settled(&journal, &nodes, 0).await;
    let mut newer = journal.raw(journal.last()).unwrap().to_vec();
    newer[4] = 2;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&newer[4..6]);
    crc.update(&newer[10..]);
    newer[6..10].copy_from_slice(&crc.finalize().to_be_bytes());
    journal.append_raw(&newer);
    for node in &nodes {
        timeout(SOON, node.log.outdated()).await.unwrap();
        let standing = node.log.standing();
        assert_eq!(standing.newer, Some(2));
        assert!(!standing.is_ready() && !standing.takes_publishes());
        let refused = try_append(&*node.log, vec![draft("a", "x")]).await;
        assert_eq!(refused, Err(AppendError::Unavailable));
    }
    // What it has can still be read.
    assert_eq!(the_same(&nodes).await, numbers(0..3));
}
