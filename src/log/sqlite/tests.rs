//! What can only be shown from inside: commits that fail.

use super::{Durability, SqliteLog, writer::Request};
use crate::{
    event::{Draft, IdempotencyKey},
    log::{
        AppendError, Batch, Clock, EventLog, LogOptions, Outcome, PageLimits, Place, Tail,
        retention::{Limits, Retention},
    },
    topic::{Filter, Topic},
};
use rusqlite::{Connection, ffi};
use std::sync::Arc;

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
