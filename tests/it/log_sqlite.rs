//! What only the durable engine promises: over a restart, on a damaged file, within its files' bound.

use crate::log_support::{
    ManualClock, PAGE, UNLIMITED, after, append, close, draft, filter, full, join_all, kept, keyed,
    options, put, replay, replay_in, rule, start, try_append,
};
use rusqlite::Connection;
use std::path::Path;
use tempfile::TempDir;
use tidings::{
    cursor::Cursor,
    log::{
        Bounds, EventLog, LogOptions, Loss, Outcome, PageGap, PageLimits, Place, ReadError, Start,
        StartGap,
        retention::Limits,
        sqlite::{self, Durability, OpenError, SqliteLog},
    },
};

const BEGIN: Place = Place {
    position: 0,
    removal: 0,
};

struct Bench {
    dir: TempDir,
    clock: ManualClock,
    options: LogOptions,
    durability: Durability,
}

impl Bench {
    fn new() -> Self {
        let clock = ManualClock::new();
        Self {
            dir: tempfile::tempdir().unwrap(),
            options: options(&clock),
            clock,
            durability: Durability::Sync,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join(sqlite::FILE)
    }

    fn open(&self) -> SqliteLog {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<SqliteLog, OpenError> {
        SqliteLog::open(self.dir.path(), self.durability, self.options.clone())
    }

    /// A copy of the files as they are, as a crash of the process would leave them.
    fn crashed(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for name in [sqlite::FILE, "log.sqlite-wal"] {
            let from = self.dir.path().join(name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        Self {
            dir: copy,
            clock: self.clock.clone(),
            options: self.options.clone(),
            durability: self.durability,
        }
    }

    /// Changes the closed file from outside.
    fn sql(&self, sql: &str) {
        Connection::open(self.path())
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    }
}

fn corrupt(missed: u64) -> PageGap {
    PageGap {
        loss: Loss::Corrupt,
        missed: Some(missed),
    }
}

#[tokio::test]
async fn all_is_there_after_a_restart() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, vec![full("a/b", "1\n2"), draft("c", "")]).await;
    let before = (kept(&log, &["**"]).await, log.bounds());
    close(&log).await;
    let log = bench.open();
    let after = (kept(&log, &["**"]).await, log.bounds());
    assert_eq!(before.1, after.1);
    assert_eq!(before.0.events.len(), 2);
    for (a, b) in before.0.events.iter().zip(&after.0.events) {
        assert_eq!(
            (a.cursor, a.time_ms, &a.topic, &a.event),
            (b.cursor, b.time_ms, &b.topic, &b.event)
        );
        assert_eq!(
            (&a.own_id, a.retry_ms, &a.data),
            (&b.own_id, b.retry_ms, &b.data)
        );
    }
    assert_eq!(log.tail().from, 2);
    assert_eq!(put(&log, "a/b", "3").await.position, 3);
}

/// What was answered is in the files, closed or not.
#[tokio::test]
async fn all_is_there_after_a_crash() {
    let bench = Bench::new();
    let log = bench.open();
    for n in 0..50 {
        put(&log, "a", &n.to_string()).await;
    }
    let crashed = bench.crashed();
    let copy = crashed.open();
    assert_eq!(copy.bounds(), log.bounds());
    assert_eq!(kept(&copy, &["a"]).await.events.len(), 50);
}

#[tokio::test]
async fn a_second_user_is_refused() {
    let bench = Bench::new();
    let log = bench.open();
    for _ in 0..2 {
        let Err(error) = bench.try_open() else {
            panic!("opened twice");
        };
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(matches!(error, OpenError::InUse { pid: Some(_), .. }));
    }
    assert!(matches!(
        sqlite::new_epoch(bench.dir.path()),
        Err(OpenError::InUse { .. })
    ));
    close(&log).await;
    bench.open();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let bench = Bench::new();
    close(&bench.open()).await;
    bench.sql("PRAGMA user_version = 7");
    let found = bench.try_open().map(|_| ());
    assert!(
        matches!(
            found,
            Err(OpenError::Newer {
                found: 7,
                known: 1,
                ..
            })
        ),
        "{found:?}"
    );
}

#[tokio::test]
async fn what_is_no_log_is_refused() {
    for bytes in [
        b"not a database, whatever its name says, but long".repeat(40),
        Vec::new(),
    ] {
        let bench = Bench::new();
        std::fs::write(bench.path(), &bytes).unwrap();
        let found = bench.try_open().map(|_| ());
        // An empty file is what a crash right after creating it leaves.
        let right =
            matches!(found, Err(OpenError::Damaged { .. })) || bytes.is_empty() && found.is_ok();
        assert!(right, "{found:?}");
    }
    let other = Bench::new();
    other.sql("CREATE TABLE mine (x); PRAGMA user_version = 1");
    let found = other.try_open().map(|_| ());
    assert!(matches!(found, Err(OpenError::Damaged { .. })), "{found:?}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_refused() {
    let bench = Bench::new();
    let file = bench.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let found = SqliteLog::open(&file.join("below"), Durability::Sync, bench.options);
    let Err(error) = found else {
        panic!("opened below a file");
    };
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
}

#[tokio::test]
async fn keys_outlive_a_restart_and_their_events() {
    let mut bench = Bench::new();
    bench.options.retention.default.events_max = Some(1);
    bench.options.emptied_topics_max = 0;
    let log = bench.open();
    let first = append(&log, vec![keyed("a", "x", "k")]).await[0];
    append(&log, vec![keyed("b", "x", "k")]).await;
    put(&log, "a", "y").await;
    close(&log).await;
    bench.options.retention.default.age_max_ms = Some(1);
    bench.clock.advance(1_000);
    let log = bench.open();
    log.sweep().await;
    assert!(kept(&log, &["**"]).await.events.is_empty());
    // Even the topic is forgotten.
    let again = try_append(&log, vec![keyed("a", "x", "k"), keyed("b", "y", "k")]).await;
    assert_eq!(
        again,
        Ok(vec![Outcome::Duplicate(first), Outcome::Conflict])
    );
}

#[tokio::test]
async fn positions_and_time_go_on_after_all_was_removed() {
    let mut bench = Bench::new();
    bench.options.retention.default.age_max_ms = Some(1_000);
    let log = bench.open();
    for n in 0..5 {
        put(&log, "a", &n.to_string()).await;
    }
    let time = kept(&log, &["a"]).await.events[4].time_ms;
    let last = log.bounds();
    bench.clock.advance(5_000);
    log.sweep().await;
    close(&log).await;
    bench.clock.back(60_000);
    let log = bench.open();
    let removed_to = last.head;
    assert_eq!(log.bounds(), Bounds { removed_to, ..last });
    assert_eq!(log.oldest(&filter(&["**"])).await, Ok(None));
    let next = put(&log, "a", "5").await;
    assert_eq!(next.position, last.head + 1);
    let kept = kept(&log, &["a"]).await;
    assert_eq!((kept.events.len(), kept.events[0].time_ms), (1, time));
    let begin = Cursor {
        position: 1,
        ..next
    };
    assert_eq!(after(&log, begin, &["a"]).await.gaps.len(), 1);
}

#[tokio::test]
async fn a_crash_of_the_machine_makes_an_epoch_when_commits_may_be_lost() {
    use Durability::{Os, Sync};
    // How it ran, how it ended, whether the machine started anew.
    for (durability, clean, other_boot, new_epoch) in [
        (Os, false, true, true),
        (Os, false, false, false),
        (Os, true, true, false),
        (Sync, false, true, false),
        (Sync, true, true, false),
    ] {
        let mut bench = Bench::new();
        bench.durability = durability;
        let log = bench.open();
        let cursor = put(&log, "a", "x").await;
        let bench = if clean {
            close(&log).await;
            bench
        } else {
            bench.crashed()
        };
        if other_boot {
            bench.sql("UPDATE meta SET boot = 'another'");
        }
        for again in [Sync, Os] {
            let log = SqliteLog::open(bench.dir.path(), again, bench.options.clone()).unwrap();
            let changed = log.bounds().epoch != cursor.epoch;
            assert_eq!(changed, new_epoch, "{durability:?} {clean} {other_boot}");
            let (gap, replay) = start(&log, Start::Cursor(cursor), &["a"]).await;
            assert_eq!(gap, new_epoch.then_some(StartGap::Epoch));
            assert_eq!(replay.events.len(), usize::from(new_epoch));
            close(&log).await;
        }
    }
}

#[tokio::test]
async fn a_new_epoch_on_request() {
    let bench = Bench::new();
    let log = bench.open();
    let cursor = put(&log, "a", "x").await;
    close(&log).await;
    let (old, new) = sqlite::new_epoch(bench.dir.path()).unwrap();
    assert_eq!(old, cursor.epoch);
    assert_ne!(old, new);
    let log = bench.open();
    assert_eq!(log.bounds().epoch, new);
    assert_eq!(
        start(&log, Start::Cursor(cursor), &["a"]).await.0,
        Some(StartGap::Epoch)
    );
}

/// What a crash left beside a restored backup would be mixed into it.
#[tokio::test]
async fn no_new_epoch_over_what_a_crash_left() {
    let bench = Bench::new();
    let log = bench.open();
    put(&log, "a", "x").await;
    close(&log).await;
    let wal = bench.dir.path().join("log.sqlite-wal");
    std::fs::write(&wal, "left").unwrap();
    let error = sqlite::new_epoch(bench.dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Unfinished { .. }), "{error}");
    assert!(error.to_string().contains("delete it"), "{error}");
    std::fs::remove_file(wal).unwrap();
    sqlite::new_epoch(bench.dir.path()).unwrap();
}

/// Each field of a row, changed behind the log's back, in each way of reading.
#[tokio::test]
async fn a_damaged_row_is_a_gap() {
    for change in [
        "data = CAST('e' AS BLOB)",
        "data = x''",
        "time_ms = time_ms + 1",
        "seq = seq + 1",
        "bytes = 0",
        "event = 'other'",
        "own_id = 'other'",
        "retry_ms = 0",
        "crc = crc + 1",
        "topic = 99",
    ] {
        let bench = Bench::new();
        let log = bench.open();
        let drafts = (0..10).map(|n| full(["a", "b"][n % 2], &n.to_string()));
        append(&log, drafts.collect()).await;
        close(&log).await;
        bench.sql(&format!(
            "UPDATE events SET {change} WHERE position IN (5, 7)"
        ));
        let log = bench.open();
        // With 128 topics and more the log is walked.
        let many: Vec<_> = (0..200)
            .map(|n| format!("none/{n}"))
            .chain(["a".to_owned()])
            .collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for texts in [&["a"][..], &["a", "b"], &["*"], &many] {
            let replay = replay(&log, BEGIN, texts).await;
            let missed: u64 = replay.gaps.iter().map(|gap| gap.missed.unwrap()).sum();
            assert!(
                replay.gaps.iter().all(|gap| gap.loss == Loss::Corrupt),
                "{change} {texts:?}"
            );
            assert_eq!(missed, 2, "{change} {texts:?} {replay:?}");
            let whole: &[u64] = if texts.contains(&"b") || texts == ["*"] {
                &[1, 2, 3, 4, 6, 8, 9, 10]
            } else {
                &[1, 3, 9]
            };
            assert_eq!(replay.positions(), whole, "{change} {texts:?}");
        }
        // `b` is whole (unless its number cannot be told).
        let b = replay(&log, BEGIN, &["b"]).await;
        assert_eq!((b.gaps.len(), b.events.len()), (0, 5), "{change}");
        // And the log goes on.
        put(&log, "a", "on").await;
        log.sweep().await;
    }
}

/// A row that is gone without retention having taken it.
#[tokio::test]
async fn a_hole_is_a_gap() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, (0..9).map(|n| draft("a", &n.to_string())).collect()).await;
    close(&log).await;
    bench.sql("DELETE FROM events WHERE position IN (3, 4, 8)");
    let log = bench.open();
    for events_max in [1, 2, 3, 100] {
        let limits = PageLimits {
            events_max,
            bytes_max: 1 << 20,
        };
        let replay = replay_in(&log, BEGIN, &filter(&["a"]), limits).await;
        assert_eq!(replay.gaps, [corrupt(2), corrupt(1)], "{events_max}");
        assert_eq!(replay.positions(), [1, 2, 5, 6, 7, 9]);
    }
}

