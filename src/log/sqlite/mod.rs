//! The default engine: one SQLite file, `log.sqlite`, in a directory of its own.
//!
//! In reading order: `open` is the way in, past `lock`, which keeps others out; `schema` the file; `row` one event in
//! it; `store` the writer's transactions with `topics`, what it remembers, `retain`, what it removes, and `size`, what
//! it takes; `writer` the thread around it, with `room`, how it stays within bounds, and `answer`, how it answers;
//! `replica` is what it does in a cluster; `checkpoint` the thread beside it. `reserve` is room kept for when the disk is full. `reader` lends connections;
//! `select`, `page` and `locate` are what they are lent for.

mod answer;
mod budget;
mod checkpoint;
mod ids;
mod locate;
mod lock;
mod open;
mod page;
mod reader;
mod replica;
mod reserve;
mod retain;
mod room;
mod row;
mod schema;
mod select;
mod size;
mod store;
#[cfg(test)]
mod tests;
mod topics;
mod wait;
mod writer;

use super::{
    AppendError, Batch, Bounds, BoxFuture, EventLog, Group, Located, LogOptions, Outcome, Page,
    PageLimits, Place, ReadError, Start, TAIL_GROUPS, Tail, removal,
    replica::{Ancestor, Apply, Looked, ReplicaLog, shared_with},
};
use crate::{cursor::Cursor, event::Event, topic::Filter};
use bytes::Bytes;
use checkpoint::Checkpointer;
use locate::Search;
pub use open::{OpenError, new_epoch};
use open::{enter, open_store};
use reader::Readers;
use rusqlite::{Connection, ErrorCode};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};
use store::Store;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use writer::{Append, Request, Writer};

/// The log's name in its directory.
pub const FILE: &str = "log.sqlite";

/// Events that share a commit.
const GROUP_EVENTS_MAX: usize = 1_024;

/// Bytes that share a commit; less if the whole log is bounded narrowly.
const GROUP_BYTES_MAX: u64 = 1 << 22; // 4 MiB

/// Batches that wait for the writer; more wait to wait.
const QUEUE_BATCHES_MAX: usize = 4_096;

/// KiB of events that wait for the writer; more wait to wait.
const QUEUE_KIB_MAX: usize = 1 << 16; // 64 MiB

/// The write-ahead file's bound: an eighth of the whole log's, within these.
const WAL_BYTES: (u64, u64) = (1 << 18, 1 << 26); // 256 KiB, 64 MiB

/// What an acknowledged event survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: each commit waits for the disk.
    Sync,
    /// A crash of the process. After a crash of the machine the log begins a new epoch, since events that
    /// were acknowledged may be lost.
    Os,
    /// As [`Durability::Os`], in the replica of a journal: what a crash of the machine loses comes again from there.
    Replica,
}

/// An [`EventLog`] in a SQLite file.
///
/// One thread writes, in groups that share a commit; reads have connections of their own. Dropping it finishes
/// what was appended, without waiting for that: [`EventLog::close`] does.
pub struct SqliteLog {
    shared: Arc<Shared>,
    requests: SyncSender<Request>,
    /// Room in the queue, in KiB. Each batch takes at least so many that no more than [`QUEUE_BATCHES_MAX`] wait.
    room: Arc<Semaphore>,
}

/// What the writer and those who read have in common.
struct Shared {
    path: PathBuf,
    durability: Durability,
    options: LogOptions,
    group_bytes_max: usize,
    wal_bytes_max: u64,
    live: Mutex<Live>,
    readers: Arc<Readers>,
    /// From now on no tail is waited for.
    closing: CancellationToken,
}

/// The end of the log, and those who follow it.
struct Live {
    epoch: u64,
    ancestors: Vec<Ancestor>,
    head: u64,
    removed_to: u64,
    tails: Vec<TailSender>,
    closed: bool,
}

type TailSender = mpsc::Sender<Group>;

