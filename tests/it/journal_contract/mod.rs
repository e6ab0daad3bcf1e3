//! The laws of `Journal` and its sessions, each as a test that every broker runs.

use crate::support::{
    broker::{Broker, Kind, Settings, fresh_name, shared},
    chaos::{ChaosProxy, Mode},
    ports,
    stream::DEADLINE,
    wait::in_time,
};
use bytes::Bytes;
use std::time::Duration;
use tidings::cluster::{
    journal::{
        Acknowledgement, AppendFault, Begins, ConnectError, Ends, EntryTail, Journal,
        JournalOptions, Sealed, Session, Tailed,
    },
    nats::NatsJournal,
    rabbitmq::RabbitJournal,
    redis::RedisJournal,
};
use tokio::time::{Instant, interval, timeout};

/// Much longer than any law takes on a busy machine.
const LAW_MAX: Duration = Duration::from_secs(300);

macro_rules! laws {
    ($($(#[$doc:meta])* async fn $name:ident($kind:ident: Kind) $body:block)*) => {
        $($(#[$doc])* async fn $name($kind: Kind) $body)*

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name(super::Kind::Redis)).await;
            })*
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name(super::Kind::Nats)).await;
            })*
        }

        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name(super::Kind::RabbitMq)).await;
            })*
        }
    };
}

/// The epoch that the first entry begins.
const EPOCH: u64 = 7;

fn options(name: &str) -> JournalOptions {
    JournalOptions {
        name: name.to_owned(),
        age_max_ms: 3_600_000,
        bytes_max: 256 << 20, // 256 MiB
        ca_file: None,
        password: None,
        redis_wait: 0,
        nats_replicas: 1,
    }
}

fn journal(kind: Kind, url: &str, options: &JournalOptions) -> Box<dyn Journal> {
    match kind {
        Kind::Redis => Box::new(RedisJournal::new(url, options).unwrap()),
        Kind::Nats => Box::new(NatsJournal::new(url, options).unwrap()),
        Kind::RabbitMq => Box::new(RabbitJournal::new(url, options).unwrap()),
    }
}

/// A journal of a name of its own in the shared broker.
fn fresh(kind: Kind) -> Box<dyn Journal> {
    journal(kind, &shared(kind).url(), &options(&fresh_name()))
}

async fn session(journal: &dyn Journal) -> Box<dyn Session> {
    soon(journal.connect()).await.unwrap()
}

/// In the time that a test has for anything.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    in_time(DEADLINE, "an answer", future).await
}

/// Makes entries, numbered on.
struct Writer {
    writer: u64,
    number: u64,
    /// Whether the first one begins the epoch.
    begins: bool,
}

impl Writer {
    /// The journal's first.
    fn first() -> Self {
        Self {
            writer: 1,
            number: 0,
            begins: true,
        }
    }

    /// One that comes later.
    fn another(writer: u64) -> Self {
        Self {
            writer,
            number: 0,
            begins: false,
        }
    }

    fn seal(&mut self, bytes: impl Into<Bytes>) -> Sealed {
        self.number += 1;
        let begins = (self.begins && self.number == 1).then(|| begins(EPOCH));
        Sealed {
            epoch: if begins.is_some() { 0 } else { EPOCH },
            begins,
            writer: self.writer,
            number: self.number,
            attempt: 0,
            time_ms: now_ms(),
            bytes: bytes.into(),
        }
    }

    /// Appends an entry that tells who wrote it, and its number; resolves once it is acknowledged.
    async fn append(&mut self, session: &dyn Session) -> Bytes {
        let bytes = Bytes::from(format!("{}-{}", self.writer, self.number + 1));
        append(session, &self.seal(bytes.clone())).await.unwrap();
        bytes
    }

    /// Appends so many, one after the other.
    async fn append_many(&mut self, session: &dyn Session, count: usize) -> Vec<Bytes> {
        let mut appended = Vec::new();
        for _ in 0..count {
            appended.push(self.append(session).await);
        }
        appended
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    now.as_millis().try_into().unwrap()
}

async fn append(session: &dyn Session, entry: &Sealed) -> Result<Option<u64>, AppendFault> {
    soon(async { session.append(entry).await?.await }).await
}

/// The next that comes, which are entries.
async fn next_entries(tail: &mut dyn EntryTail) -> Vec<(u64, Bytes)> {
    match soon(tail.next()).await.unwrap() {
        Tailed::Entries(entries) => {
            assert!(!entries.is_empty());
            entries
        }
        Tailed::Announcement(bytes) => panic!("an announcement: {bytes:?}"),
    }
}

/// The next so many entries, with rising positions. There is nothing behind them yet.
async fn entries(tail: &mut dyn EntryTail, count: usize) -> Vec<(u64, Bytes)> {
    let mut entries: Vec<(u64, Bytes)> = Vec::new();
    while entries.len() < count {
        entries.extend(next_entries(tail).await);
    }
    assert_eq!(entries.len(), count);
    assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b), "{entries:?}");
    assert!(entries.first().is_none_or(|(position, _)| *position >= 1));
    entries
}

/// All entries from the oldest kept up to that one.
async fn entries_up_to(session: &dyn Session, newest: &Bytes) -> Vec<(u64, Bytes)> {
    let mut tail = soon(session.tail(0)).await.unwrap();
    let mut entries = Vec::new();
    while entries.last().is_none_or(|(_, bytes)| bytes != newest) {
        entries.extend(next_entries(&mut *tail).await);
    }
    entries
}

fn payloads(entries: &[(u64, Bytes)]) -> Vec<Bytes> {
    entries.iter().map(|(_, bytes)| bytes.clone()).collect()
}

/// Asks for the ends until the last is that one: at once, if the answer says that it is exact.
async fn until_last(session: &dyn Session, last: u64) -> Ends {
    soon(async {
        let mut tick = interval(Duration::from_millis(20));
        loop {
            let ends = session.ends().await.unwrap();
            if ends.last == last {
                return ends;
            }
            assert!(!ends.exact && ends.last < last, "{ends:?}, not {last}");
            tick.tick().await;
        }
    })
    .await
}

mod connect;
mod keep;
mod order;
mod outage;

/// An epoch, of which its writer knows the one before.
fn begins(epoch: u64) -> Begins {
    Begins { epoch, looked: 0 }
}
