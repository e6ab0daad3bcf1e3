//! The beginning of a link's life: is the journal the one that this node knows, and where does the node go on?
//!
//! No broker tells its readers that a history was rolled back, or made anew. So a node compares its own newest entry with
//! what stands there. If that is another one, or an entry lands where the node has one already, the two histories parted:
//! the node looks for the last entry that they have in common and writes that a new epoch begins after it. A lower end
//! alone shows nothing (a stale leader has one too); it is put to the proof with an entry.

use super::{
    entry::{Body, Entry, digest, position_after},
    follower::{End, Follower, saved},
    journal::{AppendFault, Ends, EntryTail, Fault, Session, Tailed},
    ledger::{Ledger, Verdict},
    shared::Link,
};
use crate::log::replica::{Ancestor, Apply, Change};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// An entry that is to show something is waited for so long.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// A node that begins with nothing, on a journal whose beginning is gone, asks the others for a checkpoint for so long.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(4);

/// Between two questions for a checkpoint.
const ASK_AFTER: Duration = Duration::from_millis(500);

type Tail = Box<dyn EntryTail>;

impl Follower {
    /// Verifies, repairs what has to be, and gives the tail from which to go on.
    pub(super) async fn attach(&mut self, link: &Link) -> Result<Tail, End> {
        let session = &*link.session;
        let ends = session.ends().await?;
        let applied = self.ledger.applied;
        if self.missed {
            return self.begin_anew(session, ends).await;
        }
        if applied == 0 {
            return match ends.first {
                1 => Ok(session.tail(0).await?),
                _ => self.begin_anew(session, ends).await,
            };
        }
        if ends.first > applied {
            // Gone is what it has, and perhaps what it lacks; or nothing is kept. What else follows might be another history.
            let follows = ends.first == applied + 1 && ends.last == applied;
            return match follows {
                true => Ok(session.tail(applied).await?),
                false => self.begin_anew(session, ends).await,
            };
        }
        let suspect = self.shared.suspect.swap(0, Ordering::Relaxed);
        // A tail may have spliced another history on without a word, so that the newest entry is the same again. What began
        // the epoch is not.
        for at in [self.ledger.epoch_at, suspect] {
            if self.is_other(session, at).await? {
                return self.part(session, ends, at - 1).await;
            }
        }
        match session.read(applied).await? {
            Some(_) if self.is_other(session, applied).await? => {
                self.part(session, ends, applied - 1).await
            }
            Some(_) => Ok(session.tail(applied).await?),
            None => self.prove(session, ends).await,
        }
    }

    /// Whether another entry stands there than this node has.
    async fn is_other(&self, session: &dyn Session, at: u64) -> Result<bool, Fault> {
        if at == 0 || at > self.ledger.applied {
            return Ok(false);
        }
        let Some(own) = self.known_mark(at).await else {
            return Ok(false);
        };
        let there = session.read(at).await?;
        Ok(there.is_some_and(|bytes| digest(&bytes) != own))
    }

    /// The journal seems to end before what this node has. An entry shows whether it does.
    async fn prove(&mut self, session: &dyn Session, ends: Ends) -> Result<Tail, End> {
        tracing::warn!(
            applied = self.ledger.applied,
            last = ends.last,
            "the journal seems to end before what this node has of it: nothing is acknowledged until that is clear"
        );
        let applied = self.ledger.applied;
        let mut tail = session.tail(ends.last).await?;
        match self.write(session, Body::Probe, self.ledger.epoch).await {
            // Another node has begun a new epoch.
            Err(AppendFault::Fenced) => return self.part(session, ends, applied).await,
            Err(fault) => return Err(Fault(fault.to_string()).into()),
            Ok(_) => {}
        }
        let deadline = Instant::now() + PROOF_TIMEOUT;
        loop {
            let Ok(next) = timeout_at(deadline, tail.next()).await else {
                return Err(Fault("the journal shows no entry".to_owned()).into());
            };
            let Tailed::Entries(entries) = next? else {
                continue;
            };
            for (at, bytes) in entries {
                if at > self.ledger.applied {
                    return Err(End::Odd("the journal has again what it seemed to lack"));
                }
                if self.known_mark(at).await != Some(digest(&bytes)) {
                    return self.part(session, ends, at - 1).await;
                }
            }
        }
    }

