//! The broker goes away under load, and what was acknowledged is there when it comes back.

use super::*;
use std::collections::HashMap;
use tokio::{select, task::JoinSet};

/// How long a session may take to find out that its broker does not answer.
const FOUND_OUT: Duration = Duration::from_secs(15);

/// Keeps entries on their way through a session, until one fails.
struct Load {
    writer: Writer,
    /// With their positions, where the broker tells.
    acknowledged: HashMap<Bytes, Option<u64>>,
}

impl Load {
    /// Until so many are acknowledged; then more go on, until `outage` has made one fail.
    async fn run(
        &mut self,
        session: &dyn Session,
        enough: usize,
        outage: impl Future<Output = ()>,
    ) {
        let mut on_their_way: JoinSet<(Bytes, Result<Option<u64>, AppendFault>)> = JoinSet::new();
        let mut outage = std::pin::pin!(outage);
        let (mut is_out, mut failed) = (false, false);
        let wanted = self.acknowledged.len() + enough;
        loop {
            let many = self.acknowledged.len() >= wanted;
            select! {
                () = &mut outage, if many && !is_out => is_out = true,
                Some(answered) = on_their_way.join_next() => match answered.unwrap() {
                    (bytes, Ok(position)) => assert!(self.acknowledged.insert(bytes, position).is_none()),
                    (_, Err(fault)) => {
                        assert!(many, "before the outage: {fault}");
                        failed = true;
                    }
                },
                else => if is_out && failed { return },
            }
            while !failed && on_their_way.len() < 64 {
                let bytes =
                    Bytes::from(format!("{}-{}", self.writer.writer, self.writer.number + 1));
                match self.append(session, &bytes).await {
                    Ok(acknowledgement) => {
                        on_their_way.spawn(async { (bytes, acknowledgement.await) });
                    }
                    Err(fault) => {
                        assert!(many, "before the outage: {fault}");
                        failed = true;
                    }
                }
            }
        }
    }

    async fn append(
        &mut self,
        session: &dyn Session,
        bytes: &Bytes,
    ) -> Result<Acknowledgement, AppendFault> {
        let entry = self.writer.seal(bytes.clone());
        timeout(FOUND_OUT, session.append(&entry))
            .await
            .expect("in time")
    }
}

/// Reads on until the tail fails.
async fn tail_until_fault(tail: &mut dyn EntryTail, seen: &mut Vec<(u64, Bytes)>) {
    while let Ok(tailed) = tail.next().await {
        match tailed {
            Tailed::Entries(entries) => seen.extend(entries),
            Tailed::Announcement(bytes) => panic!("an announcement: {bytes:?}"),
        }
    }
}

/// As it is done: about once a second, until it fails.
async fn tend_until_fault(session: &dyn Session) {
    let mut tick = interval(Duration::from_secs(1));
    while session.tend().await.is_ok() {
        tick.tick().await;
    }
}

/// Nothing that is asked of a session without a broker takes for ever, or succeeds.
async fn is_lost(session: &dyn Session) {
    let begun = Instant::now();
    let entry = Writer::another(99).seal("lost");
    let (appended, read, ends, tail) = tokio::join!(
        timeout(FOUND_OUT, async { session.append(&entry).await?.await }),
        timeout(FOUND_OUT, session.read(1)),
        timeout(FOUND_OUT, session.ends()),
        timeout(FOUND_OUT, session.tail(0)),
    );
    let took = begun.elapsed();
    assert!(appended.expect("an append in time").is_err());
    assert!(read.expect("a read in time").is_err());
    assert!(ends.expect("the ends in time").is_err());
    match tail.expect("a tail in time") {
        Ok(mut tail) => {
            let next = timeout(FOUND_OUT, tail.next()).await;
            assert!(next.expect("a fault in time").is_err());
        }
        Err(_fault) => (),
    }
    assert!(took < FOUND_OUT, "{took:?}");
}

