//! The contract of [`EventLog`] at its simplest: for trials and tests. Nothing survives the process.
//!
//! One lock guards all; reads walk the events from their place on. Retention runs within each append, and
//! by age at most once a second (of its clock) with whatever is asked next. `replica` is what it does in a cluster.

mod replica;

use super::{
    AppendError, Batch, Bounds, BoxFuture, EventLog, Group, Located, LogOptions, Loss, Outcome,
    Page, PageGap, PageLimits, Place, ReadError, Start, StartGap, TAIL_GROUPS, Tail,
    keys::{self, Digest, Known, NewKeys, Plan, Positions},
    removal::{self, Removed},
};
use crate::{
    cursor::Cursor,
    event::{Event, IdempotencyKey},
    topic::{Filter, Topic},
};
use replica::Replica;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Rows that one page looks at.
const LOOK_MAX: usize = 4_096;

/// Between two looks at the age of everything, in ms.
const SWEEP_MS: u64 = 1_000;

/// An [`EventLog`] in memory.
pub struct MemoryLog {
    options: LogOptions,
    /// Appends go one by one, so that the room they found in the tails is still there when they commit.
    turn: tokio::sync::Mutex<()>,
    /// From now on no tail is waited for.
    closing: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    head: u64,
    /// Of the newest event: time never falls below it.
    time_ms: u64,
    /// The number of the newest removal.
    removal: u64,
    /// The newest position that was ever removed.
    removed_to: u64,
    events: BTreeMap<u64, Arc<Event>>,
    /// Of all events, as [`removal::cost`] counts.
    bytes: u64,
    topics: HashMap<Topic, TopicState>,
    forgotten: Removed,
    keys: HashMap<(Topic, IdempotencyKey), (u64, Known)>,
    /// Oldest first.
    keys_by_age: VecDeque<(Topic, IdempotencyKey)>,
    tails: Vec<mpsc::Sender<Group>>,
    swept_ms: u64,
    closed: bool,
    replica: Replica,
}

#[derive(Default)]
struct TopicState {
    positions: VecDeque<u64>,
    bytes: u64,
    removed: Removed,
}

impl MemoryLog {
    /// An empty log with a new epoch.
    #[must_use]
    pub fn new(options: LogOptions) -> Self {
        Self {
            options,
            turn: tokio::sync::Mutex::default(),
            closing: CancellationToken::new(),
            state: Mutex::new(State {
                epoch: rand::random(),
                ..State::default()
            }),
        }
    }

    /// Runs retention to completion, as it would run by itself within a second.
    #[expect(clippy::unused_async, reason = "the same call on every engine")]
    pub async fn sweep(&self) {
        let mut state = self.lock();
        let now = state.now(&self.options);
        state.sweep(&self.options, now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked holding it broke no invariant that a reader could not bear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for a read, with what is too old gone.
    fn fresh(&self) -> Result<MutexGuard<'_, State>, ReadError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ReadError::Unavailable);
        }
        state.sweep_if_due(&self.options);
        Ok(state)
    }

    async fn append(&self, batch: Batch) -> Result<Vec<Outcome>, AppendError> {
        self.change(1, |state| state.append(batch, &self.options))
            .await
    }

    /// Changes the state once each tail has room for what comes of it.
    async fn change<T>(
        &self,
        groups: usize,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<T, AppendError> {
        let _turn = self.turn.lock().await;
        // Room in each tail first: after the commit nothing may wait, since this future may be dropped.
        let tails = self.lock().tails.clone();
        for tail in tails {
            tokio::select! {
                // Closed is room enough.
                _ = tail.reserve_many(groups) => {}
                () = self.closing.cancelled() => return Err(AppendError::Unavailable),
            }
        }
        let mut state = self.lock();
        if state.closed {
            return Err(AppendError::Unavailable);
        }
        Ok(change(&mut state))
    }
}

impl State {
    fn now(&self, options: &LogOptions) -> u64 {
        options.clock.now_ms().max(self.time_ms)
    }

