//! `tidings bench`: a load for any hub that speaks Server-Sent Events, and what it costs the hub.
//!
//! It knows a hub by its addresses alone, so that all are measured by the same means: `target` has the words in which
//! each kind is asked, `transport` those by which readers listen. `load` is one loop over all connections; `schedule` says when what is published, `stamp` finds
//! events in streams, `tracker` finds what is missing or comes twice, `meter` counts. Each mode is a file.

mod args;
mod ceiling;
mod disk;
mod fan;
mod frames;
mod idle;
mod journal;
mod lines;
mod load;
mod meter;
mod publisher;
mod reader;
mod replay;
mod report;
mod response;
mod schedule;
mod serve;
mod socket;
mod stamp;
mod storm;
mod system;
mod target;
mod topics;
mod tracker;
mod transport;
mod wait;

pub(super) use args::BenchArgs;

use args::Mode;
use std::process::ExitCode;

/// Runs one measurement.
pub(super) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    match &args.mode {
        Mode::Fan(args) => fan::run(args),
        Mode::Idle(args) => idle::run(args),
        Mode::Storm(args) => storm::run(args),
        Mode::Publish(args) => fan::run_publish(args),
        Mode::Replay(args) => replay::run(args),
        Mode::Ceiling(args) => ceiling::run(args),
        Mode::Topics(args) => topics::run(args),
        Mode::Disk(args) => disk::run(args),
        Mode::Journal(args) => journal::run(args),
    }
}
