//! Which rows a filter means: the topics behind it, their positions merged into one order, and what
//! they lost.

use super::{ids::IdMap, reader::Names, schema::Meta, topics};
use crate::{
    log::removal::Removed,
    topic::{Filter, Topic},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, VecDeque, hash_map::Entry},
};

/// Topics whose indexes are merged; for more, the log is walked.
pub(super) const MERGE_MAX: usize = 128;

/// Names looked at to find the topics of patterns; for more, the log is walked.
const RESOLVE_MAX: usize = 1_024;

/// Positions read from one index at a time, growing from the first to the second.
const BATCH: (u64, u64) = (16, 1_024);

/// The topics behind a filter; `None` if they are more than `max`, or if finding them takes too long: then the
/// log is walked.
pub(super) fn topics_of(
    conn: &Connection,
    filter: &Filter,
    max: usize,
) -> rusqlite::Result<Option<Vec<i64>>> {
    if filter.topics().len() > MERGE_MAX {
        return Ok(None);
    }
    let mut ids = BTreeSet::new();
    for topic in filter.topics() {
        ids.extend(topics::id(conn, topic)?);
        if ids.len() > max {
            return Ok(None);
        }
    }
    let mut names_left = RESOLVE_MAX;
    for pattern in filter.patterns() {
        let from = pattern.literal_prefix();
        // `0` follows `/`, in which each prefix ends; 0xff follows all of UTF-8.
        let until = match from.strip_suffix('/') {
            Some(stem) => [stem.as_bytes(), b"0"].concat(),
            None => vec![0xff],
        };
        let mut statement = conn.prepare_cached(
            "SELECT id, name FROM topics WHERE name >= ? AND name < CAST(? AS TEXT) LIMIT ?",
        )?;
        let mut rows = statement.query(params![from, until, names_left + 1])?;
        while let Some(row) = rows.next()? {
            if names_left == 0 {
                return Ok(None);
            }
            names_left -= 1;
            let name = row.get_ref(1)?.as_str()?;
            // One that is damaged belongs to whoever could have meant it: its rows will say so.
            if Topic::parse(name).map_or(true, |name| pattern.matches(&name)) {
                ids.insert(row.get(0)?);
                if ids.len() > max {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(ids.into_iter().collect()))
}

/// The positions of several topics in one order.
pub(super) struct Merge {
    sources: Vec<Source>,
    heap: BinaryHeap<Reverse<(i64, usize)>>,
    down: bool,
}

struct Source {
    topic: i64,
    /// In the merge's order: negative if it goes down.
    keys: VecDeque<i64>,
    /// The last one read.
    last: i64,
    batch: u64,
    ended: bool,
}

impl Merge {
    /// Upwards, after a position.
    pub(super) fn up(conn: &Connection, topics: &[i64], after: u64) -> rusqlite::Result<Self> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        Self::new(conn, topics, after, false)
    }

    /// Downwards, before a position.
    pub(super) fn down(conn: &Connection, topics: &[i64], before: u64) -> rusqlite::Result<Self> {
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        Self::new(conn, topics, -before, true)
    }

    fn new(conn: &Connection, topics: &[i64], last: i64, down: bool) -> rusqlite::Result<Self> {
        let source = |topic: &i64| Source {
            topic: *topic,
            keys: VecDeque::new(),
            last,
            batch: if topics.len() == 1 { BATCH.1 } else { BATCH.0 },
            ended: false,
        };
        let mut merge = Self {
            sources: topics.iter().map(source).collect(),
            heap: BinaryHeap::new(),
            down,
        };
        for i in 0..merge.sources.len() {
            merge.offer(conn, i)?;
        }
        Ok(merge)
    }

    /// The next position, and whose.
    pub(super) fn next(&mut self, conn: &Connection) -> rusqlite::Result<Option<(u64, i64)>> {
        let Some(Reverse((key, i))) = self.heap.pop() else {
            return Ok(None);
        };
        self.offer(conn, i)?;
        let topic = self.sources.get(i).map_or(0, |source| source.topic);
        Ok(Some((key.unsigned_abs(), topic)))
    }

    /// Puts the next of a source on the heap.
    fn offer(&mut self, conn: &Connection, i: usize) -> rusqlite::Result<()> {
        let Some(source) = self.sources.get_mut(i) else {
            return Ok(());
        };
        if source.keys.is_empty() && !source.ended {
            source.fill(conn, self.down)?;
        }
        if let Some(key) = source.keys.pop_front() {
            self.heap.push(Reverse((key, i)));
        }
        Ok(())
    }
}

impl Source {
    fn fill(&mut self, conn: &Connection, down: bool) -> rusqlite::Result<()> {
        let sql = if down {
            "SELECT -position FROM events INDEXED BY events_topic
            WHERE topic = ? AND position < ? ORDER BY position DESC LIMIT ?"
        } else {
            "SELECT position FROM events INDEXED BY events_topic
            WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"
        };
        let mut statement = conn.prepare_cached(sql)?;
        let from = self.last.abs();
        let mut rows = statement.query(params![self.topic, from, self.batch])?;
        while let Some(row) = rows.next()? {
            self.keys.push_back(row.get(0)?);
        }
        self.ended = (self.keys.len() as u64) < self.batch;
        self.last = self.keys.back().copied().unwrap_or(self.last);
        self.batch = (self.batch * 2).min(BATCH.1);
        Ok(())
    }
}

/// Which topics a filter matches, found out once each.
pub(super) struct Matches<'a> {
    filter: &'a Filter,
    names: Names<'a>,
    known: IdMap<Match>,
}

/// What a row's topic is to a filter.
pub(super) enum Match {
    Yes(Topic),
    No,
    /// There is no such topic: the row or the topic's is damaged.
    Unknown,
}

impl<'a> Matches<'a> {
    pub(super) fn new(filter: &'a Filter, names: Names<'a>) -> Self {
        Self {
            filter,
            names,
            known: IdMap::default(),
        }
    }

    pub(super) fn get(&mut self, topic: i64) -> rusqlite::Result<&Match> {
        match self.known.entry(topic) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let found = match self.names.get(topic)? {
                    Some(name) if self.filter.matches(&name) => Match::Yes(name),
                    Some(_) => Match::No,
                    None => Match::Unknown,
                };
                Ok(unknown.insert(found))
            }
        }
    }
}

