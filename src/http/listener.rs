//! The accept loop: a connection cap with a reserve, and who serves a connection.

use super::{
    lean::{self, Begun, Lean, Streaming, Waited, Waiter},
    library::{self, Library},
    socket::Held,
    ws,
};
use crate::{config::ServerConfig, log::BoxFuture};
use axum::Router;
use bytes::BytesMut;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What an HTTP/2 connection begins with.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Connections beyond the cap that are still accepted, to be turned away in words.
const RESERVE: usize = 64;

/// Files that are not connections: the log, its readers, standard streams.
const FILES_BESIDE: u64 = 64;

/// How long a connection may take that comes only to be turned away.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to pause when no more files can be opened.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Unsent bytes that the kernel takes beyond what it sends: what comes after waits in the hub, where it can be bounded.
const NOT_SENT_BYTES: u32 = 16 << 10; // 16 KiB

/// A connection that the hub closes is read on for so long, so that a client that sends all of a body before it reads
/// gets the answer and not a reset; and for so long once nothing comes, or the hub goes down.
const LINGER: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));

/// What is read at once of such a connection, in bytes.
const LINGER_BYTES: usize = 64 << 10; // 64 KiB

/// Silence after which TCP asks whether the other machine is still there. (A stream has its keepalive comments, but an
/// NDJSON request may be silent both ways for hours.) It is gone if no answer comes within the write timeout.
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// What a connection becomes: a task of its own, since the one that it begins in has more room than that needs.
enum Became {
    Stream(Streaming),
    Socket(ws::Session),
    Waiting(Box<Waiter>, Begun, OwnedSemaphorePermit),
}

/// A hub's door: accepts connections and serves them.
pub struct Listener {
    /// What answers.
    pub router: Router,
    /// Deadlines and bounds.
    pub limits: ServerConfig,
    /// Cancelled when the hub goes down: connections end when their answers have ended.
    pub drain: CancellationToken,
    /// Cancelled to end all at once.
    pub stop: CancellationToken,
    /// The connections.
    pub tasks: TaskTracker,
}

