//! The accept loop: a connection cap with a reserve, deadlines, HTTP/1.1, HTTP/1.0 and HTTP/2 with prior knowledge.
//! (`axum::serve` sets no header timeout and no bounds of HTTP/2.)

use super::{
    socket::{Connection, Socket},
    stall,
};
use crate::config::ServerConfig;
use axum::{Router, body::Body, http::Request, response::Response};
use bytes::Bytes;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{ServiceExt, util::Oneshot};

/// What an HTTP/2 connection begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

/// What is not sent of one HTTP/2 stream, in bytes.
const HTTP2_SEND_BYTES_MAX: usize = 32 << 10; // 32 KiB

/// Streams on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Silence after which an HTTP/2 connection is pinged, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// A connection that the hub closes is read on for so long, so that a client that sends all of a body before it reads
/// gets the answer and not a reset; and for so long once nothing comes, or the hub goes down.
const LINGER: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));

/// What is read at once of such a connection, in bytes.
const LINGER_BYTES: usize = 64 << 10; // 64 KiB

/// Silence after which TCP asks whether the other machine is still there. (A stream has its keepalive comments, but an
/// NDJSON request may be silent both ways for hours.) It is gone if no answer comes within the write timeout.
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// A hub's door: accepts connections and serves them.
#[derive(Clone)]
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
        let cap = self.connections_max();
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
                () = self.stop.cancelled() => return,
                Some(next) = next => next,
            };
            match accepted {
                Ok((tcp, _)) => {
                    paused = false;
                    let overloaded = places.available_permits() < RESERVE;
                    let mut door = self.clone();
                    if self.drain.is_cancelled() {
                        door.tasks = late.clone();
                    }
                    let tasks = door.tasks.clone();
                    tasks.spawn(door.serve(tcp, Connection::new(overloaded), place));
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

    async fn serve(mut self, tcp: TcpStream, connection: Connection, place: OwnedSemaphorePermit) {
        let (tcp, connection) = (Arc::new(tcp), Arc::new(connection));
        if let Err(error) = self.set_options(&tcp) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let turned_away = connection.overloaded || self.drain.is_cancelled();
        if turned_away {
            // It is to be answered once, not closed at once.
            self.drain = CancellationToken::new();
        }
        let serving = async {
            let first = tokio::select! {
                first = timeout(self.limits.head_timeout, first_bytes(&tcp)) => first,
                // A connection that has asked for nothing is not waited for.
                () = self.drain.cancelled() => return,
            };
            let Ok(Some((before, http2))) = first else {
                return;
            };
            let socket = Socket::new(
                Arc::clone(&tcp),
                Arc::clone(&connection),
                before,
                self.limits.write_timeout,
            );
            if http2 {
                // Boxed, so that an HTTP/1 connection does not take the room of both.
                Box::pin(self.http2(socket, &connection)).await;
            } else {
                let answered = tokio::select! {
                    answered = self.http1(socket, &connection) => answered,
                    () = connection.client_gone(&tcp) => false,
                };
                // Of a stream's client nothing is unread, and a drain need not wait for it to close.
                if answered && !connection.is_streaming() {
                    self.linger(&tcp).await;
                }
            }
        };
        let too_long = async {
            match turned_away {
                true => sleep(TURN_AWAY_TIMEOUT).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serving => {}
            () = self.stop.cancelled() => {}
            () = too_long => {}
        }
        drop(place);
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

    /// Says that nothing more will be sent, and reads on for a while.
    async fn linger(&self, tcp: &TcpStream) {
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
            self.drain.cancelled().await;
            sleep(silence).await;
        };
        tokio::select! {
            _ = timeout(most, read_on) => {}
            () = going_down => {}
        }
    }

    fn requests(&self, connection: &Arc<Connection>) -> Requests {
        Requests {
            router: self.router.clone(),
            connection: Arc::clone(connection),
        }
    }

    /// Whether all that was to be said was said, so that it is worth waiting until it was heard.
    async fn http1(&self, socket: TokioIo<Socket>, connection: &Arc<Connection>) -> bool {
        let head_bytes_max = usize::try_from(self.limits.head_bytes_max).unwrap_or(usize::MAX);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(head_bytes_max.max(8 << 10))
            .max_headers(256);
        let mut serving = pin!(builder.serve_connection(socket, self.requests(connection)));
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = self.drain.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        // What is not even a request got its answer, too.
        let answered = result
            .as_ref()
            .map_or_else(hyper::Error::is_parse, |()| true);
        log_end(result);
        answered
    }

    async fn http2(&self, socket: TokioIo<Socket>, connection: &Arc<Connection>) {
        let head_bytes_max = u32::try_from(self.limits.head_bytes_max).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(Tracked {
            tasks: self.tasks.clone(),
            write_timeout: self.limits.write_timeout,
        });
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING)
            .max_header_list_size(head_bytes_max)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_send_buf_size(HTTP2_SEND_BYTES_MAX);
        let mut serving = pin!(builder.serve_connection(socket, self.requests(connection)));
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = self.drain.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        log_end(result);
    }
}

/// The router, told on which connection a request came.
struct Requests {
    router: Router,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Oneshot<Router, Request<Body>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request
            .extensions_mut()
            .insert(Arc::clone(&self.connection));
        self.router.clone().oneshot(request.map(Body::new))
    }
}

/// Spawns hyper's HTTP/2 streams where a drain waits for them, and ends those whose client takes nothing.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    write_timeout: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.tasks.spawn(stall::run(future, self.write_timeout));
    }
}

/// Reads until it is clear whether this is HTTP/2, and gives back what was read. `None` if nothing came.
async fn first_bytes(tcp: &TcpStream) -> Option<(Bytes, bool)> {
    let mut read = Vec::with_capacity(HTTP2_PREFACE.len());
    loop {
        tcp.readable().await.ok()?;
        // No further than the preface: the rest is hyper's.
        let mut part = [0; HTTP2_PREFACE.len()];
        let rest = HTTP2_PREFACE.len() - read.len();
        match tcp.try_read(&mut part[..rest]) {
            Ok(0) => return None,
            Ok(count) => read.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        if !HTTP2_PREFACE.starts_with(&read) || read.len() == HTTP2_PREFACE.len() {
            let http2 = read == HTTP2_PREFACE;
            return Some((read.into(), http2));
        }
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

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// The deadline of a drain.
pub async fn drained(tasks: &TaskTracker, deadline: Instant) -> bool {
    tokio::time::timeout_at(deadline, tasks.wait())
        .await
        .is_ok()
}
