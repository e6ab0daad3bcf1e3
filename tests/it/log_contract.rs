//! The laws of `EventLog`, each as a test that every engine runs.

use crate::log_support::{
    Engine, ManualClock, Memory, NEW_YEAR, PAGE, Sqlite, UNLIMITED, after, append, draft, filter,
    full, join_all, kept, keyed, options, owned, put, replay, replay_in, rule, start, try_append,
};
use std::{collections::HashSet, sync::Arc};
use tidings::{
    cursor::Cursor,
    event::OwnId,
    log::{
        AppendError, Batch, EventLog, LogOptions, Loss, Outcome, PageGap, PageLimits, Place, Start,
        StartGap, TAIL_GROUPS, retention::Limits,
    },
};

macro_rules! laws {
    ($($(#[$doc:meta])* async fn $name:ident<E: Engine>() $body:block)*) => {
        $($(#[$doc])* async fn $name<E: Engine>() $body)*

        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<super::Memory>().await;
            })*
        }

        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<super::Sqlite>().await;
            })*
        }
    };
}

const REMOVED: PageGap = PageGap {
    loss: Loss::Removed,
    missed: None,
};

fn open<E: Engine>() -> (ManualClock, E) {
    open_with(|_| ())
}

fn open_with<E: Engine>(change: impl FnOnce(&mut LogOptions)) -> (ManualClock, E) {
    let clock = ManualClock::new();
    let mut options = options(&clock);
    change(&mut options);
    let engine = E::new(options);
    (clock, engine)
}

/// At most so many events of each topic that matches.
fn events_max(topics: &'static str, max: u64) -> impl FnOnce(&mut LogOptions) {
    let limits = Limits {
        events_max: Some(max),
        ..UNLIMITED
    };
    move |options| options.retention.rules = vec![rule(topics, limits)]
}

async fn all_or_nothing(
    log: &dyn EventLog,
    drafts: Vec<tidings::event::Draft>,
) -> Result<Vec<Outcome>, AppendError> {
    let all_or_nothing = true;
    log.append(Batch {
        drafts,
        all_or_nothing,
    })
    .await
}

fn from(position: u64) -> Place {
    Place {
        position,
        removal: 0,
    }
}

