//! A node's own entries on their way: numbered, handed to the broker, and answered once they have come back on the node's
//! own tail. What is not answered is handed over again: a repeated entry is void on all nodes.

use super::{
    entry::{Body, Entry},
    journal::Sealed,
    records::Records,
};
use crate::log::{AppendError, Outcome};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    time::Instant,
};

/// The answer to one who waits: where it landed, and the outcomes of its records.
pub(super) type Landed = Result<(u64, Vec<Outcome>), AppendError>;

/// What waits to be an entry, or a part of one.
pub(super) struct Pending {
    pub(super) what: What,
    pub(super) bytes: usize,
    /// When waiting ends.
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Landed>,
    /// Its share of the queue.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// What an entry is to say.
pub(super) enum What {
    /// A batch, which may share an entry with others.
    Records(Records),
    /// Something of the nodes', which has an entry of its own.
    Control(Body),
}

/// Own entries on their way, in the order of their numbers.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Some were answered: there is room for more.
    pub(super) answered: Notify,
    /// Some have to be handed over again.
    pub(super) again: Notify,
}

struct State {
    writer: u64,
    next: u64,
    epoch: u64,
    entries: VecDeque<OnItsWay>,
}

struct OnItsWay {
    entry: Entry,
    /// Who waits: one for each batch of the entry.
    parts: Vec<oneshot::Sender<Landed>>,
    deadline: Instant,
    /// How often it was handed over.
    attempts: u32,
    _room: Vec<Option<OwnedSemaphorePermit>>,
}

/// Which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) writer: u64,
    pub(super) number: u64,
}

impl Outbox {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            state: Mutex::new(State {
                writer: rand::random(),
                next: 1,
                epoch,
                entries: VecDeque::new(),
            }),
            answered: Notify::new(),
            again: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether it is still on its way.
    pub(super) fn has(&self, id: Id) -> bool {
        self.state()
            .entries
            .iter()
            .any(|one| Id::of(&one.entry) == id)
    }

    /// Numbers an entry of these; it is to be handed over next.
    pub(super) fn add(&self, group: Vec<Pending>, time_ms: u64) -> (Id, Sealed) {
        let mut state = self.state();
        let (mut batches, mut control) = (Vec::new(), None);
        let (mut parts, mut room, mut deadline) = (Vec::new(), Vec::new(), None);
        for pending in group {
            match pending.what {
                What::Records(records) => batches.push(records),
                What::Control(body) => control = Some(body),
            }
            parts.push(pending.reply);
            room.push(pending._room);
            deadline = Some(deadline.map_or(pending.deadline, |d| pending.deadline.min(d)));
        }
        let entry = Entry {
            epoch: state.epoch,
            writer: state.writer,
            number: state.next,
            time_ms,
            body: control.unwrap_or(Body::Records(batches)),
        };
        state.next += 1;
        let (id, sealed) = (Id::of(&entry), entry.seal(0));
        state.entries.push_back(OnItsWay {
            entry,
            parts,
            deadline: deadline.unwrap_or_else(Instant::now),
            attempts: 1,
            _room: room,
        });
        (id, sealed)
    }

    /// All that are on their way, to be handed over again.
    pub(super) fn all(&self) -> Vec<(Id, Sealed)> {
        let mut state = self.state();
        let all = state.entries.iter_mut().map(|one| {
            let attempt = one.attempts;
            one.attempts += 1;
            (Id::of(&one.entry), one.entry.seal(attempt))
        });
        all.collect()
    }

    /// The entry counted, with these outcomes of its batches.
    pub(super) fn counted(&self, id: Id, at: u64, outcomes: Vec<Vec<Outcome>>) {
        let mut state = self.state();
        let Some(index) = state
            .entries
            .iter()
            .position(|one| Id::of(&one.entry) == id)
        else {
            return;
        };
        let Some(one) = state.entries.remove(index) else {
            return;
        };
        drop(state);
        let mut outcomes = outcomes.into_iter();
        for part in one.parts {
            // Who waited may be gone.
            let _ = part.send(Ok((at, outcomes.next().unwrap_or_default())));
        }
        self.answered.notify_one();
    }

