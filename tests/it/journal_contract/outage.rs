//! The broker goes away under load, and what was acknowledged is there when it comes back.

use super::*;
use crate::support::broker::{nats::NatsCluster, sentinel::SentinelSet};
use std::{collections::HashMap, pin::pin};
use tokio::{select, task::JoinSet};

/// How long a session may take to find out that its broker does not answer.
const FOUND_OUT: Duration = Duration::from_secs(15);

/// How long it takes at most until there is a session again, once the broker is back.
const HEALED: Duration = Duration::from_secs(5);

/// The same of several servers that have just agreed on who leads the stream: who leads the rest they agree on afterwards, and
/// without that nobody can follow the stream anew.
const SETTLED: Duration = Duration::from_secs(20);

/// Keeps entries on their way through a session, until one fails.
struct Load {
    writer: Writer,
    /// With their positions, where the broker tells.
    acknowledged: HashMap<Bytes, Option<u64>>,
}

impl Load {
    /// Until so many are acknowledged; then on until `outage` has made one fail, or so many are again.
    async fn run(
        &mut self,
        session: &dyn Session,
        enough: usize,
        outage: impl Future<Output = ()>,
    ) {
        let mut on_their_way: JoinSet<(Bytes, Result<Option<u64>, AppendFault>)> = JoinSet::new();
        let mut outage = pin!(outage);
        let (mut is_out, mut failed) = (false, false);
        let before = self.acknowledged.len();
        loop {
            let many = self.acknowledged.len() >= before + enough;
            if is_out && self.acknowledged.len() >= before + 2 * enough {
                return;
            }
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

/// Sees one outage after the other.
struct Survivor {
    load: Load,
    /// All entries after the outage before.
    known: Vec<(u64, Bytes)>,
    writers: u64,
}

impl Survivor {
    fn new() -> Self {
        Self {
            load: Load {
                writer: Writer::first(),
                acknowledged: HashMap::new(),
            },
            known: Vec::new(),
            writers: 1,
        }
    }

    fn another(&mut self) -> Writer {
        self.writers += 1;
        Writer::another(self.writers)
    }

    /// Loses the broker under load. Gives the session with which that was.
    async fn lose(
        &mut self,
        journal: &dyn Journal,
        outage: impl Future<Output = ()>,
    ) -> Box<dyn Session> {
        let after = self.known.last().map_or(0, |(position, _)| *position);
        let Working {
            session,
            mut tail,
            mut seen,
        } = soon(working(journal, &mut self.load.writer, after)).await;
        let load = self.load.run(&*session, 500, outage);
        let tailing = tail_until_fault(&mut *tail, &mut seen);
        soon(async {
            let mut tailing = pin!(tailing);
            let mut load = pin!(load);
            // The tail may fail first, but the load is what counts.
            select! {
                () = &mut load => (),
                () = &mut tailing => load.await,
            }
        })
        .await;
        self.known.extend(seen);
        session
    }

    /// Finds everything again that was acknowledged or seen, once it is there again.
    async fn find(&mut self, journal: &dyn Journal, within: Duration) {
        let mut writer = self.another();
        let healed = timeout(within, working(journal, &mut writer, 0)).await;
        let healed = healed.unwrap_or_else(|_| panic!("not within {within:?}"));
        let all = healed.seen;
        let places: HashMap<_, _> = all.iter().map(|(p, bytes)| (bytes, *p)).collect();
        assert_eq!(places.len(), all.len(), "none is there twice");
        for (position, bytes) in &self.known {
            assert_eq!(places.get(bytes), Some(position), "{bytes:?} was seen");
        }
        assert!(self.load.acknowledged.len() >= 500);
        for (bytes, told) in &self.load.acknowledged {
            let place = places.get(bytes);
            let place = *place.unwrap_or_else(|| panic!("{bytes:?} was acknowledged"));
            assert!(told.is_none_or(|told| told == place), "{bytes:?}");
        }
        self.known = all;
        self.load.writer = self.another();
    }
}

laws! {
    async fn a_killed_broker_loses_nothing_that_it_acknowledged(kind: Kind) {
        let mut broker = Broker::start(kind).await;
        let journal = journal(kind, &broker.url(), &options("kill"));
        let mut survivor = Survivor::new();
        for _ in 0..2 {
            let session = survivor.lose(&*journal, broker.kill()).await;
            is_lost(&*session).await;
            broker.restart().await;
            survivor.find(&*journal, HEALED).await;
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

/// A session, and what its tail has seen so far: the newest was appended with it.
struct Working {
    session: Box<dyn Session>,
    tail: Box<dyn EntryTail>,
    seen: Vec<(u64, Bytes)>,
}

/// Tries until there is one, as nodes do: with another session after each fault.
async fn working(journal: &dyn Journal, writer: &mut Writer, after: u64) -> Working {
    let mut tick = interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        let session = match journal.connect().await {
            Ok(session) => session,
            Err(ConnectError::Unavailable(_)) => continue,
            Err(ConnectError::Refused(text)) => panic!("refused: {text}"),
        };
        if let Some((tail, seen)) = works(&*session, writer, after).await {
            return Working {
                session,
                tail,
                seen,
            };
        }
    }
}

async fn works(
    session: &dyn Session,
    writer: &mut Writer,
    after: u64,
) -> Option<(Box<dyn EntryTail>, Vec<(u64, Bytes)>)> {
    let bytes = Bytes::from(format!("{}-{}", writer.writer, writer.number + 1));
    let entry = writer.seal(bytes.clone());
    session.append(&entry).await.ok()?.await.ok()?;
    let mut tail = session.tail(after).await.ok()?;
    let mut seen: Vec<(u64, Bytes)> = Vec::new();
    while seen.last().is_none_or(|(_, newest)| *newest != bytes) {
        match tail.next().await.ok()? {
            Tailed::Entries(entries) => seen.extend(entries),
            Tailed::Announcement(bytes) => panic!("an announcement: {bytes:?}"),
        }
    }
    Some((tail, seen))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nats_servers_lose_nothing_with_their_leader() {
    let mut cluster = NatsCluster::start().await;
    let replicated = JournalOptions {
        nats_replicas: 3,
        ..options("kill")
    };
    let journal = journal(Kind::Nats, &cluster.url(), &replicated);
    let mut survivor = Survivor::new();
    for _ in 0..2 {
        survivor
            .lose(&*journal, cluster.kill_leader("tidings_kill"))
            .await;
        // Two are enough, once they have agreed on a leader.
        cluster.leader("tidings_kill").await;
        survivor.find(&*journal, SETTLED).await;
        cluster.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_waited_for_has_what_the_master_acknowledged() {
    let mut set = SentinelSet::start().await;
    let waited_for = JournalOptions {
        redis_wait: 1,
        ..options("kill")
    };
    let with_replica = journal(Kind::Redis, &set.url(), &waited_for);
    let mut survivor = Survivor::new();
    let session = survivor.lose(&*with_replica, set.kill_master()).await;
    is_lost(&*session).await;
    // Nobody is left to wait for.
    let alone = journal(Kind::Redis, &set.url(), &options("kill"));
    survivor.find(&*alone, HEALED).await;
}

/// Else a failover would take back what a node has shown, and has acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shown_what_a_replica_that_is_waited_for_does_not_have() {
    let set = SentinelSet::start().await;
    let waited_for = JournalOptions {
        redis_wait: 1,
        ..options("wait")
    };
    let journal = journal(Kind::Redis, &set.url(), &waited_for);
    let mut writer = Writer::first();
    let mut working = working(&*journal, &mut writer, 0).await;
    assert!(!working.seen.is_empty());
    set.replica.pause();
    let entry = writer.seal("not replicated");
    let answer = append(&*working.session, &entry).await;
    assert!(matches!(answer, Err(AppendFault::Unknown(_))), "{answer:?}");
    let shown = soon(working.tail.next()).await;
    assert!(shown.is_err(), "{shown:?}");
    set.replica.resume();
}