impl SqliteLog {
    /// Opens the log in `dir`, making both if they are not there. Blocks.
    ///
    /// `options.retention.bytes_max` is what its files may take together; below some MiB it is kept less
    /// exactly, since one group of events may take that much.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: each says what to do.
    pub fn open(
        dir: &Path,
        durability: Durability,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let (lock, path) = enter(dir)?;
        let failed = |error| schema::classify(&path, error);
        let mut store = open_store(&path, durability, &options, |conn| {
            schema::start_run(conn, durability)
        })?;
        store.fit_reserve().map_err(failed)?;
        let wal_bytes_max = wal_bytes_max(&options);
        let checkpointer = Checkpointer::spawn(path.clone()).map_err(OpenError::Thread)?;
        let shared = Arc::new(Shared {
            readers: Arc::new(Readers::new(path.clone())),
            durability,
            group_bytes_max: usize::try_from(GROUP_BYTES_MAX.min(wal_bytes_max / 2))
                .unwrap_or(usize::MAX),
            wal_bytes_max,
            live: Mutex::new(Live {
                epoch: store.facts.meta.epoch,
                ancestors: replica::ancestors(&store.conn).map_err(failed)?,
                head: store.facts.meta.head,
                removed_to: store.facts.meta.removed_to,
                tails: Vec::new(),
                closed: false,
            }),
            path,
            options,
            closing: CancellationToken::new(),
        });
        // Some more than can ask for room: closing and sweeping ask for none.
        let (requests, queue) = sync_channel(QUEUE_BATCHES_MAX + 64);
        let writer = Writer::new(Arc::clone(&shared), queue, store, checkpointer, lock);
        let end = EndOnPanic(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                let _end = end;
                writer.run();
            })
            .map_err(OpenError::Thread)?;
        Ok(Self {
            shared,
            requests,
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
        })
    }

    /// Runs retention to completion, as it would run by itself in steps.
    pub async fn sweep(&self) {
        let (reply, done) = oneshot::channel();
        if self.requests.try_send(Request::Sweep(reply)).is_ok() {
            // An error means that the log was closed.
            let _ = done.await;
        }
    }

    async fn append(&self, batch: Batch) -> Result<Vec<Outcome>, AppendError> {
        let bytes = batch.drafts.iter().map(removal::cost_of_draft).sum::<u64>();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let share = (bytes >> 10).clamp(QUEUE_KIB_MAX / QUEUE_BATCHES_MAX, QUEUE_KIB_MAX);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(share).await;
        let (reply, answered) = answer::reply();
        let append = Append {
            batch,
            bytes,
            reply,
            _room: room.map_err(|_| AppendError::Unavailable)?,
        };
        // There is room: it was asked for.
        let sent = self.requests.try_send(Request::Append(append));
        sent.map_err(|_| AppendError::Unavailable)?;
        answered.get().await
    }
}

fn reserve_bytes(options: &LogOptions) -> u64 {
    reserve::RESERVE_BYTES.min(wal_bytes_max(options))
}

fn wal_bytes_max(options: &LogOptions) -> u64 {
    (options.retention.bytes_max / 8).clamp(WAL_BYTES.0, WAL_BYTES.1)
}

/// Moves the write-ahead file into the main one, as far as the mode says and others let it.
fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<()> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

/// What is in use of the write-ahead file, and how much of that is not in the main file yet.
fn wal_bytes(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    const FRAME_BYTES: i64 = 4_096 + 24;
    let (frames, moved): (i64, i64) = conn
        .prepare_cached("PRAGMA wal_checkpoint(NOOP)")?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
    let bytes = |frames: i64| (frames.max(0) * FRAME_BYTES).cast_unsigned();
    Ok((bytes(frames), bytes(frames - moved.max(0))))
}

/// Has the connection leave the write-ahead file as the disk has it when it is dropped.
fn close_unchecked(store: &Store) {
    use rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    if let Err(error) = store
        .conn
        .set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
    {
        tracing::warn!(%error, "the write-ahead file may be read as it is in memory");
    }
}

/// Whether an error means a full disk. SQLite says something else where its shared memory could not grow.
fn no_room(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == SQLITE_IOERR_SHMSIZE
    })
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the head on; gives the tails that have to have these events.
    fn publish(&self, events: &[Arc<Event>]) -> Vec<TailSender> {
        let mut live = self.live();
        let Some(newest) = events.last() else {
            return Vec::new();
        };
        live.head = newest.cursor.position;
        live.tails.retain(|tail| !tail.is_closed());
        live.tails.clone()
    }

    /// Takes over what a replica's file says of itself, and what it says of its epochs if that was `cut`; gives the
    /// tails.
    fn follow(&self, store: &Store, cut: bool) -> Vec<TailSender> {
        let ancestors = cut.then(|| replica::ancestors(&store.conn));
        let mut live = self.live();
        let meta = &store.facts.meta;
        (live.epoch, live.head, live.removed_to) = (meta.epoch, meta.head, meta.removed_to);
        match ancestors {
            Some(Ok(ancestors)) => live.ancestors = ancestors,
            Some(Err(error)) => {
                // Their cursors are taken for unknown ones.
                tracing::error!(%error, "the epochs that ended could not be read");
                live.ancestors.clear();
            }
            None => {}
        }
        live.tails.retain(|tail| !tail.is_closed());
        live.tails.clone()
    }

    /// Something was removed, up to there.
    fn removed(&self, to: u64) {
        self.live().removed_to = to;
    }

    fn send(&self, tails: &[TailSender], events: Vec<Arc<Event>>) {
        if !events.is_empty() {
            self.send_group(tails, &events.into());
        }
    }

    fn send_group(&self, tails: &[TailSender], group: &Group) {
        for tail in tails {
            let send = async {
                tokio::select! {
                    biased;
                    room = tail.reserve() => room.ok(),
                    () = self.closing.cancelled() => None,
                }
            };
            match wait::block_on(send) {
                Some(room) => room.send(group.clone()),
                // It is gone, or full while the log closes: it ends before this group.
                None => self.live().tails.retain(|other| !other.same_channel(tail)),
            }
        }
    }

    fn close(&self) {
        {
            let mut live = self.live();
            live.closed = true;
            live.tails.clear();
        }
        self.readers.close();
    }
}

