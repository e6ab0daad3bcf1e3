//! Socket.IO on `/socket.io/`: protocol 5 (clients 3 and 4), and 4 (clients 2). Its handshakes, transports and packets are
//! the library's; here is what goes through them. Each subscription of a socket is a [`feed`] over the fan-out, each
//! request of a client a [`call`], and those are done by [`requests`], and answered by [`answers`], in their order; [`room`] is
//! what all know of the socket's buffer.
//!
//! **Invariant:** whatever is sent to a socket asks its [`room::Room`] first.

mod answers;
mod args;
mod call;
mod drain;
mod feed;
mod line;
mod requests;
mod room;
mod session;

use super::{
    App, body,
    problem::{self, Problem},
    query::Query,
    socket::Connection,
    ws,
};
use args::Listening;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
    routing::get,
};
use hyper::upgrade::OnUpgrade;
use requests::{Connected, Inlet};
use session::Session;
use socketioxide::{
    ParserConfig, SocketIo, extract::SocketRef, handler::ConnectHandler, service::SocketIoService,
    socket::Sid,
};
use std::{
    sync::{Arc, Once},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Where it is served.
const PATH: &str = "/socket.io/";

/// The buffer of a socket, in packets. What the hub sends takes [`room::PACKETS_MAX`] of them at most: the library closes a
/// socket that has no room for a ping.
const BUFFER_PACKETS: usize = 2 * room::PACKETS_MAX + 2; // 16

/// A client answers a ping so soon, or is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The bounds of the time between two pings, which is otherwise that of keepalives.
const PING_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// A client that opened a session connects so soon, or is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that opened a WebSocket for its session takes it over so soon, or is gone.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read at once of a WebSocket, in bytes: each has a buffer of that size.
const READ_BYTES: usize = 1 << 10; // 1 KiB

/// The default namespace. There are no others.
const NAMESPACE: &str = "/";

/// The routes of one listener. A session belongs to the listener that it began on.
pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let payload_bytes_max = app.ingest.bounds.json_bytes_max();
    let (interval_min, interval_max) = PING_INTERVAL;
    let parser = ParserConfig::common()
        .max_incoming_binary_buf_size(payload_bytes_max)
        .max_incoming_binaries(16);
    let (service, io) = SocketIo::builder()
        .max_buffer_size(BUFFER_PACKETS)
        .max_payload(payload_bytes_max as u64)
        .ws_max_message_size(payload_bytes_max)
        .ws_max_frame_size(payload_bytes_max)
        .ws_read_buffer_size(READ_BYTES)
        .ping_interval(app.keepalive.clamp(interval_min, interval_max))
        .ping_timeout(PING_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .upgrade_timeout(UPGRADE_TIMEOUT)
        .with_parser(parser)
        .build_with_inner_svc(Router::new());
    let end = CancellationToken::new();
    serve_namespace(app, &io, &end);
    let door = Door {
        app: Arc::clone(app),
        service,
        io,
        end,
    };
    let serve = move |request: Request| door.clone().serve(request);
    let route = get(serve.clone()).post(serve);
    Router::new()
        .route(PATH, route.clone())
        .route(PATH.trim_end_matches('/'), route)
}

/// Whether a path is served here.
pub(super) fn serves(path: &str) -> bool {
    path == PATH || path == PATH.trim_end_matches('/')
}

/// Whether a request is the first one of a session.
pub(super) fn begins(request: &Request) -> bool {
    serves(request.uri().path()) && asked(request.uri().query(), "sid").is_none()
}

/// Whether a request asks for what there is for a session.
pub(super) fn polls(request: &Request) -> bool {
    request.method() == Method::GET && serves(request.uri().path()) && !begins(request)
}

fn serve_namespace(app: &Arc<App>, io: &SocketIo, end: &CancellationToken) {
    let (admitting, connected) = (Arc::clone(app), Arc::clone(app));
    // A socket has its handlers before it is told that it is connected: an event without a handler is lost.
    let admit = move |socket: SocketRef, listening: Listening, io: SocketIo| {
        let app = Arc::clone(&admitting);
        async move {
            listening.asked(&app).map_err(|problem| problem.line())?;
            Session::begin(&app, &socket, &io);
            socket.on_fallback(Inlet(app));
            Ok::<_, String>(())
        }
    };
    let (drain, end) = (Arc::new(Once::new()), end.clone());
    let connect = move |socket: SocketRef, whole: Connected, listening: Listening, io: SocketIo| {
        let app = Arc::clone(&connected);
        // Here and not where the routes are made, which may be outside the runtime.
        drain.call_once(|| {
            let go_down = drain::go_down(Arc::clone(&app), io, end.clone());
            app.tasks.spawn(go_down);
        });
        async move {
            let asked = match app.drain.is_cancelled() {
                true => {
                    drain::turn_away(&app, socket);
                    None
                }
                // What is wrong with it was told.
                false => listening.asked(&app).unwrap_or_default(),
            };
            requests::begin(&app, whole, asked);
        }
    };
    io.ns(NAMESPACE, connect.with(admit));
}

/// What each request passes on its way to the library.
#[derive(Clone)]
struct Door {
    app: Arc<App>,
    service: SocketIoService<Router>,
    io: SocketIo,
    /// Cancelled to end all connections that are WebSockets.
    end: CancellationToken,
}

impl Door {
    async fn serve(self, request: Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let sid = asked(parts.uri.query(), "sid").and_then(|sid| sid.parse::<Sid>().ok());
        let connection = parts.extensions.get::<Arc<Connection>>().cloned();
        let polls = parts.method == Method::GET;
        let session = || sid.and_then(|sid| session(&self.io, sid));
        if self.app.drain.is_cancelled() && !session().is_some_and(|session| session.polls_last()) {
            return Err(draining());
        }
        let upgrades = asked(parts.uri.query(), "transport").as_deref() == Some("websocket");
        let body = match parts.method {
            Method::POST => {
                body::refuse_encoding(&parts.headers)?;
                let bytes_max = self.app.ingest.bounds.json_bytes_max();
                let timeout = self.app.body_timeout;
                Body::from(body::read(&parts.headers, body, bytes_max, timeout).await?)
            }
            _ => body,
        };
        if let Some(connection) = &connection {
            connection.asks_again();
        }
        if upgrades {
            may_upgrade(&parts.headers, parts.extensions.get::<OnUpgrade>())?;
            if let (Some(connection), Some(sid)) = (&connection, sid) {
                tell_of_flushes(connection, self.io.clone(), sid);
            }
        }
        let answer = self.service.oneshot(Request::from_parts(parts, body));
        let response = tokio::select! {
            answer = answer => match answer {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            },
            () = drain::too_long(&self.app.drain) => {
                return Err(draining());
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(connection) = connection {
                connection.set_upgraded(self.end);
            }
        } else if polls && let Some(session) = session() {
            session.room.taken();
        }
        Ok(response)
    }
}

fn draining() -> Problem {
    let detail = "try again after the Retry-After time, here or on another node";
    Problem::new(&problem::DRAINING, detail)
}

/// The session of a socket that is connected.
fn session(io: &SocketIo, sid: Sid) -> Option<Arc<Session>> {
    let socket = io.of(NAMESPACE)?.get_socket(sid)?;
    socket.extensions.get()
}

/// Has a connection that becomes a WebSocket tell the session when its socket has taken all.
fn tell_of_flushes(connection: &Connection, io: SocketIo, sid: Sid) {
    connection.on_flush(move || {
        if let Some(session) = session(&io, sid) {
            session.room.taken();
        }
    });
}

/// The library answers 101 to whoever has a key.
fn may_upgrade(headers: &HeaderMap, upgrade: Option<&OnUpgrade>) -> Result<(), Problem> {
    let fits = ws::is_upgrade(headers)
        && ws::has_version(headers)
        && headers.contains_key(header::SEC_WEBSOCKET_KEY);
    match upgrade {
        Some(_) if fits => Ok(()),
        _ => {
            let detail = "a WebSocket begins with a GET over HTTP/1.1 with `Upgrade: websocket` and version 13";
            Err(Problem::new(&problem::HEADER, detail))
        }
    }
}

/// The first value of a parameter, as the library reads it.
fn asked(query: Option<&str>, name: &str) -> Option<String> {
    let values = Query::parse(query).take_all(name).ok()?;
    values.into_iter().next()
}
