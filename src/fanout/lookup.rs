//! Reads of the log for readers: shared where several want the same, and asked again until the log answers.

use super::{
    Hub,
    feed::{Feed, Stretch},
};
use crate::{
    cursor::Cursor,
    log::{Located, PageLimits, Place, ReadError, Start},
    topic::Filter,
};
use futures_util::FutureExt as _;
use std::{sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// What a page of the log may hold: so much is in memory for readers that replay.
const PAGE: PageLimits = PageLimits {
    events_max: 256,
    bytes_max: 32 << 10,
}; // 32 KiB

/// How long a reader waits before it asks a log again that did not answer.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The place of a cursor that needs no looking for.
pub(super) fn known_cursor(hub: &Hub, start: &Start) -> Option<Located> {
    let bounds = hub.log.bounds();
    match start {
        Start::Cursor(cursor) if cursor.epoch == bounds.epoch && cursor.position <= bounds.head => {
            Some(Located {
                place: Place::at(cursor.position),
                gap: None,
                epoch: cursor.epoch,
            })
        }
        _ => None,
    }
}

/// Reads the log after a place, together with those who want the same. `None` once the hub ends its streams.
pub(super) async fn read(hub: Arc<Hub>, feed: Arc<Feed>, place: Place) -> Option<Arc<Stretch>> {
    let reading = feed.reading(place, || {
        let read = read_alone(Arc::clone(&hub), Arc::clone(&feed), place);
        detached(&hub, read).map(Option::flatten).boxed().shared()
    });
    tokio::select! {
        biased;
        stretch = reading => stretch,
        () = hub.drain.cancelled() => None,
    }
}

async fn read_alone(hub: Arc<Hub>, feed: Arc<Feed>, place: Place) -> Option<Arc<Stretch>> {
    let page = retry(&hub, || hub.log.read_after(place, &feed.filter, PAGE)).await;
    let stretch = match page {
        Some(page) => {
            let oldest = match page.gap {
                Some(_) => oldest_alone(&hub, &feed.filter).await,
                None => None,
            };
            Some(Arc::new(Stretch::new(page, place, oldest)))
        }
        None => None,
    };
    let is_shared = feed.read(place);
    // One reader's replay is not worth holding; what several want, more will.
    if let Some(stretch) = &stretch
        && let Some(frame) = stretch.frame.as_ref().filter(|_| stretch.is_whole)
        && is_shared
        && feed.keep(frame)
    {
        hub.hold(&feed, std::slice::from_ref(frame));
    }
    stretch
}

/// Where a reader starts; `None` once the log is closed.
pub(super) async fn locate(hub: &Arc<Hub>, filter: &Arc<Filter>, start: Start) -> Option<Located> {
    let (log_of, filter) = (Arc::clone(hub), Arc::clone(filter));
    let located = async move { retry(&log_of, || log_of.log.locate(start.clone(), &filter)).await };
    detached(hub, located).await.flatten()
}

/// The oldest kept event that matches.
pub(super) async fn oldest(hub: Arc<Hub>, filter: Arc<Filter>) -> Option<Cursor> {
    let log_of = Arc::clone(&hub);
    let oldest = async move { oldest_alone(&log_of, &filter).await };
    detached(&hub, oldest).await.flatten()
}

async fn oldest_alone(hub: &Hub, filter: &Arc<Filter>) -> Option<Cursor> {
    retry(hub, || hub.log.oldest(filter)).await.flatten()
}

/// Has a task of its own do it, while somebody wants to know. Whoever waits may be a transport that polls nothing of its
/// readers while a socket is full, and a read that nobody polls holds up those behind it. `None` if it panicked.
fn detached<T: Send + 'static>(
    hub: &Hub,
    read: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = Option<T>> + Send + 'static {
    let task = AbortOnDropHandle::new(hub.reads.spawn(read));
    task.map(Result::ok)
}

/// Asks the log until it answers; `None` once it is closed. Whoever waits may be dropped at any time.
async fn retry<T, F>(hub: &Hub, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, ReadError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(ReadError::Behind) => return None,
            Err(_) if hub.is_stopped() => return None,
            Err(error) => tracing::debug!(%error, "a read is tried again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
