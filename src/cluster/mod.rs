//! Several nodes, one log: the journal that a broker keeps, and the replica that each node makes of it.

pub mod journal;
pub mod nats;
pub mod rabbitmq;
pub mod redis;

/// A URL of a journal that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(pub String);
