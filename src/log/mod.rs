//! The log: the one order of all events, durable, with replay and retention.
//!
//! [`EventLog`] is the contract; [`memory`] is it at its simplest, [`sqlite`] the default. The log knows
//! no HTTP and no feeds. One suite, `tests/it/log_contract/`, runs on every engine.

mod keys;
pub mod memory;
mod removal;
pub mod replica;
pub mod retention;
pub mod sqlite;

use crate::{
    cursor::Cursor,
    event::{Draft, Event, OwnId},
    topic::Filter,
};
use std::{future::Future, ops::Deref, pin::Pin, sync::Arc};

/// A future of the [`EventLog`], boxed so that engines can stand behind one pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An ordered, durable log of events.
///
/// Laws that every engine keeps, and the contract suite checks:
///
/// - **Order.** Committed events have rising positions; no position is used twice within an epoch, even
///   after everything was removed and the log opened again. Event time never falls within an epoch.
/// - **Removal takes prefixes.** Retention removes a topic's oldest events first, so that what is left of
///   a topic is always its newest stretch.
/// - **Exact gaps.** A read tells of a removal when, and only when, an event that its filter matches was
///   removed after the reader's place. (Only once more than the configured number of emptied topics
///   had to be forgotten may it tell of one that matches nothing.)
/// - **Durable.** What an append returned is kept as the engine's durability says.
///
/// Who begins a call polls it to its end or drops it: while it has its turn and is not polled, others wait behind it.
pub trait EventLog: Send + Sync + 'static {
    /// Appends the drafts in their order, each an event at its own position, and resolves when they are
    /// durable. Appends of several callers share a commit.
    ///
    /// A draft whose key is known (on its topic, within the window) is not stored again:
    /// [`Outcome::Duplicate`] if its data, event and own id are those of the first, else
    /// [`Outcome::Conflict`]. Keys of one batch count among themselves, in order. A refused draft
    /// uses up no key.
    ///
    /// # Errors
    ///
    /// [`AppendError`], about the whole batch.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the batch may be stored even if the future is dropped.
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Outcome>, AppendError>>;

    /// Reads events after `place` that match `filter`, oldest first, within `limits`.
    ///
    /// Costs what it returns, plus a bounded number of rows looked at that do not match: a page may be
    /// empty and still move its place on. Only [`Page::at_head`] says that there was no more.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] if the engine did not answer (retry).
    fn read_after<'a>(
        &'a self,
        place: Place,
        filter: &'a Arc<Filter>,
        limits: PageLimits,
    ) -> BoxFuture<'a, Result<Page, ReadError>>;

    /// Finds where a reader starts. Unless it is given, that is right before the first event that will come, or at
    /// the head if none is kept: so whoever comes back with it as a cursor is not told that older events are
    /// gone.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] if the engine did not answer (retry).
    fn locate<'a>(
        &'a self,
        start: Start,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Located, ReadError>>;

    /// The oldest kept event that matches `filter`, if any.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] if the engine did not answer (retry).
    fn oldest<'a>(
        &'a self,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Option<Cursor>, ReadError>>;

    /// Whether other nodes append to it too, so that a position beyond its head may be one that it has still to get.
    fn is_shared(&self) -> bool {
        false
    }

    /// Every event committed after [`Tail::from`], in order, each once.
    ///
    /// The tail is bounded: one that is not read stalls appends, one that is dropped is forgotten. It ends
    /// when the log is closed; one that is full then ends before what found no room in it.
    fn tail(&self) -> Tail;

    /// The log's epoch and newest committed event. Costs nothing.
    fn bounds(&self) -> Bounds;

    /// The position up to which cursors of that epoch are good in the present one: all of them if it is that, `None` if
    /// they share nothing. Costs nothing.
    fn shared_with(&self, epoch: u64) -> Option<u64> {
        (epoch == self.bounds().epoch).then_some(u64::MAX)
    }

    /// Finishes what was appended and closes the files. Later appends are refused.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Drafts to append together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they are to be stored.
    pub drafts: Vec<Draft>,
    /// Whether one [`Outcome::Conflict`] keeps all of them out.
    pub all_or_nothing: bool,
}

/// What became of one draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, as this event.
    Stored(Cursor),
    /// Not stored again: it is this event, which may have been removed since.
    Duplicate(Cursor),
    /// Refused: its key belongs to another content. In an all-or-nothing batch, nothing was stored and
    /// the outcomes of the other drafts mean nothing.
    Conflict,
    /// Certainly not stored: alone it is larger than the journal takes, which is so many bytes. Of an all-or-nothing batch
    /// that is said as [`AppendError::TooLarge`].
    TooLarge(usize),
}

/// Why a batch was not stored, or may not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room. Certainly not stored; heals by itself when there is room.
    #[error("the log has no room left")]
    Full,
    /// The commit failed in a way that leaves open whether it is stored. The same key settles it.
    #[error("it is unknown whether the log stored the events")]
    Unknown,
    /// Certainly not stored: the log is closed, or could not be opened again yet.
    #[error("the log is not available")]
    Unavailable,
    /// Handed to the journal, which did not show in time whether it is stored. The same key settles it.
    #[error("the journal did not show in time whether the events are stored")]
    TimedOut,
    /// Certainly not stored: together the events are larger than the journal takes, which is so many bytes.
    #[error("the journal takes at most {0} bytes at once")]
    TooLarge(usize),
    /// Certainly not stored: more events at once than an entry of the journal has room for.
    #[error("the journal takes at most {0} events at once")]
    TooMany(usize),
}

