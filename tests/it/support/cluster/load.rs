//! The load: its tasks, what they tell of themselves, and its end.

use super::{
    Cluster, Event, PATIENCE, check,
    check::Report,
    publish_soon,
    publisher::{Acknowledged, Publisher, Refusal},
    reader::{END, END_TOPIC, Reader, Received, Want},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{timeout, timeout_at},
};

/// One for each node.
pub(super) const PUBLISHERS: usize = 3;

/// What a load is like, and what may happen to it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) readers: usize,
    /// Of a hundred readers, how many go to another node now and then.
    pub(crate) wander: usize,
    /// Bytes of each event.
    pub(crate) padding: usize,
    /// After which a publisher takes a request for lost.
    pub(crate) request_timeout: Duration,
    /// Nodes may end, go down, or not answer.
    pub(crate) nodes_end: bool,
    /// The broker may be away.
    pub(crate) broker_ends: bool,
    /// Readers may be told of a gap.
    pub(crate) gaps: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 300,
            wander: 50,
            padding: 64,
            request_timeout: Duration::from_secs(20),
            nodes_end: false,
            broker_ends: false,
            gaps: false,
        }
    }
}

/// How far the load is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Events of each publisher.
    pub(crate) acknowledged: [u64; PUBLISHERS],
    /// Requests that were answered 503.
    pub(crate) unavailable: u64,
    /// Requests that were answered 504.
    pub(crate) pending: u64,
    /// Requests without an answer.
    pub(crate) lost: u64,
    /// Events that were there already when they were acknowledged.
    pub(crate) settled: u64,
    /// Gaps that readers were told of.
    pub(crate) gaps: u64,
    complaints: u64,
}

/// What the tasks of a load share.
pub(super) struct Shared {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) options: Options,
    acknowledged: Mutex<Vec<Event>>,
    tally: watch::Sender<Tally>,
    complaints: Mutex<Vec<String>>,
    stopped: watch::Sender<bool>,
}

/// A load that runs. Its tasks end on drop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    publishers: JoinSet<()>,
    readers: JoinSet<Received>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster, options: Options) -> Self {
        let shared = Arc::new(Shared {
            addresses: cluster.nodes.iter().map(|node| node.address()).collect(),
            options,
            acknowledged: Mutex::default(),
            tally: watch::Sender::default(),
            complaints: Mutex::default(),
            stopped: watch::Sender::default(),
        });
        let (mut publishers, mut readers) = (JoinSet::new(), JoinSet::new());
        for index in 0..shared.options.readers {
            let reader = Reader {
                index,
                want: Want::of(index),
                // Wanderers and others of each want.
                wanders: (index * 37) % 100 < shared.options.wander,
                shared: Arc::clone(&shared),
            };
            readers.spawn(reader.run());
        }
        for index in 0..PUBLISHERS {
            let http = reqwest::Client::builder()
                .no_proxy()
                .timeout(shared.options.request_timeout);
            let publisher = Publisher {
                index,
                shared: Arc::clone(&shared),
                http: http.build().expect("an HTTP client"),
            };
            publishers.spawn(publisher.run());
        }
        Self {
            shared,
            publishers,
            readers,
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        *self.shared.tally.borrow()
    }

    /// Waits until each publisher has so many more acknowledged.
    pub(crate) async fn each_publishes(&self, more: u64) {
        let before = self.tally().acknowledged;
        let what = format!("{more} more of each publisher");
        self.until(&what, |tally| {
            let mut both = tally.acknowledged.iter().zip(before);
            both.all(|(now, before)| *now >= before + more)
        })
        .await;
    }

    /// Waits for a state of the load.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Tally) -> bool) {
        let mut tally = self.shared.tally.subscribe();
        let waited = tally.wait_for(|tally| tally.complaints > 0 || holds(tally));
        let came = timeout(PATIENCE, waited).await.map(|_| ());
        self.shared.no_complaints();
        assert!(came.is_ok(), "not in time: {what}: {:?}", self.tally());
    }

    /// What is acknowledged so far, in the log's order.
    pub(crate) fn acknowledged(&self) -> Vec<Event> {
        let mut events = self.shared.list().clone();
        events.sort_unstable_by_key(|event| event.at.position);
        events
    }

    /// Ends the load: publishers until all is acknowledged that they began, readers until they have all. Then compares what
    /// readers got with what nodes have; `complete` are those that must have all.
    pub(crate) async fn finish(mut self, cluster: &Cluster, complete: &[usize]) -> Report {
        self.shared.stopped.send_replace(true);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Some(ended) = timeout_at(deadline, self.publishers.join_next())
            .await
            .expect("publishers that end")
        {
            ended.expect("a publisher");
        }
        publish_soon(&cluster.nodes[complete[0]], END_TOPIC, END).await;
        let mut received = Vec::new();
        loop {
            match timeout_at(deadline, self.readers.join_next()).await {
                Ok(Some(reader)) => received.push(reader.expect("a reader")),
                Ok(None) => break,
                Err(_) => {
                    self.shared.no_complaints();
                    panic!(
                        "{} of {} readers did not get the end in time",
                        self.readers.len(),
                        self.shared.options.readers
                    );
                }
            }
        }
        self.shared.no_complaints();
        let acknowledged = self.acknowledged();
        let mut stored = Vec::new();
        for node in complete {
            stored.push((*node, cluster.stored(*node).await));
        }
        check::check(&acknowledged, &stored, &received, self.tally())
    }
}

impl Shared {
    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Event>> {
        self.acknowledged.lock().expect("no panic")
    }

    pub(super) fn acknowledged(&self, publisher: usize, events: Vec<(Acknowledged, bool)>) {
        let count = events.len() as u64;
        let settled = events.iter().filter(|(_, duplicate)| *duplicate).count() as u64;
        self.list()
            .extend(events.into_iter().map(|(event, _)| Event {
                at: event.at,
                publisher,
                number: event.number,
            }));
        self.tally.send_modify(|tally| {
            tally.acknowledged[publisher] += count;
            tally.settled += settled;
        });
    }

    pub(super) fn refused(&self, node: usize, refusal: &Refusal) {
        let Options {
            nodes_end,
            broker_ends,
            ..
        } = self.options;
        let add: fn(&mut Tally) = match refusal {
            Refusal::Lost(_) if nodes_end => |tally| tally.lost += 1,
            Refusal::Problem(503, kind) if kind == "draining" && nodes_end => {
                |tally| tally.unavailable += 1
            }
            Refusal::Problem(503, kind)
                if kind == "log-unavailable" && (nodes_end || broker_ends) =>
            {
                |tally| tally.unavailable += 1
            }
            Refusal::Problem(504, kind) if kind == "outcome-pending" && broker_ends => {
                |tally| tally.pending += 1
            }
            other => {
                self.complain(format!("node {node} did not take a publish: {other:?}"));
                return;
            }
        };
        self.tally.send_modify(add);
    }

    pub(super) fn gap(&self, reader: usize, data: &str) {
        self.tally.send_modify(|tally| tally.gaps += 1);
        if !self.options.gaps {
            self.complain(format!("reader {reader} was told of a gap: {data}"));
        }
    }

    pub(super) fn complain(&self, text: String) {
        self.complaints.lock().expect("no panic").push(text);
        self.tally.send_modify(|tally| tally.complaints += 1);
    }

    fn no_complaints(&self) {
        let complaints = self.complaints.lock().expect("no panic");
        let first = &complaints[..complaints.len().min(10)];
        assert!(
            first.is_empty(),
            "{} complaints: {first:#?}",
            complaints.len()
        );
    }
}
