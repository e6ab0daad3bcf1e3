//! Events as JSON objects: `{"topic","data","event","own_id","retry","idempotency_key"}`.

use super::Bounds;
use crate::{
    event::{Draft, EventName, FieldError, IdempotencyKey, OwnId, check_retry},
    topic::{Topic, TopicError},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};
use std::borrow::Cow;

/// Why JSON did not become drafts.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// JSON, but not an event: a field too many, missing, or of the wrong type.
    #[error("not an event: {0}")]
    Shape(String),
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `topic` and `data`")]
struct Wire<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    own_id: Option<Cow<'a, str>>,
    #[serde(default)]
    retry: Option<u64>,
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
}

/// What stands in a body: one object, or an array of them.
pub enum Parsed {
    /// An object.
    One(Draft),
    /// An array, possibly empty.
    Many(Vec<Draft>),
}

/// Reads one object or an array of them.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn parse(body: &[u8], bounds: Bounds) -> Result<Parsed, Refused> {
    let text = std::str::from_utf8(body).map_err(|_| JsonError::NotUtf8)?;
    if !text
        .trim_start_matches([' ', '\t', '\n', '\r'])
        .starts_with('[')
    {
        return Ok(Parsed::One(parse_event(text, bounds)?));
    }
    // Twice over the text: only the first reading knows the line and column in the whole body.
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| json_error(&error))?;
    if items.len() > bounds.batch_events_max {
        return Err(JsonError::TooMany(bounds.batch_events_max).into());
    }
    let draft = |(index, item): (usize, &&RawValue)| {
        parse_event(item.get(), bounds).map_err(|error| Refused {
            index: Some(index),
            error,
        })
    };
    Ok(Parsed::Many(
        items
            .iter()
            .enumerate()
            .map(draft)
            .collect::<Result<_, _>>()?,
    ))
}

/// Reads one event from the text of a JSON object.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn parse_event(text: &str, bounds: Bounds) -> Result<Draft, JsonError> {
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| json_error(&error))?;
    let topic = Topic::parse(&wire.topic)?;
    let data = data_of(wire.data)?;
    if data.len() > bounds.event_bytes_max {
        return Err(JsonError::TooLarge(bounds.event_bytes_max));
    }
    let field = |name| move |error| JsonError::Field(name, error);
    Ok(Draft {
        topic,
        event: wire
            .event
            .map(|text| EventName::parse(&text))
            .transpose()
            .map_err(field("event"))?,
        own_id: wire
            .own_id
            .map(|text| OwnId::parse(&text))
            .transpose()
            .map_err(field("own_id"))?,
        retry_ms: wire
            .retry
            .map(check_retry)
            .transpose()
            .map_err(field("retry"))?,
        key: wire
            .idempotency_key
            .map(|text| IdempotencyKey::parse(&text))
            .transpose()
            .map_err(field("idempotency_key"))?,
        data,
    })
}

fn json_error(error: &serde_json::Error) -> JsonError {
    match error.classify() {
        Category::Data => JsonError::Shape(error.to_string()),
        Category::Io | Category::Syntax | Category::Eof => JsonError::Syntax(error.to_string()),
    }
}

/// A string as it is, any other value as compact JSON.
fn data_of(value: &RawValue) -> Result<Bytes, JsonError> {
    let text = value.get();
    if text == "null" {
        return Err(JsonError::Shape(
            "`data` is null; a string may be empty".to_owned(),
        ));
    }
    if text.starts_with('"') {
        let text: String = serde_json::from_str(text).map_err(|error| json_error(&error))?;
        return Ok(Bytes::from(text.into_bytes().into_boxed_slice()));
    }
    Ok(compact(text.as_bytes()))
}

/// Valid JSON without the space between its tokens. Numbers and strings stay as they were written.
fn compact(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for &b in text {
        if in_string {
            in_string = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
        } else if matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = b == b'"';
        }
        out.push(b);
    }
    Bytes::from(out.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        event_bytes_max: 100,
        batch_events_max: 3,
        batch_bytes_max: 1_000,
    };

    fn data(text: &str) -> String {
        let draft = parse_event(&format!(r#"{{"topic":"t","data":{text}}}"#), BOUNDS).unwrap();
        String::from_utf8(draft.data.to_vec()).unwrap()
    }

    #[test]
    fn data_is_a_string_or_compact_json() {
        assert_eq!(data(r#""a\nb \"c\" \u00e9""#), "a\nb \"c\" é");
        assert_eq!(
            data(r#"{ "b" : [ 1.0, 1e2 , "x \" y" ],  "a":true }"#),
            r#"{"b":[1.0,1e2,"x \" y"],"a":true}"#
        );
        assert_eq!(data(r#"["\\", " \\\" "]"#), r#"["\\"," \\\" "]"#);
        assert_eq!(data("false"), "false");
        assert_eq!(data(r#""""#), "");
    }

    #[test]
    fn errors_name_the_place() {
        let Err(Refused {
            index: None,
            error: JsonError::Syntax(text),
        }) = parse(b"[{\"topic\":\n oops}]", BOUNDS)
        else {
            panic!("not a syntax error")
        };
        assert!(text.contains("line 2 column 2"), "{text}");
        let Err(Refused {
            index: Some(1),
            error: JsonError::Shape(text),
        }) = parse(br#"[{"topic":"t","data":1},{"topic":"t","dat":1}]"#, BOUNDS)
        else {
            panic!("not a shape error")
        };
        assert!(text.contains("`dat`"), "{text}");
    }
}
