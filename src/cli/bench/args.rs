//! The arguments of `tidings bench`.

use super::{super::duration, target::Kind, transport::Transport};
use clap::{Args, Subcommand};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tidings::config::units::parse_size;

/// Measure a hub: this one, or any that speaks Server-Sent Events
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidings bench fan --readers 1000 --connections 64 --seconds 5s
  tidings bench fan --readers 1000 --rate 200 --json
  tidings bench idle --readers 5000 --own-topics
  tidings bench fan --readers 1000 --transport ws
  tidings bench fan --hub nchan --url http://127.0.0.1:9000 --readers 100
  tidings bench fan --publish-url 'http://127.0.0.1:9000/send?to={topic}' --subscribe-url 'http://127.0.0.1:9000/listen/{topic}'

Every event has a number and a time in its data, which the hub has to pass on as it is. The run
ends with exit code 1 if an event was lost, came twice or out of order, or a publish was refused.
Latency counts from the time an event was to be sent, late or not. Give the load a core of its
own (--cpu) and the server another (taskset). What is measured is what --url names, with its
log and its readers: do not measure a hub that others use.")]
pub(in crate::cli) struct BenchArgs {
    #[command(subcommand)]
    pub(super) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(super) enum Mode {
    Fan(FanArgs),
    Idle(IdleArgs),
    Storm(StormArgs),
    Publish(PublishArgs),
    Replay(ReplayArgs),
    Topics(TopicsArgs),
    Ceiling(CeilingArgs),
    Disk(DiskArgs),
    Journal(JournalArgs),
}

/// Which hub is measured, and what all runs have in common.
#[derive(Args, Debug)]
pub(super) struct Target {
    /// The hub's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
    /// Which kind of hub it is, so which routes it has
    #[arg(long, value_enum, default_value = "tidings")]
    pub(super) hub: Kind,
    /// Where to publish instead, with {topic} in it
    #[arg(long, value_name = "URL")]
    pub(super) publish_url: Option<String>,
    /// The body of a publish instead, with {data} and perhaps {topic} in it
    #[arg(long, value_name = "TEXT")]
    pub(super) publish_body: Option<String>,
    /// The type of that body
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// Where to read instead, with {topic} in it, or {topics:SEPARATOR}
    #[arg(long, value_name = "URL")]
    pub(super) subscribe_url: Option<String>,
    /// Where to read from the oldest event on instead
    #[arg(long, value_name = "URL")]
    pub(super) replay_url: Option<String>,
    /// One more header of each publish, such as 'Authorization: Bearer abc'
    #[arg(long, value_name = "HEADER")]
    pub(super) publish_header: Vec<String>,
    /// One more header of each stream's request
    #[arg(long, value_name = "HEADER")]
    pub(super) subscribe_header: Vec<String>,
    /// The server's process [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// Have the load run on this core only
    #[arg(long, value_name = "N")]
    pub(super) cpu: Option<usize>,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(super) size: usize,
    /// A run has failed after so long without any progress
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(super) patience: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// How much is published, and how fast.
#[derive(Args, Clone, Debug)]
pub(super) struct Sending {
    /// Connections that publish; each waits for an answer before it sends again
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) connections: u32,
    /// Events per second, sent at their times; as many as are taken unless given
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,
    /// Publish for so long [default: 5s, unless --events is given]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) seconds: Option<Duration>,
    /// Publish so many events
    #[arg(long, value_name = "N")]
    pub(super) events: Option<u64>,
    /// Publish for so long before anything is measured
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "500ms")]
    pub(super) warmup: Duration,
}

/// Deliver to many readers: rate, latency, CPU
#[derive(Args, Debug)]
pub(super) struct FanArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) sending: Sending,
    /// Readers
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) readers: usize,
    #[command(flatten)]
    pub(super) interest: Interest,
    /// So many percent of the readers never read
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub(super) stalled: f64,
}

