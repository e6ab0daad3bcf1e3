//! What readers of one feed share: frames, reads of the log, and the pace of both. On the fan-out alone, over a log that
//! counts its reads.

use crate::support::wait::wait_until;
use bytes::Bytes;
use futures_util::FutureExt as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidings::{
    cursor::Cursor,
    encoding::Encoding,
    event::Draft,
    fanout::{Begin, Chunk, Delivery, GapReason, Hub, LagPolicy, Subscription},
    log::{
        AppendError, Batch, Bounds, BoxFuture, EventLog, Located, Outcome, Page, PageLimits, Place,
        ReadError, Start, Tail, memory::MemoryLog,
    },
    topic::{Filter, Topic},
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

const CACHE: usize = 1 << 20;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// A log that counts its reads, and lets them through one by one if it is told to.
struct CountingLog {
    log: MemoryLog,
    reads: AtomicUsize,
    gate: Semaphore,
}

impl EventLog for CountingLog {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Outcome>, AppendError>> {
        EventLog::append(&self.log, batch)
    }

    fn read_after<'a>(
        &'a self,
        place: Place,
        filter: &'a Arc<Filter>,
        limits: PageLimits,
    ) -> BoxFuture<'a, Result<Page, ReadError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let _pass = self.gate.acquire().await;
            EventLog::read_after(&self.log, place, filter, limits).await
        })
    }

    fn locate<'a>(
        &'a self,
        start: Start,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Located, ReadError>> {
        self.log.locate(start, filter)
    }

    fn oldest<'a>(
        &'a self,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Option<Cursor>, ReadError>> {
        self.log.oldest(filter)
    }

    fn tail(&self) -> Tail {
        EventLog::tail(&self.log)
    }

    fn bounds(&self) -> Bounds {
        EventLog::bounds(&self.log)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        EventLog::close(&self.log)
    }
}

struct Bench {
    log: Arc<CountingLog>,
    hub: Arc<Hub>,
    filter: Arc<Filter>,
    published: u64,
}

impl Bench {
    fn new(cache_bytes_max: usize) -> Self {
        Self::with(cache_bytes_max, |_| {})
    }

    fn with(cache_bytes_max: usize, configure: impl FnOnce(&mut tidings::log::LogOptions)) -> Self {
        let mut options = crate::log_support::options(&crate::log_support::ManualClock::new());
        configure(&mut options);
        let log = Arc::new(CountingLog {
            log: MemoryLog::new(options),
            reads: AtomicUsize::new(0),
            gate: Semaphore::new(1_000),
        });
        let (hub, tail) = Hub::new(
            Arc::clone(&log) as Arc<dyn EventLog>,
            cache_bytes_max,
            CancellationToken::new(),
        );
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(Arc::clone(&hub).run(tail));
        let filter = Arc::new(Filter::topic(Topic::parse("a").unwrap()));
        Self {
            log,
            hub,
            filter,
            published: 0,
        }
    }

    async fn publish(&mut self, data: String) -> Cursor {
        self.publish_to(0, data).await
    }

    /// Publishes to the filter's topic at that place.
    async fn publish_to(&mut self, topic: usize, data: String) -> Cursor {
        let draft = Draft::new(self.filter.topics()[topic].clone(), data);
        let batch = Batch {
            drafts: vec![draft],
            all_or_nothing: true,
        };
        self.published += 1;
        match EventLog::append(&*self.log, batch).await.unwrap()[0] {
            Outcome::Stored(cursor) => cursor,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes to b each third time, for as long as that was read live and a little longer.
    async fn publish_mixed(&mut self, n: usize) {
        let topic = usize::from(n.is_multiple_of(3) && n < 190);
        self.publish_to(topic, format!("{n} {}", "x".repeat(300)))
            .await;
    }

    fn live(&self) -> Subscription {
        Subscription::live_now(&self.hub, &self.filter, LagPolicy::Gap)
    }

    async fn start(&self, begin: Begin) -> Subscription {
        let requested = String::new();
        Subscription::start(&self.hub, &self.filter, begin, requested, LagPolicy::Gap).await
    }

    async fn back_from(&self, cursor: Cursor) -> Subscription {
        self.start(Begin::Log(Start::Cursor(cursor))).await
    }

    fn reads(&self) -> usize {
        self.log.reads.load(Ordering::Relaxed)
    }
}

async fn chunk(subscription: &mut Subscription) -> Chunk {
    match timeout(DEADLINE, subscription.next())
        .await
        .expect("something comes")
    {
        Delivery::Events(chunk) => chunk,
        Delivery::Gap(gap) => panic!("{gap:?}"),
        Delivery::Close(_) | Delivery::Stopped => panic!("it ended"),
    }
}

/// The data of so many events.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(chunk(subscription).await.events().iter().map(data));
    }
    taken
}