    fn append(&mut self, batch: Batch, options: &LogOptions) -> Vec<Outcome> {
        let now = self.now(options);
        let plan = self.plan(&batch, Positions::After(self.head), |time, _| {
            now - time < options.key_age_max_ms
        });
        let (outcomes, group) = self.store(batch, plan, now);
        self.retain(&group, options, now);
        self.send(group);
        outcomes
    }

    fn plan(
        &self,
        batch: &Batch,
        positions: Positions,
        counts: impl Fn(u64, &Known) -> bool,
    ) -> Plan {
        let mut new = NewKeys::new();
        let plan = keys::plan(batch, self.epoch, positions, &mut new, |topic, key| {
            let known = self.keys.get(&(topic.clone(), key.clone()));
            let known = known.filter(|(time, known)| counts(*time, known));
            Ok::<_, Infallible>(known.map(|(_, known)| *known))
        });
        let Ok(plan) = plan;
        plan
    }

    /// Stores what of the batch is planned to be. Gives what that is.
    fn store(&mut self, batch: Batch, plan: Plan, now: u64) -> (Vec<Outcome>, Vec<Arc<Event>>) {
        let mut group = Vec::with_capacity(batch.drafts.len());
        let Some(head) = plan.head else {
            return (plan.outcomes, group);
        };
        for (draft, outcome) in batch.drafts.into_iter().zip(&plan.outcomes) {
            if let Outcome::Stored(cursor) = outcome {
                if let Some(key) = &draft.key {
                    let known = Known {
                        position: cursor.position,
                        digest: Digest::of(&draft),
                    };
                    self.keep_key((draft.topic.clone(), key.clone()), now, known);
                }
                group.push(Arc::new(Event::from_draft(draft, *cursor, now)));
            }
        }
        self.head = head;
        self.time_ms = now;
        for event in &group {
            self.keep(Arc::clone(event));
        }
        (plan.outcomes, group)
    }

    fn send(&mut self, group: Vec<Arc<Event>>) {
        if !group.is_empty() {
            self.send_group(&group.into());
        }
    }

    fn send_group(&mut self, group: &Group) {
        // Not full: see `MemoryLog::change`. A tail that came meanwhile is empty.
        self.tails
            .retain(|tail| tail.try_send(group.clone()).is_ok());
    }

    fn keep(&mut self, event: Arc<Event>) {
        let forgotten = self.forgotten;
        let topic = self.topics.entry(event.topic.clone());
        // It may have been known once: what it lost then is somewhere within what was forgotten.
        let topic = topic.or_insert_with(|| TopicState {
            removed: forgotten,
            ..TopicState::default()
        });
        let cost = removal::cost_of(&event);
        topic.positions.push_back(event.cursor.position);
        topic.bytes += cost;
        self.bytes += cost;
        self.events.insert(event.cursor.position, event);
    }

    fn keep_key(&mut self, name: (Topic, IdempotencyKey), now: u64, known: Known) {
        if self.keys.insert(name.clone(), (now, known)).is_some() {
            // It had expired, and its old place in the row with it.
            self.keys_by_age.retain(|old| *old != name);
        }
        self.keys_by_age.push_back(name);
    }

    /// What an append sets off: the limits of its topics, then those of the whole.
    fn retain(&mut self, group: &[Arc<Event>], options: &LogOptions, now: u64) {
        let removal = self.removal + 1;
        for event in group {
            self.retain_topic(&event.topic, options, now, removal);
        }
        self.retain_whole(options, now, removal);
        self.sweep_if_due(options);
    }

    fn retain_topic(&mut self, name: &Topic, options: &LogOptions, now: u64, removal: u64) {
        let limits = options.retention.limits(name);
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        while let Some(&oldest) = topic.positions.front() {
            let time_ms = self.events.get(&oldest).map_or(0, |event| event.time_ms);
            let kept = topic.positions.len() as u64;
            let over = limits.events_max.is_some_and(|max| kept > max)
                || limits
                    .bytes_max
                    .is_some_and(|max| topic.bytes > max && kept > 1)
                || limits.age_max_ms.is_some_and(|max| now - time_ms > max);
            if !over {
                break;
            }
            topic.remove_oldest(&mut self.events, &mut self.bytes, removal);
            self.removed_to = self.removed_to.max(topic.removed.to);
            self.removal = removal;
        }
    }

