//! HTTP by hyper: HTTP/2, and of HTTP/1 all that is not plain. With bounds and deadlines that `axum::serve` does not set.

use super::{
    lean,
    listener::Listener,
    socket::{Connection, Held, Socket},
    stall, ws,
};
use axum::{Router, body::Body, http::Request, response::Response};
use bytes::Bytes;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{ServiceExt, util::Oneshot};

/// What is not sent of one HTTP/2 stream, in bytes.
const HTTP2_SEND_BYTES_MAX: usize = 32 << 10; // 32 KiB

/// Streams on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Silence after which an HTTP/2 connection is pinged, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// A connection that hyper serves.
pub(super) struct Library<'a> {
    pub(super) door: &'a Listener,
    pub(super) router: Router,
    pub(super) tcp: Arc<TcpStream>,
    pub(super) overloaded: bool,
    /// What was read already.
    pub(super) before: Bytes,
    pub(super) drain: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) held: Held,
}

/// How HTTP/1 ends on a connection.
pub(super) enum End {
    /// There is nobody any more who would hear something.
    Gone,
    /// All that was to be said was said, and it is worth waiting until it was heard.
    Answered,
    /// It is a WebSocket's from now on.
    Socket(Box<ws::Opened>),
}

impl Library<'_> {
    /// Serves HTTP/1.
    pub(super) async fn http1(self) -> End {
        let connection = Arc::new(Connection::library(self.overloaded));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.door.limits.head_timeout)
            .max_buf_size(self.door.head_bytes_max())
            .max_headers(lean::FIELDS_MAX);
        let serving =
            builder.serve_connection(self.socket(&connection), self.requests(&connection));
        let mut serving = pin!(serving.with_upgrades());
        let result = async {
            tokio::select! {
                // It is to see first what was read already: a connection on which nothing was, is closed at once.
                biased;
                result = serving.as_mut() => return result,
                () = Arc::clone(&connection).drained(self.drain.clone()) => serving.as_mut().graceful_shutdown(),
            }
            serving.await
        };
        let answered = tokio::select! {
            result = result => {
                // What is not even a request got its answer, too.
                let answered = result
                    .as_ref()
                    .map_or_else(hyper::Error::is_parse, |()| true);
                log_end(result);
                answered
            }
            () = connection.client_gone(&self.tcp) => false,
        };
        if let Some(opened) = connection.take_socket() {
            return End::Socket(opened);
        }
        // Of a stream's client nothing is unread, and a drain need not wait for it to close. What was upgraded goes on.
        match answered && !connection.is_streaming() && !connection.is_upgraded() {
            true => End::Answered,
            false => End::Gone,
        }
    }

    /// Serves HTTP/2.
    pub(super) async fn http2(self) {
        let connection = Arc::new(Connection::library(self.overloaded));
        let head_bytes_max = u32::try_from(self.door.limits.head_bytes_max).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(Tracked {
            tasks: self.tasks.clone(),
            write_timeout: self.door.limits.write_timeout,
        });
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING)
            .max_header_list_size(head_bytes_max)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_send_buf_size(HTTP2_SEND_BYTES_MAX)
            .enable_connect_protocol();
        let mut serving =
            pin!(builder.serve_connection(self.socket(&connection), self.requests(&connection)));
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = self.drain.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        log_end(result);
    }

    fn socket(&self, connection: &Arc<Connection>) -> TokioIo<Socket> {
        Socket::new(
            Arc::clone(&self.tcp),
            Arc::clone(connection),
            self.before.clone(),
            self.door.limits.write_timeout,
            self.held.clone(),
        )
    }

    fn requests(&self, connection: &Arc<Connection>) -> Requests {
        Requests {
            router: self.router.clone(),
            connection: Arc::clone(connection),
        }
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
        self.connection.asked();
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

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