laws! {
    async fn an_empty_log_has_nothing<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let bounds = log.bounds();
        assert_eq!(bounds.head, 0);
        let any = filter(&["**", "a"]);
        assert_eq!(log.oldest(&any).await, Ok(None));
        let page = log.read_after(from(0), &any, PAGE).await.unwrap();
        assert!(page.at_head && page.events.is_empty() && page.gap.is_none());
        for start in [Start::Earliest, Start::Tail(3), Start::Tail(0), Start::Since(NEW_YEAR)] {
            let located = log.locate(start, &any).await.unwrap();
            assert_eq!((located.place.position, located.gap), (0, None));
        }
        let zero = Cursor { epoch: bounds.epoch, position: 0 };
        assert_eq!(log.locate(Start::Cursor(zero), &any).await.unwrap().gap, None);
    }

    async fn every_part_of_an_event_comes_back<E: Engine>() {
        let (clock, engine) = open::<E>();
        let log = engine.log();
        clock.advance(7);
        append(log, vec![full("a/ü/%", "line\r\n\0é"), draft("a/ü/%", "")]).await;
        let kept = kept(log, &["a/**"]).await;
        assert_eq!(kept.events.len(), 2);
        let event = &kept.events[0];
        assert_eq!(event.topic.as_str(), "a/ü/%");
        assert_eq!(event.time_ms, NEW_YEAR + 7);
        assert_eq!(event.event.as_ref().unwrap().as_str(), "made");
        assert_eq!(event.own_id.as_ref().unwrap().as_str(), "own");
        assert_eq!(event.retry_ms, Some(1_500));
        assert_eq!(&event.data[..], "line\r\n\0é".as_bytes());
        assert_eq!(event.cursor.epoch, log.bounds().epoch);
        let bare = &kept.events[1];
        assert!(bare.data.is_empty() && bare.event.is_none() && bare.own_id.is_none());
        assert_eq!(bare.retry_ms, None);
    }

    /// However many append at once: positions rise, each batch stays together and in order, and the tail
    /// is the log.
    async fn one_order_for_all<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let mut tail = log.tail();
        assert_eq!(tail.from, 0);
        let appends = (0..40).map(|n| async move {
            let topic = format!("t/{}", n % 3);
            let drafts = (0..5).map(|i| draft(&topic, &format!("{n}.{i}"))).collect();
            append(log, drafts).await
        });
        for cursors in join_all(appends).await {
            let positions: Vec<_> = cursors.iter().map(|c| c.position).collect();
            assert_eq!(positions.len(), 5);
            assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
        }
        let kept = kept(log, &["**"]).await;
        assert_eq!(kept.events.len(), 200);
        assert_eq!(log.bounds().head, *kept.positions().last().unwrap());
        let mut tailed = Vec::new();
        while tailed.len() < 200 {
            let group = tail.groups.recv().await.unwrap();
            assert!(!group.is_empty());
            tailed.extend(group.iter().map(|e| (e.cursor, e.data.clone(), e.topic.clone())));
        }
        let logged: Vec<_> = kept.events.iter()
            .map(|e| (e.cursor, e.data.clone(), e.topic.clone())).collect();
        assert_eq!(tailed, logged);
    }

    async fn a_tail_begins_at_the_head<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let first = put(log, "a", "1").await;
        let mut tail = log.tail();
        assert_eq!(tail.from, first.position);
        let second = put(log, "a", "2").await;
        assert_eq!(tail.groups.recv().await.unwrap()[0].cursor, second);
        log.close().await;
        assert!(tail.groups.recv().await.is_none());
    }

    /// A tail that nobody reads makes appends wait, and loses nothing by it; one that is dropped does not.
    async fn a_full_tail_holds_appends_up<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let mut tail = log.tail();
        let dropped = log.tail();
        drop(dropped);
        let publish = async {
            for n in 0..TAIL_GROUPS * 3 {
                put(log, "a", &n.to_string()).await;
            }
        };
        let read = async {
            let mut count = 0;
            while count < TAIL_GROUPS * 3 {
                for event in tail.groups.recv().await.unwrap().iter() {
                    assert_eq!(&event.data[..], count.to_string().as_bytes());
                    count += 1;
                }
            }
        };
        tokio::join!(publish, read);
        let drafts = |n: usize| vec![draft("a", &n.to_string())];
        let mut stored = 0;
        // The engine may hold a few more than the tail does.
        for n in 0..TAIL_GROUPS * 4 {
            let append = try_append(log, drafts(n));
            match tokio::time::timeout(std::time::Duration::from_millis(300), append).await {
                Ok(outcome) => { outcome.unwrap(); stored += 1; }
                Err(_) => break,
            }
        }
        assert!(stored < TAIL_GROUPS * 4, "nothing ever waited");
        drop(tail);
        put(log, "a", "goes on").await;
    }

    async fn a_key_makes_a_repetition_the_same<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let first = append(log, vec![keyed("a", "x", "k")]).await[0];
        let again = try_append(log, vec![keyed("a", "x", "k")]).await;
        assert_eq!(again, Ok(vec![Outcome::Duplicate(first)]));
        // Another content is refused and another topic is another key.
        let mut other_event = keyed("a", "x", "k");
        other_event.event = full("a", "x").event;
        let mut other_own_id = keyed("a", "x", "k");
        other_own_id.own_id = full("a", "x").own_id;
        for other in [keyed("a", "y", "k"), other_event, other_own_id] {
            assert_eq!(try_append(log, vec![other]).await, Ok(vec![Outcome::Conflict]));
        }
        append(log, vec![keyed("b", "x", "k")]).await;
        // `retry` is no part of the content.
        let mut other_retry = keyed("a", "x", "k");
        other_retry.retry_ms = Some(1);
        assert_eq!(try_append(log, vec![other_retry]).await, Ok(vec![Outcome::Duplicate(first)]));
        assert_eq!(kept(log, &["**"]).await.data(), ["x", "x"]);
    }

    async fn keys_of_one_batch_count_among_themselves<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let drafts = vec![keyed("a", "x", "k"), keyed("a", "x", "k"), keyed("a", "y", "k"), draft("a", "z")];
        let outcomes = try_append(log, drafts).await.unwrap();
        let Outcome::Stored(first) = outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(outcomes[1..3], [Outcome::Duplicate(first), Outcome::Conflict]);
        assert!(matches!(outcomes[3], Outcome::Stored(_)));
        assert_eq!(kept(log, &["a"]).await.data(), ["x", "z"]);
    }

    async fn all_or_nothing_is_that<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let mut tail = log.tail();
        let drafts = vec![draft("a", "1"), keyed("a", "2", "k"), keyed("a", "3", "k"), draft("a", "4")];
        let outcomes = all_or_nothing(log, drafts).await.unwrap();
        assert_eq!(outcomes[2], Outcome::Conflict);
        assert_eq!(log.bounds().head, 0);
        assert!(kept(log, &["**"]).await.events.is_empty());
        // The refused batch used up no key.
        let stored = append(log, vec![keyed("a", "3", "k")]).await[0];
        let drafts = vec![keyed("a", "3", "k"), draft("a", "5")];
        let outcomes = all_or_nothing(log, drafts).await.unwrap();
        assert_eq!(outcomes[0], Outcome::Duplicate(stored));
        assert_eq!(kept(log, &["a"]).await.data(), ["3", "5"]);
        assert_eq!(&tail.groups.recv().await.unwrap()[0].data[..], b"3");
        assert_eq!(&tail.groups.recv().await.unwrap()[0].data[..], b"5");
    }

    async fn twins_at_once_are_stored_once<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let one = || try_append(log, vec![keyed("a", "x", "k")]);
        let (a, b, c) = tokio::join!(one(), one(), one());
        let all = [a.unwrap()[0], b.unwrap()[0], c.unwrap()[0]];
        let stored: Vec<_> = all.iter().filter(|o| matches!(o, Outcome::Stored(_))).collect();
        let duplicates = all.iter().filter(|o| matches!(o, Outcome::Duplicate(_))).count();
        assert_eq!((stored.len(), duplicates), (1, 2));
        assert_eq!(kept(log, &["a"]).await.events.len(), 1);
    }

    async fn a_key_outlives_its_event_but_not_its_window<E: Engine>() {
        let (clock, engine) = open_with::<E>(|options| {
            events_max("a", 1)(options);
            options.key_age_max_ms = 10_000;
        });
        let log = engine.log();
        let first = append(log, vec![keyed("a", "x", "k")]).await[0];
        put(log, "a", "y").await;
        engine.sweep().await;
        assert_eq!(kept(log, &["a"]).await.data(), ["y"]);
        clock.advance(9_999);
        let again = try_append(log, vec![keyed("a", "x", "k")]).await;
        assert_eq!(again, Ok(vec![Outcome::Duplicate(first)]));
        clock.advance(1);
        let second = append(log, vec![keyed("a", "x", "k")]).await[0];
        assert_ne!(first, second);
        // And its window is the second's.
        clock.advance(9_999);
        let again = try_append(log, vec![keyed("a", "x", "k")]).await;
        assert_eq!(again, Ok(vec![Outcome::Duplicate(second)]));
    }

    async fn past_their_bound_the_oldest_keys_go<E: Engine>() {
        let (_, engine) = open_with::<E>(|options| options.keys_max = 2);
        let log = engine.log();
        for key in ["k1", "k2", "k3"] {
            append(log, vec![keyed("a", key, key)]).await;
        }
        engine.sweep().await;
        for key in ["k2", "k3"] {
            let again = try_append(log, vec![keyed("a", key, key)]).await.unwrap();
            assert!(matches!(again[0], Outcome::Duplicate(_)), "{key}");
        }
        append(log, vec![keyed("a", "k1", "k1")]).await;
    }

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

    /// Removing a busy topic's events tells nothing to a quiet topic's readers, whatever their filter's form.
    async fn a_gap_is_told_to_those_who_missed_something<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("busy/**", 2));
        let log = engine.log();
        let quiet = put(log, "quiet/a", "q").await;
        let mut busy = Vec::new();
        for n in 0..10 {
            busy.push(put(log, "busy/a", &n.to_string()).await);
        }
        engine.sweep().await;
        for texts in [&["quiet/a"][..], &["quiet/*"], &["quiet/a", "busy/b", "nobody/**"]] {
            let replay = after(log, quiet, texts).await;
            assert!(replay.gaps.is_empty(), "{texts:?} {replay:?}");
        }
        for texts in [&["busy/a"][..], &["busy/*"], &["**"], &["quiet/a", "busy/a"]] {
            let replay = after(log, quiet, texts).await;
            assert_eq!(replay.gaps, [REMOVED], "{texts:?}");
            assert_eq!(replay.data(), ["8", "9"]);
            // Right at the edge: 7 is the newest removed.
            assert_eq!(after(log, busy[6], texts).await.gaps, [REMOVED]);
            assert_eq!(after(log, busy[7], texts).await.gaps, []);
            assert_eq!(after(log, busy[8], texts).await.gaps, []);
        }
    }

    async fn a_gap_is_told_once_and_hides_no_other<E: Engine>() {
        let (clock, engine) = open_with::<E>(|options| {
            let age = Limits { age_max_ms: Some(100_000), ..UNLIMITED };
            let count = Limits { events_max: Some(2), ..UNLIMITED };
            options.retention.rules = vec![rule("aged", age), rule("counted", count)];
        });
        let log = engine.log();
        let texts = &["aged", "counted"];
        let wanted = filter(texts);
        let first = put(log, "counted", "0").await;
        for n in 1..5 {
            put(log, "counted", &n.to_string()).await;
        }
        for n in 5..9 {
            put(log, "aged", &n.to_string()).await;
        }
        engine.sweep().await;
        let one = PageLimits { events_max: 1, bytes_max: 1 << 20 };
        let located = log.locate(Start::Cursor(first), &wanted).await.unwrap();
        let page = log.read_after(located.place, &wanted, one).await.unwrap();
        assert_eq!(page.gap, Some(REMOVED));
        assert_eq!(&page.events[0].data[..], b"3");
        let page = log.read_after(page.place, &wanted, one).await.unwrap();
        assert_eq!((page.gap, &page.events[0].data[..]), (None, &b"4"[..]));
        let page = log.read_after(page.place, &wanted, one).await.unwrap();
        assert_eq!((page.gap, &page.events[0].data[..]), (None, &b"5"[..]));
        // While it reads, what is next goes: another gap, and then again none.
        clock.advance(100_001);
        engine.sweep().await;
        let place = page.place;
        let page = log.read_after(place, &wanted, one).await.unwrap();
        assert_eq!((page.gap, page.events.len()), (Some(REMOVED), 0));
        let rest = replay_in(log, page.place, &wanted, one).await;
        assert_eq!((rest.gaps.len(), rest.events.len()), (0, 0));
        // A place that comes from outside counts all that was ever removed beyond it.
        let outside = Place { removal: 0, ..place };
        assert_eq!(replay_in(log, outside, &wanted, PAGE).await.gaps, [REMOVED]);
    }

    /// A removal behind the reader is none of its business.
    async fn what_was_delivered_may_go<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("a", 5));
        let log = engine.log();
        let mut place = from(0);
        let wanted = filter(&["a"]);
        for n in 0..30 {
            put(log, "a", &n.to_string()).await;
            engine.sweep().await;
            let step = replay_in(log, place, &wanted, PAGE).await;
            assert_eq!((step.gaps.len(), step.data()), (0, vec![n.to_string().as_str()]));
            place = step.place;
        }
    }

    async fn tail_and_earliest_never_tell_of_a_gap<E: Engine>() {
        let (_, engine) = open_with::<E>(events_max("**", 3));
        let log = engine.log();
        for n in 0..10 {
            put(log, "a", &n.to_string()).await;
        }
        engine.sweep().await;
        for begin in [Start::Earliest, Start::Tail(2), Start::Tail(9), Start::Tail(0)] {
            for texts in [&["a"][..], &["**"]] {
                let (gap, replay) = start(log, begin.clone(), texts).await;
                assert_eq!((gap, replay.gaps.len()), (None, 0), "{begin:?}");
            }
        }
    }

    /// A stream hands its place out as an id before any event: whoever comes back with that is told of nothing that
    /// was removed before the start, and gets the same events.
    async fn a_start_taken_up_again_tells_of_no_gap<E: Engine>() {
        let (clock, engine) = open_with::<E>(|options| {
            let age = Limits { age_max_ms: Some(500), ..UNLIMITED };
            let count = Limits { events_max: Some(3), ..UNLIMITED };
            options.retention.rules = vec![rule("a", count), rule("gone", age)];
        });
        let log = engine.log();
        for n in 0..12 {
            put(log, ["a", "b", "gone"][n % 3], &n.to_string()).await;
            clock.advance(100);
        }
        put(log, "a", "12").await;
        put(log, "b", "13").await;
        clock.advance(1_000);
        engine.sweep().await;
        let head = Cursor { epoch: log.bounds().epoch, position: log.bounds().head };
        let nobody = Start::OwnId(OwnId::parse("nobody").unwrap());
        let other_epoch = Start::Cursor(Cursor { epoch: head.epoch ^ 1, ..head });
        let beyond = Start::Cursor(Cursor { position: head.position + 1, ..head });
        let starts = [
            Start::Earliest, Start::Tail(0), Start::Tail(2), Start::Tail(3), Start::Tail(99),
            Start::Since(0), Start::Since(NEW_YEAR), Start::Since(NEW_YEAR + 250),
            Start::Since(NEW_YEAR + 1_150), Start::Since(NEW_YEAR + 9_999), nobody, other_epoch, beyond,
        ];
        for begin in starts {
            for (texts, kept) in [
                (&["a"][..], 3), (&["a", "none"], 3), (&["a/**", "a"], 3), (&["b"], 5),
                (&["gone"], 0), (&["gone/*", "gone"], 0), (&["none"], 0), (&["none/*"], 0),
            ] {
                let filter = filter(texts);
                let located = log.locate(begin.clone(), &filter).await.unwrap();
                let events = replay_in(log, located.place, &filter, PAGE).await;
                assert!(events.gaps.is_empty() && events.events.len() <= kept, "{begin:?} {texts:?}");
                let cursor = Cursor { position: located.place.position, ..head };
                let again = log.locate(Start::Cursor(cursor), &filter).await.unwrap();
                assert_eq!(again.gap, None, "{begin:?} {texts:?}");
                let again = replay_in(log, again.place, &filter, PAGE).await;
                assert_eq!(again.gaps, [], "{begin:?} {texts:?} from {cursor:?}");
                assert_eq!(again.positions(), events.positions());
            }
        }
    }

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
        for n in 0..16 {
            let data = format!("{n} {}", "x".repeat(8_000));
            append(log, (0..128).map(|_| draft(&format!("t/{n}"), &data)).collect()).await;
        }
        engine.sweep().await;
        let left = kept(log, &["**"]).await;
        assert!(left.events.len() > 50, "{}", left.events.len());
        let bytes: usize = left.events.iter().map(|event| event.data.len()).sum();
        assert!(bytes <= 4 << 20, "{bytes}");
        // The oldest went, without holes.
        let positions = left.positions();
        assert!(positions.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert_eq!(*positions.last().unwrap(), log.bounds().head);
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
        put(log, "a", "x").await;
        log.close().await;
        log.close().await;
        assert_eq!(try_append(log, vec![draft("a", "y")]).await, Err(AppendError::Unavailable));
        assert_eq!(log.bounds().head, 1);
        assert!(log.tail().groups.recv().await.is_none());
    }

    /// It ends with what found room in it.
    async fn a_tail_that_nobody_reads_does_not_hold_up_the_end<E: Engine>() {
        let (_, engine) = open::<E>();
        let log = engine.log();
        let mut tail = log.tail();
        let fill = async {
            loop {
                if let Err(error) = try_append(log, vec![draft("a", "x")]).await {
                    break error;
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
        let (error, ()) = tokio::time::timeout(std::time::Duration::from_secs(30), end)
            .await
            .expect("an end");
        assert_eq!(error, AppendError::Unavailable);
        for n in 1..=TAIL_GROUPS as u64 {
            assert_eq!(tail.groups.recv().await.unwrap()[0].cursor.position, n);
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