    fn retain_whole(&mut self, options: &LogOptions, now: u64, removal: u64) {
        while self.bytes > options.retention.bytes_max && self.events.len() > 1 {
            let Some((_, oldest)) = self.events.first_key_value() else {
                break;
            };
            let name = oldest.topic.clone();
            if let Some(topic) = self.topics.get_mut(&name) {
                topic.remove_oldest(&mut self.events, &mut self.bytes, removal);
                self.removed_to = self.removed_to.max(topic.removed.to);
                self.removal = removal;
            }
        }
        while let Some(name) = self.keys_by_age.front() {
            let expired = self
                .keys
                .get(name)
                .is_none_or(|(time, _)| now - time >= options.key_age_max_ms);
            if !expired && self.keys_by_age.len() as u64 <= options.keys_max {
                break;
            }
            self.keys.remove(name);
            self.keys_by_age.pop_front();
        }
    }

    fn sweep_if_due(&mut self, options: &LogOptions) {
        let now = self.now(options);
        if now.saturating_sub(self.swept_ms) >= SWEEP_MS {
            self.sweep(options, now);
        }
    }

    fn sweep(&mut self, options: &LogOptions, now: u64) {
        self.swept_ms = now;
        let removal = self.removal + 1;
        let names: Vec<_> = self.topics.keys().cloned().collect();
        for name in names {
            self.retain_topic(&name, options, now, removal);
        }
        self.retain_whole(options, now, removal);
        self.forget(options);
    }

    /// Forgets the topics emptied longest ago, past the bound.
    fn forget(&mut self, options: &LogOptions) {
        let empty = self.topics.iter().filter(|(_, t)| t.positions.is_empty());
        let mut empty: Vec<_> = empty.map(|(n, t)| (t.removed.removal, n.clone())).collect();
        let keep = usize::try_from(options.emptied_topics_max).unwrap_or(usize::MAX);
        let Some(over) = empty.len().checked_sub(keep) else {
            return;
        };
        empty.sort_unstable();
        for (_, name) in &empty[..over] {
            if let Some(topic) = self.topics.remove(name) {
                self.forgotten.widen(topic.removed);
            }
        }
    }

    /// What the topics of a filter lost, as far as it is known.
    fn losses<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = Removed> + 'a {
        let known = |topic| self.topics.get(topic).map(|topic| topic.removed);
        let exact = filter.topics().iter();
        let exact = exact.map(move |topic| known(topic).unwrap_or(self.forgotten));
        let patterns = filter.patterns();
        let unknown = (!patterns.is_empty()).then_some(self.forgotten);
        let matching = self
            .topics
            .iter()
            .filter(|(name, _)| patterns.iter().any(|pattern| pattern.matches(name)));
        exact
            .chain(unknown)
            .chain(matching.map(|(_, topic)| topic.removed))
    }

    fn read_after(&self, place: Place, filter: &Filter, limits: PageLimits) -> Page {
        let missed = self.losses(filter).any(|removed| removed.beyond(place));
        let mut page = Page {
            gap: missed.then_some(PageGap {
                loss: Loss::Removed,
                missed: None,
            }),
            events: Vec::new(),
            place: Place {
                position: self.head.max(place.position),
                removal: self.removal,
            },
            at_head: true,
            removed_to: self.removed_to,
            epoch: self.epoch,
        };
        let (mut at, mut bytes) = (place.position, 0);
        for (looked, (&position, event)) in self.events.range(at + 1..).enumerate() {
            let matches = filter.matches(&event.topic);
            bytes += if matches { event.data.len() } else { 0 };
            let full = !page.events.is_empty()
                && (page.events.len() >= limits.events_max || bytes > limits.bytes_max);
            if looked == LOOK_MAX || (matches && full) {
                page.place.position = at;
                page.at_head = false;
                break;
            }
            if matches {
                page.events.push(Arc::clone(event));
            }
            at = position;
        }
        page
    }

