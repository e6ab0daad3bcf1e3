//! What comes: the stream's entries and the nodes' announcements, one consumer each.

use super::{
    link::Link,
    stream::{Entry, Names, Offset, acknowledge, delivered},
};
use crate::{
    cluster::journal::{EntryTail, Fault, Tailed},
    log::BoxFuture,
};
use lapin::{Channel, Consumer};
use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio_stream::Stream as _;

/// Entries that the broker may send ahead: they wait in memory.
const PREFETCH: u16 = 1_000;

/// Acknowledged this often, the broker never waits for it.
const ACKNOWLEDGED_AT: u32 = PREFETCH as u32 / 4;

/// Of one list; one entry more may go over the bytes.
const ENTRIES_MAX: usize = 500;
const BYTES_MAX: usize = 4 << 20; // 4 MiB

/// See [`EntryTail`].
pub(super) struct Tail {
    entries: Consumer,
    announcements: Consumer,
    /// The position of the newest entry that was handed out.
    after: u64,
    /// Entries that came since the last acknowledgement.
    open: u32,
    /// Announcements go first, so that a stream that never ends does not hold them back.
    announced_first: bool,
    /// Found behind entries that were handed out.
    failed: Option<Fault>,
    #[expect(dead_code, reason = "held, since the consumers end with it")]
    link: Arc<Link>,
}

impl Tail {
    pub(super) async fn new(
        link: Arc<Link>,
        channels: [Channel; 2],
        names: &Names,
        after: u64,
    ) -> Result<Self, Fault> {
        let [of_entries, of_announcements] = channels;
        Ok(Self {
            announcements: names.listen(&of_announcements).await?,
            entries: names
                .consume(&of_entries, Offset::After(after), PREFETCH)
                .await?,
            after,
            open: 0,
            announced_first: true,
            failed: None,
            link,
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Tailed, Fault>> {
        if let Some(fault) = self.failed.take() {
            return Poll::Ready(Err(fault));
        }
        let announced_first = mem::replace(&mut self.announced_first, false);
        if announced_first && let Poll::Ready(announced) = self.poll_announcement(cx) {
            return Poll::Ready(announced);
        }
        if let Poll::Ready(entries) = self.poll_entries(cx) {
            self.announced_first = true;
            return Poll::Ready(entries);
        }
        self.poll_announcement(cx)
    }

    fn poll_announcement(&mut self, cx: &mut Context<'_>) -> Poll<Result<Tailed, Fault>> {
        let said = ready!(Pin::new(&mut self.announcements).poll_next(cx));
        Poll::Ready(delivered(said).map(|delivery| {
            acknowledge(&delivery.acker);
            Tailed::Announcement(delivery.data.into())
        }))
    }

    /// All entries that are there, within the bounds of a list.
    fn poll_entries(&mut self, cx: &mut Context<'_>) -> Poll<Result<Tailed, Fault>> {
        let (mut list, mut bytes) = (Vec::new(), 0);
        while list.len() < ENTRIES_MAX && bytes < BYTES_MAX {
            let Poll::Ready(said) = Pin::new(&mut self.entries).poll_next(cx) else {
                break;
            };
            let entry = match Entry::from(said) {
                Ok(entry) => entry,
                Err(fault) if list.is_empty() => return Poll::Ready(Err(fault)),
                Err(fault) => {
                    self.failed = Some(fault);
                    break;
                }
            };
            self.open += 1;
            if self.open >= ACKNOWLEDGED_AT {
                self.open = 0;
                acknowledge(&entry.acker);
            }
            // A consumer may begin before its place, with the chunk that it is in.
            if entry.position > self.after {
                self.after = entry.position;
                bytes += entry.bytes.len();
                list.push((entry.position, entry.bytes));
            }
        }
        if list.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Tailed::Entries(list)))
    }
}

impl EntryTail for Tail {
    fn next(&mut self) -> BoxFuture<'_, Result<Tailed, Fault>> {
        // Nothing is kept between two polls, so dropping it loses nothing.
        Box::pin(std::future::poll_fn(|cx| self.poll_next(cx)))
    }
}
