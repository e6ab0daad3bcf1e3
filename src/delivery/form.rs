//! The two forms of a stream: Server-Sent Events, and lines of JSON.
//!
//! In Server-Sent Events, comments, keepalives and the hub's `retry:` are single lines that end in one LF and never have a
//! blank line after them: several popular clients dispatch an empty message at any blank line.

use super::control::Control;
use crate::{
    cursor::Cursor,
    encoding::{Encoding, on_one_line},
    fanout::CloseReason,
};
use bytes::Bytes;
use serde_json::json;
use std::{fmt::Write as _, time::Duration};

/// How a stream is put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Server-Sent Events, with an event's data as it is.
    Sse,
    /// The same, with envelopes.
    SseEnvelope,
    /// The same, with no event named: `EventSource.onmessage` gets them all.
    SseMessage,
    /// NDJSON: an envelope per line. What the hub says itself is a line with one member, such as `{"gap":{…}}`.
    Lines,
}

impl Form {
    /// How events are put.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Sse => Encoding::Sse,
            Self::SseEnvelope => Encoding::SseEnvelope,
            Self::SseMessage => Encoding::SseMessage,
            Self::Lines => Encoding::Line,
        }
    }

    /// Said at once, so that whoever reads sees an open stream behind any proxy.
    #[must_use]
    pub fn hello(self, retry: Duration) -> Bytes {
        match self {
            Self::Lines => Bytes::from_static(b"\n"),
            _ => format!("retry: {}\n: tidings\n", retry.as_millis()).into(),
        }
    }

    /// Said after a long silence.
    #[must_use]
    pub fn keepalive(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Lines => b"\n",
            _ => b":\n",
        })
    }

    /// What the hub says itself.
    #[must_use]
    pub fn control(self, control: &Control) -> Bytes {
        if self == Self::Lines {
            let mut line = on_one_line(json!({ control.name: control.data }).to_string());
            line.push('\n');
            return line.into();
        }
        let mut text = format!("event: tidings.{}\n", control.name);
        if let Some(id) = control.id {
            let _ = writeln!(text, "id: {id}");
        }
        text.push_str("data: ");
        text.push_str(&on_one_line(control.data.to_string()));
        text.push_str("\n\n");
        text.into()
    }

    /// The hub goes down: when to come back.
    #[must_use]
    pub fn later(self, after: Duration) -> Bytes {
        match self {
            Self::Lines => self.control(&Control::close_for(CloseReason::Draining, after)),
            _ => format!("retry: {}\n", after.as_millis()).into(),
        }
    }

    /// All that a stream of Server-Sent Events gets from a hub that cannot serve it now: an error status would end an
    /// `EventSource` for ever.
    #[must_use]
    pub fn turned_away(reason: CloseReason, after: Duration) -> Bytes {
        let close = Self::Sse.control(&Control::close(reason));
        [Self::Sse.later(after), close].concat().into()
    }

    /// A block of Server-Sent Events that only moves the reader's cursor.
    #[must_use]
    pub fn id_only(cursor: Cursor) -> Bytes {
        format!("id: {cursor}\n\n").into()
    }
}
