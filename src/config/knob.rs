//! What a knob is: its kind (type, unit, range), and how values of it are read, checked and shown. Which
//! knobs there are is [`super`]'s part, where they come from [`super::load`]'s.

use super::{
    node::Node,
    retention::RetentionRule,
    units::{parse_duration, parse_size, show_duration, show_size},
};
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// One knob of a table.
pub(super) struct Knob {
    /// Its key within the table.
    pub(super) name: &'static str,
    /// What it is for and what happens at the limit: lines of the doc comment.
    pub(super) doc: &'static [&'static str],
    pub(super) kind: Kind,
}

/// Type, unit and range. Both ends are within the range.
pub(super) enum Kind {
    Size {
        min: u64,
        max: u64,
    },
    Count {
        min: u64,
        max: u64,
    },
    Time {
        min: Duration,
        max: Duration,
    },
    Address,
    Path,
    Words(&'static [&'static str]),
    Hosts,
    Origins,
    Retention,
    /// A broker's URL.
    Journal,
    /// A name that is part of other names.
    Name,
    /// Where others reach this hub; or nothing.
    Reached,
    /// The same, or empty.
    Maybe(&'static Kind),
}

impl Kind {
    /// What it is if it is not empty.
    fn inner(&self) -> &Self {
        match self {
            Self::Maybe(kind) => kind,
            kind => kind,
        }
    }
}

/// A table of knobs: [`super::Config`] and its parts.
pub(super) trait Table {
    /// What the table is about: lines of the doc comment.
    fn about(&self) -> &'static [&'static str];
    fn knobs(&self) -> &'static [Knob];
    /// The tables within, by key.
    fn tables(&self) -> Vec<(&'static str, &dyn Table)>;
    fn tables_mut(&mut self) -> Vec<(&'static str, &mut dyn Table)>;
    /// Sets the knob of that name, if there is one, to what the node says.
    fn set(&mut self, name: &str, node: &Node) -> Result<(), Fault>;
    /// Whether the knob's value is one that a source could have given.
    fn check(&self, name: &str) -> Result<(), Fault>;
    /// The knob's value in TOML.
    fn show(&self, name: &str) -> String;
}

/// Why a value is refused.
#[derive(Debug)]
pub(super) struct Fault {
    /// Where in the file, if known better than from the knob.
    pub(super) line: Option<usize>,
    /// What below the knob, such as `[1].age_max`.
    pub(super) below: String,
    pub(super) why: Why,
}

#[derive(Debug)]
pub(super) enum Why {
    Expected { what: String, found: String },
    Unknown { nearest: Option<String> },
}

impl Fault {
    pub(super) fn expected(what: impl fmt::Display, node: &Node) -> Self {
        Self {
            line: node.line,
            below: String::new(),
            why: Why::Expected {
                what: what.to_string(),
                found: node.found(),
            },
        }
    }

    pub(super) fn below(mut self, above: &str) -> Self {
        self.below.insert_str(0, above);
        self
    }
}

/// What was expected, with unit and range.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { min, max } => {
                f.write_str("a size such as 64MiB, or a whole number of bytes")?;
                range(f, *min, *max, show_size)
            }
            Self::Count { min, max } => {
                f.write_str("a whole number")?;
                range(f, *min, *max, |number| number.to_string())
            }
            Self::Time { min, max } => {
                f.write_str("a duration such as 500ms, 15s, 10m, 24h or 7d")?;
                range(f, *min, *max, show_duration)
            }
            Self::Address => f.write_str(
                "an IP address and a port, such as 127.0.0.1:8080, [::1]:8080 or localhost:8080",
            ),
            Self::Path => f.write_str("a path"),
            Self::Words(words) => {
                for (at, word) in words.iter().enumerate() {
                    let comma = if at == 0 { "" } else { " or " };
                    write!(f, "{comma}{word:?}")?;
                }
                Ok(())
            }
            Self::Hosts => f.write_str(
                "an array of host names without scheme and port, such as [\"hub.example.com\"]",
            ),
            Self::Origins => f.write_str(
                "an array of origins as browsers write them, scheme://host or scheme://host:port \
                 in lower case, without a path and without the scheme's own port, such as \
                 [\"https://app.example.com\"]",
            ),
            Self::Journal => {
                f.write_str("a URL such as redis://127.0.0.1:6379 (schemes: ")?;
                write!(f, "{})", super::journal::SCHEMES.join(", "))
            }
            Self::Name => f.write_str("1 to 64 letters, digits, - or _"),
            Self::Reached => {
                f.write_str("a host and a port such as hub-1.example.com:8080, or nothing")
            }
            Self::Maybe(kind) => write!(f, "{kind}; or \"\""),
            Self::Retention => f.write_str(
                "an array of tables, such as [[log.retention]] with topics = \"github/**\"",
            ),
        }
    }
}

/// The largest value where none is named: what TOML and SQLite can hold.
pub(super) const ANY: u64 = i64::MAX as u64;

/// The longest duration where none is named: 100 years of 365 days.
pub(super) const LONG: Duration = Duration::from_hours(100 * 365 * 24);

fn range<T: PartialOrd + Copy + Bound>(
    f: &mut fmt::Formatter<'_>,
    min: T,
    max: T,
    show: impl Fn(T) -> String,
) -> fmt::Result {
    if max == T::UNNAMED {
        write!(f, ", at least {}", show(min))
    } else {
        write!(f, ", from {} to {}", show(min), show(max))
    }
}

