//! What a reader may ask for, and what it is told of what it does not get.

use crate::{cursor::Cursor, event::OwnId, log::Start};

/// Where a reader wants to start.
#[derive(Clone, Debug)]
pub enum Begin {
    /// With what is published from now on.
    Live,
    /// At a place in the log.
    Log(Start),
    /// After an id that is neither a cursor nor an own id: nowhere in the log.
    Unknown,
}

impl Begin {
    /// The start that a `Last-Event-ID` asks for: a cursor, an own id, or nothing known.
    #[must_use]
    pub fn last_event_id(text: &str) -> Self {
        match (text.parse::<Cursor>(), OwnId::parse(text)) {
            (Ok(cursor), _) => Self::Log(Start::Cursor(cursor)),
            (_, Ok(own_id)) => Self::Log(Start::OwnId(own_id)),
            _ => Self::Unknown,
        }
    }
}

/// What happens to a reader that is too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// It is served from the log; where retention overtakes it, it is told of a gap.
    #[default]
    Gap,
    /// It is served from the log; where retention overtakes it, its stream ends.
    Disconnect,
    /// It skips to the newest events as soon as it is behind the live frames, and is told so.
    Latest,
}

impl LagPolicy {
    /// The names of all, as an error lists them.
    pub const NAMES: &str = "`gap`, `disconnect` or `latest`";

    /// The policy of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "gap" => Some(Self::Gap),
            "disconnect" => Some(Self::Disconnect),
            "latest" => Some(Self::Latest),
            _ => None,
        }
    }
}

/// Why the hub ends a stream and says so in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Retention overtook a reader that asked for [`LagPolicy::Disconnect`].
    Lagged,
    /// The hub has no room for another connection.
    Overloaded,
    /// The hub is going down.
    Draining,
    /// The node has nothing of its cluster's journal yet, or cannot read it.
    NotReady,
    /// The reader wants no more of it.
    Unsubscribed,
}

impl CloseReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lagged => "lagged",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::NotReady => "not_ready",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// Why events of a reader's filter will never reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// They were removed before it came.
    Expired,
    /// They were removed, or skipped, while it was reading too slowly.
    Lagged,
    /// The id it came with is not known.
    Unknown,
    /// The id it came with belongs to another log, or to a future that was lost.
    Epoch,
    /// They were damaged on disk.
    Corrupt,
}

impl GapReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Lagged => "lagged",
            Self::Unknown => "unknown",
            Self::Epoch => "epoch",
            Self::Corrupt => "corrupt",
        }
    }
}

/// What a reader is told in place of events that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What happened.
    pub reason: GapReason,
    /// Where the reader was, or wanted to be.
    pub requested: String,
    /// The oldest kept event of its filter.
    pub oldest: Option<Cursor>,
    /// How many it missed, where that is known.
    pub missed: Option<u64>,
}
