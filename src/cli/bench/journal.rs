//! `tidings bench journal`: a broker by its client library alone, driven as a node drives it, without a node. It is what
//! a cluster's figures are compared with.

use super::{
    args::{JournalArgs, JournalMode},
    meter::Times,
    report::Report,
    system,
};
use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use std::{
    collections::VecDeque,
    process::ExitCode,
    time::{Duration, Instant},
};
use tidings::{
    cluster::{
        journal::{Acknowledgement, ConnectError, EntryTail, Journal, Sealed, Session, Tailed},
        journal_at,
    },
    config::{ClusterConfig, Config},
    server::journal_options,
};
use tokio::time::timeout;

/// A broker is waited for so long, and asked so often.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A tail that is silent for so long has come to the end.
const SILENCE: Duration = Duration::from_millis(500);

/// What an entry of this program's begins with: when it was sent, in nanoseconds of the run.
const STAMP_BYTES: usize = 8;

pub(super) fn run(args: &JournalArgs) -> anyhow::Result<ExitCode> {
    let entry_bytes = args.size.saturating_mul(args.records);
    anyhow::ensure!(
        entry_bytes >= STAMP_BYTES && args.outstanding > 0 && args.rate > 0.0,
        "--size, --records, --outstanding and --rate: expected more"
    );
    if let Some(cpu) = args.cpu {
        system::pin(cpu)?;
    }
    let name = args.name.clone();
    let name = name.unwrap_or_else(|| format!("bench-{:08x}", rand::random::<u32>()));
    let config = Config {
        cluster: ClusterConfig {
            name,
            journal_bytes_max: Some(args.bytes_max),
            ..ClusterConfig::default()
        },
        ..Config::default()
    };
    let report = super::super::block_on(async {
        let journal = journal_at(&args.url, &journal_options(&config)?)?;
        let session = connect(&*journal).await?;
        let mut report = Report::new("journal");
        report.add("journal", json!(journal.describe()));
        report.add("size_bytes", json!(args.size));
        report.add("records", json!(args.records));
        match args.what {
            JournalMode::Append => append(args, &*session, &mut report).await?,
            JournalMode::Tail => tail(args, &*session, &mut report).await?,
            JournalMode::Latency => latency(args, &*session, &mut report).await?,
        }
        Ok(report)
    })?;
    Ok(report.print(args.json))
}

/// A broker that was just started may not be ready.
async fn connect(journal: &dyn Journal) -> anyhow::Result<Box<dyn Session>> {
    let begun = Instant::now();
    loop {
        match journal.connect().await {
            Err(ConnectError::Unavailable(_)) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            connected => {
                return connected.with_context(|| format!("cannot use {}", journal.describe()));
            }
        }
    }
}

/// Entries with nothing in them but their time, numbered.
struct Entries {
    begun: Instant,
    bytes: Vec<u8>,
    writer: u64,
    number: u64,
}

