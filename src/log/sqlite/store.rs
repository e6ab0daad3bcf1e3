//! The writer's side of the file: transactions, and what it remembers between them. One thread's own.

use super::{
    budget::Budget,
    reserve::Reserve,
    row,
    schema::{self, Meta},
    topics::{TopicState, Topics},
};
use crate::{
    event::{Event, IdempotencyKey},
    log::{
        Batch, LogOptions, Outcome,
        keys::{self, Digest, Known, NewKeys, Positions},
    },
    topic::Topic,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

/// What one transaction may change, so that its rollback can put it back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) meta: Meta,
    /// Rows of `keys`.
    pub(super) keys: u64,
    /// Topics without events.
    pub(super) emptied: u64,
}

/// Why a transaction did not commit.
#[derive(Debug)]
pub(super) enum Failure {
    /// Rolled back: no room.
    Full(rusqlite::Error),
    /// Rolled back.
    Refused(rusqlite::Error),
    /// Perhaps committed. The connection is not to be used again.
    Unknown(rusqlite::Error),
}

/// What became of batches.
#[derive(Default)]
pub(super) struct Appended {
    /// Those of each batch.
    pub(super) outcomes: Vec<Vec<Outcome>>,
    /// What was stored of all of them.
    pub(super) events: Vec<Arc<Event>>,
}

/// The file, open for writing.
pub(super) struct Store {
    pub(super) conn: Connection,
    pub(super) options: LogOptions,
    pub(super) facts: Facts,
    /// As the transaction found them.
    pub(super) before: Facts,
    pub(super) topics: Topics,
    pub(super) reserve: Reserve,
    /// Topics that may be over a limit, oldest request first; each once.
    pub(super) due: VecDeque<i64>,
    pub(super) queued: HashSet<i64>,
    /// Topics that this transaction brought within their limits.
    pub(super) done: Vec<i64>,
    /// Whether this transaction changed what has to be saved of the facts.
    pub(super) dirty: bool,
    /// Whether the whole log is known to be over its bound.
    pub(super) over_whole: bool,
    /// See [`Self::is_full`].
    pub(super) full_from_bytes: u64,
    /// The topic after which the next look at ages begins.
    pub(super) swept_to: i64,
    pub(super) page_bytes: u64,
    /// What its pages took when that was last asked for.
    pub(super) log_bytes: u64,
    /// What its pages may take; half of the write-ahead file's bound below that, removing begins.
    pub(super) pages_bytes_max: u64,
    pub(super) evict_from_bytes: u64,
    /// Fails a commit, under test.
    #[cfg(test)]
    pub(super) fail_commit: Option<(super::tests::Fault, bool)>,
}

impl Store {
    pub(super) fn new(
        conn: Connection,
        reserve: Reserve,
        options: LogOptions,
    ) -> rusqlite::Result<Self> {
        let count = |sql| conn.query_row(sql, [], |row| row.get::<_, u64>(0));
        let facts = Facts {
            meta: Meta::load(&conn)?,
            keys: count("SELECT count(*) FROM keys")?,
            emptied: count("SELECT count(*) FROM topics WHERE emptied = 1")?,
        };
        let topics = Topics::new(&conn)?;
        let page_bytes = count("PRAGMA page_size")?;
        let wal = super::wal_bytes_max(&options);
        let beside = wal + super::reserve_bytes(&options);
        // After a group that was larger than all the bounds.
        conn.query_row(
            &format!("PRAGMA journal_size_limit = {wal}"),
            [],
            |_| Ok(()),
        )?;
        Ok(Self {
            facts,
            before: facts,
            topics,
            reserve,
            due: VecDeque::new(),
            queued: HashSet::new(),
            done: Vec::new(),
            dirty: false,
            over_whole: false,
            full_from_bytes: u64::MAX,
            swept_to: 0,
            page_bytes,
            log_bytes: 0,
            pages_bytes_max: options.retention.bytes_max.saturating_sub(beside),
            evict_from_bytes: options.retention.bytes_max.saturating_sub(beside + wal / 2),
            #[cfg(test)]
            fail_commit: None,
            conn,
            options,
        })
    }

    pub(super) fn now(&self) -> u64 {
        self.options.clock.now_ms().max(self.facts.meta.time_ms)
    }

