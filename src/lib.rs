//! Tidings: a self-hosted push hub. Anything that can `POST` publishes, anything that can `GET` listens.
//!
//! In reading order, which is the path of an event: [`topic`], [`event`] and [`cursor`] are the words; [`ingest`] is
//! the one door in; [`log`] keeps events in order; [`fanout`] brings each to the feeds that want it; [`encoding`]
//! makes its bytes once; [`delivery`] turns a subscription into a stream; [`http`] is the surface. [`server`] puts
//! them together, by [`config`].

pub mod cluster;
pub mod config;
pub mod cursor;
pub mod delivery;
pub mod encoding;
pub mod event;
pub mod fanout;
pub mod http;
pub mod ingest;
pub mod log;
pub mod server;
pub mod topic;

pub use server::{Server, StartError};
