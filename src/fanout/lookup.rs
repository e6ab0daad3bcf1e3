//! Reads of the log for readers: shared where several want the same, and asked again until the log answers.

use super::{
    Hub,
    feed::{Feed, Reading, Stretch},
};
use crate::{
    cursor::Cursor,
    log::{Located, PageLimits, Place, ReadError, Start},
    topic::Filter,
};
use std::{sync::Arc, time::Duration};

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
    let reading = feed.reading(place);
    let stretch = reading.get_or_init(|| read_alone(&hub, &feed, place, &reading));
    tokio::select! {
        biased;
        stretch = stretch => stretch.clone(),
        () = hub.drain.cancelled() => None,
    }
}

async fn read_alone(
    hub: &Arc<Hub>,
    feed: &Arc<Feed>,
    place: Place,
    reading: &Arc<Reading>,
) -> Option<Arc<Stretch>> {
    let page = retry(hub, || hub.log.read_after(place, &feed.filter, PAGE)).await;
    let stretch = match page {
        Some(page) => {
            let oldest = match page.gap {
                Some(_) => oldest(Arc::clone(hub), Arc::clone(&feed.filter)).await,
                None => None,
            };
            Some(Arc::new(Stretch::new(page, place, oldest)))
        }
        None => None,
    };
    feed.read(reading);
    // One reader's replay is not worth holding; what several want, more will.
    if let Some(stretch) = &stretch
        && let Some(frame) = stretch.frame.as_ref().filter(|_| stretch.is_whole)
        && Arc::strong_count(reading) > 1
        && feed.keep(frame)
    {
        hub.hold(feed, std::slice::from_ref(frame));
    }
    stretch
}

pub(super) async fn oldest(hub: Arc<Hub>, filter: Arc<Filter>) -> Option<Cursor> {
    retry(&hub, || hub.log.oldest(&filter)).await.flatten()
}

/// Asks the log until it answers; `None` once it is closed. Whoever waits may be dropped at any time.
pub(super) async fn retry<T, F>(hub: &Hub, mut ask: impl FnMut() -> F) -> Option<T>
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
