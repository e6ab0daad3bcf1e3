//! The messages of `tidings.v1`: what a client may ask, and what it is told.
//!
//! Each is a JSON object. A client's has one of `subscribe`, `unsubscribe` and `publish`, and may have a `ref`, which the
//! answer to it repeats.

use crate::{
    event::Draft,
    fanout::{Begin, CloseReason, LagPolicy},
    http::{
        outcome::json_problem,
        problem::{self, Problem},
        start, subscribe,
    },
    ingest::{
        Bounds,
        json::{self, JsonError},
    },
    topic::Filter,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use std::{borrow::Cow, convert::Infallible, time::Duration};

/// The longest name of a subscription, and the longest `ref`, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// So much of a message its error repeats.
const SHOWN_CHARS: usize = 100;

/// A client's message.
pub(super) struct Message {
    /// The client's name for it.
    pub(super) reference: Option<String>,
    pub(super) asked: Asked,
}

/// What a client asks.
pub(super) enum Asked {
    Subscribe(Box<Subscribe>),
    /// Of that name.
    Unsubscribe(String),
    Publish(Draft),
}

/// A subscription that a client asks for.
pub(super) struct Subscribe {
    pub(super) sub: String,
    pub(super) filter: Filter,
    pub(super) start: start::Asked,
    pub(super) lag: LagPolicy,
}

/// What the answer to a publish needs of its message.
pub(super) struct Publisher {
    reference: Option<String>,
    shown: Box<str>,
}

impl Publisher {
    pub(super) fn new(reference: Option<String>, message: &str) -> Self {
        let shown = shown(message).into();
        Self { reference, shown }
    }

    /// The answer that says what became of the event.
    pub(super) fn answer(self, result: Result<String, Problem>) -> String {
        match result {
            Ok(result) => published(self.reference, &result),
            Err(problem) => error(self.reference, &problem, &self.shown),
        }
    }
}

/// A message that is refused.
pub(super) struct Refused {
    pub(super) reference: Option<String>,
    pub(super) problem: Box<Problem>,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `subscribe`, `unsubscribe` or `publish`"
)]
struct Wire<'a> {
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(borrow, default)]
    subscribe: Option<&'a RawValue>,
    #[serde(borrow, default)]
    unsubscribe: Option<&'a RawValue>,
    #[serde(borrow, default)]
    publish: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `sub` and `topics`")]
struct WireSubscribe<'a> {
    sub: String,
    #[serde(borrow)]
    topics: &'a RawValue,
    #[serde(default)]
    last_event_id: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    tail: Option<usize>,
    #[serde(default)]
    lag: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `sub`")]
struct WireUnsubscribe {
    sub: String,
}

/// Reads a message. `filters_max` is how many topics and patterns a subscription may have.
pub(super) fn parse(text: &str, bounds: Bounds, filters_max: usize) -> Result<Message, Refused> {
    let wire: Wire<'_> = object(text).map_err(|problem| Refused {
        reference: None,
        problem: Box::new(problem),
    })?;
    let Wire {
        reference,
        subscribe,
        unsubscribe,
        publish,
    } = wire;
    if let Some(reference) = &reference
        && let Err(problem) = check_name("ref", reference)
    {
        return Err(Refused {
            reference: None,
            problem: Box::new(problem),
        });
    }
    let asked = match (subscribe, unsubscribe, publish) {
        (Some(wanted), None, None) => read_subscribe(wanted.get(), filters_max),
        (None, Some(unwanted), None) => {
            object(unwanted.get()).map(|WireUnsubscribe { sub }| Asked::Unsubscribe(sub))
        }
        (None, None, Some(event)) => read_publish(event.get(), bounds),
        _ => Err(wrong(
            "a message has exactly one of `subscribe`, `unsubscribe` and `publish`",
        )),
    };
    match asked {
        Ok(asked) => Ok(Message { reference, asked }),
        Err(problem) => Err(Refused {
            reference,
            problem: Box::new(problem),
        }),
    }
}

/// A JSON object of a known shape. (serde would take an array for one, too.)
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    let read = serde_json::from_str::<T>(text).map_err(|error| match error.is_data() {
        true => wrong(error.to_string()),
        false => json_problem(&JsonError::syntax(&error)),
    })?;
    match text.trim_start().starts_with('{') {
        true => Ok(read),
        false => Err(wrong("an array stands where an object has to be")),
    }
}

fn read_publish(text: &str, bounds: Bounds) -> Result<Asked, Problem> {
    json::parse_event(text, bounds)
        .map(Asked::Publish)
        .map_err(|error| json_problem(&error))
}

