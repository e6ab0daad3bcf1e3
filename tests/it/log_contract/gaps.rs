//! Gaps: told to those who missed something, once, and to nobody else.

use super::*;

laws! {
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
}
