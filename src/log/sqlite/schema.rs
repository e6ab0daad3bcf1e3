//! The file: its tables, its settings, and its one row of facts about the log.

use super::{Durability, OpenError};
use crate::log::removal::Removed;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, config::DbConfig, params,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The version of the tables that this program writes, in `user_version`.
pub(super) const VERSION: i64 = 1;

/// `TIDG`, in `application_id`.
const APPLICATION_ID: i64 = 0x5449_4447;

/// Of all prepared statements, none is ever prepared twice.
const STATEMENTS: usize = 64;

/// - `events.seq` numbers a topic's events without holes and `events.bytes` is what those before it cost,
///   so that two rows tell a topic's number and bytes. `crc` is two checksums: see `row`. Data comes
///   last, so that passing over a row touches no overflow page.
/// - A topic's `emptied` says that it is there only for what it lost.
/// - `keys.name` is a digest of topic and key; `position` also orders them by age.
const TABLES: &str = "
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch INTEGER NOT NULL,
        head INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        removal INTEGER NOT NULL,
        removed_to INTEGER NOT NULL,
        forgotten_to INTEGER NOT NULL,
        forgotten_time_ms INTEGER NOT NULL,
        forgotten_removal INTEGER NOT NULL,
        sync INTEGER NOT NULL,
        clean INTEGER NOT NULL,
        boot TEXT NOT NULL
    ) STRICT;
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        removed_to INTEGER NOT NULL,
        removed_time_ms INTEGER NOT NULL,
        removal INTEGER NOT NULL,
        emptied INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX topics_removed ON topics (removed_to) WHERE removed_to > 0;
    CREATE INDEX topics_emptied ON topics (removal) WHERE emptied = 1;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        event TEXT,
        own_id TEXT,
        retry_ms INTEGER,
        crc INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX events_topic ON events (topic);
    CREATE INDEX events_own_id ON events (own_id) WHERE own_id IS NOT NULL;
    CREATE TABLE keys (
        position INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        name BLOB NOT NULL UNIQUE,
        digest BLOB NOT NULL
    ) STRICT;
    PRAGMA application_id = 1414087751;
    PRAGMA user_version = 1;
";

/// What the file says of the log as a whole. `head` and `time_ms` are brought up to date only when rows go
/// away: else the newest row knows better.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meta {
    pub(super) epoch: u64,
    pub(super) head: u64,
    pub(super) time_ms: u64,
    /// The number of the newest removal.
    pub(super) removal: u64,
    /// The newest position ever removed from any topic.
    pub(super) removed_to: u64,
    pub(super) forgotten: Removed,
}

impl Meta {
    /// With `head` and `time_ms` as they are.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut meta = conn
            .prepare_cached(
                "SELECT epoch, head, time_ms, removal, removed_to,
                forgotten_to, forgotten_time_ms, forgotten_removal FROM meta",
            )?
            .query_row([], |row| {
                Ok(Self {
                    epoch: row.get::<_, i64>(0)?.cast_unsigned(),
                    head: row.get(1)?,
                    time_ms: row.get(2)?,
                    removal: row.get(3)?,
                    removed_to: row.get(4)?,
                    forgotten: Removed {
                        to: row.get(5)?,
                        time_ms: row.get(6)?,
                        removal: row.get(7)?,
                    },
                })
            })?;
        let newest = conn
            .prepare_cached("SELECT position, time_ms FROM events ORDER BY position DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((position, time_ms)) = newest {
            meta.head = meta.head.max(position);
            meta.time_ms = meta.time_ms.max(time_ms);
        }
        Ok(meta)
    }

    pub(super) fn save(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached(
            "UPDATE meta SET epoch = ?, head = ?, time_ms = ?, removal = ?, removed_to = ?,
            forgotten_to = ?, forgotten_time_ms = ?, forgotten_removal = ?",
        )?
        .execute(params![
            self.epoch.cast_signed(),
            self.head,
            self.time_ms,
            self.removal,
            self.removed_to,
            self.forgotten.to,
            self.forgotten.time_ms,
            self.forgotten.removal,
        ])?;
        Ok(())
    }
}

