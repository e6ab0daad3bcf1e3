//! A reader: it has a cursor, reads for a while by one transport, leaves in one way or another, and goes on by the next.

use super::{
    TOPICS, World,
    book::Truth,
    publisher::PAUSE,
    random,
    session::{Item, Seen, Session, Start, Transport, Wanted},
    topic,
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tidings::{cursor::Cursor, topic::Filter};
use tokio::time::{sleep, timeout, timeout_at};

const PATTERNS: [&str; 6] = ["a/*", "b/**", "b/c/*", "*", "**", "*/*"];

/// No connection takes so long to open: whoever asks a hub that goes is told, or hears no more of it.
const PATIENCE: Duration = Duration::from_secs(9);

/// Longest time on one connection.
const STAY_MS: u64 = 150;

/// Longest time without one.
const AWAY_MS: u64 = 100;

/// What a reader saw.
pub(super) struct Diary {
    pub(super) name: String,
    pub(super) filter: Filter,
    pub(super) start: Start,
    pub(super) events: Vec<Seen>,
    pub(super) gaps: Vec<Gap>,
    /// The start is between what the log had at the first of these times, and at the second.
    pub(super) begun: (Instant, Instant),
    /// Where the hub said that it starts, if it did before the first event.
    pub(super) told: Option<u64>,
    /// What retention removed before that time is no longer what a start that names no place asks for.
    pub(super) settled: Option<Instant>,
    pub(super) sessions: BTreeMap<Transport, usize>,
}

/// Something was missing.
pub(super) struct Gap {
    pub(super) told: Value,
    /// The reader's place then.
    pub(super) from: Option<u64>,
    pub(super) at: Instant,
}

pub(super) struct Reader {
    world: Arc<World>,
    random: StdRng,
    topics: Vec<String>,
    cursor: Option<String>,
    /// Wants all from the first event on, and comes when retention has removed some of that.
    is_late: bool,
    diary: Diary,
}

impl Reader {
    pub(super) fn new(world: &Arc<World>, seed: u64, number: usize) -> Self {
        let mut random = random(seed, 200 + number);
        let is_late = number == 0;
        let topics: Vec<_> = (0..random.random_range(1..4))
            .map(|_| match random.random_range(0..3) {
                _ if is_late => "**".to_owned(),
                0 => PATTERNS[random.random_range(0..PATTERNS.len())].to_owned(),
                _ => topic(random.random_range(0..TOPICS)),
            })
            .collect();
        let filter = Filter::parse(topics.iter().map(String::as_str)).expect("a filter");
        let now = Instant::now();
        Self {
            world: Arc::clone(world),
            random,
            cursor: None,
            is_late,
            diary: Diary {
                name: format!("seed {seed}, reader {number} of {topics:?}"),
                filter: filter.expect("it is not empty"),
                start: Start::Live,
                events: Vec::new(),
                gaps: Vec::new(),
                begun: (now, now),
                told: None,
                settled: None,
                sessions: BTreeMap::new(),
            },
            topics,
        }
    }

    /// Reads until it has all.
    pub(super) async fn run(mut self) -> Diary {
        let after = match self.is_late {
            true => TOPICS * self.world.events_max.unwrap_or(1) + 1,
            false => self.random.random_range(1..400),
        };
        self.world.book.reaches(after).await;
        self.diary.start = match self.random.random_range(0..4) {
            _ if self.is_late => {
                let id = self.world.book.id(|_| 0).expect("some are there");
                self.go_to(id.clone());
                Start::Cursor(id)
            }
            0 => Start::Live,
            1 => Start::Earliest,
            2 => Start::Tail(self.random.random_range(1..60)),
            _ => {
                let id = self
                    .world
                    .book
                    .id(|count| self.random.random_range(0..count));
                let id = id.expect("some are there");
                self.go_to(id.clone());
                Start::Cursor(id)
            }
        };
        while !self.is_complete() {
            let transport = Transport::ALL[self.random.random_range(0..Transport::ALL.len())];
            self.read_by(transport).await;
            if self.random.random_range(0..4) == 0 {
                sleep(Duration::from_millis(self.random.random_range(0..AWAY_MS))).await;
            }
        }
        self.nothing_more().await;
        self.diary
    }

    async fn open(&mut self, transport: Transport) -> Option<Session> {
        let start = match &self.cursor {
            Some(id) => &Start::Cursor(id.clone()),
            None => &self.diary.start,
        };
        let wanted = Wanted {
            topics: &self.topics,
            start,
        };
        let before = Instant::now();
        let address = self.world.address;
        let session = Session::open(transport, address, &wanted, &mut self.random);
        let Ok(session) = timeout(PATIENCE, session).await.unwrap_or_else(|_| {
            panic!(
                "{}: {transport:?} from {start:?} does not open",
                self.diary.name
            )
        }) else {
            sleep(PAUSE).await;
            return None;
        };
        if self.cursor.is_none() {
            self.diary.begun = (before, Instant::now());
        }
        *self.diary.sessions.entry(transport).or_default() += 1;
        Some(session)
    }

    async fn read_by(&mut self, transport: Transport) {
        let Some(mut session) = self.open(transport).await else {
            return;
        };
        let stay = Duration::from_millis(self.random.random_range(0..STAY_MS));
        let until = tokio::time::Instant::now() + stay;
        for _ in 0..self.random.random_range(0..60) {
            match timeout_at(until, session.next()).await {
                Ok(Ok(Some(Item::Closed(reason)))) => {
                    let retention = self.world.events_max.is_some();
                    let known = reason == "draining" || (retention && reason == "lagged");
                    assert!(
                        known,
                        "{}: closed by {transport:?}, {reason}",
                        self.diary.name
                    );
                    break;
                }
                Ok(Ok(Some(item))) => self.take(item),
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            }
            if self.random.random_range(0..40) == 0 {
                sleep(Duration::from_millis(self.random.random_range(0..30))).await;
            }
        }
        let leaving = timeout(PATIENCE, session.leave(self.random.random()));
        let rest = leaving.await.unwrap_or_else(|_| {
            panic!("{}: {transport:?} does not end", self.diary.name);
        });
        for item in rest {
            match item {
                Item::Closed(_) => break,
                item => self.take(item),
            }
        }
        if self.cursor.is_some() {
            self.diary.settled.get_or_insert_with(Instant::now);
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Event(seen) => {
                if self.diary.events.is_empty() {
                    self.diary.settled.get_or_insert_with(Instant::now);
                    if self.cursor.is_none() && matches!(self.diary.start, Start::Tail(_)) {
                        // The end that it counts from may have moved on since the stream was opened.
                        self.diary.begun.1 = Instant::now();
                    }
                }
                self.go_to(seen.id.clone());
                self.diary.events.push(seen);
            }
            Item::Gap(told) => self.diary.gaps.push(Gap {
                told,
                from: self.place(),
                at: Instant::now(),
            }),
            Item::Cursor(id) => {
                let (from, to) = (self.place(), position(&id));
                assert!(from <= Some(to), "{}: back to {id}", self.diary.name);
                if from.is_none() {
                    self.diary.told = Some(to);
                    self.diary.begun.1 = Instant::now();
                }
                self.go_to(id);
            }
            Item::Closed(_) => unreachable!("it ends the session"),
        }
    }

    fn go_to(&mut self, id: String) {
        if self.cursor.replace(id).is_none() {
            self.world.begun.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn place(&self) -> Option<u64> {
        self.cursor.as_deref().map(position)
    }

    fn is_complete(&self) -> bool {
        let truth = self.world.truth.borrow();
        let is_behind = |truth: &Arc<Truth>| {
            let wanted = truth.of(&self.diary.filter);
            self.place() < wanted.last().map(|event| event.position)
        };
        truth.as_ref().is_some_and(|truth| !is_behind(truth))
    }

    async fn nothing_more(&mut self) {
        loop {
            let Some(mut session) = self.open(Transport::Poll).await else {
                continue;
            };
            match session.next().await {
                Ok(Some(Item::Cursor(_))) => return,
                Ok(Some(item)) => panic!("{}: {item:?} behind the end", self.diary.name),
                Ok(None) | Err(_) => {}
            }
        }
    }
}

/// A cursor's place in the log.
pub(super) fn position(id: &str) -> u64 {
    let cursor: Cursor = id.parse().unwrap_or_else(|_| panic!("no cursor: {id}"));
    cursor.position
}
