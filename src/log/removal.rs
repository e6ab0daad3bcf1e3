//! What retention removed, as far as readers have to know it. Shared by the engines.

use super::{Place, retention::EVENT_OVERHEAD_BYTES};
use crate::event::{Draft, Event};

/// The newest loss of one topic, or of all topics that were forgotten. All 0 if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The position of the newest event removed.
    pub(crate) to: u64,
    /// Its time.
    pub(crate) time_ms: u64,
    /// The number of the removal that took it.
    pub(crate) removal: u64,
}

impl Removed {
    /// Whether a reader at `place` missed something by it.
    pub(crate) fn beyond(self, place: Place) -> bool {
        self.to > place.position && self.removal > place.removal
    }

    /// Whether something at or after that time is gone.
    pub(crate) fn since(self, time_ms: u64) -> bool {
        self.to > 0 && self.time_ms >= time_ms
    }

    /// Both losses as one, which is exact for neither.
    pub(crate) fn widen(&mut self, other: Self) {
        self.to = self.to.max(other.to);
        self.time_ms = self.time_ms.max(other.time_ms);
        self.removal = self.removal.max(other.removal);
    }
}

/// What an event costs in its topic's `bytes_max`.
pub(crate) fn cost(data: &[u8], event: Option<&str>, own_id: Option<&str>) -> u64 {
    let names = event.map_or(0, str::len) + own_id.map_or(0, str::len);
    (data.len() + names) as u64 + EVENT_OVERHEAD_BYTES
}

/// [`cost`] of a stored event.
pub(crate) fn cost_of(event: &Event) -> u64 {
    let name = event.event.as_ref().map(|name| name.as_str());
    cost(
        &event.data,
        name,
        event.own_id.as_ref().map(|id| id.as_str()),
    )
}

/// [`cost`] of the event that a draft becomes.
pub(crate) fn cost_of_draft(draft: &Draft) -> u64 {
    let name = draft.event.as_ref().map(|name| name.as_str());
    cost(
        &draft.data,
        name,
        draft.own_id.as_ref().map(|id| id.as_str()),
    )
}
