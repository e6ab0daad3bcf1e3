//! The one thread that writes: gathers what waits into groups, commits each with one fsync, answers, and
//! hands the group to the tails. Between groups it lets retention and the write-ahead file's
//! bound have their turn.

use super::{
    Durability, GROUP_EVENTS_MAX, Shared,
    answer::{Reply, answer},
    budget::Budget,
    checkpoint::Checkpointer,
    lock::DirLock,
    replica::Applied,
    schema,
    store::{Appended, Failure, Store},
};
use crate::log::{AppendError, Batch, Group, Outcome, replica::Apply};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Between two looks at what may have grown too old.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Between two tries to open the file again, growing from the first to the second.
const REOPEN_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// A batch that waits for its commit.
pub(super) struct Append {
    pub(super) batch: Batch,
    pub(super) bytes: usize,
    pub(super) reply: Reply,
    /// Its share of the queue.
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the writer is asked to do.
pub(super) enum Request {
    Append(Append),
    /// Applies changes to a replica.
    Apply(
        Arc<Apply>,
        oneshot::Sender<Result<Vec<Vec<Outcome>>, AppendError>>,
    ),
    /// Runs retention to completion.
    Sweep(oneshot::Sender<()>),
    /// Ends the thread.
    Close(oneshot::Sender<()>),
    /// Fails commits: the next one, or all until told otherwise.
    #[cfg(test)]
    Fail(Option<super::tests::Fault>, bool),
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    requests: Receiver<Request>,
    /// Taken from the queue, for the next group.
    held: Option<Request>,
    /// `None` after a commit of unknown outcome, until it could be opened again.
    pub(super) store: Option<Store>,
    reopen_at: Instant,
    reopen_after: Duration,
    pub(super) checkpointer: Checkpointer,
    tick_at: Instant,
    /// Retention failed: it is left alone until the next tick, so that publishing goes on.
    pub(super) retention_failed: bool,
    /// The last group found no room.
    full: bool,
    /// When the next step of retention may come: in between, events have as much time as the last one took.
    step_at: Instant,
    /// When the reserve may be used again.
    pub(super) rescue_at: Instant,
    _lock: DirLock,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: Receiver<Request>,
        store: Store,
        checkpointer: Checkpointer,
        lock: DirLock,
    ) -> Self {
        Self {
            shared,
            requests,
            held: None,
            store: Some(store),
            reopen_at: Instant::now(),
            reopen_after: REOPEN_AFTER.0,
            checkpointer,
            tick_at: Instant::now() + TICK,
            retention_failed: false,
            full: false,
            step_at: Instant::now(),
            rescue_at: Instant::now(),
            _lock: lock,
        }
    }

    /// Runs until it is closed, or nobody is left who could ask for anything.
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Ok(Request::Append(first)) => {
                    // Whoever is about to append on the same core goes first, and shares the commit.
                    std::thread::yield_now();
                    let group = self.gather(first);
                    self.commit(group);
                }
                Ok(Request::Apply(apply, reply)) => self.apply(&apply, reply),
                Ok(Request::Sweep(reply)) => {
                    self.sweep();
                    // Who asked may be gone.
                    let _ = reply.send(());
                }
                Ok(Request::Close(reply)) => {
                    self.finish();
                    let _ = reply.send(());
                    return;
                }
                #[cfg(test)]
                Ok(Request::Fail(fault, always)) => {
                    if let Some(store) = &mut self.store {
                        store.fail_commit = fault.map(|fault| (fault, always));
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.work(),
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
            if Instant::now() >= self.tick_at {
                self.tick();
            }
        }
    }

    fn next(&mut self) -> Result<Request, RecvTimeoutError> {
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let until = match &self.store {
            Some(store) if store.pending() && !self.retention_failed => self.step_at,
            _ => self.tick_at,
        };
        let wait = until.saturating_duration_since(Instant::now());
        self.requests.recv_timeout(wait)
    }

