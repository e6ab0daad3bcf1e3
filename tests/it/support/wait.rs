//! Waiting for a state of the hub that no byte on the wire announces.

use super::stream::DEADLINE;
use std::time::Duration;
use tokio::time::{Instant, interval};

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
