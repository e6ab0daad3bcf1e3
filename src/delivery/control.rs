//! Control events: what the hub itself says in a stream. They are named `tidings.*`, have data, and but for
//! `tidings.open` never an `id:`, which would move the reader's cursor.

use crate::{
    cursor::Cursor,
    encoding::rfc3339,
    fanout::{CloseReason, Gap},
};
use serde_json::{Value, json};
use std::time::Duration;

/// A control event: its name without the `tidings.`, and its data.
#[derive(Clone, Debug)]
pub struct Control {
    /// Such as `tidings.gap`.
    pub name: &'static str,
    /// A JSON object.
    pub data: Value,
}

impl Control {
    /// Something is missing here: `{"reason","requested","oldest","missed"}`.
    #[must_use]
    pub fn gap(gap: &Gap) -> Self {
        let data = json!({
            "reason": gap.reason.as_str(),
            "requested": gap.requested,
            "oldest": gap.oldest.map(|cursor| cursor.to_string()),
            "missed": gap.missed,
        });
        Self {
            name: "tidings.gap",
            data,
        }
    }

    /// The stream ends: `{"reason"}`.
    #[must_use]
    pub fn close(reason: CloseReason) -> Self {
        Self {
            name: "tidings.close",
            data: json!({ "reason": reason.as_str() }),
        }
    }

    /// Where the stream begins: `{"cursor"}`.
    #[must_use]
    pub fn open(cursor: Cursor) -> Self {
        Self {
            name: "tidings.open",
            data: json!({ "cursor": cursor.to_string() }),
        }
    }

    /// The connection lives: `{"time"}`.
    #[must_use]
    pub fn heartbeat(now_ms: u64) -> Self {
        Self {
            name: "tidings.heartbeat",
            data: json!({ "time": rfc3339(now_ms) }),
        }
    }
}

/// A time between `min` and `max`, so that clients that were sent away together do not come back together.
#[must_use]
pub fn jittered(min: Duration, max: Duration) -> Duration {
    min + max.saturating_sub(min).mul_f64(rand::random::<f64>())
}