fn read_subscribe(text: &str, filters_max: usize) -> Result<Asked, Problem> {
    let wire: WireSubscribe<'_> = object(text)?;
    check_name("sub", &wire.sub)?;
    let take = |topic: Cow<'_, str>| Ok::<_, Infallible>(topic.into_owned());
    let topics: Vec<String> =
        json::array(wire.topics.get(), filters_max, take).map_err(|error| {
            wrong(format!(
                "`topics` takes an array of 1 to {filters_max} strings: {error}"
            ))
        })?;
    let none = "`topics` is empty, so nothing to subscribe to";
    let filter = subscribe::filter(filters_max, &topics, none)?;
    let start = start::asked(wire.last_event_id, wire.since, wire.tail)?;
    let lag = match wire.lag.as_deref() {
        None => LagPolicy::default(),
        Some(name) => LagPolicy::parse(name).ok_or_else(|| {
            let name = problem::quoted(name);
            let detail = format!("`lag` takes {}, not {name}", LagPolicy::NAMES);
            Problem::new(&problem::PARAMETER, detail)
        })?,
    };
    Ok(Asked::Subscribe(Box::new(Subscribe {
        sub: wire.sub,
        filter,
        start: start.unwrap_or((Begin::Live, String::new())),
        lag,
    })))
}

fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        _ => Err(wrong(format!(
            "`{field}` takes 1 to {NAME_BYTES_MAX} bytes"
        ))),
    }
}

/// A message that is JSON, but none that the hub knows.
pub(super) fn wrong(detail: impl Into<String>) -> Problem {
    let mut detail: String = detail.into();
    if let Some((end, _)) = detail.char_indices().nth(300) {
        detail.truncate(end);
        detail.push('…');
    }
    Problem::new(&problem::MESSAGE, detail)
}

