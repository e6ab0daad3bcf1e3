//! What the hub keeps of a socket that is connected: its subscriptions by name, and the bounds of what it asks for.

use super::{
    super::{
        App,
        problem::{self, Problem, quoted},
    },
    answers::Answer,
    line::Line,
    requests::Request,
    room::Room,
    tell_of_flushes,
};
use crate::{cursor::Cursor, http::socket::Connection};
use socketioxide::{SocketIo, extract::SocketRef};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The name of the subscription that a socket begins with.
pub(super) const AUTH: &str = "auth";

/// The most that a name of a subscription may have, in bytes: it goes with each event.
const NAME_BYTES_MAX: usize = 128;

/// What a request of a client takes of the bytes that are under way, beside its own.
const CALL_COST: usize = 4 << 10; // 4 KiB

/// Beyond those, so many of a socket's requests may wait to be refused.
const REFUSALS_MAX: usize = 4_096;

/// One socket. It goes with the library's socket, whose extension it is.
pub(super) struct Session {
    pub(super) room: Room,
    /// Its requests that are not begun. Whoever connects it serves them first.
    pub(super) requests: Line<Request>,
    /// Its answers that are not sent.
    pub(super) answers: Line<Answer>,
    /// What runs for the socket: requests, and its subscriptions.
    pub(super) work: TaskTracker,
    /// Cancelled when the socket is gone.
    pub(super) gone: CancellationToken,
    /// Bytes of requests that may be under way, besides those that are.
    calls: Arc<Semaphore>,
    /// Requests that may wait to be refused.
    refusals: Arc<Semaphore>,
    calls_bytes_max: usize,
    filters_max: usize,
    /// Whether it polled in a drain.
    polled_last: AtomicBool,
    subscriptions: Mutex<Subscriptions>,
}

/// What becomes of a request, which keeps its place until it is answered.
pub(super) enum Admission {
    /// It is done.
    Call(OwnedSemaphorePermit),
    /// It is answered that too many are under way.
    Refusal(OwnedSemaphorePermit),
    /// The client reads no answers.
    TooMany,
}

#[derive(Default)]
struct Subscriptions {
    by_name: HashMap<Arc<str>, Arc<Running>>,
    /// Topics and patterns of all of them.
    filters: usize,
    /// How many got a number for a name.
    numbered: u64,
}

/// A subscription that runs, or is about to.
struct Running {
    name: Arc<str>,
    filters: usize,
    /// Cancelled to end it.
    stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
    /// How far its reader has come, once it has ended.
    at: Mutex<Option<Cursor>>,
}

/// The place of a subscription among those of its socket, which it leaves when this is dropped.
pub(super) struct Entered {
    session: Arc<Session>,
    running: Arc<Running>,
    /// How far its reader has come.
    pub(super) at: Option<Cursor>,
}

impl Session {
    /// The session of a socket that is about to be connected.
    pub(super) fn begin(app: &App, socket: &SocketRef, io: &SocketIo) {
        let connection = socket.req_parts().extensions.get::<Arc<Connection>>();
        let calls_bytes_max = app
            .ingest
            .bounds
            .batch_bytes_max
            .min(Semaphore::MAX_PERMITS >> 1);
        let this = Arc::new(Self {
            room: Room::new(connection.is_some(), app.drain.clone()),
            requests: Line::new(true),
            answers: Line::new(false),
            work: TaskTracker::new(),
            gone: CancellationToken::new(),
            calls: Arc::new(Semaphore::new(calls_bytes_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            calls_bytes_max,
            filters_max: app.filters_max,
            polled_last: AtomicBool::new(false),
            subscriptions: Mutex::default(),
        });
        if let Some(connection) = connection {
            tell_of_flushes(connection, io.clone(), socket.id);
        }
        let gone = this.gone.clone();
        socket.on_disconnect(move || {
            let gone = gone.clone();
            async move { gone.cancel() }
        });
        socket.extensions.insert(this);
    }

    /// Takes room among the requests that are under way for one of so many bytes.
    pub(super) fn admit(&self, bytes: usize) -> Admission {
        let cost = (bytes + CALL_COST).min(self.calls_bytes_max);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        if let Ok(place) = Arc::clone(&self.calls).try_acquire_many_owned(cost) {
            return Admission::Call(place);
        }
        match Arc::clone(&self.refusals).try_acquire_owned() {
            Ok(place) => Admission::Refusal(place),
            Err(_) => Admission::TooMany,
        }
    }

    /// Enters a subscription with so many topics and patterns, under its name or the next number.
    ///
    /// # Errors
    ///
    /// A problem if the name is none or in use, or the socket has too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        name: Option<String>,
        filters: usize,
    ) -> Result<Entered, Problem> {
        let mut all = self.subscriptions();
        let name = match name {
            Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                let detail = format!(
                    "`sub` takes 1 to {NAME_BYTES_MAX} bytes, not {}",
                    quoted(&name)
                );
                return Err(Problem::new(&problem::PARAMETER, detail));
            }
            Some(name) => name,
            None => loop {
                all.numbered += 1;
                let name = all.numbered.to_string();
                if !all.by_name.contains_key(name.as_str()) {
                    break name;
                }
            },
        };
        if all.by_name.contains_key(name.as_str()) {
            let detail = format!("the socket has a subscription {} already", quoted(&name));
            return Err(Problem::new(&problem::PARAMETER, detail));
        }
        if all.filters + filters > self.filters_max {
            let detail = format!(
                "with {} topics and patterns the socket would have more than {}, the most on one socket",
                all.filters + filters,
                self.filters_max
            );
            return Err(Problem::new(&problem::FILTER, detail));
        }
        let running = Arc::new(Running {
            name: name.into(),
            filters,
            stop: self.gone.child_token(),
            ended: CancellationToken::new(),
            at: Mutex::new(None),
        });
        all.filters += filters;
        all.by_name
            .insert(Arc::clone(&running.name), Arc::clone(&running));
        drop(all);
        Ok(Entered {
            session: Arc::clone(self),
            running,
            at: None,
        })
    }

    /// Ends a subscription: nothing of it is sent from now on. Gives how far its reader has come, where that is known.
    ///
    /// # Errors
    ///
    /// A problem if there is none of that name.
    pub(super) async fn end(&self, name: &str) -> Result<Option<Cursor>, Problem> {
        let running = self.subscriptions().by_name.get(name).cloned();
        let Some(running) = running else {
            let detail = format!("the socket has no subscription {}", quoted(name));
            return Err(Problem::new(&problem::NOT_FOUND, detail));
        };
        running.stop.cancel();
        running.ended.cancelled().await;
        Ok(*running.at.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it may poll in a drain: once, to be told.
    pub(super) fn polls_last(&self) -> bool {
        !self.polled_last.swap(true, Ordering::Relaxed)
    }

    /// Whether it has no subscription.
    pub(super) fn is_silent(&self) -> bool {
        self.subscriptions().by_name.is_empty()
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// What the client calls it.
    pub(super) fn name(&self) -> &str {
        &self.running.name
    }

    /// Cancelled when it is to end.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.running.stop
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.session.subscriptions();
        all.filters -= self.running.filters;
        all.by_name.remove(&self.running.name);
        drop(all);
        *self
            .running
            .at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.at;
        self.running.ended.cancel();
    }
}
