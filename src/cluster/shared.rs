//! What the tasks of a node have in common: the link to the journal, how far the node has come, and what follows from that.

use super::{
    entry::Body,
    journal::{Ends, Fault, Journal, Session},
    outbox::{Landed, Outbox, Pending, What},
};
use crate::log::{AppendError, Clock, replica::ReplicaLog};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A node that is further behind the journal refuses publishes, and is not ready.
pub(super) const LAG_MAX: Duration = Duration::from_secs(2);

/// A node that has not heard of the journal's end for so long does not know how far behind it is (perhaps it stood still),
/// and refuses publishes: much longer than it takes to ask.
const UNHEARD_MAX: Duration = Duration::from_secs(5);

/// A publish is answered by then.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader that is ahead of its node waits so long for it.
pub(super) const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// Clocks that differ by more are told of; by much more, nothing is published.
pub(super) const CLOCK_WARN_MS: u64 = 5_000;
pub(super) const CLOCK_MAX_MS: u64 = 60_000;

/// Where a node has the time from.
#[derive(Clone)]
pub struct Clocks {
    /// What stamps records.
    pub clock: Clock,
    /// What is compared with the broker's clock and the other nodes'.
    pub wall: Clock,
}

impl Clocks {
    /// The machine's clock for both.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Clock::system(),
            wall: Clock::system(),
        }
    }
}

/// One life of a session.
pub(super) struct Link {
    pub(super) session: Box<dyn Session>,
    /// Cancelled when it is to be dropped.
    pub(super) broken: CancellationToken,
}

impl Link {
    pub(super) fn new(session: Box<dyn Session>) -> Self {
        Self {
            session,
            broken: CancellationToken::new(),
        }
    }

    /// Something about it failed: another one is made.
    pub(super) fn fail(&self, fault: &Fault) {
        if !self.broken.is_cancelled() {
            tracing::warn!(%fault, "the link to the journal failed");
        }
        self.broken.cancel();
    }
}

/// See the module.
pub(super) struct Shared {
    pub(super) local: Arc<dyn ReplicaLog>,
    pub(super) journal: Arc<dyn Journal>,
    /// What stamps records.
    pub(super) clock: Clock,
    /// What is compared with the broker's and the other nodes'.
    pub(super) wall: Clock,
    pub(super) queue: mpsc::Sender<Pending>,
    pub(super) outbox: Outbox,
    /// The link, once it was verified: what publishers use.
    pub(super) link: watch::Sender<Option<Arc<Link>>>,
    /// The entry up to which all is applied.
    pub(super) applied: watch::Sender<u64>,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Cancelled when an entry came that this version does not read.
    pub(super) outdated: CancellationToken,
    /// Where an entry landed though this node has one there: the next link is to be verified there, too. 0 for none.
    pub(super) suspect: AtomicU64,
    /// Somebody who began with nothing asks for a checkpoint.
    pub(super) checkpoint_wanted: Notify,
    status: Mutex<Status>,
    /// One asks for the journal's end for all who want to know.
    asking: tokio::sync::Mutex<Option<(Instant, u64)>>,
}

#[derive(Default)]
struct Status {
    /// It has been at the journal's end since it began.
    caught_up: bool,
    /// Ends that were told and not reached yet, with the time.
    ends: VecDeque<(Instant, u64)>,
    /// The newest end that was told.
    end: u64,
    /// When an end was last asked for and told.
    heard: Option<Instant>,
    /// By how much the clocks of this node and the broker or the other nodes differ, in ms.
    clock_off_ms: u64,
    /// The format of an entry that this version does not read.
    newer: Option<u8>,
    /// Entries that no hub wrote, or that were damaged.
    unreadable: u64,
    last_error: Option<String>,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the broker is reached.
    pub linked: bool,
    /// Whether it has been at the journal's end since it began.
    pub caught_up: bool,
    /// How long it has been behind the journal.
    pub lag: Duration,
    /// By how many entries it is.
    pub lag_entries: u64,
    /// Whether the journal's end was heard of lately, so that the lag is known.
    pub heard: bool,
    /// The entry up to which all is applied.
    pub applied: u64,
    /// By how much the clocks of this node and the broker or the other nodes differ, in ms.
    pub clock_off_ms: u64,
    /// The format of an entry that this version does not read.
    pub newer: Option<u8>,
    /// Entries that no hub wrote, or that were damaged.
    pub unreadable: u64,
    /// Why the broker is not reached.
    pub last_error: Option<String>,
}

impl Standing {
    /// Whether readers may be sent to it: it has been at the journal's end, and is not far behind now. An outage of the
    /// broker changes nothing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.caught_up && self.newer.is_none() && self.lag <= LAG_MAX
    }

    /// Whether it takes publishes.
    #[must_use]
    pub fn takes_publishes(&self) -> bool {
        self.is_ready() && self.linked && self.heard && self.clock_off_ms < CLOCK_MAX_MS
    }
}

