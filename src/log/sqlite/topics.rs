//! What the writer remembers of the topics in use: read when first needed, bounded, and never the truth.

use super::{ids::IdMap, row::Header, store::Facts};
use crate::{
    log::{LogOptions, removal, removal::Removed, retention::Limits},
    topic::Topic,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::{HashMap, hash_map::Entry};

/// Topics remembered, at some 200 bytes each; past that all are read anew.
const REMEMBERED_MAX: usize = 1 << 17;

/// Damaged rows at a topic's end that are looked past for a good one.
const DAMAGED_MAX: usize = 64;

/// A header, and what the row costs, without touching the data.
const HEADS: &str = "SELECT position, topic, time_ms, seq, bytes, event, own_id, length(data), crc \
                     FROM events WHERE topic = ? ORDER BY position";

#[derive(Default)]
pub(super) struct Topics {
    ids: HashMap<Topic, i64>,
    states: IdMap<TopicState>,
    next_id: i64,
}

/// A topic's stretch of events: numbers `first_seq..next_seq`, bytes `first_bytes..end_bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicState {
    /// The number of its retention rule.
    pub(super) rule: u32,
    pub(super) first_seq: u64,
    pub(super) next_seq: u64,
    pub(super) first_bytes: u64,
    pub(super) end_bytes: u64,
    pub(super) first_time_ms: u64,
    /// Whether its row says so.
    pub(super) emptied: bool,
}

impl TopicState {
    /// Whether its oldest event is too much.
    pub(super) fn over(&self, limits: &Limits, now: u64) -> bool {
        let (seq, bytes) = (self.first_seq, self.first_bytes);
        self.over_from(limits, seq, bytes, self.first_time_ms, now)
    }

    /// Whether an event with that number, after so many bytes, is too much.
    pub(super) fn over_from(
        &self,
        limits: &Limits,
        seq: u64,
        bytes: u64,
        time_ms: u64,
        now: u64,
    ) -> bool {
        let kept = self.next_seq.saturating_sub(seq);
        let bytes = self.end_bytes.saturating_sub(bytes);
        kept > 0
            && (limits.events_max.is_some_and(|max| kept > max)
                || limits.bytes_max.is_some_and(|max| bytes > max && kept > 1)
                || limits
                    .age_max_ms
                    .is_some_and(|max| now.saturating_sub(time_ms) > max))
    }
}

impl Topics {
    pub(super) fn new(conn: &Connection) -> rusqlite::Result<Self> {
        let newest: Option<i64> =
            conn.query_row("SELECT max(id) FROM topics", [], |row| row.get(0))?;
        Ok(Self {
            next_id: newest.unwrap_or(0) + 1,
            ..Self::default()
        })
    }

    /// After a rollback: what was remembered may never have been. Ids given out stay so: readers
    /// remember the names of those they met.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.states.clear();
    }

    /// Past the bound, forgets all. Between transactions.
    pub(super) fn shrink(&mut self) {
        if self.ids.len().max(self.states.len()) > REMEMBERED_MAX {
            self.clear();
        }
    }

    pub(super) fn forget(&mut self, id: i64) {
        self.states.remove(&id);
    }

    pub(super) fn forget_name(&mut self, id: i64, name: &Topic) {
        self.states.remove(&id);
        self.ids.remove(name);
    }

    /// The topic that gets an event, made if it is new.
    pub(super) fn open(
        &mut self,
        conn: &Connection,
        facts: &mut Facts,
        name: &Topic,
        options: &LogOptions,
    ) -> rusqlite::Result<(i64, &mut TopicState)> {
        let id = match self.ids.get(name) {
            Some(id) => *id,
            None => {
                let id = self.find_or_make(conn, facts, name)?;
                self.ids.insert(name.clone(), id);
                id
            }
        };
        let state = match self.states.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(load(conn, id, name, options)?),
        };
        if state.emptied {
            conn.prepare_cached("UPDATE topics SET emptied = 0 WHERE id = ?")?
                .execute([id])?;
            state.emptied = false;
            facts.emptied = facts.emptied.saturating_sub(1);
        }
        Ok((id, state))
    }

    fn find_or_make(
        &mut self,
        conn: &Connection,
        facts: &Facts,
        name: &Topic,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = id(conn, name)? {
            return Ok(id);
        }
        let id = self.next_id;
        self.next_id += 1;
        // It may have been known once: what it lost then is somewhere within what was forgotten.
        let Removed {
            to,
            time_ms,
            removal,
        } = facts.meta.forgotten;
        conn.prepare_cached("INSERT INTO topics VALUES (?, ?, ?, ?, ?, 0)")?
            .execute(params![id, name.as_str(), to, time_ms, removal])?;
        Ok(id)
    }

    /// A topic's stretch; `None` if there is no such topic (any more). Remembered only if it was.
    pub(super) fn look(
        &self,
        conn: &Connection,
        id: i64,
        options: &LogOptions,
    ) -> rusqlite::Result<Option<TopicState>> {
        if let Some(state) = self.states.get(&id) {
            return Ok(Some(*state));
        }
        match name(conn, id)? {
            Some(name) => load(conn, id, &name, options).map(Some),
            None => Ok(None),
        }
    }

    /// Puts back what [`Self::look`] gave, changed.
    pub(super) fn put(&mut self, id: i64, state: TopicState) {
        self.states.insert(id, state);
    }
}

