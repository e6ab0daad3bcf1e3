//! One test binary: a file per promise.

mod config;
mod log_contract;
mod log_support;
mod support;