/// Bytes overwritten anywhere in the file, page by page: an error at opening, or a gap, or nothing that
/// matters; never a panic, an endless loop, or an event missing without a word.
#[tokio::test]
async fn a_damaged_page_is_an_error_or_a_gap() {
    let bench = Bench::new();
    let log = bench.open();
    for n in 0..400 {
        put(
            &log,
            ["a", "b"][n % 2],
            &format!("{n} {}", "x".repeat(40 * (n % 9))),
        )
        .await;
    }
    append(&log, vec![draft("a", &"y".repeat(20_000))]).await;
    close(&log).await;
    let whole = std::fs::read(bench.path()).unwrap();
    let pages = whole.len() / 4_096;
    assert!(pages > 20);
    let (mut refused, mut told, mut unread, mut intact) = (0, 0, 0, 0);
    for page in 0..pages {
        for (at, len) in [
            (if page == 0 { 100 } else { 0 }, 12),
            (2_000, 64),
            (4_000, 16),
        ] {
            let mut bytes = whole.clone();
            for byte in &mut bytes[page * 4_096 + at..][..len] {
                *byte ^= 0xa5;
            }
            let damaged = Bench::new();
            std::fs::write(damaged.path(), &bytes).unwrap();
            let log = match damaged.try_open() {
                Ok(log) => log,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                    continue;
                }
            };
            for texts in [&["a"][..], &["a", "b"], &["*", "none/a"]] {
                match try_replay(&log, texts).await {
                    Err(ReadError::Unavailable | ReadError::Behind) => unread += 1,
                    Ok((0, count)) => {
                        let all = if texts == ["a"] { 201 } else { 401 };
                        assert_eq!(count, all, "silent loss: page {page} at {at}, {texts:?}");
                        intact += 1;
                    }
                    Ok(_) => told += 1,
                }
            }
            // Whatever it answers, it answers.
            let _ = try_append(&log, vec![draft("a", "on"), draft("new", "x")]).await;
            log.sweep().await;
            close(&log).await;
        }
    }
    assert!(
        told > 20 && refused + intact > 0,
        "refused {refused}, told {told}, unread {unread}, intact {intact}"
    );
}

