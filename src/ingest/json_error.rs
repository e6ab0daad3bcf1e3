//! What is wrong with JSON that became no event, in words for the one who sent it. Knows no HTTP.

use crate::{
    event::{FieldError, RETRY_MS_MAX},
    topic::TopicError,
};
use serde_json::{error::Category, value::RawValue};
use std::{borrow::Cow, collections::HashMap};

/// Why JSON did not become drafts.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8.
    #[error(
        "the body is not UTF-8, and Server-Sent Events carry nothing else; send the data as Base64"
    )]
    NotUtf8,
    /// Not JSON.
    #[error("not JSON: {what}{at}")]
    Syntax {
        /// What was found or expected.
        what: String,
        /// Where it ends to be any.
        at: Place,
    },
    /// JSON, but not an event: a field too many, missing, or of the wrong type.
    #[error("{what}{at}")]
    Shape {
        /// Which field, and what it takes.
        what: String,
        /// Where this showed.
        at: Place,
    },
    /// A topic that is none.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A field that breaks its rule.
    #[error("`{0}` {1}")]
    Field(&'static str, FieldError),
    /// More data than an event may have, in bytes.
    #[error("the data is larger than {0} bytes, the most an event may have")]
    TooLarge(usize),
    /// More events than an array may have.
    #[error("the array has more than {0} events, the most it may have")]
    TooMany(usize),
}

/// A [`JsonError`], and which event of an array it is about.
#[derive(Debug)]
pub struct Refused {
    /// Counted from 0. `None` if the error is about the whole.
    pub index: Option<usize>,
    /// What is wrong.
    pub error: JsonError,
}

impl From<JsonError> for Refused {
    fn from(error: JsonError) -> Self {
        Self { index: None, error }
    }
}

/// A place in a text: line and column from 1, in bytes; or no known place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(Option<(usize, usize)>);

impl Place {
    /// The first byte of a line.
    #[must_use]
    pub fn line(line: usize) -> Self {
        Self(Some((line, 1)))
    }

    /// Where `part`, a slice of `whole`, begins in it.
    pub(super) fn of(part: &str, whole: &str) -> Self {
        let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr());
        let before = offset.and_then(|offset| whole.as_bytes().get(..offset));
        Self(before.map(|before| {
            let line_begins = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
            let lines = memchr::memchr_iter(b'\n', before).count();
            (lines + 1, before.len() - line_begins + 1)
        }))
    }

    /// This place in a part that begins at `begin`.
    fn after(self, begin: Self) -> Self {
        Self(match (self.0, begin.0) {
            (Some((1, column)), Some((line, first))) => Some((line, first - 1 + column)),
            (Some((line, column)), Some((first, _))) => Some((first - 1 + line, column)),
            (place, _) => place,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some((line, column)) => write!(f, " at line {line} column {column}"),
            None => Ok(()),
        }
    }
}

impl JsonError {
    /// The same error, if the text it is about begins at `begin` of a larger one.
    #[must_use]
    pub fn moved(mut self, begin: Place) -> Self {
        if let Self::Syntax { at, .. } | Self::Shape { at, .. } = &mut self {
            *at = at.after(begin);
        }
        self
    }

    /// A text that is not JSON.
    pub(crate) fn syntax(error: &serde_json::Error) -> Self {
        let (what, at) = parts(error);
        Self::Syntax { what, at }
    }

    /// A text that is not JSON, or not an object of an event.
    pub(super) fn of_event(error: &serde_json::Error, text: &str) -> Self {
        if error.classify() != Category::Data {
            return Self::syntax(error);
        }
        let (what, at) = parts(error);
        // Only here the fields are looked at once more: serde does not say which one has the wrong type.
        let what = misfit(text).unwrap_or(what);
        Self::Shape { what, at }
    }
}

/// An error's words and place, which serde_json has in one text.
fn parts(error: &serde_json::Error) -> (String, Place) {
    let text = error.to_string();
    let what = text
        .split_once(" at line ")
        .map_or(&*text, |(what, _)| what);
    (shortened(what), Place(Some((error.line(), error.column()))))
}

/// The field that has the wrong type, if that is what is wrong.
fn misfit(text: &str) -> Option<String> {
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
    let value = |name: &str| fields.get(name).map(|value| value.get());
    let no_string = |value: &&str| !value.starts_with('"');
    let strings = ["event", "own_id", "idempotency_key"].map(|name| {
        let value = value(name)
            .filter(no_string)
            .filter(|value| *value != "null");
        (name, value, "a string".to_owned())
    });
    let topic = (
        "topic",
        value("topic").filter(no_string),
        "a string".to_owned(),
    );
    let retry = value("retry").filter(|value| *value != "null" && value.parse::<u64>().is_err());
    let ms = format!("a whole number of milliseconds from 0 to {RETRY_MS_MAX}");
    let mut all = std::iter::once(topic)
        .chain(strings)
        .chain([("retry", retry, ms)]);
    all.find_map(|(name, value, takes)| {
        let value = shortened(value?);
        Some(format!("`{name}` takes {takes}, not {value}"))
    })
}

/// Enough of a text to know it again.
fn shortened(text: &str) -> String {
    const CHARS: usize = 200;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