    /// All that waits, up to a group's bounds. A batch that is larger goes alone.
    fn gather(&mut self, first: Append) -> Vec<Append> {
        // Removing cannot keep up: what is added in one go has to be less.
        let behind = self.store.as_ref().is_some_and(|store| store.over_whole);
        let bytes_max = self.shared.group_bytes_max >> if behind { 4 } else { 0 };
        let (mut events, mut bytes) = (first.batch.drafts.len(), first.bytes);
        let mut group = vec![first];
        while events < GROUP_EVENTS_MAX && bytes < bytes_max {
            match self.requests.try_recv() {
                Ok(Request::Append(next))
                    if events + next.batch.drafts.len() <= GROUP_EVENTS_MAX
                        && bytes + next.bytes <= bytes_max =>
                {
                    events += next.batch.drafts.len();
                    bytes += next.bytes;
                    group.push(next);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    fn commit(&mut self, group: Vec<Append>) {
        let Some(store) = self.open_store() else {
            return answer_all(group, AppendError::Unavailable);
        };
        store.topics.shrink();
        self.wait_for_room();
        let Some(store) = &mut self.store else {
            return answer_all(group, AppendError::Unavailable);
        };
        let mut done = attempt(store, &group, true);
        if matches!(done, Err(Failure::Full(_)))
            && let Some(again) = self.make_room(|store| attempt(store, &group, true))
        {
            done = again;
        }
        match done {
            Ok(done) => self.committed(group, done),
            Err(Failure::Unknown(error)) => self.broken(group, &error),
            Err(Failure::Full(error)) => {
                if !self.full {
                    tracing::error!(%error, "the log has no room: events are refused until there is");
                }
                self.full = true;
                answer_all(group, AppendError::Full);
            }
            // Perhaps retention, perhaps one batch: the others are not to suffer.
            Err(Failure::Refused(error)) => {
                tracing::error!(%error, "a group of events could not be stored at once; trying each batch");
                self.retention_failed = true;
                for append in group {
                    self.commit_alone(append);
                }
            }
        }
        self.bound_wal();
    }

    fn commit_alone(&mut self, append: Append) {
        let group = vec![append];
        let Some(store) = self.open_store() else {
            return answer_all(group, AppendError::Unavailable);
        };
        match attempt(store, &group, false) {
            Ok(done) => self.committed(group, done),
            Err(Failure::Unknown(error)) => self.broken(group, &error),
            Err(Failure::Full(_)) => {
                self.full = true;
                answer_all(group, AppendError::Full);
            }
            Err(Failure::Refused(error)) => {
                tracing::error!(%error, "events could not be stored");
                answer_all(group, AppendError::Unavailable);
            }
        }
    }

    fn committed(&mut self, group: Vec<Append>, Appended { outcomes, events }: Appended) {
        if self.full && !events.is_empty() {
            tracing::warn!("the log has room again");
            self.full = false;
        }
        self.tell_removed();
        let tails = self.shared.publish(&events);
        answer(
            group
                .into_iter()
                .zip(outcomes)
                .map(|(append, outcomes)| (append.reply, Ok(outcomes))),
        );
        self.shared.send(&tails, events);
    }

    fn apply(
        &mut self,
        apply: &Apply,
        reply: oneshot::Sender<Result<Vec<Vec<Outcome>>, AppendError>>,
    ) {
        // Who asked may be gone.
        let fail = |reply: oneshot::Sender<_>, error| drop(reply.send(Err(error)));
        let Some(store) = self.open_store() else {
            return fail(reply, AppendError::Unavailable);
        };
        store.topics.shrink();
        self.wait_for_room();
        let Some(store) = &mut self.store else {
            return fail(reply, AppendError::Unavailable);
        };
        let attempt = |store: &mut Store| store.transact(|store| store.apply(apply));
        let mut done = attempt(store);
        if matches!(done, Err(Failure::Full(_)))
            && let Some(again) = self.make_room(attempt)
        {
            done = again;
        }
        match done {
            Ok(Applied { outcomes, groups }) => {
                let cut = groups.iter().any(|group| group.cut.is_some());
                let follow = |store| self.shared.follow(store, cut);
                let tails = self.store.as_ref().map_or_else(Vec::new, follow);
                let _ = reply.send(Ok(outcomes));
                for group in &groups {
                    self.shared.send_group(&tails, group);
                }
            }
            Err(Failure::Unknown(error)) => {
                self.broken(Vec::new(), &error);
                fail(reply, AppendError::Unknown);
            }
            Err(Failure::Full(error)) => {
                tracing::error!(%error, "the replica has no room: this node falls behind until there is");
                fail(reply, AppendError::Full);
            }
            Err(Failure::Refused(error)) => {
                tracing::error!(%error, "the replica could not be written");
                self.retention_failed = true;
                fail(reply, AppendError::Unavailable);
            }
        }
        self.bound_wal();
    }

    fn tell_removed(&self) {
        if let Some(store) = &self.store {
            self.shared.removed(store.facts.meta.removed_to);
        }
    }

    /// The commit's outcome is open: close everything, so that what is on disk decides.
    fn broken(&mut self, group: Vec<Append>, error: &rusqlite::Error) {
        tracing::error!(%error, "a commit failed; the log closes and verifies itself before the next write");
        self.close_files();
        answer_all(group, AppendError::Unknown);
        // Readers wait for it too.
        self.open_store();
    }

    fn close_files(&mut self) {
        self.shared.readers.close();
        if let Some(store) = self.store.take() {
            super::close_unchecked(&store);
        }
        self.reopen_at = Instant::now();
        self.reopen_after = REOPEN_AFTER.0;
    }

    /// The store, opened again if it has to be and the time has come.
    fn open_store(&mut self) -> Option<&mut Store> {
        if self.store.is_none() && Instant::now() >= self.reopen_at {
            match self.reopen() {
                Ok(()) => tracing::warn!("the log is open again"),
                Err(error) => {
                    let retry_ms = self.reopen_after.as_millis();
                    tracing::error!(%error, retry_ms, "the log could not be opened again");
                    self.reopen_at = Instant::now() + self.reopen_after;
                    self.reopen_after = (self.reopen_after * 2).min(REOPEN_AFTER.1);
                }
            }
        }
        self.store.as_mut()
    }

    fn reopen(&mut self) -> Result<(), super::OpenError> {
        let shared = Arc::clone(&self.shared);
        let failed = |error| schema::classify(&shared.path, error);
        // The checkpointer's connection would keep alive what is to be read anew.
        let _pause = self.checkpointer.pause();
        // What the failed fsync may not have written is written again, or this fails too.
        let rewrite = |conn: &_| super::checkpoint(conn, "TRUNCATE");
        let (path, options) = (&shared.path, &shared.options);
        let store = super::open_store(path, shared.durability, options, rewrite)?;
        if shared.durability == Durability::Replica {
            // What it lost comes again from the journal.
            let tails = shared.follow(&store, true);
            let cut = Group::cut(store.facts.meta.epoch, store.facts.meta.head);
            self.store = Some(store);
            shared.readers.open();
            shared.send_group(&tails, &cut);
            return Ok(());
        }
        let head = shared.live().head;
        if store.facts.meta.head < head {
            // Acknowledged events are gone: nothing may be stored over them.
            return Err(super::OpenError::Lost {
                path: shared.path.clone(),
                head,
                found: store.facts.meta.head,
            });
        }
        let found = store.stored_after(head).map_err(failed)?;
        self.store = Some(store);
        self.tell_removed();
        shared.readers.open();
        // The unknown group was stored after all: it is in the log, so the tails have to have it.
        if !found.is_empty() {
            let tails = shared.publish(&found);
            shared.send(&tails, found);
        }
        Ok(())
    }

    /// One step of retention.
    fn work(&mut self) {
        let Some(store) = &mut self.store else {
            return;
        };
        if !store.pending() || self.retention_failed {
            return;
        }
        let begun = Instant::now();
        let step = store.step(Budget::alone());
        self.stepped(step);
        self.step_at = Instant::now() + begun.elapsed();
    }

    pub(super) fn stepped(&mut self, mut step: Result<(), Failure>) {
        if matches!(step, Err(Failure::Full(_)))
            && let Some(again) = self.make_room(|store| store.step(Budget::least()))
        {
            step = again;
        }
        match step {
            Ok(()) => {
                self.tell_removed();
                self.bound_wal();
            }
            Err(Failure::Unknown(error)) => self.broken(Vec::new(), &error),
            Err(Failure::Full(error)) => {
                if !self.full {
                    tracing::error!(%error, "no room to remove events");
                }
                self.full = true;
                self.retention_failed = true;
            }
            Err(Failure::Refused(error)) => {
                tracing::error!(%error, "events could not be removed");
                self.retention_failed = true;
            }
        }
    }

    fn tick(&mut self) {
        self.tick_at = Instant::now() + TICK;
        self.retention_failed = false;
        let Some(store) = self.open_store() else {
            return;
        };
        let looked = store.look_around().and_then(|_| store.keys_are_due());
        match looked {
            Ok(true) => {
                let step = store.step(Budget::alone());
                self.stepped(step);
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "retention could not look for old events"),
        }
        if let Some(store) = &mut self.store
            && let Err(error) = store.shrink_some().and_then(|_| store.fit_reserve())
        {
            tracing::warn!(%error, "the log's file could not be made smaller");
        }
        if let Some(store) = &self.store
            && super::wal_bytes(&store.conn).is_ok_and(|(_, rest)| rest > 0)
        {
            self.checkpointer.wake();
        }
    }

    fn sweep(&mut self) {
        self.retention_failed = false;
        let Some(store) = self.open_store() else {
            return;
        };
        store.swept_to = 0;
        loop {
            match store.look_around() {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => return tracing::error!(%error, "retention could not look around"),
            }
        }
        loop {
            let Some(store) = &mut self.store else {
                return;
            };
            let more = store.pending() || store.keys_are_due().unwrap_or(false);
            if !more || self.retention_failed {
                break;
            }
            let step = store.step(Budget::alone());
            self.stepped(step);
        }
        while let Some(Ok(true)) = self.store.as_mut().map(Store::shrink_some) {}
    }

    fn finish(mut self) {
        self.checkpointer.stop();
        self.shared.close();
        if let Some(mut store) = self.store.take()
            && let Err(error) = store.end_run()
        {
            tracing::error!(%error, "the log could not be closed in good order");
        }
        // What still came is refused by dropping it.
    }
}

fn answer_all(group: Vec<Append>, error: AppendError) {
    answer(group.into_iter().map(|append| (append.reply, Err(error))));
}

/// One transaction for the whole group.
fn attempt(store: &mut Store, group: &[Append], retain: bool) -> Result<Appended, Failure> {
    store.transact(|store| {
        let appended = store.append(group.iter().map(|append| &append.batch))?;
        if retain {
            let bytes = group.iter().map(|append| append.bytes).sum();
            store.retain(&mut Budget::beside(appended.events.len(), bytes))?;
        }
        store.reserve_growth()?;
        Ok(appended)
    })
}