/// The row of a topic.
pub(super) fn id(conn: &Connection, name: &Topic) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM topics WHERE name = ?")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

/// The name of a topic; `None` if there is none, or it is damaged.
pub(super) fn name(conn: &Connection, id: i64) -> rusqlite::Result<Option<Topic>> {
    let name: Option<String> = conn
        .prepare_cached("SELECT name FROM topics WHERE id = ?")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(name.and_then(|name| Topic::parse(&name).ok()))
}

fn load(
    conn: &Connection,
    id: i64,
    name: &Topic,
    options: &LogOptions,
) -> rusqlite::Result<TopicState> {
    let mut state = TopicState {
        rule: options.retention.rule(name),
        first_seq: 1,
        next_seq: 1,
        first_bytes: 0,
        end_bytes: 0,
        first_time_ms: u64::MAX,
        emptied: conn
            .prepare_cached("SELECT emptied FROM topics WHERE id = ?")?
            .query_row([id], |row| row.get(0))
            .optional()?
            .unwrap_or(false),
    };
    let first = end(conn, id, &format!("{HEADS} LIMIT {DAMAGED_MAX}"))?;
    let newest = end(conn, id, &format!("{HEADS} DESC LIMIT {DAMAGED_MAX}"))?;
    match (first, newest) {
        (Some((first, before, _)), Some((newest, after, cost))) => {
            state.first_seq = first.seq.saturating_sub(before);
            state.first_bytes = first.bytes;
            state.first_time_ms = first.time_ms;
            state.next_seq = newest.seq + 1 + after;
            state.end_bytes = newest.bytes + cost;
        }
        _ => {
            // Nothing, or nothing that can be believed.
            let count: u64 = conn
                .prepare_cached("SELECT count(*) FROM events WHERE topic = ?")?
                .query_row([id], |row| row.get(0))?;
            state.next_seq = 1 + count;
        }
    }
    Ok(state)
}

/// The first good header in that order, how many damaged ones came before, and what its event costs.
fn end(conn: &Connection, id: i64, sql: &str) -> rusqlite::Result<Option<(Header, u64, u64)>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let mut damaged = 0;
    while let Some(row) = rows.next()? {
        if let Some(header) = Header::read(row)?
            && header.topic == id
        {
            return Ok(Some((header, damaged, cost(row)?)));
        }
        damaged += 1;
    }
    Ok(None)
}

fn cost(row: &Row<'_>) -> rusqlite::Result<u64> {
    let len = |column| -> rusqlite::Result<u64> {
        Ok(match row.get_ref(column)? {
            rusqlite::types::ValueRef::Text(text) => text.len() as u64,
            _ => 0,
        })
    };
    let data: u64 = row.get(7)?;
    Ok(removal::cost(&[], None, None) + data + len(5)? + len(6)?)
}
