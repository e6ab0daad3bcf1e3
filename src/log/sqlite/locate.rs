//! Where a reader starts.

use super::{
    page::LOOK_MAX,
    reader::Reader,
    schema::Meta,
    select::{Match, Matches, Merge, Selection, lost},
};
use crate::{
    cursor::Cursor,
    log::{Located, Place, Start, StartGap},
    topic::Filter,
};
use rusqlite::{Connection, OptionalExtension as _, params};

/// See [`crate::log::EventLog::locate`].
pub(super) fn locate(
    reader: &mut Reader,
    start: Start,
    filter: &Filter,
) -> rusqlite::Result<Located> {
    // First, so that a removal while the place is looked for counts.
    let meta = Meta::load(reader.split().0)?;
    let now = |position, gap| Located {
        place: Place {
            position,
            removal: meta.removal,
        },
        gap,
    };
    // The first page tells what was removed beyond.
    let told_by_page = |position| Located {
        place: Place {
            position,
            removal: 0,
        },
        gap: None,
    };
    Ok(match start {
        Start::Cursor(Cursor { epoch, position })
            if epoch == meta.epoch && position <= meta.head =>
        {
            told_by_page(position)
        }
        Start::Cursor(_) => now(0, Some(StartGap::Epoch)),
        Start::OwnId(id) => match oldest_with_own_id(reader, id.as_str(), filter)? {
            Some(position) => told_by_page(position),
            None => now(0, Some(StartGap::Unknown)),
        },
        Start::Since(time_ms) => {
            let snapshot = reader.conn.unchecked_transaction()?;
            // Anew, for the same moment as the rest.
            let meta = Meta::load(&snapshot)?;
            let since = |removed: crate::log::removal::Removed| removed.since(time_ms);
            let expired = lost(&snapshot, filter, &meta, 0, since, |r| !since(r))?;
            Located {
                place: Place {
                    position: before_time(&snapshot, &meta, time_ms)?,
                    removal: meta.removal,
                },
                gap: expired.then_some(StartGap::Expired),
            }
        }
        Start::Earliest => now(0, None),
        Start::Tail(0) => now(meta.head, None),
        Start::Tail(count) => {
            let first = nth_newest(reader, count, filter)?;
            now(first.map_or(0, |first| first - 1), None)
        }
    })
}

/// The position of the oldest kept event that matches.
pub(super) fn oldest(reader: &mut Reader, filter: &Filter) -> rusqlite::Result<Option<u64>> {
    if let Selection::Merge(topics) = Selection::of(&reader.conn, filter)? {
        let mut merge = Merge::up(&reader.conn, &topics, 0)?;
        return Ok(merge.next(&reader.conn)?.map(|(position, _)| position));
    }
    let sql = "SELECT position, topic FROM events WHERE position > ?1 ORDER BY position LIMIT ?2";
    walk(reader, filter, 0, sql, None, 1)
}

fn nth_newest(reader: &mut Reader, count: usize, filter: &Filter) -> rusqlite::Result<Option<u64>> {
    if let Selection::Merge(topics) = Selection::of(&reader.conn, filter)? {
        let snapshot = reader.conn.unchecked_transaction()?;
        let mut merge = Merge::down(&snapshot, &topics)?;
        for _ in 1..count {
            if merge.next(&snapshot)?.is_none() {
                return Ok(None);
            }
        }
        return Ok(merge.next(&snapshot)?.map(|(position, _)| position));
    }
    let sql =
        "SELECT position, topic FROM events WHERE position < ?1 ORDER BY position DESC LIMIT ?2";
    walk(reader, filter, i64::MAX, sql, None, count)
}

fn oldest_with_own_id(
    reader: &mut Reader,
    own_id: &str,
    filter: &Filter,
) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT position, topic FROM events INDEXED BY events_own_id
        WHERE own_id = ?3 AND position > ?1 ORDER BY position LIMIT ?2";
    walk(reader, filter, 0, sql, Some(own_id), 1)
}

/// The position of the row that is the `count`th to match, among those that `sql` gives from a position on. Each
/// bounded stretch is read in a snapshot of its own.
fn walk(
    reader: &mut Reader,
    filter: &Filter,
    mut from: i64,
    sql: &str,
    own_id: Option<&str>,
    mut count: usize,
) -> rusqlite::Result<Option<u64>> {
    let (conn, names) = reader.split();
    let mut matches = Matches::new(filter, names);
    let mut statement = conn.prepare_cached(sql)?;
    loop {
        let mut rows = match own_id {
            Some(id) => statement.query(params![from, LOOK_MAX, id])?,
            None => statement.query(params![from, LOOK_MAX])?,
        };
        let mut looked = 0;
        while let Some(row) = rows.next()? {
            from = row.get(0)?;
            looked += 1;
            if matches!(matches.get(row.get(1)?)?, Match::Yes(_)) {
                count -= 1;
                if count == 0 {
                    return Ok(Some(from.cast_unsigned()));
                }
            }
        }
        if looked < LOOK_MAX {
            return Ok(None);
        }
    }
}

/// The newest position before all events at or after that time: time rises with position.
fn before_time(conn: &Connection, meta: &Meta, time_ms: u64) -> rusqlite::Result<u64> {
    let mut at_or_after = conn.prepare_cached(
        "SELECT position, time_ms FROM events WHERE position >= ? ORDER BY position LIMIT 1",
    )?;
    let (mut low, mut high) = (0, meta.head + 1);
    // All before `low` are older; `high`, or the first after it, is not.
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(u64, u64)> = at_or_after
            .query_row([middle], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((position, time)) if time < time_ms => low = position + 1,
            _ => high = middle,
        }
    }
    Ok(low.saturating_sub(1))
}
