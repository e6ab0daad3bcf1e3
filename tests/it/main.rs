//! One test binary: a file per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails a test, in helpers as in the tests themselves"
)]

mod bad_body;
mod bad_input;
mod browser_rules;
mod config;
mod limits;
mod log_contract;
mod log_support;
mod ndjson;
mod overload;
mod publish;
mod rude_clients;
mod support;
