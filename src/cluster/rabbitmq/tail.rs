//! What comes: the stream's entries and the nodes' announcements, one consumer each.

use super::{
    link::Link,
    reader::Reader,
    stream::{Names, Offset},
};
use crate::{
    cluster::journal::{EntryTail, Fault, Tailed},
    log::BoxFuture,
};
use std::{
    future::poll_fn,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

/// Entries that the broker may send ahead. They wait in memory, so it is no more than keeps a slow network busy: groups are
/// under 256 KiB, which makes 125 MiB at the worst.
const PREFETCH: u16 = 500;

/// Of one list; its last entry may go over the bytes.
const ENTRIES_MAX: usize = 500;
const BYTES_MAX: usize = 4 << 20; // 4 MiB

/// See [`EntryTail`].
pub(super) struct Tail {
    entries: Reader,
    announcements: Reader,
    /// The position of the newest entry that was handed out.
    after: u64,
    /// Announcements go first, so that entries without end do not hold them back.
    announced_first: bool,
    /// Found behind entries that were handed out.
    failed: Option<Fault>,
    #[expect(dead_code, reason = "held, since the consumers end with it")]
    link: Arc<Link>,
}

impl Tail {
    pub(super) async fn new(link: Arc<Link>, names: &Names, after: u64) -> Result<Self, Fault> {
        let (of_entries, of_announcements) = (link.channel().await?, link.channel().await?);
        let entries = names.consume(&of_entries, Offset::After(after), PREFETCH);
        Ok(Self {
            announcements: names.listen(&of_announcements).await?,
            entries: entries.await?,
            after,
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
        let announced = self.announcements.poll_next(cx);
        announced.map_ok(|delivery| Tailed::Announcement(delivery.data.into()))
    }

    /// All entries that are there, within the bounds of a list.
    fn poll_entries(&mut self, cx: &mut Context<'_>) -> Poll<Result<Tailed, Fault>> {
        let (mut list, mut size) = (Vec::new(), 0);
        while list.len() < ENTRIES_MAX && size < BYTES_MAX {
            match self.entries.poll_entry(cx) {
                // A consumer may begin before its place, with the chunk that it is in.
                Poll::Ready(Ok((position, _))) if position <= self.after => {}
                Poll::Ready(Ok((position, bytes))) => {
                    self.after = position;
                    size += bytes.len();
                    list.push((position, bytes));
                }
                Poll::Ready(Err(fault)) if list.is_empty() => return Poll::Ready(Err(fault)),
                Poll::Ready(Err(fault)) => {
                    self.failed = Some(fault);
                    break;
                }
                Poll::Pending if list.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(Tailed::Entries(list)))
    }
}

impl EntryTail for Tail {
    fn next(&mut self) -> BoxFuture<'_, Result<Tailed, Fault>> {
        // What one poll takes it also gives, so dropping the future loses nothing.
        Box::pin(poll_fn(|cx| self.poll_next(cx)))
    }
}
