//! What a replica's file has beside its events, and how changes from the journal are applied to it.

use super::{
    budget::Budget,
    reader::{Reader, Snapshot},
    store::{Appended, Store, known_key},
};
use crate::log::{
    Batch, Group, Outcome,
    keys::Positions,
    removal::Removed,
    replica::{Ancestor, Apply, Change, Looked, MARKS_MAX, end_epoch},
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Between two looks at how many marks there are.
const MARKS_STEP: u64 = 1 << 12;

/// - `replica.state` is the filler's own.
/// - `marks` has a digest for each place of the journal that was applied, of the newest so many.
/// - `ancestors` are the epochs that ended, the oldest first.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS replica (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        state BLOB NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS marks (
        place INTEGER PRIMARY KEY,
        digest INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS ancestors (
        id INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        began_at INTEGER NOT NULL,
        shared_to INTEGER NOT NULL
    ) STRICT;
    UPDATE meta SET epoch = 0 WHERE NOT EXISTS (SELECT 1 FROM replica);
";

/// What was applied.
#[derive(Default)]
pub(super) struct Applied {
    pub(super) outcomes: Vec<Vec<Outcome>>,
    /// For the tails, in their order.
    pub(super) groups: Vec<Group>,
}

/// Makes the tables that only a replica has. One that was never applied to has no epoch.
pub(super) fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TABLES)
}

pub(super) fn state(conn: &Connection) -> rusqlite::Result<Option<Bytes>> {
    let state: Option<Vec<u8>> = conn
        .prepare_cached("SELECT state FROM replica")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(state.map(Bytes::from))
}

pub(super) fn mark(conn: &Connection, at_most: u64) -> rusqlite::Result<Option<(u64, u64)>> {
    let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
    conn.prepare_cached(
        "SELECT place, digest FROM marks WHERE place <= ? ORDER BY place DESC LIMIT 1",
    )?
    .query_row([at_most], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })
    .optional()
}

/// None in a log that is no replica.
pub(super) fn ancestors(conn: &Connection) -> rusqlite::Result<Vec<Ancestor>> {
    let there: bool = conn
        .prepare_cached("SELECT count(*) FROM sqlite_master WHERE name = 'ancestors'")?
        .query_row([], |row| row.get(0))?;
    if !there {
        return Ok(Vec::new());
    }
    conn.prepare_cached("SELECT epoch, began_at, shared_to FROM ancestors ORDER BY id")?
        .query_map([], |row| {
            Ok(Ancestor {
                epoch: row.get::<_, i64>(0)?.cast_unsigned(),
                began_at: row.get(1)?,
                shared_to: row.get(2)?,
            })
        })?
        .collect()
}

/// See [`crate::log::replica::ReplicaLog::known`].
pub(super) fn known(
    reader: &mut Reader,
    batch: Batch,
    (epoch, now, age_max_ms): (u64, u64, u64),
) -> rusqlite::Result<Looked> {
    let (conn, _) = reader.split();
    let _snapshot = Snapshot::begin(conn)?;
    let known = batch.drafts.iter().map(|draft| {
        let Some(key) = &draft.key else {
            return Ok(None);
        };
        let known = known_key(conn, &draft.topic, key)?;
        let known = known.filter(|known| now.saturating_sub(known.time_ms) < age_max_ms);
        Ok(known.map(|known| known.event.outcome(draft, epoch)))
    });
    let known = known.collect::<rusqlite::Result<_>>()?;
    drop(_snapshot);
    Ok((batch, known))
}

impl Store {
    /// Applies changes. Within a transaction.
    pub(super) fn apply(&mut self, apply: &Apply) -> rusqlite::Result<Applied> {
        let mut appended = Appended::default();
        let (mut groups, mut stored, mut bytes) = (Vec::new(), 0, 0);
        for change in &apply.changes {
            match change {
                Change::Store(store) => {
                    let time_ms = store.time_ms.max(self.facts.meta.time_ms);
                    let counts =
                        |known: &super::store::KnownAt| known.event.position > store.looked;
                    let positions = Positions::From(store.position);
                    self.store(&store.batch, positions, time_ms, counts, &mut appended)?;
                    continue;
                }
                Change::Epoch {
                    epoch,
                    ended_began_at,
                    to,
                    mark,
                } => self.begin_epoch(*epoch, *ended_began_at, *to, *mark)?,
                Change::Begin {
                    at,
                    time_ms,
                    epoch,
                    ancestors,
                    keeps_keys,
                } => {
                    if !keeps_keys {
                        self.conn.execute("DELETE FROM keys", [])?;
                        self.conn.execute("DELETE FROM marks", [])?;
                    }
                    self.begin(*at, *time_ms, *epoch, ancestors)?;
                }
            }
            let before = std::mem::take(&mut appended.events);
            stored += before.len();
            if !before.is_empty() {
                groups.push(before.into());
            }
            let meta = &self.facts.meta;
            groups.push(Group::cut(meta.epoch, meta.head));
        }
        self.keep_marks(&apply.marks)?;
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO replica (id, state) VALUES (1, ?)")?
            .execute([&apply.state[..]])?;
        stored += appended.events.len();
        for event in &appended.events {
            bytes += event.data.len();
        }
        self.retain(&mut Budget::beside(stored, bytes))?;
        self.reserve_growth()?;
        if !appended.events.is_empty() {
            groups.push(appended.events.into());
        }
        Ok(Applied {
            outcomes: appended.outcomes,
            groups,
        })
    }

