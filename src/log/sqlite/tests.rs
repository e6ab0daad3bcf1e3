//! What can only be shown from inside: commits that fail, and what waits for what.

use super::{Durability, FILE, SqliteLog, locate::Search, schema, writer::Request};
use crate::{
    event::{Draft, IdempotencyKey, OwnId},
    log::{
        AppendError, Batch, Clock, EventLog, LogOptions, Outcome, PageLimits, Place, Start,
        StartGap, Tail,
        retention::{Limits, Retention},
    },
    topic::{Filter, Topic},
};
use rusqlite::{Connection, ffi};
use std::{ops::ControlFlow, sync::Arc};

/// What happens in place of a commit.
pub(super) type Fault = fn(&Connection) -> rusqlite::Result<()>;

fn error(code: i32) -> rusqlite::Result<()> {
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

fn open() -> (tempfile::TempDir, SqliteLog) {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        retention: Retention {
            rules: Vec::new(),
            default: Limits {
                age_max_ms: None,
                events_max: None,
                bytes_max: None,
            },
            bytes_max: 1 << 30,
        },
        key_age_max_ms: 1 << 40,
        keys_max: 1_000,
        emptied_topics_max: 1_000,
        clock: Clock::system(),
    };
    let log = SqliteLog::open(dir.path(), Durability::Sync, options).unwrap();
    (dir, log)
}

fn fail(log: &SqliteLog, fault: Fault) {
    let request = Request::Fail(Some(fault), false);
    assert!(log.requests.try_send(request).is_ok());
}

fn fail_all(log: &SqliteLog, fault: Option<Fault>) {
    assert!(log.requests.try_send(Request::Fail(fault, true)).is_ok());
}

async fn put(log: &SqliteLog, data: &str) -> Result<Outcome, AppendError> {
    let draft = Draft {
        topic: Topic::parse("a").unwrap(),
        event: None,
        own_id: None,
        retry_ms: None,
        data: data.to_owned().into(),
        key: Some(IdempotencyKey::parse(data).unwrap()),
    };
    let batch = Batch {
        drafts: vec![draft],
        all_or_nothing: true,
    };
    EventLog::append(log, batch)
        .await
        .map(|outcomes| outcomes[0])
}

async fn all(log: &SqliteLog) -> Vec<u64> {
    let filter = Arc::new(Filter::topic(Topic::parse("a").unwrap()));
    let place = Place {
        position: 0,
        removal: 0,
    };
    let limits = PageLimits {
        events_max: 100,
        bytes_max: 1 << 20,
    };
    let page = log.read_after(place, &filter, limits).await.unwrap();
    assert!(page.gap.is_none() && page.at_head);
    page.events.iter().map(|e| e.cursor.position).collect()
}

async fn tailed(tail: &mut Tail, count: usize) -> Vec<u64> {
    let mut positions = Vec::new();
    while positions.len() < count {
        let group = tail.groups.recv().await.unwrap();
        positions.extend(group.iter().map(|e| e.cursor.position));
    }
    positions
}

fn stored(outcome: Result<Outcome, AppendError>) -> u64 {
    match outcome {
        Ok(Outcome::Stored(cursor)) => cursor.position,
        other => panic!("{other:?}"),
    }
}

/// The file has it although the commit failed: replay and tails get it, once, and its key is known.
#[tokio::test]
async fn unknown_and_stored() {
    let (_dir, log) = open();
    let mut tail = log.tail();
    stored(put(&log, "1").await);
    fail(&log, |conn| {
        conn.execute_batch("COMMIT")?;
        error(ffi::SQLITE_IOERR_FSYNC)
    });
    assert_eq!(put(&log, "2").await, Err(AppendError::Unknown));
    assert!(matches!(put(&log, "2").await, Ok(Outcome::Duplicate(c)) if c.position == 2));
    assert_eq!(stored(put(&log, "3").await), 3);
    assert_eq!(tailed(&mut tail, 3).await, [1, 2, 3]);
    assert_eq!(all(&log).await, [1, 2, 3]);
    assert_eq!(log.bounds().head, 3);
}

/// The file does not have it: nobody gets it, and its key is free.
#[tokio::test]
async fn unknown_and_not_stored() {
    let (_dir, log) = open();
    let mut tail = log.tail();
    stored(put(&log, "1").await);
    fail(&log, |_| error(ffi::SQLITE_IOERR_WRITE));
    assert_eq!(put(&log, "2").await, Err(AppendError::Unknown));
    assert_eq!(stored(put(&log, "2").await), 2);
    assert_eq!(tailed(&mut tail, 2).await, [1, 2]);
    assert_eq!(all(&log).await, [1, 2]);
}

/// Without anyone appending again.
#[tokio::test]
async fn the_log_opens_again_by_itself() {
    let (_dir, log) = open();
    let mut tail = log.tail();
    fail(&log, |conn| {
        conn.execute_batch("COMMIT")?;
        error(ffi::SQLITE_IOERR)
    });
    assert_eq!(put(&log, "1").await, Err(AppendError::Unknown));
    assert_eq!(tailed(&mut tail, 1).await, [1]);
    assert_eq!(all(&log).await, [1]);
}