/// Why a read gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The engine did not answer. Nothing was lost by it; try again.
    #[error("the log did not answer")]
    Unavailable,
    /// This node cannot find out in time whether it only lacks what others have: the reader is to come back.
    #[error("the log is behind that of other nodes")]
    Behind,
}

/// How far a reader has come: all up to `position` is dealt with, and of removals, those up to `removal`.
///
/// The log counts its removals (a number that rises with each step of retention), and notes with each topic up
/// to which position and at which removal it last lost events. A reader missed something exactly if a topic
/// it wants has lost events beyond `position` at a removal after `removal`: so a gap is told once,
/// and one that was told never hides the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the newest event dealt with.
    pub position: u64,
    /// Of the newest removal known. 0 if it comes from outside: then all that was ever removed beyond
    /// `position` counts.
    pub removal: u64,
}

impl Place {
    /// A place that comes from outside.
    #[must_use]
    pub fn at(position: u64) -> Self {
        Self {
            position,
            removal: 0,
        }
    }
}

/// How much one page may hold. At least one event comes, however large.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// At most so many events.
    pub events_max: usize,
    /// At most so many bytes of data.
    pub bytes_max: usize,
}

/// Some events in order, and where the reader is after them.
#[derive(Debug)]
pub struct Page {
    /// What the reader missed before the events of this page.
    pub gap: Option<PageGap>,
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Where the next page begins.
    pub place: Place,
    /// Whether the page reached the end of the log as it was when it was read.
    pub at_head: bool,
    /// All that was ever removed by then lies at or before this position.
    pub removed_to: u64,
    /// The epoch that all of this belongs to.
    pub epoch: u64,
}

/// Events that a reader wanted and cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageGap {
    /// What happened to them.
    pub loss: Loss,
    /// Their number, where it costs nothing to know.
    pub missed: Option<u64>,
}

/// What happened to events that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Retention removed them.
    Removed,
    /// They were damaged on disk.
    Corrupt,
}

/// Where a reader wants to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// After that event.
    Cursor(Cursor),
    /// After the oldest event within the filter that has this own id.
    OwnId(OwnId),
    /// With the first event at or after that time, in ms since 1970 UTC.
    Since(u64),
    /// With the oldest kept event.
    Earliest,
    /// With the newest so many events of the whole filter.
    Tail(usize),
}

/// Where a reader starts, and what it has to be told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Read on from here.
    pub place: Place,
    /// What the start itself shows to be missing. (A cursor's expired events are the first page's
    /// [`Page::gap`].)
    pub gap: Option<StartGap>,
    /// The epoch that the place belongs to.
    pub epoch: u64,
}

/// What a start shows to be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartGap {
    /// A cursor beyond what its epoch and the present one share, or beyond the head. The place is where they part; if
    /// they share nothing, before the oldest kept event that matches.
    Epoch,
    /// An own id that no kept event within the filter has. The place is before the oldest kept event that matches.
    Unknown,
    /// Events at or after the time asked for were removed.
    Expired,
}

/// The ends of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Random, made with the log.
    pub epoch: u64,
    /// The position of the newest committed event ever, kept or not; 0 before the first.
    pub head: u64,
    /// All events that were ever removed are at or before this position.
    pub removed_to: u64,
}

/// Committed events as they come: see [`EventLog::tail`].
pub struct Tail {
    /// The epoch at its beginning.
    pub epoch: u64,
    /// All events after this position come.
    pub from: u64,
    /// Groups of events, each never empty, and cuts between them.
    pub groups: tokio::sync::mpsc::Receiver<Group>,
}

/// Events that were committed together; or, without any, a *cut*.
#[derive(Clone, Debug)]
pub struct Group {
    events: Arc<[Arc<Event>]>,
    /// What came before may be gone, or may have been followed by something that never comes: who tails has to look at
    /// the log again. It ends here now, and what comes next is beyond it.
    pub cut: Option<Cursor>,
}

impl Group {
    pub(crate) fn cut(epoch: u64, position: u64) -> Self {
        Self {
            events: Arc::new([]),
            cut: Some(Cursor { epoch, position }),
        }
    }
}

impl From<Vec<Arc<Event>>> for Group {
    fn from(events: Vec<Arc<Event>>) -> Self {
        Self {
            events: events.into(),
            cut: None,
        }
    }
}

impl Deref for Group {
    type Target = [Arc<Event>];

    fn deref(&self) -> &[Arc<Event>] {
        &self.events
    }
}

/// Groups that a [`Tail`] holds before appends wait for it.
pub const TAIL_GROUPS: usize = 64;

/// Where engines get the time from, so that tests can turn it: ms since 1970 UTC.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since = std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Another one.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// ms since 1970 UTC.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

/// What every engine is told at its start.
#[derive(Clone)]
pub struct LogOptions {
    /// How long events stay.
    pub retention: retention::Retention,
    /// How long an idempotency key is kept, in ms.
    pub key_age_max_ms: u64,
    /// How many keys are kept; past that the oldest go before their time.
    pub keys_max: u64,
    /// How many topics without events are remembered, so that gaps stay exact; past that, those emptied
    /// longest ago are forgotten and gaps older than that are told to readers of any topic the log does not know.
    pub emptied_topics_max: u64,
    /// Where the time comes from.
    pub clock: Clock,
}