impl Entries {
    fn new(args: &JournalArgs) -> Self {
        Self {
            begun: Instant::now(),
            bytes: vec![b'.'; args.size * args.records],
            writer: rand::random(),
            number: 0,
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    async fn send(&mut self, session: &dyn Session) -> anyhow::Result<Acknowledgement> {
        let now = self.now_ns();
        self.bytes[..STAMP_BYTES].copy_from_slice(&now.to_be_bytes());
        self.number += 1;
        let entry = Sealed {
            epoch: 0,
            begins: None,
            writer: self.writer,
            number: self.number,
            attempt: 0,
            time_ms: jiff::Timestamp::now().as_millisecond().cast_unsigned(),
            bytes: Bytes::copy_from_slice(&self.bytes),
        };
        Ok(session.append(&entry).await?)
    }
}

/// Keeps so many entries on their way.
async fn append(
    args: &JournalArgs,
    session: &dyn Session,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut entries = Entries::new(args);
    let mut on_their_way = VecDeque::with_capacity(args.outstanding);
    let (mut warm, mut count) = (false, 0);
    let mut begun = Instant::now();
    let limit = |warm| if warm { args.seconds } else { args.warmup };
    loop {
        if begun.elapsed() >= limit(warm) {
            if warm {
                break;
            }
            (warm, count, begun) = (true, 0, Instant::now());
        }
        while on_their_way.len() < args.outstanding {
            on_their_way.push_back(entries.send(session).await?);
        }
        if let Some(oldest) = on_their_way.pop_front() {
            oldest.await?;
            count += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for entry in on_their_way {
        entry.await?;
    }
    report.add("outstanding", json!(args.outstanding));
    report.number("seconds", seconds);
    report.number("entries_per_s", count as f64 / seconds);
    report.number("publishes_per_s", (count * args.records) as f64 / seconds);
    Ok(())
}

/// Reads what is there.
async fn tail(
    args: &JournalArgs,
    session: &dyn Session,
    report: &mut Report,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut entries, mut bytes, mut last) = (0_u64, 0, begun);
    let mut tail = session.tail(0).await?;
    while let Ok(next) = timeout(SILENCE, tail.next()).await {
        if let Tailed::Entries(list) = next? {
            entries += list.len() as u64;
            bytes += list.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            last = Instant::now();
        }
    }
    anyhow::ensure!(entries > 0, "the journal has no entry");
    let seconds = (last - begun).as_secs_f64().max(1e-9);
    report.number("seconds", seconds);
    report.add("entries", json!(entries));
    report.add("bytes", json!(bytes));
    let events = args.events.unwrap_or(entries * args.records as u64);
    report.number("entries_per_s", entries as f64 / seconds);
    report.number("events_per_s", events as f64 / seconds);
    Ok(())
}

/// Appends at a rate, and notes how long each entry takes until it comes.
async fn latency(
    args: &JournalArgs,
    session: &dyn Session,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut entries = Entries::new(args);
    let begun = entries.begun;
    let end = session.ends().await?.last;
    let mut tail = session.tail(end).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate));
    let total = ((args.warmup + args.seconds).as_secs_f64() * args.rate) as u64;
    let warmup_ns = u64::try_from(args.warmup.as_nanos()).unwrap_or(u64::MAX);
    let mut times = Times::new()?;
    let mut note = |list: Vec<(u64, Bytes)>| {
        let now = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for (_, bytes) in &list {
            let stamp = bytes.first_chunk::<STAMP_BYTES>();
            let sent = stamp.map_or(0, |stamp| u64::from_be_bytes(*stamp));
            if sent >= warmup_ns {
                times.note_ns(now.saturating_sub(sent));
            }
        }
        list.len() as u64
    };
    let (mut on_their_way, mut sent, mut came) = (VecDeque::new(), 0, 0);
    while came < total {
        tokio::select! {
            biased;
            next = next_entries(&mut *tail) => came += note(next?),
            _ = ticks.tick(), if sent < total => {
                on_their_way.push_back(entries.send(session).await?);
                sent += 1;
            }
            acknowledged = oldest(&mut on_their_way) => {
                acknowledged?;
                on_their_way.pop_front();
            }
        }
    }
    report.add("rate", json!(args.rate));
    report.times("latency", &times);
    Ok(())
}

async fn next_entries(tail: &mut dyn EntryTail) -> anyhow::Result<Vec<(u64, Bytes)>> {
    loop {
        if let Tailed::Entries(list) = tail.next().await? {
            return Ok(list);
        }
    }
}

/// The answer to the oldest; dropping the future loses nothing.
async fn oldest(on_their_way: &mut VecDeque<Acknowledgement>) -> anyhow::Result<()> {
    match on_their_way.front_mut() {
        Some(oldest) => {
            oldest.await?;
            Ok(())
        }
        None => std::future::pending().await,
    }
}
