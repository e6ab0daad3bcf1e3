//! HTTP/2 streams whose client takes nothing. While flow control holds a stream back, hyper does not ask its body for
//! more, so the body cannot end itself; its task is ended instead, which resets the stream and no other.

use bytes::Bytes;
use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt};

tokio::task_local! {
    /// The watch of the task that serves one HTTP/2 stream.
    static WATCH: Arc<Watch>;
}

/// Since when the stream's last piece waits to be taken, if it does.
#[derive(Default)]
struct Watch(Mutex<Option<Instant>>);

impl Watch {
    fn set(&self, waiting: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// Waits until one piece has waited for so long.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let now = Instant::now();
            let since = self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .unwrap_or(now);
            if since + timeout <= now {
                return;
            }
            sleep_until(since + timeout).await;
        }
    }
}

/// Runs the task of one HTTP/2 stream until it ends, or its client has taken nothing for `timeout`.
pub(super) async fn watched(task: impl Future, timeout: Duration) {
    let watch = Arc::new(Watch::default());
    tokio::select! {
        _ = WATCH.scope(Arc::clone(&watch), task) => {}
        () = watch.stalled(timeout) => tracing::debug!("a stream is reset: its client took nothing"),
    }
}

/// The pieces of a body, each noted in the task's watch until it is taken.
pub(super) fn noted(
    stream: impl Stream<Item = Result<Bytes, Infallible>>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let watch = WATCH.try_with(Arc::clone).unwrap_or_default();
    async_stream::stream! {
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.next().await {
            watch.set(Some(Instant::now()));
            yield piece;
            watch.set(None);
        }
    }
}
