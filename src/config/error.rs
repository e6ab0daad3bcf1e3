//! Why a configuration is refused, for the person who wrote it.

use super::{
    knob::{Fault, Why},
    load::Origin,
};
use std::{io, path::PathBuf};

/// Why a configuration is refused. Its text is one line, and names the place: file and line, variable or flag.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: not TOML: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no such knob.
    #[error("{origin}: unknown {name}{}", hint(nearest.as_deref()))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// The key or the variable.
        name: String,
        /// The known name most like it, in the form of its source.
        nearest: Option<String>,
    },
    /// The knob cannot have that value.
    #[error("{origin}: {key}: expected {expected}; found {found}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The knob, such as `log.bytes_max` or `log.retention[1].age_max`.
        key: String,
        /// Type, unit and range.
        expected: String,
        /// What stands there.
        found: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `tidings config` lists all knobs".to_owned(),
    }
}

impl ConfigError {
    pub(super) fn of(fault: Fault, key: &str, origin: Origin) -> Self {
        let origin = origin.at(fault.line);
        let key = format!("{key}{}", fault.below);
        match fault.why {
            Why::Expected { what, found } => Self::Value {
                origin,
                key,
                expected: what,
                found,
            },
            Why::Unknown { nearest } => Self::Unknown {
                origin,
                name: format!("key {key}"),
                nearest,
            },
        }
    }
}
