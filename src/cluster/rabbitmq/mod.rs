//! A journal on RabbitMQ: a stream queue over AMQP 0-9-1, version 3.10 and later.
//!
//! An entry's position is its offset in the stream and one. Offsets have holes: the broker takes one for itself now and
//! then. A confirm tells no offset, so positions are learned from the tail, and it means that the entry is in the page
//! cache of the broker's machine: streams are never flushed.

mod address;
mod link;
mod look;
mod reader;
mod session;
mod stream;
mod tail;
mod version;

use self::{
    address::Address,
    link::{ANSWER_MAX, Door},
    session::RabbitSession,
    stream::Names,
};
use crate::{
    cluster::{
        BadUrl,
        journal::{ConnectError, Fault, Journal, JournalOptions, Session},
    },
    log::BoxFuture,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// A journal on RabbitMQ.
#[derive(Debug)]
pub struct RabbitJournal {
    door: Door,
    names: Names,
    options: JournalOptions,
    /// Whether the broker's version was found to do. Asked once, since it takes a connection of its own.
    version_known: AtomicBool,
}

impl RabbitJournal {
    /// A journal at `amqp://[user[:password]@]host[:port][/vhost]`, or `amqps://` for TLS.
    ///
    /// # Errors
    ///
    /// [`BadUrl`], which repeats nothing of the URL.
    pub fn new(url: &str, options: &JournalOptions) -> Result<Self, BadUrl> {
        let address = Address::parse(url, options.password.as_deref())?;
        Ok(Self {
            door: Door::new(address, options.ca_file.clone()),
            names: Names::of(&options.name),
            // Its `Debug` would print the password.
            options: JournalOptions {
                password: None,
                ..options.clone()
            },
            version_known: AtomicBool::new(false),
        })
    }

    async fn open(&self) -> Result<RabbitSession, ConnectError> {
        let trust = self.door.trust().await?;
        if !self.version_known.load(Ordering::Relaxed) {
            version::check(&self.door, trust.clone()).await?;
            self.version_known.store(true, Ordering::Relaxed);
        }
        let named = |role: &str| format!("tidings {} {role}", self.options.name);
        let (sending, reading) = tokio::try_join!(
            self.door.open(trust.clone(), named("sends")),
            self.door.open(trust.clone(), named("reads")),
        )?;
        self.names
            .declare(&reading.connection, &self.options)
            .await?;
        RabbitSession::new(self.names.clone(), sending, reading)
            .await
            .map_err(|Fault(text)| ConnectError::Unavailable(text))
    }
}

impl Journal for RabbitJournal {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, ConnectError>> {
        Box::pin(async {
            match tokio::time::timeout(ANSWER_MAX, self.open()).await {
                Ok(session) => session.map(|session| Box::new(session) as Box<dyn Session>),
                Err(_) => Err(ConnectError::Unavailable(format!(
                    "no answer within {} s",
                    ANSWER_MAX.as_secs()
                ))),
            }
        })
    }

    fn describe(&self) -> String {
        self.door.address.to_string()
    }
}
