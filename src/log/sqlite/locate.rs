//! Where a reader starts.

use super::{
    page::LOOK_MAX,
    reader::{Reader, Snapshot},
    replica,
    schema::{self, Meta},
    select::{MERGE_MAX, Match, Matches, Merge, lost, topics_of},
};
use crate::{
    cursor::Cursor,
    event::OwnId,
    log::{Located, Place, Start, StartGap, removal::Removed, replica::shared_with},
    topic::Filter,
};
use rusqlite::{Connection, OptionalExtension as _, Params};
use std::ops::ControlFlow::{self, Break, Continue};

/// A start that is looked for; see [`crate::log::EventLog::locate`].
///
/// In steps: each looks at a bounded number of rows, in a snapshot of its own, so that a long search neither
/// keeps a connection from others nor goes on when nobody waits for it. `head` is the log's at the first
/// step: what comes later comes after the place.
pub(super) enum Search {
    Begin(Start),
    /// For the oldest event after a position that has this own id.
    OwnId {
        id: OwnId,
        after: u64,
        head: u64,
    },
    /// For the oldest event after a position.
    Oldest {
        after: u64,
        head: u64,
        tell: Tell,
    },
    /// For the newest events, from the head down.
    Newest(Newest),
}

pub(super) struct Newest {
    /// Looked at are all from here on.
    before: u64,
    /// The oldest of those found; the one after the head if there is none.
    first: u64,
    /// Still wanted; not 0.
    left: usize,
}

/// What a reader is told at its start.
#[derive(Clone, Copy)]
pub(super) enum Tell {
    Gap(StartGap),
    /// Whether something at or after that time is gone.
    Since(u64),
    Nothing,
}

impl Search {
    /// One step: gives the start, or what is left to look at.
    pub(super) fn step(
        self,
        reader: &mut Reader,
        filter: &Filter,
    ) -> rusqlite::Result<ControlFlow<Located, Self>> {
        let (conn, names) = reader.split();
        let _snapshot = Snapshot::begin(conn)?;
        let meta = Meta::load(conn)?;
        let search = match self {
            Self::Begin(start) => match Self::begin(start, conn, &meta)? {
                Break(located) => return Ok(Break(located)),
                Continue(search) => search,
            },
            search => search,
        };
        let mut look = Look {
            conn,
            filter,
            matches: Matches::new(filter, names),
        };
        match search {
            Self::OwnId { id, after, head } => look.own_id(id, after, head, &meta),
            Self::Oldest { after, head, tell } => {
                let first = match look.oldest(after)? {
                    Continue(after) if after < head => {
                        return Ok(Continue(Self::Oldest { after, head, tell }));
                    }
                    Continue(_) => None,
                    Break(first) => first,
                };
                let gap = look.gap(tell, &meta)?;
                let position = first.map_or(head, |first| first - 1);
                Ok(Break(at(position, &meta, gap)))
            }
            Self::Newest(newest) => look.newest(newest, &meta),
            search @ Self::Begin(_) => Ok(Continue(search)),
        }
    }

    fn begin(
        start: Start,
        conn: &Connection,
        meta: &Meta,
    ) -> rusqlite::Result<ControlFlow<Located, Self>> {
        let head = meta.head;
        let oldest = |after, tell| Continue(Self::Oldest { after, head, tell });
        Ok(match start {
            Start::Cursor(Cursor { epoch, position })
                if epoch == meta.epoch && position <= meta.head =>
            {
                Break(told_by_page(position, meta))
            }
            Start::Cursor(Cursor { epoch, position }) if epoch != meta.epoch => {
                match shared_with(&replica::ancestors(conn)?, epoch) {
                    Some(to) if position <= to => Break(told_by_page(position, meta)),
                    Some(to) => Break(Located {
                        gap: Some(StartGap::Epoch),
                        ..told_by_page(to.min(head), meta)
                    }),
                    None => oldest(0, Tell::Gap(StartGap::Epoch)),
                }
            }
            Start::Cursor(_) => oldest(0, Tell::Gap(StartGap::Epoch)),
            Start::OwnId(id) => Continue(Self::OwnId { id, after: 0, head }),
            Start::Since(time_ms) => {
                oldest(before_time(conn, meta, time_ms)?, Tell::Since(time_ms))
            }
            Start::Earliest => oldest(0, Tell::Nothing),
            Start::Tail(0) => Break(at(head, meta, None)),
            Start::Tail(left) => Continue(Self::Newest(Newest {
                before: head + 1,
                first: head + 1,
                left,
            })),
        })
    }
}

/// One step of a search for the oldest kept event that matches, of those after a position: gives it, or where to
/// look on.
pub(super) fn oldest(
    after: u64,
    reader: &mut Reader,
    filter: &Filter,
) -> rusqlite::Result<ControlFlow<Option<u64>, u64>> {
    let (conn, names) = reader.split();
    let _snapshot = Snapshot::begin(conn)?;
    let mut look = Look {
        conn,
        filter,
        matches: Matches::new(filter, names),
    };
    look.oldest(after)
}

/// A start to which no removal so far is news.
fn at(position: u64, meta: &Meta, gap: Option<StartGap>) -> Located {
    Located {
        place: Place {
            position,
            removal: meta.removal,
        },
        gap,
        epoch: meta.epoch,
    }
}

/// A start whose first page tells of all that was ever removed beyond it.
fn told_by_page(position: u64, meta: &Meta) -> Located {
    Located {
        place: Place {
            position,
            removal: 0,
        },
        gap: None,
        epoch: meta.epoch,
    }
}

