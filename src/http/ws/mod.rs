//! `/ws`: subscriptions and publishing over a WebSocket, as JSON messages both ways (`docs/websocket.md`).
//!
//! A connection is one task that holds the socket and its subscriptions. It writes one message at a time, and pulls the
//! next one only when the socket took the last: so nothing is queued for a reader here, as on the other transports.
//!
//! It knows no engine, and nothing of how an event is encoded: a chunk's envelopes come as bytes that its readers share.
//!
//! The codec is tungstenite's. axum's own `WebSocket` is built on the same, but takes each message as one text of its
//! own: a copy of every frame for every reader, kept for as long as the connection.

mod handshake;
mod message;
mod reader;
mod session;
mod wire;

use super::{
    App,
    problem::{self, Problem},
    query::Query,
    socket::{Connection, Left},
    start, subscribe,
};
use crate::fanout::{Begin, LagPolicy};
use axum::{
    extract::{Request, State},
    http::{Version, request::Parts},
    response::Response,
};
pub(super) use handshake::{has_version, is_upgrade};
use hyper::upgrade::OnUpgrade;
use reader::Reader;
pub(super) use session::Session;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Where WebSockets are opened.
pub(super) const PATH: &str = "/ws";

/// The name of the subscription that stands in the URL.
const URL: &str = "url";

/// A WebSocket whose handshake is answered, but for the switch of protocols itself.
pub(super) struct Opened {
    app: Arc<App>,
    on_upgrade: OnUpgrade,
    reader: Option<Reader>,
    paced: bool,
}

/// Answers a handshake.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Response> {
    let (mut parts, _) = request.into_parts();
    let answer = handshake::answer(&parts)?;
    let refused = axum::response::IntoResponse::into_response;
    let reader = reader_of(&app, &parts).map_err(refused)?;
    let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| {
        let detail = "the connection cannot become a WebSocket";
        refused(Problem::new(&problem::REQUEST, detail))
    })?;
    let connection = parts.extensions.remove::<Arc<Connection>>();
    let opened = Box::new(Opened {
        app: Arc::clone(&app),
        on_upgrade,
        reader,
        paced: has_connection(&parts),
    });
    match connection {
        // The listener takes it from there once the protocol is switched, together with the place of the connection.
        Some(connection) if has_connection(&parts) => connection.leave(Left::Socket(opened)),
        // In HTTP/2 it is one of a connection's streams.
        _ => drop(app.tasks.spawn(async move {
            if let Some(session) = opened.begin().await {
                // It ends with the connection.
                session.run(CancellationToken::new()).await;
            }
        })),
    }
    Ok(answer)
}

impl Opened {
    /// Waits until its protocol is switched; `None` if that fails.
    pub(super) async fn begin(self: Box<Self>) -> Option<Session> {
        let Self {
            app,
            on_upgrade,
            reader,
            paced,
        } = *self;
        match on_upgrade.await {
            Ok(upgraded) => Some(Session::new(app, upgraded, reader, paced).await),
            Err(error) => {
                tracing::debug!(%error, "a handshake ended before a WebSocket began");
                None
            }
        }
    }
}

/// The subscription of the URL, if topics stand in it.
fn reader_of(app: &App, parts: &Parts) -> Result<Option<Reader>, Problem> {
    let mut query = Query::parse(parts.uri.query());
    let topics = query.take_all("topic")?;
    let start = start::of_request(&parts.headers, &mut query)?;
    let lag = query.take_as("lag", LagPolicy::NAMES, LagPolicy::parse)?;
    query.finish(&[&["topic", "lag"], &start::PARAMETERS[..]].concat())?;
    if topics.is_empty() && start.is_none() && lag.is_none() {
        return Ok(None);
    }
    let none = "a start or `lag` is for topics, and there is no `topic` parameter";
    let filter = subscribe::filter(app.filters_max, &topics, none)?;
    let start = start.unwrap_or((Begin::Live, String::new()));
    let lag = lag.unwrap_or_default();
    let paced = has_connection(parts);
    Ok(Some(Reader::new(app, URL, filter, (start, lag), paced)))
}

/// Whether it has a connection for itself, as in HTTP/1.
fn has_connection(parts: &Parts) -> bool {
    parts.version < Version::HTTP_2
}
