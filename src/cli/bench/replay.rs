//! `tidings bench replay`: how fast one connection reads what is kept.

use super::{
    args::{Interest, ReplayArgs},
    fan::head,
    lines,
    load::{Load, Shape},
    reader::State,
    report::Report,
    storm,
    target::Kind,
    wait::Patience,
};
use serde_json::json;
use std::{process::ExitCode, time::Duration};

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.times > 0 && args.events > 0,
        "nothing to read: --times and --events are at least 1"
    );
    let by_lines = args.target.hub == Kind::Tidings && args.target.publish_url.is_none();
    let shape = Shape {
        // Each reads the whole once.
        readers: args.times,
        topics: 1,
        topic_end: String::new(),
        connections: if by_lines { 1 } else { args.connections },
        interest: Interest::default(),
        array: None,
    };
    let mut load = Load::new(&args.target, &shape)?;
    if by_lines {
        // The fastest way in.
        let (sent, _) = lines::stream(&mut load, args.events, Duration::MAX)?;
        load.sent[0] = u32::try_from(sent)?;
    } else {
        storm::publish(&mut load, args.events)?;
        load.check_refused()?;
    }
    let request = load.hub.replay(load.topic(0));
    let mut rates = Vec::new();
    let begin = load.snapshot();
    for at in 0..args.times {
        let begun = load.now_ns();
        load.begin_reader_with(at, request.clone())?;
        let mut patience = Patience::new(load.patience());
        while load.tracker.received(at) < args.events && load.readers[at].state != State::Lost {
            load.turn()?;
            if patience
                .check(load.tracker.delivered(), String::new)
                .is_err()
            {
                break;
            }
        }
        let seconds = (load.meter.last_delivery_ns.saturating_sub(begun)) as f64 / 1e9;
        rates.push(load.tracker.received(at) as f64 / seconds.max(1e-9));
        // It stays open, so that what comes too much is seen.
    }
    let measured = load.snapshot().since(&begin);
    rates.sort_by(f64::total_cmp);

    let mut report = Report::new("replay");
    head(&mut report, &load, &args.target);
    report.add("events", json!(args.events));
    report.add("times", json!(args.times));
    report.number("events_per_s", rates[rates.len() / 2]);
    report.number("events_per_s_min", rates[0]);
    report.number("events_per_s_max", rates[rates.len() - 1]);
    let per_event = |cpu: f64| cpu * 1e6 / measured.deliveries.max(1) as f64;
    report.maybe("cpu_us_per_delivery", measured.cpu_s.map(per_event));
    report.number(
        "load_cpu_percent",
        measured.own_cpu_s * 100.0 / measured.seconds.max(1e-9),
    );
    report.faults(load.faults(), &load);
    Ok(report.print(args.target.json))
}
