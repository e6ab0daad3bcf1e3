//! From publishers to the journal: gathers what waits into entries, and keeps a few of them on their way.

use super::{
    entry::RECORDS_MAX,
    journal::{AppendFault, Sealed},
    outbox::{Id, Pending, What},
    shared::{Link, Shared},
};
use crate::log::AppendError;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Batches that share an entry have together so many bytes. One that is larger has its own.
pub(super) const GROUP_BYTES_MAX: usize = 256 << 10; // 256 KiB

/// Entries on their way; meanwhile batches gather for the next one, so that entries grow as load does.
const WINDOW: usize = 4;

/// Between two looks at who waited for too long.
const EXPIRE: Duration = Duration::from_millis(100);

/// Before an entry that a broker refused is handed over again, because an earlier attempt may have come through.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Runs until the log is closed.
pub(super) async fn run(shared: Arc<Shared>, queue: mpsc::Receiver<Pending>) {
    let mut publisher = Publisher {
        held: None,
        link: None,
        queue,
        shared,
    };
    let closing = publisher.shared.closing.clone();
    closing.run_until_cancelled(publisher.run()).await;
    publisher.queue.close();
    // Also what had room in the queue and comes only now.
    while let Some(pending) = next(&mut publisher.held, &mut publisher.queue).await {
        refuse(pending);
    }
    publisher.shared.outbox.end();
}

struct Publisher {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Pending>,
    /// Taken from the queue, for the next entry.
    held: Option<Pending>,
    link: Option<Arc<Link>>,
}

fn refuse(pending: Pending) {
    // Who waited may be gone.
    let _ = pending.reply.send(Err(AppendError::Unavailable));
}

impl Publisher {
    async fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut links = shared.link.subscribe();
        // The first one may be there already.
        links.mark_changed();
        let mut expire = interval(EXPIRE);
        expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.link.is_none() || shared.outbox.len() < WINDOW;
            tokio::select! {
                biased;
                changed = links.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.link = links.borrow_and_update().clone();
                    self.hand_all().await;
                }
                _ = expire.tick() => shared.outbox.expire(Instant::now()),
                () = shared.outbox.again.notified() => self.hand_all().await,
                () = shared.outbox.answered.notified(), if !room => {}
                pending = next(&mut self.held, &mut self.queue), if room => {
                    let Some(pending) = pending else { return };
                    match self.link.is_some() {
                        true => self.publish(pending).await,
                        false => refuse(pending),
                    }
                }
            }
        }
    }

    fn next_held(&mut self) -> Option<Pending> {
        self.held.take().or_else(|| self.queue.try_recv().ok())
    }

    async fn publish(&mut self, first: Pending) {
        // Who is about to publish goes first, and shares the entry.
        tokio::task::yield_now().await;
        let group = self.gather(first);
        let (id, sealed) = self.shared.outbox.add(group, self.shared.clock.now_ms());
        self.hand(id, sealed).await;
    }

    fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let (mut bytes, mut records) = (first.bytes, records(&first));
        let mut alone = matches!(first.what, What::Control(_));
        let mut group = vec![first];
        while !alone && bytes < GROUP_BYTES_MAX {
            let Some(next) = self.next_held() else { break };
            alone = matches!(next.what, What::Control(_));
            bytes += next.bytes;
            records += self::records(&next);
            if alone || bytes > GROUP_BYTES_MAX || records > RECORDS_MAX {
                self.held = Some(next);
                break;
            }
            group.push(next);
        }
        group
    }

    async fn hand_all(&mut self) {
        for (id, sealed) in self.shared.outbox.all() {
            if self.link.is_none() {
                return;
            }
            self.hand(id, sealed).await;
        }
    }

    async fn hand(&mut self, id: Id, sealed: Sealed) {
        let Some(link) = self.link.clone() else {
            return;
        };
        if sealed.bytes.len() > link.session.entry_bytes_max() {
            // The bound was another one when it was checked.
            self.shared.outbox.refused(id);
            return;
        }
        let handed = tokio::select! {
            handed = link.session.append(&sealed) => handed,
            () = link.broken.cancelled() => return,
        };
        let shared = Arc::clone(&self.shared);
        match handed {
            Ok(acknowledged) => {
                self.shared.tasks.spawn(async move {
                    let acknowledged = tokio::select! {
                        acknowledged = acknowledged => acknowledged,
                        () = link.broken.cancelled() => return,
                    };
                    answered(&shared, &link, id, acknowledged).await;
                });
            }
            Err(fault) => {
                let tasks = self.shared.tasks.clone();
                tasks.spawn(async move { answered(&shared, &link, id, Err(fault)).await });
            }
        }
    }
}

async fn next(held: &mut Option<Pending>, queue: &mut mpsc::Receiver<Pending>) -> Option<Pending> {
    match held.take() {
        Some(pending) => Some(pending),
        None => queue.recv().await,
    }
}

fn records(pending: &Pending) -> usize {
    match &pending.what {
        What::Records(records) => records.batch.drafts.len(),
        What::Control(_) => 0,
    }
}

/// The broker's answer: who published hears of it only when the entry comes back.
async fn answered(shared: &Shared, link: &Link, id: Id, answer: Result<Option<u64>, AppendFault>) {
    match answer {
        Ok(Some(at)) if at <= *shared.applied.borrow() && shared.outbox.has(id) => {
            // Either it has just come back, or what stands there is not what this node has.
            sleep(AGAIN_AFTER).await;
            if shared.outbox.has(id) {
                tracing::warn!(
                    entry = at,
                    "an entry landed where this node has another one: verifying"
                );
                shared.suspect.store(at, Ordering::Relaxed);
                link.broken.cancel();
            }
        }
        Ok(_) => {}
        Err(AppendFault::NotSent(why)) => {
            tracing::warn!(%why, "the journal refused an entry");
            if shared.outbox.refused(id) {
                sleep(AGAIN_AFTER).await;
                shared.outbox.again.notify_one();
            }
        }
        Err(fault @ (AppendFault::Unknown(_) | AppendFault::Fenced)) => {
            if !link.broken.is_cancelled() {
                tracing::warn!(%fault, "an entry was not acknowledged: verifying");
            }
            link.broken.cancel();
        }
    }
}
