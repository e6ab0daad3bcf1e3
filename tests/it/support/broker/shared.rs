//! One broker of each kind for all tests that need no more than a name of their own in it.

use super::{Broker, Kind};
use crate::support::watchdog;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Starts it at the first call, which the thread waits for. It is never killed before the test process ends.
pub(crate) fn shared(kind: Kind) -> &'static Broker {
    watchdog::watch();
    static BROKERS: [OnceLock<Broker>; 3] = [const { OnceLock::new() }; 3];
    BROKERS[kind as usize].get_or_init(|| {
        // On a thread of its own: the caller's may be one that runs tasks, and must not start a runtime.
        let start = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(Broker::start(kind))
        });
        start.join().expect("a broker")
    })
}

/// A name for a journal that no other test has.
pub(crate) fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