/// Enough of a message to know it again.
fn shown(text: &str) -> &str {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// `{"ref","error","message"}`: a problem, and the beginning of the message that it is about.
pub(super) fn error(reference: Option<String>, problem: &Problem, message: &str) -> String {
    let mut object = Map::new();
    if let Some(reference) = reference {
        object.insert("ref".to_owned(), reference.into());
    }
    object.insert("error".to_owned(), problem.to_json());
    object.insert("message".to_owned(), shown(message).into());
    Value::Object(object).to_string()
}

/// `{"ref","published":{"id","topic","duplicate"}}`. `result` is the object.
fn published(reference: Option<String>, result: &str) -> String {
    match reference {
        Some(reference) => {
            format!(
                "{{\"ref\":{},\"published\":{result}}}",
                Value::from(reference)
            )
        }
        None => format!("{{\"published\":{result}}}"),
    }
}

/// `{"sub","subscribed"}`, `{"sub","gap"}` or `{"sub","closed"}`.
pub(super) fn told(sub: &str, what: &str, data: &Value) -> String {
    json!({ "sub": sub, what: data }).to_string()
}

/// What a subscription that ends is told: `{"reason"}`, and `retry` in milliseconds if it may come back.
pub(super) fn closed(reason: CloseReason, after: Option<Duration>) -> Value {
    match after {
        None => json!({ "reason": reason.as_str() }),
        Some(after) => {
            let retry_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            json!({ "reason": reason.as_str(), "retry": retry_ms })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        event_bytes_max: 100,
        batch_events_max: 3,
        batch_bytes_max: 1_000,
    };

    fn refused(text: &str) -> (Option<String>, String) {
        let refused = parse(text, BOUNDS, 3)
            .err()
            .unwrap_or_else(|| panic!("{text} was taken"));
        let problem = refused.problem.to_json();
        let kind = problem["type"].as_str().unwrap().to_owned();
        (
            refused.reference,
            kind.replace("/problems/", "") + ": " + problem["detail"].as_str().unwrap(),
        )
    }

    #[test]
    fn messages_are_read() {
        let text =
            r#"{"subscribe":{"sub":"ä","topics":["x","y/*"],"since":"earliest","lag":"latest"}}"#;
        let Asked::Subscribe(asked) = parse(text, BOUNDS, 3).ok().unwrap().asked else {
            panic!("no subscription");
        };
        assert_eq!((asked.sub.as_str(), asked.lag), ("ä", LagPolicy::Latest));
        assert!(matches!(asked.start.0, Begin::Log(_)));
        let text = r#"{"ref":"1","publish":{"topic":"x","data":{"a": 1}}}"#;
        let message = parse(text, BOUNDS, 3).ok().unwrap();
        assert_eq!(message.reference.as_deref(), Some("1"));
        assert!(matches!(message.asked, Asked::Publish(draft) if draft.data == r#"{"a":1}"#));
        let text = r#"{"unsubscribe":{"sub":"x"},"ref":null}"#;
        let message = parse(text, BOUNDS, 3).ok().unwrap();
        assert!(matches!(message.asked, Asked::Unsubscribe(sub) if sub == "x"));
    }

    #[test]
    fn what_is_none_is_refused_in_words() {
        for (text, expected) in [
            ("", "json-invalid: not JSON"),
            ("{", "json-invalid: not JSON"),
            ("hello", "json-invalid: not JSON"),
            ("{}", "message-invalid: a message has exactly one"),
            ("[]", "message-invalid: an array stands"),
            (
                r#"[null,null,{"sub":"a"}]"#,
                "message-invalid: an array stands",
            ),
            (
                r#"{"unsubscribe":["a"]}"#,
                "message-invalid: an array stands",
            ),
            (
                r#"{"subscribe":["a",["x"]]}"#,
                "message-invalid: an array stands",
            ),
            (
                r#"{"publish":["a","x"]}"#,
                "event-invalid: invalid type: sequence, expected an object",
            ),
            ("1", "message-invalid: invalid type"),
            (
                r#"{"subscribe":{"sub":"a","topics":["x"]},"publish":{}}"#,
                "message-invalid: a message has exactly one",
            ),
            (
                r#"{"sub":"a"}"#,
                "message-invalid: unknown field `sub`, expected one of",
            ),
            (r#"{"ping":{}}"#, "message-invalid: unknown field `ping`"),
            (
                r#"{"ref":1,"publish":{}}"#,
                "message-invalid: invalid type: integer `1`",
            ),
            (
                r#"{"ref":"","publish":{}}"#,
                "message-invalid: `ref` takes 1 to 64 bytes",
            ),
            (
                r#"{"subscribe":{"topics":["x"]}}"#,
                "message-invalid: missing field `sub`",
            ),
            (
                r#"{"subscribe":{"sub":"","topics":["x"]}}"#,
                "message-invalid: `sub` takes 1 to 64 bytes",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":[]}}"#,
                "filter-invalid: `topics` is empty",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":"x"}}"#,
                "message-invalid: `topics` takes an array of 1 to 3",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["1","2","3","4"]}}"#,
                "message-invalid: `topics` takes an array of 1 to 3",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":[1]}}"#,
                "message-invalid: `topics` takes an array",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["a/**/b"]}}"#,
                "filter-invalid: \"a/**/b\"",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["x"],"tail":-1}}"#,
                "message-invalid: invalid value: integer `-1`",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["x"],"tail":100001}}"#,
                "parameter-invalid: `tail`",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["x"],"since":"soon"}}"#,
                "parameter-invalid: `since`",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["x"],"lag":"wait"}}"#,
                "parameter-invalid: `lag` takes",
            ),
            (
                r#"{"subscribe":{"sub":"a","topics":["x"],"frame":"data"}}"#,
                "message-invalid: unknown field `frame`",
            ),
            (
                r#"{"unsubscribe":"a"}"#,
                "message-invalid: invalid type: string",
            ),
            (r#"{"publish":[]}"#, "event-invalid: "),
            (
                r#"{"publish":{"topic":"a/**","data":1}}"#,
                "event-invalid: ",
            ),
            (
                r#"{"publish":{"topic":"a"}}"#,
                "event-invalid: missing field `data`",
            ),
        ] {
            let (_, told) = refused(text);
            assert!(told.starts_with(expected), "{text}: {told}");
        }
        let (reference, told) = refused(r#"{"ref":"7","publish":{"topic":"a","data":1,"dat":2}}"#);
        assert_eq!(reference.as_deref(), Some("7"));
        assert!(
            told.starts_with("event-invalid: unknown field `dat`"),
            "{told}"
        );
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(5_000));
        assert!(refused(&long).1.len() < 1_000);
    }

    #[test]
    fn an_error_repeats_no_more_than_is_needed() {
        let long = "ä".repeat(1_000);
        let told: Value =
            serde_json::from_str(&error(Some("\"".to_owned()), &wrong("x"), &long)).unwrap();
        assert_eq!(told["ref"], "\"");
        assert_eq!(
            told["message"].as_str().unwrap().chars().count(),
            SHOWN_CHARS
        );
    }
}