/// The number of gaps and events.
async fn try_replay(log: &SqliteLog, texts: &[&str]) -> Result<(usize, usize), ReadError> {
    let filter = filter(texts);
    let (mut place, mut gaps, mut events) = (BEGIN, 0, 0);
    for _ in 0..2_000 {
        let page = log.read_after(place, &filter, PAGE).await?;
        gaps += usize::from(page.gap.is_some());
        events += page.events.len();
        place = page.place;
        if page.at_head {
            return Ok((gaps, events));
        }
    }
    panic!("no end: {place:?}");
}

/// What the files take together.
fn size(dir: &Path) -> u64 {
    let sizes = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    sizes.sum()
}

#[tokio::test]
async fn the_files_stay_within_the_bound() {
    const BOUND: u64 = 24 << 20;
    let mut bench = Bench::new();
    bench.durability = Durability::Os;
    bench.options.retention.bytes_max = BOUND;
    let log = bench.open();
    let first = put(&log, "first", "x").await;
    let mut largest = 0;
    for n in 0..600_usize {
        let data = "x".repeat([100, 3_000, 20_000][n % 3]);
        let count = [400, 40, 8][n % 3];
        append(
            &log,
            (0..count)
                .map(|i| draft(&format!("t/{}", i % 50), &data))
                .collect(),
        )
        .await;
        // Reads hold the write-ahead file up for a moment only.
        let page = log
            .read_after(BEGIN, &filter(&["t/1"]), PAGE)
            .await
            .unwrap();
        assert!(!page.events.is_empty());
        largest = largest.max(size(bench.dir.path()));
    }
    assert!(largest <= BOUND, "{largest}");
    assert!(largest > BOUND / 2, "{largest}");
    assert_eq!(after(&log, first, &["first"]).await.gaps.len(), 0);
    assert_eq!(after(&log, first, &["t/*"]).await.gaps.len(), 1);
    close(&log).await;
    // A lower bound makes a smaller file.
    bench.options.retention.bytes_max = BOUND / 4;
    let log = bench.open();
    log.sweep().await;
    assert!(!kept(&log, &["**"]).await.events.is_empty());
    close(&log).await;
    let small = size(bench.dir.path());
    assert!(small <= BOUND / 4, "{small}");
}

