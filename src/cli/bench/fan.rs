//! `tidings bench fan` and `publish`: events to readers, or to nobody.

use super::{
    args::{FanArgs, Interest, PublishArgs, Sending, Target},
    lines,
    load::{Load, Shape},
    meter::Measured,
    report::Report,
    wait::Patience,
};
use serde_json::json;
use std::{process::ExitCode, time::Duration};

/// Unless told otherwise.
const SECONDS: Duration = Duration::from_secs(5);

pub(super) fn run(args: &FanArgs) -> anyhow::Result<ExitCode> {
    let topics = if args.interest.own_topics {
        u32::try_from(args.readers)?.max(1)
    } else {
        1
    };
    let shape = Shape {
        readers: args.readers,
        topics,
        topic_end: String::new(),
        connections: args.sending.connections,
        interest: args.interest.clone(),
        array: None,
    };
    let mut load = Load::new(&args.target, &shape)?;
    let stalled = (args.readers as f64 * args.stalled / 100.0).round() as usize;
    // Spread over all, since servers write in some order.
    for n in 0..stalled {
        load.readers[n * args.readers / stalled].stalls = true;
    }
    let memory = load.server.as_ref().map(|server| server.memory_bytes());
    load.open_readers(0..args.readers)?;
    load.probe()?;
    let measured = send(&mut load, &args.sending)?;
    let mut report = Report::new("fan");
    head(&mut report, &load, &args.target);
    report.add("transport", json!(args.interest.transport.name()));
    report.add("readers", json!(args.readers));
    report.add("stalled", json!(stalled));
    report.add("connections", json!(args.sending.connections));
    report.add("rate", json!(args.sending.rate));
    report.measured(&measured);
    report.times("latency", &load.meter.latency);
    report.times("answer", &load.meter.answers);
    let after = load.server.as_ref().map(|server| server.memory_bytes());
    report.add("memory_before_bytes", json!(memory));
    report.add("memory_after_bytes", json!(after));
    report.faults(load.faults(), &load);
    Ok(report.print(args.target.json))
}

/// The same without readers.
pub(super) fn run_publish(args: &PublishArgs) -> anyhow::Result<ExitCode> {
    if args.lines {
        return lines::run(args);
    }
    let shape = Shape {
        readers: 0,
        topics: 1,
        topic_end: String::new(),
        connections: args.sending.connections,
        interest: Interest::default(),
        array: args.array,
    };
    let mut load = Load::new(&args.target, &shape)?;
    let measured = send(&mut load, &args.sending)?;
    let mut report = Report::new("publish");
    head(&mut report, &load, &args.target);
    report.add("connections", json!(args.sending.connections));
    report.add("array", json!(args.array));
    report.add("rate", json!(args.sending.rate));
    report.measured(&measured);
    report.times("answer", &load.meter.answers);
    report.faults(load.faults(), &load);
    Ok(report.print(args.target.json))
}

/// What was measured, for whoever reads the report later.
pub(super) fn head(report: &mut Report, load: &Load, target: &Target) {
    report.add("url", json!(format!("http://{}", load.hub.host())));
    report.add(
        "server_pid",
        json!(load.server.as_ref().map(|server| server.root())),
    );
    report.add("size_bytes", json!(target.size));
}

/// Publishes as told, and waits until all is delivered.
///
/// With a number of events, what is measured ends with the last delivery; else with the time, since a server may have
/// taken more than it has delivered by then: what is late still counts in the latency, and for gaps.
pub(super) fn send(load: &mut Load, sending: &Sending) -> anyhow::Result<Measured> {
    let measured = send_all(load, sending)?;
    if load.meter.published == 0 {
        load.check_refused()?;
    }
    Ok(measured)
}

fn send_all(load: &mut Load, sending: &Sending) -> anyhow::Result<Measured> {
    load.look_for_server();
    // Connections that a server has closed since they were last used are opened anew, not tried.
    load.turn()?;
    if let Some(rate) = sending.rate {
        anyhow::ensure!(rate > 0.0, "--rate {rate}: expected more than 0");
    }
    let warmup = nanos(sending.warmup);
    let publish_events = load.events_per_publish();
    let count = sending.events.map(|events| events.div_ceil(publish_events));
    let limit = sending
        .seconds
        .or(sending.events.is_none().then_some(SECONDS));
    let rate = sending.rate.map(|rate| rate / publish_events as f64);
    let begin;
    if let Some(count) = count {
        if warmup > 0 {
            load.start(rate, u64::MAX, load.now_ns() + warmup);
            until_sent(load, u64::MAX)?;
            load.drain()?;
        }
        begin = load.snapshot();
        load.meter.from_ns = begin.at_ns;
        let until = limit.map_or(u64::MAX, |limit| begin.at_ns + nanos(limit));
        load.start(rate, count, until);
        until_sent(load, u64::MAX)?;
        load.drain()?;
        let mut end = load.snapshot();
        if end.delivered > begin.delivered {
            // Not the time in which nothing came any more.
            end.at_ns = load.meter.last_delivery_ns;
        }
        load.stop();
        return Ok(end.since(&begin));
    }
    let warm_at = load.now_ns() + warmup;
    let until = limit.map_or(u64::MAX, |limit| warm_at + nanos(limit));
    load.meter.from_ns = warm_at;
    load.start(rate, u64::MAX, until);
    until_sent(load, warm_at)?;
    begin = load.snapshot();
    until_sent(load, until)?;
    let end = load.snapshot();
    load.drain()?;
    load.stop();
    Ok(end.since(&begin))
}

/// Turns until all is sent, or until that time.
fn until_sent(load: &mut Load, until_ns: u64) -> anyhow::Result<()> {
    let mut patience = Patience::new(load.patience());
    while !load.is_sent() && load.now_ns() < until_ns {
        load.turn()?;
        // A slow rate is no failure.
        if load.in_flight() > 0 {
            patience.check(load.meter.published, || match &load.meter.refusal {
                Some(refusal) => format!("no publish succeeded: {refusal};"),
                None => "no publish was answered".to_owned(),
            })?;
        }
    }
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