/// Whether a loss of the filter's topics passes `test`. Of patterns' topics, looked at are those that lost something
/// beyond `position`, newest loss first, up to the first that is `out` of question with all before it.
pub(super) fn lost(
    conn: &Connection,
    filter: &Filter,
    meta: &Meta,
    position: u64,
    test: impl Fn(Removed) -> bool,
    out: impl Fn(Removed) -> bool,
) -> rusqlite::Result<bool> {
    for topic in filter.topics() {
        let removed = conn
            .prepare_cached(
                "SELECT removed_to, removed_time_ms, removal FROM topics WHERE name = ?",
            )?
            .query_row([topic.as_str()], |row| read_removed(row, 0))
            .optional()?;
        if test(removed.unwrap_or(meta.forgotten)) {
            return Ok(true);
        }
    }
    if filter.patterns().is_empty() {
        return Ok(false);
    }
    if test(meta.forgotten) {
        return Ok(true);
    }
    let mut statement = conn.prepare_cached(
        "SELECT name, removed_to, removed_time_ms, removal FROM topics
        WHERE removed_to > 0 AND removed_to > ? ORDER BY removed_to DESC",
    )?;
    let mut rows = statement.query([position])?;
    while let Some(row) = rows.next()? {
        let removed = read_removed(row, 1)?;
        if out(removed) {
            break;
        }
        if !test(removed) {
            continue;
        }
        let name = row.get_ref(0)?;
        let name = name.as_str().ok().and_then(|name| Topic::parse(name).ok());
        if name.is_none_or(|name| filter.matches(&name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_removed(row: &Row<'_>, column: usize) -> rusqlite::Result<Removed> {
    Ok(Removed {
        to: row.get(column)?,
        time_ms: row.get(column + 1)?,
        removal: row.get(column + 2)?,
    })
}
