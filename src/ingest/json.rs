//! Events as JSON objects: `{"topic","data","event","own_id","retry","idempotency_key"}`.

use super::Bounds;
pub use super::json_error::{JsonError, Place, Refused};
use crate::{
    event::{Draft, EventName, IdempotencyKey, OwnId, check_retry},
    topic::Topic,
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, marker::PhantomData};

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

/// What is written as a JSON object. (For a struct serde takes an array, too: its fields in their order.)
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `topic` and `data`")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
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
    if let Ok(drafts) = array(text, bounds.batch_events_max, |Object(wire)| {
        draft_of(wire, bounds)
    }) {
        return Ok(Parsed::Many(drafts));
    }
    // Something is wrong. Twice over the text: only the first reading tells where in the body the JSON ends to be any.
    let items = items(text, bounds.batch_events_max)?;
    let draft = |(index, item): (usize, &&RawValue)| {
        parse_event(item.get(), bounds).map_err(|error| Refused {
            index: Some(index),
            error: error.moved(Place::of(item.get(), text)),
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

/// The items of an array, as text.
fn items(text: &str, count_max: usize) -> Result<Vec<&RawValue>, JsonError> {
    array(text, count_max, Ok::<_, JsonError>).map_err(|error| match error.is_data() {
        true => JsonError::TooMany(count_max),
        false => JsonError::syntax(&error),
    })
}

/// Takes the items of an array. One that is too long is not read to its end, which could take many times its size.
///
/// # Errors
///
/// It is no array of that, `take` refuses an item, or it has more than `count_max`.
pub(crate) fn array<'de, T: Deserialize<'de>, U, E: fmt::Display>(
    text: &'de str,
    count_max: usize,
    take: impl FnMut(T) -> Result<U, E>,
) -> Result<Vec<U>, serde_json::Error> {
    struct Items<T, F>(usize, F, PhantomData<T>);

    impl<'de, T: Deserialize<'de>, U, E: fmt::Display, F: FnMut(T) -> Result<U, E>> Visitor<'de>
        for Items<T, F>
    {
        type Value = Vec<U>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == self.0 {
                    return Err(A::Error::custom("too many"));
                }
                items.push((self.1)(item).map_err(A::Error::custom)?);
            }
            Ok(items)
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    let items = json.deserialize_seq(Items(count_max, take, PhantomData))?;
    json.end().map(|()| items)
}

/// Reads one event from the text of a JSON object.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn parse_event(text: &str, bounds: Bounds) -> Result<Draft, JsonError> {
    let Object(wire): Object<Wire<'_>> =
        serde_json::from_str(text).map_err(|error| JsonError::of_event(&error, text))?;
    let data = wire.data.get();
    draft_of(wire, bounds).map_err(|error| error.moved(Place::of(data, text)))
}

/// An error's place is within the data.
fn draft_of(wire: Wire<'_>, bounds: Bounds) -> Result<Draft, JsonError> {
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

/// A string as it is, any other value as compact JSON.
fn data_of(value: &RawValue) -> Result<Bytes, JsonError> {
    let text = value.get();
    if text == "null" {
        return Err(JsonError::Shape {
            what: "`data` is null; a string may be empty".to_owned(),
            at: Place::default(),
        });
    }
    if let Some(string) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    {
        if memchr::memchr(b'\\', string.as_bytes()).is_none() {
            // Nothing in it stands for something else.
            return Ok(Bytes::copy_from_slice(string.as_bytes()));
        }
        let text: String = serde_json::from_str(text).map_err(|error| JsonError::syntax(&error))?;
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
        let error = |body: &str| {
            let Refused { index, error } = parse(body.as_bytes(), BOUNDS).err().unwrap();
            (index, error.to_string())
        };
        let (index, text) = error("[{\"topic\":\n oops}]");
        assert_eq!(index, None);
        assert!(text.ends_with(" at line 2 column 2"), "{text}");
        let (index, text) =
            error("[{\"topic\":\"t\",\"data\":1},\n  {\"topic\":\"t\",\n\"dat\":1}]");
        assert_eq!(index, Some(1));
        assert!(text.starts_with("unknown field `dat`"), "{text}");
        assert!(text.ends_with(" at line 3 column 5"), "{text}");
        let (index, text) = error("[\n  {\"topic\":\"t\", \"data\":\"\\ud800\"}]");
        assert_eq!(index, Some(0));
        assert!(text.starts_with("not JSON: "), "{text}");
        assert!(text.contains(" at line 2 column 31"), "{text}");
        let (index, text) = error("[{\"topic\":\"t\",\"data\":1},\n [\"t\", 1]]");
        assert_eq!(index, Some(1));
        assert!(
            text.starts_with("invalid type: sequence, expected an object"),
            "{text}"
        );
        let (index, text) = error("[1,1,1,1,");
        assert_eq!(index, None);
        assert_eq!(
            text,
            "the array has more than 3 events, the most it may have"
        );
    }
}
