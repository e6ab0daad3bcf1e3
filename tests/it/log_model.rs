//! Appends, retention, restarts and crashes in any order, against a model that is too simple to be wrong.

use crate::log_support::{ManualClock, close, draft, filter, options, replay_in};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tidings::log::{
    EventLog, Loss, Outcome, PageLimits, Place,
    sqlite::{self, Durability, SqliteLog},
};

#[derive(Clone, Debug)]
enum Step {
    /// So many events to that topic, each of so many bytes.
    Append {
        topic: usize,
        count: usize,
        bytes: usize,
    },
    /// Time passes, and what is too old goes.
    Pass {
        ms: u64,
    },
    Reopen,
    /// The files as a crash would leave them.
    Crash,
    /// A reader goes on for a page.
    Read {
        reader: usize,
    },
}

const TOPICS: [&str; 4] = ["a", "b", "c/d", "c/e"];

/// What each reader wants.
const READERS: [&[&str]; 4] = [&["a"], &["a", "b"], &["c/*"], &["**"]];

const EVENTS_MAX: usize = 7;
const AGE_MAX_MS: u64 = 1_000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..TOPICS.len(), 1..6_usize, prop_oneof![0..50_usize, 4_000..9_000_usize])
            .prop_map(|(topic, count, bytes)| Step::Append { topic, count, bytes }),
        2 => (0..900_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        4 => (0..READERS.len()).prop_map(|reader| Step::Read { reader }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What should be: all events ever, by position: topic, time, data.
#[derive(Default)]
struct Model {
    events: BTreeMap<u64, (usize, u64, String)>,
    kept: BTreeMap<u64, usize>,
}

impl Model {
    fn retain(&mut self, now: u64) {
        for topic in 0..TOPICS.len() {
            let of_topic = self.kept.iter().filter(|(_, t)| **t == topic);
            let positions: Vec<u64> = of_topic.map(|(position, _)| *position).collect();
            let over = positions.len().saturating_sub(EVENTS_MAX);
            for (i, position) in positions.iter().enumerate() {
                if i < over || now - self.events[position].1 > AGE_MAX_MS {
                    self.kept.remove(position);
                }
            }
        }
    }

    fn wanted(&self, reader: usize) -> Vec<u64> {
        let filter = filter(READERS[reader]);
        let matches = |topic: usize| filter.matches(&draft(TOPICS[topic], "").topic);
        let all = self
            .events
            .iter()
            .filter(|(_, (topic, ..))| matches(*topic));
        all.map(|(position, _)| *position).collect()
    }
}

/// A reader's place, and which events it was told are gone.
struct Reader {
    place: Place,
    told: BTreeSet<u64>,
}

async fn run(steps: Vec<Step>) {
    let clock = ManualClock::new();
    let mut options = options(&clock);
    options.retention.default.events_max = Some(EVENTS_MAX as u64);
    options.retention.default.age_max_ms = Some(AGE_MAX_MS);
    let mut dir = tempfile::tempdir().unwrap();
    let open = |dir: &tempfile::TempDir| {
        SqliteLog::open(dir.path(), Durability::Os, options.clone()).unwrap()
    };
    let mut log = open(&dir);
    let mut model = Model::default();
    let begin = || Reader {
        place: Place {
            position: 0,
            removal: 0,
        },
        told: BTreeSet::new(),
    };
    let mut readers: Vec<_> = READERS.iter().map(|_| begin()).collect();
    for step in steps {
        match step {
            Step::Append {
                topic,
                count,
                bytes,
            } => {
                let data = |i: usize| format!("{i}{}", "x".repeat(bytes));
                let drafts: Vec<_> = (0..count).map(|i| draft(TOPICS[topic], &data(i))).collect();
                let batch = tidings::log::Batch {
                    drafts,
                    all_or_nothing: true,
                };
                for (i, outcome) in log.append(batch).await.unwrap().into_iter().enumerate() {
                    let Outcome::Stored(cursor) = outcome else {
                        panic!("{outcome:?}")
                    };
                    let newest = model
                        .events
                        .last_key_value()
                        .map_or(0, |(position, _)| *position);
                    assert!(cursor.position > newest);
                    let now = options.clock.now_ms();
                    model.events.insert(cursor.position, (topic, now, data(i)));
                    model.kept.insert(cursor.position, topic);
                }
            }
            Step::Pass { ms } => clock.advance(ms),
            Step::Reopen => {
                close(&log).await;
                log = open(&dir);
            }
            Step::Crash => {
                let copy = tempfile::tempdir().unwrap();
                // Nothing moves while it is copied: all is answered, and the reads are done.
                log.sweep().await;
                for name in [sqlite::FILE, "log.sqlite-wal"] {
                    std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
                }
                close(&log).await;
                dir = copy;
                log = open(&dir);
            }
            Step::Read { reader } => {
                log.sweep().await;
                model.retain(options.clock.now_ms());
                read(&log, &model, reader, &mut readers[reader], 3).await;
            }
        }
    }
    log.sweep().await;
    model.retain(options.clock.now_ms());
    for (reader, state) in readers.iter_mut().enumerate() {
        read(&log, &model, reader, state, 100).await;
        // And whoever starts now gets exactly what is kept.
        let all = replay_in(&log, begin().place, &filter(READERS[reader]), LIMITS).await;
        let kept: Vec<u64> = model
            .wanted(reader)
            .into_iter()
            .filter(|p| model.kept.contains_key(p))
            .collect();
        assert_eq!(all.positions(), kept);
        for event in &all.events {
            let (topic, time, data) = &model.events[&event.cursor.position];
            assert_eq!(
                (event.topic.as_str(), event.time_ms),
                (TOPICS[*topic], *time)
            );
            assert_eq!(&event.data[..], data.as_bytes());
        }
    }
    let newest = model
        .events
        .last_key_value()
        .map_or(0, |(position, _)| *position);
    assert_eq!(log.bounds().head, newest);
    close(&log).await;
}

const LIMITS: PageLimits = PageLimits {
    events_max: 100,
    bytes_max: 1 << 20,
};

/// One page: what comes is what is wanted next; a gap is told exactly if something wanted is missing.
async fn read(
    log: &SqliteLog,
    model: &Model,
    number: usize,
    reader: &mut Reader,
    events_max: usize,
) {
    let limits = PageLimits {
        events_max,
        ..LIMITS
    };
    let filter = filter(READERS[number]);
    let page = log.read_after(reader.place, &filter, limits).await.unwrap();
    let gone = |p: &u64| !model.kept.contains_key(p);
    let ahead: Vec<u64> = model
        .wanted(number)
        .into_iter()
        .filter(|p| *p > reader.place.position)
        .collect();
    let missing: BTreeSet<u64> = ahead.iter().copied().filter(gone).collect();
    let news = !missing.is_subset(&reader.told);
    assert_eq!(
        page.gap.is_some(),
        news,
        "{page:?} {missing:?} {:?}",
        reader.told
    );
    assert!(page.gap.is_none_or(|gap| gap.loss == Loss::Removed));
    reader.told.extend(missing);
    let kept: Vec<u64> = ahead.into_iter().filter(|p| !gone(p)).collect();
    let got: Vec<u64> = page.events.iter().map(|e| e.cursor.position).collect();
    assert_eq!(got, kept[..kept.len().min(events_max)]);
    reader.place = page.place;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_its_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
