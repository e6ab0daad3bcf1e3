//! One reader: replay from the log up to the head, then live, without a hole and without a duplicate.
//!
//! The rule that joins the two: take a seat in the feed first, then read the feed's recent frames and the log until
//! the place is one from which on the feed sends everything, and drop from the feed what is not beyond the place
//! reached. A reader that falls behind leaves its seat and does the same again from its own place; that is never an
//! error by itself.

use super::{
    Chunk, Hub, Reader, Seat,
    feed::{RING_FRAMES, Sent, Stretch},
    frame::Frame,
    lookup::{known_cursor, locate, oldest, read},
    terms::{Begin, CloseReason, Gap, GapReason, LagPolicy},
};
use crate::{
    cursor::Cursor,
    encoding::Encoding,
    log::{BoxFuture, Located, Loss, Place, Start, StartGap},
    topic::Filter,
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// A reader within so many positions of the head takes its seat before it reads the log, which saves a page.
const NEAR_HEAD: u64 = 256;

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
    reader: Reader,
    lag: LagPolicy,
    /// Whether what it misses is to be skipped, since it fell behind under [`LagPolicy::Latest`].
    skip: bool,
    /// Whether it gives back its tokens in time.
    paced: bool,
    /// Whether it was live, and has since been told of nothing that was removed.
    was_live: bool,
    /// Whether the last page reached the end of the log.
    at_head: bool,
    /// The epoch that its place belongs to.
    epoch: u64,
    place: Place,
    state: State,
    /// Told before anything else.
    gap: Option<Box<Gap>>,
    /// Until the first page was read: what a gap before it means.
    first: Option<FirstPage>,
}

/// What removed events mean to a reader before its first page.
enum FirstPage {
    /// `expired`: the reader named this place, and has missed what was removed after it.
    Expired(Box<str>),
    /// Nothing: the reader named no place, and what was removed since it was located is no longer what it asked for.
    Nothing,
}

enum State {
    /// Behind, perhaps with a seat already.
    Behind(Option<Seat>),
    /// Waiting for a page of the log.
    Reading(Option<Seat>, BoxFuture<'static, Option<Arc<Stretch>>>),
    /// A page to hand out after its gap.
    Page(Option<Seat>, Arc<Stretch>),
    /// Receiving frames. With the token to give back for the last.
    Live(Seat, Option<u64>),
    /// Frames were skipped, which is to be told once the oldest kept event is known; this one follows.
    Skipping(Seat, Arc<Frame>, BoxFuture<'static, Option<Cursor>>),
    /// A frame to hand out before those of the feed.
    Next(Seat, Arc<Frame>),
    /// The log has another epoch, in which the place is not what it was. That is to be told, with the cursor that is no
    /// longer good, once the oldest kept event is known.
    Parted(Cursor, BoxFuture<'static, Option<Cursor>>),
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
        let start = match begin {
            Begin::Live => return Self::live_now(hub, filter, lag),
            Begin::Log(ref start) => start.clone(),
            Begin::Unknown => Start::Earliest,
        };
        let first = match start {
            Start::Earliest | Start::Tail(_) => FirstPage::Nothing,
            Start::Cursor(_) | Start::OwnId(_) | Start::Since(_) => {
                FirstPage::Expired(requested.as_str().into())
            }
        };
        let located = match known_cursor(hub, &start) {
            Some(located) => Some(located),
            None => locate(hub, filter, start).await,
        };
        let ((place, epoch), state, start_gap) = match located {
            Some(Located { place, gap, epoch }) => ((place, epoch), State::Behind(None), gap),
            None => ((Place::at(0), 0), State::Ended, None),
        };
        let start_gap = match begin {
            Begin::Unknown => Some(StartGap::Unknown),
            // Its future may be anybody's invention: no node has it.
            Begin::Log(Start::Cursor(cursor)) if hub.log.is_shared() && cursor.epoch == epoch => {
                start_gap.map(|_| StartGap::Unknown)
            }
            Begin::Live | Begin::Log(_) => start_gap,
        };
        let mut this = Self {
            reader: Reader::new(hub, filter),
            lag,
            skip: false,
            paced: false,
            was_live: false,
            at_head: false,
            epoch,
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
            let oldest = oldest(Arc::clone(hub), Arc::clone(filter)).await;
            this.gap = Some(Box::new(Gap {
                reason,
                requested,
                oldest,
                missed: None,
            }));
        }
        this
    }

    /// Starts a reader with what is published from now on.
    #[must_use]
    pub fn live_now(hub: &Arc<Hub>, filter: &Arc<Filter>, lag: LagPolicy) -> Self {
        let reader = Reader::new(hub, filter);
        let (seat, matched_to) = reader.sit();
        Self {
            reader,
            lag,
            skip: false,
            paced: false,
            was_live: true,
            at_head: true,
            epoch: matched_to.epoch,
            place: Place::at(matched_to.position),
            state: State::Live(seat, None),
            gap: None,
            first: None,
        }
    }

    /// Has the pace of the feed's frames wait for this reader. Its transport promises to call
    /// [`Subscription::next`] as soon as it has written what it got, and [`Subscription::behind`] if it cannot.
    pub fn pace(&mut self) {
        self.paced = true;
        if let State::Live(seat, _) = &mut self.state {
            seat.pace();
        }
    }

    /// Where the reader is: the id that it would resume from.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            position: self.place.position,
        }
    }