/// What is too much since the bound was lowered goes by and by: no publish waits for all of it.
#[tokio::test]
async fn a_lowered_bound_does_not_hold_events_up() {
    let mut bench = Bench::new();
    bench.durability = Durability::Os;
    let log = bench.open();
    for _ in 0..300 {
        append(
            &log,
            (0..200).map(|_| draft("a", &"x".repeat(1_000))).collect(),
        )
        .await;
    }
    close(&log).await;
    bench.options.retention.bytes_max = 4 << 20;
    let log = bench.open();
    let puts = join_all((0..100).map(|_| put(&log, "b", "x"))).await;
    assert_eq!(puts.len(), 100);
    put(&log, "b", "x").await;
    let oldest = log.oldest(&filter(&["a"])).await.unwrap().unwrap();
    assert!(oldest.position < 30_000, "{oldest:?}");
    log.sweep().await;
    close(&log).await;
    assert!(size(bench.dir.path()) <= 4 << 20);
}

#[tokio::test]
async fn a_hundred_thousand_events_are_replayed_by_index() {
    let mut bench = Bench::new();
    bench.durability = Durability::Os;
    let log = bench.open();
    let mut first = None;
    for n in 0..100 {
        let drafts = (0..1_000).map(|i| draft("busy", &format!("{n} {i}")));
        let cursors = append(&log, drafts.collect()).await;
        first = first.or(Some(cursors[0]));
    }
    close(&log).await;
    let log = bench.open();
    let rest = after(&log, first.unwrap(), &["busy"]).await;
    assert_eq!((rest.gaps.len(), rest.events.len()), (0, 99_999));
    let (gap, newest) = start(&log, Start::Tail(3), &["busy"]).await;
    assert_eq!(
        (gap, newest.positions()),
        (None, vec![99_998, 99_999, 100_000])
    );
}

