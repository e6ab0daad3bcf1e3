//! What is kept, byte for byte, and where it begins and ends.

use super::*;

/// Redis would take half a gigabyte.
const LARGE_ENOUGH: usize = 16 << 20; // 16 MiB

laws! {
    async fn entries_come_back_byte_for_byte(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        let mut tail = soon(session.tail(0)).await.unwrap();
        let mut writer = Writer::first();
        let largest = session.entry_bytes_max().min(LARGE_ENOUGH);
        assert!(largest > 900_000, "{largest}");
        let mut all = Vec::new();
        for length in [0, 1, 2, 300 << 10, largest, 0, 100] {
            let bytes: Bytes = (0..length).map(|i| (i * 7 + i / 256) as u8).collect();
            append(&*session, &writer.seal(bytes.clone())).await.unwrap();
            let (position, came) = entries(&mut *tail, 1).await.remove(0);
            assert!(came == bytes, "{length} bytes");
            let read = soon(session.read(position)).await.unwrap();
            assert!(read == Some(bytes), "{length} bytes");
            all.push((position, came));
        }
        let mut tail = soon(session.tail(0)).await.unwrap();
        assert!(entries(&mut *tail, all.len()).await == all);
    }

    async fn a_read_gives_what_the_tail_gave(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        for nowhere in [0, 1, 2, 1_000_000] {
            assert_eq!(soon(session.read(nowhere)).await, Ok(None), "{nowhere}");
        }
        let appended = Writer::first().append_many(&*session, 50).await;
        let all = entries_up_to(&*session, &appended[49]).await;
        for (position, bytes) in &all {
            assert_eq!(soon(session.read(*position)).await, Ok(Some(bytes.clone())));
        }
        for beyond in [1, 2, 3, 100, 1_000_000] {
            let nowhere = all[49].0 + beyond;
            assert_eq!(soon(session.read(nowhere)).await, Ok(None), "{nowhere}");
        }
        assert_eq!(soon(session.read(0)).await, Ok(None));
    }

    async fn the_ends_are_where_entries_are(kind: Kind) {
        let journal = fresh(kind);
        let session = session(&*journal).await;
        let Ends { first, last, .. } = soon(session.ends()).await.unwrap();
        assert_eq!((first, last), (1, 0));
        let mut tail = soon(session.tail(0)).await.unwrap();
        let mut writer = Writer::first();
        let mut positions = Vec::new();
        for _ in 0..20 {
            writer.append(&*session).await;
            positions.push(entries(&mut *tail, 1).await[0].0);
            let ends = until_last(&*session, positions[positions.len() - 1]).await;
            assert_eq!(ends.first, positions[0]);
        }
    }

    /// As those see it who knew it before, and as it begins anew.
    async fn what_was_wiped_is_seen_at_the_ends(kind: Kind) {
        let own = match kind {
            // It knows no names: all of it is wiped.
            Kind::Redis => Some(Broker::start(kind).await),
            _ => None,
        };
        let broker = own.as_ref().unwrap_or_else(|| shared(kind));
        let name = fresh_name();
        let journal = journal(kind, &broker.url(), &options(&name));
        let attached = session(&*journal).await;
        let appended = Writer::first().append_many(&*attached, 10).await;
        let all = entries_up_to(&*attached, &appended[9]).await;
        let before = until_last(&*attached, all[9].0).await;
        broker.wipe(&name).await;

        let after = soon(attached.ends()).await;
        assert!(after.as_ref().is_ok_and(|ends| ends.last < before.last) || after.is_err(), "{after:?}");
        let read = soon(attached.read(all[9].0)).await;
        assert!(matches!(read, Ok(None) | Err(_)), "{read:?}");

        let new = session(&*journal).await;
        let Ends { first, last, .. } = soon(new.ends()).await.unwrap();
        assert_eq!((first, last), (1, 0));
        let mut tail = soon(new.tail(0)).await.unwrap();
        let mut writer = Writer::first();
        writer.writer = 2;
        let bytes = writer.append(&*new).await;
        assert_eq!(entries(&mut *tail, 1).await, [(1, bytes)]);
    }

    /// The broker does it by itself, or as it is tended.
    async fn beyond_its_bounds_the_oldest_go(kind: Kind) {
        let broker = shared(kind);
        let bounds = JournalOptions {
            bytes_max: 1 << 20, // 1 MiB
            ..options(&fresh_name())
        };
        let journal = journal(kind, &broker.url(), &bounds);
        let session = session(&*journal).await;
        let mut writer = Writer::first();
        let mut appended = Vec::new();
        for n in 0..200_usize {
            appended.push(Bytes::from(vec![n as u8; 32 << 10]));
            append(&*session, &writer.seal(appended[n].clone())).await.unwrap();
        }
        // All of it is more than six times too much. An eighth of the bound may go with what is over it, and as much may be
        // left because it is in one piece with what is kept.
        let kept = soon(async {
            let mut tick = interval(Duration::from_millis(50));
            loop {
                let clock = session.tend().await.unwrap();
                assert!(clock.is_none_or(|clock| clock.abs_diff(now_ms()) < 5_000));
                let kept = entries_up_to(&*session, &appended[199]).await;
                if kept.len() <= 40 {
                    return kept;
                }
                tick.tick().await;
            }
        })
        .await;
        assert!(kept.len() >= 26, "{}", kept.len());
        assert!(appended.ends_with(&payloads(&kept)));
        let ends = until_last(&*session, kept[kept.len() - 1].0).await;
        assert_eq!(ends.first, kept[0].0);
        assert_eq!(soon(session.read(1)).await, Ok(None));
        // Whoever asks for what is gone begins with the oldest that is there.
        let mut tail = soon(session.tail(2)).await.unwrap();
        assert!(entries(&mut *tail, kept.len()).await == kept);
    }
}