    /// Whether the end came already, of which [`Subscription::next`] tells.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// What the start itself shows to be missing; it is to be told before anything else, and
    /// [`Subscription::next`] yields it otherwise.
    pub fn take_start_gap(&mut self) -> Option<Gap> {
        self.gap.take().map(|gap| *gap)
    }

    /// Waits for what comes next; to call it says that what came before is written. After [`Delivery::Close`] or
    /// [`Delivery::Stopped`] it is [`Delivery::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the place moves only with what is returned, and a read of the log goes on
    /// with the next call.
    pub async fn next(&mut self) -> Delivery {
        if let Some(gap) = self.gap.take() {
            return Delivery::Gap(*gap);
        }
        loop {
            if let Some(delivery) = self.step().await {
                return delivery;
            }
        }
    }

    /// The same of what the log has, without waiting for more: `None` once there is no more. Then
    /// [`Subscription::cursor`] is where the log ended when this was called first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next_kept(&mut self) -> Option<Delivery> {
        if let Some(gap) = self.gap.take() {
            return Some(Delivery::Gap(*gap));
        }
        loop {
            let delivery = match &mut self.state {
                State::Live(..) => {
                    // Of what it has not received yet the log has all.
                    (self.state, self.at_head) = (State::Behind(None), false);
                    None
                }
                State::Behind(_) if self.at_head => return None,
                State::Behind(_) => self.catch_up(false),
                _ => self.step().await,
            };
            if delivery.is_some() {
                return delivery;
            }
        }
    }

    /// One step towards what comes next.
    async fn step(&mut self) -> Option<Delivery> {
        match &mut self.state {
            State::Live(seat, token) => {
                if let Some(token) = token.take() {
                    seat.give_back(token);
                }
                let sent = seat.frames.recv().await;
                self.received(sent)
            }
            State::Reading(_, page) => {
                let stretch = page.await;
                self.read(stretch)
            }
            State::Skipping(.., oldest) => {
                let oldest = oldest.await;
                self.skipped(oldest)
            }
            State::Parted(_, oldest) => {
                let oldest = oldest.await;
                self.parted(oldest)
            }
            State::Behind(_) => self.catch_up(true),
            State::Page(..) => self.hand_out_page(),
            State::Next(..) => self.hand_out_frame(),
            State::Ended => Some(Delivery::Stopped),
        }
    }

    /// Of this chunk, which came last, the reader took only so many bytes for now. It loses its seat, so that nobody
    /// waits for it. Gives what is left of the event under way; what lies behind that will come again.
    pub fn behind(&mut self, chunk: &Chunk, encoding: Encoding, taken: usize) -> Bytes {
        let cut = chunk.cut(encoding, taken);
        self.behind_at(chunk, cut.position);
        cut.rest
    }

    /// The same of a reader that takes whole events: so many of them.
    pub fn behind_by(&mut self, chunk: &Chunk, taken: usize) {
        let last = taken
            .checked_sub(1)
            .and_then(|last| chunk.events().get(last));
        self.behind_at(chunk, last.map(|event| event.cursor.position));
    }

    fn behind_at(&mut self, chunk: &Chunk, taken_to: Option<u64>) {
        let first = chunk
            .events()
            .first()
            .map_or(0, |event| event.cursor.position);
        self.place.position = taken_to.unwrap_or(first.saturating_sub(1));
        if !matches!(self.state, State::Ended) {
            self.fall_behind();
        }
    }

    /// The reader takes nothing for now, of whatever it was to get. It loses its seat, so that nobody waits for it.
    pub fn stalled(&mut self) {
        if matches!(self.state, State::Live(..)) {
            self.fall_behind();
        }
    }

    fn fall_behind(&mut self) {
        let live = matches!(self.state, State::Live(..));
        self.skip = self.skip || (live && self.lag == LagPolicy::Latest);
        self.state = State::Behind(None);
    }

    /// Finds what comes after the place: in the feed's recent frames, or in the log; or that the feed will send it, if the
    /// reader is to go live.
    fn catch_up(&mut self, to_live: bool) -> Option<Delivery> {
        let hub = Arc::clone(&self.reader.hub);
        if hub.drain.is_cancelled() {
            self.state = State::Ended;
            return None;
        }
        let (bounds, here) = (hub.log.bounds(), self.cursor());
        if bounds.epoch != self.epoch {
            self.change_epoch(bounds.epoch);
            return None;
        }
        let State::Behind(seat) = &mut self.state else {
            return None;
        };
        let feed = &self.reader.feed;
        let position = here.position;
        if !to_live && position >= bounds.head {
            // Nothing lies beyond the place, and nothing did that is gone.
            self.at_head = true;
            return None;
        }
        let near = self.at_head || bounds.head.saturating_sub(position) <= NEAR_HEAD;
        if to_live && seat.is_none() && (near || self.skip || feed.recent(here).is_some()) {
            *seat = Some(self.reader.sit().0);
        }
        if self.skip {
            self.skip = false;
            if let Some(newest) = feed.newest_beyond(here, RING_FRAMES)
                && let Some(seat) = seat.take()
            {
                let oldest = Box::pin(oldest(hub, Arc::clone(&feed.filter)));
                self.state = State::Skipping(seat, newest, oldest);
                return None;
            }
        }
        if let Some(seat) = seat.take_if(|_| feed.is_live_at(position)) {
            // Nothing lies between the place and the feed, so nothing was removed there either.
            self.first = None;
            self.go_live(seat);
            return None;
        }
        // Where something beyond the place was removed, only the log knows what that means to a reader that comes back.
        // To one that was live the frames that are held are still delivered.
        let is_whole = self.was_live || bounds.removed_to <= position;
        if is_whole && let Some(frame) = feed.recent(here) {
            self.first = None;
            return self.beyond_place(frame);
        }
        let page = read(hub, Arc::clone(feed), self.place);
        self.state = State::Reading(seat.take(), Box::pin(page));
        None
    }

    /// The log has another epoch now: goes on from what the two share. If that is not all that the reader has, it is told.
    fn change_epoch(&mut self, epoch: u64) {
        let hub = &self.reader.hub;
        let (here, shared_to) = (self.cursor(), hub.log.shared_with(self.epoch));
        self.state = State::Behind(None);
        (self.epoch, self.was_live, self.at_head) = (epoch, false, false);
        let shared_to = shared_to.unwrap_or(0);
        if here.position > shared_to {
            self.place = Place::at(shared_to);
            // Whatever else is gone from there is told with this.
            self.first = Some(FirstPage::Nothing);
            let oldest = oldest(Arc::clone(hub), Arc::clone(&self.reader.feed.filter));
            self.state = State::Parted(here, Box::pin(oldest));
        }
    }

    fn parted(&mut self, oldest: Option<Cursor>) -> Option<Delivery> {
        let State::Parted(here, _) = std::mem::replace(&mut self.state, State::Behind(None)) else {
            return None;
        };
        Some(Delivery::Gap(Gap {
            reason: GapReason::Epoch,
            requested: here.to_string(),
            oldest,
            missed: None,
        }))
    }

    fn go_live(&mut self, mut seat: Seat) {
        if self.paced {
            seat.pace();
        }
        self.was_live = true;
        self.state = State::Live(seat, None);
    }

    /// A page of the log came, or the log was closed.
    fn read(&mut self, stretch: Option<Arc<Stretch>>) -> Option<Delivery> {
        let State::Reading(seat, _) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        let stretch = stretch?;
        if stretch.epoch != self.epoch {
            self.state = State::Behind(None);
            return None;
        }
        match self.page_gap(&stretch) {
            Ok(gap) => {
                self.state = State::Page(seat, stretch);
                gap.map(Delivery::Gap)
            }
            Err(reason) => Some(Delivery::Close(reason)),
        }
    }

    /// What to tell before a page, or why it ends the stream.
    fn page_gap(&self, stretch: &Stretch) -> Result<Option<Gap>, CloseReason> {
        let Some(gap) = stretch.gap else {
            return Ok(None);
        };
        let here = || self.cursor().to_string();
        let (reason, requested) = match (gap.loss, &self.first) {
            (Loss::Corrupt, _) => (GapReason::Corrupt, here()),
            (Loss::Removed, Some(FirstPage::Expired(requested))) => {
                (GapReason::Expired, requested.to_string())
            }
            (Loss::Removed, Some(FirstPage::Nothing)) => return Ok(None),
            (Loss::Removed, None) if self.lag == LagPolicy::Disconnect => {
                return Err(CloseReason::Lagged);
            }
            (Loss::Removed, None) => (GapReason::Lagged, here()),
        };
        Ok(Some(Gap {
            reason,
            requested,
            oldest: stretch.oldest,
            missed: gap.missed,
        }))
    }

    fn hand_out_page(&mut self) -> Option<Delivery> {
        let State::Page(seat, stretch) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        self.first = None;
        self.was_live = self.was_live && stretch.gap.is_none();
        (self.place, self.at_head) = (stretch.place, stretch.at_head);
        self.state = State::Behind(seat);
        let frame = stretch.frame.clone()?;
        Some(Delivery::Events(Chunk { frame, known: 0 }))
    }

    /// A frame came from the feed, or the news that there is no more or was too much.
    fn received(&mut self, sent: Result<Sent, RecvError>) -> Option<Delivery> {
        let sent = match sent {
            Ok(sent) => sent,
            Err(RecvError::Lagged(_)) => {
                self.fall_behind();
                return None;
            }
            Err(RecvError::Closed) => {
                self.state = State::Ended;
                return None;
            }
        };
        let Some(frame) = sent.frame.upgrade() else {
            self.fall_behind();
            return None;
        };
        if frame.epoch() != self.epoch {
            // Of an epoch that comes, it is in the log; of one that went, nobody wants it.
            self.fall_behind();
            return None;
        }
        if let State::Live(_, token) = &mut self.state {
            *token = sent.token;
        }
        self.beyond_place(frame)
    }

    /// The part of a frame that this reader does not have yet.
    fn beyond_place(&mut self, frame: Arc<Frame>) -> Option<Delivery> {
        let known = frame.known_at(self.place.position);
        self.place.position = self.place.position.max(frame.span.1);
        let new = known < frame.events().len();
        new.then(|| Delivery::Events(Chunk { frame, known }))
    }

    /// Tells of the frames it left.
    fn skipped(&mut self, oldest: Option<Cursor>) -> Option<Delivery> {
        let State::Skipping(seat, newest, _) = std::mem::replace(&mut self.state, State::Ended)
        else {
            return None;
        };
        let requested = self.cursor().to_string();
        self.place.position = self.place.position.max(newest.span.0);
        self.state = State::Next(seat, newest);
        Some(Delivery::Gap(Gap {
            reason: GapReason::Lagged,
            requested,
            oldest,
            missed: None,
        }))
    }

    fn hand_out_frame(&mut self) -> Option<Delivery> {
        let State::Next(seat, frame) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        self.state = State::Behind(Some(seat));
        self.beyond_place(frame)
    }
}