/// The connection of the writer.
pub(super) fn connect(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let conn = connect_plain(path).map_err(|error| classify(path, error))?;
    let version = version(&conn).map_err(|error| classify(path, error))?;
    if version > VERSION {
        return Err(OpenError::Newer {
            found: version,
            known: VERSION,
            path: path.to_owned(),
        });
    }
    prepare(&conn, version, durability).map_err(|error| classify(path, error))?;
    Ok(conn)
}

/// A connection that may write, with no settings of its own.
pub(super) fn connect_plain(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    open(path, flags)
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on what is bound: else statements with a range are prepared anew each time.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn prepare(conn: &Connection, version: i64, durability: Durability) -> rusqlite::Result<()> {
    if version == 0 {
        // Before the first table, or never.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", synchronous(durability))?;
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    // KiB. A whole group fits, so that nothing is written before its commit.
    conn.pragma_update(None, "cache_size", -32_768)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    if version == 0 {
        let transaction = conn.unchecked_transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.execute(
            "INSERT INTO meta VALUES (1, ?, 0, 0, 0, 0, 0, 0, 0, 1, 1, '')",
            [rand::random::<i64>()],
        )?;
        transaction.commit()?;
    }
    let id: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id != APPLICATION_ID {
        return Err(not_ours());
    }
    Ok(())
}

fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "FULL",
        Durability::Os | Durability::Replica => "NORMAL",
    }
}

fn not_ours() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
    rusqlite::Error::SqliteFailure(code, Some("made by another program".to_owned()))
}

/// A connection for reads.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = open(path, flags)?;
    // KiB.
    conn.pragma_update(None, "cache_size", -8_192)?;
    Ok(conn)
}

/// Marks the log as in use, after giving it a new epoch if the machine may have lost acknowledged events.
///
/// Whatever the durability, that is on the disk before the first event is acknowledged: else the machine could
/// go down, lose it with the event, and come back to a log that looks closed in good order.
pub(super) fn start_run(conn: &Connection, durability: Durability) -> rusqlite::Result<()> {
    let boot = boot_id();
    let (sync, clean, last_boot): (bool, bool, String) =
        conn.query_row("SELECT sync, clean, boot FROM meta", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    conn.pragma_update(None, "synchronous", synchronous(Durability::Sync))?;
    if !sync && !clean && boot != last_boot {
        tracing::warn!(
            "the machine went down while the log ran with durability \"os\": acknowledged events may be \
             lost, so the log begins a new epoch, and readers are told"
        );
        conn.execute("UPDATE meta SET epoch = ?", [rand::random::<i64>()])?;
    }
    // What a replica loses it gets again.
    conn.execute(
        "UPDATE meta SET sync = ?, clean = 0, boot = ?",
        params![durability != Durability::Os, boot],
    )?;
    if durability == Durability::Replica {
        super::replica::prepare(conn)?;
    }
    conn.pragma_update(None, "synchronous", synchronous(durability))
}

/// Marks the log as closed in good order: with that, all that came before it is on the disk.
pub(super) fn end_run(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "synchronous", synchronous(Durability::Sync))?;
    conn.execute("UPDATE meta SET clean = 1", [])?;
    Ok(())
}

/// Which start of the machine this is. Where the system does not tell, every start looks like the same.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// What an error at opening means for the one who started the hub.
pub(super) fn classify(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            OpenError::Damaged { path, source }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            not_writable(path, source)
        }
        _ if super::no_room(&source) => not_writable(path, source),
        _ => OpenError::Failed { path, source },
    }
}

fn not_writable(path: PathBuf, source: rusqlite::Error) -> OpenError {
    OpenError::NotWritable {
        path,
        source: std::io::Error::other(source),
    }
}

/// Whether the file is damaged where it was read.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}