fn data(event: &Arc<tidings::event::Event>) -> String {
    String::from_utf8(event.data.to_vec()).unwrap()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn who_comes_back_within_the_newest_frames_does_not_touch_the_log() {
    let mut bench = Bench::new(CACHE);
    let mut steady = bench.live();
    let mut cursors = Vec::new();
    for n in 0..50 {
        cursors.push(bench.publish(n.to_string()).await);
    }
    assert_eq!(take(&mut steady, 50).await, numbers(0..50));
    for (n, cursor) in cursors.iter().enumerate().take(49) {
        let mut back = bench.back_from(*cursor).await;
        assert_eq!(take(&mut back, 49 - n).await, numbers(n + 1..50));
    }
    assert_eq!(bench.reads(), 0);
    // Also after the last reader has gone.
    drop(steady);
    let mut back = bench.back_from(cursors[9]).await;
    assert_eq!(take(&mut back, 40).await, numbers(10..50));
    assert_eq!(bench.reads(), 0);
    assert_eq!(bench.hub.feeds(), 1);
}

#[tokio::test]
async fn a_thousand_readers_share_the_bytes_of_one_read() {
    let mut bench = Bench::new(CACHE);
    let first = bench.publish("before".into()).await;
    for n in 0..100 {
        bench.publish(n.to_string()).await;
    }
    // All ask while the first read is under way.
    let gate = bench.log.gate.forget_permits(1_000);
    let readers: Vec<_> = (0..gate)
        .map(|_| {
            let (hub, filter) = (Arc::clone(&bench.hub), Arc::clone(&bench.filter));
            let reader = async move {
                let begin = Begin::Log(Start::Cursor(first));
                let mut reader =
                    Subscription::start(&hub, &filter, begin, String::new(), LagPolicy::Gap).await;
                let chunk = chunk(&mut reader).await;
                assert_eq!(chunk.events().len(), 100);
                (reader, chunk.bytes(Encoding::Sse))
            };
            #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
            tokio::spawn(reader)
        })
        .collect();
    wait_until("a read", || bench.reads() > 0).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    bench.log.gate.add_permits(1_000);
    let mut shared: Option<Bytes> = None;
    for reader in readers {
        let (_, bytes) = timeout(DEADLINE, reader).await.unwrap().unwrap();
        let first = shared.get_or_insert_with(|| bytes.clone());
        assert_eq!(bytes.as_ptr(), first.as_ptr(), "another copy");
    }
    assert_eq!(bench.reads(), 1);
}

#[tokio::test]
async fn past_the_bound_of_the_cache_the_log_is_read_and_nothing_is_missed() {
    for cache in [0, 10_000] {
        let mut bench = Bench::new(cache);
        let mut steady = bench.live();
        let first = bench.publish("x".repeat(1_000)).await;
        for _ in 0..100 {
            bench.publish("x".repeat(1_000)).await;
        }
        assert_eq!(take(&mut steady, 101).await.len(), 101);
        let mut back = bench.back_from(first).await;
        assert_eq!(take(&mut back, 100).await.len(), 100);
        assert!(bench.reads() > 0, "{cache}");
        // And then it is live again.
        let newest = bench.publish("newest".into()).await;
        assert_eq!(take(&mut back, 1).await, ["newest"]);
        assert_eq!(back.cursor(), newest);
    }
}

#[tokio::test]
async fn what_was_removed_is_told_though_its_frame_is_still_held() {
    let limits = tidings::log::retention::Limits {
        age_max_ms: None,
        events_max: Some(5),
        bytes_max: None,
    };
    let mut bench = Bench::with(CACHE, |options| options.retention.default = limits);
    let mut steady = bench.live();
    let first = bench.publish("0".into()).await;
    for n in 1..20 {
        bench.publish(n.to_string()).await;
    }
    assert_eq!(take(&mut steady, 20).await, numbers(0..20));
    let mut back = bench.back_from(first).await;
    let Delivery::Gap(gap) = back.next().await else {
        panic!("events 1 to 14 were removed");
    };
    assert_eq!(gap.reason, GapReason::Expired);
    assert_eq!(take(&mut back, 5).await, numbers(15..20));
}

#[tokio::test]
async fn a_frame_waits_for_paced_readers_until_they_have_written_or_fall_behind() {
    let mut bench = Bench::new(CACHE);
    let (mut brisk, mut slow) = (bench.live(), bench.live());
    brisk.pace();
    slow.pace();
    bench.publish("0".into()).await;
    let under_way = chunk(&mut slow).await;
    assert_eq!(take(&mut brisk, 1).await, ["0"]);
    // The pass of the first frame is not over: these gather.
    for n in 1..5 {
        bench.publish(n.to_string()).await;
    }
    let none = timeout(Duration::from_millis(50), brisk.next()).await;
    assert!(none.is_err(), "a frame went out during the pass");
    let rest = slow.behind(&under_way, Encoding::Sse, 3);
    assert_eq!(
        [&under_way.bytes(Encoding::Sse)[..3], &rest].concat(),
        under_way.bytes(Encoding::Sse)
    );
    let gathered = chunk(&mut brisk).await;
    let gathered: Vec<_> = gathered.events().iter().map(data).collect();
    assert_eq!(gathered, numbers(1..5), "one frame");
    assert_eq!(take(&mut slow, 4).await, numbers(1..5));
    assert_eq!(bench.reads(), 0);
}

#[tokio::test]
async fn a_paced_reader_that_goes_or_is_not_paced_holds_up_nobody() {
    let mut bench = Bench::new(CACHE);
    let (mut brisk, mut goes, idle) = (bench.live(), bench.live(), bench.live());
    brisk.pace();
    goes.pace();
    bench.publish("0".into()).await;
    chunk(&mut goes).await;
    assert_eq!(take(&mut brisk, 1).await, ["0"]);
    bench.publish("1".into()).await;
    drop(goes);
    assert_eq!(take(&mut brisk, 1).await, ["1"]);
    for n in 2..200 {
        bench.publish(n.to_string()).await;
        assert_eq!(take(&mut brisk, 1).await, [n.to_string()]);
    }
    drop(idle);
}

#[tokio::test]
async fn a_reader_that_cannot_even_take_a_keepalive_holds_up_nobody() {
    let mut bench = Bench::new(CACHE);
    let (mut brisk, mut stalled) = (bench.live(), bench.live());
    brisk.pace();
    stalled.pace();
    bench.publish("0".into()).await;
    assert_eq!(take(&mut brisk, 1).await, ["0"]);
    assert_eq!(take(&mut stalled, 1).await, ["0"]);
    assert!(
        timeout(Duration::from_millis(20), stalled.next())
            .await
            .is_err()
    );
    stalled.stalled();
    for n in 1..50 {
        bench.publish(n.to_string()).await;
        assert_eq!(take(&mut brisk, 1).await, [n.to_string()]);
    }
    assert_eq!(take(&mut stalled, 49).await, numbers(1..50));
    assert_eq!(bench.reads(), 0);
}

/// A transport polls nothing of its readers while its socket is full.
#[tokio::test]
async fn a_reader_that_is_not_polled_while_it_reads_the_log_holds_up_nobody() {
    let mut bench = Bench::new(0);
    let first = bench.publish("0".into()).await;
    for n in 1..5 {
        bench.publish(n.to_string()).await;
    }
    others_run(20).await; // until all of it is in the past of the fan-out, too
    // One read at a time, and none yet.
    bench.log.gate.forget_permits(1_000);
    let mut unpolled = bench.back_from(first).await;
    assert!(unpolled.next().now_or_never().is_none());
    others_run(10).await;
    assert_eq!(bench.reads(), 1);
    let (mut same, mut other) = (
        bench.back_from(first).await,
        bench.start(Begin::Log(Start::Earliest)).await,
    );
    let open = async {
        others_run(10).await;
        bench.log.gate.add_permits(1);
    };
    let (same, other, ()) = tokio::join!(take(&mut same, 4), take(&mut other, 5), open);
    assert_eq!((same, other), (numbers(1..5), numbers(0..5)));
    assert_eq!(bench.reads(), 2);
    assert_eq!(take(&mut unpolled, 4).await, numbers(1..5));
}

/// A page says nothing of what its reader was told before. So it must not be kept for a reader that was not.
#[tokio::test]
async fn a_page_behind_a_gap_is_not_passed_on_as_if_it_were_whole() {
    let rule = |topics: &str, events_max| tidings::log::retention::Rule {
        topics: tidings::topic::Pattern::parse(topics).unwrap(),
        limits: tidings::log::retention::Limits {
            age_max_ms: None,
            events_max: Some(events_max),
            bytes_max: None,
        },
    };
    let mut bench = Bench::with(400_000, |options| {
        options.retention.rules = vec![rule("b", 1)];
    });
    bench.filter = Arc::new(Filter::parse(["a", "b"]).unwrap().unwrap());
    let mut slow = bench.live();
    let first = bench.publish("0".into()).await;
    for n in 1..170 {
        bench.publish_mixed(n).await;
    }
    take(&mut slow, 170).await;
    slow.stalled();
    // More than is held, so that the slow reader has to look into the log. The last of b's were removed before it.
    for n in 170..600 {
        bench.publish_mixed(n).await;
    }
    // Two that come back together are told of that, and read on together, over the place of the slow one.
    let (mut one, mut other) = (bench.back_from(first).await, bench.back_from(first).await);
    let mut gaps = 0;
    for _ in 0..6 {
        bench.log.gate.forget_permits(1_000);
        let both_wait = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            bench.log.gate.add_permits(1_000);
        };
        let (one, other, ()) = tokio::join!(one.next(), other.next(), both_wait);
        for delivery in [one, other] {
            gaps += usize::from(matches!(delivery, Delivery::Gap(_)));
        }
    }
    assert_eq!(gaps, 2);
    let mut told = false;
    while slow.cursor().position < 600 {
        match timeout(DEADLINE, slow.next()).await.expect("it goes on") {
            Delivery::Events(_) => {}
            Delivery::Gap(gap) => told = gap.reason == GapReason::Lagged,
            Delivery::Close(_) | Delivery::Stopped => panic!("it ended"),
        }
    }
    assert!(told, "b's events were removed");
}

