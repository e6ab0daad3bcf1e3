//! One test binary: a file per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails a test, in helpers as in the tests themselves"
)]

mod bad_body;
mod bad_input;
mod both_paths;
mod brokers;
mod browser_client;
mod browser_rules;
mod chaos;
mod cli;
mod clients;
mod cluster;
mod cluster_config;
mod cluster_example;
mod config;
mod crowd;
mod damage;
mod drain;
mod durable;
mod examples;
mod full_disk;
mod io_error;
mod journal_contract;
mod lag;
mod limits;
mod lines;
mod live;
mod log_contract;
mod log_model;
mod log_sqlite;
mod log_support;
mod main_job;
mod ndjson;
mod overload;
mod pages;
mod polling;
mod publish;
mod rendered;
mod replica;
mod resume;
mod rude_clients;
mod sharing;
mod socketio;
mod support;
mod transports;
mod wire;
mod ws;