impl Listener {
    /// Accepts until `stop`.
    pub async fn accept(self, listener: TcpListener) {
        let this = Arc::new(self);
        let cap = this.connections_max();
        let places = Arc::new(Semaphore::new(cap + RESERVE));
        // Who comes during a drain is told so; the drain does not wait for that.
        let late = TaskTracker::new();
        let mut paused = false;
        loop {
            let next = async {
                // Beyond the reserve, connections wait in the kernel's queue.
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((place, listener.accept().await))
            };
            let (place, accepted) = tokio::select! {
                () = this.stop.cancelled() => return,
                Some(next) = next => next,
            };
            match accepted {
                Ok((tcp, _)) => {
                    paused = false;
                    let overloaded = places.available_permits() < RESERVE;
                    let tasks = match this.drain.is_cancelled() {
                        true => &late,
                        false => &this.tasks,
                    };
                    let door = Arc::clone(&this);
                    match this.set_options(&tcp) {
                        Ok(()) => {
                            let (read, served) = (BytesMut::new(), false);
                            let begun = Begun { tcp, read, served };
                            tasks.spawn(door.serve(begun, overloaded, tasks.clone(), place));
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a connection ended before it began");
                        }
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut paused, true) {
                        tracing::warn!(%error, "cannot accept connections now; trying again");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connections_max(&self) -> usize {
        let asked = usize::try_from(self.limits.connections_max).unwrap_or(usize::MAX);
        if asked > 0 {
            return asked.min(Semaphore::MAX_PERMITS - RESERVE);
        }
        let files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1_024, |(soft, _)| soft);
        let free = files
            .saturating_sub(FILES_BESIDE)
            .saturating_sub(RESERVE as u64);
        usize::try_from(free)
            .unwrap_or(usize::MAX)
            .clamp(8, 1 << 24)
    }

    /// Serves one connection.
    async fn serve(
        self: Arc<Self>,
        begun: Begun,
        overloaded: bool,
        tasks: TaskTracker,
        place: OwnedSemaphorePermit,
    ) {
        let turned_away = overloaded || self.drain.is_cancelled();
        let drain = match turned_away {
            // It is to be answered once, not closed at once.
            true => CancellationToken::new(),
            false => self.drain.clone(),
        };
        let library = |tcp: &Arc<TcpStream>, router, before, place| Library {
            door: &self,
            router,
            tcp: Arc::clone(tcp),
            overloaded,
            before,
            drain: drain.clone(),
            tasks: tasks.clone(),
            held: Held {
                _place: Arc::new(place),
                _task: tasks.token(),
                stop: self.stop.clone(),
            },
        };
        let serving = async {
            let (end, tcp, read) = {
                let mut lean = Lean::new(begun, Arc::clone(&self), drain.clone(), overloaded);
                (lean.run().await, lean.tcp, lean.read)
            };
            // What is not lean is boxed, so that a lean connection does not take the room of all.
            match end {
                lean::End::Gone => None,
                lean::End::Answered => {
                    Box::pin(linger(&tcp, &drain)).await;
                    None
                }
                lean::End::Stream(opened) => {
                    let begun = Streaming::begin(opened, tcp, Arc::clone(&self), place);
                    begun.await.map(Became::Stream)
                }
                lean::End::Wait(waiter) => {
                    let served = true;
                    Some(Became::Waiting(waiter, Begun { tcp, read, served }, place))
                }
                lean::End::Library(before, response) => {
                    let (tcp, router) = (Arc::new(tcp), self.router.clone());
                    let router = match response {
                        Some(response) => lean::answered(router, response),
                        None => router,
                    };
                    match Box::pin(library(&tcp, router, before, place).http1()).await {
                        library::End::Gone => None,
                        library::End::Answered => {
                            Box::pin(linger(&tcp, &drain)).await;
                            None
                        }
                        library::End::Socket(opened) => {
                            Box::pin(opened.begin()).await.map(Became::Socket)
                        }
                    }
                }
                lean::End::Http2(before) => {
                    let library = library(&Arc::new(tcp), self.router.clone(), before, place);
                    Box::pin(library.http2()).await;
                    None
                }
            }
        };
        let too_long = async {
            match turned_away {
                true => sleep(TURN_AWAY_TIMEOUT).await,
                false => std::future::pending().await,
            }
        };
        let became = tokio::select! {
            became = serving => became,
            () = self.stop.cancelled() => None,
            () = too_long => None,
        };
        match became {
            Some(Became::Stream(streaming)) => drop(tasks.spawn(streaming.run())),
            Some(Became::Socket(session)) => {
                drop(tasks.spawn(session.run(self.stop.clone())));
            }
            Some(Became::Waiting(waiter, begun, place)) => {
                let tracker = tasks.clone();
                tasks.spawn(async move {
                    let waited = waiter.run(begun, &self).await;
                    self.go_on(waited, &tracker, place);
                });
            }
            None => {}
        }
    }

    /// After an answer that was waited for: serves the connection again, in a task of its own.
    fn go_on(self: Arc<Self>, waited: Waited, tasks: &TaskTracker, place: OwnedSemaphorePermit) {
        match waited {
            Waited::Again(begun) => {
                drop(tasks.spawn(Arc::clone(&self).again(begun, tasks.clone(), place)));
            }
            Waited::Answered(tcp) => {
                drop(tasks.spawn(async move {
                    linger(&tcp, &self.drain).await;
                    drop(place);
                }));
            }
            Waited::Gone => {}
        }
    }

    /// The same as [`Listener::serve`], which cannot name itself.
    fn again(
        self: Arc<Self>,
        begun: Begun,
        tasks: TaskTracker,
        place: OwnedSemaphorePermit,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.serve(begun, false, tasks, place))
    }

    /// The most that a request's head may have, in bytes.
    pub(super) fn head_bytes_max(&self) -> usize {
        let bytes = usize::try_from(self.limits.head_bytes_max).unwrap_or(usize::MAX);
        bytes.max(8 << 10)
    }

    fn set_options(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = socket2::SockRef::from(tcp);
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(TCP_KEEPALIVE)
            .with_interval(TCP_KEEPALIVE / 4);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(self.limits.write_timeout))
    }
}

/// Says that nothing more will be sent, and reads on for a while.
async fn linger(tcp: &TcpStream, drain: &CancellationToken) {
    if socket2::SockRef::from(tcp)
        .shutdown(std::net::Shutdown::Write)
        .is_err()
    {
        return;
    }
    let (most, silence) = LINGER;
    // Allocated, so that connections that do not linger do not carry it.
    let mut part = Vec::with_capacity(LINGER_BYTES);
    let read_on = async {
        while let Ok(Ok(())) = timeout(silence, tcp.readable()).await {
            part.clear();
            match tcp.try_read_buf(&mut part) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    };
    let going_down = async {
        drain.cancelled().await;
        sleep(silence).await;
    };
    tokio::select! {
        _ = timeout(most, read_on) => {}
        () = going_down => {}
    }
}

/// Whether an error of `accept` is about the connection that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// The deadline of a drain.
pub async fn drained(tasks: &TaskTracker, deadline: Instant) -> bool {
    tokio::time::timeout_at(deadline, tasks.wait())
        .await
        .is_ok()
}
