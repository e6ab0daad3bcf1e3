//! Fan-out: from the log's one ordered tail to the feeds that want each event.
//!
//! A *feed* is all readers on this node with the same filter; it has one broadcast channel of shared
//! [`Frame`]s. Work per event grows with the feeds that match it, not with the feeds that exist.
//! Knows the log's contract, but no engine and no transport.

mod cache;
mod feed;
mod feeds;
mod frame;
mod lookup;
mod pass;
mod subscription;
mod terms;

pub use frame::{Chunk, Frame};
pub use subscription::{Delivery, Subscription};
pub use terms::{Begin, CloseReason, Gap, GapReason, LagPolicy};

use crate::{
    cursor::Cursor,
    event::Event,
    log::{EventLog, Group, Tail},
    topic::{Filter, Topic},
};
use cache::FrameCache;
use feed::{Due, Feed, Sent};
use feeds::Feeds;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where publishers' events meet their readers: the log, and the feeds of this node.
pub struct Hub {
    log: Arc<dyn EventLog>,
    state: Mutex<State>,
    cache: FrameCache,
    /// Feeds whose pass ended while events gathered.
    passed: Mutex<Vec<Arc<Feed>>>,
    pass_ended: Notify,
    drain: CancellationToken,
    /// Reads of the log that readers wait for.
    reads: TaskTracker,
}

struct State {
    feeds: Feeds,
    /// The epoch of what was matched last.
    epoch: u64,
    /// All events up to this position have been matched with the feeds that existed then.
    matched_to: u64,
    /// No feed gets anything any more.
    ended: bool,
    /// The tail has ended: the log is closed.
    stopped: bool,
}

/// A reader's hold on its feed.
struct Reader {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
}

/// A place in a feed: frames come from here on until it is dropped.
struct Seat {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    frames: broadcast::Receiver<Sent>,
    /// The last token given back, if the clock counts on this reader.
    token: Option<u64>,
}

/// When feeds are due that have events gathered. Each is there once or several times, which does no harm.
#[derive(Default)]
struct Agenda {
    due: BTreeMap<(Instant, u64), Arc<Feed>>,
    made: u64,
}

