//! Retention in small steps: which rows go, and the notes that they leave for readers.
//!
//! A step runs within a group's transaction, or, when nobody publishes, in one of its own.

use super::{
    budget::Budget,
    ids::IdMap,
    row::Header,
    store::{Failure, Store},
    topics::{self, TopicState},
};
use crate::log::removal::Removed;
use rusqlite::{OptionalExtension as _, params, types::ValueRef};
use std::time::{Duration, Instant};

/// Rows that one statement removes.
const CHUNK: usize = 64;

/// Bytes of data that one statement removes: each page of it has to be freed.
const CHUNK_BYTES: u64 = 1 << 21; // 2 MiB

/// Topics whose ages one tick looks at, at most for [`LOOK_TIME`].
const LOOK: usize = 2_048;
const LOOK_TIME: Duration = Duration::from_millis(5);

impl Store {
    /// Whether a step would have something to do.
    pub(super) fn pending(&self) -> bool {
        !self.due.is_empty()
            || self.over_whole
            || self.facts.emptied > self.options.emptied_topics_max
            || self.facts.keys > self.options.keys_max
    }

    /// Within a transaction: removes what is over a limit, as far as the budget goes.
    pub(super) fn retain(&mut self, budget: &mut Budget) -> rusqlite::Result<()> {
        while let Some(&id) = self.due.front() {
            if !budget.left() {
                return Ok(());
            }
            let within = self.remove_some(id, budget)?;
            self.due.pop_front();
            if within {
                self.queued.remove(&id);
                self.done.push(id);
            } else {
                // In turns: the oldest of topics that publish side by side share pages of the file.
                self.due.push_back(id);
            }
        }
        loop {
            self.over_whole = self.is_over_whole()?;
            if !self.over_whole || !budget.left() || !self.evict_some(budget)? {
                break;
            }
        }
        while self.facts.keys > self.options.keys_max && budget.left() {
            if !self.drop_keys(budget)? {
                break;
            }
        }
        while self.facts.emptied > self.options.emptied_topics_max && budget.left() {
            self.forget_some(budget)?;
        }
        Ok(())
    }

    /// A step in a transaction of its own. It waits for no disk: what a crash of the machine brings back goes
    /// again, and the next commit of events makes it durable with them.
    pub(super) fn step(&mut self, mut budget: Budget) -> Result<(), Failure> {
        const NORMAL: u64 = 1;
        let level = |store: &Self, level| store.conn.pragma_update(None, "synchronous", level);
        let before = self.number("PRAGMA synchronous");
        let before = before.map_err(Failure::Refused)?;
        level(self, NORMAL.min(before)).map_err(Failure::Refused)?;
        let done = self.transact(|store| {
            store.retain(&mut budget)?;
            if store.keys_are_due()? {
                store.drop_keys(&mut budget)?;
            }
            Ok(())
        });
        // Or no event may be committed on this connection.
        level(self, before).map_err(Failure::Unknown)?;
        done
    }

