//! `tidings bench storm`: all readers lose their connections, miss some events, and come back at once.

use super::{
    args::{Interest, StormArgs},
    fan::head,
    idle::settled,
    load::{Load, Shape},
    meter::Times,
    reader::State,
    report::Report,
    wait::Patience,
};
use serde_json::json;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Events before the storm, so that each reader has an id to come back with.
const FIRST_EVENTS: u64 = 10;

/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn run(args: &StormArgs) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        readers: args.readers,
        topics: 1,
        topic_end: String::new(),
        connections: args.connections,
        interest: Interest::default(),
        array: None,
    };
    let mut load = Load::new(&args.target, &shape)?;
    for reader in &mut load.readers {
        reader.tail = Some(Vec::new());
    }
    load.open_readers(0..args.readers)?;
    load.probe()?;
    publish(&mut load, FIRST_EVENTS)?;
    load.drain()?;
    let server = load.server.clone();
    let memory = server
        .as_ref()
        .map(|server| settled(&mut load, server))
        .transpose()?;

    for at in 0..args.readers {
        anyhow::ensure!(
            load.readers[at].last_id().is_some(),
            "the stream has no `id:` lines: nobody could come back"
        );
        load.readers[at].leave();
    }
    publish(&mut load, args.events)?;
    load.settle()?;
    let mut missed: Vec<usize> = (0..args.readers).collect();

    let begin = load.snapshot();
    for at in 0..args.readers {
        load.begin_reader(at)?;
        load.readers[at].tail = None;
    }
    let mut times = Times::new()?;
    let mut peak = server.as_ref().map(|server| server.memory_bytes());
    let mut look_at = Instant::now() + LOOK;
    let mut patience = Patience::new(load.patience());
    while !missed.is_empty() {
        load.turn()?;
        let now = load.now_ns();
        let expected = load.sent_in_all();
        missed.retain(|at| {
            let complete = load.tracker.received(*at) >= expected;
            if complete {
                times.note_ns(now - begin.at_ns);
            }
            !complete
        });
        if let (Some(server), Some(peak)) = (&server, &mut peak)
            && Instant::now() >= look_at
        {
            *peak = (*peak).max(server.memory_bytes());
            look_at = Instant::now() + LOOK;
        }
        if patience
            .check(load.tracker.delivered(), String::new)
            .is_err()
        {
            break;
        }
    }
    let measured = load.snapshot().since(&begin);
    let back = args.readers - missed.len();
    // What comes now is a duplicate.
    let after = server
        .as_ref()
        .map(|server| settled(&mut load, server))
        .transpose()?;

    let mut report = Report::new("storm");
    head(&mut report, &load, &args.target);
    report.add("readers", json!(args.readers));
    report.add("events", json!(args.events));
    report.number("seconds", measured.seconds);
    report.number("reconnects_per_s", back as f64 / measured.seconds.max(1e-9));
    report.add("deliveries", json!(measured.deliveries));
    report.number(
        "deliveries_per_s",
        measured.deliveries as f64 / measured.seconds.max(1e-9),
    );
    report.times("complete", &times);
    let each =
        |bytes: u64| memory.map(|before| bytes.saturating_sub(before) as f64 / args.readers as f64);
    report.add("memory_before_bytes", json!(memory));
    report.maybe("growth_bytes_per_reader_peak", peak.and_then(each));
    report.maybe("growth_bytes_per_reader", after.and_then(each));
    let per_reconnect = |cpu: f64| cpu * 1e6 / back.max(1) as f64;
    report.maybe("cpu_us_per_reconnect", measured.cpu_s.map(per_reconnect));
    let open = load.readers.iter().filter(|one| one.state == State::Open);
    report.add("open", json!(open.count()));
    report.faults(load.faults(), &load);
    Ok(report.print(args.target.json))
}

/// Publishes that many events, as fast as they are taken.
pub(super) fn publish(load: &mut Load, events: u64) -> anyhow::Result<()> {
    load.start(None, events, u64::MAX);
    let mut patience = Patience::new(load.patience());
    while !load.is_sent() {
        load.turn()?;
        patience.check(load.meter.published, || {
            "no publish was answered".to_owned()
        })?;
    }
    load.settle()
}
