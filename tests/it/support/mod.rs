//! What the tests share.

pub(crate) mod broker;
pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod http2;
pub(crate) mod hub;
pub(crate) mod journal;
pub(crate) mod load;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod wait;
pub(crate) mod watchdog;
pub(crate) mod witness;
pub(crate) mod ws;

use tidings::config::{Http1, environment};

/// What serves plain HTTP/1 requests in the hubs of the tests. `make test` runs those of streams a second time, with the
/// other one; hubs in processes of their own read the same variable.
pub(crate) fn http1() -> Http1 {
    match environment::get("TIDINGS_SERVER__HTTP1").as_deref() {
        Some("library") => Http1::Library,
        _ => Http1::Lean,
    }
}
