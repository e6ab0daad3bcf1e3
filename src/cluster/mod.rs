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
pub mod redis;
mod replicated;
mod shared;
mod tend;

pub use replicated::ReplicatedLog;
pub use shared::{Clocks, Standing};

/// A URL of a journal that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(pub String);
