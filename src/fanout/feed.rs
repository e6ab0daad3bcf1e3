//! One feed: what its readers share.

use super::{
    frame::{Frame, Source, wire_bytes},
    pass::{PassClock, When},
};
use crate::{
    cursor::Cursor,
    event::Event,
    log::{BoxFuture, PageGap, Place},
    topic::Filter,
};
use futures_util::future::{Shared, WeakShared};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::{sync::broadcast, time::Instant};

/// Frames that a feed's channel holds; who is further behind looks among the feed's recent frames, then in the log.
/// (`broadcast` allocates all slots at once: about 50 bytes each.)
pub(super) const RING_FRAMES: usize = 4;

/// What a feed and a name in its filter take in memory beside the name itself, about.
const FEED_COST: usize = 1 << 10;
const NAME_COST: usize = 128;

/// Events that gather up to this many bytes are sent before their time.
const GATHER_BYTES_MAX: usize = 128 << 10; // 128 KiB

/// All readers of this node with the same filter.
pub(super) struct Feed {
    pub(super) filter: Arc<Filter>,
    state: Mutex<State>,
}

struct State {
    /// Gone when the hub ends its streams.
    frames: Option<broadcast::Sender<Sent>>,
    clock: PassClock,
    /// Readers that the clock waits for.
    paced: usize,
    /// Events that gather for the next frame.
    gathered: Vec<Arc<Event>>,
    gathered_bytes: usize,
    /// The next frame covers the feed from this position on.
    next_from: u64,
    /// Frames that are still held, by position; there may be holes between them.
    recent: VecDeque<Arc<Frame>>,
    /// Frames up to this position were held, and are no longer.
    let_go_to: u64,
    /// Reads of the log that are under way.
    reads: Vec<(Place, WeakReading)>,
}

/// A frame on its way to a reader. The bytes are the cache's, which may let go of them.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) frame: Weak<Frame>,
    /// To be given back when it is written; `None` if another frame follows at once.
    pub(super) token: Option<u64>,
}

/// A page of the log, as its readers share it.
pub(super) struct Stretch {
    pub(super) gap: Option<PageGap>,
    /// The oldest kept event, where there is a gap to tell it in.
    pub(super) oldest: Option<Cursor>,
    pub(super) frame: Option<Arc<Frame>>,
    pub(super) place: Place,
    pub(super) epoch: u64,
    /// Whether it reached the end of the log.
    pub(super) at_head: bool,
    /// Whether nothing of the feed that lies in it was removed before it was read: it says the same to all who read it.
    pub(super) is_whole: bool,
}

/// A read of the log that several readers may wait for. `None` once the log is closed.
pub(super) type Reading = Shared<BoxFuture<'static, Option<Arc<Stretch>>>>;
type WeakReading = WeakShared<BoxFuture<'static, Option<Arc<Stretch>>>>;

/// What to do with a feed that has events gathered.
pub(super) enum Due {
    /// Nothing now: nothing gathered, or the end of a pass will bring it up again.
    Later,
    At(Instant),
    /// To be sent: these events, which cover the feed from that position on.
    Now(u64, Vec<Arc<Event>>),
}

