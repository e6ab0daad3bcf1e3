//! How much one step of retention may do.

use std::time::{Duration, Instant};

/// However much is wanted: a step ends after this, so that no publish waits for longer.
const TIME_MAX: Duration = Duration::from_millis(25);

/// The work of one step, in rows and time.
pub(super) struct Budget {
    begun: Instant,
    time: Duration,
    rows_wanted: u64,
    rows: u64,
}

impl Budget {
    /// As long as a group that adds `rows_added` rows may grow by it: twice as many go, so that what is over
    /// a limit shrinks also while events pour in.
    pub(super) fn beside(rows_added: usize) -> Self {
        Self {
            begun: Instant::now(),
            time: Duration::from_millis(2),
            rows_wanted: 2 * rows_added as u64,
            rows: 0,
        }
    }

    /// A step of its own.
    pub(super) fn alone() -> Self {
        Self {
            begun: Instant::now(),
            time: Duration::from_millis(10),
            rows_wanted: 0,
            rows: 0,
        }
    }

    pub(super) fn spend(&mut self, rows: u64) {
        self.rows += rows;
    }

    pub(super) fn left(&self) -> bool {
        let spent = self.begun.elapsed();
        spent < self.time || (self.rows < self.rows_wanted && spent < TIME_MAX)
    }
}
