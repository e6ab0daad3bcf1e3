//! One test binary: a file per promise.

mod bad_input;
mod browser_rules;
mod config;
mod limits;
mod log_contract;
mod log_support;
mod ndjson;
mod publish;
mod rude_clients;
mod support;
