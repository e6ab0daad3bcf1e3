//! What became of what a publisher sent, as it is told: a result, or a problem.

use super::problem::{self, Problem};
use crate::{
    ingest::json::JsonError,
    log::{AppendError, Outcome},
    topic::Topic,
};
use serde_json::{Value, json};

/// `{"id","topic","duplicate"}`.
pub(super) fn result(topic: &Topic, outcome: Outcome) -> Result<Value, Problem> {
    let (cursor, duplicate) = match outcome {
        Outcome::Stored(cursor) => (cursor, false),
        Outcome::Duplicate(cursor) => (cursor, true),
        Outcome::Conflict => return Err(conflict(topic)),
    };
    Ok(json!({ "id": cursor.to_string(), "topic": topic.as_str(), "duplicate": duplicate }))
}

/// The problem of a key that came before with another content.
pub(super) fn conflict(topic: &Topic) -> Problem {
    let detail = format!(
        "the idempotency key came before on {:?} with another content",
        topic.as_str()
    );
    Problem::new(&problem::KEY_CONFLICT, detail)
}

/// The problem of an append that failed.
pub(super) fn append_problem(error: AppendError) -> Problem {
    let (kind, detail) = match error {
        AppendError::Full => (&problem::FULL, "the log has no room; nothing was stored"),
        AppendError::Unknown => (
            &problem::UNKNOWN_OUTCOME,
            "writing failed; the same idempotency key settles whether it was stored",
        ),
        AppendError::Unavailable => (
            &problem::UNAVAILABLE,
            "the log is not available; nothing was stored",
        ),
    };
    Problem::new(kind, detail)
}

/// The problem of JSON that is no event.
pub(super) fn json_problem(error: &JsonError) -> Problem {
    let kind = match error {
        JsonError::NotUtf8 => &problem::NOT_UTF8,
        JsonError::Syntax { .. } => &problem::JSON,
        JsonError::Topic(_) | JsonError::Shape { .. } | JsonError::Field(..) => &problem::EVENT,
        JsonError::TooLarge(_) | JsonError::TooMany(_) => &problem::TOO_LARGE,
    };
    Problem::new(kind, error.to_string())
}
