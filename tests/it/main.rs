//! One test binary: a file per promise.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod clients;
mod main_job;
mod support;