impl Shared {
    pub(super) fn new(
        local: Arc<dyn ReplicaLog>,
        journal: Arc<dyn Journal>,
        Clocks { clock, wall }: Clocks,
        queue: mpsc::Sender<Pending>,
        applied: u64,
    ) -> Self {
        Self {
            outbox: Outbox::new(local.bounds().epoch),
            local,
            journal,
            clock,
            wall,
            queue,
            link: watch::Sender::new(None),
            applied: watch::Sender::new(applied),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            outdated: CancellationToken::new(),
            suspect: AtomicU64::new(0),
            checkpoint_wanted: Notify::new(),
            status: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        // The status is changed by steps that cannot panic half-way.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        let (linked, applied) = (self.link.borrow().is_some(), *self.applied.borrow());
        let status = self.status();
        let behind = status.ends.front().filter(|_| linked);
        Standing {
            linked,
            caught_up: status.caught_up,
            lag: behind.map_or(Duration::ZERO, |(at, _)| at.elapsed()),
            lag_entries: status.end.saturating_sub(applied),
            heard: status.heard.is_some_and(|at| at.elapsed() < UNHEARD_MAX),
            applied,
            clock_off_ms: status.clock_off_ms,
            newer: status.newer,
            unreadable: status.unreadable,
            last_error: match linked {
                true => None,
                false => status.last_error.clone(),
            },
        }
    }

    /// The journal ended there at that time, when all up to `before` was applied. Gives whether that fits.
    pub(super) fn told_end(&self, asked: Instant, before: u64, ends: Ends) -> bool {
        let applied = *self.applied.borrow();
        let mut status = self.status();
        status.end = status.end.max(ends.last);
        status.heard = status.heard.max(Some(asked));
        if ends.last > applied {
            status.ends.push_back((asked, ends.last));
        }
        let lower = ends.exact && ends.last < before;
        let missed = ends.first > applied + 1;
        !lower && !missed
    }

    /// The journal was verified, and is followed from here on.
    pub(super) fn attached(&self) {
        self.status().heard = Some(Instant::now());
        tracing::info!(applied = *self.applied.borrow(), "follows the journal");
    }

    /// All up to this entry is applied.
    pub(super) fn reached(&self, applied: u64) {
        {
            let mut status = self.status();
            while status.ends.front().is_some_and(|(_, end)| *end <= applied) {
                status.ends.pop_front();
            }
        }
        self.applied.send_replace(applied);
    }

    /// The journal is another one now, or will be verified anew: what was told of its end counts no more.
    pub(super) fn forget_ends(&self) {
        let mut status = self.status();
        status.ends.clear();
        status.end = 0;
    }

    pub(super) fn caught_up(&self) {
        let first = !std::mem::replace(&mut self.status().caught_up, true);
        if first {
            tracing::info!(
                applied = *self.applied.borrow(),
                "caught up with the journal"
            );
        }
    }

    /// It begins anew: readers are sent elsewhere until it has caught up.
    pub(super) fn begins_anew(&self) {
        self.status().caught_up = false;
    }

    pub(super) fn met_newer(&self, format: u8) {
        self.status().newer = Some(format);
        self.outdated.cancel();
    }

    pub(super) fn met_unreadable(&self) {
        self.status().unreadable += 1;
    }

    pub(super) fn not_linked(&self, why: &str) {
        self.status().last_error = Some(why.to_owned());
    }

    /// The clocks differ by so much.
    pub(super) fn clock_is_off(&self, by_ms: u64) {
        let before = std::mem::replace(&mut self.status().clock_off_ms, by_ms);
        let crosses = |limit| before < limit && by_ms >= limit;
        if crosses(CLOCK_MAX_MS) {
            tracing::error!(
                by_ms,
                "this node's clock differs from the journal's: nothing is published here until it is set"
            );
        } else if crosses(CLOCK_WARN_MS) {
            tracing::warn!(
                by_ms,
                "this node's clock differs from the journal's: set it, since the age of events goes by clocks"
            );
        }
    }

    /// Has something of the nodes' own written; gives where it landed.
    pub(super) async fn control(&self, body: Body) -> Result<u64, AppendError> {
        let (reply, landed) = oneshot::channel::<Landed>();
        let pending = Pending {
            what: What::Control(body),
            bytes: 0,
            deadline: Instant::now() + PUBLISH_TIMEOUT,
            reply,
            _room: None,
        };
        let sent = self.queue.send(pending).await;
        sent.map_err(|_| AppendError::Unavailable)?;
        let landed = landed.await.map_err(|_| AppendError::Unavailable)??;
        Ok(landed.0)
    }

    /// Waits until all that the journal has now is applied; or until `enough`, which is asked after each step. `false` if
    /// that cannot be known in time.
    pub(super) async fn barrier(&self, enough: impl Fn() -> bool) -> bool {
        let (came, deadline) = (Instant::now(), Instant::now() + BARRIER_TIMEOUT);
        let reached = async {
            let mut applied = self.applied.subscribe();
            let ask = self.end_since(came);
            tokio::pin!(ask);
            let mut end = None;
            loop {
                if enough() || end.is_some_and(|end| *applied.borrow_and_update() >= end) {
                    return;
                }
                tokio::select! {
                    told = &mut ask, if end.is_none() => end = Some(told),
                    changed = applied.changed() => if changed.is_err() { return },
                }
            }
        };
        timeout_at(deadline, reached).await.is_ok()
    }

    /// The journal's end at some time since then. Waits for a link.
    async fn end_since(&self, came: Instant) -> u64 {
        let mut links = self.link.subscribe();
        loop {
            {
                let mut known = self.asking.lock().await;
                if let Some((_, end)) = known.filter(|(asked, _)| *asked >= came) {
                    return end;
                }
                let link = links.borrow_and_update().clone();
                let asked = Instant::now();
                if let Some(link) = link
                    && let Some(end) = self.end_of(&link).await
                {
                    *known = Some((asked, end));
                    return end;
                }
            }
            // A link that was asked in vain is on its way out.
            if links.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The journal's end, exactly: where the broker does not tell, an entry finds out.
    pub(super) async fn end_of(&self, link: &Link) -> Option<u64> {
        match link.session.ends().await {
            Ok(ends) if ends.exact => Some(ends.last),
            Ok(_) => self.control(Body::Probe).await.ok(),
            Err(fault) => {
                link.fail(&fault);
                None
            }
        }
    }
}