    /// Runs `work` in a transaction. On failure nothing of it is left, here or in the file (but for
    /// [`Failure::Unknown`]).
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        self.before = self.facts;
        self.dirty = false;
        self.done.clear();
        let done = self
            .conn
            .prepare_cached("BEGIN IMMEDIATE")
            .and_then(|mut begin| begin.execute([]))
            .and_then(|_| work(self))
            .and_then(|done| {
                if self.dirty {
                    self.facts.meta.save(&self.conn)?;
                }
                Ok(done)
            });
        let done = match done {
            Ok(done) => done,
            Err(error) => return Err(self.roll_back(error, false)),
        };
        match self.commit() {
            Ok(()) => Ok(done),
            Err(error) => {
                // Without room the frame that makes a commit cannot have been written. Busy means not
                // begun.
                let open = !matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy)
                );
                Err(self.roll_back(error, open))
            }
        }
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        #[cfg(test)]
        if let Some((fault, always)) = self.fail_commit.take() {
            self.fail_commit = always.then_some((fault, always));
            return fault(&self.conn);
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn roll_back(&mut self, error: rusqlite::Error, open: bool) -> Failure {
        self.facts = self.before;
        self.topics.clear();
        for id in self.done.drain(..) {
            if self.queued.insert(id) {
                self.due.push_back(id);
            }
        }
        // Some errors roll back by themselves.
        let rolled_back = self.conn.is_autocommit() || self.conn.execute_batch("ROLLBACK").is_ok();
        match error.sqlite_error_code() {
            _ if open || !rolled_back => Failure::Unknown(error),
            _ if super::no_room(&error) => Failure::Full(error),
            _ => Failure::Refused(error),
        }
    }

    /// Stores what of the batches is to be stored. Within a transaction.
    pub(super) fn append<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a Batch>,
    ) -> rusqlite::Result<Appended> {
        let (now, age_max_ms) = (self.now(), self.options.key_age_max_ms);
        let counts = |known: &KnownAt| now.saturating_sub(known.time_ms) < age_max_ms;
        let mut appended = Appended::default();
        for batch in batches {
            let positions = Positions::After(self.facts.meta.head);
            self.store(batch, positions, now, counts, &mut appended)?;
        }
        Ok(appended)
    }

    /// Stores what of the batch is to be stored: all but what the keys that count keep out. Within a transaction.
    pub(super) fn store(
        &mut self,
        batch: &Batch,
        positions: Positions,
        now: u64,
        counts: impl Fn(&KnownAt) -> bool,
        appended: &mut Appended,
    ) -> rusqlite::Result<()> {
        let mut new = NewKeys::new();
        let epoch = self.facts.meta.epoch;
        let plan = keys::plan(batch, epoch, positions, &mut new, |topic, key| {
            let known = known_key(&self.conn, topic, key)?.filter(&counts);
            Ok::<_, rusqlite::Error>(known.map(|known| known.event))
        })?;
        let drafts = match plan.refused {
            true => &[],
            false => &batch.drafts[..],
        };
        let mut rows = row::Insert::prepare(&self.conn)?;
        for (draft, outcome) in drafts.iter().zip(&plan.outcomes) {
            let Outcome::Stored(cursor) = outcome else {
                continue;
            };
            let event = Event::from_draft(draft.clone(), *cursor, now);
            let (id, state) =
                self.topics
                    .open(&self.conn, &mut self.facts, &event.topic, &self.options)?;
            let cost = rows.execute(&event, id, state.next_seq, state.end_bytes)?;
            state.add(cost, now);
            let limits = self.options.retention.limits_of(state.rule);
            if state.over(&limits, now) && self.queued.insert(id) {
                self.due.push_back(id);
            }
            if let Some(key) = &draft.key {
                let known = new.get(&(event.topic.clone(), key.clone()));
                let digest = known.map_or_else(|| Digest::of(draft), |known| known.digest);
                keep_key(&self.conn, &mut self.facts, &event, key, digest)?;
            }
            appended.events.push(Arc::new(event));
        }
        if let Some(head) = plan.head {
            self.facts.meta.head = head;
            self.facts.meta.time_ms = now;
        }
        appended.outcomes.push(plan.outcomes);
        Ok(())
    }

    /// Removes some keys that are too old or too many; gives whether there may be more.
    pub(super) fn drop_keys(&mut self, budget: &mut Budget) -> rusqlite::Result<bool> {
        const STEP: u64 = 256;
        let now = self.now();
        let too_many = self.facts.keys.saturating_sub(self.options.keys_max);
        let mut last = None;
        {
            let mut rows = self
                .conn
                .prepare_cached("SELECT position, time_ms FROM keys ORDER BY position LIMIT ?")?;
            let mut rows = rows.query([STEP])?;
            let mut seen = 0;
            while let Some(row) = rows.next()? {
                let expired =
                    now.saturating_sub(row.get::<_, u64>(1)?) >= self.options.key_age_max_ms;
                if !expired && seen >= too_many {
                    break;
                }
                last = Some(row.get::<_, i64>(0)?);
                seen += 1;
            }
        }
        let Some(last) = last else {
            return Ok(false);
        };
        let dropped = self
            .conn
            .prepare_cached("DELETE FROM keys WHERE position <= ?")?
            .execute([last])? as u64;
        self.facts.keys = self.facts.keys.saturating_sub(dropped);
        budget.spend(dropped, 0);
        Ok(dropped == STEP)
    }

    /// Whether the oldest key has had its time. A look, outside of a transaction.
    pub(super) fn keys_are_due(&self) -> rusqlite::Result<bool> {
        let oldest: Option<u64> = self
            .conn
            .prepare_cached("SELECT time_ms FROM keys ORDER BY position LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let now = self.now();
        Ok(self.facts.keys > self.options.keys_max
            || oldest.is_some_and(|time| now.saturating_sub(time) >= self.options.key_age_max_ms))
    }

    /// Events after a position, as they are stored; damaged ones left out.
    pub(super) fn stored_after(&self, position: u64) -> rusqlite::Result<Vec<Arc<Event>>> {
        let mut statement = self.conn.prepare_cached(concat!(
            "SELECT ",
            row::columns!(),
            " FROM events WHERE position > ? ORDER BY position"
        ))?;
        let mut rows = statement.query([position])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(header) = row::Header::read(row)? else {
                continue;
            };
            let Some(topic) = super::topics::name(&self.conn, header.topic)? else {
                continue;
            };
            let event = row::decode(row, &header, &topic, self.facts.meta.epoch)?;
            events.extend(event.map(Arc::new));
        }
        Ok(events)
    }

    pub(super) fn end_run(&mut self) -> rusqlite::Result<()> {
        let ended = self.try_end_run();
        match ended {
            Err(error) if super::no_room(&error) => {
                self.reserve.release();
                self.try_end_run()?;
            }
            ended => ended?,
        }
        self.fit_reserve()?;
        let log_bytes = self.log_bytes()?;
        // It only takes more than it should.
        let _ = self.reserve.fit(log_bytes);
        Ok(())
    }

    fn try_end_run(&self) -> rusqlite::Result<()> {
        schema::end_run(&self.conn)?;
        super::checkpoint(&self.conn, "TRUNCATE")
    }
}

