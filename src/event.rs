//! What an event is, and what a publisher may say of it. Each part is checked once, at the edge, and
//! is a type of its own from there on.

use crate::{cursor::Cursor, encoding::Encodings, topic::Topic};
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// Event names that begin so belong to the hub.
pub const CONTROL_PREFIX: &str = "tidings.";

/// The longest event name and own id, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// The longest `retry:` a publisher may ask for, in ms: a browser keeps it for as long as the page lives.
pub const RETRY_MS_MAX: u32 = 60_000;

/// Why a part of an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No bytes at all.
    #[error("is empty")]
    Empty,
    /// Longer than its bound in bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// CR, LF, NUL or another control character, which would break the stream's lines.
    #[error("has a control character")]
    Control,
    /// Something else than visible ASCII.
    #[error("has a character that is not visible ASCII")]
    NotVisible,
    /// The hub's own names.
    #[error("begins with `{CONTROL_PREFIX}`, which is reserved for the hub")]
    Reserved,
    /// An own id in the form of the hub's ids.
    #[error("has the form of the hub's own ids, {{hex}}-{{number}}")]
    LikeCursor,
    /// Not a number of ms within the bound.
    #[error("is not a whole number of milliseconds from 0 to {RETRY_MS_MAX}")]
    Retry,
}

fn visible(text: &str, bytes_max: usize) -> Result<(), FieldError> {
    match text {
        "" => Err(FieldError::Empty),
        _ if text.len() > bytes_max => Err(FieldError::TooLong(bytes_max)),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err(FieldError::NotVisible),
        _ => Ok(()),
    }
}

/// The SSE `event:` of an event: 1 to 256 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventName(Arc<str>);

/// A publisher's own id of an event: 1 to 256 visible ASCII characters, never like a [`Cursor`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnId(Arc<str>);

/// What makes a repeated publish the same one: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl EventName {
    /// # Errors
    ///
    /// Which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        match text {
            "" => Err(FieldError::Empty),
            _ if text.len() > NAME_BYTES_MAX => Err(FieldError::TooLong(NAME_BYTES_MAX)),
            _ if text.chars().any(char::is_control) => Err(FieldError::Control),
            _ if text.starts_with(CONTROL_PREFIX) => Err(FieldError::Reserved),
            _ => Ok(Self(text.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl OwnId {
    /// # Errors
    ///
    /// Which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        visible(text, NAME_BYTES_MAX)?;
        if text.parse::<Cursor>().is_ok() {
            return Err(FieldError::LikeCursor);
        }
        Ok(Self(text.into()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IdempotencyKey {
    /// Takes the bare key, or a quoted string, which equals its content.
    ///
    /// # Errors
    ///
    /// Which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let text = text
            .strip_prefix('"')
            .and_then(|t| t.strip_suffix('"'))
            .unwrap_or(text);
        visible(text, KEY_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a `retry:` in ms.
///
/// # Errors
///
/// [`FieldError::Retry`] above [`RETRY_MS_MAX`].
pub fn check_retry(retry_ms: u64) -> Result<u32, FieldError> {
    u32::try_from(retry_ms)
        .ok()
        .filter(|ms| *ms <= RETRY_MS_MAX)
        .ok_or(FieldError::Retry)
}

/// An event that a publisher wants in the log. Everything in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it belongs.
    pub topic: Topic,
    /// The SSE `event:`, if any.
    pub event: Option<EventName>,
    /// The publisher's own id, if any.
    pub own_id: Option<OwnId>,
    /// The SSE `retry:` to send with it, in ms.
    pub retry_ms: Option<u32>,
    /// The data: UTF-8, in an allocation of its own (not a slice of a larger buffer).
    pub data: Bytes,
    /// What makes a repetition the same publish.
    pub key: Option<IdempotencyKey>,
}

impl Draft {
    /// A draft of data alone.
    #[must_use]
    pub fn new(topic: Topic, data: String) -> Self {
        let data = Bytes::from(data.into_bytes().into_boxed_slice());
        Self {
            topic,
            event: None,
            own_id: None,
            retry_ms: None,
            data,
            key: None,
        }
    }
}

/// An event in the log: never changed, shared by all that deliver it.
pub struct Event {
    /// Its id on the wire.
    pub cursor: Cursor,
    /// When the log took it: ms since 1970 UTC, never falling within an epoch.
    pub time_ms: u64,
    /// Where it belongs.
    pub topic: Topic,
    /// The SSE `event:`, if any.
    pub event: Option<EventName>,
    /// The publisher's own id, if any.
    pub own_id: Option<OwnId>,
    /// The SSE `retry:` to send with it, in ms.
    pub retry_ms: Option<u32>,
    /// The data: UTF-8.
    pub data: Bytes,
    /// Its wire forms, each made on first use and shared by all feeds and readers.
    pub encodings: Encodings,
}

impl Event {
    /// The event that a draft becomes at its place in the log.
    #[must_use]
    pub fn from_draft(draft: Draft, cursor: Cursor, time_ms: u64) -> Self {
        let Draft {
            topic,
            event,
            own_id,
            retry_ms,
            data,
            key: _,
        } = draft;
        Self {
            cursor,
            time_ms,
            topic,
            event,
            own_id,
            retry_ms,
            data,
            encodings: Encodings::default(),
        }
    }

    /// The same at another cursor.
    pub(crate) fn at(&self, cursor: Cursor) -> Self {
        Self {
            cursor,
            time_ms: self.time_ms,
            topic: self.topic.clone(),
            event: self.event.clone(),
            own_id: self.own_id.clone(),
            retry_ms: self.retry_ms,
            data: self.data.clone(),
            encodings: Encodings::default(),
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} B)", self.cursor, self.topic, self.data.len())
    }
}