/// Limits that came with a restart are kept without anyone publishing.
#[tokio::test]
async fn lowered_limits_are_enforced() {
    let mut bench = Bench::new();
    let log = bench.open();
    for topic in ["a", "b", "c"] {
        append(
            &log,
            (0..300).map(|n| draft(topic, &n.to_string())).collect(),
        )
        .await;
    }
    close(&log).await;
    bench.options.retention.rules = vec![
        rule(
            "a",
            Limits {
                events_max: Some(10),
                ..UNLIMITED
            },
        ),
        rule(
            "b",
            Limits {
                bytes_max: Some(1_000),
                ..UNLIMITED
            },
        ),
    ];
    let log = bench.open();
    log.sweep().await;
    assert_eq!(kept(&log, &["a"]).await.events.len(), 10);
    assert_eq!(kept(&log, &["b"]).await.events.len(), 1_000 / 67);
    assert_eq!(kept(&log, &["c"]).await.events.len(), 300);
}

/// The periodic look around, unasked: nobody publishes, nobody sweeps.
#[tokio::test]
async fn old_events_go_by_themselves() {
    let mut bench = Bench::new();
    bench.options.retention.default.age_max_ms = Some(1_000);
    let log = bench.open();
    put(&log, "a", "x").await;
    bench.clock.advance(10_000);
    let gone = async {
        while log.oldest(&filter(&["a"])).await != Ok(None) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone)
        .await
        .unwrap();
}