    /// Looks for topics over a limit, some further ones each time; gives whether it came to the end of
    /// them.
    pub(super) fn look_around(&mut self) -> rusqlite::Result<bool> {
        let ids: Vec<i64> = self
            .conn
            .prepare_cached(
                "SELECT id FROM topics WHERE id > ? AND emptied = 0 ORDER BY id LIMIT ?",
            )?
            .query_map(params![self.swept_to, LOOK], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let (begun, now, count) = (Instant::now(), self.now(), ids.len());
        for id in ids {
            let state = self.topics.look(&self.conn, id, &self.options)?;
            let over = |state: TopicState| {
                let limits = self.options.retention.limits_of(state.rule);
                state.over(&limits, now)
            };
            if state.is_some_and(over) && self.queued.insert(id) {
                self.due.push_back(id);
            }
            self.swept_to = id;
            if begun.elapsed() > LOOK_TIME {
                return Ok(false);
            }
        }
        if count < LOOK {
            self.swept_to = 0;
        }
        self.over_whole = self.is_over_whole()?;
        Ok(count < LOOK)
    }

    /// The number of this transaction's removal.
    fn removal(&mut self) -> u64 {
        if self.facts.meta.removal == self.before.meta.removal {
            self.facts.meta.removal += 1;
        }
        self.dirty = true;
        self.facts.meta.removal
    }

    /// Removes a topic's oldest, a chunk of them; gives whether it is within its limits then.
    fn remove_some(&mut self, id: i64, budget: &mut Budget) -> rusqlite::Result<bool> {
        let now = self.now();
        let Some(mut state) = self.topics.look(&self.conn, id, &self.options)? else {
            return Ok(true);
        };
        let limits = self.options.retention.limits_of(state.rule);
        if !state.over(&limits, now) {
            return Ok(true);
        }
        let (mut last, mut bytes, mut next) = (None, 0, None);
        {
            let mut statement = self.conn.prepare_cached(
                "SELECT position, topic, time_ms, seq, bytes, NULL, NULL, length(data), crc
                FROM events WHERE topic = ? ORDER BY position LIMIT ?",
            )?;
            let mut rows = statement.query(params![id, CHUNK + 1])?;
            let mut seen = 0;
            while let Some(row) = rows.next()? {
                // A damaged one goes with its neighbours.
                let header = Header::read(row)?;
                let time_ms = header.map_or(state.first_time_ms, |header| header.time_ms);
                let before = header.map_or(state.first_bytes, |header| header.bytes);
                let seq = state.first_seq + seen;
                let over = state.over_from(&limits, seq, before, time_ms, now);
                if !over || seen == CHUNK as u64 || bytes > CHUNK_BYTES {
                    next = Some((before, time_ms));
                    break;
                }
                bytes += integer(row.get_ref(7)?);
                last = Some((row.get::<_, u64>(0)?, time_ms));
                seen += 1;
            }
            state.first_seq += seen;
        }
        let Some((to, time_ms)) = last else {
            // Not even the oldest is there: what was remembered is wrong.
            self.topics.forget(id);
            return Ok(true);
        };
        let removed = self
            .conn
            .prepare_cached("DELETE FROM events WHERE topic = ? AND position <= ?")?
            .execute(params![id, to])?;
        budget.spend(removed as u64, bytes);
        match next {
            Some((bytes, time_ms)) => (state.first_bytes, state.first_time_ms) = (bytes, time_ms),
            None => {
                state.first_seq = state.next_seq;
                state.first_bytes = state.end_bytes;
            }
        }
        state.emptied = next.is_none();
        self.note(id, to, time_ms, state.emptied)?;
        self.topics.put(id, state);
        Ok(!state.over(&limits, now))
    }

    /// Removes the oldest events of all; gives whether there was something to remove.
    fn evict_some(&mut self, budget: &mut Budget) -> rusqlite::Result<bool> {
        let mut lost: IdMap<(u64, u64)> = IdMap::default();
        let (mut last, mut bytes) = (None, 0);
        {
            let mut statement = self.conn.prepare_cached(
                "SELECT position, topic, time_ms, length(data) FROM events
                WHERE position < ? ORDER BY position LIMIT ?",
            )?;
            // The newest of all stays, however large.
            let mut rows = statement.query(params![self.facts.meta.head, CHUNK])?;
            while let Some(row) = rows.next()? {
                let position: u64 = row.get(0)?;
                let time_ms = integer(row.get_ref(2)?);
                lost.insert(row.get(1)?, (position, time_ms));
                last = Some(position);
                bytes += integer(row.get_ref(3)?);
                if bytes > CHUNK_BYTES {
                    break;
                }
            }
        }
        let Some(last) = last else {
            return Ok(false);
        };
        let removed = self
            .conn
            .prepare_cached("DELETE FROM events WHERE position <= ?")?
            .execute([last])?;
        budget.spend(removed as u64, bytes);
        for (id, (to, time_ms)) in lost {
            self.topics.forget(id);
            let left = self
                .conn
                .prepare_cached("SELECT 1 FROM events WHERE topic = ? LIMIT 1")?
                .query_row([id], |_| Ok(()))
                .optional()?;
            self.note(id, to, time_ms, left.is_none())?;
        }
        Ok(true)
    }

    /// Notes with a topic what it lost.
    fn note(&mut self, id: i64, to: u64, time_ms: u64, emptied: bool) -> rusqlite::Result<()> {
        let removal = self.removal();
        self.facts.meta.removed_to = self.facts.meta.removed_to.max(to);
        self.facts.emptied += u64::from(emptied);
        self.conn
            .prepare_cached(
                "UPDATE topics SET removed_to = ?, removed_time_ms = ?, removal = ?, emptied = ?
                WHERE id = ?",
            )?
            .execute(params![to, time_ms, removal, emptied, id])?;
        Ok(())
    }

    /// Forgets some of the topics that were emptied longest ago.
    fn forget_some(&mut self, budget: &mut Budget) -> rusqlite::Result<()> {
        let over = self.facts.emptied - self.options.emptied_topics_max;
        let rows: Vec<(i64, Removed)> = self
            .conn
            .prepare_cached(
                "SELECT id, removed_to, removed_time_ms, removal FROM topics
                WHERE emptied = 1 ORDER BY removal LIMIT ?",
            )?
            .query_map([over.min(CHUNK as u64)], |row| {
                let removed = Removed {
                    to: row.get(1)?,
                    time_ms: row.get(2)?,
                    removal: row.get(3)?,
                };
                Ok((row.get(0)?, removed))
            })?
            .collect::<Result<_, _>>()?;
        if rows.is_empty() {
            // Counted wrong, which costs nothing but this look.
            self.facts.emptied = 0;
        }
        for (id, removed) in rows {
            if let Some(name) = topics::name(&self.conn, id)? {
                self.topics.forget_name(id, &name);
            }
            self.conn
                .prepare_cached("DELETE FROM topics WHERE id = ?")?
                .execute([id])?;
            self.facts.meta.forgotten.widen(removed);
            self.facts.emptied -= 1;
            self.dirty = true;
            budget.spend(1, 0);
        }
        Ok(())
    }
}

/// 0 if it is damaged.
fn integer(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Integer(value) => value.max(0).cast_unsigned(),
        _ => 0,
    }
}
