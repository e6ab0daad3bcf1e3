//! What the tests of the log share: engines behind one trait, a clock that is turned by hand, short ways
//! to make drafts and to read everything.

use crate::support::{
    broker::{Kind, fresh_name, shared},
    journal::MemoryJournal,
    stream::DEADLINE,
    wait::in_time,
    watchdog,
};
use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};
use tidings::{
    cluster::{
        Clocks, ReplicatedLog,
        journal::{Journal, JournalOptions},
        journal_at,
    },
    cursor::Cursor,
    event::{Draft, Event, EventName, IdempotencyKey, OwnId},
    log::{
        AppendError, Batch, Clock, EventLog, LogOptions, Outcome, PageGap, PageLimits, Place,
        Start, StartGap,
        memory::MemoryLog,
        replica::ReplicaLog,
        retention::{Limits, Retention, Rule},
        sqlite::{Durability, SqliteLog},
    },
    topic::{Filter, Pattern, Topic},
};
use tokio::runtime::{Builder, Runtime};

/// 2026-01-01, in ms.
pub(crate) const NEW_YEAR: u64 = 1_767_225_600_000;

#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    pub(crate) fn new() -> Self {
        watchdog::watch();
        Self(Arc::new(AtomicU64::new(NEW_YEAR)))
    }

    pub(crate) fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Clock::new(move || now.load(Ordering::SeqCst))
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::SeqCst);
    }
}

/// An engine under test, opened with nothing in it.
pub(crate) trait Engine: Sized + Send + Sync {
    fn new(options: LogOptions) -> Self;
    fn log(&self) -> &dyn EventLog;
    fn sweep(&self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Memory(MemoryLog);

impl Engine for Memory {
    fn new(options: LogOptions) -> Self {
        Self(MemoryLog::new(options))
    }

    fn log(&self) -> &dyn EventLog {
        &self.0
    }

    async fn sweep(&self) {
        self.0.sweep().await;
    }
}

/// In a directory that goes away with it.
pub(crate) struct Sqlite {
    log: SqliteLog,
    _dir: tempfile::TempDir,
}

impl Engine for Sqlite {
    fn new(options: LogOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(dir.path(), Durability::Sync, options).unwrap();
        Self { log, _dir: dir }
    }

    fn log(&self) -> &dyn EventLog {
        &self.log
    }

    async fn sweep(&self) {
        self.log.sweep().await;
    }
}

/// Where a replica's journal is.
pub(crate) trait Journals: Send + Sync {
    fn journal() -> Arc<dyn Journal>;
}

/// A replica over a journal of its own. Its tasks have a runtime of their own, so that it can be opened as the others are.
pub(crate) struct Replicated<J> {
    log: Arc<ReplicatedLog>,
    local: Arc<SqliteLog>,
    runtime: Option<Runtime>,
    _dir: tempfile::TempDir,
    _journals: PhantomData<J>,
}

impl<J: Journals> Engine for Replicated<J> {
    fn new(options: LogOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clocks = Clocks {
            clock: options.clock.clone(),
            wall: Clock::system(),
        };
        let local = Arc::new(SqliteLog::open(dir.path(), Durability::Replica, options).unwrap());
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (opened, log) = std::sync::mpsc::channel();
        let replica = Arc::clone(&local) as Arc<dyn ReplicaLog>;
        runtime.spawn(async move {
            let log = ReplicatedLog::open(replica, J::journal(), clocks).await;
            let log = log.unwrap();
            log.caught_up().await;
            opened.send(Arc::new(log)).unwrap();
        });
        Self {
            log: log
                .recv_timeout(2 * DEADLINE)
                .expect("a replica that has caught up"),
            local,
            runtime: Some(runtime),
            _dir: dir,
            _journals: PhantomData,
        }
    }

    fn log(&self) -> &dyn EventLog {
        &*self.log
    }

    async fn sweep(&self) {
        self.local.sweep().await;
    }
}

impl<J> Drop for Replicated<J> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct InMemory;

impl Journals for InMemory {
    fn journal() -> Arc<dyn Journal> {
        Arc::new(MemoryJournal::new())
    }
}

/// A journal of a name of its own in a broker that the tests share.
fn on(kind: Kind) -> Arc<dyn Journal> {
    let options = JournalOptions {
        name: fresh_name(),
        age_max_ms: 86_400_000,
        bytes_max: 256 << 20, // 256 MiB
        ca_file: None,
        password: None,
        redis_wait: 0,
        nats_replicas: 1,
    };
    journal_at(&shared(kind).url(), &options).unwrap()
}

pub(crate) struct OnRedis;

impl Journals for OnRedis {
    fn journal() -> Arc<dyn Journal> {
        on(Kind::Redis)
    }
}

pub(crate) struct OnNats;

impl Journals for OnNats {
    fn journal() -> Arc<dyn Journal> {
        on(Kind::Nats)
    }
}

pub(crate) struct OnRabbitMq;

impl Journals for OnRabbitMq {
    fn journal() -> Arc<dyn Journal> {
        on(Kind::RabbitMq)
    }
}

pub(crate) const UNLIMITED: Limits = Limits {
    age_max_ms: None,
    events_max: None,
    bytes_max: None,
};

pub(crate) fn options(clock: &ManualClock) -> LogOptions {
    LogOptions {
        retention: Retention {
            rules: Vec::new(),
            default: UNLIMITED,
            bytes_max: 1 << 30,
        },
        key_age_max_ms: 86_400_000,
        keys_max: 100_000,
        emptied_topics_max: 1_000,
        clock: clock.clock(),
    }
}

pub(crate) fn rule(topics: &str, limits: Limits) -> Rule {
    Rule {
        topics: Pattern::parse(topics).unwrap(),
        limits,
    }
}

pub(crate) fn draft(topic: &str, data: &str) -> Draft {
    Draft {
        topic: Topic::parse(topic).unwrap(),
        event: None,
        own_id: None,
        retry_ms: None,
        data: data.to_owned().into(),
        key: None,
    }
}

pub(crate) fn keyed(topic: &str, data: &str, key: &str) -> Draft {
    Draft {
        key: Some(IdempotencyKey::parse(key).unwrap()),
        ..draft(topic, data)
    }
}

pub(crate) fn owned(topic: &str, data: &str, own_id: &str) -> Draft {
    Draft {
        own_id: Some(OwnId::parse(own_id).unwrap()),
        ..draft(topic, data)
    }
}

pub(crate) fn full(topic: &str, data: &str) -> Draft {
    Draft {
        event: Some(EventName::parse("made").unwrap()),
        own_id: Some(OwnId::parse("own").unwrap()),
        retry_ms: Some(1_500),
        ..draft(topic, data)
    }
}

pub(crate) fn filter(texts: &[&str]) -> Arc<Filter> {
    Arc::new(Filter::parse(texts.iter().copied()).unwrap().unwrap())
}

pub(crate) async fn try_append(
    log: &dyn EventLog,
    drafts: Vec<Draft>,
) -> Result<Vec<Outcome>, AppendError> {
    let all_or_nothing = false;
    log.append(Batch {
        drafts,
        all_or_nothing,
    })
    .await
}

/// Appends what must be stored, each draft anew; gives the cursors.
pub(crate) async fn append(log: &dyn EventLog, drafts: Vec<Draft>) -> Vec<Cursor> {
    let outcomes = try_append(log, drafts).await.unwrap();
    assert!(!outcomes.is_empty());
    let stored = |outcome| match outcome {
        Outcome::Stored(cursor) => cursor,
        other => panic!("not stored: {other:?}"),
    };
    outcomes.into_iter().map(stored).collect()
}

/// Appends one that must be stored.
pub(crate) async fn put(log: &dyn EventLog, topic: &str, data: &str) -> Cursor {
    append(log, vec![draft(topic, data)]).await[0]
}

/// All pages from a place to the head.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) gaps: Vec<PageGap>,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) place: Place,
}

impl Replay {
    pub(crate) fn data(&self) -> Vec<&str> {
        self.events
            .iter()
            .map(|event| std::str::from_utf8(&event.data).unwrap())
            .collect()
    }

