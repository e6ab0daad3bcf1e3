//! What the tests share.

pub(crate) mod client;
pub(crate) mod hub;
pub(crate) mod load;
pub(crate) mod server;
pub(crate) mod stream;
