//! The URL of a cluster's journal, which may hold a password: so it is never shown as it is.

use super::{
    knob::{Fault, Kind, Setting, Why, quoted},
    node::Node,
};
use std::fmt;

/// Schemes of brokers.
pub(super) const SCHEMES: [&str; 8] = [
    "redis",
    "rediss",
    "redis-sentinel",
    "rediss-sentinel",
    "nats",
    "tls",
    "amqp",
    "amqps",
];

/// Where a cluster's journal is. Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalUrl(String);

impl JournalUrl {
    /// A URL; what is wrong with it beyond its scheme shows when the journal is opened.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// All of it, its secrets too.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JournalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        // All before the last @ is the user part, even where a / in a password should have been written as %2F.
        // No journal's URL has parameters: those that somebody gave it all the same may be secrets, too.
        let shown = rest.rsplit_once('@').map_or(rest, |(_, shown)| shown);
        let shown = shown.split(['?', '#']).next().unwrap_or_default();
        write!(f, "{scheme}://{shown}")
    }
}

impl fmt::Debug for JournalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Setting for JournalUrl {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let hidden = || Fault {
            line: node.line,
            below: String::new(),
            why: Why::Expected {
                what: kind.to_string(),
                found: "something else (not shown, since it may have a password)".to_owned(),
            },
        };
        let url = Self(node.text().ok_or_else(hidden)?.to_owned());
        match url.within(kind) {
            true => Ok(url),
            false => Err(hidden()),
        }
    }

    fn within(&self, _: &Kind) -> bool {
        let scheme = self.0.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| SCHEMES.contains(&scheme))
    }

    fn show(&self, _: &Kind) -> String {
        quoted(&self.to_string())
    }
}

/// Empty text is none.
impl<T: Setting> Setting for Option<T> {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        match node.text() {
            Some("") => Ok(None),
            _ => T::read(node, kind).map(Some),
        }
    }

    fn within(&self, kind: &Kind) -> bool {
        self.as_ref().is_none_or(|value| value.within(kind))
    }

    fn show(&self, kind: &Kind) -> String {
        self.as_ref()
            .map_or_else(|| "\"\"".to_owned(), |value| value.show(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_without_its_user_part() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://:s3cret@host", "redis://host"),
            ("amqp://u:p@ss@host:5672/v", "amqp://host:5672/v"),
            ("nats://t0ken@a,u:p@b:4222", "nats://b:4222"),
            ("redis://:s3/cr?e#t@host/2", "redis://host/2"),
            (
                "redis-sentinel://a,b/m?password=p",
                "redis-sentinel://a,b/m",
            ),
        ] {
            assert_eq!(JournalUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", JournalUrl::new(url)), shown);
        }
    }
}
