//! What is kept for how long, and the end.

use super::*;
use std::cell::RefCell;

laws! {
    async fn no_position_is_used_twice<E: Engine>() {
        let (clock, engine) = open_with::<E>(|options| {
            options.retention.default.age_max_ms = Some(1_000);
        });
        let log = engine.log();
        let mut seen = HashSet::new();
        for round in 0..3 {
            for _ in 0..5 {
                assert!(seen.insert(put(log, "a", "x").await), "round {round}");
            }
            clock.advance(2_000);
            engine.sweep().await;
            assert!(kept(log, &["**"]).await.events.is_empty());
            assert_eq!(log.bounds().head, seen.iter().map(|c| c.position).max().unwrap());
            let cursor = Cursor { position: log.bounds().head, epoch: log.bounds().epoch };
            assert!(after(log, cursor, &["a"]).await.gaps.is_empty());
        }
        assert_eq!(seen.len(), 15);
    }

    async fn time_does_not_fall<E: Engine>() {
        let (clock, engine) = open::<E>();
        let log = engine.log();
        put(log, "a", "0").await;
        clock.back(5_000);
        put(log, "a", "1").await;
        clock.advance(5_001);
        put(log, "a", "2").await;
        let times: Vec<_> = kept(log, &["a"]).await.events.iter().map(|e| e.time_ms).collect();
        assert_eq!(times, [NEW_YEAR, NEW_YEAR, NEW_YEAR + 1]);
    }

    async fn retention_by_age<E: Engine>() {
        let (clock, engine) = open_with::<E>(|options| {
            options.retention.default.age_max_ms = Some(10_000);
            options.retention.rules = vec![rule("kept/*", UNLIMITED)];
        });
        let log = engine.log();
        let first = put(log, "a", "0").await;
        put(log, "kept/a", "k").await;
        clock.advance(5_000);
        put(log, "a", "1").await;
        clock.advance(5_000);
        engine.sweep().await;
        assert_eq!(kept(log, &["**"]).await.data(), ["0", "k", "1"]);
        clock.advance(1);
        engine.sweep().await;
        assert_eq!(kept(log, &["**"]).await.data(), ["k", "1"]);
        clock.advance(5_000);
        engine.sweep().await;
        assert_eq!(kept(log, &["**"]).await.data(), ["k"]);
        assert_eq!(after(log, first, &["a"]).await.gaps, [REMOVED]);
        assert_eq!(after(log, first, &["kept/*"]).await.gaps, []);
    }

    async fn retention_by_number<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("a/*", 10));
        let log = engine.log();
        for n in 0..4 {
            append(log, (0..7).map(|i| draft("a/x", &format!("{n}{i}"))).collect()).await;
            append(log, vec![draft("a/y", "y"), draft("b", "b")]).await;
            engine.sweep().await;
        }
        let kept_x = kept(log, &["a/x"]).await;
        assert_eq!(kept_x.data(), ["24", "25", "26", "30", "31", "32", "33", "34", "35", "36"]);
        assert_eq!(kept(log, &["a/y", "b"]).await.events.len(), 8);
    }

    async fn retention_by_bytes<E: Engine>() {
        let (_, engine) = open_with::<E>(|options| {
            options.retention.default.bytes_max = Some(1_000);
        });
        let log = engine.log();
        for n in 0..9 {
            put(log, "a", &n.to_string().repeat(136)).await;
        }
        engine.sweep().await;
        // Each costs 200.
        let left: Vec<_> = kept(log, &["a"]).await.data().iter().map(|d| d[..1].to_owned()).collect();
        assert_eq!(left, ["4", "5", "6", "7", "8"]);
        // The newest stays, however large.
        put(log, "a", &"x".repeat(5_000)).await;
        engine.sweep().await;
        assert_eq!(kept(log, &["a"]).await.events.len(), 1);
    }

    async fn the_whole_log_is_bounded<E: Engine>() {
        let (_, engine) = open_with::<E>(|options| options.retention.bytes_max = 4 << 20);
        let log = engine.log();
        let first = put(log, "first", "x").await;
        let mut all = Vec::new();
        for n in 0..16 {
            let data = format!("{n} {}", "x".repeat(8_000));
            all.extend(append(log, (0..128).map(|_| draft(&format!("t/{n}"), &data)).collect()).await);
        }
        engine.sweep().await;
        let left = kept(log, &["**"]).await;
        assert!(left.events.len() > 50, "{}", left.events.len());
        let bytes: usize = left.events.iter().map(|event| event.data.len()).sum();
        assert!(bytes <= 4 << 20, "{bytes}");
        // The oldest went, without holes.
        let newest = &all[all.len() - left.events.len()..];
        assert!(left.events.iter().map(|event| &event.cursor).eq(newest));
        assert_eq!(newest.last().unwrap().position, log.bounds().head);
        assert_eq!(after(log, first, &["t/0"]).await.gaps, [REMOVED]);
        assert_eq!(after(log, first, &["t/15"]).await.gaps, []);
        assert_eq!(after(log, first, &["first"]).await.gaps, []);
    }

    /// Past its bound the memory of emptied topics is conservative: a false gap, but never a silent loss.
    async fn forgotten_topics_may_cost_a_false_gap_only<E: Engine>() {
        let (clock, engine) = open_with::<E>(|options| {
            options.retention.default.age_max_ms = Some(1_000);
            options.retention.rules = vec![rule("kept", UNLIMITED)];
            options.emptied_topics_max = 2;
        });
        let log = engine.log();
        put(log, "kept", "0").await;
        let zero = Cursor { epoch: log.bounds().epoch, position: 0 };
        let mut ends = Vec::new();
        for n in 0..5 {
            ends.push(put(log, &format!("t/{n}"), "x").await);
            clock.advance(2_000);
            engine.sweep().await;
        }
        for n in 0..5 {
            assert_eq!(after(log, zero, &[&format!("t/{n}")]).await.gaps, [REMOVED], "{n}");
        }
        // Those still known are exact; what is kept too; after all of it nobody is told.
        assert_eq!(after(log, ends[4], &["t/4", "kept"]).await.gaps, []);
        assert_eq!(after(log, ends[3], &["t/4"]).await.gaps, [REMOVED]);
        assert_eq!(after(log, zero, &["kept"]).await.gaps, []);
        assert_eq!(after(log, ends[4], &["t/**"]).await.gaps, []);
        assert_eq!(after(log, ends[2], &["t/0", "t/1", "t/2"]).await.gaps, []);
        // One that comes back still remembers that something was lost.
        put(log, "t/0", "y").await;
        assert_eq!(after(log, zero, &["t/0"]).await.gaps, [REMOVED]);
        assert_eq!(after(log, ends[4], &["t/0"]).await.gaps, []);
    }

    async fn after_close_there_is_no_append<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let last = put(log, "a", "x").await;
        log.close().await;
        log.close().await;
        assert_eq!(try_append(log, vec![draft("a", "y")]).await, Err(AppendError::Unavailable));
        assert_eq!(log.bounds().head, last.position);
        assert!(log.tail().groups.recv().await.is_none());
    }

    /// It ends with what found room in it.
    async fn a_tail_that_nobody_reads_does_not_hold_up_the_end<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let mut tail = log.tail();
        let stored = RefCell::new(Vec::new());
        let fill = async {
            loop {
                match try_append(log, vec![draft("a", "x")]).await {
                    Ok(outcomes) => stored.borrow_mut().extend(outcomes),
                    Err(error) => break error,
                }
            }
        };
        let close = async {
            while tail.groups.len() < TAIL_GROUPS {
                tokio::task::yield_now().await;
            }
            log.close().await;
        };
        let end = async { tokio::join!(fill, close) };
        let (error, ()) = in_time(Duration::from_secs(30), "an end", end).await;
        // What a journal has already may still be stored.
        assert!(matches!(error, AppendError::Unavailable | AppendError::TimedOut));
        for outcome in &stored.into_inner()[..TAIL_GROUPS] {
            let next = tail.groups.recv().await.unwrap()[0].cursor;
            assert_eq!(*outcome, Outcome::Stored(next));
        }
        assert!(tail.groups.recv().await.is_none());
    }

    /// Readers among a running publisher and retention: in order, nothing twice, and each hole told.
    async fn readers_are_consistent_under_load<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("**", 50));
        let engine = Arc::new(engine);
        let log = engine.log();
        let publish = async {
            for n in 0..300 {
                append(log, (0..7).map(|i| draft("a", &(n * 7 + i).to_string())).collect()).await;
            }
        };
        let read = async {
            let wanted = filter(&["a"]);
            let limits = PageLimits { events_max: 5, bytes_max: 1 << 20 };
            let (mut place, mut last, mut count, mut gaps) = (from(0), None::<u64>, 0, 0);
            while last != Some(2_099) {
                let page = log.read_after(place, &wanted, limits).await.unwrap();
                place = page.place;
                gaps += usize::from(page.gap.is_some());
                for (i, event) in page.events.iter().enumerate() {
                    let n: u64 = std::str::from_utf8(&event.data).unwrap().parse().unwrap();
                    let next = last.map_or(0, |last| last + 1);
                    let hole = i == 0 && page.gap.is_some();
                    assert!(if hole { n > next } else { n == next }, "{n} after {last:?}, {:?}", page.gap);
                    last = Some(n);
                    count += 1;
                }
                tokio::task::yield_now().await;
            }
            (count, gaps)
        };
        let ((), (count, _)) = tokio::join!(publish, read);
        assert!(count >= 50);
    }
}
