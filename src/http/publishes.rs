//! What a connection publishes: in the order in which it came, as many events at a time as came while the last were on
//! their way to the log. So one client that does not wait for its answers reaches the log's group commit. Knows no
//! protocol: what an answer needs of its request comes back with the result.

use super::{
    outcome::{append_problem, conflict, put_result},
    problem::Problem,
};
use crate::{event::Draft, ingest::Ingest, topic::Topic};
use std::future::pending;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// What is gathered at most: while there is so much, nothing is to be added.
const COUNT_MAX: usize = 64;
const BYTES_MAX: usize = 1 << 20; // 1 MiB

/// The publishes of a connection that are not answered yet, each with what its answer needs.
pub(super) struct Publishes<A> {
    ingest: Ingest,
    tasks: TaskTracker,
    /// What waits, and its data's bytes.
    gathered: Vec<(A, Draft)>,
    bytes: usize,
    /// What is on its way.
    under_way: Option<JoinHandle<Published<A>>>,
}

/// What became of events, in their order: each `{"id","topic","duplicate"}`, or a problem.
pub(super) type Published<A> = Vec<(A, Result<String, Problem>)>;

impl<A: Send + 'static> Publishes<A> {
    pub(super) fn new(ingest: Ingest, tasks: TaskTracker) -> Self {
        Self {
            ingest,
            tasks,
            gathered: Vec::new(),
            bytes: 0,
            under_way: None,
        }
    }

    pub(super) fn add(&mut self, draft: Draft, asked: A) {
        self.bytes += draft.data.len();
        self.gathered.push((asked, draft));
    }

    pub(super) fn is_full(&self) -> bool {
        self.gathered.len() >= COUNT_MAX || self.bytes >= BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.under_way.is_none()
    }

    /// Waits for the next results; for ever if there is nothing to publish.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Published<A> {
        if self.under_way.is_none() && !self.gathered.is_empty() {
            self.bytes = 0;
            let group = std::mem::take(&mut self.gathered);
            // By a task, since a session polls nothing while its socket is full, and others wait behind what is not polled.
            let published = publish(self.ingest.clone(), group);
            self.under_way = Some(self.tasks.spawn(published));
        }
        let Some(under_way) = &mut self.under_way else {
            return pending().await;
        };
        let published = under_way.await;
        self.under_way = None;
        // It cannot but end well, unless the process goes down.
        published.unwrap_or_default()
    }
}

async fn publish<A>(ingest: Ingest, group: Vec<(A, Draft)>) -> Published<A> {
    let asked_of = |(asked, draft): (A, Draft)| ((asked, draft.topic.clone()), draft);
    let (asked, drafts): (Vec<(A, Topic)>, Vec<Draft>) = group.into_iter().map(asked_of).unzip();
    let outcomes = ingest.publish(drafts, false).await;
    let mut outcomes = outcomes.map(Vec::into_iter);
    let published = asked.into_iter().map(|(asked, topic)| {
        let mut result = String::with_capacity(96 + topic.as_str().len());
        let done = match &mut outcomes {
            Ok(outcomes) => match outcomes.next() {
                None => Err(conflict(&topic)),
                Some(outcome) => put_result(&topic, outcome, &mut result),
            },
            Err(error) => Err(append_problem(*error)),
        };
        (asked, done.map(|()| result))
    });
    published.collect()
}