/// What readers ask for: all the same topic, unless told otherwise. And how.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Interest {
    /// Each reader has a topic of its own; events go to one after the other
    #[arg(long, conflicts_with = "own_filter")]
    pub(super) own_topics: bool,
    /// Each reader asks for so many topics: one that all share, where events go, and its own
    #[arg(long, value_name = "N")]
    pub(super) own_filter: Option<usize>,
    /// How each reader listens
    #[arg(long, value_enum, default_value = "sse")]
    pub(super) transport: Transport,
}

/// Hold open streams: memory of each, and CPU while nothing happens
#[derive(Args, Debug)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Readers
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(super) readers: usize,
    #[command(flatten)]
    pub(super) interest: Interest,
    /// How long nothing happens
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    pub(super) seconds: Duration,
}

/// Have all readers reconnect at once, each behind by some events
#[derive(Args, Debug)]
pub(super) struct StormArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Readers
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(super) readers: usize,
    /// Events published while all are away
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) events: u64,
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) connections: u32,
}

/// Publish: rate, and the time until the answer
#[derive(Args, Debug)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) sending: Sending,
    /// Publish JSON arrays of so many events (Tidings)
    #[arg(long, value_name = "N", conflicts_with = "lines")]
    pub(super) array: Option<usize>,
    /// Publish over one request of NDJSON (Tidings)
    #[arg(long)]
    pub(super) lines: bool,
}

/// Read a full log with one connection
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Events to publish first
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(super) events: u64,
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) connections: u32,
    /// Read it so many times; the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) times: usize,
}

/// Publish to one topic beside many topics, feeds and patterns: what those cost it
#[derive(Args, Debug)]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) sending: Sending,
    /// Topics that get one event each
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(super) topics: u32,
    /// Readers, each of one of those topics
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(super) feeds: usize,
    /// Readers, each with a pattern of its own; compared with ten. No topics and feeds then
    #[arg(long, value_name = "N")]
    pub(super) patterns: Option<usize>,
}

/// Serve as the floor: one loop that writes each event to each reader with one call
#[derive(Args, Debug)]
pub(super) struct CeilingArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// Run on this core only
    #[arg(long, value_name = "N")]
    pub(super) cpu: Option<usize>,
}

/// Measure the disk: fsync, and SQLite with nothing around it
#[derive(Args, Debug)]
pub(super) struct DiskArgs {
    /// Where to write, in a folder of its own
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
    /// Run on this core only
    #[arg(long, value_name = "N")]
    pub(super) cpu: Option<usize>,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(super) size: usize,
    /// How long each of the two is measured
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "3s")]
    pub(super) seconds: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Measure a broker by its client library alone, as a journal without a hub
#[derive(Args, Debug)]
pub(super) struct JournalArgs {
    /// What is measured
    #[arg(value_enum)]
    pub(super) what: JournalMode,
    /// The broker, as in cluster.journal
    #[arg(long, value_name = "URL")]
    pub(super) url: String,
    /// The cluster's name [default: a new one]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Run on this core only
    #[arg(long, value_name = "N")]
    pub(super) cpu: Option<usize>,
    /// Bytes of each record
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(super) size: usize,
    /// Records in each entry
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) records: usize,
    /// append: entries on their way
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) outstanding: usize,
    /// latency: entries per second
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub(super) rate: f64,
    /// tail: how many records the journal has
    #[arg(long, value_name = "N")]
    pub(super) events: Option<u64>,
    /// append, latency: how long
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "3s")]
    pub(super) seconds: Duration,
    /// append, latency: so long before anything is measured
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "500ms")]
    pub(super) warmup: Duration,
    /// The journal's bound: that of the hubs whose journal it is
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GiB")]
    pub(super) bytes_max: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// What is asked of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum JournalMode {
    /// Append as fast as it acknowledges
    Append,
    /// Read all that it keeps, once
    Tail,
    /// Append at a rate, and wait for each on a tail
    Latency,
}

/// As in a configuration file.
fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size such as 64MiB or 1GiB".to_owned())
}