    /// The entry was void, and the others know its writer up to that number. If it was not answered yet, its predecessor is
    /// missing: all go again. To a writer that they have forgotten they never listen again.
    pub(super) fn void(&self, id: Id, known: Option<u64>) {
        let mut state = self.state();
        let Some(index) = state
            .entries
            .iter()
            .position(|one| Id::of(&one.entry) == id)
        else {
            return;
        };
        if known.is_some_and(|number| number >= id.number) {
            // It counted, or another one in its place, and this node did not see which: to hand it over again is of no use.
            let taken = state.entries.remove(index);
            drop(state);
            fail(taken.into_iter().collect(), AppendError::TimedOut);
            return self.answered.notify_one();
        }
        let first = state.entries.front().map(|one| one.entry.number);
        if known.is_none() && first.is_some_and(|first| first > 1) {
            state.renumber(|_| ());
        }
        drop(state);
        self.again.notify_one();
    }

    /// The broker did not take it, for certain: nor will it, or those behind it, ever count, unless an earlier attempt came
    /// through. Gives whether they have to be handed over again.
    pub(super) fn refused(&self, id: Id) -> bool {
        let mut state = self.state();
        let Some(index) = state
            .entries
            .iter()
            .position(|one| Id::of(&one.entry) == id)
        else {
            return false;
        };
        let failed = state.entries.split_off(index);
        if failed.front().is_some_and(|first| first.attempts > 1) {
            state.entries.extend(failed);
            return true;
        }
        state.renew();
        drop(state);
        fail(failed, AppendError::Unavailable);
        self.answered.notify_one();
        false
    }

    /// Gives up if one of them waited for too long.
    pub(super) fn expire(&self, now: Instant) {
        if self.state().entries.iter().all(|one| one.deadline > now) {
            return;
        }
        let entries = self.give_up();
        tracing::warn!(entries, "the journal did not show own entries in time");
    }

    /// Gives up all that are on their way, and says how many. They may still count or not: a new writer goes on.
    pub(super) fn give_up(&self) -> usize {
        let mut state = self.state();
        let failed = std::mem::take(&mut state.entries);
        state.renew();
        drop(state);
        let count = failed.len();
        fail(failed, AppendError::TimedOut);
        self.answered.notify_one();
        count
    }

    /// An epoch began, up to that position the same as the one before: what is on its way can no longer count as it is.
    pub(super) fn begin_epoch(&self, epoch: u64, shared_to: u64) {
        let mut state = self.state();
        state.epoch = epoch;
        // A checkpoint says what was so in the other one.
        state
            .entries
            .retain(|one| !matches!(one.entry.body, Body::Checkpoint(..)));
        state.renumber(|records| records.looked = records.looked.min(shared_to));
        drop(state);
        self.again.notify_one();
    }

    /// Ends: nothing comes back any more.
    pub(super) fn end(&self) {
        let failed = std::mem::take(&mut self.state().entries);
        fail(failed, AppendError::TimedOut);
    }
}

fn fail(entries: VecDeque<OnItsWay>, error: AppendError) {
    for one in entries {
        for part in one.parts {
            let _ = part.send(Err(error));
        }
    }
}

impl State {
    fn renew(&mut self) {
        self.writer = rand::random();
        self.next = 1;
    }

    /// A new writer has all that are on their way.
    fn renumber(&mut self, mut change: impl FnMut(&mut Records)) {
        self.renew();
        for one in &mut self.entries {
            one.entry.epoch = self.epoch;
            one.entry.writer = self.writer;
            one.entry.number = self.next;
            one.attempts = 0;
            self.next += 1;
            if let Body::Records(batches) = &mut one.entry.body {
                batches.iter_mut().for_each(&mut change);
            }
        }
    }
}

impl Id {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            writer: entry.writer,
            number: entry.number,
        }
    }
}
