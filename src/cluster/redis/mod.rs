//! The journal in Redis Streams: Redis 7.0 and later, Valkey, alone or behind Sentinel. Not Redis Cluster.
//!
//! Three keys, in one hash slot:
//!
//! | key | type | what is in it |
//! |---|---|---|
//! | `{tidings:<name>}:journal` | stream | the entries: position `n` is the id `n-0` |
//! | `{tidings:<name>}:meta` | hash | `epoch`, `began_at` its position, `end` the newest position, `bytes` of all entries ever; `read` says nothing, and is written to be waited for |
//! | `{tidings:<name>}:nodes` | stream | announcements, about the last 1,000 |
//!
//! An entry has the fields `e` (itself), `t` (its time in ms) and `b` (`bytes` up to it, this one included). To its own
//! bytes 64 are added, for what Redis takes beside it.
//!
//! In reading order: `address` is the URL, `connect` the way to the node that it means, `check` what that node has to be;
//! `session` appends and reads, by `scripts`, and `tail` follows; `reply` reads what Redis answers, `fault` its errors.

mod address;
mod check;
mod connect;
mod fault;
mod reply;
mod scripts;
mod session;
mod tail;

use super::{
    BadUrl,
    journal::{ConnectError, Journal, JournalOptions, Session},
};
use crate::log::BoxFuture;
use address::Address;
use connect::Connector;
use session::RedisSession;
use std::{fmt, sync::Arc, time::Duration};

/// How long connecting may take, with all its checks.
const CONNECT: Duration = Duration::from_secs(5);

/// A journal in Redis Streams.
pub struct RedisJournal {
    shared: Arc<Shared>,
}

/// What the journal's sessions have in common.
struct Shared {
    connector: Connector,
    keys: Keys,
    options: JournalOptions,
    warnings: check::Warnings,
}

impl RedisJournal {
    /// The journal at `redis://[user:password@]host[:port][/database]`, or at
    /// `redis-sentinel://[user:password@]host[:port],.../master`; with TLS at `rediss://` and `rediss-sentinel://`.
    /// Does not connect.
    ///
    /// User and password are the node's; a Sentinel that asks for some is given the same.
    ///
    /// # Errors
    ///
    /// [`BadUrl`], whose text shows nothing of the URL.
    pub fn new(url: &str, options: &JournalOptions) -> Result<Self, BadUrl> {
        let mut address = Address::parse(url)?;
        if let Some(password) = &options.password {
            address.password = Some(password.clone());
        }
        Ok(Self {
            shared: Arc::new(Shared {
                connector: Connector::new(address, options.ca_file.clone()),
                keys: Keys::new(&options.name),
                options: options.clone(),
                warnings: check::Warnings::default(),
            }),
        })
    }
}

impl Journal for RedisJournal {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, ConnectError>> {
        Box::pin(async {
            let session = async {
                let node = self.shared.connector.node().await?;
                RedisSession::open(node, Arc::clone(&self.shared)).await
            };
            match tokio::time::timeout(CONNECT, session).await {
                Ok(session) => Ok(Box::new(session?) as Box<dyn Session>),
                Err(_) => Err(ConnectError::Unavailable(format!(
                    "no connection within {} s{}",
                    CONNECT.as_secs(),
                    self.shared.connector.hint()
                ))),
            }
        })
    }

    fn describe(&self) -> String {
        self.shared.connector.describe()
    }
}

impl fmt::Debug for RedisJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisJournal")
            .field(&self.describe())
            .finish()
    }
}

/// The names of the keys.
#[derive(Clone, Debug)]
struct Keys {
    journal: String,
    meta: String,
    nodes: String,
}

impl Keys {
    fn new(cluster: &str) -> Self {
        let key = |what| format!("{{tidings:{cluster}}}:{what}");
        Self {
            journal: key("journal"),
            meta: key("meta"),
            nodes: key("nodes"),
        }
    }
}
