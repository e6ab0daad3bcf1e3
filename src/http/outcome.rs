//! What became of what a publisher sent, as it is told: a result, or a problem.

use super::problem::{self, Problem};
use crate::{
    cursor::Cursor,
    encoding::on_one_line,
    ingest::json::JsonError,
    log::{AppendError, Outcome},
    topic::Topic,
};
use serde_json::Value;
use std::fmt::Write as _;

/// Appends `{"id","topic","duplicate"}` of an event that is in the log.
pub(super) fn put_result(topic: &Topic, outcome: Outcome, out: &mut String) -> Result<(), Problem> {
    let (cursor, duplicate) = match outcome {
        Outcome::Stored(cursor) => (cursor, false),
        Outcome::Duplicate(cursor) => (cursor, true),
        Outcome::Conflict => return Err(conflict(topic)),
        Outcome::TooLarge(bytes_max) => {
            return Err(append_problem(AppendError::TooLarge(bytes_max)));
        }
    };
    put_line(&json_name(topic), cursor, duplicate, out);
    Ok(())
}

/// The same, of a topic that is a JSON string already.
pub(super) fn put_line(topic: &str, cursor: Cursor, duplicate: bool, out: &mut String) {
    // Nothing fails to be written to a string.
    let _ = write!(
        out,
        "{{\"id\":\"{cursor}\",\"topic\":{topic},\"duplicate\":{duplicate}}}"
    );
}

/// A topic as a JSON string.
pub(super) fn json_name(topic: &Topic) -> String {
    on_one_line(Value::from(topic.as_str()).to_string())
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
        AppendError::TimedOut => (
            &problem::OUTCOME_PENDING,
            "the journal did not answer in time; the same idempotency key settles whether the events are stored",
        ),
        AppendError::TooLarge(_) | AppendError::TooMany(_) => {
            let detail = format!("{error}; nothing was stored");
            return Problem::new(&problem::TOO_LARGE, detail);
        }
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