impl Feed {
    pub(super) fn new(filter: Arc<Filter>) -> Self {
        Self {
            filter,
            state: Mutex::new(State {
                frames: None,
                clock: PassClock::default(),
                paced: 0,
                gathered: Vec::new(),
                gathered_bytes: 0,
                next_from: 0,
                recent: VecDeque::new(),
                let_go_to: 0,
                reads: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its first reader comes: from now on it has all events beyond `from`.
    pub(super) fn begin(&self, from: u64) {
        let mut state = self.state();
        state.frames = Some(broadcast::Sender::new(RING_FRAMES));
        state.next_from = from;
        state.clock = PassClock::default();
    }

    /// Its last reader has gone. What was gathered is in the log.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.frames = None;
        state.gathered = Vec::new();
        state.gathered_bytes = 0;
    }

    /// The log ends there now: what it has of it is nothing to go by, and its readers fall behind.
    pub(super) fn cut(&self, at: u64) {
        let mut state = self.state();
        state.gathered = Vec::new();
        state.gathered_bytes = 0;
        state.recent = VecDeque::new();
        state.reads = Vec::new();
        (state.next_from, state.let_go_to) = (at, 0);
        if let Some(channel) = state.frames.clone() {
            drop(state);
            // Nobody is there to miss it.
            let _ = channel.send(Sent {
                frame: Weak::new(),
                token: None,
            });
        }
    }

    /// What is sent from now on; a channel that is at its end if nothing will be.
    pub(super) fn receiver(&self) -> broadcast::Receiver<Sent> {
        match &self.state().frames {
            Some(frames) => frames.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        }
    }

    /// Adds an event. Gives whether to look when it is [due](Self::due).
    pub(super) fn gather(&self, event: &Arc<Event>) -> bool {
        let mut state = self.state();
        let last = state.gathered.last();
        // A feed whose filter matches the event in several ways gets it once.
        if last.is_some_and(|last| last.cursor == event.cursor) {
            return false;
        }
        state.gathered_bytes += wire_bytes(event);
        state.gathered.push(Arc::clone(event));
        state.gathered.len() == 1 || state.gathered_bytes >= GATHER_BYTES_MAX
    }

    /// Takes what has gathered if its time has come.
    pub(super) fn due(&self, now: Instant) -> Due {
        let mut state = self.state();
        if state.gathered.is_empty() {
            return Due::Later;
        }
        match state.clock.when(now) {
            When::At(at) if state.gathered_bytes < GATHER_BYTES_MAX => Due::At(at),
            When::AfterPass if state.gathered_bytes < GATHER_BYTES_MAX => Due::Later,
            _ => {
                state.gathered_bytes = 0;
                Due::Now(state.next_from, std::mem::take(&mut state.gathered))
            }
        }
    }

    /// Sends frames that were made of what was [due](Self::due).
    pub(super) fn send(&self, frames: &[Arc<Frame>]) {
        let mut state = self.state();
        let Some(last) = frames.last() else { return };
        state.next_from = last.span.1;
        state.recent.extend(frames.iter().cloned());
        let paced = state.paced;
        let token = state.clock.sent(Instant::now(), paced);
        let Some(channel) = state.frames.clone() else {
            return;
        };
        drop(state);
        for frame in frames {
            let sent = Sent {
                frame: Arc::downgrade(frame),
                token: Arc::ptr_eq(frame, last).then_some(token),
            };
            // No receiver is left if the last reader went away meanwhile: nobody misses it.
            let _ = channel.send(sent);
        }
    }

    /// A reader is live, and gives its tokens back from now on. Gives the token that it has already given back.
    pub(super) fn pace(&self) -> u64 {
        let mut state = self.state();
        state.paced += 1;
        state.clock.token()
    }

    /// A paced reader goes. Gives whether gathered events are to be looked at.
    pub(super) fn unpace(&self, token: u64) -> bool {
        let mut state = self.state();
        state.paced -= 1;
        state.clock.leave(token, Instant::now) && !state.gathered.is_empty()
    }

    /// A frame was written. Gives whether gathered events are to be looked at.
    pub(super) fn give_back(&self, token: u64) -> bool {
        let mut state = self.state();
        state.clock.give_back(token, Instant::now) && !state.gathered.is_empty()
    }

    /// Whether frames that come say all that there is beyond the position. Only for who has a receiver.
    pub(super) fn is_live_at(&self, position: u64) -> bool {
        let state = self.state();
        state.frames.is_some() && position >= state.next_from
    }

    /// The frame that has what comes next after the cursor.
    pub(super) fn recent(&self, Cursor { epoch, position }: Cursor) -> Option<Arc<Frame>> {
        let state = self.state();
        let covers = |frame: &&Arc<Frame>| {
            frame.span.0 <= position && position < frame.span.1 && frame.epoch() == epoch
        };
        let first = state
            .recent
            .partition_point(|frame| frame.span.1 <= position);
        state.recent.get(first).filter(covers).cloned()
    }

    /// The newest frame, if more than so many came after the cursor, or some that are no longer held.
    pub(super) fn newest_beyond(
        &self,
        Cursor { epoch, position }: Cursor,
        frames: usize,
    ) -> Option<Arc<Frame>> {
        let state = self.state();
        let first = state
            .recent
            .partition_point(|frame| frame.span.1 <= position);
        let skips = position < state.let_go_to || state.recent.len() - first > frames;
        let newest = state.recent.back().filter(|_| skips);
        newest
            .filter(|newest| newest.span.1 > position && newest.epoch() == epoch)
            .cloned()
    }

    /// Keeps a frame that was read from the log. Gives whether it was not there yet.
    pub(super) fn keep(&self, frame: &Arc<Frame>) -> bool {
        let mut state = self.state();
        // What lies beyond is the feed's own to send.
        if state.frames.is_some() && frame.span.1 > state.next_from {
            return false;
        }
        let at = state
            .recent
            .partition_point(|other| other.span.1 <= frame.span.0);
        let free = state
            .recent
            .get(at)
            .is_none_or(|next| next.span.0 >= frame.span.1);
        if free {
            state.recent.insert(at, Arc::clone(frame));
        }
        free
    }

    /// Lets go of a frame. Gives whether none is left.
    pub(super) fn forget(&self, frame: &Weak<Frame>) -> bool {
        let mut state = self.state();
        if let Some(at) = state
            .recent
            .iter()
            .position(|other| std::ptr::eq(Arc::as_ptr(other), frame.as_ptr()))
        {
            let gone = state.recent.remove(at);
            let to = gone.map_or(0, |gone| gone.span.1);
            state.let_go_to = state.let_go_to.max(to);
            if state.recent.is_empty() {
                state.recent = VecDeque::new();
            }
        }
        state.recent.is_empty()
    }

    pub(super) fn holds_frames(&self) -> bool {
        !self.state().recent.is_empty()
    }

    /// Lets go of all frames.
    pub(super) fn forget_all(&self) {
        self.state().recent = VecDeque::new();
    }

    /// What it takes in memory beside its frames, about.
    pub(super) fn cost(&self) -> usize {
        let topics = self
            .filter
            .topics()
            .iter()
            .map(|topic| topic.as_str().len());
        let patterns = self
            .filter
            .patterns()
            .iter()
            .map(|pattern| pattern.as_str().len());
        let names = topics.chain(patterns);
        FEED_COST + names.map(|len| len + NAME_COST).sum::<usize>()
    }

    /// The read of the log after a place: one that is under way, else a new one.
    pub(super) fn reading(&self, place: Place, begin: impl FnOnce() -> Reading) -> Reading {
        let mut state = self.state();
        let same = |(other, reading): &(Place, WeakReading)| {
            (*other == place).then(|| reading.upgrade()).flatten()
        };
        if let Some(reading) = state.reads.iter().find_map(same) {
            return reading;
        }
        state
            .reads
            .retain(|(_, reading)| reading.upgrade().is_some());
        let reading = begin();
        let noted = reading.downgrade().map(|weak| (place, weak));
        state.reads.extend(noted);
        reading
    }

    /// The read is done: who comes from now on reads anew, or finds its frame. Gives whether several wait for it.
    pub(super) fn read(&self, place: Place) -> bool {
        let mut state = self.state();
        let at = state.reads.iter().position(|(other, _)| *other == place);
        let reading = at.and_then(|at| state.reads.swap_remove(at).1.upgrade());
        if state.reads.is_empty() {
            state.reads = Vec::new();
        }
        // One of them is this.
        reading
            .and_then(|reading| reading.strong_count())
            .is_some_and(|count| count > 2)
    }
}

impl Stretch {
    /// The stretch that a page is, read after `from`.
    pub(super) fn new(page: crate::log::Page, from: Place, oldest: Option<Cursor>) -> Self {
        // A page is silent of what was removed before its reader's last one, which that has told.
        let nothing_told = from.removal == 0 || page.removed_to <= from.position;
        let span = (from.position, page.place.position);
        Self {
            gap: page.gap,
            oldest,
            frame: Frame::new(span, page.events, Source::Log).map(Arc::new),
            place: page.place,
            epoch: page.epoch,
            at_head: page.at_head,
            is_whole: page.gap.is_none() && nothing_told,
        }
    }
}
