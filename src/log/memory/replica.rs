//! The log in memory as a replica: what it has beside, and how changes from the journal are applied.

use super::{MemoryLog, State};
use crate::{
    cursor::Cursor,
    log::{
        AppendError, Batch, BoxFuture, Group, LogOptions, Outcome, ReadError,
        keys::Positions,
        removal::{self, Removed},
        replica::{self, Ancestor, Apply, Change, Looked, ReplicaLog},
    },
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// What a replica has beside.
#[derive(Default)]
pub(super) struct Replica {
    state: Option<Bytes>,
    marks: BTreeMap<u64, u64>,
    ancestors: Vec<Ancestor>,
}

impl MemoryLog {
    /// An empty log that is to be a replica: without an epoch until it is given one.
    #[must_use]
    pub fn replica(options: LogOptions) -> Self {
        let log = Self::new(options);
        log.lock().epoch = 0;
        log
    }
}

impl State {
    pub(super) fn shared_with(&self, epoch: u64) -> Option<u64> {
        match epoch == self.epoch {
            true => Some(u64::MAX),
            false => replica::shared_with(&self.replica.ancestors, epoch),
        }
    }

    fn apply(&mut self, apply: &Apply, options: &LogOptions) -> Vec<Vec<Outcome>> {
        let (mut outcomes, mut group) = (Vec::new(), Vec::new());
        for change in &apply.changes {
            match change {
                Change::Store(store) => {
                    let time_ms = store.time_ms.max(self.time_ms);
                    let positions = Positions::From(store.position);
                    let plan = self.plan(&store.batch, positions, |_, known| {
                        known.position > store.looked
                    });
                    let (outcome, stored) = self.store(store.batch.clone(), plan, time_ms);
                    outcomes.push(outcome);
                    group.extend(stored);
                }
                Change::Epoch {
                    epoch,
                    ended_began_at,
                    to,
                    mark,
                } => {
                    self.send(std::mem::take(&mut group));
                    self.begin_epoch(*epoch, *ended_began_at, *to, *mark);
                    self.send_group(&Group::cut(*epoch, self.head));
                }
                Change::Begin {
                    at,
                    time_ms,
                    epoch,
                    ancestors,
                    keeps_keys,
                } => {
                    self.send(std::mem::take(&mut group));
                    if !keeps_keys {
                        self.keys.clear();
                        self.keys_by_age.clear();
                        self.replica.marks.clear();
                    }
                    self.begin(*at, *time_ms, *epoch, ancestors.clone());
                    self.send_group(&Group::cut(*epoch, *at));
                }
            }
        }
        self.replica.state = Some(apply.state.clone());
        self.replica.marks.extend(apply.marks.iter().copied());
        while self.replica.marks.len() > replica::MARKS_MAX {
            self.replica.marks.pop_first();
        }
        let now = self.now(options);
        self.retain(&group, options, now);
        self.send(group);
        outcomes
    }

    fn begin_epoch(&mut self, epoch: u64, ended_began_at: u64, to: u64, mark: u64) {
        if self.epoch != 0 {
            let ended = Ancestor {
                epoch: self.epoch,
                began_at: ended_began_at,
                shared_to: to,
            };
            replica::end_epoch(&mut self.replica.ancestors, ended);
        }
        self.epoch = epoch;
        let dropped = self.events.split_off(&(to + 1));
        for event in dropped.values() {
            let cost = removal::cost_of(event);
            self.bytes -= cost;
            if let Some(topic) = self.topics.get_mut(&event.topic) {
                topic.bytes -= cost;
                topic.positions.pop_back();
            }
        }
        // An id is of the present epoch, on all nodes alike.
        for event in self.events.values_mut() {
            let cursor = Cursor {
                epoch,
                position: event.cursor.position,
            };
            *event = Arc::new(event.at(cursor));
        }
        self.keys.retain(|_, (_, known)| known.position <= to);
        let keys = &self.keys;
        self.keys_by_age.retain(|name| keys.contains_key(name));
        for topic in self.topics.values_mut() {
            topic.removed.to = topic.removed.to.min(to);
        }
        self.forgotten.to = self.forgotten.to.min(to);
        self.removed_to = self.removed_to.min(to);
        self.head = self.head.min(to);
        self.replica.marks.split_off(&(mark + 1));
    }

    fn begin(&mut self, at: u64, time_ms: u64, epoch: u64, ancestors: Vec<Ancestor>) {
        let removal = self.removal + 1;
        let time_ms = time_ms.max(self.time_ms);
        *self = Self {
            epoch,
            head: at,
            time_ms,
            removal,
            removed_to: at,
            forgotten: Removed {
                to: at,
                time_ms,
                removal,
            },
            keys: std::mem::take(&mut self.keys),
            keys_by_age: std::mem::take(&mut self.keys_by_age),
            tails: std::mem::take(&mut self.tails),
            replica: Replica {
                ancestors,
                marks: std::mem::take(&mut self.replica.marks),
                ..Replica::default()
            },
            ..Self::default()
        };
    }
}

impl ReplicaLog for MemoryLog {
    fn apply(&self, apply: Arc<Apply>) -> BoxFuture<'_, Result<Vec<Vec<Outcome>>, AppendError>> {
        let cuts = apply
            .changes
            .iter()
            .filter(|change| !matches!(change, Change::Store(_)));
        // Before each cut, and behind the last, events may come.
        let groups = 2 * cuts.count() + 1;
        Box::pin(self.change(groups, move |state| state.apply(&apply, &self.options)))
    }

    fn state(&self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async move { Ok(self.lock().replica.state.clone()) })
    }

    fn known(&self, batch: Batch) -> BoxFuture<'_, Result<Looked, ReadError>> {
        Box::pin(async move {
            let state = self.fresh()?;
            let now = state.now(&self.options);
            let known = batch.drafts.iter().map(|draft| {
                let key = draft.key.as_ref()?;
                let (time, known) = state.keys.get(&(draft.topic.clone(), key.clone()))?;
                let counts = now - time < self.options.key_age_max_ms;
                counts.then(|| known.outcome(draft, state.epoch))
            });
            let known = known.collect();
            drop(state);
            Ok((batch, known))
        })
    }

    fn mark(&self, at_most: u64) -> BoxFuture<'_, Result<Option<(u64, u64)>, ReadError>> {
        Box::pin(async move {
            let state = self.lock();
            let mark = state.replica.marks.range(..=at_most).next_back();
            Ok(mark.map(|(place, mark)| (*place, *mark)))
        })
    }

    fn ancestors(&self) -> Vec<Ancestor> {
        self.lock().replica.ancestors.clone()
    }
}
