//! Opening the log's directory: the lock, the file, and what is wrong with either.

use super::{
    Durability, FILE, checkpoint,
    lock::DirLock,
    reserve::{self, Reserve},
    reserve_bytes, schema,
    store::Store,
};
use crate::log::LogOptions;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "{} is in use by {}; stop that hub, or choose another data directory",
        path.display(),
        pid.map_or_else(|| "another hub".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The holder, if its lock file says so.
        pid: Option<u32>,
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made or changed.
    #[error("{} cannot be written; check its owner, its mode and the room on its disk", path.display())]
    NotWritable {
        /// What cannot be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is none.
    #[error("there is no {}; check the data directory", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A write-ahead file lies beside the log, as after a crash. Over a restored backup it would be mixed into it.
    #[error(
        "{} is left from a crash; if a backup was restored, delete it and the -shm file beside it, else start and \
         stop the hub first",
        path.display()
    )]
    Unfinished {
        /// The write-ahead file.
        path: PathBuf,
    },
    /// A later version of the hub made it.
    #[error(
        "{} has format {found}, and this version of the hub knows up to {known}; run the version that made it",
        path.display()
    )]
    Newer {
        /// The file's format.
        found: i64,
        /// The newest that this program knows.
        known: i64,
        /// The file.
        path: PathBuf,
    },
    /// It is no log, or one that is damaged where it has to be read.
    #[error("{} is damaged, or no log; restore a backup, or move it away to start anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: rusqlite::Error,
    },
    /// It holds less than was acknowledged.
    #[error("{} ends at event {found}, but {head} was acknowledged; check the disk", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// The position acknowledged.
        head: u64,
        /// The newest position found.
        found: u64,
    },
    /// Anything else.
    #[error("{} could not be opened", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The system gave no thread.
    #[error("no thread could be started for the log")]
    Thread(#[source] std::io::Error),
}

/// Gives the log in `dir` a new epoch, as after restoring a backup: cursors from before are then told as a gap.
/// Gives the old epoch and the new one. Blocks.
///
/// # Errors
///
/// [`OpenError`]: each says what to do.
pub fn new_epoch(dir: &Path) -> Result<(u64, u64), OpenError> {
    let path = dir.join(FILE);
    // Before anything is made: a new log has a new epoch anyway, and the one that was meant would keep its own.
    if !path.exists() {
        return Err(OpenError::Missing { path });
    }
    let (_lock, path) = enter(dir)?;
    let wal = dir.join(format!("{FILE}-wal"));
    if std::fs::metadata(&wal).is_ok_and(|file| file.len() > 0) {
        return Err(OpenError::Unfinished { path: wal });
    }
    let conn = schema::connect(&path, Durability::Sync)?;
    let failed = |error| schema::classify(&path, error);
    let mut meta = schema::Meta::load(&conn).map_err(failed)?;
    let old = meta.epoch;
    meta.epoch = rand::random();
    meta.save(&conn).map_err(failed)?;
    checkpoint(&conn, "TRUNCATE").map_err(failed)?;
    Ok((old, meta.epoch))
}

pub(super) fn enter(dir: &Path) -> Result<(DirLock, PathBuf), OpenError> {
    std::fs::create_dir_all(dir).map_err(|source| OpenError::NotWritable {
        path: dir.to_owned(),
        source,
    })?;
    Ok((DirLock::take(dir)?, dir.join(FILE)))
}

/// Opens the file and does what comes `first`; on a full disk, with the reserve's room.
pub(super) fn open_store(
    path: &Path,
    durability: Durability,
    options: &LogOptions,
    first: impl Fn(&Connection) -> rusqlite::Result<()>,
) -> Result<Store, OpenError> {
    let failed = |error| schema::classify(path, error);
    let mut reserve = Reserve::open(path, reserve_bytes(options)).map_err(|source| {
        let path = path.with_file_name(reserve::FILE);
        OpenError::NotWritable { path, source }
    })?;
    let begin = |full: bool| {
        let conn = schema::connect(path, durability)?;
        if full {
            // What was written before fits into the main file now, so that its place is free again.
            checkpoint(&conn, "PASSIVE").map_err(failed)?;
        }
        first(&conn).map_err(failed)?;
        Ok(conn)
    };
    let conn = match begin(false) {
        Err(OpenError::NotWritable { .. }) if reserve.bytes() > 0 => {
            tracing::warn!("the disk is full: the log opens with the room kept in reserve");
            reserve.release();
            begin(true)
        }
        begun => begun,
    }?;
    Store::new(conn, reserve, options.clone()).map_err(failed)
}
