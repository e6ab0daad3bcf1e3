//! Appending: order, the tail, keys.

use super::*;

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
            match tokio::time::timeout(Duration::from_millis(300), append).await {
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
}