    pub(crate) fn positions(&self) -> Vec<u64> {
        self.events.iter().map(|e| e.cursor.position).collect()
    }
}

pub(crate) const PAGE: PageLimits = PageLimits {
    events_max: 1_000,
    bytes_max: 1 << 20,
};

pub(crate) async fn replay_in(
    log: &dyn EventLog,
    mut place: Place,
    filter: &Arc<Filter>,
    limits: PageLimits,
) -> Replay {
    let (mut gaps, mut events) = (Vec::new(), Vec::new());
    loop {
        let page = log.read_after(place, filter, limits).await.unwrap();
        let moved = page.place != place || page.gap.is_some();
        assert!(moved || page.at_head, "a page that goes nowhere: {page:?}");
        assert!(page.events.len() <= limits.events_max.max(1));
        gaps.extend(page.gap);
        events.extend(page.events);
        place = page.place;
        if page.at_head {
            break;
        }
    }
    let rising = |pair: &[Arc<Event>]| {
        pair[0].cursor.position < pair[1].cursor.position && pair[0].time_ms <= pair[1].time_ms
    };
    assert!(events.windows(2).all(rising), "out of order");
    assert!(events.iter().all(|event| filter.matches(&event.topic)));
    Replay {
        gaps,
        events,
        place,
    }
}

pub(crate) async fn replay(log: &dyn EventLog, place: Place, texts: &[&str]) -> Replay {
    replay_in(log, place, &filter(texts), PAGE).await
}

/// Locates, then replays.
pub(crate) async fn start(
    log: &dyn EventLog,
    start: Start,
    texts: &[&str],
) -> (Option<StartGap>, Replay) {
    let filter = filter(texts);
    let located = log.locate(start, &filter).await.unwrap();
    let replay = replay_in(log, located.place, &filter, PAGE).await;
    (located.gap, replay)
}

pub(crate) async fn after(log: &dyn EventLog, cursor: Cursor, texts: &[&str]) -> Replay {
    let (gap, replay) = start(log, Start::Cursor(cursor), texts).await;
    assert_eq!(gap, None);
    replay
}

/// Everything kept, from the oldest on.
pub(crate) async fn kept(log: &dyn EventLog, texts: &[&str]) -> Replay {
    let (gap, replay) = start(log, Start::Earliest, texts).await;
    assert_eq!((gap, replay.gaps.as_slice()), (None, &[][..]));
    replay
}

/// Ends a log, which must not take long.
pub(crate) async fn close(log: &dyn EventLog) {
    in_time(DEADLINE, "a closed log", log.close()).await;
}

/// Runs all at once; gives what each gave.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        for (future, output) in &mut running {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        match running.iter().all(|(_, output)| output.is_some()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
