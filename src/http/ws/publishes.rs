//! What a connection publishes: in the order in which it came, as many events at a time as came while the last were on
//! their way to the log. So one client that does not wait for its answers reaches the log's group commit.

use super::message;
use crate::{
    event::Draft,
    http::outcome::{append_problem, conflict, put_result},
    ingest::Ingest,
    topic::Topic,
};
use std::future::pending;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// What is gathered at most: while there is so much, the connection is not read.
const COUNT_MAX: usize = 64;
const BYTES_MAX: usize = 1 << 20; // 1 MiB

/// The publishes of a connection that are not answered yet.
pub(super) struct Publishes {
    ingest: Ingest,
    tasks: TaskTracker,
    /// What waits, and its data's bytes.
    gathered: Vec<(Asked, Draft)>,
    bytes: usize,
    /// What is on its way. Gives the answers.
    under_way: Option<JoinHandle<Vec<String>>>,
}

/// What of a message its answer needs.
struct Asked {
    reference: Option<String>,
    topic: Topic,
    shown: Box<str>,
}

impl Publishes {
    pub(super) fn new(ingest: Ingest, tasks: TaskTracker) -> Self {
        Self {
            ingest,
            tasks,
            gathered: Vec::new(),
            bytes: 0,
            under_way: None,
        }
    }

    /// Adds an event, and what its answer is to say of the message.
    pub(super) fn add(&mut self, draft: Draft, reference: Option<String>, message: &str) {
        let asked = Asked {
            reference,
            topic: draft.topic.clone(),
            shown: message::shown(message).into(),
        };
        self.bytes += draft.data.len();
        self.gathered.push((asked, draft));
    }

    pub(super) fn is_full(&self) -> bool {
        self.gathered.len() >= COUNT_MAX || self.bytes >= BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.under_way.is_none()
    }

    /// Waits for the next answers; for ever if nothing is to be answered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Vec<String> {
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
        let answers = under_way.await;
        self.under_way = None;
        // It cannot but end well, unless the process goes down.
        answers.unwrap_or_default()
    }
}

async fn publish(ingest: Ingest, group: Vec<(Asked, Draft)>) -> Vec<String> {
    let (asked, drafts): (Vec<Asked>, Vec<Draft>) = group.into_iter().unzip();
    let outcomes = ingest.publish(drafts, false).await;
    let mut outcomes = outcomes.map(Vec::into_iter);
    let answers = asked.into_iter().map(|asked| {
        let mut result = String::with_capacity(96 + asked.topic.as_str().len());
        let done = match &mut outcomes {
            Ok(outcomes) => match outcomes.next() {
                None => Err(conflict(&asked.topic)),
                Some(outcome) => put_result(&asked.topic, outcome, &mut result),
            },
            Err(error) => Err(append_problem(*error)),
        };
        match done {
            Ok(()) => message::published(asked.reference, &result),
            Err(problem) => message::error(asked.reference, &problem, &asked.shown),
        }
    });
    answers.collect()
}
