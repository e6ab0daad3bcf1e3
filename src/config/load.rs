//! From file, environment and flags to a [`Config`], noting where each value came from.

use super::{
    Config, ConfigError,
    environment::{self, config_file, is_service_link, variable},
    knob::Table,
    nearest::nearest,
    node::{Node, Value, from_table},
    units::show_duration,
};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};
use toml::de::DeTable;

/// What a configuration is made from, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that is read if it exists, unless another is asked for.
    pub default_file: Option<PathBuf>,
    /// The file asked for by flag; else by `TIDINGS_CONFIG`. It must exist.
    pub file: Option<PathBuf>,
    /// Variables, also those that are none of ours.
    pub environment: Vec<(String, String)>,
    /// What the command line says.
    pub flags: Vec<Flag>,
}

/// A knob's value from the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As it is written, such as `--data-dir`.
    pub name: &'static str,
    /// The knob, such as `data_dir`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

impl Sources {
    /// `./tidings.toml` and this process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            default_file: Some("tidings.toml".into()),
            environment: environment::of_process(),
            ..Self::default()
        }
    }
}

/// A configuration, and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// Where they came from.
    pub provenance: Provenance,
}

/// Where the values that are not defaults came from.
#[derive(Clone, Debug, Default)]
pub struct Provenance(BTreeMap<String, Origin>);

impl Provenance {
    /// Where a knob's value came from, such as that of `log.bytes_max`.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// That file.
    File {
        /// Its path as it was given.
        path: PathBuf,
        /// From 1.
        line: Option<usize>,
    },
    /// That variable.
    Environment(String),
    /// That flag.
    Flag(&'static str),
    /// A program that set the field.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                write!(f, "{}", path.display())?;
                line.map_or(Ok(()), |line| write!(f, ":{line}"))
            }
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Program => f.write_str("configuration"),
        }
    }
}

impl Origin {
    /// The same with a line, if it is a file and the line is known.
    pub(super) fn at(self, better: Option<usize>) -> Self {
        match self {
            Self::File { path, line } => Self::File {
                path,
                line: better.or(line),
            },
            other => other,
        }
    }
}

/// Reads all sources; a later one overrides an earlier one, knob by knob.
///
/// # Errors
///
/// The first thing that is wrong, in the order of the sources: also if a later source overrides it.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded {
        config: Config::default(),
        provenance: Provenance::default(),
    };
    if let Some((path, text)) = read_file(sources)? {
        loaded.apply_file(&path, &text)?;
    }
    loaded.apply_environment(&sources.environment)?;
    for flag in &sources.flags {
        loaded.apply_text(flag.key, &flag.value, Origin::Flag(flag.name))?;
    }
    check_together(&loaded.config, &|key| loaded.provenance.of(key))?;
    Ok(loaded)
}

fn read_file(sources: &Sources) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let wanted = sources.file.clone();
    let wanted = wanted.or_else(|| config_file(&sources.environment));
    let (path, must) = match (wanted, &sources.default_file) {
        (Some(path), _) => (path, true),
        (None, Some(path)) => (path.clone(), false),
        (None, None) => return Ok(None),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

impl Loaded {
    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let line = |at: usize| Some(text.get(..at)?.matches('\n').count() + 1);
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            let before = text.get(..at).unwrap_or(text);
            ConfigError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
                message: error.message().replace('\n', ", "),
            }
        })?;
        let origin = |line| Origin::File {
            path: path.to_owned(),
            line,
        };
        for (key, at, node) in from_table(table.get_ref(), &line) {
            self.apply_entry(&key, origin(at), &node)?;
        }
        Ok(())
    }

    /// An entry of the file: a knob, or a table of entries.
    fn apply_entry(&mut self, key: &str, origin: Origin, node: &Node) -> Result<(), ConfigError> {
        let keys = Keys::of(&self.config);
        if keys.knobs.iter().any(|known| known == key) {
            return self.apply(key, origin, node);
        }
        if !keys.tables.iter().any(|known| known == key) {
            return Err(ConfigError::Unknown {
                origin,
                name: format!("key {key}"),
                nearest: keys.nearest(key),
            });
        }
        let Value::Table(entries) = &node.value else {
            return Err(ConfigError::Value {
                origin,
                key: key.to_owned(),
                expected: format!("a table: [{key}] with keys below it"),
                // Not as it is: `cluster = "redis://:password@host"` is such a mistake.
                found: match node.text() {
                    Some(_) => "a text".to_owned(),
                    None => node.found(),
                },
            });
        };
        for (name, line, node) in entries {
            self.apply_entry(&format!("{key}.{name}"), origin.clone().at(*line), node)?;
        }
        Ok(())
    }

    fn apply_environment(&mut self, environment: &[(String, String)]) -> Result<(), ConfigError> {
        let keys = Keys::of(&self.config);
        let variables: Vec<_> = keys.knobs.iter().map(|key| variable(key)).collect();
        for (name, value) in environment {
            let ours = name.starts_with(environment::PREFIX) && !is_service_link(name, value);
            if !ours || environment::OTHERS.contains(&name.as_str()) {
                continue;
            }
            let Some(at) = variables.iter().position(|known| known == name) else {
                let known = variables.iter().map(String::as_str);
                return Err(ConfigError::Unknown {
                    origin: Origin::Environment(name.clone()),
                    name: "variable".to_owned(),
                    nearest: nearest(name, known.chain(environment::OTHERS)).map(str::to_owned),
                });
            };
            if let Some(key) = keys.knobs.get(at) {
                self.apply_text(key, value, Origin::Environment(name.clone()))?;
            }
        }
        Ok(())
    }

    fn apply_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        self.apply(key, origin, &Node::bare(text))
    }

    /// Sets a knob that is known.
    fn apply(&mut self, key: &str, origin: Origin, node: &Node) -> Result<(), ConfigError> {
        let (above, name) = key.rsplit_once('.').unwrap_or(("", key));
        let set = match above {
            "" => self.config.set(name, node),
            _ => match self
                .config
                .tables_mut()
                .into_iter()
                .find(|(at, _)| *at == above)
            {
                Some((_, table)) => table.set(name, node),
                None => Ok(()),
            },
        };
        set.map_err(|fault| ConfigError::of(fault, key, origin.clone()))?;
        self.provenance.0.insert(key.to_owned(), origin);
        Ok(())
    }
}