    /// The histories parted, after that entry at the latest. Finds where, and has a new epoch begin there; or finds the one
    /// that another node began.
    async fn part(&mut self, session: &dyn Session, ends: Ends, at_most: u64) -> Result<Tail, End> {
        let fork = self.common(session, ends, at_most).await?;
        tracing::error!(
            applied = self.ledger.applied,
            fork,
            "the journal is not the one that this node knows: it was rolled back, or made anew"
        );
        if fork + 1 < ends.first {
            // Which epoch was present there, what is kept does not say.
            self.parted_from = self.epochs();
            return self.begin_anew(session, ends).await;
        }
        let knew = self.epochs();
        let (mut judge, own) = (self.ledger_at(fork), rand::random());
        let mut tail = session.tail(fork).await?;
        let mut end = None;
        match self.begin_after_fork(session, judge.epoch, own, fork).await {
            Ok(_) => {}
            // What there is already decides.
            Err(AppendFault::Fenced) => end = Some(session.ends().await?.last),
            Err(fault) => return Err(Fault(fault.to_string()).into()),
        }
        let mut begins = None;
        let (last, is_own) = 'seen: loop {
            let Ok(next) = timeout(PROOF_TIMEOUT, tail.next()).await else {
                return Err(Fault("the journal shows no new epoch".to_owned()).into());
            };
            let Tailed::Entries(entries) = next? else {
                continue;
            };
            for (at, bytes) in entries {
                if let Ok(entry) = Entry::read(&bytes)
                    && let Body::Epoch { to, .. } = entry.body
                {
                    if let Verdict::Begins { to, fork } = judge.judge(at, &entry) {
                        begins.get_or_insert((at, digest(&bytes), to, fork));
                    }
                    if to == own {
                        break 'seen (at, judge.epoch == own);
                    }
                }
                if end.is_some_and(|end| at >= end) {
                    break 'seen (at, false);
                }
            }
        };
        if !is_own && knew.contains(&judge.epoch) {
            // Nobody began it anew: it was put back. What follows needs other ids than what followed once.
            let begun = self
                .begin_after_fork(session, judge.epoch, rand::random(), last)
                .await;
            begun.map_err(|fault| Fault(fault.to_string()))?;
        }
        match begins {
            Some((at, mark, to, agreed)) if agreed <= fork => {
                self.begin_epoch(at, mark, to, agreed).await?;
                Ok(session.tail(at).await?)
            }
            // What lies between is common to others, and not known here any more.
            Some(_) => self.begin_anew(session, ends).await,
            None => Err(Fault("no new epoch counts".to_owned()).into()),
        }
    }

    /// All epochs that this node knows.
    fn epochs(&self) -> Vec<u64> {
        let ancestors = self.shared.local.ancestors();
        let ancestors = ancestors.iter().map(|ancestor| ancestor.epoch);
        ancestors.chain([self.ledger.epoch]).collect()
    }

    /// If this node had parted from the journal before it began anew, and the epoch at its end is one that the node knew, that
    /// was put back: another one is to begin, as in [`Self::part`].
    async fn leave_what_was_put_back(&mut self, session: &dyn Session) -> Result<(), End> {
        let knew = std::mem::take(&mut self.parted_from);
        if knew.is_empty() {
            return Ok(());
        }
        let (mut judge, last) = (self.ledger.clone(), session.ends().await?.last);
        let mut tail = session.tail(judge.applied).await?;
        while judge.applied < last {
            let Ok(next) = timeout(PROOF_TIMEOUT, tail.next()).await else {
                return Err(Fault("the journal does not show its end".to_owned()).into());
            };
            let Tailed::Entries(entries) = next? else {
                continue;
            };
            for (at, bytes) in entries {
                match Entry::read(&bytes) {
                    Ok(entry) if matches!(entry.body, Body::Epoch { .. }) => {
                        judge.judge(at, &entry);
                    }
                    _ => judge.pass(at),
                }
            }
        }
        if knew.contains(&judge.epoch) {
            let begun = self
                .begin_after_fork(session, judge.epoch, rand::random(), judge.applied)
                .await;
            begun.map_err(|fault| Fault(fault.to_string()))?;
        }
        Ok(())
    }

    async fn begin_after_fork(
        &self,
        session: &dyn Session,
        from: u64,
        to: u64,
        fork: u64,
    ) -> Result<Option<u64>, AppendFault> {
        let body = Body::Epoch {
            to,
            fork,
            looked: fork,
        };
        self.write(session, body, from).await
    }

    /// The newest entry that this node and the journal have in common, among those that are kept; 0 if there is none.
    /// Histories are the same up to where they part, so that halving finds it.
    async fn common(&self, session: &dyn Session, ends: Ends, at_most: u64) -> Result<u64, End> {
        let newest = self.ledger.applied.min(ends.last).min(at_most);
        let mut low = ends.first.saturating_sub(1).min(newest); // in common, or not kept
        let mut high = newest + 1; // not in common
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let own = self.newest_mark(middle).await;
            let Some((at, mark)) = own.filter(|(at, _)| *at > low) else {
                // This node has nothing between.
                low = middle;
                continue;
            };
            match session.read(at).await? {
                Some(bytes) if digest(&bytes) == mark => low = middle,
                _ => high = at,
            }
        }
        let newest = self.newest_mark(low).await;
        let Some((at, mark)) = newest else {
            return Ok(0);
        };
        let bytes = session.read(at).await?;
        let same = bytes.is_some_and(|bytes| digest(&bytes) == mark);
        Ok(if same { at } else { 0 })
    }

    async fn newest_mark(&self, at_most: u64) -> Option<(u64, u64)> {
        loop {
            match self.shared.local.mark(at_most).await {
                Ok(mark) => return mark,
                Err(_) => tokio::time::sleep(ASK_AFTER).await,
            }
        }
    }

    /// How a node stood at that entry, as far as epochs go: who sees the journal for the first time stands the same there.
    fn ledger_at(&self, at: u64) -> Ledger {
        let (mut epoch, mut epoch_at) = (self.ledger.epoch, self.ledger.epoch_at);
        if epoch_at > at {
            let ancestors = self.shared.local.ancestors();
            let present = ancestors.iter().rev().find(|old| old.began_at <= at);
            (epoch, epoch_at) = match present {
                Some(old) if at > 0 => (old.epoch, old.began_at),
                _ => (0, 0),
            };
        }
        Ledger {
            applied: at,
            epoch,
            epoch_at,
            ..Ledger::default()
        }
    }

    /// Begins where a checkpoint says how things stood, since what came before is gone; or with an epoch that shares nothing
    /// with that. If nobody is there who could write one, nobody knows, and a new epoch begins.
    async fn begin_anew(&mut self, session: &dyn Session, ends: Ends) -> Result<Tail, End> {
        self.shared.begins_anew();
        // Until it has: what it lacks does not come by itself.
        self.missed = true;
        if ends.first == 1 {
            return self.begin_at_the_start(session).await;
        }
        // What was on its way may have landed where this node does not look any more: sent again it would be there twice.
        self.shared.outbox.give_up();
        let mut tail = session.tail(0).await?;
        session.announce(self.members.hello()).await?;
        let (mut first, mut last, mut silence) = (None, 0, None::<Instant>);
        let mut epoch_at = 0;
        loop {
            let Ok(next) = timeout(ASK_AFTER, tail.next()).await else {
                if silence.get_or_insert_with(Instant::now).elapsed() >= CHECKPOINT_TIMEOUT {
                    return self.begin_alone(session, ends.last.max(last)).await;
                }
                session.announce(self.members.hello()).await?;
                continue;
            };
            let entries = match next? {
                Tailed::Entries(entries) => entries,
                Tailed::Announcement(bytes) => {
                    if self.members.may_know(&bytes) {
                        // It will say so as soon as it can.
                        silence = None;
                    }
                    continue;
                }
            };
            for (at, bytes) in entries {
                let first = *first.get_or_insert(at);
                last = at;
                let Ok(entry) = Entry::read(&bytes) else {
                    continue;
                };
                match entry.body {
                    Body::Checkpoint(ledger, ancestors)
                        if ledger.applied < at
                            && ledger.applied + 1 >= first
                            // Else an epoch began while it was on its way.
                            && ledger.epoch == entry.epoch =>
                    {
                        return self
                            .begin_after(session, ledger, ancestors, entry.time_ms)
                            .await;
                    }
                    Body::Epoch { to, fork, looked } => {
                        // It shares nothing with what is gone, and no epoch began that its writer had not seen.
                        let counts = entry.epoch == 0 && epoch_at <= looked && first <= looked + 1;
                        if counts && fork == 0 {
                            return self.begin_with(session, at, &bytes, to).await;
                        }
                        epoch_at = at;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Nothing was ever removed: all of it is there to be read again.
    async fn begin_at_the_start(&mut self, session: &dyn Session) -> Result<Tail, End> {
        let ledger = Ledger::default();
        let apply = Apply {
            changes: vec![Change::Begin {
                at: 0,
                time_ms: 0,
                epoch: 0,
                ancestors: Vec::new(),
                keeps_keys: false,
            }],
            marks: Vec::new(),
            state: saved(&ledger),
        };
        self.apply_to(apply, ledger).await?;
        self.missed = false;
        self.shared.outbox.begin_epoch(0, 0);
        Ok(session.tail(0).await?)
    }

    async fn begin_after(
        &mut self,
        session: &dyn Session,
        ledger: Ledger,
        ancestors: Vec<Ancestor>,
        time_ms: u64,
    ) -> Result<Tail, End> {
        let (after, epoch) = (ledger.applied, ledger.epoch);
        let bytes = session.read(after).await?;
        let at = position_after(after);
        let apply = Apply {
            changes: vec![Change::Begin {
                at,
                time_ms,
                epoch,
                ancestors,
                keeps_keys: false,
            }],
            marks: bytes
                .map(|bytes| (after, digest(&bytes)))
                .into_iter()
                .collect(),
            state: saved(&ledger),
        };
        self.apply_to(apply, ledger).await?;
        self.missed = false;
        self.keys_from = at;
        self.shared.outbox.begin_epoch(epoch, at);
        self.leave_what_was_put_back(session).await?;
        tracing::info!(after, "begins after what the journal no longer has");
        Ok(session.tail(after).await?)
    }

    async fn begin_alone(&mut self, session: &dyn Session, last: u64) -> Result<Tail, End> {
        tracing::warn!("no node tells how the journal stands: a new epoch begins");
        let body = Body::Epoch {
            to: rand::random(),
            fork: 0,
            looked: last,
        };
        let mut tail = session.tail(last).await?;
        match self.write(session, body, 0).await {
            Ok(_) => {}
            Err(AppendFault::Fenced) => return Err(End::Odd("the broker knows an epoch")),
            Err(fault) => return Err(Fault(fault.to_string()).into()),
        }
        let deadline = Instant::now() + PROOF_TIMEOUT;
        loop {
            let Ok(next) = timeout_at(deadline, tail.next()).await else {
                return Err(Fault("the journal shows no new epoch".to_owned()).into());
            };
            let Tailed::Entries(entries) = next? else {
                continue;
            };
            for (at, bytes) in entries {
                let Ok(entry) = Entry::read(&bytes) else {
                    continue;
                };
                match entry.body {
                    Body::Epoch { to, looked, .. } if entry.epoch == 0 && looked >= last => {
                        return self.begin_with(session, at, &bytes, to).await;
                    }
                    // Whether it counts, somebody else knows.
                    Body::Epoch { .. } => return Err(End::Odd("another epoch began meanwhile")),
                    _ => {}
                }
            }
        }
    }

    /// Begins with an epoch that shares nothing with what was before.
    async fn begin_with(
        &mut self,
        session: &dyn Session,
        at: u64,
        bytes: &[u8],
        to: u64,
    ) -> Result<Tail, End> {
        self.begin_epoch(at, digest(bytes), to, 0).await?;
        self.missed = false;
        self.leave_what_was_put_back(session).await?;
        Ok(session.tail(at).await?)
    }

    /// Writes an entry outside of the publishers' sequence, which nobody may use before all is verified.
    pub(super) async fn write(
        &self,
        session: &dyn Session,
        body: Body,
        epoch: u64,
    ) -> Result<Option<u64>, AppendFault> {
        let entry = Entry {
            epoch,
            writer: rand::random(),
            number: 1,
            time_ms: self.shared.clock.now_ms(),
            body,
        };
        let sealed = entry.seal(0);
        session.append(&sealed).await?.await
    }
}