/// A look at some rows within one snapshot.
struct Look<'a> {
    conn: &'a Connection,
    filter: &'a Filter,
    matches: Matches<'a>,
}

impl Look<'_> {
    fn own_id(
        &mut self,
        id: OwnId,
        mut after: u64,
        head: u64,
        meta: &Meta,
    ) -> rusqlite::Result<ControlFlow<Located, Search>> {
        let sql = "SELECT position, topic FROM events INDEXED BY events_own_id
            WHERE own_id = ?3 AND position > ?1 ORDER BY position LIMIT ?2";
        let rows = (after, LOOK_MAX, id.as_str());
        let mut found = None;
        let walked = self.walk(sql, rows, &mut after, |position| {
            found = Some(position);
            true
        });
        let more = undamaged(walked, after)?.unwrap_or(false);
        Ok(match found {
            Some(position) => Break(told_by_page(position, meta)),
            None if more && after < head => Continue(Search::OwnId { id, after, head }),
            None => Continue(Search::Oldest {
                after: 0,
                head,
                tell: Tell::Gap(StartGap::Unknown),
            }),
        })
    }

    fn oldest(&mut self, mut after: u64) -> rusqlite::Result<ControlFlow<Option<u64>, u64>> {
        let indexed = self.oldest_by_index(after);
        // If an index is damaged, the rows may be whole.
        if let Some(Some(found)) = undamaged(indexed, after)? {
            return Ok(Break(found));
        }
        let sql =
            "SELECT position, topic FROM events WHERE position > ?1 ORDER BY position LIMIT ?2";
        let mut found = None;
        let walked = self.walk(sql, (after, LOOK_MAX), &mut after, |position| {
            found = Some(position);
            true
        });
        Ok(match undamaged(walked, after)? {
            _ if found.is_some() => Break(found),
            Some(true) => Continue(after),
            Some(false) => Break(None),
            // It may be one: the page that is read there will tell.
            None => Break(Some(after + 1)),
        })
    }

    /// The outer `None`: there are too many topics for that.
    fn oldest_by_index(&self, after: u64) -> rusqlite::Result<Option<Option<u64>>> {
        let Some(topics) = topics_of(self.conn, self.filter, MERGE_MAX)? else {
            return Ok(None);
        };
        let first = Merge::up(self.conn, &topics, after)?.next(self.conn)?;
        Ok(Some(first.map(|(position, _)| position)))
    }

    fn newest(
        &mut self,
        Newest {
            mut before,
            mut first,
            mut left,
        }: Newest,
        meta: &Meta,
    ) -> rusqlite::Result<ControlFlow<Located, Search>> {
        let mut take = |position| {
            first = position;
            left -= 1;
            left == 0
        };
        let indexed = self.newest_by_index(&mut before, &mut take);
        let more = match undamaged(indexed, before)? {
            Some(Some(more)) => Some(more),
            _ => {
                let sql = "SELECT position, topic FROM events
                    WHERE position < ?1 ORDER BY position DESC LIMIT ?2";
                let walked = self.walk(sql, (before, LOOK_MAX), &mut before, take);
                undamaged(walked, before)?
            }
        };
        Ok(match more {
            Some(true) => Continue(Search::Newest(Newest {
                before,
                first,
                left,
            })),
            Some(false) => Break(at(first.saturating_sub(1), meta, None)),
            // It may be one: the page that is read there will tell.
            None => Break(at(before.saturating_sub(2), meta, None)),
        })
    }

    /// `None`: there are too many topics for that. Else as [`Self::walk`].
    fn newest_by_index(
        &self,
        before: &mut u64,
        mut take: impl FnMut(u64) -> bool,
    ) -> rusqlite::Result<Option<bool>> {
        let Some(topics) = topics_of(self.conn, self.filter, MERGE_MAX)? else {
            return Ok(None);
        };
        let mut merge = Merge::down(self.conn, &topics, *before)?;
        for _ in 0..LOOK_MAX {
            let Some((position, _)) = merge.next(self.conn)? else {
                return Ok(Some(false));
            };
            *before = position;
            if take(position) {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    /// Goes over some rows, `to` the last of them, and has each that matches taken, until that was enough.
    /// Gives whether there is more to look at.
    fn walk(
        &mut self,
        sql: &str,
        rows: impl Params,
        to: &mut u64,
        mut take: impl FnMut(u64) -> bool,
    ) -> rusqlite::Result<bool> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(rows)?;
        let mut looked = 0;
        while let Some(row) = rows.next()? {
            let position = row.get(0)?;
            let matches = matches!(self.matches.get(row.get(1)?)?, Match::Yes(_));
            *to = position;
            looked += 1;
            if matches && take(position) {
                return Ok(false);
            }
        }
        Ok(looked == LOOK_MAX)
    }

    fn gap(&self, tell: Tell, meta: &Meta) -> rusqlite::Result<Option<StartGap>> {
        Ok(match tell {
            Tell::Gap(gap) => Some(gap),
            Tell::Nothing => None,
            Tell::Since(time_ms) => {
                let since = |removed: Removed| removed.since(time_ms);
                let expired = lost(self.conn, self.filter, meta, 0, since, |r| !since(r))?;
                expired.then_some(StartGap::Expired)
            }
        })
    }
}

/// What was found, or `None` where the file is damaged.
fn undamaged<T>(looked: rusqlite::Result<T>, position: u64) -> rusqlite::Result<Option<T>> {
    match looked {
        Ok(looked) => Ok(Some(looked)),
        Err(error) if schema::is_damage(&error) => {
            tracing::error!(%error, position, "the log is damaged near this position");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The position before all events at or after that time: time rises with position.
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
