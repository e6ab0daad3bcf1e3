//! HTTP/2 streams whose client grants them no window: the connection lives, so nothing else would end them.
//!
//! hyper asks a body for its next part only once it may send some of it. So a body notes here that it handed out a part
//! and was not asked again, and the task that hyper runs for the stream ends itself when that lasts too long.

use axum::BoxError;
use bytes::Bytes;
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt};

/// Parts are no larger, so that a client that takes a large event slowly is seen to take it.
const PART_BYTES: usize = 16 << 10; // 16 KiB

tokio::task_local! {
    /// When the part was handed out that is not taken yet, in the task of one stream.
    static HANDED_OUT: Cell<Option<Instant>>;
}

/// A body's parts, noting which one waits to be taken.
pub(super) fn noted<B: Into<Bytes>, E: Into<BoxError>>(
    parts: impl Stream<Item = Result<B, E>>,
) -> impl Stream<Item = Result<Bytes, E>> {
    async_stream::stream! {
        let mut parts = pin!(parts);
        while let Some(part) = parts.next().await {
            let mut rest: Bytes = match part {
                Ok(part) => part.into(),
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            while !rest.is_empty() {
                let part = rest.split_to(rest.len().min(PART_BYTES));
                note(Some(Instant::now()));
                yield Ok(part);
                note(None);
            }
        }
    }
}

fn note(handed_out: Option<Instant>) {
    // Outside such a task (a program that serves the routes in its own way) nobody watches.
    let _ = HANDED_OUT.try_with(|noted| noted.set(handed_out));
}

/// Runs the task of one stream to its end, or until a part was not taken for `write_timeout`.
pub(super) async fn run(task: impl Future, write_timeout: Duration) {
    let mut task = pin!(task);
    let mut timer = None;
    let watched = poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = HANDED_OUT.with(Cell::get) else {
            timer = None;
            return Poll::Pending;
        };
        let deadline = since + write_timeout;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    });
    HANDED_OUT.scope(Cell::new(None), watched).await;
}
