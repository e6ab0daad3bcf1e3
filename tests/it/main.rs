//! One test binary: a file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod log_contract;
mod log_model;
mod log_sqlite;
mod log_support;
