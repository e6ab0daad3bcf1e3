//! A value as a source gave it, before anybody knows what it should be; with its line, if it has one.

use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Line in the file, from 1.
    pub(super) line: Option<usize>,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Text in quotes.
    Text(String),
    /// Text of an environment variable or a flag: no quotes say what it is.
    Bare(String),
    Integer(i128),
    List(Vec<Node>),
    /// Keys with the line of each, in the order of the source.
    Table(Vec<(String, Option<usize>, Node)>),
    /// Never a valid value of any knob: what it is, in words.
    Other(&'static str),
}

impl Node {
    /// Text that a variable or a flag gave.
    pub(super) fn bare(text: &str) -> Self {
        Self {
            line: None,
            value: Value::Bare(text.to_owned()),
        }
    }

    /// The elements of a list. A bare text is an array in TOML or JSON, or parts with commas between.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        match &self.value {
            Value::List(nodes) => Some(nodes.clone()),
            Value::Bare(text) if text.trim().is_empty() => Some(Vec::new()),
            Value::Bare(text) if text.trim_start().starts_with('[') => bare_array(text.trim()),
            Value::Bare(text) => Some(
                text.split(',')
                    .map(|part| Self::bare(part.trim()))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// A text, in quotes or bare.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Bare(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number from 0, also a bare one.
    pub(super) fn number(&self) -> Option<u64> {
        match &self.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Bare(text) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                text.replace('_', "").parse().ok()
            }
            _ => None,
        }
    }

    /// What it is, for a person who expected something else.
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Text(text) | Value::Bare(text) => format!("{text:?}"),
            Value::Integer(number) => format!("the number {number}"),
            Value::List(_) => "an array".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(what) => (*what).to_owned(),
        }
    }
}

fn bare_array(text: &str) -> Option<Vec<Node>> {
    let node = match DeValue::parse(text) {
        Ok(value) => from_toml(value.get_ref(), &|_| None, 0),
        Err(_) => from_json(serde_json::from_str(text).ok()?),
    };
    match node.value {
        Value::List(nodes) => Some(nodes),
        _ => None,
    }
}

/// The tree of a TOML table; `line` tells the line of a byte.
pub(super) fn from_table(
    table: &DeTable<'_>,
    line: &dyn Fn(usize) -> Option<usize>,
) -> Vec<(String, Option<usize>, Node)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| {
            let node = from_toml(value.get_ref(), line, value.span().start);
            (key.get_ref().to_string(), line(key.span().start), node)
        })
        .collect()
}

fn from_toml(value: &DeValue<'_>, line: &dyn Fn(usize) -> Option<usize>, at: usize) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number out of range"), Value::Integer),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(true) => Value::Other("true"),
        DeValue::Boolean(false) => Value::Other("false"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(array) => Value::List(
            array
                .iter()
                .map(|item| from_toml(item.get_ref(), line, item.span().start))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(from_table(table, line)),
    };
    Node {
        line: line(at),
        value,
    }
}

fn from_json(value: serde_json::Value) -> Node {
    let value = match value {
        serde_json::Value::Null => Value::Other("null"),
        serde_json::Value::Bool(true) => Value::Other("true"),
        serde_json::Value::Bool(false) => Value::Other("false"),
        serde_json::Value::Number(number) => match number.as_i128() {
            Some(number) => Value::Integer(number),
            None => Value::Other("a number with a fraction"),
        },
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => Value::Table(
            entries
                .into_iter()
                .map(|(key, value)| (key, None, from_json(value)))
                .collect(),
        ),
    };
    Node { line: None, value }
}
