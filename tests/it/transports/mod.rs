//! All transports say the same. Readers change from one to another at any cursor, while publishers publish and the hub is
//! killed: in the end each reader has its filter's part of the log from its start on, in order, once; or it was told of
//! a gap, exactly where retention removed something.

mod book;
mod faults;
mod publisher;
mod reader;
mod session;
mod verdict;

use crate::support::{hub::HubProcess, wait::wait_until};
use book::{Book, Truth};
use publisher::Publisher;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reader::Reader;
use session::Transport;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tidings::config::environment;
use tokio::{
    sync::watch,
    task::{JoinSet, block_in_place},
    time::{sleep, timeout},
};
use verdict::Verdict;

/// Longer than a seed takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Longer than a hub takes to go down whose readers all heed that: its own deadline is this.
const DRAIN: Duration = Duration::from_secs(10);

const TOPICS: usize = 20;
const PUBLISHERS: usize = 3;
const READERS: usize = 8;

/// What all actors of a seed know.
struct World {
    address: std::net::SocketAddr,
    book: Book,
    /// Of each topic so many events are kept, if not all.
    events_max: Option<usize>,
    /// Readers whose start is behind them.
    begun: AtomicUsize,
    /// All that was ever published, once nothing more will be.
    truth: watch::Receiver<Option<Arc<Truth>>>,
}

/// Topics of one, two and three segments.
fn topic(number: usize) -> String {
    match number {
        0..5 => format!("t{number}"),
        5..13 => format!("a/{number}"),
        _ => format!("b/c/{number}"),
    }
}

/// A generator of its own for each actor, so that what one decides does not depend on when another does.
fn random(seed: u64, actor: usize) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1_000) + actor as u64)
}

/// A hub's configuration, and how many events of a topic it keeps.
fn configuration(random: &mut StdRng, seed: u64) -> (String, Option<usize>) {
    let mut text = String::new();
    if seed % 4 >= 2 {
        text += "server.http1 = \"library\"\n";
    }
    let cache = ["0", "\"20KiB\"", "\"64MiB\""][random.random_range(0..3)];
    let _ = writeln!(text, "subscribe.cache_bytes_max = {cache}");
    let keepalive = ["20ms", "15s"][random.random_range(0..2)];
    let _ = writeln!(text, "subscribe.keepalive = \"{keepalive}\"");
    let events_max = (seed % 2 == 1).then(|| random.random_range(3..12));
    if let Some(events_max) = events_max {
        let _ = writeln!(
            text,
            "[[log.retention]]\ntopics = \"**\"\nevents_max = {events_max}"
        );
    }
    (text, events_max)
}

/// What a seed did.
#[derive(Default)]
struct Counts {
    sessions: BTreeMap<Transport, usize>,
    events: usize,
    gaps: usize,
}

async fn run(seed: u64) -> Counts {
    let mut random = random(seed, 0);
    let (config, events_max) = configuration(&mut random, seed);
    let mut hub = HubProcess::start(&config);
    let (tell, truth) = watch::channel(None);
    let world = Arc::new(World {
        address: hub.address(),
        book: Book::default(),
        events_max,
        begun: AtomicUsize::new(0),
        truth,
    });
    let mut publishers = JoinSet::new();
    for n in 0..PUBLISHERS {
        publishers.spawn(Publisher::new(&world, seed, n).run());
    }
    let mut readers = JoinSet::new();
    for n in 0..READERS {
        readers.spawn(Reader::new(&world, seed, n).run());
    }
    stop_now_and_then(&mut hub, &world, &mut random).await;
    while let Some(ended) = publishers.join_next().await {
        ended.expect("a publisher ends well");
    }
    wait_until("all readers have begun", || {
        // One that failed never begins.
        world.begun.load(Ordering::Relaxed) == READERS || readers.len() < READERS
    })
    .await;
    Publisher::new(&world, seed, PUBLISHERS).last().await;
    let truth = Arc::new(world.book.truth());
    tell.send_replace(Some(Arc::clone(&truth)));

    let mut counts = Counts::default();
    while let Some(ended) = readers.join_next().await {
        let diary = ended.expect("a reader gets to the end");
        Verdict::check(&diary, &truth, events_max);
        counts.events += diary.events.len();
        counts.gaps += diary.gaps.len();
        for (transport, count) in diary.sessions {
            *counts.sessions.entry(transport).or_default() += count;
        }
    }
    counts
}

/// Kills the hub, or has it go down in words, and starts it again.
async fn stop_now_and_then(hub: &mut HubProcess, world: &World, random: &mut StdRng) {
    let mut at = 0;
    for _ in 0..random.random_range(1..4) {
        at += random.random_range(50..250);
        world.book.reaches(at).await;
        let rudely = random.random_range(0..3) > 0;
        let begun = Instant::now();
        block_in_place(|| if rudely { hub.kill() } else { hub.terminate() });
        assert!(
            begun.elapsed() < DRAIN,
            "a hub that goes down takes {:?}; its log:\n{}",
            begun.elapsed(),
            hub.log()
        );
        sleep(Duration::from_millis(random.random_range(0..30))).await;
        block_in_place(|| hub.start_again());
    }
}

/// More with `TRANSPORT_SEEDS=200`, others with `TRANSPORT_SEED=1000`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the seed is shown with what fails")]
async fn every_transport_says_the_same() {
    // (No names of Tidings: the hub refuses variables of its own that it does not know.)
    let number = |name| environment::get(name).and_then(|text| text.parse().ok());
    let from = number("TRANSPORT_SEED").unwrap_or(0);
    let seeds = number("TRANSPORT_SEEDS").unwrap_or(5);
    let mut all = Counts::default();
    for seed in from..from + seeds {
        let begun = Instant::now();
        let counts = timeout(DEADLINE, run(seed)).await;
        let counts = counts.unwrap_or_else(|_| panic!("seed {seed} takes too long"));
        eprintln!(
            "seed {seed}: {} events and {} gaps in {:?}, by {:?}",
            counts.events,
            counts.gaps,
            begun.elapsed(),
            counts.sessions
        );
        all.events += counts.events;
        all.gaps += counts.gaps;
        for (transport, count) in counts.sessions {
            *all.sessions.entry(transport).or_default() += count;
        }
    }
    assert!(all.events > 0 && (all.gaps > 0 || seeds < 2));
    assert_eq!(
        all.sessions.len(),
        Transport::ALL.len(),
        "{:?}",
        all.sessions
    );
}
