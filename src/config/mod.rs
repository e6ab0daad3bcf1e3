//! Every knob: its unit, its default, and what happens at the limit. This file is the one place that
//! says so; the docs of the fields are also what `tidings config` prints.
//!
//! [`load`] reads a TOML file, then the environment (`TIDINGS_LOG__DURABILITY=os`), then flags; each
//! overrides the one before. A program that embeds the hub fills in the struct instead:
//!
//! ```
//! use tidings::config::{Config, Engine, LogConfig};
//!
//! let config = Config {
//!     log: LogConfig { engine: Engine::Memory, ..LogConfig::default() },
//!     ..Config::default()
//! };
//! config.check()?;
//! # Ok::<(), tidings::config::ConfigError>(())
//! ```

pub mod environment;
mod error;
mod journal;
mod knob;
mod load;
mod nearest;
mod node;
mod retention;
mod show;
mod table;
pub mod units;

pub use error::ConfigError;
pub use journal::JournalUrl;
pub use load::{Flag, Loaded, Origin, Provenance, Sources, load};
pub use nearest::nearest;
pub use retention::RetentionRule;

use knob::{ANY, Fault, Kind, Knob, LONG, Setting, Table};
use node::Node;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use table::table;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MS: Duration = Duration::from_millis(1);

const JOURNAL_AGE: Kind = Kind::Time {
    min: Duration::from_mins(1),
    max: LONG,
};

/// Topics that no [`RetentionRule`] matches keep their events for so long: 30 days.
pub const RETENTION_AGE_DEFAULT: Duration = Duration::from_hours(30 * 24);

table! {
    /// A hub's configuration.
    pub struct Config {
        /// Where the hub listens. Port 0 takes any free port; the banner names it. Beyond loopback,
        /// anyone who reaches the port may publish and read.
        listen: SocketAddr = (Ipv4Addr::LOCALHOST, 8080).into(), Kind::Address;

        /// The folder of the durable log, made if it is missing. One hub at a time may use it. Relative
        /// paths begin at the folder in which the hub was started.
        data_dir: PathBuf = "./tidings-data".into(), Kind::Path;
    }
    tables {
        /// What is kept, how safely and for how long.
        log: LogConfig;
        /// What publishers may send.
        publish: PublishConfig;
        /// What readers get, and how they come back.
        subscribe: SubscribeConfig;
        /// Connections: how many, how slow, and from where.
        server: ServerConfig;
        /// Several hubs as one, over a broker.
        cluster: ClusterConfig;
    }
}

table! {
    /// What is kept, how safely and for how long.
    pub struct LogConfig {
        /// "sqlite" keeps events in the data directory; "memory" forgets them when the hub stops.
        engine: Engine = Engine::Sqlite, Kind::Words(Engine::WORDS);

        /// When a publish is answered: "sync", once it would survive a power cut; "os", once it would
        /// survive a crash of the hub (faster; after a crash of the machine a new epoch begins, and
        /// readers are told of a gap).
        durability: Durability = Durability::Sync, Kind::Words(Durability::WORDS);

        /// The whole log on disk, its write-ahead file included. When it is full, the oldest events of
        /// all topics are removed; readers that had not got them are told of a gap.
        bytes_max: u64 = 10 * GIB, Kind::Size { min: MIB, max: ANY };

        /// How long an idempotency key is remembered. A publish repeated later is a new event.
        idempotency_age_max: Duration = Duration::from_hours(24), Kind::Time { min: MS, max: LONG };

        /// How many idempotency keys are remembered. Past that, the oldest are forgotten before their
        /// time; a publish repeated after that is a new event.
        idempotency_keys_max: u64 = 1_000_000, Kind::Count { min: 1, max: ANY };

        /// How many topics without any event left are remembered, so that gaps stay exact. Past that,
        /// those emptied longest ago are forgotten, and a reader that was away since then may
        /// be told of a gap where it missed nothing.
        emptied_topics_max: u64 = 1_000_000, Kind::Count { min: 1, max: ANY };

        /// How long events of which topics stay: `[[log.retention]]` tables with `topics` (a topic or a
        /// pattern) and any of `age_max`, `events_max` and `bytes_max`. The first that matches a
        /// topic counts, limits are per topic, and past a limit the topic's oldest events are removed.
        /// Without limits, events stay until the log is full. Topics that no rule matches: 30d.
        retention: Vec<RetentionRule> = Vec::new(), Kind::Retention;
    }
}

