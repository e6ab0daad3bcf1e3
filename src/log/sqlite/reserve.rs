//! Room on the disk that is kept for the day when it is full: the file `reserve`, really written.
//!
//! A full disk alone would not refuse events, it would lock the log up: what the write-ahead file holds could
//! not be moved into the main file, if that has to grow for it; so the write-ahead file could not begin
//! anew, and retention, which has to write in order to remove, could make no room. Hence the law:
//! **before a commit that makes the log larger, the reserve is as large as all growth that is not in the main file
//! yet, and [`RESERVE_BYTES`] more.** Where that cannot be had, the commit does not happen, and the disk counts
//! as full. Then the reserve is given up, the write-ahead file fits into the main one, the
//! rest of the room lets retention or an opening work, and what is left of it becomes the reserve again.

use rand::Rng as _;
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// The reserve's name in the log's directory.
pub(super) const FILE: &str = "reserve";

/// The reserve beyond the growth that waits; less if the whole log is bounded narrowly.
pub(super) const RESERVE_BYTES: u64 = 1 << 21; // 2 MiB

/// Written at a time.
const BLOCK: usize = 1 << 16; // 64 KiB

pub(super) struct Reserve {
    file: File,
    bytes: u64,
    /// The log's main file. Only looked at: to open it would cost SQLite its locks.
    main: PathBuf,
    /// Its size when it was last looked at, if it cannot have become smaller since.
    main_bytes: Option<u64>,
    /// Beyond the growth that waits.
    base_bytes: u64,
}

impl Reserve {
    /// The reserve beside a log's main file, as the last run left it.
    pub(super) fn open(main: &Path, base_bytes: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(main.with_file_name(FILE))?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            file,
            bytes,
            main: main.to_owned(),
            main_bytes: None,
            base_bytes,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sees to it that a log of so many bytes will find room in its main file.
    ///
    /// # Errors
    ///
    /// If there is no room. What there was before is kept.
    pub(super) fn hold(&mut self, log_bytes: u64) -> io::Result<()> {
        if let Some(main_bytes) = self.main_bytes
            && self.bytes >= log_bytes.saturating_sub(main_bytes) + self.base_bytes
        {
            return Ok(());
        }
        let growth = self.growth(log_bytes)?;
        if growth == 0 {
            return Ok(());
        }
        let before = self.bytes;
        let grown = self.grow(growth + self.base_bytes);
        if grown.is_err() {
            self.shrink(before);
        }
        grown
    }

    /// Takes what there is, up to what a log of so many bytes needs.
    ///
    /// # Errors
    ///
    /// If that is less. It is kept all the same.
    pub(super) fn take(&mut self, log_bytes: u64) -> io::Result<()> {
        let growth = self.growth(log_bytes)?;
        self.grow(growth + self.base_bytes)
    }

    /// Gives back what a log of so many bytes does not need.
    pub(super) fn fit(&mut self, log_bytes: u64) -> io::Result<()> {
        let growth = self.growth(log_bytes)?;
        self.shrink(growth + self.base_bytes);
        Ok(())
    }

    /// Gives all of it to whoever needs it now.
    pub(super) fn release(&mut self) {
        self.shrink(0);
    }

    /// The log is about to have fewer pages, and its main file with it.
    pub(super) fn shrinks(&mut self) {
        self.main_bytes = None;
    }

    /// What the main file has to grow by.
    fn growth(&mut self, log_bytes: u64) -> io::Result<u64> {
        let main_bytes = std::fs::metadata(&self.main)?.len();
        // One that has more than the log will be cut off.
        self.main_bytes = (main_bytes <= log_bytes).then_some(main_bytes);
        Ok(log_bytes.saturating_sub(main_bytes))
    }

    fn grow(&mut self, wanted: u64) -> io::Result<()> {
        if self.bytes >= wanted {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.bytes))?;
        // Noise: zeros take no room where the file system compresses.
        let mut block = vec![0; BLOCK];
        rand::rng().fill_bytes(&mut block);
        while self.bytes < wanted {
            let rest = usize::try_from(wanted - self.bytes).unwrap_or(BLOCK);
            let written = self.file.write(&block[..rest.min(BLOCK)])?;
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes += written as u64;
        }
        Ok(())
    }

    fn shrink(&mut self, bytes: u64) {
        if self.bytes <= bytes {
            return;
        }
        match self.file.set_len(bytes) {
            Ok(()) => self.bytes = bytes,
            Err(error) => tracing::warn!(%error, "the reserve could not be made smaller"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_large_as_asked_and_outlives_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("log");
        std::fs::write(&main, [0; 10]).unwrap();
        let size = || std::fs::metadata(dir.path().join(FILE)).unwrap().len();
        let mut reserve = Reserve::open(&main, 100_000).unwrap();
        reserve.hold(10).unwrap();
        assert_eq!((reserve.bytes(), size()), (0, 0));
        reserve.take(10).unwrap();
        assert_eq!((reserve.bytes(), size()), (100_000, 100_000));
        reserve.hold(17).unwrap();
        reserve.hold(13).unwrap();
        assert_eq!((reserve.bytes(), size()), (100_007, 100_007));
        let mut reserve = Reserve::open(&main, 100_000).unwrap();
        assert_eq!(reserve.bytes(), 100_007);
        reserve.fit(11).unwrap();
        assert_eq!(size(), 100_001);
        reserve.release();
        assert_eq!((reserve.bytes(), size()), (0, 0));
    }

    #[test]
    fn growth_is_what_the_main_file_lacks_also_after_it_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("log");
        let main_bytes = |bytes| std::fs::write(&main, vec![0; bytes]).unwrap();
        main_bytes(10);
        let mut reserve = Reserve::open(&main, 100_000).unwrap();
        reserve.hold(20).unwrap();
        assert_eq!(reserve.bytes(), 100_010);
        main_bytes(1_000);
        reserve.hold(1_010).unwrap();
        assert_eq!(reserve.bytes(), 100_010);
        // As long as it has more than the log, it is looked at each time.
        reserve.shrinks();
        reserve.hold(500).unwrap();
        main_bytes(500);
        reserve.hold(1_010).unwrap();
        assert_eq!(reserve.bytes(), 100_510);
    }
}
