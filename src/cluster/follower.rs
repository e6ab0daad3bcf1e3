//! From the journal to the replica: follows the one order, judges each entry, and applies what counts.
//!
//! A link's life begins in [`super::attach`], which verifies that the journal is the one that this node knows. Whatever is
//! odd later ends that life, and the next one is verified again: so there is one place that decides what happened.

use super::{
    entry::{Body, Entry, Unreadable, digest, position, position_after},
    journal::{ConnectError, Fault, Tailed},
    ledger::{Ledger, Verdict},
    members::Members,
    outbox::Id,
    records::Records,
    shared::{Link, Shared},
};
use crate::log::{
    AppendError, Outcome,
    replica::{Ancestor, Apply, Change, Store},
};
use bytes::{Bytes, BytesMut};
use std::{ops::Range, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two tries to reach the broker, growing from the first to the second.
const CONNECT_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Between two words that the broker is not reached.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// Before the replica is written again that could not be.
const APPLY_AFTER: Duration = Duration::from_millis(250);

/// So many entries, or so much time with any, and another checkpoint is due; with some more at random, since each node
/// would write one.
const CHECKPOINT_ENTRIES: u64 = 4_096;
const CHECKPOINT_AFTER: Duration = Duration::from_secs(10);

/// Why a link's life ended.
#[derive(Debug)]
pub(super) enum End {
    /// The session failed.
    Fault(Fault),
    /// What the journal has is not what this node knows: to be verified.
    Odd(&'static str),
    /// Entries were removed before this node had them.
    Missed,
    /// An entry of a format that this version does not read.
    Newer(u8),
    /// The replica may have been changed or not: to be read again.
    Unknown,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// See the module.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) members: Arc<Members>,
    pub(super) ledger: Ledger,
    /// An entry of an epoch that nobody knows; what this node knows was verified after it was met.
    odd_at: Option<u64>,
    /// Entries that were missed: this node has to begin anew.
    pub(super) missed: bool,
    /// The epochs that it knew, if it has to because the journal is not the one that it knew.
    pub(super) parted_from: Vec<u64>,
    /// It began after this position, and knows no keys from before.
    pub(super) keys_from: u64,
    checkpoint: Checkpoint,
}

/// When the next checkpoint is due: unless somebody asks for it with records only, since else checkpoints would call for
/// checkpoints.
struct Checkpoint {
    entries: u64,
    at: Instant,
    is_wanted: bool,
}

/// Entries that are applied together.
struct Step {
    ledger: Ledger,
    apply: Apply,
    /// Entries that count, with their places and which of the outcomes are theirs.
    landed: Vec<(Id, u64, Range<usize>)>,
    /// Entries that do not count, or not again.
    void: Vec<Id>,
    /// Batches so far.
    batches: usize,
    /// Entries with records.
    records: u64,
}

impl Step {
    fn after(ledger: &Ledger) -> Self {
        Self {
            ledger: ledger.clone(),
            apply: Apply::default(),
            landed: Vec::new(),
            void: Vec::new(),
            batches: 0,
            records: 0,
        }
    }

    /// An entry that counts.
    fn count(&mut self, at: u64, entry: Entry) {
        let (id, first) = (Id::of(&entry), self.batches);
        if let Body::Records(batches) = entry.body {
            let mut index = 0;
            for Records { looked, batch } in batches {
                let count = batch.drafts.len();
                self.apply.changes.push(Change::Store(Store {
                    position: position(at, index),
                    time_ms: entry.time_ms,
                    looked,
                    batch,
                }));
                index += count;
                self.batches += 1;
            }
            self.records += 1;
        }
        self.landed.push((id, at, first..self.batches));
    }

    /// This node cannot know what became of that entry's events elsewhere: it begins after it.
    fn forget(&mut self, at: u64, ancestors: Vec<Ancestor>) {
        self.apply.changes.push(Change::Begin {
            at: position_after(at),
            time_ms: self.ledger.time_ms,
            epoch: self.ledger.epoch,
            ancestors,
            keeps_keys: true,
        });
    }
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, members: Arc<Members>, ledger: Ledger) -> Self {
        Self {
            shared,
            members,
            ledger,
            odd_at: None,
            missed: false,
            parted_from: Vec::new(),
            keys_from: 0,
            checkpoint: Checkpoint::next(),
        }
    }

    /// Runs until the log is closed.
    pub(super) async fn run(mut self, first: Option<Arc<Link>>) {
        let closing = self.shared.closing.clone();
        closing.run_until_cancelled(self.lives(first)).await;
    }

    async fn lives(&mut self, mut first: Option<Arc<Link>>) {
        let mut after = CONNECT_AFTER.0;
        loop {
            let link = match first.take() {
                Some(link) => link,
                None => self.connect().await,
            };
            let end = self.life(&link).await;
            let attached = self.shared.link.send_replace(None).is_some();
            self.members.unlinked();
            link.broken.cancel();
            let Err(end) = end;
            match end {
                End::Fault(fault) => {
                    self.shared.not_linked(&fault.0);
                    tracing::warn!(%fault, "the journal is not followed any more: connecting again");
                }
                End::Odd(why) => tracing::warn!(why, "verifying what the journal has"),
                End::Missed => {
                    self.missed = true;
                    tracing::error!(
                        applied = self.ledger.applied,
                        "the journal removed entries that this node did not have yet: it begins anew, and its readers are told"
                    );
                }
                End::Newer(format) => {
                    let error = Unreadable::Newer(format);
                    tracing::error!(%error, at = self.ledger.applied + 1, "the journal has an entry that this node cannot read: it stops following; upgrade it");
                    self.shared.met_newer(format);
                    return std::future::pending().await;
                }
                End::Unknown => self.reload().await,
            }
            // Whatever ends a life before it has begun will end the next one too.
            after = match attached {
                true => CONNECT_AFTER.0,
                false => {
                    sleep(after).await;
                    (after * 2).min(CONNECT_AFTER.1)
                }
            };
        }
    }

    /// Connects, however long it takes.
    async fn connect(&self) -> Arc<Link> {
        let (mut after, mut said) = (CONNECT_AFTER.0, None::<Instant>);
        loop {
            let error = match self.shared.journal.connect().await {
                Ok(session) => return Arc::new(Link::new(session)),
                Err(error) => error,
            };
            let why = error.to_string();
            self.shared.not_linked(&why);
            if said.is_none_or(|said| said.elapsed() >= SAY_AFTER) {
                said = Some(Instant::now());
                let journal = self.shared.journal.describe();
                match error {
                    ConnectError::Refused(_) => {
                        tracing::error!(%journal, %why, "the journal refuses this node");
                    }
                    ConnectError::Unavailable(_) => {
                        tracing::warn!(%journal, %why, "waiting for the journal");
                    }
                }
            }
            sleep(after).await;
            after = (after * 2).min(CONNECT_AFTER.1);
        }
    }

    /// What the replica says of itself, after it was opened again.
    async fn reload(&mut self) {
        loop {
            match self.shared.local.state().await {
                Ok(state) => {
                    let state = state.unwrap_or_default();
                    self.ledger = Ledger::read(&mut &state[..]).unwrap_or_default();
                    return self.shared.reached(self.ledger.applied);
                }
                Err(error) => tracing::warn!(%error, "the replica's state could not be read yet"),
            }
            sleep(APPLY_AFTER).await;
        }
    }

    async fn life(&mut self, link: &Arc<Link>) -> Result<std::convert::Infallible, End> {
        self.shared.forget_ends();
        let mut tail = self.attach(link).await?;
        self.shared.attached();
        self.shared.link.send_replace(Some(Arc::clone(link)));
        self.shared.tasks.spawn(super::tend::run(
            Arc::clone(&self.shared),
            Arc::clone(&self.members),
            Arc::clone(link),
        ));
        loop {
            let next = tokio::select! {
                biased;
                () = link.broken.cancelled() => return Err(End::Odd("the link was given up")),
                () = self.shared.checkpoint_wanted.notified() => {
                    self.checkpoint.is_wanted = true;
                    self.write_checkpoint();
                    continue;
                }
                next = tail.next() => next?,
            };
            match next {
                Tailed::Entries(entries) => self.take(link, entries).await?,
                Tailed::Announcement(bytes) => self.members.heard(&bytes, &self.shared),
            }
            self.write_checkpoint();
        }
    }

    /// Judges entries and applies what counts.
    async fn take(&mut self, link: &Link, entries: Vec<(u64, Bytes)>) -> Result<(), End> {
        let mut step = Step::after(&self.ledger);
        for (at, bytes) in entries {
            let mark = digest(&bytes);
            let before = step.ledger.applied;
            if at <= before {
                self.apply(std::mem::replace(&mut step, Step::after(&self.ledger)))
                    .await?;
                step = Step::after(&self.ledger);
                if self.known_mark(at).await != Some(mark) {
                    return Err(End::Odd("an entry came that this node has otherwise"));
                }
                continue;
            }
            if at > before + 1 {
                // Holes are natural on some brokers. This one is, if nothing beyond the entry before it was ever removed.
                let was_first = before == 0;
                if was_first || link.session.ends().await?.first > before + 1 {
                    self.apply(step).await?;
                    return Err(End::Missed);
                }
            }
            let entry = match Entry::read(&bytes) {
                Ok(entry) => entry,
                Err(Unreadable::Newer(format)) => {
                    self.apply(step).await?;
                    return Err(End::Newer(format));
                }
                Err(why) => {
                    tracing::error!(at, %why, "an entry of the journal is passed over, here as on all nodes");
                    self.shared.met_unreadable();
                    step.ledger.pass(at);
                    step.apply.marks.push((at, mark));
                    continue;
                }
            };
            if let Body::Epoch { .. } = entry.body {
                let mut next = step.ledger.clone();
                if let Verdict::Begins { to, fork } = next.judge(at, &entry) {
                    self.apply(step).await?;
                    self.begin_epoch(at, mark, to, fork).await?;
                    step = Step::after(&self.ledger);
                } else if self.is_odd(&step.ledger, at, &entry) {
                    self.apply(step).await?;
                    self.odd_at = Some(at);
                    return Err(End::Odd("an epoch began that is not this node's"));
                } else {
                    step.ledger = next;
                    step.apply.marks.push((at, mark));
                }
                continue;
            }
            if self.is_odd(&step.ledger, at, &entry) {
                self.apply(step).await?;
                self.odd_at = Some(at);
                return Err(End::Odd("an entry came of an epoch that nobody knows"));
            }
            match step.ledger.judge(at, &entry) {
                Verdict::Counts => {
                    if let Body::Checkpoint(..) = entry.body {
                        self.checkpoint = Checkpoint::next();
                    }
                    let undecided = self.is_undecided(&entry.body);
                    step.count(at, entry);
                    if undecided {
                        step.forget(at, self.shared.local.ancestors());
                    }
                }
                _ => step.void.push(Id::of(&entry)),
            }
            step.apply.marks.push((at, mark));
        }
        self.apply(step).await
    }

    /// Whether it is of an epoch that began without this node's knowing, or begins one after such. Asked once for each entry.
    fn is_odd(&self, ledger: &Ledger, at: u64, entry: &Entry) -> bool {
        let begins = matches!(entry.body, Body::Epoch { .. });
        let known = |epoch| match epoch {
            0 => !begins,
            epoch => self.shared.local.shared_with(epoch).is_some(),
        };
        ledger.epoch != 0
            && entry.epoch != ledger.epoch
            && self.odd_at != Some(at)
            && !known(entry.epoch)
    }

    /// Whether what becomes of a record depends on keys from before this node began. Its writer looked before that, so it
    /// was on its way then, and soon none are.
    fn is_undecided(&self, body: &Body) -> bool {
        let Body::Records(batches) = body else {
            return false;
        };
        let has_key = |records: &Records| records.batch.drafts.iter().any(|one| one.key.is_some());
        batches
            .iter()
            .any(|records| records.looked < self.keys_from && has_key(records))
    }

    /// The present epoch ends at that entry: what lies beyond the fork is dropped.
    pub(super) async fn begin_epoch(
        &mut self,
        at: u64,
        mark: u64,
        to: u64,
        fork: u64,
    ) -> Result<(), End> {
        let mut ledger = self.ledger.clone();
        ledger.begin(to, at);
        let shared_to = match fork {
            0 => 0,
            fork => position_after(fork.min(at)),
        };
        if self.ledger.epoch != 0 {
            tracing::warn!(
                at,
                fork,
                dropped = self.ledger.applied.saturating_sub(fork),
                "the journal lost entries that nodes had: a new epoch begins, and readers are told"
            );
        }
        let apply = Apply {
            changes: vec![Change::Epoch {
                epoch: to,
                ended_began_at: self.ledger.epoch_at,
                to: shared_to,
                mark: fork,
            }],
            marks: vec![(at, mark)],
            state: saved(&ledger),
        };
        self.apply_to(apply, ledger).await?;
        self.shared.outbox.begin_epoch(to, shared_to);
        Ok(())
    }

    async fn apply(&mut self, step: Step) -> Result<(), End> {
        if step.ledger.applied == self.ledger.applied {
            return Ok(());
        }
        let Step {
            ledger,
            mut apply,
            landed,
            void,
            records,
            ..
        } = step;
        apply.state = saved(&ledger);
        let mut outcomes = self.apply_to(apply, ledger).await?;
        self.checkpoint.entries += records;
        for (id, at, batches) in landed {
            if self.shared.outbox.has(id) {
                let own = batches.filter_map(|at| outcomes.get_mut(at).map(std::mem::take));
                self.shared.outbox.counted(id, at, own.collect());
            }
        }
        // Only now: what counted in the same step is no longer on its way.
        for id in void {
            let writer = self.ledger.writers.get(&id.writer);
            self.shared.outbox.void(id, writer.map(|one| one.number));
        }
        Ok(())
    }

    /// Applies, however often it has to be tried.
    pub(super) async fn apply_to(
        &mut self,
        apply: Apply,
        ledger: Ledger,
    ) -> Result<Vec<Vec<Outcome>>, End> {
        let apply = Arc::new(apply);
        let outcomes = loop {
            match self.shared.local.apply(Arc::clone(&apply)).await {
                Ok(outcomes) => break outcomes,
                Err(AppendError::Unknown) => return Err(End::Unknown),
                // It was told where it was met.
                Err(_) => sleep(APPLY_AFTER).await,
            }
        };
        self.ledger = ledger;
        self.shared.reached(self.ledger.applied);
        Ok(outcomes)
    }

    /// The digest of an entry that this node has.
    pub(super) async fn known_mark(&self, at: u64) -> Option<u64> {
        loop {
            match self.shared.local.mark(at).await {
                Ok(mark) => return mark.filter(|(place, _)| *place == at).map(|(_, mark)| mark),
                Err(_) => sleep(APPLY_AFTER).await,
            }
        }
    }

    /// Has a checkpoint written if one is due, or somebody waits for it.
    fn write_checkpoint(&mut self) {
        let due = self.checkpoint.is_wanted
            || self.checkpoint.entries >= CHECKPOINT_ENTRIES
            || (self.checkpoint.entries > 0 && Instant::now() >= self.checkpoint.at);
        if !due || self.ledger.epoch == 0 || !self.shared.standing().takes_publishes() {
            return;
        }
        self.checkpoint = Checkpoint::next();
        let body = Body::Checkpoint(self.ledger.clone(), self.shared.local.ancestors());
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.clone().spawn(async move {
            // If it fails, the next one is soon due.
            let _ = shared.control(body).await;
        });
    }
}

/// The bytes of a ledger beside the replica's events.
pub(super) fn saved(ledger: &Ledger) -> Bytes {
    let mut out = BytesMut::new();
    ledger.put(&mut out);
    out.freeze()
}

impl Checkpoint {
    fn next() -> Self {
        let after = CHECKPOINT_AFTER.mul_f64(1.0 + 0.5 * rand::random::<f64>());
        Self {
            entries: 0,
            at: Instant::now() + after,
            is_wanted: false,
        }
    }
}