table! {
    /// What publishers may send.
    pub struct PublishConfig {
        /// The data of one event. A larger one is refused with 413 while it is still arriving.
        event_bytes_max: u64 = MIB, Kind::Size { min: 1, max: 256 * MIB };

        /// Events in one JSON array. An array of more is refused with 413, and none of it is published.
        batch_events_max: u64 = 10_000, Kind::Count { min: 1, max: 1_000_000 };

        /// The body of a request with a JSON object or array. A larger one is refused with 413, and
        /// none of it is published. NDJSON has no such limit: each of its lines has the event's.
        batch_bytes_max: u64 = 16 * MIB, Kind::Size { min: 1, max: GIB };

        /// Results of one NDJSON request that its client has not read yet. Past that, the hub reads no
        /// more lines of it until some are read; after `server.write_timeout` the request ends.
        results_bytes_max: u64 = 16 * MIB, Kind::Size { min: KIB, max: GIB };
    }
}

table! {
    /// What readers get, and how they come back.
    pub struct SubscribeConfig {
        /// How long a browser waits before it connects again: the first line of each stream.
        retry: Duration = Duration::from_secs(2), Kind::Time { min: MS, max: Duration::from_mins(1) };

        /// After so much silence a stream gets a comment, so that proxies and clients see that it lives.
        /// A WebSocket whose client is silent gets a ping, and is closed if that is not answered within as long again.
        keepalive: Duration = Duration::from_secs(15), Kind::Time { min: MS, max: Duration::from_hours(24) };

        /// Topics and patterns on one stream, or over all subscriptions of a WebSocket. More are refused (400).
        filters_max: u64 = 128, Kind::Count { min: 1, max: 10_000 };

        /// What is held of the newest events, encoded, over all topics and filters. Who comes back within them
        /// shares them; past that the log is read.
        cache_bytes_max: u64 = 64 << 20, Kind::Size { min: 0, max: ANY };

        /// When the hub stops, each stream is told to wait between this and `drain_retry_max` before it
        /// connects again, at random, so that not all come back at once.
        drain_retry_min: Duration = Duration::from_secs(1), Kind::Time { min: MS, max: Duration::from_mins(1) };

        /// See `drain_retry_min`; not below it.
        drain_retry_max: Duration = Duration::from_secs(10), Kind::Time { min: MS, max: Duration::from_mins(1) };
    }
}

table! {
    /// Connections: how many, how slow, and from where.
    pub struct ServerConfig {
        /// Open connections; 0 is as many as the open-files limit allows, less a reserve. Past that, a new
        /// stream is told to come back later (and does, by itself); other requests get 503.
        connections_max: u64 = 0, Kind::Count { min: 0, max: ANY };

        /// A request's first line and headers. Longer ones are refused with 431; with 414 if the URL alone has 64 KiB.
        head_bytes_max: u64 = 64 * KIB, Kind::Size { min: 8 * KIB, max: 16 * MIB };

        /// A client has so long to send a request's headers. After that the connection is closed.
        head_timeout: Duration = Duration::from_secs(10), Kind::Time { min: MS, max: Duration::from_hours(1) };

        /// Silence in the middle of a request's body. After that it is refused with 408. NDJSON may pause
        /// for as long as it likes.
        body_timeout: Duration = Duration::from_secs(30), Kind::Time { min: MS, max: Duration::from_hours(1) };

        /// A client that takes no byte for so long is closed.
        write_timeout: Duration = Duration::from_secs(60), Kind::Time { min: MS, max: Duration::from_hours(1) };

        /// After SIGTERM or Ctrl-C, requests and streams have so long to end; then the hub exits anyway.
        drain_timeout: Duration = Duration::from_secs(10), Kind::Time { min: MS, max: Duration::from_hours(1) };

        /// While the hub listens on loopback only, it answers requests for localhost and IP addresses, and
        /// for these further host names, such as that of a reverse proxy in front. Others get 421,
        /// because a page elsewhere on the web can point its own name at 127.0.0.1.
        hosts: Vec<String> = Vec::new(), Kind::Hosts;

        /// Origins of web pages that may read and publish, beside the hub's own and those on localhost.
        /// A page of another origin cannot read, and its publishes get 403.
        origins: Vec<String> = Vec::new(), Kind::Origins;

        /// What serves plain HTTP/1 requests and the streams that they open: "lean", a loop of the hub's own
        /// that keeps nothing for a stream but its socket and its place; "library", the HTTP library that
        /// serves all other requests, with its buffers. What clients see is the same.
        http1: Http1 = Http1::Lean, Kind::Words(Http1::WORDS);
    }
}

