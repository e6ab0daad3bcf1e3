//! Control events: what the hub itself says in a stream, in whichever form. But for `open` they never have an id, which
//! would move the reader's cursor.

use crate::{
    cursor::Cursor,
    encoding::rfc3339,
    fanout::{CloseReason, Gap},
};
use serde_json::{Value, json};
use std::time::Duration;

/// A control event.
#[derive(Clone, Debug)]
pub struct Control {
    /// Such as `gap`; as a Server-Sent Event it is `tidings.gap`.
    pub name: &'static str,
    /// Where the reader is from now on.
    pub id: Option<Cursor>,
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
            name: "gap",
            id: None,
            data,
        }
    }

    /// The stream ends: `{"reason"}`.
    #[must_use]
    pub fn close(reason: CloseReason) -> Self {
        Self {
            name: "close",
            id: None,
            data: json!({ "reason": reason.as_str() }),
        }
    }

    /// The same, with when to come back: `{"reason","retry"}`, in milliseconds.
    #[must_use]
    pub fn close_for(reason: CloseReason, after: Duration) -> Self {
        let retry_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: "close",
            id: None,
            data: json!({ "reason": reason.as_str(), "retry": retry_ms }),
        }
    }

    /// Where the stream begins: `{"cursor"}`.
    #[must_use]
    pub fn open(cursor: Cursor) -> Self {
        Self {
            name: "open",
            id: Some(cursor),
            data: json!({ "cursor": cursor.to_string() }),
        }
    }

    /// The connection lives: `{"time"}`.
    #[must_use]
    pub fn heartbeat(now_ms: u64) -> Self {
        Self {
            name: "heartbeat",
            id: None,
            data: json!({ "time": rfc3339(now_ms) }),
        }
    }
}

/// A time between `min` and `max`, so that clients that were sent away together do not come back together.
#[must_use]
pub fn jittered(min: Duration, max: Duration) -> Duration {
    min + max.saturating_sub(min).mul_f64(rand::random::<f64>())
}
