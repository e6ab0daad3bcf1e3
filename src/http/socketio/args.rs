//! What clients ask for, out of JSON or out of the query of a handshake. Knows the words, and does nothing.

use super::{
    super::{
        App,
        problem::{self, Problem},
        query::Query,
        start, subscribe,
    },
    session::AUTH,
};
use crate::{
    fanout::{Begin, LagPolicy},
    topic::Filter,
};
use axum::http::HeaderMap;
use serde_json::{Map, Value, value::RawValue};
use socketioxide::{
    ProtocolVersion, adapter::LocalAdapter, handler::FromConnectParts, socket::Socket,
};
use std::{convert::Infallible, sync::Arc};

/// The options of a subscription, beside where it starts.
const OPTIONS: [&str; 2] = ["sub", "lag"];

/// What the query of a handshake has beside what a subscription takes.
const HANDSHAKE: [&str; 6] = ["EIO", "transport", "sid", "t", "b64", "topics"];

/// A subscription that is asked for.
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) begin: Begin,
    pub(super) requested: String,
    pub(super) lag: LagPolicy,
    /// What its client calls it, if it says so.
    pub(super) name: Option<String>,
}

impl Asked {
    /// What the first arguments of `subscribe` say: topics, and options that may be missing.
    pub(super) fn of(
        app: &App,
        topics: Option<&RawValue>,
        options: Option<&RawValue>,
    ) -> Result<Self, Problem> {
        let json = |argument: Option<&RawValue>| match argument {
            Some(argument) => value(argument.get(), "an argument"),
            None => Ok(Value::Null),
        };
        let topics = json(topics)?;
        let mut query = query(json(options)?, "the options take")?;
        let name = query.take("sub")?;
        Self::with(app, &texts(topics)?, query, &OPTIONS, name)
    }

    fn with(
        app: &App,
        topics: &[String],
        mut query: Query,
        known: &[&str],
        name: Option<String>,
    ) -> Result<Self, Problem> {
        let none = "there are no topics, so nothing to subscribe to";
        let filter = subscribe::filter(app.filters_max, topics, none)?;
        let start = start::of_request(&HeaderMap::new(), &mut query)?;
        let lag = query.take_as("lag", LagPolicy::NAMES, LagPolicy::parse)?;
        query.finish(&[known, &start::PARAMETERS].concat())?;
        let (begin, requested) = start.unwrap_or((Begin::Live, String::new()));
        Ok(Self {
            filter,
            begin,
            requested,
            lag: lag.unwrap_or_default(),
            name,
        })
    }
}

/// What a client that only listens says when it connects: `auth`, or the query of its handshake where its protocol has no
/// `auth`.
pub(super) enum Listening {
    Auth(Option<String>),
    Query(Option<String>),
}

impl FromConnectParts<LocalAdapter> for Listening {
    type Error = Infallible;

    fn from_connect_parts(
        socket: &Arc<Socket>,
        auth: &Option<socketioxide::handler::Value>,
    ) -> Result<Self, Infallible> {
        Ok(match socket.protocol() {
            ProtocolVersion::V4 => Self::Query(socket.req_parts().uri.query().map(str::to_owned)),
            ProtocolVersion::V5 => {
                let text = auth.as_ref().and_then(|auth| auth.as_str());
                Self::Auth(text.map(|text| text.to_string()))
            }
        })
    }
}

impl Listening {
    /// The subscription that it asks for, if it names topics.
    pub(super) fn asked(&self, app: &App) -> Result<Option<Asked>, Problem> {
        let (topics, query, known): (_, _, &[&str]) = match self {
            Self::Auth(None) => return Ok(None),
            Self::Auth(Some(text)) => {
                let mut auth = value(text, "`auth`")?;
                let topics = auth
                    .as_object_mut()
                    .and_then(|auth| auth.shift_remove("topics"));
                (
                    topics.map(texts).transpose()?,
                    query(auth, "`auth` takes")?,
                    &["topics", "lag"],
                )
            }
            Self::Query(text) => {
                let mut query = Query::parse(text.as_deref());
                let topics = query.take_all("topics")?;
                for name in HANDSHAKE {
                    query.take_all(name)?;
                }
                let topics: Vec<String> = topics.into_iter().flat_map(listed).collect();
                (
                    (!topics.is_empty()).then_some(topics),
                    query,
                    &["topics", "lag"],
                )
            }
        };
        match topics {
            Some(topics) => {
                Asked::with(app, &topics, query, known, Some(AUTH.to_owned())).map(Some)
            }
            None => query.finish(known).map(|()| None),
        }
    }
}

/// The texts of a query's value: an array of them in JSON, or itself.
fn listed(text: String) -> Vec<String> {
    serde_json::from_str(&text).unwrap_or_else(|_| vec![text])
}

/// What a client sent as JSON, which nobody has looked at before.
fn value(text: &str, whose: &str) -> Result<Value, Problem> {
    let wrong = |_| {
        let detail = format!("{whose} is not JSON, or nested too deeply");
        Problem::new(&problem::PARAMETER, detail)
    };
    serde_json::from_str(text).map_err(wrong)
}

/// A topic or pattern, or an array of them.
fn texts(topics: Value) -> Result<Vec<String>, Problem> {
    let wrong = || {
        let detail = "`topics` takes a topic or pattern, or an array of them";
        Problem::new(&problem::PARAMETER, detail)
    };
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong()),
    };
    match topics {
        Value::Null => Ok(Vec::new()),
        Value::Array(all) => all.into_iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

/// An object as the parameters of a URL, for which there are words already. Null is nothing.
fn query(object: Value, whose: &str) -> Result<Query, Problem> {
    let wrong = |detail: String| Problem::new(&problem::PARAMETER, detail);
    let object: Map<String, Value> = match object {
        Value::Null => Map::new(),
        Value::Object(object) => object,
        _ => return Err(wrong(format!("{whose} an object"))),
    };
    let mut pairs = Vec::new();
    for (name, value) in object {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                let name = problem::quoted(&name);
                return Err(wrong(format!("{name} takes a text or a number")));
            }
        };
        pairs.push((name, text));
    }
    Ok(Query::of(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn topics_are_one_or_several() {
        assert_eq!(texts(json!("a")).unwrap(), ["a"]);
        assert_eq!(texts(json!(["a", "b/*"])).unwrap(), ["a", "b/*"]);
        assert!(texts(Value::Null).unwrap().is_empty());
        for wrong in [json!(1), json!({}), json!(["a", 1]), json!([["a"]])] {
            assert!(texts(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(listed("a,b".to_owned()), ["a,b"]);
        assert_eq!(listed(r#"["a,b","c"]"#.to_owned()), ["a,b", "c"]);
        assert_eq!(listed("[a".to_owned()), ["[a"]);
    }

    #[test]
    fn options_are_parameters() {
        let mut taken = query(
            json!({"sub": "x", "tail": 5, "since": null}),
            "the options take",
        )
        .unwrap();
        assert_eq!(taken.take("sub").unwrap().as_deref(), Some("x"));
        assert_eq!(taken.take("tail").unwrap().as_deref(), Some("5"));
        assert!(taken.finish(&[]).is_ok());
        for wrong in [
            json!([]),
            json!("x"),
            json!({"sub": {}}),
            json!({"tail": true}),
        ] {
            assert!(query(wrong.clone(), "the options take").is_err(), "{wrong}");
        }
    }
}
