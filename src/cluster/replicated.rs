//! A log that several nodes share: [`EventLog`] over a journal and this node's replica of it.

use super::{
    entry::{self, RECORDS_MAX},
    follower::Follower,
    journal::{ConnectError, Journal},
    ledger::Ledger,
    members::{Members, Node, Presence},
    outbox::{Pending, What},
    publisher::{self, GROUP_BYTES_MAX},
    records::{Records, draft_bytes},
    shared::{Clocks, Link, PUBLISH_TIMEOUT, Shared, Standing},
};
use crate::{
    cursor::Cursor,
    event::Draft,
    log::{
        AppendError, Batch, Bounds, BoxFuture, EventLog, Located, Outcome, Page, PageLimits, Place,
        ReadError, Start, Tail, replica::ReplicaLog,
    },
    topic::{Filter, Topic},
};
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

/// Batches that wait to be entries; more wait to wait.
const QUEUE_BATCHES_MAX: usize = 4_096;

/// KiB of events that wait; more wait to wait.
const QUEUE_KIB_MAX: usize = 1 << 16; // 64 MiB

/// What an entry takes beside its batches, with some room for what a broker adds.
const ENTRY_ROOM: usize = 1 << 10;

/// See the module.
pub struct ReplicatedLog {
    shared: Arc<Shared>,
    members: Arc<Members>,
    /// Room in the queue, in KiB.
    room: Arc<Semaphore>,
}

/// Drafts that go into one entry, and where they belong in their batch.
struct Piece {
    drafts: Vec<Draft>,
    bytes: usize,
}

impl ReplicatedLog {
    /// Begins to follow the journal into the local log. It is there at once with what the replica has, and is behind until
    /// it has [caught up](Standing::caught_up).
    ///
    /// # Errors
    ///
    /// [`ConnectError::Refused`] if the first try to connect shows what only somebody who changes something can heal. A
    /// broker that is not there is waited for.
    pub async fn open(
        local: Arc<dyn ReplicaLog>,
        journal: Arc<dyn Journal>,
        clocks: Clocks,
    ) -> Result<Self, ConnectError> {
        let ledger = match local.state().await {
            Ok(Some(state)) => Ledger::read(&mut &state[..]).unwrap_or_default(),
            _ => Ledger::default(),
        };
        let first = match journal.connect().await {
            Ok(session) => Some(Arc::new(Link::new(session))),
            Err(ConnectError::Unavailable(_)) => None,
            Err(refused) => return Err(refused),
        };
        let (queue, waiting) = mpsc::channel(QUEUE_BATCHES_MAX + 64);
        let shared = Arc::new(Shared::new(local, journal, clocks, queue, ledger.applied));
        let members = Arc::new(Members::new());
        let follower = Follower::new(Arc::clone(&shared), Arc::clone(&members), ledger);
        shared.tasks.spawn(follower.run(first));
        shared
            .tasks
            .spawn(publisher::run(Arc::clone(&shared), waiting));
        Ok(Self {
            shared,
            members,
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
        })
    }

