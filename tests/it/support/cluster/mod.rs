//! Several hubs in processes of their own on one broker, and a load on them: publishers that note what was acknowledged,
//! and a crowd of readers that note what they got.

mod check;
pub(crate) mod feed;
mod load;
mod publisher;
mod reader;

pub(crate) use load::{Load, Options};

use super::{broker::fresh_name, hub::HubProcess, stream::DEADLINE};
use feed::Feed;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tidings::cursor::Cursor;
use tokio::time::{Instant, interval, timeout};

/// A node is ready, or a publish acknowledged, after much less than this on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the load is published.
pub(crate) const EVERYTHING: &str = "load/**";

/// Nodes of one cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<HubProcess>,
    /// Its name in the broker.
    pub(crate) name: String,
}

/// A place in the log, and what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) at: Cursor,
    pub(crate) publisher: usize,
    /// Its number among the publisher's, from 0.
    pub(crate) number: u32,
}

impl Cluster {
    /// Starts three nodes on the broker at that URL, with more lines of their `[cluster]` table, and waits until they are
    /// ready.
    pub(crate) async fn start(url: &str, more: &str) -> Self {
        let name = fresh_name();
        let config = format!("[cluster]\njournal = {url:?}\nname = {name:?}\n{more}");
        let nodes = (0..3).map(|_| HubProcess::start(&config)).collect();
        let cluster = Self { nodes, name };
        cluster.until_ready().await;
        cluster
    }

    /// Waits until all nodes are ready.
    pub(crate) async fn until_ready(&self) {
        for node in &self.nodes {
            until_ready(node).await;
        }
    }

    /// What that node has of the load, in its order, right now.
    pub(crate) async fn stored(&self, node: usize) -> Vec<Event> {
        // Behind all that the node has stands this.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let node = &self.nodes[node];
        let mark = format!("mark {}", NEXT.fetch_add(1, Ordering::Relaxed));
        publish_soon(node, "load/mark", &mark).await;
        let path = format!("/events?topic={EVERYTHING}&since=earliest");
        let mut feed = Feed::open(node.address(), &path, None).await.expect("it");
        let mut stored = Vec::new();
        let read = async {
            loop {
                let block = feed.next().await.expect("the stream goes on");
                assert_eq!(block.event, "", "{block:?}");
                if block.data == mark {
                    return;
                }
                stored.extend(Event::parse(&block));
            }
        };
        timeout(PATIENCE, read).await.expect("all that is stored");
        stored
    }

    /// What that node gives of the load after an event, up to another one, which it must have.
    pub(crate) async fn replay(&self, node: usize, after: Cursor, to: Cursor) -> Vec<Event> {
        let path = format!("/events?topic={EVERYTHING}");
        let address = self.nodes[node].address();
        let id = after.to_string();
        let mut feed = Feed::open(address, &path, Some(&id)).await.expect("it");
        let mut events: Vec<Event> = Vec::new();
        let read = async {
            while events
                .last()
                .is_none_or(|event| event.at.position < to.position)
            {
                let block = feed.next().await.expect("the stream goes on");
                assert_eq!(block.event, "", "node {node}, after {after}: {block:?}");
                events.extend(Event::parse(&block));
            }
        };
        let read = timeout(DEADLINE, read).await;
        assert!(
            read.is_ok(),
            "node {node}, from {after} to {to}: {events:?}"
        );
        events
    }

    /// The newest event that a node has at this moment, as it tells by itself.
    pub(crate) async fn newest(&self, node: usize) -> Cursor {
        let path = format!("/events?topic={EVERYTHING}&tail=1");
        let address = self.nodes[node].address();
        let mut feed = Feed::open(address, &path, None).await.expect("it");
        feed.next()
            .await
            .expect("an event")
            .id
            .parse()
            .expect("an id")
    }

    /// Publishes on each node until it is acknowledged; how long the slowest took.
    pub(crate) async fn healed_after(&self) -> Duration {
        let begun = Instant::now();
        for node in &self.nodes {
            publish_soon(node, "probe", "x").await;
        }
        begun.elapsed()
    }
}

impl Event {
    /// `None`: something that does not belong to the load.
    pub(crate) fn parse(block: &feed::Block) -> Option<Self> {
        let mut words = block.data.split(' ');
        let publisher = words.next()?.parse().ok()?;
        let number = words.next()?.parse().ok()?;
        let at = block.id.parse().expect("an id");
        Some(Self {
            at,
            publisher,
            number,
        })
    }
}

/// Waits until the node is ready; how long that took.
pub(crate) async fn until_ready(node: &HubProcess) -> Duration {
    let begun = Instant::now();
    let mut tick = interval(Duration::from_millis(10));
    loop {
        tick.tick().await;
        match node.get("/readyz").await {
            Ok((200, _)) => return begun.elapsed(),
            other => assert!(begun.elapsed() < PATIENCE, "not ready: {other:?}"),
        }
    }
}

/// Waits until `/readyz` says 200 and that the journal is down; it may say nothing but 200.
pub(crate) async fn until_journal_down(node: &HubProcess) {
    let begun = Instant::now();
    let mut tick = interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let (status, body) = node.get("/readyz").await.expect("an answer");
        assert_eq!(status, 200, "{body}");
        if body.contains("journal down") {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{body}");
    }
}

/// Publishes until it is acknowledged.
pub(crate) async fn publish_soon(node: &HubProcess, topic: &str, data: &str) {
    let begun = Instant::now();
    let key = rand::random::<u64>().to_string();
    let mut tick = interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        match node.post_raw(topic, data, &key).await {
            Ok((200 | 201, _)) => return,
            Ok((503 | 504, _)) if begun.elapsed() < PATIENCE => {}
            other => panic!("{other:?} after {:?}", begun.elapsed()),
        }
    }
}

/// What a test has measured, for those who run it with `--nocapture`.
#[expect(clippy::print_stderr, reason = "shown by the test harness on request")]
pub(crate) fn note(text: &str) {
    eprintln!("cluster: {text}");
}