table! {
    /// Several hubs as one, over a broker. With a journal each hub keeps its replica of it in
    /// `cluster-<name>` below the data directory; what a hub alone has kept there stays as it is, unused.
    pub struct ClusterConfig {
        /// The broker that keeps the journal: Redis 7.0 or Valkey, NATS 2.9.10 with JetStream, RabbitMQ
        /// 3.10, or later ones. Empty: this hub is alone. Shown without user and password.
        journal: Option<JournalUrl> = None, Kind::Maybe(&Kind::Journal);

        /// Hubs with the same broker and name are one cluster.
        name: String = "tidings".to_owned(), Kind::Name;

        /// A file whose first line is the broker's password, in place of one in the URL.
        password_file: Option<PathBuf> = None, Kind::Maybe(&Kind::Path);

        /// A file with the certificates (PEM) of those who may vouch for the broker, in place of the system's.
        ca_file: Option<PathBuf> = None, Kind::Maybe(&Kind::Path);

        /// Where the other hubs and their pages say that this one is. Empty: the address that it listens on.
        address: String = String::new(), Kind::Reached;

        /// Redis: replicas that have to have an entry before it counts as kept (WAIT); 0 asks for none.
        redis_wait: u64 = 0, Kind::Count { min: 0, max: 16 };

        /// NATS: servers that keep the stream, 1, 3 or 5.
        nats_replicas: u64 = 1, Kind::Count { min: 1, max: 5 };

        /// The journal on the broker. Past that its oldest entries are removed; a hub that has not got them
        /// by then begins anew, and its readers are told. Empty: 256MiB on Redis, which keeps it in memory, else 1GiB.
        journal_bytes_max: Option<u64> = None, Kind::Maybe(&Kind::Size { min: MIB, max: ANY });

        /// Older entries of the journal are removed. Empty: the longest of the retention rules and
        /// `log.idempotency_age_max`, so that a hub that begins with nothing gets all that others keep.
        journal_age_max: Option<Duration> = None, Kind::Maybe(&JOURNAL_AGE);
    }
}

/// What keeps the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One file of SQLite in the data directory.
    Sqlite,
    /// Nothing but memory: for trials and tests.
    Memory,
}

/// What an acknowledged publish survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss.
    Sync,
    /// A crash of the hub, but not of the machine.
    Os,
}

/// What serves plain HTTP/1 requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http1 {
    /// A loop of the hub's own, as far as it goes.
    Lean,
    /// hyper, from a connection's first byte.
    Library,
}

impl Engine {
    const WORDS: &[&str] = &["sqlite", "memory"];
    const ALL: &[Self] = &[Self::Sqlite, Self::Memory];
}

impl Durability {
    const WORDS: &[&str] = &["sync", "os"];
    const ALL: &[Self] = &[Self::Sync, Self::Os];
}

impl Http1 {
    const WORDS: &[&str] = &["lean", "library"];
    const ALL: &[Self] = &[Self::Lean, Self::Library];
}

/// The enums are one word each: `WORDS` and `ALL` are in the same order.
macro_rules! word {
    ($($name:ty),+) => { $(
        impl Setting for $name {
            fn read(node: &Node, kind: &Kind) -> Result<Self, Fault> {
                let at = node.text().and_then(|text| Self::WORDS.iter().position(|word| *word == text));
                let found = at.and_then(|at| Self::ALL.get(at));
                found.copied().ok_or_else(|| Fault::expected(kind, node))
            }

            fn within(&self, _: &Kind) -> bool {
                true
            }

            fn show(&self, _: &Kind) -> String {
                let at = Self::ALL.iter().position(|one| one == self);
                knob::quoted(at.and_then(|at| Self::WORDS.get(at)).copied().unwrap_or_default())
            }
        }
    )+ };
}

word!(Engine, Durability, Http1);