    /// How this node stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.shared.standing()
    }

    /// Who else is there.
    #[must_use]
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// All nodes that live, this one first.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.members.nodes(&self.shared)
    }

    /// How many streams want a topic, on which nodes.
    #[must_use]
    pub fn presence(&self, topic: &Topic) -> Presence {
        self.members.presence(topic)
    }

    /// What the broker takes at once, in bytes of events. Waits for a link.
    pub async fn entry_bytes_max(&self) -> usize {
        let mut links = self.shared.link.subscribe();
        match links.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(link)) => link.session.entry_bytes_max().saturating_sub(ENTRY_ROOM),
            // It is closed.
            _ => usize::MAX,
        }
    }

    /// Waits until an entry comes that this version does not read.
    pub async fn outdated(&self) {
        self.shared.outdated.cancelled().await;
    }

    /// Where the journal is, without user and password.
    #[must_use]
    pub fn journal(&self) -> String {
        self.shared.journal.describe()
    }

    /// Waits until this node has been at the journal's end.
    pub async fn caught_up(&self) {
        let mut applied = self.shared.applied.subscribe();
        while !self.standing().is_ready() {
            // Also what is applied already may be found to be all.
            let _ =
                tokio::time::timeout(std::time::Duration::from_millis(20), applied.changed()).await;
        }
    }

    async fn append(&self, batch: Batch) -> Result<Vec<Outcome>, AppendError> {
        if !self.shared.standing().takes_publishes() {
            return Err(AppendError::Unavailable);
        }
        // Before it looks: what comes meanwhile may be found or not.
        let looked = entry::position_after(*self.shared.applied.borrow());
        let (batch, known) = match batch.drafts.iter().any(|draft| draft.key.is_some()) {
            true => {
                let looked = self.shared.local.known(batch).await;
                looked.map_err(|_| AppendError::Unavailable)?
            }
            false => (batch, Vec::new()),
        };
        let refused = batch.all_or_nothing
            && known
                .iter()
                .any(|known| matches!(known, Some(Outcome::Conflict)));
        if refused {
            let outcomes = known.into_iter();
            return Ok(outcomes
                .map(|known| known.unwrap_or(Outcome::Conflict))
                .collect());
        }
        let (all_or_nothing, bytes_max) = (batch.all_or_nothing, self.bytes_max());
        let known = match all_or_nothing {
            true => known,
            false => refuse_large(&batch.drafts, known, bytes_max),
        };
        let mut unknown = known
            .iter()
            .map(Option::is_none)
            .chain(std::iter::repeat(true));
        let mut drafts = batch.drafts;
        drafts.retain(|_| unknown.next().unwrap_or(true));
        let pieces = pieces(drafts, all_or_nothing, bytes_max)?;
        let landed = self.publish(pieces, all_or_nothing, looked).await?;
        if known.is_empty() {
            return Ok(landed);
        }
        let mut landed = landed.into_iter();
        let outcomes = known
            .into_iter()
            .map(|known| known.or_else(|| landed.next()));
        Ok(outcomes
            .map(|outcome| outcome.unwrap_or(Outcome::Conflict))
            .collect())
    }

    /// What the broker takes at once at present, in bytes of events.
    fn bytes_max(&self) -> usize {
        let link = self.shared.link.borrow().clone();
        let max = link.map_or(usize::MAX, |link| link.session.entry_bytes_max());
        max.saturating_sub(ENTRY_ROOM)
    }

    /// Publishes pieces in their order. What is said of them is said of all: if one may be stored, all may be.
    async fn publish(
        &self,
        pieces: Vec<Piece>,
        all_or_nothing: bool,
        looked: u64,
    ) -> Result<Vec<Outcome>, AppendError> {
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let mut waiting = Vec::with_capacity(pieces.len());
        for Piece { drafts, bytes } in pieces {
            let share = (bytes >> 10).clamp(QUEUE_KIB_MAX / QUEUE_BATCHES_MAX, QUEUE_KIB_MAX);
            let share = u32::try_from(share).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.room).acquire_many_owned(share).await;
            let (reply, landed) = oneshot::channel();
            let pending = Pending {
                what: What::Records(Records {
                    looked,
                    batch: Batch {
                        drafts,
                        all_or_nothing,
                    },
                }),
                bytes,
                deadline,
                reply,
                _room: Some(room.map_err(|_| AppendError::Unavailable)?),
            };
            let sent = self.shared.queue.send(pending).await;
            sent.map_err(|_| AppendError::Unavailable)?;
            waiting.push(landed);
        }
        let (mut outcomes, mut stored, mut failed) = (Vec::new(), false, None);
        for landed in waiting {
            match landed.await.unwrap_or(Err(AppendError::TimedOut)) {
                Ok((_, of_piece)) => {
                    stored = true;
                    outcomes.extend(of_piece);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(_) if stored => Err(AppendError::TimedOut),
            Some(error) => Err(error),
            None => Ok(outcomes),
        }
    }

    /// Waits until this node knows the start, or finds out that nobody can. Gives where that is.
    async fn known(&self, start: Start) -> Result<Start, ReadError> {
        let Start::Cursor(cursor) = start else {
            return Ok(start);
        };
        let shared = &self.shared;
        let knows = || {
            let applied = *shared.applied.borrow();
            let shared_to = shared.local.shared_with(cursor.epoch);
            shared_to.is_some_and(|to| {
                // Of an epoch that ended no more comes.
                to != u64::MAX || entry::entry_of(cursor.position) <= applied
            })
        };
        if !knows() && !shared.barrier(knows).await {
            return Err(ReadError::Behind);
        }
        // A node that began there, or where two epochs part, gives out the end of an entry, which may lie beyond the last
        // event before it.
        let of = entry::entry_of(cursor.position);
        let is_end = cursor.position == entry::position_after(of);
        let is_shared = |to| cursor.position <= to;
        let has = is_end && of <= *shared.applied.borrow();
        let known = has
            && shared
                .local
                .shared_with(cursor.epoch)
                .is_some_and(is_shared);
        let head = shared.local.bounds().head;
        Ok(Start::Cursor(Cursor {
            position: match known {
                true => cursor.position.min(head),
                false => cursor.position,
            },
            ..cursor
        }))
    }
}

