//! A journal in memory: the contract of adapters at its simplest, which can lose what a broker can lose.

use crate::support::watchdog;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tidings::{
    cluster::journal::{
        Acknowledgement, AppendFault, ConnectError, Ends, EntryTail, Fault, Journal, Sealed,
        Session, Tailed,
    },
    log::BoxFuture,
};
use tokio::sync::{broadcast, watch};

/// A way to the journal, which can be cut.
#[derive(Clone)]
pub(crate) struct MemoryJournal {
    broker: Arc<Broker>,
    is_cut: Arc<AtomicBool>,
}

struct Broker {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    announced: broadcast::Sender<Bytes>,
}

#[derive(Clone, Default)]
struct State {
    entries: BTreeMap<u64, Bytes>,
    last: u64,
    up: bool,
    /// Sessions of before are broken.
    lives: u64,
}

/// A copy of a journal's store.
pub(crate) struct Saved(State);

impl Saved {
    pub(crate) fn last(&self) -> u64 {
        self.0.last
    }
}

impl MemoryJournal {
    pub(crate) fn new() -> Self {
        watchdog::watch();
        let state = State {
            up: true,
            ..State::default()
        };
        let broker = Broker {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            announced: broadcast::Sender::new(1_000),
        };
        Self {
            broker: Arc::new(broker),
            is_cut: Arc::default(),
        }
    }

    /// Another way to the same journal.
    pub(crate) fn way(&self) -> Self {
        Self {
            broker: Arc::clone(&self.broker),
            is_cut: Arc::default(),
        }
    }

    /// Whoever came this way does not get through any more, without a last word; or gets through again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
        self.change(|_| ());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.broker.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.broker.changed.send_modify(|n| *n += 1);
        changed
    }

    /// The broker goes down, or comes up again. Sessions do not survive it.
    pub(crate) fn set_up(&self, up: bool) {
        self.change(|state| {
            state.up = up;
            state.lives += 1;
        });
    }

    pub(crate) fn save(&self) -> Saved {
        Saved(self.state().clone())
    }

    /// An older copy of the store is put back while the broker is down.
    pub(crate) fn put_back(&self, saved: &Saved) {
        self.change(|state| {
            (state.entries, state.last) = (saved.0.entries.clone(), saved.0.last);
            state.lives += 1;
        });
    }

    /// Everything is lost, and nobody's connection notices.
    pub(crate) fn wipe(&self) {
        self.change(|state| {
            state.entries.clear();
            state.last = 0;
        });
    }

    /// Removes entries up to that one.
    pub(crate) fn trim(&self, to: u64) {
        self.change(|state| state.entries = state.entries.split_off(&(to + 1)));
    }

    pub(crate) fn last(&self) -> u64 {
        self.state().last
    }

    /// Appends what no hub wrote.
    pub(crate) fn append_raw(&self, bytes: &[u8]) -> u64 {
        self.change(|state| state.append(Bytes::copy_from_slice(bytes)))
    }

    pub(crate) fn raw(&self, position: u64) -> Option<Bytes> {
        self.state().entries.get(&position).cloned()
    }
}

impl State {
    fn append(&mut self, bytes: Bytes) -> u64 {
        self.last += 1;
        self.entries.insert(self.last, bytes);
        self.last
    }
}

struct MemorySession {
    journal: MemoryJournal,
    life: u64,
}

impl MemorySession {
    fn alive(&self) -> Result<MutexGuard<'_, State>, Fault> {
        let state = self.journal.state();
        let is_cut = self.journal.is_cut.load(Ordering::SeqCst);
        match state.up && state.lives == self.life && !is_cut {
            true => Ok(state),
            false => Err(Fault("the connection is broken".to_owned())),
        }
    }
}

impl Journal for MemoryJournal {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, ConnectError>> {
        Box::pin(async move {
            let state = self.state();
            if !state.up || self.is_cut.load(Ordering::SeqCst) {
                return Err(ConnectError::Unavailable("it is down".to_owned()));
            }
            let session = MemorySession {
                journal: self.clone(),
                life: state.lives,
            };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

impl Session for MemorySession {
    fn entry_bytes_max(&self) -> usize {
        1 << 20
    }

    fn append<'a>(
        &'a self,
        entry: &'a Sealed,
    ) -> BoxFuture<'a, Result<Acknowledgement, AppendFault>> {
        Box::pin(async move {
            drop(
                self.alive()
                    .map_err(|fault| AppendFault::NotSent(fault.0))?,
            );
            let at = self
                .journal
                .change(|state| state.append(entry.bytes.clone()));
            Ok(Box::pin(async move { Ok(Some(at)) }) as Acknowledgement)
        })
    }

    fn tail(&self, after: u64) -> BoxFuture<'_, Result<Box<dyn EntryTail>, Fault>> {
        Box::pin(async move {
            drop(self.alive()?);
            let tail = MemoryTail {
                session: MemorySession {
                    journal: self.journal.clone(),
                    life: self.life,
                },
                after,
                changed: self.journal.broker.changed.subscribe(),
                announced: self.journal.broker.announced.subscribe(),
            };
            Ok(Box::new(tail) as Box<dyn EntryTail>)
        })
    }

    fn read(&self, position: u64) -> BoxFuture<'_, Result<Option<Bytes>, Fault>> {
        Box::pin(async move { Ok(self.alive()?.entries.get(&position).cloned()) })
    }

    fn ends(&self) -> BoxFuture<'_, Result<Ends, Fault>> {
        Box::pin(async move {
            let state = self.alive()?;
            let first = state.entries.first_key_value();
            Ok(Ends {
                first: first.map_or(state.last + 1, |(first, _)| *first),
                last: state.last,
                exact: true,
            })
        })
    }

    fn announce(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            drop(self.alive()?);
            let _ = self.journal.broker.announced.send(bytes);
            Ok(())
        })
    }

    fn tend(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        Box::pin(async move { self.alive().map(|_| None) })
    }
}

struct MemoryTail {
    session: MemorySession,
    after: u64,
    changed: watch::Receiver<u64>,
    announced: broadcast::Receiver<Bytes>,
}

impl EntryTail for MemoryTail {
    fn next(&mut self) -> BoxFuture<'_, Result<Tailed, Fault>> {
        Box::pin(async move {
            loop {
                self.changed.borrow_and_update();
                let entries: Vec<_> = {
                    let state = self.session.alive()?;
                    let entries = state.entries.range(self.after + 1..).take(100);
                    entries.map(|(at, bytes)| (*at, bytes.clone())).collect()
                };
                if let Some((last, _)) = entries.last() {
                    self.after = *last;
                    return Ok(Tailed::Entries(entries));
                }
                tokio::select! {
                    _ = self.changed.changed() => {}
                    said = self.announced.recv() => match said {
                        Ok(said) => return Ok(Tailed::Announcement(said)),
                        Err(_) => continue,
                    },
                }
            }
        })
    }
}
