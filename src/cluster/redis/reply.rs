//! What Redis answers, taken apart without copying the entries.

use super::fault;
use crate::cluster::journal::Fault;
use bytes::Bytes;
use redis::Value;

/// An entry of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Id,
    /// The field `e`; empty where there is none.
    pub(super) bytes: Bytes,
}

/// The id of a stream's entry. Ours have `part` 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) position: u64,
    pub(super) part: u64,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.position, self.part)
    }
}

/// The value, unless it is an error.
pub(super) fn sound(value: Value) -> Result<Value, Fault> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// The items of an array; none of a nil.
pub(super) fn items(value: Value) -> Result<Vec<Value>, Fault> {
    match sound(value)? {
        Value::Array(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(&other)),
    }
}

/// Whether `ROLE` says that the node is a master.
pub(super) fn is_master(role: Value) -> Result<bool, Fault> {
    let role = items(role)?.into_iter().next().unwrap_or(Value::Nil);
    Ok(text(role)?.as_deref() == Some("master"))
}

/// A text, or a number as text; `None` of a nil.
pub(super) fn text(value: Value) -> Result<Option<String>, Fault> {
    match sound(value)? {
        Value::Nil => Ok(None),
        Value::Int(number) => Ok(Some(number.to_string())),
        Value::SimpleString(text) => Ok(Some(text)),
        Value::BulkString(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Fault("an answer is not UTF-8".to_owned())),
        },
        other => Err(unexpected(&other)),
    }
}

/// A number; `None` of a nil.
pub(super) fn number(value: Value) -> Result<Option<u64>, Fault> {
    match text(value)? {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Fault("an answer is not a number".to_owned())),
        },
    }
}

/// Entries, as `XRANGE` gives them.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, Fault> {
    items(value)?.into_iter().map(entry).collect()
}

/// The entries of each of two streams, as `XREAD` gives them: it leaves out one that has none.
pub(super) fn streams(value: Value, names: [&str; 2]) -> Result<[Vec<Entry>; 2], Fault> {
    let mut read = [Vec::new(), Vec::new()];
    for stream in items(value)? {
        let [name, found] = array(stream)?;
        let name = text(name)?;
        for (entries_of, read) in names.iter().zip(&mut read) {
            if name.as_deref() == Some(entries_of) {
                *read = entries(found)?;
                break;
            }
        }
    }
    Ok(read)
}

fn entry(value: Value) -> Result<Entry, Fault> {
    let [name, fields] = array(value)?;
    let mut fields = items(fields)?.into_iter();
    let mut bytes = Bytes::new();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        if let (Value::BulkString(field), Value::BulkString(value)) = (field, value)
            && field == b"e"
        {
            bytes = value.into();
            break;
        }
    }
    Ok(Entry {
        id: id(name)?,
        bytes,
    })
}

fn id(value: Value) -> Result<Id, Fault> {
    let text = text(value)?.unwrap_or_default();
    text.split_once('-')
        .and_then(|(position, part)| {
            Some(Id {
                position: position.parse().ok()?,
                part: part.parse().ok()?,
            })
        })
        .ok_or_else(|| Fault("an answer is not an id".to_owned()))
}

/// The id of an entry; `None` of a nil.
pub(super) fn maybe_id(value: Value) -> Result<Option<Id>, Fault> {
    match value {
        Value::Nil => Ok(None),
        value => id(value).map(Some),
    }
}

/// An array of so many.
pub(super) fn array<const N: usize>(value: Value) -> Result<[Value; N], Fault> {
    items(value)?
        .try_into()
        .map_err(|_| Fault("an answer has another length than expected".to_owned()))
}

fn unexpected(value: &Value) -> Fault {
    let kind = match value {
        Value::Array(_) => "a list",
        Value::Int(_) => "a number",
        Value::Okay | Value::SimpleString(_) | Value::BulkString(_) => "a text",
        Value::ServerError(error) => return Fault(fault::server_text(error)),
        _ => "something",
    };
    Fault(format!("{kind} as an answer where none is expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn stored(id: &str, fields: &[&str]) -> Value {
        let fields = fields.iter().map(|field| bulk(field)).collect();
        Value::Array(vec![bulk(id), Value::Array(fields)])
    }

    fn found(position: u64, part: u64, bytes: &'static str) -> Entry {
        Entry {
            id: Id { position, part },
            bytes: Bytes::from_static(bytes.as_bytes()),
        }
    }

    #[test]
    fn entries_of_both_streams_are_told_apart() {
        let ours = Value::Array(vec![
            bulk("journal"),
            Value::Array(vec![
                stored("7-0", &["e", "one", "t", "5", "b", "3"]),
                stored("9-0", &["t", "5", "e", "two"]),
                stored("9-1", &["foreign", "field"]),
            ]),
        ]);
        let nodes = Value::Array(vec![
            bulk("nodes"),
            Value::Array(vec![stored("1700-3", &["e", "hello"])]),
        ]);
        let names = ["journal", "nodes"];
        assert_eq!(
            streams(Value::Array(vec![ours, nodes.clone()]), names).unwrap(),
            [
                vec![found(7, 0, "one"), found(9, 0, "two"), found(9, 1, "")],
                vec![found(1700, 3, "hello")]
            ]
        );
        let [none, one] = streams(Value::Array(vec![nodes]), names).unwrap();
        assert_eq!((none.len(), one.len()), (0, 1));
        assert_eq!(streams(Value::Nil, names).unwrap(), [vec![], vec![]]);
    }

    #[test]
    fn what_is_not_as_expected_is_a_fault() {
        for value in [
            Value::Int(1),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![stored("7", &[])]),
            Value::Array(vec![stored("7-x", &[])]),
            Value::Array(vec![Value::Array(vec![bulk("7-0")])]),
        ] {
            assert!(entries(value.clone()).is_err(), "{value:?}");
        }
    }
}