/// Adds to what is known of drafts which of them no entry has room for, so that the others are not refused with them.
fn refuse_large(
    drafts: &[Draft],
    mut known: Vec<Option<Outcome>>,
    max: usize,
) -> Vec<Option<Outcome>> {
    for (index, draft) in drafts.iter().enumerate() {
        if draft_bytes(draft) > max {
            known.resize(drafts.len(), None);
            known[index].get_or_insert(Outcome::TooLarge(max));
        }
    }
    known
}

/// Cuts drafts into what fits an entry. All or nothing of them is one piece.
fn pieces(drafts: Vec<Draft>, all_or_nothing: bool, max: usize) -> Result<Vec<Piece>, AppendError> {
    if all_or_nothing && drafts.len() > RECORDS_MAX {
        return Err(AppendError::TooMany(RECORDS_MAX));
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for draft in drafts {
        let bytes = draft_bytes(&draft);
        match pieces.last_mut() {
            Some(piece)
                if all_or_nothing
                    || (piece.bytes + bytes <= GROUP_BYTES_MAX.min(max)
                        && piece.drafts.len() < RECORDS_MAX) =>
            {
                piece.bytes += bytes;
                piece.drafts.push(draft);
            }
            _ => pieces.push(Piece {
                drafts: vec![draft],
                bytes,
            }),
        }
    }
    match pieces.iter().any(|piece| piece.bytes > max) {
        true => Err(AppendError::TooLarge(max)),
        false => Ok(pieces),
    }
}

impl EventLog for ReplicatedLog {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Outcome>, AppendError>> {
        Box::pin(self.append(batch))
    }

    fn read_after<'a>(
        &'a self,
        place: Place,
        filter: &'a Arc<Filter>,
        limits: PageLimits,
    ) -> BoxFuture<'a, Result<Page, ReadError>> {
        self.shared.local.read_after(place, filter, limits)
    }

    fn locate<'a>(
        &'a self,
        start: Start,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Located, ReadError>> {
        Box::pin(async move {
            let start = self.known(start).await?;
            self.shared.local.locate(start, filter).await
        })
    }

    fn oldest<'a>(
        &'a self,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Option<Cursor>, ReadError>> {
        self.shared.local.oldest(filter)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn tail(&self) -> Tail {
        self.shared.local.tail()
    }

    fn bounds(&self) -> Bounds {
        self.shared.local.bounds()
    }

    fn shared_with(&self, epoch: u64) -> Option<u64> {
        self.shared.local.shared_with(epoch)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.closing.cancel();
            self.shared.tasks.close();
            // A full tail holds the replica up; closing lets go of it.
            tokio::join!(self.shared.local.close(), self.shared.tasks.wait());
        })
    }
}

impl Drop for ReplicatedLog {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}
