//! What a client asks for: `subscribe`, `unsubscribe`, `publish`, out of a packet. Does nothing.

use super::{
    super::{
        App,
        outcome::json_problem,
        problem::{self, Problem, quoted},
    },
    args::Asked,
};
use crate::{event::Draft, ingest::json::parse_event};
use serde_json::value::RawValue;
use socketioxide::handler::Value;

/// A request of a client.
pub(super) enum Call {
    Subscribe(Box<Asked>),
    /// Of that name.
    Unsubscribe(String),
    Publish(Box<Draft>),
}

impl Call {
    /// The request of a packet, whose arguments are as they came.
    pub(super) fn of(app: &App, packet: &Value) -> Result<Self, Problem> {
        let wrong = |detail: &str| Problem::new(&problem::PARAMETER, detail);
        let Value::Str(text, None) = packet else {
            return Err(wrong(
                "binary arguments are not taken; send bytes as Base64",
            ));
        };
        let arguments: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|_| wrong("the arguments are not JSON"))?;
        let name = arguments.first().map_or("", |name| name.get());
        let name: String = serde_json::from_str(name).unwrap_or_default();
        let arguments = &arguments[1.min(arguments.len())..];
        let most = match name.as_str() {
            "subscribe" => 2,
            "unsubscribe" | "publish" => 1,
            _ => {
                let detail = format!(
                    "there is no event {} here; there are: subscribe, unsubscribe, publish",
                    quoted(&name)
                );
                return Err(Problem::new(&problem::NOT_FOUND, detail));
            }
        };
        if arguments.len() > most {
            return Err(wrong(&format!(
                "`{name}` takes {most} arguments at most, and a callback"
            )));
        }
        let argument = |index: usize| arguments.get(index).copied();
        match name.as_str() {
            "subscribe" => {
                let asked = Asked::of(app, argument(0), argument(1))?;
                Ok(Self::Subscribe(Box::new(asked)))
            }
            "unsubscribe" => {
                let name = argument(0).and_then(|name| serde_json::from_str(name.get()).ok());
                let none = || wrong("`unsubscribe` takes the name of a subscription");
                Ok(Self::Unsubscribe(name.ok_or_else(none)?))
            }
            _ => {
                let event = argument(0).ok_or_else(|| wrong("`publish` takes an event"))?;
                let draft = parse_event(event.get(), app.ingest.bounds);
                let draft = draft.map_err(|error| json_problem(&error))?;
                Ok(Self::Publish(Box::new(draft)))
            }
        }
    }
}