trait Bound {
    const UNNAMED: Self;
}

impl Bound for u64 {
    const UNNAMED: Self = ANY;
}

impl Bound for Duration {
    const UNNAMED: Self = LONG;
}

/// A type that knobs have.
pub(super) trait Setting: Sized {
    /// Reads a value of the right type; the range is [`Setting::within`]'s part.
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault>;
    fn within(&self, kind: &Kind) -> bool;
    fn show(&self, kind: &Kind) -> String;
}

/// Reads a value that is also within its range.
pub(super) fn read<T: Setting>(node: &Node, kind: &Kind) -> Result<T, Fault> {
    let value = T::read(node, kind)?;
    if value.within(kind) {
        Ok(value)
    } else {
        Err(Fault::expected(kind, node))
    }
}

/// Checks a value that a program set.
pub(super) fn check<T: Setting>(value: &T, kind: &Kind) -> Result<(), Fault> {
    if value.within(kind) {
        return Ok(());
    }
    Err(Fault {
        line: None,
        below: String::new(),
        why: Why::Expected {
            what: kind.to_string(),
            found: value.show(kind),
        },
    })
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Setting for u64 {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let number = match kind.inner() {
            Kind::Size { .. } => node.number().or_else(|| parse_size(node.text()?)),
            _ => node.number(),
        };
        number.ok_or_else(|| Fault::expected(kind, node))
    }

    fn within(&self, kind: &Kind) -> bool {
        match kind.inner() {
            Kind::Size { min, max } | Kind::Count { min, max } => (min..=max).contains(&self),
            _ => true,
        }
    }

    fn show(&self, kind: &Kind) -> String {
        match kind.inner() {
            Kind::Size { .. } => quoted(&show_size(*self)),
            _ => self.to_string(),
        }
    }
}

impl Setting for Duration {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let duration = node.text().and_then(parse_duration);
        duration.ok_or_else(|| Fault::expected(kind, node))
    }

    fn within(&self, kind: &Kind) -> bool {
        match kind.inner() {
            Kind::Time { min, max } => (min..=max).contains(&self),
            _ => true,
        }
    }

    fn show(&self, _: &Kind) -> String {
        quoted(&show_duration(*self))
    }
}

impl Setting for SocketAddr {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let address = node
            .text()
            .and_then(|text| match text.strip_prefix("localhost:") {
                Some(port) => format!("127.0.0.1:{port}").parse().ok(),
                None => text.parse().ok(),
            });
        address.ok_or_else(|| Fault::expected(kind, node))
    }

    fn within(&self, _: &Kind) -> bool {
        true
    }

    fn show(&self, _: &Kind) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for PathBuf {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let text = node.text().ok_or_else(|| Fault::expected(kind, node))?;
        Ok(text.into())
    }

    fn within(&self, _: &Kind) -> bool {
        !self.as_os_str().is_empty()
    }

    fn show(&self, _: &Kind) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for String {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let text = node.text().ok_or_else(|| Fault::expected(kind, node))?;
        Ok(text.to_owned())
    }

    fn within(&self, kind: &Kind) -> bool {
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        match kind {
            Kind::Name => (1..=64).contains(&self.len()) && self.bytes().all(name),
            _ => self.bytes().all(|b| b.is_ascii_graphic()),
        }
    }

    fn show(&self, _: &Kind) -> String {
        quoted(self)
    }
}

impl Setting for Vec<String> {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let nodes = node.list().ok_or_else(|| Fault::expected(kind, node))?;
        let texts = nodes.iter().map(|item| match item.text() {
            Some(text) if part_within(text, kind) => Ok(text.to_owned()),
            _ => Err(Fault::expected(kind, item)),
        });
        texts.collect()
    }

    fn within(&self, kind: &Kind) -> bool {
        self.iter().all(|text| part_within(text, kind))
    }

    fn show(&self, _: &Kind) -> String {
        let parts: Vec<_> = self.iter().map(|text| quoted(text)).collect();
        format!("[{}]", parts.join(", "))
    }
}

fn part_within(text: &str, kind: &Kind) -> bool {
    match kind {
        Kind::Origins => is_origin(text),
        _ => is_host(text),
    }
}

fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text.bytes().all(plain)
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| lower(b) || matches!(b, b'+' | b'.' | b'-'));
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let host_ok = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host) && !host.bytes().any(|b| b.is_ascii_uppercase()),
    };
    let port_ok = port.is_none_or(|port| {
        let own = matches!((scheme, port), ("http", "80") | ("https", "443"));
        !own && !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok()
    });
    scheme_ok && host_ok && port_ok
}

impl Setting for Vec<RetentionRule> {
    fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
        let nodes = node.list().ok_or_else(|| Fault::expected(kind, node))?;
        let rules = nodes.iter().enumerate().map(|(at, node)| {
            RetentionRule::read(node, kind).map_err(|fault| fault.below(&format!("[{at}]")))
        });
        rules.collect()
    }

    fn within(&self, _: &Kind) -> bool {
        self.iter().all(RetentionRule::within)
    }

    fn show(&self, _: &Kind) -> String {
        let rules: String = self
            .iter()
            .map(|rule| format!("\n    {},", rule.show()))
            .collect();
        let end = if rules.is_empty() { "" } else { "\n" };
        format!("[{rules}{end}]")
    }
}
