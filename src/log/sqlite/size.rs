//! How large the log's file is and may be: its pages, the reserve for their growth, and the bound on the whole.

use super::store::Store;

/// Pages given back to the file system at a time.
const VACUUM_PAGES: u64 = 64;

impl Store {
    /// Within a transaction: keeps room for what it makes the log grow by, or fails as SQLite does when there is none.
    pub(super) fn reserve_growth(&mut self) -> rusqlite::Result<()> {
        let log_bytes = self.log_bytes()?;
        self.reserve.hold(log_bytes).map_err(|error| {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            rusqlite::Error::SqliteFailure(full, Some(format!("no room is in reserve: {error}")))
        })
    }

    /// Has the reserve as large as it should be, as far as the disk has room; and, where the whole log comes
    /// near its bound, not larger.
    pub(super) fn fit_reserve(&mut self) -> rusqlite::Result<()> {
        let log_bytes = self.log_bytes()?;
        // A full disk is told of where it matters.
        let _ = self.reserve.take(log_bytes);
        self.bound_reserve();
        Ok(())
    }

    /// Has the reserve not larger than it should be, where the whole log comes near its bound.
    pub(super) fn bound_reserve(&mut self) {
        let wal = super::wal_bytes_max(&self.options);
        if self.log_bytes + wal + self.reserve.bytes() > self.options.retention.bytes_max {
            // It only takes more than it should.
            let _ = self.reserve.fit(self.log_bytes);
        }
    }

    /// Whether the file may not grow any more before something is removed: it is beyond its bound, or, if it
    /// was found far beyond it, beyond the least that it has come down to since.
    /// If it `may_borrow`, it may grow into what the write-ahead file rarely needs.
    pub(super) fn is_full(&mut self, may_borrow: bool) -> rusqlite::Result<bool> {
        if !self.over_whole {
            return Ok(false);
        }
        let used = self.used_bytes()?;
        let least = self.full_from_bytes.min(used);
        self.full_from_bytes = least.max(self.pages_bytes_max);
        let wal = super::wal_bytes_max(&self.options);
        let borrowed = if may_borrow { wal / 4 } else { 0 };
        Ok(used > self.full_from_bytes + borrowed)
    }

    /// Whether so many pages are in use that the oldest events have to go.
    pub(super) fn is_over_whole(&mut self) -> rusqlite::Result<bool> {
        Ok(self.log_bytes()? > self.evict_from_bytes && self.used_bytes()? > self.evict_from_bytes)
    }

    /// What the pages take, once all are in the main file.
    pub(super) fn log_bytes(&mut self) -> rusqlite::Result<u64> {
        self.log_bytes = self.number("PRAGMA page_count")? * self.page_bytes;
        Ok(self.log_bytes)
    }

    /// Pages in use.
    fn used_bytes(&mut self) -> rusqlite::Result<u64> {
        let free = self.number("PRAGMA freelist_count")? * self.page_bytes;
        Ok(self.log_bytes()?.saturating_sub(free))
    }

    pub(super) fn number(&self, sql: &str) -> rusqlite::Result<u64> {
        self.conn
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))
    }

    /// If the file is larger than it may be (its bound was lowered), gives some free pages back; gives whether
    /// there is more to do.
    pub(super) fn shrink_some(&mut self) -> rusqlite::Result<bool> {
        let free = self.number("PRAGMA freelist_count")?;
        if self.log_bytes()? <= self.pages_bytes_max || free == 0 {
            return Ok(false);
        }
        self.reserve.shrinks();
        let mut statement = self
            .conn
            .prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        // One page a row.
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(free > VACUUM_PAGES)
    }
}
