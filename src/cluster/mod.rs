//! Several nodes, one log: the journal that a broker keeps, and the replica that each node makes of it.

mod attach;
pub mod entry;
mod follower;
pub mod journal;
pub mod ledger;
pub mod members;
pub mod nats;
mod outbox;
mod publisher;
pub mod rabbitmq;
pub mod records;
pub mod redis;
mod replicated;
mod shared;
mod tend;

pub use replicated::ReplicatedLog;
pub use shared::{Clocks, Standing};

use journal::{Journal, JournalOptions};
use std::sync::Arc;

/// The journal at that URL. Does not connect.
///
/// # Errors
///
/// [`BadUrl`], without anything secret in it.
pub fn journal_at(url: &str, options: &JournalOptions) -> Result<Arc<dyn Journal>, BadUrl> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    Ok(match scheme {
        "redis" | "rediss" | "redis-sentinel" | "rediss-sentinel" => {
            Arc::new(redis::RedisJournal::new(url, options)?)
        }
        "nats" | "tls" => Arc::new(nats::NatsJournal::new(url, options)?),
        "amqp" | "amqps" => Arc::new(rabbitmq::RabbitJournal::new(url, options)?),
        _ => return Err(BadUrl("it has no scheme of a broker".to_owned())),
    })
}

/// A URL of a journal that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(pub String);