    fn keep_marks(&mut self, marks: &[(u64, u64)]) -> rusqlite::Result<()> {
        let mut insert = self
            .conn
            .prepare_cached("INSERT OR REPLACE INTO marks (place, digest) VALUES (?, ?)")?;
        for (place, digest) in marks {
            insert.execute(params![place, digest.cast_signed()])?;
        }
        if let (Some((first, _)), Some((last, _))) = (marks.first(), marks.last())
            && first / MARKS_STEP != (last + 1) / MARKS_STEP
        {
            self.conn
                .prepare_cached("DELETE FROM marks WHERE place < ?")?
                .execute([last.saturating_sub(MARKS_MAX as u64)])?;
        }
        Ok(())
    }

    fn begin_epoch(
        &mut self,
        epoch: u64,
        ended_began_at: u64,
        to: u64,
        mark: u64,
    ) -> rusqlite::Result<()> {
        let meta = &mut self.facts.meta;
        let ended = std::mem::replace(&mut meta.epoch, epoch);
        meta.head = meta.head.min(to);
        meta.removed_to = meta.removed_to.min(to);
        meta.forgotten.to = meta.forgotten.to.min(to);
        self.dirty = true;
        self.conn
            .execute("DELETE FROM events WHERE position > ?", [to])?;
        self.conn
            .execute("DELETE FROM keys WHERE position > ?", [to])?;
        self.conn
            .execute("DELETE FROM marks WHERE place > ?", [mark])?;
        self.conn.execute(
            "UPDATE topics SET removed_to = min(removed_to, ?1) WHERE removed_to > ?1",
            [to],
        )?;
        self.conn.execute(
            "UPDATE topics SET emptied = 1 WHERE emptied = 0
            AND NOT EXISTS (SELECT 1 FROM events WHERE topic = topics.id)",
            [],
        )?;
        let mut ancestors = ancestors(&self.conn)?;
        if ended != 0 {
            let ended = Ancestor {
                epoch: ended,
                began_at: ended_began_at,
                shared_to: to,
            };
            end_epoch(&mut ancestors, ended);
        }
        self.keep_ancestors(&ancestors)?;
        self.look_anew()
    }

    fn begin(
        &mut self,
        at: u64,
        time_ms: u64,
        epoch: u64,
        ancestors: &[Ancestor],
    ) -> rusqlite::Result<()> {
        self.conn.execute("DELETE FROM events", [])?;
        self.conn.execute("DELETE FROM topics", [])?;
        let meta = &mut self.facts.meta;
        meta.epoch = epoch;
        meta.head = at;
        meta.time_ms = meta.time_ms.max(time_ms);
        meta.removal += 1;
        meta.removed_to = at;
        meta.forgotten = Removed {
            to: at,
            time_ms: meta.time_ms,
            removal: meta.removal,
        };
        self.dirty = true;
        self.keep_ancestors(ancestors)?;
        self.look_anew()
    }

    fn keep_ancestors(&self, ancestors: &[Ancestor]) -> rusqlite::Result<()> {
        self.conn.execute("DELETE FROM ancestors", [])?;
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO ancestors (epoch, began_at, shared_to) VALUES (?, ?, ?)",
        )?;
        for ancestor in ancestors {
            insert.execute(params![
                ancestor.epoch.cast_signed(),
                ancestor.began_at,
                ancestor.shared_to
            ])?;
        }
        Ok(())
    }

    /// Rows went away behind the back of what is remembered.
    fn look_anew(&mut self) -> rusqlite::Result<()> {
        let count = |sql| self.conn.query_row(sql, [], |row| row.get::<_, u64>(0));
        self.facts.keys = count("SELECT count(*) FROM keys")?;
        self.facts.emptied = count("SELECT count(*) FROM topics WHERE emptied = 1")?;
        self.topics.clear();
        self.due.clear();
        self.queued.clear();
        Ok(())
    }
}
