//! One reader: replay from the log up to the head, then live, without a hole and without a duplicate.
//!
//! The rule that joins the two: join the feed first, then read the log until a page reaches its head, and drop
//! from the feed what is not beyond the place reached. A reader whose ring overflows leaves the feed and does
//! the same again from its own place; that is never an error by itself.

use super::{Chunk, Frame, Hub, Joined};
use crate::{
    cursor::Cursor,
    event::OwnId,
    log::{Located, Loss, Page, PageGap, PageLimits, Place, ReadError, Start, StartGap},
    topic::Filter,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// What a page of the log may hold: so much is in memory for one reader that replays.
const PAGE: PageLimits = PageLimits {
    events_max: 256,
    bytes_max: 32 << 10,
}; // 32 KiB

/// A reader within so many positions of the head joins its feed before it reads the log, which saves a page.
const NEAR_HEAD: u64 = 256;

/// How long a reader waits before it asks a log again that did not answer.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Where a reader wants to start.
#[derive(Clone, Debug)]
pub enum Begin {
    /// With what is published from now on.
    Live,
    /// At a place in the log.
    Log(Start),
    /// After an id that is neither a cursor nor an own id: nowhere in the log.
    Unknown,
}

impl Begin {
    /// The start that a `Last-Event-ID` asks for: a cursor, an own id, or nothing known.
    #[must_use]
    pub fn last_event_id(text: &str) -> Self {
        match (text.parse::<Cursor>(), OwnId::parse(text)) {
            (Ok(cursor), _) => Self::Log(Start::Cursor(cursor)),
            (_, Ok(own_id)) => Self::Log(Start::OwnId(own_id)),
            _ => Self::Unknown,
        }
    }
}

/// What happens to a reader that is too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// It is served from the log; where retention overtakes it, it is told of a gap.
    #[default]
    Gap,
    /// It is served from the log; where retention overtakes it, its stream ends.
    Disconnect,
    /// It skips to the newest events as soon as it is behind the live frames, and is told so.
    Latest,
}

/// Why the hub ends a stream and says so in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Retention overtook a reader that asked for [`LagPolicy::Disconnect`].
    Lagged,
    /// The hub has no room for another connection.
    Overloaded,
    /// The hub is going down.
    Draining,
}

impl CloseReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lagged => "lagged",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// Why events of a reader's filter will never reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// They were removed before it came.
    Expired,
    /// They were removed, or skipped, while it was reading too slowly.
    Lagged,
    /// The id it came with is not known.
    Unknown,
    /// The id it came with belongs to another log, or to a future that was lost.
    Epoch,
    /// They were damaged on disk.
    Corrupt,
}

impl GapReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Lagged => "lagged",
            Self::Unknown => "unknown",
            Self::Epoch => "epoch",
            Self::Corrupt => "corrupt",
        }
    }
}

/// What a reader is told in place of events that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What happened.
    pub reason: GapReason,
    /// Where the reader was, or wanted to be.
    pub requested: String,
    /// The oldest kept event of its filter.
    pub oldest: Option<Cursor>,
    /// How many it missed, where that is known.
    pub missed: Option<u64>,
}

/// What comes next for a reader.
pub enum Delivery {
    /// Events.
    Events(Chunk),
    /// Something is missing here.
    Gap(Gap),
    /// The end: the reader is to be told why, and nothing follows.
    Close(CloseReason),
    /// The end: the hub stopped.
    Stopped,
}

/// One reader's filter and place, pulled by its transport.
pub struct Subscription {
    hub: Arc<Hub>,
    filter: Arc<Filter>,
    lag: LagPolicy,
    place: Place,
    state: State,
    /// Told before anything else.
    gap: Option<Gap>,
    /// Until the first page was read: what a gap before it means.
    first: Option<FirstPage>,
}

/// What removed events mean to a reader before its first page.
enum FirstPage {
    /// `expired`: the reader named this place, and has missed what was removed after it.
    Expired(String),
    /// Nothing: the reader named no place, and what was removed since it was located is no longer what it asked for.
    Nothing,
}

enum State {
    /// Reading the log, perhaps with a seat in the feed already.
    Replay(Option<Joined>),
    /// A page to hand out after its gap.
    Page(Option<Joined>, Page),
    Live(Joined),
    /// Frames were skipped, which is to be told; the newest of them follows.
    Skipped(Joined, Option<Arc<Frame>>),
    /// A frame to hand out before those of the feed.
    Next(Joined, Arc<Frame>),
    Ended,
}

