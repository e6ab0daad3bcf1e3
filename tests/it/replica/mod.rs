//! What nodes make of a journal, however it behaves: on a journal in memory, which loses what a broker can lose, and mostly
//! with a clock that runs as fast as nothing is to be done.

use crate::{
    log_support::{ManualClock, Replay, append, draft, filter, kept, options, put},
    support::{
        journal::{MemoryJournal, Saved},
        wait::within,
    },
};
use std::{sync::Arc, time::Duration};
use tidings::{
    cluster::{Clocks, ReplicatedLog},
    cursor::Cursor,
    event::Event,
    fanout::{Begin, Delivery, Gap, Hub, LagPolicy, Subscription},
    log::{Clock, EventLog, LogOptions, Start, memory::MemoryLog, replica::ReplicaLog},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod ahead;
mod epochs;
mod foreign;
mod keys;
mod lost;
mod model;
mod presence;
mod seed;
mod streams;
mod trimmed;

/// Longer than nodes take for anything but what is said to take its time.
const SOON: Duration = Duration::from_secs(30);

const ALL: &[&str] = &["**"];

/// A node: its replica outlives it.
struct Node {
    log: Arc<ReplicatedLog>,
    local: Arc<dyn ReplicaLog>,
    journal: MemoryJournal,
}

impl Node {
    /// Begins with nothing.
    async fn new(journal: &MemoryJournal) -> Self {
        Self::with(journal, |_| ()).await
    }

    async fn with(journal: &MemoryJournal, change: impl FnOnce(&mut LogOptions)) -> Self {
        let mut options = options(&ManualClock::new());
        change(&mut options);
        let local = Arc::new(MemoryLog::replica(options));
        Self::on(journal, local, &system()).await
    }

    async fn on(journal: &MemoryJournal, local: Arc<dyn ReplicaLog>, wall: &Clock) -> Self {
        let journal = journal.way();
        let clocks = Clocks {
            clock: ManualClock::new().clock(),
            wall: wall.clone(),
        };
        let way = Arc::new(journal.clone());
        let log = ReplicatedLog::open(Arc::clone(&local), way, clocks).await;
        Self {
            log: Arc::new(log.unwrap()),
            local,
            journal,
        }
    }

    fn epoch(&self) -> u64 {
        self.log.bounds().epoch
    }

    /// Stops without a word. Gives what is on its disk.
    async fn killed(self) -> Arc<dyn ReplicaLog> {
        let Self {
            log,
            local,
            journal,
        } = self;
        journal.cut(true);
        drop(log);
        within(SOON, "its tasks end", || Arc::strong_count(&local) == 1).await;
        local
    }

    /// A hub over it, with readers.
    fn hub(&self) -> Arc<Hub> {
        let log = Arc::clone(&self.log) as Arc<dyn EventLog>;
        let (hub, tail) = Hub::new(log, 1 << 20, CancellationToken::new());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(Arc::clone(&hub).run(tail));
        hub
    }

    async fn kept(&self) -> Replay {
        kept(&*self.log, ALL).await
    }
}

fn system() -> Clock {
    Clock::system()
}

/// So many nodes that have nothing, once they have caught up.
async fn nodes(journal: &MemoryJournal, count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::new(journal).await);
    }
    settled(journal, &nodes, 0).await;
    nodes
}

/// Waits until all of them have all of the journal, in the same epoch, which is another one than that.
async fn settled(journal: &MemoryJournal, nodes: &[Node], not: u64) -> u64 {
    assert!(!nodes.is_empty());
    let first = &nodes[0];
    let same = || {
        let epoch = first.epoch();
        epoch != 0
            && epoch != not
            && nodes.iter().all(|node| {
                let standing = node.log.standing();
                standing.takes_publishes()
                    && standing.applied == journal.last()
                    && node.epoch() == epoch
            })
    };
    let stand = || nodes.iter().map(|node| (node.epoch(), node.log.standing()));
    let settling = within(SOON * 2, "all nodes have the same", same);
    if timeout(SOON, settling).await.is_err() {
        let stand: Vec<_> = stand().collect();
        panic!("not the same, of {}, not {not}: {stand:#?}", journal.last());
    }
    first.epoch()
}

/// What an event is to a reader.
fn seen(events: &[Arc<Event>]) -> Vec<(Cursor, String, String, u64)> {
    let seen = events.iter().map(|event| {
        let data = String::from_utf8(event.data.to_vec()).unwrap();
        (
            event.cursor,
            event.topic.as_str().to_owned(),
            data,
            event.time_ms,
        )
    });
    seen.collect()
}

/// All that is kept, which is the same on all nodes: its data.
async fn the_same(nodes: &[Node]) -> Vec<String> {
    let first = nodes[0].kept().await;
    for node in &nodes[1..] {
        assert_eq!(seen(&node.kept().await.events), seen(&first.events));
    }
    first.data().into_iter().map(str::to_owned).collect()
}

/// Publishes numbers by turns on the nodes. Gives where they are.
async fn publish(nodes: &[Node], numbers: std::ops::Range<usize>) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    for n in numbers {
        let log = &*nodes[n % nodes.len()].log;
        cursors.push(put(log, "a", &n.to_string()).await);
    }
    cursors
}

fn numbers(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

/// What a reader got: data, and gaps with their reason.
async fn taken(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match timeout(SOON, subscription.next())
            .await
            .expect("something comes")
        {
            Delivery::Events(chunk) => {
                let data = chunk.events().iter().map(|event| event.data.to_vec());
                taken.extend(data.map(|data| String::from_utf8(data).unwrap()));
            }
            Delivery::Gap(Gap { reason, .. }) => taken.push(reason.as_str().to_owned()),
            Delivery::Close(_) | Delivery::Stopped => taken.push("end".to_owned()),
        }
    }
    taken
}

async fn reader(hub: &Arc<Hub>, begin: Begin) -> Subscription {
    let requested = String::new();
    Subscription::start(hub, &filter(ALL), begin, requested, LagPolicy::Gap).await
}

fn from_the_start() -> Begin {
    Begin::Log(Start::Earliest)
}
