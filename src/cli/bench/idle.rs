//! `tidings bench idle`: what a stream costs while nothing happens.

use super::{
    args::IdleArgs,
    fan::head,
    load::{Load, Shape},
    report::Report,
    system::Processes,
};
use anyhow::Context as _;
use serde_json::json;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Between two looks at a server's memory, and how many in a row have to find about the same.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 5;
const SAME_BYTES: u64 = 64 << 10; // 64 KiB

pub(super) fn run(args: &IdleArgs) -> anyhow::Result<ExitCode> {
    let topics = if args.interest.own_topics {
        args.readers
    } else {
        1
    };
    let shape = Shape {
        readers: args.readers,
        topics: u32::try_from(topics)?.max(1),
        topic_end: String::new(),
        connections: 8,
        interest: args.interest.clone(),
        array: None,
    };
    anyhow::ensure!(args.readers > 0, "--readers 0: expected at least one");
    let mut load = Load::new(&args.target, &shape)?;
    // One reader and one event first: what the first of each costs is no stream's.
    load.open_readers(0..1)?;
    load.probe()?;
    let server = load.server.clone();
    let server = server.context("the server's process is not to be seen; name it with --pid")?;
    let before = settled(&mut load, &server)?;
    load.open_readers(1..args.readers)?;
    let after = settled(&mut load, &server)?;

    let begin = load.snapshot();
    let until = Instant::now() + args.seconds;
    while Instant::now() < until {
        load.turn()?;
    }
    let idle = load.snapshot().since(&begin);
    let after_idle = server.memory_bytes();

    // They were alive all the time: each gets an event.
    load.probe()?;
    load.start(None, u64::from(shape.topics), u64::MAX);
    while !load.is_sent() {
        load.turn()?;
    }
    load.drain()?;

    let mut report = Report::new("idle");
    head(&mut report, &load, &args.target);
    let streams = args.readers.saturating_sub(1).max(1) as f64;
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / streams;
    report.add("transport", json!(args.interest.transport.name()));
    report.add("readers", json!(args.readers));
    report.add("memory_before_bytes", json!(before));
    report.add("memory_after_bytes", json!(after));
    report.number("bytes_per_stream", each(after));
    report.number("bytes_per_stream_later", each(after_idle));
    report.number("seconds", idle.seconds);
    let percent = idle.cpu_s.map(|cpu| cpu * 100.0 / idle.seconds);
    report.maybe("server_cpu_percent", percent);
    report.number("bytes_per_stream_used", each(server.memory_bytes()));
    report.faults(load.faults(), &load);
    Ok(report.print(args.target.json))
}

/// The server's memory, once it stays as it is.
pub(super) fn settled(load: &mut Load, server: &Processes) -> anyhow::Result<u64> {
    let mut last = server.memory_bytes();
    let mut same = 0;
    let begun = Instant::now();
    while same < LOOKS && begun.elapsed() < Duration::from_secs(10) {
        let until = Instant::now() + LOOK;
        while Instant::now() < until {
            load.turn()?;
        }
        let now = server.memory_bytes();
        same = if now.abs_diff(last) <= SAME_BYTES {
            same + 1
        } else {
            0
        };
        last = now;
    }
    Ok(last)
}
