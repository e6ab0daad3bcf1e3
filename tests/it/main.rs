//! One test binary: a file per promise.

mod cli;
mod clients;
mod config;
mod damage;
mod drain;
mod durable;
mod full_disk;
mod lag;
mod live;
mod log_contract;
mod log_model;
mod log_sqlite;
mod log_support;
mod main_job;
mod resume;
mod support;
mod wire;
