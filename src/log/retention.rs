//! How long events stay: the rules, and the first one that matches a topic. What is removed when is
//! the engines' part.

use crate::topic::{Pattern, Topic};

/// The limits of one topic. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events older than this go, in ms.
    pub age_max_ms: Option<u64>,
    /// Past this number the oldest go.
    pub events_max: Option<u64>,
    /// Past this many bytes of stored events (data, names and a fixed cost each) the oldest go; the
    /// newest event always stays.
    pub bytes_max: Option<u64>,
}

/// Limits for the topics that a pattern selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// An exact topic or a pattern.
    pub topics: Pattern,
    /// Theirs.
    pub limits: Limits,
}

/// All rules, and the bound on the whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The first that matches a topic counts.
    pub rules: Vec<Rule>,
    /// For topics that no rule matches.
    pub default: Limits,
    /// The bytes that the whole log may take, files included; past that the oldest events of all go.
    pub bytes_max: u64,
}

/// What an event costs in a topic's `bytes_max` beside its data and names, in bytes.
pub const EVENT_OVERHEAD_BYTES: u64 = 64;

impl Retention {
    /// The limits of a topic.
    #[must_use]
    pub fn limits(&self, topic: &Topic) -> Limits {
        self.limits_of(self.rule(topic))
    }

    /// The number of the rule that counts for a topic, in four bytes for those who keep very many.
    pub(crate) fn rule(&self, topic: &Topic) -> u32 {
        let rule = self
            .rules
            .iter()
            .position(|rule| rule.topics.matches(topic));
        rule.and_then(|rule| u32::try_from(rule).ok())
            .unwrap_or(u32::MAX)
    }

    /// The limits of a rule, or the default ones if there is none of that number.
    pub(crate) fn limits_of(&self, rule: u32) -> Limits {
        self.rules
            .get(rule as usize)
            .map_or(self.default, |rule| rule.limits)
    }
}
