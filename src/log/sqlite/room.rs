//! How the writer keeps its files within bounds, and what it does when the disk has no room left.

use super::{
    budget::Budget,
    store::{Failure, Store},
    writer::{TICK, Writer},
};
use std::time::{Duration, Instant};

/// What waits in the write-ahead file before the checkpointer is woken, and what is in it before the writer
/// has it begun anew; less if it is bounded narrowly. Both are far below its bound, because what it holds when
/// the disk gets full can neither move nor make room.
const CHECKPOINT_BYTES: (u64, u64) = (1 << 21, 1 << 23); // 2 MiB, 8 MiB

/// What events wait at most while other ones go, unless the log would outgrow its files' bound. With a group's own
/// share of retention it stays below 50 ms.
const ROOM_WAIT: Duration = Duration::from_millis(20);

impl Writer {
    /// The bound on the whole log holds, whatever pours in: so events wait where ever smaller ones have to go
    /// for ever larger ones; for longer than [`ROOM_WAIT`] only if the bound could not be kept otherwise.
    /// They do not wait for what was there before a bound was lowered: that goes by and by.
    pub(super) fn wait_for_room(&mut self) {
        let begun = Instant::now();
        while let Some(store) = &mut self.store
            && !self.retention_failed
            && store.is_full(begun.elapsed() >= ROOM_WAIT).unwrap_or(false)
        {
            let removal = store.facts.meta.removal;
            let step = store.step(Budget::alone());
            self.stepped(step);
            if self
                .store
                .as_ref()
                .is_none_or(|store| store.facts.meta.removal == removal)
            {
                // Nothing left that could go.
                break;
            }
        }
    }

    /// Does the `work` once more after it found no room. `None` if there was no way to make some.
    ///
    /// First with what the write-ahead file has: once all of it is in the main file, its space is used again.
    /// Then, at most once a tick, with the reserve: without that the write-ahead file may not even fit
    /// into the main file.
    pub(super) fn make_room<T>(
        &mut self,
        mut work: impl FnMut(&mut Store) -> Result<T, Failure>,
    ) -> Option<Result<T, Failure>> {
        let store = self.store.as_mut()?;
        let _pause = self.checkpointer.pause();
        if super::wal_bytes(&store.conn).is_ok_and(|(_, rest)| rest > 0)
            && super::checkpoint(&store.conn, "PASSIVE").is_ok()
        {
            let done = work(store);
            if !matches!(done, Err(Failure::Full(_))) {
                return Some(done);
            }
        }
        let now = Instant::now();
        if now < self.rescue_at {
            return None;
        }
        self.rescue_at = now + TICK;
        store.reserve.release();
        // What any of this leaves undone, the next time will do.
        let emptied = super::checkpoint(&store.conn, "PASSIVE").map_err(Failure::Full);
        let done = emptied.and_then(|()| {
            // First what makes room for good: events may come without end.
            if store.pending() {
                if let Err(Failure::Unknown(error)) = store.step(Budget::least()) {
                    return Err(Failure::Unknown(error));
                }
                let _ = super::checkpoint(&store.conn, "PASSIVE");
            }
            work(store)
        });
        if !matches!(done, Err(Failure::Unknown(_))) {
            let _ = super::checkpoint(&store.conn, "PASSIVE").and_then(|()| store.fit_reserve());
        }
        Some(done)
    }

    /// Keeps the write-ahead file within its bound. The checkpointer works beside, but never reaches the end of
    /// what is still growing; so from some size on the writer does the small rest itself, after
    /// which SQLite begins the file anew. It waits for the checkpointer only near the bound.
    pub(super) fn bound_wal(&mut self) {
        let Some(store) = &mut self.store else {
            return;
        };
        store.bound_reserve();
        let max = self.shared.wal_bytes_max;
        let Ok((bytes, rest)) = super::wal_bytes(&store.conn) else {
            return;
        };
        if bytes > (max / 4).min(CHECKPOINT_BYTES.1) && rest > 0 {
            let pause = match bytes > max / 4 * 3 {
                true => Some(self.checkpointer.pause()),
                false => self.checkpointer.try_pause(),
            };
            let moved = pause.map_or(Ok(()), |_pause| super::checkpoint(&store.conn, "PASSIVE"));
            match moved {
                Ok(()) => {}
                Err(error) if super::no_room(&error) => {
                    self.make_room(|_| Ok(()));
                }
                Err(error) => tracing::warn!(%error, "the write-ahead file could not be emptied"),
            }
        } else if rest > (max / 8).min(CHECKPOINT_BYTES.0) {
            self.checkpointer.wake();
        }
    }
}
