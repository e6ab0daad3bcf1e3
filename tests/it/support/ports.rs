//! Ports for servers that have to come back on the same one.

use super::watchdog;
use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range that the kernel takes ports of clients from (32768 and up): there, a client could take a server's port
/// while the server is away, or be connected to itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

/// A port of 127.0.0.1 that nobody listens on, and that is given to nobody else in this process.
pub(crate) fn free() -> u16 {
    watchdog::watch();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes begin at different places.
    let begin = process::id().wrapping_mul(2_654_435_761) >> 16;
    for _ in 0..COUNT {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = (begin + next) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("below COUNT");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// The first of so many that follow each other.
pub(crate) fn free_in_a_row(count: u16) -> u16 {
    loop {
        let first = free();
        let all: Vec<u16> = (1..count).map(|_| free()).collect();
        if all == (first + 1..first + count).collect::<Vec<_>>() {
            return first;
        }
    }
}