impl Subscription {
    /// Starts a reader. `requested` is what it asked for, in its own words.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn start(
        hub: &Arc<Hub>,
        filter: &Arc<Filter>,
        begin: Begin,
        requested: String,
        lag: LagPolicy,
    ) -> Self {
        let hub = Arc::clone(hub);
        let filter = Arc::clone(filter);
        let start = match begin {
            Begin::Live => {
                let joined = hub.join(&filter);
                let place = Place {
                    position: joined.from,
                    removal: 0,
                };
                let state = State::Live(joined);
                return Self {
                    hub,
                    filter,
                    lag,
                    place,
                    state,
                    gap: None,
                    first: None,
                };
            }
            Begin::Log(ref start) => start.clone(),
            Begin::Unknown => Start::Earliest,
        };
        let first = match start {
            Start::Earliest | Start::Tail(_) => FirstPage::Nothing,
            Start::Cursor(_) | Start::OwnId(_) | Start::Since(_) => {
                FirstPage::Expired(requested.clone())
            }
        };
        let located = retry(&hub, || hub.log.locate(start.clone(), &filter)).await;
        let (place, state, start_gap) = match located {
            Some(Located { place, gap }) => (place, State::Replay(None), gap),
            None => (
                Place {
                    position: 0,
                    removal: 0,
                },
                State::Ended,
                None,
            ),
        };
        let start_gap = match begin {
            Begin::Unknown => Some(StartGap::Unknown),
            Begin::Live | Begin::Log(_) => start_gap,
        };
        let mut this = Self {
            hub,
            filter,
            lag,
            place,
            state,
            gap: None,
            first: Some(first),
        };
        if let Some(start_gap) = start_gap {
            let reason = match start_gap {
                StartGap::Epoch => GapReason::Epoch,
                StartGap::Unknown => GapReason::Unknown,
                StartGap::Expired => GapReason::Expired,
            };
            this.gap = Some(this.gap(reason, requested, None).await);
        }
        this
    }

    /// Where the reader is: the id that it would resume from.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.hub.log.bounds().epoch,
            position: self.place.position,
        }
    }

    /// What the start itself shows to be missing; it is to be told before anything else, and
    /// [`Subscription::next`] yields it otherwise.
    pub fn take_start_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// Waits for what comes next. After [`Delivery::Close`] or [`Delivery::Stopped`] it is [`Delivery::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the place moves only with what is returned.
    pub async fn next(&mut self) -> Delivery {
        if let Some(gap) = self.gap.take() {
            return Delivery::Gap(gap);
        }
        loop {
            let delivery = match &mut self.state {
                State::Replay(_) => self.replay().await,
                State::Page(..) => self.hand_out(),
                State::Live(_) => self.live().await,
                State::Skipped(..) => self.tell_skipped().await,
                State::Next(..) => self.hand_out_frame(),
                State::Ended => Some(Delivery::Stopped),
            };
            if let Some(delivery) = delivery {
                return delivery;
            }
        }
    }

    /// Reads one page, or finds that none is needed.
    async fn replay(&mut self) -> Option<Delivery> {
        let State::Replay(seat) = &mut self.state else {
            return None;
        };
        let head = self.hub.log.bounds().head;
        if seat.is_none() && head.saturating_sub(self.place.position) <= NEAR_HEAD {
            *seat = Some(self.hub.join(&self.filter));
        }
        if let Some(joined) = seat.take_if(|joined| joined.from <= self.place.position) {
            // Nothing lies between the place and the feed, so nothing was removed there either.
            self.first = None;
            self.state = State::Live(joined);
            return None;
        }
        let read = || self.hub.log.read_after(self.place, &self.filter, PAGE);
        let Some(page) = retry(&self.hub, read).await else {
            self.state = State::Ended;
            return None;
        };
        match self.page_gap(&page).await {
            Ok(None) => self.take_page(page),
            Ok(Some(gap)) => {
                let State::Replay(seat) = &mut self.state else {
                    return None;
                };
                self.state = State::Page(seat.take(), page);
                Some(Delivery::Gap(gap))
            }
            Err(reason) => {
                self.state = State::Ended;
                Some(Delivery::Close(reason))
            }
        }
    }

    /// What to tell before a page, or why it ends the stream.
    async fn page_gap(&self, page: &Page) -> Result<Option<Gap>, CloseReason> {
        let Some(PageGap { loss, missed }) = page.gap else {
            return Ok(None);
        };
        let here = || self.cursor().to_string();
        let (reason, requested) = match (loss, &self.first) {
            (Loss::Corrupt, _) => (GapReason::Corrupt, here()),
            (Loss::Removed, Some(FirstPage::Expired(requested))) => {
                (GapReason::Expired, requested.clone())
            }
            (Loss::Removed, Some(FirstPage::Nothing)) => return Ok(None),
            (Loss::Removed, None) if self.lag == LagPolicy::Disconnect => {
                return Err(CloseReason::Lagged);
            }
            (Loss::Removed, None) => (GapReason::Lagged, here()),
        };
        Ok(Some(self.gap(reason, requested, missed).await))
    }

    fn hand_out(&mut self) -> Option<Delivery> {
        let State::Page(seat, page) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        self.state = State::Replay(seat);
        self.take_page(page)
    }

    fn take_page(&mut self, page: Page) -> Option<Delivery> {
        let State::Replay(seat) = &mut self.state else {
            return None;
        };
        self.first = None;
        self.place = page.place;
        if page.at_head {
            match seat.take() {
                Some(mut joined) => {
                    joined.log_read = true;
                    // The page was read after joining: it covers all that the feed does not.
                    self.place.position = self.place.position.max(joined.from);
                    self.state = State::Live(joined);
                }
                None => *seat = Some(self.hub.join(&self.filter)),
            }
        }
        (!page.events.is_empty()).then(|| Delivery::Events(Chunk::Own(page.events)))
    }

    async fn live(&mut self) -> Option<Delivery> {
        let State::Live(joined) = &mut self.state else {
            return None;
        };
        match joined.frames.recv().await {
            Ok(frame) => {
                joined.log_read = false;
                self.beyond_place(frame)
            }
            Err(RecvError::Lagged(_)) => {
                let head = self.hub.log.bounds().head;
                let near = head.saturating_sub(self.place.position) <= NEAR_HEAD;
                self.state = match std::mem::replace(&mut self.state, State::Replay(None)) {
                    // What the ring dropped may be what the log had already given: see there what is missing.
                    State::Live(joined) if joined.log_read && near => State::Replay(None),
                    State::Live(joined) if self.lag == LagPolicy::Latest => skip_to_newest(joined),
                    _ => State::Replay(None),
                };
                None
            }
            Err(RecvError::Closed) => {
                self.state = State::Ended;
                None
            }
        }
    }

    /// The part of a frame that this reader does not have yet.
    fn beyond_place(&mut self, frame: Arc<Frame>) -> Option<Delivery> {
        let position = self.place.position;
        let events = frame.events();
        let known = events.partition_point(|event| event.cursor.position <= position);
        let newest = events.last()?.cursor.position;
        self.place.position = position.max(newest);
        (known < events.len()).then(|| Delivery::Events(Chunk::Shared(frame, known)))
    }

    /// Tells of the frames it left.
    async fn tell_skipped(&mut self) -> Option<Delivery> {
        let gap = self
            .gap(GapReason::Lagged, self.cursor().to_string(), None)
            .await;
        let State::Skipped(joined, newest) = std::mem::replace(&mut self.state, State::Ended)
        else {
            return None;
        };
        self.state = match newest {
            Some(frame) => State::Next(joined, frame),
            None => State::Live(joined),
        };
        Some(Delivery::Gap(gap))
    }

    fn hand_out_frame(&mut self) -> Option<Delivery> {
        let State::Next(joined, frame) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        self.state = State::Live(joined);
        self.beyond_place(frame)
    }

    async fn gap(&self, reason: GapReason, requested: String, missed: Option<u64>) -> Gap {
        let oldest = retry(&self.hub, || self.hub.log.oldest(&self.filter))
            .await
            .flatten();
        Gap {
            reason,
            requested,
            oldest,
            missed,
        }
    }
}

/// Leaves all frames that the feed holds but the last.
fn skip_to_newest(mut joined: Joined) -> State {
    let mut newest = None;
    loop {
        match joined.frames.try_recv() {
            Ok(frame) => newest = Some(frame),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => {
                return State::Skipped(joined, newest);
            }
        }
    }
}

/// Asks the log until it answers; `None` once it is closed. Whoever waits may be dropped at any time.
async fn retry<T, F>(hub: &Hub, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, ReadError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(_) if hub.is_stopped() => return None,
            Err(error) => tracing::debug!(%error, "a read is tried again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