impl Config {
    /// Checks what a program filled in, as [`load`] checks what it reads.
    ///
    /// # Errors
    ///
    /// The first value out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut tables: Vec<(&str, &dyn Table)> = vec![("", self)];
        tables.extend(self.tables());
        for (path, table) in tables {
            for knob in table.knobs() {
                table.check(knob.name).map_err(|fault| {
                    ConfigError::of(fault, &full_key(path, knob.name), Origin::Program)
                })?;
            }
        }
        check_together(self, &|_| Origin::Program)
    }
}

/// All nodes decide alike about a key that comes twice at once: for that each has to know the newest ones.
const CLUSTER_KEYS_MIN: u64 = 10_000;

/// Knobs whose ranges depend on each other.
fn check_together(config: &Config, origin: &dyn Fn(&str) -> Origin) -> Result<(), ConfigError> {
    let keys_max = config.log.idempotency_keys_max;
    if config.cluster.journal.is_some() && keys_max < CLUSTER_KEYS_MIN {
        let key = "log.idempotency_keys_max";
        return Err(ConfigError::Value {
            origin: origin(key),
            key: key.to_owned(),
            expected: format!("in a cluster, at least {CLUSTER_KEYS_MIN}"),
            found: keys_max.to_string(),
        });
    }
    let subscribe = &config.subscribe;
    if subscribe.drain_retry_min <= subscribe.drain_retry_max {
        return Ok(());
    }
    let min = show_duration(subscribe.drain_retry_min);
    // The one that was set is the one to blame.
    let (key, expected, found) = match origin("subscribe.drain_retry_max") {
        Origin::Default => (
            "subscribe.drain_retry_min",
            "at most subscribe.drain_retry_max, which is ",
            (show_duration(subscribe.drain_retry_max), min),
        ),
        _ => (
            "subscribe.drain_retry_max",
            "at least subscribe.drain_retry_min, which is ",
            (min, show_duration(subscribe.drain_retry_max)),
        ),
    };
    let (limit, found) = found;
    Err(ConfigError::Value {
        origin: origin(key),
        key: key.to_owned(),
        expected: format!("{expected}{limit}"),
        found,
    })
}

/// All names in a configuration, with dots.
struct Keys {
    knobs: Vec<String>,
    tables: Vec<String>,
}

impl Keys {
    fn of(config: &Config) -> Self {
        let mut keys = Self {
            knobs: config
                .knobs()
                .iter()
                .map(|knob| knob.name.to_owned())
                .collect(),
            tables: Vec::new(),
        };
        for (path, table) in config.tables() {
            let knobs = table.knobs().iter();
            keys.knobs
                .extend(knobs.map(|knob| full_key(path, knob.name)));
            keys.tables.push(path.to_owned());
        }
        keys
    }

    fn nearest(&self, key: &str) -> Option<String> {
        let all = self.knobs.iter().chain(&self.tables).map(String::as_str);
        nearest(key, all).map(str::to_owned)
    }
}

pub(super) fn full_key(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
