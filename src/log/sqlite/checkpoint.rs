//! Moves the write-ahead file into the main one beside the writer, on a thread and a connection of its own.

use super::schema;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
};

pub(super) struct Checkpointer {
    /// One wish at most waits; more say nothing new.
    wake: Option<SyncSender<()>>,
    /// Held while it works.
    busy: Arc<Mutex<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Checkpointer {
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub(super) fn spawn(path: PathBuf) -> std::io::Result<Self> {
        let (wake, wishes) = sync_channel(1);
        let busy = Arc::new(Mutex::new(()));
        let working = Arc::clone(&busy);
        let thread = thread::Builder::new()
            .name("log-checkpoint".to_owned())
            .spawn(move || {
                while wishes.recv().is_ok() {
                    let _working = working.lock().unwrap_or_else(PoisonError::into_inner);
                    // A connection for each time, so that none is open when the log opens its files anew.
                    let done = schema::connect_plain(&path)
                        .and_then(|conn| super::checkpoint(&conn, "PASSIVE"));
                    // On a full disk the writer makes room.
                    if let Err(error) = done
                        && !super::no_room(&error)
                    {
                        tracing::warn!(%error, "a checkpoint failed; the next will try again");
                    }
                }
            })?;
        Ok(Self {
            wake: Some(wake),
            busy,
            thread: Some(thread),
        })
    }

    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            match wake.try_send(()) {
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(TrySendError::Disconnected(())) => {
                    tracing::error!("the checkpoint thread is gone");
                }
            }
        }
    }

    /// Waits until it rests, and keeps it so.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it resting, if it rests.
    pub(super) fn try_pause(&self) -> Option<MutexGuard<'_, ()>> {
        match self.busy.try_lock() {
            Ok(pause) => Some(pause),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn stop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // It has no result, and a panic of its own was printed.
            let _ = thread.join();
        }
    }
}
