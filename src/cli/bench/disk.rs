//! `tidings bench disk`: the two bounds of a durable log on this machine, without a hub. How long one fsync takes, and
//! what SQLite does with nothing around it: the same tables, one thread, groups as large as the hub's.

use super::{args::DiskArgs, meter::Times, report::Report, system};
use anyhow::Context as _;
use rusqlite::{Connection, params_from_iter, types::Value};
use serde_json::json;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};
use tidings::{Server, config::Config, event::Draft, log::sqlite, topic::Topic};

/// What one small commit writes, and the file it goes around in: as SQLite's write-ahead file.
const WRITE_BYTES: usize = 8 << 10; // 8 KiB
const FILE_BYTES: usize = 8 << 20; // 8 MiB

/// Between two fsyncs, for the first of the two figures: a hub with little to do.
const PAUSE: Duration = Duration::from_millis(10);

/// Events in one transaction: the hub's bound.
const GROUP_EVENTS: usize = 1_024;

pub(super) fn run(args: &DiskArgs) -> anyhow::Result<ExitCode> {
    if let Some(cpu) = args.cpu {
        system::pin(cpu)?;
    }
    let dir = args
        .dir
        .join(format!("tidings-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let report = measure(args, &dir);
    // Whatever came of it, nothing is left.
    let removed = fs::remove_dir_all(&dir);
    let report = report?;
    removed.with_context(|| format!("cannot remove {}", dir.display()))?;
    Ok(report.print(args.json))
}

fn measure(args: &DiskArgs, dir: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("disk");
    report.add("write_bytes", json!(WRITE_BYTES));
    let file = dir.join("file");
    report.times("fsync", &fsyncs(&file, args.seconds, PAUSE)?);
    let busy = fsyncs(&file, args.seconds, Duration::ZERO)?;
    report.times("fsync_busy", &busy);
    report.number(
        "fsyncs_per_s",
        busy.count() as f64 / args.seconds.as_secs_f64(),
    );
    report.add("size_bytes", json!(args.size));
    report.add("group_events", json!(GROUP_EVENTS));
    let rate = sqlite_rate(&dir.join("log"), args.size, args.seconds)?;
    report.number("sqlite_events_per_s", rate);
    Ok(report)
}

/// Writes and flushes pieces of a file, one after the other.
fn fsyncs(path: &Path, seconds: Duration, pause: Duration) -> anyhow::Result<Times> {
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)?;
    file.write_all_at(&vec![1; FILE_BYTES], 0)?;
    file.sync_all()?;
    let piece = vec![2; WRITE_BYTES];
    let mut times = Times::new()?;
    let begun = Instant::now();
    let mut at = 0;
    while begun.elapsed() < seconds {
        let before = Instant::now();
        file.write_all_at(&piece, at)?;
        file.sync_data()?;
        times.note_ns(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
        at = (at + WRITE_BYTES as u64) % FILE_BYTES as u64;
        thread::sleep(pause);
    }
    Ok(times)
}

/// Events a second into tables as the hub makes them.
fn sqlite_rate(dir: &Path, size: usize, seconds: Duration) -> anyhow::Result<f64> {
    make_log(dir, size)?;
    let conn = Connection::open(dir.join(sqlite::FILE))?;
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.query_row("PRAGMA wal_autocheckpoint = 2048", [], |_| Ok(()))?; // 8 MiB
    conn.pragma_update(None, "cache_size", -32_768)?; // 32 MiB

    // One row is there: the others are like it, whatever columns there are.
    let (names, mut row) = conn.query_row("SELECT * FROM events", [], |row| {
        let names = row.as_ref().column_names();
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let values: Result<Vec<Value>, _> = (0..names.len()).map(|at| row.get(at)).collect();
        Ok((names, values?))
    })?;
    let count_in = |column: &str| names.iter().position(|name| name == column);
    let position = count_in("position").context("the log's table has no position")?;
    let counted = [Some(position), count_in("seq")];
    let places = vec!["?"; names.len()].join(", ");
    let mut insert = conn.prepare(&format!(
        "INSERT INTO events ({}) VALUES ({places})",
        names.join(", ")
    ))?;
    let begun = Instant::now();
    let mut events = 0;
    while begun.elapsed() < seconds {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..GROUP_EVENTS {
            for at in counted.into_iter().flatten() {
                if let Value::Integer(number) = &mut row[at] {
                    *number += 1;
                }
            }
            insert.execute(params_from_iter(&row))?;
        }
        conn.execute_batch("COMMIT")?;
        events += GROUP_EVENTS;
    }
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}

/// A log with one event in it.
fn make_log(dir: &Path, size: usize) -> anyhow::Result<()> {
    let config = Config {
        data_dir: dir.to_owned(),
        ..Config::default()
    };
    super::super::block_on(async {
        let server = Server::open(&config).await?;
        let draft = Draft::new(Topic::parse("bench")?, ".".repeat(size));
        let outcomes = server.ingest().publish(vec![draft], true).await;
        server.close().await;
        outcomes.context("the log took no event")?;
        Ok(())
    })
}
