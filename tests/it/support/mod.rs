//! What the tests share.

pub(crate) mod client;
pub(crate) mod http2;
pub(crate) mod hub;
pub(crate) mod load;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod wait;
pub(crate) mod witness;
