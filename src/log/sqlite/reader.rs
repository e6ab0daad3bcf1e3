//! Read-only connections: a few, lent for one piece of blocking work at a time.

use super::{ids::IdMap, schema};
use crate::{log::ReadError, topic::Topic};
use rusqlite::Connection;
use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;

/// Reads at the same time; more wait.
const READERS: usize = 4;

/// Names that a connection remembers; past that all are read anew.
const NAMES_MAX: usize = 1 << 16;

pub(super) struct Readers {
    path: PathBuf,
    slots: Arc<Semaphore>,
    pool: Mutex<Pool>,
    returned: Condvar,
}

struct Pool {
    idle: Vec<Reader>,
    lent: usize,
    open: bool,
}

/// A connection, and the names of the topics that it met. (A topic's row is never given to another name
/// while the log is open.)
pub(super) struct Reader {
    pub(super) conn: Connection,
    names: IdMap<Option<Topic>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            slots: Arc::new(Semaphore::new(READERS)),
            pool: Mutex::new(Pool {
                idle: Vec::new(),
                lent: 0,
                open: true,
            }),
            returned: Condvar::new(),
        }
    }

    /// Runs `work` off the async threads.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| ReadError::Unavailable)?;
        let readers = Arc::clone(self);
        let work = move || {
            // Until the work is done, even if nobody waits for it any more.
            let _slot = slot;
            readers.lend(work)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a read did not come to its end");
                Err(ReadError::Unavailable)
            }
        }
    }

    /// Runs what may be long in steps, each in its turn, so that it neither keeps a connection from others
    /// nor goes on when nobody waits for it any more.
    pub(super) async fn run_steps<S: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        mut state: S,
        step: impl Fn(S, &mut Reader) -> rusqlite::Result<ControlFlow<T, S>> + Clone + Send + 'static,
    ) -> Result<T, ReadError> {
        loop {
            let step = step.clone();
            match self.run(move |reader| step(state, reader)).await? {
                ControlFlow::Break(done) => return Ok(done),
                ControlFlow::Continue(next) => state = next,
            }
        }
    }

    fn lend<T>(
        &self,
        work: impl FnOnce(&mut Reader) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let idle = {
            let mut pool = self.pool();
            if !pool.open {
                return Err(ReadError::Unavailable);
            }
            pool.lent += 1;
            pool.idle.pop()
        };
        let mut loan = Loan {
            readers: self,
            reader: None,
        };
        let reader = match idle {
            Some(reader) => Ok(reader),
            None => schema::connect_reader(&self.path).map(|conn| Reader {
                conn,
                names: IdMap::default(),
            }),
        };
        let done = reader.and_then(|mut reader| {
            let done = work(&mut reader)?;
            // After an error it is dropped.
            loan.reader = Some(reader);
            Ok(done)
        });
        done.map_err(|error| {
            tracing::error!(%error, "the log could not be read");
            ReadError::Unavailable
        })
    }

    /// Closes all connections, waiting for those at work. Reads fail until [`Self::open`].
    pub(super) fn close(&self) {
        let mut pool = self.pool();
        pool.open = false;
        pool.idle.clear();
        while pool.lent > 0 {
            pool = self
                .returned
                .wait(pool)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn open(&self) {
        self.pool().open = true;
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives back what was lent, however the work ended.
struct Loan<'a> {
    readers: &'a Readers,
    reader: Option<Reader>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.pool();
        pool.lent -= 1;
        if let Some(reader) = self.reader.take()
            && pool.open
        {
            pool.idle.push(reader);
        }
        self.readers.returned.notify_all();
    }
}

impl Reader {
    /// The connection, and the names apart from it.
    pub(super) fn split(&mut self) -> (&Connection, Names<'_>) {
        let names = Names {
            conn: &self.conn,
            names: &mut self.names,
        };
        (&self.conn, names)
    }
}

/// The log as it is when this begins, for as long as it is there.
pub(super) struct Snapshot<'a>(&'a Connection);

impl<'a> Snapshot<'a> {
    pub(super) fn begin(conn: &'a Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(conn))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let ended = self.0.prepare_cached("ROLLBACK");
        // Where that fails, the next one does not begin, and the connection is dropped.
        let _ = ended.and_then(|mut statement| statement.execute([]));
    }
}

/// Names of topics by their rows.
pub(super) struct Names<'a> {
    conn: &'a Connection,
    names: &'a mut IdMap<Option<Topic>>,
}

impl Names<'_> {
    pub(super) fn get(&mut self, id: i64) -> rusqlite::Result<Option<Topic>> {
        if let Some(Some(name)) = self.names.get(&id) {
            return Ok(Some(name.clone()));
        }
        let name = super::topics::name(self.conn, id)?;
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        self.names.insert(id, name.clone());
        Ok(name)
    }
}
