//! `[[log.retention]]`: the one kind of table that may come any number of times.

use super::{
    knob::{ANY, Fault, Kind, LONG, Setting, Why, quoted, read},
    nearest::nearest,
    node::{Node, Value},
};
use crate::topic::Pattern;
use std::time::Duration;

/// How long events of some topics stay. The first rule that matches a topic counts; its limits are per
/// topic, and past any of them the topic's oldest events are removed. A rule without a limit keeps its
/// events until the whole log is full (`log.bytes_max`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// An exact topic or a pattern: `*` is one segment, a final `**` one or more.
    pub topics: Pattern,
    /// Older events are removed. At least 1ms.
    pub age_max: Option<Duration>,
    /// Of more events than that, the oldest are removed. At least 1.
    pub events_max: Option<u64>,
    /// Of more bytes than that (data, names, and 64 bytes for each event), the oldest events are removed, but
    /// never a topic's newest. At least 1B.
    pub bytes_max: Option<u64>,
}

const AGE: Kind = Kind::Time {
    min: Duration::from_millis(1),
    max: LONG,
};
const EVENTS: Kind = Kind::Count { min: 1, max: ANY };
const BYTES: Kind = Kind::Size { min: 1, max: ANY };
const KEYS: [&str; 4] = ["topics", "age_max", "events_max", "bytes_max"];

impl RetentionRule {
    pub(super) fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let Value::Table(entries) = &node.value else {
            return Err(Fault::expected(kind, node));
        };
        let (mut topics, mut age_max, mut events_max, mut bytes_max) = (None, None, None, None);
        for (key, line, node) in entries {
            let done = match key.as_str() {
                "topics" => read_pattern(node).map(|pattern| topics = Some(pattern)),
                "age_max" => read(node, &AGE).map(|age| age_max = Some(age)),
                "events_max" => read(node, &EVENTS).map(|events| events_max = Some(events)),
                "bytes_max" => read(node, &BYTES).map(|bytes| bytes_max = Some(bytes)),
                _ => Err(Fault {
                    line: *line,
                    below: String::new(),
                    why: Why::Unknown {
                        nearest: nearest(key, KEYS).map(str::to_owned),
                    },
                }),
            };
            done.map_err(|fault| fault.below(&format!(".{key}")))?;
        }
        let topics = topics.ok_or_else(|| Fault {
            line: node.line,
            below: ".topics".to_owned(),
            why: Why::Expected {
                what: PATTERN.to_owned(),
                found: "none".to_owned(),
            },
        })?;
        Ok(Self {
            topics,
            age_max,
            events_max,
            bytes_max,
        })
    }

    pub(super) fn within(&self) -> bool {
        self.age_max.is_none_or(|age| age.within(&AGE))
            && self.events_max.is_none_or(|events| events.within(&EVENTS))
            && self.bytes_max.is_none_or(|bytes| bytes.within(&BYTES))
    }

    /// An inline table of the keys that are set.
    pub(super) fn show(&self) -> String {
        let topics = Some(quoted(self.topics.as_str()));
        let age = self.age_max.map(|age| age.show(&AGE));
        let events = self.events_max.map(|events| events.show(&EVENTS));
        let bytes = self.bytes_max.map(|bytes| bytes.show(&BYTES));
        let values = KEYS.into_iter().zip([topics, age, events, bytes]);
        let entries: Vec<_> = values
            .filter_map(|(key, value)| Some(format!("{key} = {}", value?)))
            .collect();
        format!("{{ {} }}", entries.join(", "))
    }
}

const PATTERN: &str = "a topic or a pattern such as \"github/**\"";

fn read_pattern(node: &Node) -> Result<Pattern, Fault> {
    let text = node.text().ok_or_else(|| Fault::expected(PATTERN, node))?;
    Pattern::parse(text).map_err(|why| Fault::expected(format_args!("{PATTERN} ({why})"), node))
}
