//! Tidings: a self-hosted push hub. Anything that can `POST` publishes, anything that can `GET` listens.
//!
//! In reading order, which is the path of an event: [`topic`], [`event`] and [`cursor`] are the words;
//! [`log`] keeps events in order; [`encoding`] makes their bytes.

pub mod config;
pub mod cursor;
pub mod encoding;
pub mod event;
pub mod log;
pub mod topic;
