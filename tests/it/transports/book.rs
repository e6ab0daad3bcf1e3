//! What was published, and when: the log as publishers know it.

use std::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};
use tidings::{
    cursor::Cursor,
    topic::{Filter, Topic},
};
use tokio::sync::watch;

/// An event on its way into the log.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) topic: String,
    pub(super) event: Option<&'static str>,
    pub(super) data: String,
}

/// An event that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) position: u64,
    pub(super) topic: Topic,
    pub(super) event: Option<&'static str>,
    pub(super) data: String,
    /// Since then it may be in the log.
    pub(super) sent: Instant,
    /// Since then it is.
    pub(super) answered: Instant,
}

/// All that was acknowledged so far.
pub(super) struct Book {
    events: Mutex<Vec<Event>>,
    epoch: Mutex<Option<u64>>,
    count: watch::Sender<usize>,
}

/// All events ever, in the log's order.
#[derive(Debug)]
pub(super) struct Truth {
    pub(super) epoch: u64,
    pub(super) events: Vec<Event>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            epoch: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Book {
    /// Notes an answer.
    pub(super) fn note(&self, draft: Draft, id: &str, sent: Instant) {
        let cursor: Cursor = id.parse().expect("an event's id is a cursor");
        let epoch = *lock(&self.epoch).get_or_insert(cursor.epoch);
        assert_eq!(epoch, cursor.epoch, "a kill began another epoch");
        let mut events = lock(&self.events);
        events.push(Event {
            position: cursor.position,
            topic: Topic::parse(&draft.topic).expect("a topic"),
            event: draft.event,
            data: draft.data,
            sent,
            answered: Instant::now(),
        });
        self.count.send_replace(events.len());
    }

    /// Waits until so many events are acknowledged.
    pub(super) async fn reaches(&self, count: usize) {
        let mut counted = self.count.subscribe();
        let reached = counted.wait_for(|counted| *counted >= count).await;
        reached.expect("the book stays open");
    }

    /// The id of one of the events so far.
    pub(super) fn id(&self, choose: impl FnOnce(usize) -> usize) -> Option<String> {
        let events = lock(&self.events);
        let epoch = (*lock(&self.epoch))?;
        let position = events[choose(events.len())].position;
        Some(Cursor { epoch, position }.to_string())
    }

    /// All of it, when nothing more is on its way.
    pub(super) fn truth(&self) -> Truth {
        let mut events = lock(&self.events).clone();
        events.sort_by_key(|event| event.position);
        let twice = events
            .windows(2)
            .find(|two| two[0].position == two[1].position);
        assert!(twice.is_none(), "one place for two events: {twice:?}");
        Truth {
            epoch: lock(&self.epoch).expect("something was published"),
            events,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

impl Truth {
    /// The newest place in the log that was surely reached by then.
    pub(super) fn head_at_least(&self, by: Instant) -> u64 {
        let there = self.events.iter().filter(|event| event.answered <= by);
        there.map(|event| event.position).max().unwrap_or(0)
    }

    /// The newest place in the log that may have been reached by then.
    pub(super) fn head_at_most(&self, by: Instant) -> u64 {
        let there = self.events.iter().filter(|event| event.sent <= by);
        there.map(|event| event.position).max().unwrap_or(0)
    }

    /// A filter's part.
    pub(super) fn of<'a>(&'a self, filter: &Filter) -> Vec<&'a Event> {
        let mut matching = self.events.iter();
        matching
            .by_ref()
            .filter(|event| filter.matches(&event.topic))
            .collect()
    }

    /// Whether retention may have removed an event by then: enough later ones of its topic were on their way.
    pub(super) fn may_lack(&self, event: &Event, events_max: Option<usize>, by: Instant) -> bool {
        let later = self.events.iter().filter(|other| {
            other.topic == event.topic && other.position > event.position && other.sent <= by
        });
        events_max.is_some_and(|events_max| later.count() >= events_max)
    }
}