impl Hub {
    /// A hub over the log, which holds so many bytes of frames, about. Nothing is live until [`Hub::run`] runs.
    /// `drain` ends all streams.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        cache_bytes_max: usize,
        drain: CancellationToken,
    ) -> (Arc<Self>, Tail) {
        let tail = log.tail();
        let state = State {
            feeds: Feeds::default(),
            epoch: tail.epoch,
            matched_to: tail.from,
            ended: false,
            stopped: false,
        };
        let hub = Self {
            log,
            state: Mutex::new(state),
            cache: FrameCache::new(cache_bytes_max),
            passed: Mutex::default(),
            pass_ended: Notify::new(),
            drain,
            reads: TaskTracker::new(),
        };
        (Arc::new(hub), tail)
    }

    /// Sends what the tail yields to the feeds, until the log is closed.
    pub async fn run(self: Arc<Self>, mut tail: Tail) {
        let mut agenda = Agenda::default();
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    self.end();
                }
                group = tail.groups.recv() => {
                    let Some(group) = group else { break };
                    self.take(&group, &mut agenda);
                }
                () = self.pass_ended.notified() => {}
                () = agenda.next() => {}
            }
            // Also after a group: groups may come without a pause.
            let passed = std::mem::take(&mut *self.passed());
            self.send_due(passed, &mut agenda);
            let due = agenda.take(Instant::now());
            self.send_due(due, &mut agenda);
        }
        self.end();
        self.state().stopped = true;
        self.reads.close();
        self.reads.wait().await;
    }

    /// Ends all streams: live readers see it now, others when they look.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.feeds.end();
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

    /// The number of feeds, which is that of different filters with a live reader.
    #[must_use]
    pub fn feeds(&self) -> usize {
        self.state().feeds.live()
    }

    fn take(&self, group: &Group, agenda: &mut Agenda) {
        match group.cut {
            Some(at) => self.cut(at),
            None => self.dispatch(group, agenda),
        }
    }

    /// The log ends there now: all readers are to look at it again.
    fn cut(&self, at: Cursor) {
        let mut state = self.state();
        state.epoch = at.epoch;
        state.matched_to = at.position;
        state.feeds.cut(at.position);
    }

    /// Open streams.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.state().feeds.streams()
    }

    /// How many streams want a topic.
    #[must_use]
    pub fn presence(&self, topic: &Topic) -> u64 {
        let counts = self.counts();
        let wanted = counts.iter().filter(|(filter, _)| filter.matches(topic));
        wanted.map(|(_, count)| count).sum()
    }

    /// How many streams have which filter.
    #[must_use]
    pub fn counts(&self) -> Vec<(Arc<Filter>, u64)> {
        self.state().feeds.counts()
    }

    /// The same of those filters whose count has changed since this was asked last, 0 included.
    #[must_use]
    pub fn changed_counts(&self) -> Vec<(Arc<Filter>, u64)> {
        self.state().feeds.changed_counts()
    }

    /// Matching happens under the lock, sending outside: a reader that sits down in between gets events at or
    /// before its place, which it drops, and never lacks a later one.
    fn dispatch(&self, group: &[Arc<Event>], agenda: &mut Agenda) {
        let mut look = Vec::new();
        {
            let mut state = self.state();
            for event in group {
                state.feeds.each_match(&event.topic, |feed| {
                    if feed.gather(event) {
                        look.push(Arc::clone(feed));
                    }
                });
            }
            if let Some(last) = group.last() {
                state.matched_to = last.cursor.position;
            }
        }
        self.send_due(look, agenda);
    }

    /// Sends what has gathered in those feeds whose time has come, and notes when that of the others will.
    fn send_due(&self, feeds: Vec<Arc<Feed>>, agenda: &mut Agenda) {
        let now = Instant::now();
        for feed in feeds {
            match feed.due(now) {
                Due::Later => {}
                Due::At(at) => agenda.note(at, feed),
                Due::Now(from, events) => {
                    let frames = Frame::split(from, events);
                    feed.send(&frames);
                    self.hold(&feed, &frames);
                }
            }
        }
    }

    /// Counts frames that a feed holds, which others may have to go for.
    fn hold(&self, feed: &Arc<Feed>, frames: &[Arc<Frame>]) {
        let emptied = self.cache.add(feed, frames);
        if !emptied.is_empty() {
            let mut state = self.state();
            for feed in &emptied {
                state.feeds.tidy(feed);
            }
        }
    }

    fn look_at(&self, feed: &Arc<Feed>) {
        self.passed().push(Arc::clone(feed));
        self.pass_ended.notify_one();
    }

    fn passed(&self) -> MutexGuard<'_, Vec<Arc<Feed>>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agenda {
    fn note(&mut self, at: Instant, feed: Arc<Feed>) {
        self.made += 1;
        self.due.insert((at, self.made), feed);
    }

    async fn next(&self) {
        match self.due.first_key_value() {
            Some(((at, _), _)) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, now: Instant) -> Vec<Arc<Feed>> {
        if self
            .due
            .first_key_value()
            .is_none_or(|((at, _), _)| *at > now)
        {
            return Vec::new();
        }
        let later = self.due.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.due, later)
            .into_values()
            .collect()
    }
}

impl Reader {
    fn new(hub: &Arc<Hub>, filter: &Arc<Filter>) -> Self {
        let feed = hub.state().feeds.enter(filter);
        Self {
            hub: Arc::clone(hub),
            feed,
        }
    }

    /// Takes a seat. With it, the place up to which all was matched: what the feed gets beyond that will come.
    fn sit(&self) -> (Seat, Cursor) {
        let mut state = self.hub.state();
        let matched_to = Cursor {
            epoch: state.epoch,
            position: state.matched_to,
        };
        if !state.ended {
            state.feeds.sit(&self.feed, matched_to.position);
        }
        let seat = Seat {
            hub: Arc::clone(&self.hub),
            feed: Arc::clone(&self.feed),
            frames: self.feed.receiver(),
            token: None,
        };
        (seat, matched_to)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.state().feeds.leave(&self.feed);
    }
}

impl Seat {
    /// From now on the clock counts on this reader to [give back](Self::give_back) its tokens.
    fn pace(&mut self) {
        self.token.get_or_insert_with(|| self.feed.pace());
    }

    fn give_back(&mut self, token: u64) {
        // One that was sent before this reader counted is not owed.
        if let Some(last) = &mut self.token
            && token > *last
        {
            *last = token;
            if self.feed.give_back(token) {
                self.hub.look_at(&self.feed);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(token) = self.token
            && self.feed.unpace(token)
        {
            self.hub.look_at(&self.feed);
        }
        self.hub.state().feeds.rise(&self.feed);
    }
}
