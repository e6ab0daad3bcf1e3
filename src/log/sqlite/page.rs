//! One page of events, read within one snapshot.

use super::{
    ids::IdMap,
    reader::{Reader, Snapshot},
    row::{self, Header},
    schema::{self, Meta},
    select::{MERGE_MAX, Match, Matches, Merge, lost, topics_of},
};
use crate::{
    log::{Loss, Page, PageGap, PageLimits, Place},
    topic::Filter,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::sync::Arc;

/// Rows that one page looks at without finding anything.
pub(super) const LOOK_MAX: u64 = 4_096;

/// Rows walked to see whether most match.
const TRIAL: u64 = 64;

/// See [`Builder::few`].
const FEW: usize = 8;

/// See [`crate::log::EventLog::read_after`]. `epoch` and `head` are for when the file cannot say.
pub(super) fn read(
    reader: &mut Reader,
    place: Place,
    filter: &Filter,
    limits: PageLimits,
    (epoch, head): (u64, u64),
) -> rusqlite::Result<Page> {
    let (conn, names) = reader.split();
    let _snapshot = Snapshot::begin(conn)?;
    let mut matches = Matches::new(filter, names);
    // An index may be damaged and the rows whole: so a second try walks.
    for careful in [false, true] {
        let mut page = Builder::new(place, careful, epoch);
        let Err(error) = page.read(conn, place, filter, limits, &mut matches) else {
            return Ok(page.finish());
        };
        if !schema::is_damage(&error) {
            return Err(error);
        }
        if !page.events.is_empty() {
            // What was read is good; the next page begins with the damage.
            return Ok(page.finish());
        }
        if careful {
            let position = page.at;
            tracing::error!(%error, position, "the log is damaged after this position");
            page.skip(conn, head);
            return Ok(page.finish());
        }
    }
    Err(rusqlite::Error::InvalidQuery)
}

struct Builder {
    /// Whether to expect damage everywhere.
    careful: bool,
    /// Whether so few topics match that each is worth a look before the page.
    few: bool,
    gap: Option<PageGap>,
    events: Vec<Arc<crate::event::Event>>,
    bytes: usize,
    /// All up to here is dealt with.
    at: u64,
    removal: u64,
    at_head: bool,
    removed_to: u64,
    looked: u64,
    epoch: u64,
    /// The number of the newest event of each topic: the next has to follow it.
    seqs: IdMap<u64>,
}

/// Whether there is room for more.
#[derive(PartialEq, Eq)]
enum Next {
    More,
    Full,
    /// Most rows do not match.
    Sparse,
}

impl PageGap {
    fn is_removal(self) -> bool {
        self.loss == Loss::Removed
    }
}

impl Builder {
    fn new(place: Place, careful: bool, epoch: u64) -> Self {
        Self {
            epoch,
            careful,
            few: false,
            gap: None,
            events: Vec::new(),
            bytes: 0,
            at: place.position,
            // Until it is known better, no removal is taken for told.
            removal: place.removal,
            at_head: false,
            // Until it is known better, anything may have been.
            removed_to: u64::MAX,
            looked: 0,
            seqs: IdMap::default(),
        }
    }

    fn finish(self) -> Page {
        Page {
            gap: self.gap,
            events: self.events,
            place: Place {
                position: self.at,
                removal: self.removal,
            },
            at_head: self.at_head,
            removed_to: self.removed_to,
            epoch: self.epoch,
        }
    }

    fn read(
        &mut self,
        conn: &Connection,
        place: Place,
        filter: &Filter,
        limits: PageLimits,
        matches: &mut Matches<'_>,
    ) -> rusqlite::Result<()> {
        let meta = Meta::load(conn)?;
        self.removed_to = meta.removed_to;
        self.epoch = meta.epoch;
        if meta.removed_to > place.position && meta.removal > place.removal {
            let beyond = lost(
                conn,
                filter,
                &meta,
                place.position,
                |removed| removed.beyond(place),
                |_| false,
            );
            let loss = match beyond {
                Ok(beyond) => beyond.then_some(Loss::Removed),
                // What they lost is lost itself: something may be missing.
                Err(error) if self.careful && schema::is_damage(&error) => Some(Loss::Corrupt),
                Err(error) => return Err(error),
            };
            self.gap = loss.map(|loss| PageGap { loss, missed: None });
        }
        self.removal = meta.removal.max(place.removal);
        let done = match self.careful {
            true => self.walk(conn, &meta, limits, matches, None)?,
            false => self.select(conn, filter, &meta, limits, matches)?,
        };
        if done == Next::More {
            self.at = self.at.max(meta.head);
            self.at_head = true;
        }
        Ok(())
    }

    /// Walks as long as most rows match, which is several times as fast as the indexes, and only then finds out
    /// which topics those are.
    fn select(
        &mut self,
        conn: &Connection,
        filter: &Filter,
        meta: &Meta,
        limits: PageLimits,
        matches: &mut Matches<'_>,
    ) -> rusqlite::Result<Next> {
        let few = topics_of(conn, filter, FEW)?;
        if few.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Next::More);
        }
        self.few = few.is_some();
        let done = self.walk(conn, meta, limits, matches, Some(TRIAL))?;
        if done != Next::Sparse {
            return Ok(done);
        }
        let topics = match few {
            Some(few) => Some(few),
            None => topics_of(conn, filter, MERGE_MAX)?,
        };
        match topics {
            Some(topics) => self.merge(conn, &topics, meta, limits, matches),
            None => self.walk(conn, meta, limits, matches, None),
        }
    }

    fn merge(
        &mut self,
        conn: &Connection,
        topics: &[i64],
        meta: &Meta,
        limits: PageLimits,
        matches: &mut Matches<'_>,
    ) -> rusqlite::Result<Next> {
        let mut merge = Merge::up(conn, topics, self.at)?;
        let mut statement = conn.prepare_cached(concat!(
            "SELECT ",
            row::columns!(),
            " FROM events WHERE position = ?"
        ))?;
        while let Some((position, topic)) = merge.next(conn)? {
            if self.is_full(limits) {
                return Ok(Next::Full);
            }
            let mut rows = statement.query([position])?;
            let header = match rows.next()? {
                Some(row) => Header::read(row)?.map(|header| (header, row)),
                None => None,
            };
            let next = match header {
                Some((header, row)) if header.topic == topic => {
                    self.take_next(conn, row, &header, matches.get(topic)?, meta, limits, true)?
                }
                _ => self.damaged(position, 1),
            };
            if next == Next::Full {
                return Ok(Next::Full);
            }
        }
        Ok(Next::More)
    }

    fn walk(
        &mut self,
        conn: &Connection,
        meta: &Meta,
        limits: PageLimits,
        matches: &mut Matches<'_>,
        trial: Option<u64>,
    ) -> rusqlite::Result<Next> {
        let mut statement = conn.prepare_cached(concat!(
            "SELECT ",
            row::columns!(),
            " FROM events WHERE position > ? ORDER BY position"
        ))?;
        let mut rows = statement.query([self.at])?;
        while let Some(row) = rows.next()? {
            // Of each further stretch as many again have to match.
            if let Some(trial) = trial
                && self.looked >= trial + 2 * self.events.len() as u64
            {
                return Ok(Next::Sparse);
            }
            if self.looked == LOOK_MAX || self.is_full(limits) {
                return Ok(Next::Full);
            }
            let header = Header::read(row)?;
            let topic = match header.map(|header| matches.get(header.topic)) {
                Some(Err(error)) if self.careful && schema::is_damage(&error) => &Match::Unknown,
                Some(topic) => topic?,
                None => &Match::Unknown,
            };
            let next = match (header, topic) {
                (Some(header), Match::Yes(_)) if !self.careful => {
                    self.take_next(conn, row, &header, topic, meta, limits, self.few)?
                }
                (Some(header), Match::Yes(_) | Match::No) => {
                    self.take(row, &header, topic, meta, limits)?
                }
                // The indexes know whose it is.
                _ if trial.is_some() => return Ok(Next::Sparse),
                _ => self.damaged(row.get(0)?, 1),
            };
            if next == Next::Full {
                return Ok(Next::Full);
            }
        }
        Ok(Next::More)
    }

    fn is_full(&self, limits: PageLimits) -> bool {
        !self.events.is_empty() && self.events.len() >= limits.events_max
    }

    /// Takes the row, or tells of those that should stand between it and the topic's one before.
    #[expect(clippy::too_many_arguments, reason = "one step of two loops")]
    fn take_next(
        &mut self,
        conn: &Connection,
        row: &Row<'_>,
        header: &Header,
        topic: &Match,
        meta: &Meta,
        limits: PageLimits,
        ask: bool,
    ) -> rusqlite::Result<Next> {
        // A page's first follows what ended the last one, which may have been a hole; unless it follows
        // damage that was counted.
        let ask = ask || (self.events.is_empty() && self.gap.is_none_or(PageGap::is_removal));
        let missing = self.missing(conn, header, ask)?;
        if missing > 0 && self.damaged(header.position - 1, missing) == Next::Full {
            return Ok(Next::Full);
        }
        self.take(row, header, topic, meta, limits)
    }

    fn take(
        &mut self,
        row: &Row<'_>,
        header: &Header,
        topic: &Match,
        meta: &Meta,
        limits: PageLimits,
    ) -> rusqlite::Result<Next> {
        let event = match topic {
            Match::Yes(topic) => row::decode(row, header, topic, meta.epoch)?,
            Match::No => {
                self.at = header.position;
                self.looked += 1;
                return Ok(Next::More);
            }
            Match::Unknown => None,
        };
        let Some(event) = event else {
            return Ok(self.damaged(header.position, 1));
        };
        self.bytes += event.data.len();
        if self.bytes > limits.bytes_max && !self.events.is_empty() {
            return Ok(Next::Full);
        }
        self.at = header.position;
        self.seqs.insert(header.topic, header.seq);
        self.events.push(Arc::new(event));
        Ok(Next::More)
    }

    /// How many of the topic's events should stand before this one and do not. Retention takes prefixes
    /// only, so that a hole between two that are there is damage.
    /// Looks before the page only if it is to `ask`.
    fn missing(&mut self, conn: &Connection, header: &Header, ask: bool) -> rusqlite::Result<u64> {
        let before = match self.seqs.get(&header.topic) {
            Some(before) => Some(*before),
            None if !ask => None,
            None => conn
                .prepare_cached(concat!(
                    "SELECT ",
                    row::columns!(),
                    " FROM events WHERE topic = ? AND position < ? ORDER BY position DESC LIMIT 1"
                ))?
                .query_row(params![header.topic, header.position], Header::read)
                .optional()?
                .flatten()
                .map(|before| before.seq),
        };
        Ok(before.map_or(0, |before| header.seq.saturating_sub(before + 1)))
    }

    /// Some that are damaged, up to `position`: the gap at the page's beginning grows by them, or the
    /// page ends before them.
    fn damaged(&mut self, position: u64, count: u64) -> Next {
        let missed = match self.gap {
            _ if !self.events.is_empty() => return Next::Full,
            Some(gap) if gap.is_removal() => return Next::Full,
            Some(PageGap { missed, .. }) => missed,
            None => Some(0),
        };
        tracing::error!(position, count, "an event of the log is damaged");
        self.gap = Some(PageGap {
            loss: Loss::Corrupt,
            missed: missed.map(|missed| missed + count),
        });
        self.at = self.at.max(position);
        self.looked += 1;
        // What follows cannot be counted from it.
        self.seqs.clear();
        if self.looked >= LOOK_MAX {
            Next::Full
        } else {
            Next::More
        }
    }

    /// Moves past a damaged page of the file, in growing steps, to where rows can be read again.
    fn skip(&mut self, conn: &Connection, head: u64) {
        let mut step = 1;
        let probe = |from: u64| -> rusqlite::Result<Option<u64>> {
            conn.prepare_cached(concat!(
                "SELECT ",
                row::columns!(),
                " FROM events WHERE position > ? ORDER BY position LIMIT 1"
            ))?
            .query_row([from], |row| {
                // The data too: it may be elsewhere.
                row.get_ref(9)?;
                row.get(0)
            })
            .optional()
        };
        loop {
            self.at = self.at.saturating_add(step).min(head.max(self.at));
            if self.at >= head {
                break;
            }
            match probe(self.at) {
                Ok(Some(first)) => {
                    self.at = self.at.max(first - 1);
                    break;
                }
                Ok(None) | Err(_) => step *= 2,
            }
        }
        self.at_head = self.at >= head;
        self.gap = Some(PageGap {
            loss: Loss::Corrupt,
            missed: None,
        });
    }
}