/// Readers that write whole chunks, parts of them, or wait, come and go, while events are published: what each
/// has written is the events after its start, in order, none missing and none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_readers_do_each_writes_every_event_once() {
    const EVENTS: usize = 3_000;
    for cache in [0, 50_000, CACHE] {
        let mut bench = Bench::new(cache);
        let mut readers = Vec::new();
        for seed in 0..24 {
            let (hub, filter) = (Arc::clone(&bench.hub), Arc::clone(&bench.filter));
            let seed = seed + cache as u64;
            #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
            readers.push(tokio::spawn(restless(hub, filter, seed, EVENTS)));
        }
        let mut sizes = StdRng::seed_from_u64(7);
        let mut expected = Vec::new();
        for n in 0..EVENTS {
            let size = *[1, 20, 200, 5_000].get(sizes.random_range(0..4)).unwrap();
            let text = format!("{n} {}", "x".repeat(size));
            bench.publish(text.clone()).await;
            expected.push(text);
            if sizes.random_range(0..20) == 0 {
                others_run(100).await;
            }
        }
        for reader in readers {
            let written = timeout(DEADLINE, reader).await.expect("it ends").unwrap();
            let written = String::from_utf8(written).unwrap();
            let lines = written
                .lines()
                .filter_map(|line| line.strip_prefix("data: "));
            assert!(lines.eq(expected.iter()), "cache {cache}");
        }
    }
}

