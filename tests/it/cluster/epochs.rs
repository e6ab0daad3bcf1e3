//! The broker loses its newest records, or all: a new epoch begins, readers are told, and all nodes have the same.

use crate::support::{
    broker::{Broker, Kind},
    cluster::{Cluster, EVERYTHING, Event, feed::Feed, publish_soon},
};
use std::ops::Range;

on_each_broker! {
    async fn an_older_copy_put_back_begins_an_epoch(kind: Kind) {
        let mut broker = Broker::start(kind).await;
        let cluster = Cluster::start(&broker.url(), "").await;
        let mut readers = readers(&cluster).await;
        publish(&cluster, 0..30).await;
        let saved = broker.save().await;
        cluster.healed_after().await;
        publish(&cluster, 30..50).await;
        for reader in &mut readers {
            reader.reads(0..50).await;
        }
        broker.put_back(&saved).await;
        for reader in &mut readers {
            reader.is_told().await;
        }
        cluster.until_ready().await;
        go_on(&cluster, &mut readers, &(0..30).collect::<Vec<_>>()).await;
    }

    async fn a_stream_that_is_lost_under_the_nodes_begins_an_epoch(kind: Kind) {
        let broker = Broker::start(kind).await;
        let cluster = Cluster::start(&broker.url(), "").await;
        let mut readers = readers(&cluster).await;
        for round in 1..3 {
            let numbers = round * 1_000..round * 1_000 + 30;
            publish(&cluster, numbers.clone()).await;
            for reader in &mut readers {
                reader.reads(numbers.clone()).await;
            }
            broker.wipe(&cluster.name).await;
            for reader in &mut readers {
                reader.is_told().await;
            }
        }
        cluster.until_ready().await;
        go_on(&cluster, &mut readers, &[]).await;
    }

    /// A reader comes back with an id of what is gone.
    async fn a_stream_that_is_lost_while_the_nodes_are_away_begins_an_epoch(kind: Kind) {
        let broker = Broker::start(kind).await;
        let mut cluster = Cluster::start(&broker.url(), "").await;
        let mut before = readers(&cluster).await;
        publish(&cluster, 0..30).await;
        before[0].reads(0..30).await;
        let last = before[0].last.clone();
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        broker.wipe(&cluster.name).await;
        // One comes with nothing, and may be the first.
        cluster.nodes[0].wipe();
        cluster.nodes.iter_mut().for_each(|node| node.start_again());
        cluster.until_ready().await;
        let mut readers = Vec::new();
        for node in 0..3 {
            let mut reader = Reader::open(&cluster, node, Some(&last)).await;
            reader.is_told().await;
            readers.push(reader);
        }
        go_on(&cluster, &mut readers, &[]).await;
    }
}

/// The last writes never reached the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_newest_bytes_begins_an_epoch() {
    let _alone = super::alone().await;
    let mut broker = Broker::start(Kind::Redis).await;
    let cluster = Cluster::start(&broker.url(), "").await;
    let mut readers = readers(&cluster).await;
    publish(&cluster, 0..50).await;
    for reader in &mut readers {
        reader.reads(0..50).await;
    }
    // Some entries of some 200 bytes each, and the middle of one.
    broker.cut_aof(2_345).await;
    for reader in &mut readers {
        reader.is_told().await;
    }
    cluster.until_ready().await;
    let kept = go_on_after(&cluster, &mut readers).await;
    assert!(!kept.is_empty() && kept.len() < 50, "{kept:?}");
    assert!(kept.iter().copied().eq(0..kept.len() as u32));
}

/// Publishes them by turns on the nodes.
pub(super) async fn publish(cluster: &Cluster, numbers: Range<u32>) {
    for n in numbers {
        let node = &cluster.nodes[n as usize % cluster.nodes.len()];
        publish_soon(node, "load/a", &format!("0 {n}")).await;
    }
}

/// From now on all get the same, and have the same: what was kept, and what follows.
async fn go_on(cluster: &Cluster, readers: &mut [Reader], kept: &[u32]) {
    assert_eq!(go_on_after(cluster, readers).await, kept);
}

/// The same; gives what was kept.
async fn go_on_after(cluster: &Cluster, readers: &mut [Reader]) -> Vec<u32> {
    cluster.healed_after().await;
    publish(cluster, 100..120).await;
    for reader in readers {
        reader.reads(100..120).await;
    }
    let first = cluster.stored(0).await;
    for node in 1..3 {
        assert_eq!(cluster.stored(node).await, first, "node {node}");
    }
    let mut numbers: Vec<_> = first.iter().map(|event| event.number).collect();
    let new = numbers.split_off(numbers.len().saturating_sub(20));
    assert!(new.iter().copied().eq(100..120), "{new:?}");
    numbers
}

/// Reads the load on one node.
pub(super) struct Reader {
    feed: Feed,
    last: String,
}

pub(super) async fn readers(cluster: &Cluster) -> Vec<Reader> {
    let mut readers = Vec::new();
    for node in 0..cluster.nodes.len() {
        readers.push(Reader::open(cluster, node, None).await);
    }
    readers
}

impl Reader {
    async fn open(cluster: &Cluster, node: usize, last_event_id: Option<&str>) -> Self {
        let since = match last_event_id {
            Some(_) => "",
            None => "&since=earliest",
        };
        let path = format!("/events?topic={EVERYTHING}{since}");
        let address = cluster.nodes[node].address();
        let feed = Feed::open(address, &path, last_event_id).await.expect("it");
        Self {
            feed,
            last: String::new(),
        }
    }

    /// Exactly these come next.
    pub(super) async fn reads(&mut self, numbers: Range<u32>) {
        for n in numbers {
            let block = self.feed.next().await.expect("the stream goes on");
            assert_eq!(block.event, "", "{block:?}");
            assert_eq!(Event::parse(&block).expect("of the load").number, n);
            self.last = block.id;
        }
    }

    /// These come next, but for what tells of an epoch that ended.
    pub(super) async fn reads_perhaps_after_a_gap(&mut self, mut numbers: Range<u32>) {
        let block = self.feed.next().await.expect("the stream goes on");
        if block.event.is_empty() {
            let number = Event::parse(&block).expect("of the load").number;
            assert_eq!(Some(number), numbers.next());
        } else {
            assert!(block.data.contains(r#""reason":"epoch""#), "{block:?}");
        }
        self.reads(numbers).await;
    }

    /// That something is of an epoch that ended comes next.
    async fn is_told(&mut self) {
        let block = self.feed.next().await.expect("the stream goes on");
        assert_eq!(block.event, "tidings.gap", "{block:?}");
        assert!(block.data.contains(r#""reason":"epoch""#), "{block:?}");
    }
}