    fn locate(&self, start: Start, filter: &Filter) -> Located {
        let now = |position, gap| Located {
            place: Place {
                position,
                removal: self.removal,
            },
            gap,
            epoch: self.epoch,
        };
        let told_by_page = |position| Located {
            place: Place {
                position,
                removal: 0,
            },
            gap: None,
            epoch: self.epoch,
        };
        let mut matching = self.events.values().filter(|e| filter.matches(&e.topic));
        let before =
            |first: Option<&Arc<Event>>| first.map_or(self.head, |e| e.cursor.position - 1);
        match start {
            Start::Cursor(c) => match self.shared_with(c.epoch) {
                Some(to) if c.position <= to.min(self.head) => told_by_page(c.position),
                Some(to) if c.epoch != self.epoch => Located {
                    gap: Some(StartGap::Epoch),
                    ..told_by_page(to.min(self.head))
                },
                _ => now(before(matching.next()), Some(StartGap::Epoch)),
            },
            Start::OwnId(id) => {
                let found = matching.clone().find(|e| e.own_id.as_ref() == Some(&id));
                match found {
                    Some(event) => told_by_page(event.cursor.position),
                    None => now(before(matching.next()), Some(StartGap::Unknown)),
                }
            }
            Start::Since(time_ms) => {
                let first = matching.find(|e| e.time_ms >= time_ms);
                let expired = self.losses(filter).any(|removed| removed.since(time_ms));
                now(before(first), expired.then_some(StartGap::Expired))
            }
            Start::Earliest => now(before(matching.next()), None),
            Start::Tail(count) => now(before(matching.rev().take(count).last()), None),
        }
    }
}

impl TopicState {
    fn remove_oldest(
        &mut self,
        events: &mut BTreeMap<u64, Arc<Event>>,
        bytes: &mut u64,
        removal: u64,
    ) {
        let oldest = self.positions.pop_front();
        if let Some(event) = oldest.and_then(|oldest| events.remove(&oldest)) {
            let cost = removal::cost_of(&event);
            self.bytes -= cost;
            *bytes -= cost;
            self.removed = Removed {
                to: event.cursor.position,
                time_ms: event.time_ms,
                removal,
            };
        }
    }
}

impl EventLog for MemoryLog {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Outcome>, AppendError>> {
        Box::pin(self.append(batch))
    }

    fn read_after<'a>(
        &'a self,
        place: Place,
        filter: &'a Arc<Filter>,
        limits: PageLimits,
    ) -> BoxFuture<'a, Result<Page, ReadError>> {
        Box::pin(async move { Ok(self.fresh()?.read_after(place, filter, limits)) })
    }

    fn locate<'a>(
        &'a self,
        start: Start,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Located, ReadError>> {
        Box::pin(async move { Ok(self.fresh()?.locate(start, filter)) })
    }

    fn oldest<'a>(
        &'a self,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Option<Cursor>, ReadError>> {
        Box::pin(async move {
            let state = self.fresh()?;
            let mut events = state.events.values();
            Ok(events
                .find(|event| filter.matches(&event.topic))
                .map(|event| event.cursor))
        })
    }

    fn tail(&self) -> Tail {
        let (sender, groups) = mpsc::channel(TAIL_GROUPS);
        let mut state = self.lock();
        if !state.closed {
            state.tails.push(sender);
        }
        Tail {
            epoch: state.epoch,
            from: state.head,
            groups,
        }
    }

    fn bounds(&self) -> Bounds {
        let state = self.lock();
        Bounds {
            epoch: state.epoch,
            head: state.head,
            removed_to: state.removed_to,
        }
    }

    fn shared_with(&self, epoch: u64) -> Option<u64> {
        self.lock().shared_with(epoch)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.closing.cancel();
            let mut state = self.lock();
            state.closed = true;
            state.tails.clear();
        })
    }
}