laws! {
    async fn a_killed_broker_loses_nothing_that_it_acknowledged(kind: Kind) {
        let mut broker = Broker::start(kind).await;
        let journal = journal(kind, &broker.url(), &options("kill"));
        let mut load = Load { writer: Writer::first(), acknowledged: HashMap::new() };
        let mut known: Vec<(u64, Bytes)> = Vec::new();
        for round in 1..=2 {
            let session = session(&*journal).await;
            let after = known.last().map_or(0, |(position, _)| *position);
            let mut tail = soon(session.tail(after)).await.unwrap();
            let mut seen = Vec::new();
            let outage = async {
                broker.kill().await;
            };
            let both = async {
                tokio::join!(
                    load.run(&*session, 500, outage),
                    tail_until_fault(&mut *tail, &mut seen),
                );
            };
            soon(both).await;
            is_lost(&*session).await;
            drop((tail, session));

            broker.restart().await;
            let begun = Instant::now();
            let healed = timeout(Duration::from_secs(5), connected(&*journal)).await;
            let session = healed.unwrap_or_else(|_| panic!("not after {:?}", begun.elapsed()));
            let mut writer = Writer::another(100 + round);
            let newest = writer.append(&*session).await;
            let all = entries_up_to(&*session, &newest).await;
            for kept in [&known, &seen] {
                let there = kept.iter().all(|entry| all.contains(entry));
                assert!(there, "what was seen before is there");
            }
            let places: HashMap<_, _> = all.iter().map(|(p, bytes)| (bytes, *p)).collect();
            assert_eq!(places.len(), all.len(), "none is there twice");
            assert!(load.acknowledged.len() >= 500);
            for (bytes, told) in &load.acknowledged {
                let place = places.get(bytes);
                let place = *place.unwrap_or_else(|| panic!("{bytes:?} is lost"));
                assert!(told.is_none_or(|told| told == place), "{bytes:?}");
            }
            known = all;
            load.writer = Writer::another(200 + round);
        }
    }

    async fn a_session_finds_out_that_nothing_moves(kind: Kind) {
        let proxy = ChaosProxy::start(shared(kind).address()).await;
        let journal = journal(kind, &shared(kind).url_at(proxy.address), &options(&fresh_name()));
        for mode in [Mode::Cut, Mode::Stall] {
            let session = session(&*journal).await;
            let mut tail = soon(session.tail(0)).await.unwrap();
            let mut writer = Writer::another(1 + u64::from(mode == Mode::Stall));
            writer.append(&*session).await;
            next_entries(&mut *tail).await;
            proxy.set(mode).await;
            let patience = match mode {
                Mode::Cut => Duration::from_secs(2),
                _ => FOUND_OUT,
            };
            // A tail on a line of its own may have more patience than those who tend the session.
            let mut seen = Vec::new();
            let found_out = async {
                select! {
                    () = tail_until_fault(&mut *tail, &mut seen) => (),
                    () = tend_until_fault(&*session) => (),
                }
            };
            let found_out = timeout(patience, found_out).await;
            assert!(found_out.is_ok(), "{mode:?}: not within {patience:?}");
            is_lost(&*session).await;
            proxy.set(Mode::Pass).await;
        }
        session(&*journal).await;
    }

    async fn a_slow_way_is_no_outage(kind: Kind) {
        let proxy = ChaosProxy::start(shared(kind).address()).await;
        let journal = journal(kind, &shared(kind).url_at(proxy.address), &options(&fresh_name()));
        let session = session(&*journal).await;
        let mut tail = soon(session.tail(0)).await.unwrap();
        let mut writer = Writer::first();
        let mut all = Vec::new();
        for mode in [
            Mode::Delay(Duration::from_millis(500)),
            Mode::Throttle(256 << 10), // 256 KiB/s
        ] {
            proxy.set(mode).await;
            let mut on_their_way = Vec::new();
            for n in 0..30_u8 {
                let bytes = Bytes::from(vec![n; 5_000]);
                let entry = writer.seal(bytes.clone());
                on_their_way.push(soon(session.append(&entry)).await.unwrap());
                all.push(bytes);
            }
            for acknowledgement in on_their_way {
                soon(acknowledgement).await.unwrap();
            }
            let came = entries(&mut *tail, 30).await;
            assert!(payloads(&came) == all[all.len() - 30..]);
            assert_eq!(soon(session.read(came[7].0)).await, Ok(Some(came[7].1.clone())));
            until_last(&*session, came[29].0).await;
        }
    }
}

async fn connected(journal: &dyn Journal) -> Box<dyn Session> {
    let mut tick = interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        match journal.connect().await {
            Ok(session) => return session,
            Err(ConnectError::Unavailable(_)) => (),
            Err(ConnectError::Refused(text)) => panic!("refused: {text}"),
        }
    }
}
