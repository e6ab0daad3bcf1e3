//! `tidings bench topics`: what many topics, feeds and patterns cost a publish to one topic that has nothing to do
//! with them.

use super::{
    args::{Interest, TopicsArgs},
    fan::{head, send},
    idle::settled,
    load::{Load, Shape},
    meter::Measured,
    report::Report,
    tracker::Faults,
};
use anyhow::Context as _;
use serde_json::json;
use std::process::ExitCode;

/// Patterns beside which the many are measured.
const FEW_PATTERNS: usize = 10;

pub(super) fn run(args: &TopicsArgs) -> anyhow::Result<ExitCode> {
    // One topic with one reader: what is measured, before and after.
    let shape = Shape {
        readers: 1,
        topics: 1,
        topic_end: "/one/live".to_owned(),
        connections: args.sending.connections,
        interest: Interest::default(),
        array: None,
    };
    let mut one = Load::new(&args.target, &shape)?;
    one.open_readers(0..1)?;
    one.probe()?;
    let mut report = Report::new("topics");
    head(&mut report, &one, &args.target);
    let faults = match args.patterns {
        Some(patterns) => beside_patterns(&mut report, args, &mut one, patterns)?,
        None => beside_topics(&mut report, args, &mut one)?,
    };
    report.faults(faults, &one);
    Ok(report.print(args.target.json))
}

/// Publishes to the one topic: before, then beside many topics of which some have a reader each.
fn beside_topics(report: &mut Report, args: &TopicsArgs, one: &mut Load) -> anyhow::Result<Faults> {
    let alone = send(one, &args.sending)?;

    // As many events first, so that caches are as full before as they will be after.
    let mut sending = args.sending.clone();
    sending.events = Some(u64::from(args.topics));
    sending.rate = None;
    send(one, &sending)?;
    let server = one.server.clone();
    let before = server
        .as_ref()
        .map(|server| settled(one, server))
        .transpose()?;
    let shape = Shape {
        readers: args.feeds.min(args.topics as usize),
        topics: args.topics,
        topic_end: "/other/live".to_owned(),
        connections: args.sending.connections,
        interest: Interest::default(),
        array: None,
    };
    let mut many = Load::new(&args.target, &shape)?;
    // One event each, one topic after the other.
    many.start(Some(1e9), u64::from(args.topics), u64::MAX);
    many.settle()?;
    many.check_refused()?;
    let after = server
        .as_ref()
        .map(|server| settled(&mut many, server))
        .transpose()?;
    many.open_readers(0..shape.readers)?;
    // They join after their topic's first event.
    many.skip_sent();
    many.probe()?;

    let beside = send(one, &args.sending)?;
    report.add("topics", json!(args.topics));
    report.add("feeds", json!(shape.readers));
    compare(report, &alone, &beside)?;
    let growth = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before));
    let per_topic = growth.map(|bytes| bytes as f64 / f64::from(args.topics.max(1)));
    report.maybe("bytes_per_topic", per_topic);
    Ok(both(one.faults(), many.faults()))
}

/// Publishes to the one topic beside few readers with a pattern each, then beside many.
fn beside_patterns(
    report: &mut Report,
    args: &TopicsArgs,
    one: &mut Load,
    patterns: usize,
) -> anyhow::Result<Faults> {
    let shape = Shape {
        readers: patterns,
        topics: 1,
        topic_end: String::new(),
        connections: 1,
        interest: Interest::default(),
        array: None,
    };
    let few = FEW_PATTERNS.min(patterns);
    let mut others = Load::new(&args.target, &shape)?;
    let below = one.topic(0).trim_end_matches("/one/live").to_owned();
    others.patterns_below = Some(below);
    others.open_readers(0..few)?;
    let beside_few = send(one, &args.sending)?;
    others.open_readers(few..patterns)?;
    let beside_many = send(one, &args.sending)?;
    // Their streams are alive, and none of the events was for them.
    others.turn()?;
    others.check_readers()?;
    report.add("patterns", json!(patterns));
    report.add("patterns_before", json!(few));
    compare(report, &beside_few, &beside_many)?;
    Ok(both(one.faults(), others.faults()))
}

fn compare(report: &mut Report, before: &Measured, after: &Measured) -> anyhow::Result<()> {
    let rate = |measured: &Measured| measured.publishes as f64 / measured.seconds.max(1e-9);
    report.number("publishes_per_s_before", rate(before));
    report.number("publishes_per_s", rate(after));
    let slower = (rate(after) > 0.0).then(|| rate(before) / rate(after));
    report.number("times_slower", slower.context("nothing was published")?);
    let cpu = |measured: &Measured| {
        let each = measured.publishes.max(1) as f64;
        measured.cpu_s.map(|cpu| cpu * 1e6 / each)
    };
    report.maybe("cpu_us_per_publish_before", cpu(before));
    report.maybe("cpu_us_per_publish", cpu(after));
    Ok(())
}

fn both(one: Faults, other: Faults) -> Faults {
    Faults {
        gaps: one.gaps + other.gaps,
        duplicates: one.duplicates + other.duplicates,
        disorder: one.disorder + other.disorder,
        strays: one.strays + other.strays,
    }
}
