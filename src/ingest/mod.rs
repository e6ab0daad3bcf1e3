//! The one door in. Whatever the route, drafts end in [`Ingest::publish`].

pub mod json;
mod json_error;

use crate::{
    event::Draft,
    log::{AppendError, Batch, EventLog, Outcome},
};
use std::sync::Arc;

/// What publishers may send. See [`PublishConfig`](crate::config::PublishConfig).
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The data of one event, in bytes.
    pub event_bytes_max: usize,
    /// Events in one array.
    pub batch_events_max: usize,
    /// The body of an object or array, in bytes.
    pub batch_bytes_max: usize,
}

impl Bounds {
    /// The longest JSON that can hold one event, in bytes: it may write a byte of data as six, `\u0001`.
    #[must_use]
    pub fn json_bytes_max(&self) -> usize {
        const NAMES_AND_IDS: usize = 16 << 10; // 16 KiB
        self.event_bytes_max
            .saturating_mul(6)
            .saturating_add(NAMES_AND_IDS)
    }
}

/// Publishes drafts to the log.
#[derive(Clone)]
pub struct Ingest {
    log: Arc<dyn EventLog>,
    /// What routes have to check before.
    pub bounds: Bounds,
}

impl Ingest {
    /// A door to the log.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, bounds: Bounds) -> Self {
        Self { log, bounds }
    }

    /// Publishes the drafts in their order, and resolves when they are durable. The outcomes are in the order of
    /// the drafts.
    ///
    /// # Errors
    ///
    /// [`AppendError`]: none of them is known to be stored.
    ///
    /// # Cancel safety
    ///
    /// The drafts may be stored even if the future is dropped.
    pub async fn publish(
        &self,
        drafts: Vec<Draft>,
        all_or_nothing: bool,
    ) -> Result<Vec<Outcome>, AppendError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        self.log
            .append(Batch {
                drafts,
                all_or_nothing,
            })
            .await
    }
}