/// What a key stands for, and since when.
pub(super) struct KnownAt {
    pub(super) event: Known,
    pub(super) time_ms: u64,
}

/// What a key stands for, whatever its age.
pub(super) fn known_key(
    conn: &Connection,
    topic: &Topic,
    key: &IdempotencyKey,
) -> rusqlite::Result<Option<KnownAt>> {
    conn.prepare_cached("SELECT position, time_ms, digest FROM keys WHERE name = ?")?
        .query_row([key_name(topic, key)], |row| {
            let event = Known {
                position: row.get(0)?,
                digest: Digest(row.get(2)?),
            };
            let time_ms = row.get(1)?;
            Ok(KnownAt { event, time_ms })
        })
        .optional()
}

fn keep_key(
    conn: &Connection,
    facts: &mut Facts,
    event: &Event,
    key: &IdempotencyKey,
    digest: Digest,
) -> rusqlite::Result<()> {
    let name = key_name(&event.topic, key);
    // One that has expired, and is still there.
    let expired = conn
        .prepare_cached("DELETE FROM keys WHERE name = ?")?
        .execute([name])?;
    conn.prepare_cached("INSERT INTO keys (position, time_ms, name, digest) VALUES (?, ?, ?, ?)")?
        .execute(params![
            event.cursor.position,
            event.time_ms,
            name,
            digest.0
        ])?;
    facts.keys += 1;
    facts.keys = facts.keys.saturating_sub(expired as u64);
    Ok(())
}

/// What a key is kept under: bounded, whatever the length of topic and key, and the same also after the topic
/// was forgotten.
fn key_name(topic: &Topic, key: &IdempotencyKey) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((topic.as_str().len() as u64).to_le_bytes());
    hash.update(topic.as_str());
    hash.update(key.as_str());
    let mut name = [0; 16];
    name.copy_from_slice(&hash.finalize()[..16]);
    name
}

impl TopicState {
    fn add(&mut self, cost: u64, now: u64) {
        if self.first_seq == self.next_seq {
            self.first_bytes = self.end_bytes;
            self.first_time_ms = now;
        }
        self.next_seq += 1;
        self.end_bytes += cost;
    }
}
