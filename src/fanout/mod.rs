//! Fan-out: from the log's one ordered tail to the feeds that want each event.
//!
//! A *feed* is all readers on this node with the same filter; it has one broadcast channel of shared
//! [`Frame`]s. Work per event grows with the feeds that match it, not with the feeds that exist.
//! Knows the log's contract, but no engine and no transport.

mod feeds;
mod frame;
mod subscription;

pub use frame::{Chunk, Frame};
pub use subscription::{Begin, CloseReason, Delivery, Gap, GapReason, LagPolicy, Subscription};

use crate::{
    event::Event,
    log::{EventLog, Tail},
    topic::Filter,
};
use feeds::{Feed, Feeds};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast;

/// Where publishers' events meet their readers: the log, and the feeds of this node.
pub struct Hub {
    log: Arc<dyn EventLog>,
    state: Mutex<State>,
}

struct State {
    feeds: Feeds,
    /// All events up to this position have been matched with the feeds that existed then.
    matched_to: u64,
    /// The tail has ended: no feed gets anything any more.
    stopped: bool,
}

/// A place in a feed: frames come from here on until it is dropped.
struct Joined {
    hub: Arc<Hub>,
    filter: Arc<Filter>,
    frames: broadcast::Receiver<Arc<Frame>>,
    /// Every event of the feed beyond this position will come in `frames` (earlier ones may, too).
    from: u64,
    /// The log was read since, and may have covered frames that the ring then dropped.
    log_read: bool,
}

impl Hub {
    /// A hub over the log. Nothing is live until [`Hub::run`] runs.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>) -> (Arc<Self>, Tail) {
        let tail = log.tail();
        let state = State {
            feeds: Feeds::default(),
            matched_to: tail.from,
            stopped: false,
        };
        (
            Arc::new(Self {
                log,
                state: Mutex::new(state),
            }),
            tail,
        )
    }

    /// Sends what the tail yields to the feeds, until the log is closed.
    pub async fn run(self: Arc<Self>, mut tail: Tail) {
        while let Some(group) = tail.groups.recv().await {
            self.dispatch(&group);
        }
        let mut state = self.state();
        state.stopped = true;
        // With their senders gone, live readers see the end.
        state.feeds = Feeds::default();
    }

    /// Whether the log was closed: nothing comes any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// The log behind it.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// The number of feeds, which is that of different filters with a reader.
    #[must_use]
    pub fn feeds(&self) -> usize {
        self.state().feeds.len()
    }

    /// Matching happens under the lock, sending outside: a reader that joins in between gets frames at or
    /// before its [`Joined::from`], which it drops, and never lacks a later one.
    fn dispatch(&self, group: &[Arc<Event>]) {
        let mut wanted: Vec<(Arc<Feed>, Vec<Arc<Event>>)> = Vec::new();
        let mut slots: HashMap<u64, usize> = HashMap::new();
        {
            let mut state = self.state();
            for event in group {
                state.feeds.each_match(&event.topic, |feed| {
                    let slot = *slots.entry(feed.number).or_insert_with(|| {
                        wanted.push((Arc::clone(feed), Vec::new()));
                        wanted.len() - 1
                    });
                    let events = &mut wanted[slot].1;
                    // A feed whose filter matches the event in several ways gets it once.
                    if events.last().is_none_or(|last| last.cursor != event.cursor) {
                        events.push(Arc::clone(event));
                    }
                });
            }
            if let Some(last) = group.last() {
                state.matched_to = last.cursor.position;
            }
        }
        for (feed, events) in wanted {
            for frame in Frame::split(events) {
                // No receiver is left if the last reader went away meanwhile: nobody misses it.
                let _ = feed.frames.send(Arc::new(frame));
            }
        }
    }

    fn join(self: &Arc<Self>, filter: &Arc<Filter>) -> Joined {
        let mut state = self.state();
        let frames = match state.stopped {
            true => broadcast::Sender::new(1).subscribe(),
            false => state.feeds.enter(filter),
        };
        let from = state.matched_to;
        drop(state);
        Joined {
            hub: Arc::clone(self),
            filter: Arc::clone(filter),
            frames,
            from,
            log_read: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.hub.state().feeds.leave(&self.filter);
    }
}
