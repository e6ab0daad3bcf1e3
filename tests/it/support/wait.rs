//! Waiting, never for ever: for what comes, and for a state of the hub that no byte on the wire announces.

use super::stream::DEADLINE;
use std::{fmt::Display, future::Future, time::Duration};
use tokio::time::{Instant, interval, timeout};

/// What the future gives, which must come within `time`, whatever else comes meanwhile.
pub(crate) async fn in_time<T>(
    time: Duration,
    what: impl Display,
    future: impl Future<Output = T>,
) -> T {
    let output = timeout(time, future).await;
    output.unwrap_or_else(|_| panic!("not within {time:?}: {what}"))
}

/// Waits until `true`, which must come within the deadline of a test.
pub(crate) async fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    within(DEADLINE, what, holds).await;
}

/// Waits until `true`, which must come within `time`.
pub(crate) async fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    let mut tick = interval(Duration::from_millis(2));
    while !holds() {
        assert!(begun.elapsed() < time, "not within {time:?}: {what}");
        tick.tick().await;
    }
}
