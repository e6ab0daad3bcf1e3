//! A node that begins with a copy of another's replica.

use super::*;
use std::path::Path;
use tidings::log::sqlite::{Durability, FILE, SqliteLog};

fn on_disk(dir: &Path) -> Arc<dyn ReplicaLog> {
    let options = options(&ManualClock::new());
    Arc::new(SqliteLog::open(dir, Durability::Replica, options).unwrap())
}

/// Taken while the other runs, and put where the new one looks: it has what the journal no longer has, and goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_anothers_replica_is_as_good_as_ones_own() {
    let journal = MemoryJournal::new();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut nodes = vec![Node::on(&journal, on_disk(first.path()), &system()).await];
    settled(&journal, &nodes, 0).await;
    publish(&nodes, 0..40).await;

    let copy = second.path().join(FILE);
    let source = rusqlite::Connection::open(first.path().join(FILE)).unwrap();
    source
        .execute("VACUUM INTO ?", [copy.to_str().unwrap()])
        .unwrap();
    let copied = journal.last();
    publish(&nodes, 40..60).await;
    journal.trim(copied - 5);

    nodes.push(Node::on(&journal, on_disk(second.path()), &system()).await);
    nodes.push(Node::new(&journal).await);
    settled(&journal, &nodes, 0).await;
    let late = nodes.pop().unwrap();
    assert_eq!(the_same(&nodes).await, numbers(0..60));
    assert_eq!(nodes[1].log.bounds().removed_to, 0, "it knows of no loss");
    // Without the copy it would not have them.
    assert!(late.kept().await.events.len() < 60);
}
