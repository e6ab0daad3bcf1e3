//! The journal: one order of entries that all nodes see, kept by a broker. Knows nothing of what is in an entry.
//!
//! An adapter is a [`Journal`], which connects, and a [`Session`], which is one connection's life: when anything about it
//! fails it is dropped, and another one is made. No adapter reconnects by itself, or goes on after a failure without a
//! word: brokers splice histories silently, so each new session is verified before it is read on.

use crate::log::BoxFuture;
use bytes::Bytes;
use std::fmt;

/// A broker's one order of entries, as a place to connect to.
pub trait Journal: Send + Sync + 'static {
    /// Connects, makes the stream if it is not there, and checks that its settings, the broker's version and the broker's
    /// settings are such that the journal's promises hold. Bounded in time by the adapter (about 5 s).
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, ConnectError>>;

    /// The broker for logs and pages, such as `redis://127.0.0.1:6379`: never with a user or a password.
    fn describe(&self) -> String;
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// It will not heal by itself: somebody has to change what the text names, in one line.
    #[error("{0}")]
    Refused(String),
    /// The broker is not there, or not ready. Try again.
    #[error("{0}")]
    Unavailable(String),
}

/// One connection's life.
pub trait Session: Send + Sync + 'static {
    /// What an entry may have in bytes, as the broker says.
    fn entry_bytes_max(&self) -> usize;

    /// Hands an entry to the broker. Resolves once it is on its way, with a future of the broker's answer. Entries land
    /// in the order of the calls, which are made one after the other; many may be on their way.
    ///
    /// # Errors
    ///
    /// [`AppendFault`]: of the outer future, [`AppendFault::NotSent`] where it is certain.
    fn append<'a>(
        &'a self,
        entry: &'a Sealed,
    ) -> BoxFuture<'a, Result<Acknowledgement, AppendFault>>;

    /// Entries after that position, oldest first, and announcements of all nodes from now on (one's own too). Below the
    /// oldest kept entry it begins with that, silently. On a connection of its own where blocking would hold up others.
    fn tail(&self, after: u64) -> BoxFuture<'_, Result<Box<dyn EntryTail>, Fault>>;

    /// The entry at that position, read from the leader; `None` if there is none (any more, or yet).
    fn read(&self, position: u64) -> BoxFuture<'_, Result<Option<Bytes>, Fault>>;

    /// The ends of what is kept now, read from the leader.
    fn ends(&self) -> BoxFuture<'_, Result<Ends, Fault>>;

    /// Tells all nodes something that is not kept: it may get lost, and comes to those who tail now.
    fn announce(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>>;

    /// Called about once a second: removes what is over the journal's bounds where the broker does not do so by itself,
    /// and gives the broker's clock in ms since 1970 UTC, where it tells.
    fn tend(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>>;
}

/// An entry on its way.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The epoch that it belongs to. A broker that knows the present epoch refuses entries of another one.
    pub epoch: u64,
    /// If it begins a new epoch, which; `epoch` is the one before, 0 if none is known.
    pub begins: Option<Begins>,
    /// Who wrote it.
    pub writer: u64,
    /// Its number among the writer's.
    pub number: u64,
    /// How often it was handed over before. A broker that drops repetitions has to take each of these: an earlier one may
    /// be there and not count.
    pub attempt: u32,
    /// ms since 1970 UTC.
    pub time_ms: u64,
    /// All of it, the above included: what is stored and comes back.
    pub bytes: Bytes,
}

/// What begins with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begins {
    /// The new epoch.
    pub epoch: u64,
    /// How far its writer had seen the journal. An entry whose writer knew no epoch counts only if the present one began
    /// no later.
    pub looked: u64,
}

/// The broker's answer to come: the position if the broker tells it.
pub type Acknowledgement = BoxFuture<'static, Result<Option<u64>, AppendFault>>;

/// Why an entry was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFault {
    /// Certainly not stored, and never will be.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Stored or not, now or later. The session may be broken.
    #[error("unknown whether it arrived: {0}")]
    Unknown(String),
    /// Certainly not stored: the broker knows another epoch.
    #[error("the broker knows another epoch")]
    Fenced,
}

/// Something about a session failed: it is to be dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// What a journal keeps. Positions are from 1 up; there may be holes between entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Of the oldest kept entry; one beyond `last` if none is kept.
    pub first: u64,
    /// Of the newest entry ever, as far as the broker can tell; 0 if there was none.
    pub last: u64,
    /// Whether `last` is exact: nothing that was acknowledged before the call lies beyond it.
    pub exact: bool,
}

/// Entries as they come.
pub trait EntryTail: Send {
    /// What comes next; waits for it. Never an empty list.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the session is to be dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Tailed, Fault>>;
}

/// What comes from a tail.
#[derive(Clone, Debug)]
pub enum Tailed {
    /// Entries with their positions, rising; as many as are there, up to some hundreds or about 4 MiB.
    Entries(Vec<(u64, Bytes)>),
    /// What a node announced.
    Announcement(Bytes),
}

/// What all adapters are told.
#[derive(Clone)]
pub struct JournalOptions {
    /// The cluster's name, `[A-Za-z0-9_-]{1,64}`: names of streams, keys and queues are made of it.
    pub name: String,
    /// Entries older than this may go, in ms.
    pub age_max_ms: u64,
    /// Past this many bytes the oldest entries may go.
    pub bytes_max: u64,
    /// A file with a CA's certificates in PEM, in place of the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// A password, in place of one in the URL.
    pub password: Option<String>,
    /// Redis: replicas that `WAIT` waits for; 0 sends none.
    pub redis_wait: u32,
    /// NATS: replicas of the stream.
    pub nats_replicas: usize,
}

impl fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All but the password.
        f.debug_struct("JournalOptions")
            .field("name", &self.name)
            .field("age_max_ms", &self.age_max_ms)
            .field("bytes_max", &self.bytes_max)
            .field("ca_file", &self.ca_file)
            .field("redis_wait", &self.redis_wait)
            .field("nats_replicas", &self.nats_replicas)
            .finish_non_exhaustive()
    }
}
