//! One order of entries, and all who tail see it.

use super::*;

laws! {
    async fn entries_land_in_the_order_of_the_calls(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        let mut tail = soon(session.tail(0)).await.unwrap();
        let mut writer = Writer::first();
        let (mut calls, mut on_their_way) = (Vec::new(), Vec::new());
        for n in 0..200_usize {
            // Larger and smaller ones: none overtakes another.
            let bytes = Bytes::from(format!("{n}-{}", "x".repeat(n % 7 * 10_000)));
            let entry = writer.seal(bytes.clone());
            let acknowledgement = soon(session.append(&entry)).await.unwrap();
            calls.push(bytes);
            on_their_way.push(acknowledgement);
        }
        let landed = entries(&mut *tail, calls.len()).await;
        assert!(payloads(&landed) == calls);
        // Nobody has asked for the answers so far.
        for (acknowledgement, (landed_at, _)) in on_their_way.into_iter().zip(landed) {
            let position = soon(acknowledgement).await.unwrap();
            assert!(position.is_none_or(|position| position == landed_at));
        }
    }

    async fn a_tail_begins_anywhere_and_goes_on(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        let mut writer = Writer::first();
        let appended = writer.append_many(&*session, 20).await;
        let mut all = entries_up_to(&*session, &appended[19]).await;
        assert_eq!(payloads(&all), appended);
        for begin in [0, 1, 9, 18, 19, 20] {
            let mut tail = soon(session.tail(all[begin].0)).await.unwrap();
            let rest = &all[begin + 1..];
            assert_eq!(entries(&mut *tail, rest.len()).await, rest);
            let more = writer.append(&*session).await;
            let came = entries(&mut *tail, 1).await;
            assert_eq!(payloads(&came), [more]);
            all.extend(came);
        }
        let mut tail = soon(session.tail(0)).await.unwrap();
        assert_eq!(entries(&mut *tail, all.len()).await, all);
    }

    async fn tails_of_all_sessions_see_the_same(kind: Kind) {
        let journal = fresh(kind);
        let (one, two) = (session(&*journal).await, session(&*journal).await);
        let mut first = Writer::first();
        first.append(&*one).await;
        let mut tail_of_one = soon(one.tail(0)).await.unwrap();
        let mut tail_of_two = soon(two.tail(0)).await.unwrap();
        let mut second = Writer::another(2);
        let (by_one, by_two) = tokio::join!(
            first.append_many(&*one, 100),
            second.append_many(&*two, 100),
        );
        let seen = entries(&mut *tail_of_one, 201).await;
        assert_eq!(entries(&mut *tail_of_two, 201).await, seen);
        let mut later = soon(two.tail(0)).await.unwrap();
        assert_eq!(entries(&mut *later, 201).await, seen);
        for (appended, writer) in [(by_one, "1-"), (by_two, "2-")] {
            let mut of_writer = payloads(&seen[1..]);
            of_writer.retain(|bytes| bytes.starts_with(writer.as_bytes()));
            assert_eq!(of_writer, appended);
        }
    }

    async fn journals_of_other_names_are_others(kind: Kind) {
        let (one, two) = (fresh(kind), fresh(kind));
        let (one, two) = (session(&*one).await, session(&*two).await);
        let (mut first, mut second) = (Writer::first(), Writer::first());
        let mut tail_of_one = soon(one.tail(0)).await.unwrap();
        let mut tail_of_two = soon(two.tail(0)).await.unwrap();
        for _ in 0..10 {
            soon(one.announce("of one".into())).await.unwrap();
            let (by_one, by_two) = (first.append(&*one).await, second.append(&*two).await);
            let mut came = Vec::new();
            for _ in 0..2 {
                came.push(match soon(tail_of_one.next()).await.unwrap() {
                    Tailed::Entries(entries) => payloads(&entries),
                    Tailed::Announcement(bytes) => vec![bytes],
                });
            }
            came.sort(); // the two may overtake each other
            assert_eq!(came, [vec![by_one], vec![Bytes::from("of one")]]);
            assert_eq!(payloads(&entries(&mut *tail_of_two, 1).await), [by_two]);
        }
    }

    async fn an_announcement_reaches_all_tails_and_is_not_kept(kind: Kind) {
        let journal = fresh(kind);
        let (one, two) = (session(&*journal).await, session(&*journal).await);
        let mut writer = Writer::first();
        let kept = writer.append_many(&*one, 3).await;
        let mut tails = Vec::new();
        for session in [&one, &one, &two] {
            let mut tail = soon(session.tail(0)).await.unwrap();
            assert_eq!(payloads(&entries(&mut *tail, 3).await), kept);
            tails.push(tail);
        }
        let large = Bytes::from(vec![0xff; 20_000]);
        for (session, said) in [(&one, Bytes::from("a")), (&two, large), (&one, Bytes::new())] {
            soon(session.announce(said.clone())).await.unwrap();
            for tail in &mut tails {
                match soon(tail.next()).await.unwrap() {
                    Tailed::Announcement(bytes) => assert!(bytes == said),
                    Tailed::Entries(entries) => panic!("{entries:?}"),
                }
            }
        }
        let last = writer.append(&*two).await;
        for tail in &mut tails {
            assert_eq!(payloads(&entries(&mut **tail, 1).await), std::slice::from_ref(&last));
        }
        // A tail that comes later does not see it, nor does it among the entries.
        let all = entries_up_to(&*two, &last).await;
        assert_eq!(payloads(&all), [&kept[..], &[last]].concat());
    }

    /// As it is used: beside other things that happen, in a `select!`.
    async fn dropping_the_wait_for_the_next_loses_nothing(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        let mut tail = soon(session.tail(0)).await.unwrap();
        let mut writer = Writer::first();
        let (mut appended, mut announced) = (Vec::new(), Vec::new());
        let (mut seen, mut heard) = (Vec::new(), Vec::new());
        let mut on_their_way = Vec::new();
        for n in 0..300_u16 {
            // Not waited for, so that it comes in the midst of a wait.
            let bytes = Bytes::from(vec![n as u8; usize::from(n) * 100]);
            let entry = writer.seal(bytes.clone());
            on_their_way.push(soon(session.append(&entry)).await.unwrap());
            appended.push(bytes);
            if n % 3 == 0 {
                let said = Bytes::from(n.to_string());
                soon(session.announce(said.clone())).await.unwrap();
                announced.push(said);
            }
            // From none at all to more than an entry takes. Each of them is dropped at last.
            let patience = Duration::from_micros(u64::from(n) % 40 * 50);
            while let Ok(tailed) = timeout(patience, tail.next()).await {
                take(tailed.unwrap(), &mut seen, &mut heard);
            }
        }
        while seen.len() < appended.len() || heard.len() < announced.len() {
            take(soon(tail.next()).await.unwrap(), &mut seen, &mut heard);
        }
        assert!(payloads(&seen) == appended);
        assert_eq!(heard, announced);
        for acknowledgement in on_their_way {
            soon(acknowledgement).await.unwrap();
        }
    }

    /// Only a broker that knows the epoch can; the others leave it to those who read.
    async fn an_entry_of_another_epoch_is_fenced_by_redis(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        let mut writer = Writer::first();
        let mut expected = writer.append_many(&*session, 2).await;
        let mut stale = writer.seal("stale");
        stale.epoch = EPOCH - 1;
        let answer = append(&*session, &stale).await;
        if kind == Kind::Redis {
            assert_eq!(answer, Err(AppendFault::Fenced));
        } else {
            answer.unwrap();
            expected.push(stale.bytes);
        }
        // A new epoch is one that was begun in the present one.
        let mut next = writer.seal("next");
        next.begins = Some(begins(EPOCH + 1));
        append(&*session, &next).await.unwrap();
        let mut too_late = writer.seal("too late");
        too_late.begins = Some(begins(EPOCH + 2));
        let answer = append(&*session, &too_late).await;
        assert_eq!(answer == Err(AppendFault::Fenced), kind == Kind::Redis);
        let mut last = writer.seal("last");
        last.epoch = EPOCH + 1;
        append(&*session, &last).await.unwrap();
        expected.push(next.bytes);
        if kind != Kind::Redis {
            expected.push(too_late.bytes);
        }
        expected.push(last.bytes.clone());
        let all = entries_up_to(&*session, &last.bytes).await;
        assert_eq!(payloads(&all), expected);
    }
}

fn take(tailed: Tailed, seen: &mut Vec<(u64, Bytes)>, heard: &mut Vec<Bytes>) {
    match tailed {
        Tailed::Entries(entries) => seen.extend(entries),
        Tailed::Announcement(bytes) => heard.push(bytes),
    }
}