#[tokio::test]
async fn full_is_not_stored_and_heals() {
    let (_dir, log) = open();
    let mut tail = log.tail();
    fail_all(&log, Some(|_| error(ffi::SQLITE_FULL)));
    for _ in 0..3 {
        assert_eq!(put(&log, "1").await, Err(AppendError::Full));
        assert!(all(&log).await.is_empty());
    }
    fail_all(&log, None);
    assert_eq!(stored(put(&log, "1").await), 1);
    assert_eq!(tailed(&mut tail, 1).await, [1]);
}

/// The room in reserve serves first.
#[tokio::test]
async fn full_for_once_is_not_seen() {
    let (_dir, log) = open();
    let mut tail = log.tail();
    fail(&log, |_| error(ffi::SQLITE_FULL));
    assert_eq!(stored(put(&log, "1").await), 1);
    assert_eq!(tailed(&mut tail, 1).await, [1]);
    assert_eq!(all(&log).await, [1]);
}

/// A commit that did not even begin is tried again alone.
#[tokio::test]
async fn busy_is_tried_again() {
    let (_dir, log) = open();
    fail(&log, |_| error(ffi::SQLITE_BUSY));
    assert_eq!(stored(put(&log, "1").await), 1);
}

/// Whatever the durability: what tells a crash of the machine from a good end must not be lost in one.
#[test]
fn how_a_run_begins_and_ends_waits_for_the_disk() {
    const FULL: i64 = 2;
    for (durability, usual) in [(Durability::Os, 1), (Durability::Sync, FULL)] {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::connect(&dir.path().join(FILE), durability).unwrap();
        let watch = "
            UPDATE meta SET sync = 0, clean = 0, boot = 'another';
            CREATE TEMP TABLE seen (synchronous);
            CREATE TEMP TRIGGER watch AFTER UPDATE ON main.meta BEGIN
                INSERT INTO seen SELECT synchronous FROM pragma_synchronous;
            END";
        conn.execute_batch(watch).unwrap();
        let seen = || -> Vec<i64> {
            let mut seen = conn.prepare("SELECT synchronous FROM seen").unwrap();
            let rows = seen.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        schema::start_run(&conn, durability).unwrap();
        // The new epoch, then the run.
        assert_eq!(seen(), [FULL, FULL], "{durability:?}");
        let now: i64 = conn
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap();
        assert_eq!(now, usual, "{durability:?}");
        schema::end_run(&conn).unwrap();
        assert_eq!(seen(), [FULL, FULL, FULL], "{durability:?}");
    }
}

fn draft(topic: &str, own_id: Option<&str>) -> Draft {
    Draft {
        topic: Topic::parse(topic).unwrap(),
        event: None,
        own_id: own_id.map(|id| OwnId::parse(id).unwrap()),
        retry_ms: None,
        data: "x".into(),
        key: None,
    }
}

async fn append(log: &SqliteLog, drafts: Vec<Draft>) {
    let all_or_nothing = true;
    let batch = Batch {
        drafts,
        all_or_nothing,
    };
    let stored = EventLog::append(log, batch).await.unwrap();
    assert!(!stored.is_empty());
}

/// However many rows have to be looked at, a connection is lent for a bounded number of them; and what is
/// appended meanwhile comes after the start.
#[tokio::test]
async fn a_long_search_goes_in_steps() {
    const ROWS: usize = 20_000;
    let (_dir, log) = open();
    for n in 0..ROWS / 1_000 {
        // So many topics that the log is walked, not their indexes.
        let topic = |i: usize| format!("busy/{}", (n * 1_000 + i) % 2_000);
        let drafts = (0..1_000).map(|i| draft(&topic(i), Some("same"))).collect();
        append(&log, drafts).await;
    }
    let own_id = || Start::OwnId(OwnId::parse("same").unwrap());
    for (n, (start, filter, gap)) in [
        (own_id(), "quiet/none", Some(StartGap::Unknown)),
        (own_id(), "*/none", Some(StartGap::Unknown)),
        (Start::Earliest, "*/none", None),
        (Start::Tail(1), "*/none", None),
        (Start::Since(0), "*/none", None),
        (Start::Tail(9_000), "busy/*", None),
    ]
    .into_iter()
    .enumerate()
    {
        let filter = Arc::new(Filter::parse([filter]).unwrap().unwrap());
        let (mut search, mut steps) = (Search::Begin(start), 0);
        let located = loop {
            let (wanted, readers) = (Arc::clone(&filter), &log.shared.readers);
            let step = readers.run(move |reader| search.step(reader, &wanted));
            match step.await.unwrap() {
                ControlFlow::Break(located) => break located,
                ControlFlow::Continue(next) => search = next,
            }
            steps += 1;
            if steps == 1 {
                append(&log, vec![draft("late", None)]).await;
            }
        };
        assert!(steps >= 2, "{n}: {steps}");
        assert_eq!(located.gap, gap, "{n}");
        let expected = match n {
            // 3 that came late are among the newest, and do not match.
            5 => ROWS - 9_000,
            // All up to where the log ended when it was asked.
            _ => ROWS + n,
        };
        assert_eq!(located.place.position, expected as u64, "{n}");
    }
    let none = Arc::new(Filter::parse(["*/none"]).unwrap().unwrap());
    assert_eq!(log.oldest(&none).await, Ok(None));
}