async fn others_run(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// What a reader from the beginning has written when it has the last event.
async fn restless(hub: Arc<Hub>, filter: Arc<Filter>, seed: u64, events: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let last = format!("data: {} ", events - 1);
    let mut written: Vec<u8> = Vec::new();
    let mut begin = Begin::Log(Start::Earliest);
    loop {
        let mut reader =
            Subscription::start(&hub, &filter, begin, String::new(), LagPolicy::Gap).await;
        if random.random() {
            reader.pace();
        }
        for _ in 0..random.random_range(1..200) {
            let next = match random.random_range(0..4) {
                0 => timeout(Duration::from_micros(100), reader.next()).await,
                _ => timeout(DEADLINE, reader.next()).await,
            };
            let Ok(next) = next else { continue };
            let Delivery::Events(chunk) = next else {
                panic!("seed {seed}: no event");
            };
            let bytes = chunk.bytes(Encoding::Sse);
            let taken = match random.random_range(0..3) {
                0 => random.random_range(0..=bytes.len()),
                _ => bytes.len(),
            };
            written.extend_from_slice(&bytes[..taken]);
            if taken < bytes.len() {
                others_run(random.random_range(0..300)).await;
                written.extend(reader.behind(&chunk, Encoding::Sse, taken));
            }
            if String::from_utf8_lossy(&written[written.len().saturating_sub(20_000)..])
                .contains(&last)
            {
                return written;
            }
        }
        begin = Begin::Log(Start::Cursor(reader.cursor()));
    }
}
