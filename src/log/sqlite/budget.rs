//! How much one step of retention may do.

use std::time::{Duration, Instant};

/// However much is wanted: a step ends after this, so that no publish waits for longer.
const TIME_MAX: Duration = Duration::from_millis(25);

/// The work of one step, in rows, bytes and time.
pub(super) struct Budget {
    begun: Instant,
    time: Duration,
    rows_wanted: u64,
    rows: u64,
    bytes_wanted: u64,
    bytes: u64,
}

impl Budget {
    /// Beside a group that adds so much: twice that may go, so that what is over a limit shrinks also
    /// while events pour in.
    pub(super) fn beside(rows_added: usize, bytes_added: usize) -> Self {
        Self {
            begun: Instant::now(),
            time: Duration::from_millis(2),
            rows_wanted: 2 * rows_added as u64,
            rows: 0,
            bytes_wanted: 2 * bytes_added as u64,
            bytes: 0,
        }
    }

    /// A step of its own.
    pub(super) fn alone() -> Self {
        Self {
            begun: Instant::now(),
            time: Duration::from_millis(5),
            rows_wanted: 0,
            rows: 0,
            bytes_wanted: 0,
            bytes: 0,
        }
    }

    /// The least that is worth a step.
    pub(super) fn least() -> Self {
        Self {
            time: Duration::ZERO,
            rows_wanted: 1,
            ..Self::alone()
        }
    }

    pub(super) fn spend(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
    }

    pub(super) fn left(&self) -> bool {
        let spent = self.begun.elapsed();
        spent < self.time || (self.wanting() && spent < TIME_MAX)
    }

    fn wanting(&self) -> bool {
        self.rows < self.rows_wanted || self.bytes < self.bytes_wanted
    }
}
