//! Reading: pages, and where a reader starts.

use super::*;

laws! {
    async fn pages_are_bounded_and_hold_one_at_least<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let drafts = (0..20).map(|n| draft(["a", "b"][n % 2], &"x".repeat(100))).collect();
        append(log, drafts).await;
        for texts in [&["a"][..], &["a", "c"], &["*"], &["b", "*"]] {
            let filter = filter(texts);
            let all = replay_in(log, from(0), &filter, PAGE).await.positions();
            assert!(all.len() >= 10);
            for (limits, most) in [
                (PageLimits { events_max: 3, bytes_max: 1 << 20 }, 3),
                (PageLimits { events_max: 100, bytes_max: 250 }, 2),
                (PageLimits { events_max: 100, bytes_max: 1 }, 1),
                (PageLimits { events_max: 0, bytes_max: 0 }, 1),
            ] {
                let page = log.read_after(from(0), &filter, limits).await.unwrap();
                assert_eq!(page.events.len(), most, "{texts:?} {limits:?}");
                assert!(!page.at_head);
                let next = page.events[most - 1].cursor.position..all[most];
                assert!(next.contains(&page.place.position));
                assert_eq!(replay_in(log, from(0), &filter, limits).await.positions(), all);
            }
        }
    }

    /// Rows that do not match are passed in bounded steps.
    async fn a_reader_gets_past_what_it_does_not_want<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        for _ in 0..3 {
            append(log, (0..5_000).map(|n| draft(&format!("noise/{}", n % 500), "x")).collect()).await;
        }
        let wanted = put(log, "quiet/a", "at last").await;
        put(log, "noise/0", "x").await;
        for texts in [&["quiet/a"][..], &["quiet/*"], &["*/a", "quiet/b"]] {
            let replay = replay(log, from(0), texts).await;
            assert_eq!(replay.positions(), [wanted.position], "{texts:?}");
            assert_eq!(replay.place.position, log.bounds().head, "{texts:?}");
        }
        assert_eq!(replay(log, from(0), &["noise/*"]).await.events.len(), 15_001);
        assert_eq!(replay(log, from(0), &["noise/7"]).await.events.len(), 30);
        let many: Vec<_> = (0..300).map(|n| format!("noise/{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(replay(log, from(0), &many).await.events.len(), 9_001);
    }

    async fn an_event_that_several_match_comes_once<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        for n in 0..10 {
            put(log, ["a/b", "a/c", "d"][n % 3], &n.to_string()).await;
        }
        let replay = replay(log, from(0), &["a/*", "a/b", "a/**", "*/b"]).await;
        assert_eq!(replay.data(), ["0", "1", "3", "4", "6", "7", "9"]);
    }

    async fn a_start_from_a_cursor<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let cursors = append(log, (0..10).map(|n| draft(["a", "b"][n % 2], &n.to_string())).collect()).await;
        assert_eq!(after(log, cursors[3], &["a"]).await.data(), ["4", "6", "8"]);
        assert_eq!(after(log, cursors[3], &["*"]).await.data(), ["4", "5", "6", "7", "8", "9"]);
        assert!(after(log, cursors[9], &["*"]).await.events.is_empty());
        let head = cursors[9];
        for wrong in [
            Cursor { epoch: head.epoch ^ 1, ..head },
            Cursor { position: head.position + 1, ..head },
            Cursor { position: u64::MAX, ..head },
        ] {
            let (gap, replay) = start(log, Start::Cursor(wrong), &["a"]).await;
            assert_eq!(gap, Some(StartGap::Epoch));
            assert_eq!(replay.data(), ["0", "2", "4", "6", "8"]);
            assert!(replay.gaps.is_empty());
        }
    }

    async fn a_start_from_an_own_id<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("c", 1));
        let log = engine.log();
        append(log, vec![
            owned("a", "1", "x"), owned("b", "2", "y"), owned("a", "3", "y"), owned("a", "4", "x"),
            owned("c", "5", "z"),
        ]).await;
        let id = |text| Start::OwnId(OwnId::parse(text).unwrap());
        // The oldest within the filter counts.
        for (own_id, texts, data) in [
            ("x", &["a"][..], &["3", "4"][..]),
            ("y", &["a"], &["4"]),
            ("y", &["a", "b"], &["3", "4"]),
            ("y", &["*"], &["3", "4", "5"]),
        ] {
            let (gap, replay) = start(log, id(own_id), texts).await;
            assert_eq!((gap, replay.gaps.len()), (None, 0));
            assert_eq!(replay.data(), data, "{own_id} {texts:?}");
        }
        put(log, "c", "6").await;
        engine.sweep().await;
        for (own_id, texts) in [("nobody", &["*"][..]), ("x", &["b"]), ("z", &["*"]), ("z", &["c"])] {
            let (gap, replay) = start(log, id(own_id), texts).await;
            assert_eq!(gap, Some(StartGap::Unknown), "{own_id} {texts:?}");
            assert!(replay.gaps.is_empty() && !replay.events.is_empty());
            assert_eq!(Some(replay.events[0].cursor), log.oldest(&filter(texts)).await.unwrap());
        }
    }

    async fn a_start_at_a_time<E: Engine>() {
        let (clock, engine) = open_with::<E>(events_max("a", 3));
        let log = engine.log();
        for n in 0..6 {
            put(log, ["a", "b"][n % 2], &n.to_string()).await;
            clock.advance(1_000);
        }
        let at = |s: u64| Start::Since(NEW_YEAR + s * 1_000);
        for (since, data) in [
            (0, &["0", "2", "4"][..]), (2, &["2", "4"]), (3, &["4"]), (4, &["4"]), (5, &[]), (60, &[]),
        ] {
            let (gap, replay) = start(log, at(since), &["a"]).await;
            assert_eq!((gap, replay.data().as_slice()), (None, data), "{since}");
        }
        put(log, "a", "6").await;
        engine.sweep().await;
        // 0, at second 0, is gone: who asks from then on has to know, later not, and others never.
        let (gap, replay) = start(log, at(0), &["a"]).await;
        assert_eq!((gap, replay.data()), (Some(StartGap::Expired), vec!["2", "4", "6"]));
        assert!(replay.gaps.is_empty(), "told twice");
        assert_eq!(start(log, at(1), &["*"]).await.0, None);
        assert_eq!(start(log, at(0), &["*"]).await.0, Some(StartGap::Expired));
        let (gap, replay) = start(log, at(0), &["b"]).await;
        assert_eq!((gap, replay.data()), (None, vec!["1", "3", "5"]));
    }

    async fn a_start_with_the_newest<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("a", 3));
        let log = engine.log();
        for n in 0..10 {
            put(log, ["a", "b"][n % 2], &n.to_string()).await;
        }
        engine.sweep().await;
        for (count, texts, data) in [
            (2, &["a"][..], &["6", "8"][..]),
            (3, &["a"], &["4", "6", "8"]),
            (99, &["a"], &["4", "6", "8"]),
            (2, &["*"], &["8", "9"]),
            (4, &["a", "b"], &["6", "7", "8", "9"]),
            (0, &["*"], &[]),
            (5, &["none"], &[]),
        ] {
            let (gap, replay) = start(log, Start::Tail(count), texts).await;
            assert_eq!((gap, replay.gaps.len()), (None, 0));
            assert_eq!(replay.data(), data, "{count} {texts:?}");
        }
        assert_eq!(kept(log, &["a"]).await.data(), ["4", "6", "8"]);
    }

    async fn the_oldest_is_the_filters<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("a", 1));
        let log = engine.log();
        let cursors = append(log, vec![draft("a", "1"), draft("b", "2"), draft("a", "3"), draft("c/d", "4")]).await;
        engine.sweep().await;
        for (texts, n) in [(&["a"][..], 2), (&["b"], 1), (&["*"], 1), (&["c/*"], 3), (&["a", "c/d"], 2)] {
            assert_eq!(log.oldest(&filter(texts)).await, Ok(Some(cursors[n])), "{texts:?}");
        }
        assert_eq!(log.oldest(&filter(&["none", "none/*"])).await, Ok(None));
    }
}