/// A writer that panicked answers nobody any more: whoever follows the log is to see its end.
struct EndOnPanic(Arc<Shared>);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl EventLog for SqliteLog {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Outcome>, AppendError>> {
        Box::pin(self.append(batch))
    }

    fn read_after<'a>(
        &'a self,
        place: Place,
        filter: &'a Arc<Filter>,
        limits: PageLimits,
    ) -> BoxFuture<'a, Result<Page, ReadError>> {
        let filter = Arc::clone(filter);
        let Bounds { epoch, head, .. } = self.bounds();
        let read = move |reader: &mut _| page::read(reader, place, &filter, limits, (epoch, head));
        Box::pin(self.shared.readers.run(read))
    }

    fn locate<'a>(
        &'a self,
        start: Start,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Located, ReadError>> {
        let filter = Arc::clone(filter);
        let step = move |search: Search, reader: &mut _| search.step(reader, &filter);
        Box::pin(self.shared.readers.run_steps(Search::Begin(start), step))
    }

    fn oldest<'a>(
        &'a self,
        filter: &'a Arc<Filter>,
    ) -> BoxFuture<'a, Result<Option<Cursor>, ReadError>> {
        let (filter, epoch) = (Arc::clone(filter), self.bounds().epoch);
        let step = move |after, reader: &mut _| locate::oldest(after, reader, &filter);
        Box::pin(async move {
            let oldest = self.shared.readers.run_steps(0, step).await?;
            Ok(oldest.map(|position| Cursor { epoch, position }))
        })
    }

    fn tail(&self) -> Tail {
        let (sender, groups) = mpsc::channel(TAIL_GROUPS);
        let mut live = self.shared.live();
        if !live.closed {
            live.tails.push(sender);
        }
        Tail {
            epoch: live.epoch,
            from: live.head,
            groups,
        }
    }

    fn bounds(&self) -> Bounds {
        let live = self.shared.live();
        Bounds {
            epoch: live.epoch,
            head: live.head,
            removed_to: live.removed_to,
        }
    }

    fn shared_with(&self, epoch: u64) -> Option<u64> {
        let live = self.shared.live();
        match epoch == live.epoch {
            true => Some(u64::MAX),
            false => shared_with(&live.ancestors, epoch),
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (reply, done) = oneshot::channel();
            self.shared.closing.cancel();
            if self.requests.try_send(Request::Close(reply)).is_ok() {
                // An error means that it was closed already.
                let _ = done.await;
            }
        })
    }
}

impl ReplicaLog for SqliteLog {
    fn apply(&self, apply: Arc<Apply>) -> BoxFuture<'_, Result<Vec<Vec<Outcome>>, AppendError>> {
        Box::pin(async move {
            let (reply, applied) = oneshot::channel();
            let sent = self.requests.try_send(Request::Apply(apply, reply));
            sent.map_err(|_| AppendError::Unavailable)?;
            applied.await.unwrap_or(Err(AppendError::Unavailable))
        })
    }

    fn state(&self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        let read = |reader: &mut reader::Reader| replica::state(reader.split().0);
        Box::pin(self.shared.readers.run(read))
    }

    fn known(&self, batch: Batch) -> BoxFuture<'_, Result<Looked, ReadError>> {
        let options = &self.shared.options;
        let (epoch, now) = (self.bounds().epoch, options.clock.now_ms());
        let age_max_ms = options.key_age_max_ms;
        let read = move |reader: &mut _| replica::known(reader, batch, (epoch, now, age_max_ms));
        Box::pin(self.shared.readers.run(read))
    }

    fn mark(&self, at_most: u64) -> BoxFuture<'_, Result<Option<(u64, u64)>, ReadError>> {
        let read = move |reader: &mut reader::Reader| replica::mark(reader.split().0, at_most);
        Box::pin(self.shared.readers.run(read))
    }

    fn ancestors(&self) -> Vec<Ancestor> {
        self.shared.live().ancestors.clone()
    }
}
