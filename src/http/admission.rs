//! What a hub that is full or going down answers. Who asks for Server-Sent Events gets a stream that ends at once, with a
//! time to come back: an error status would end an `EventSource` for ever. All else gets 503.

use super::{
    App,
    accept::Format,
    problem::{self, Problem},
    query::Query,
    socket::Connection,
    socketio,
    subscribe::stream_response,
    ws,
};
use crate::{delivery::form::Form, fanout::CloseReason};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, Version, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;

/// The answer to who comes at the wrong time; `None` lets the request pass.
pub(super) fn turn_away(app: &App, request: &Request) -> Option<Response> {
    let overloaded = request
        .extensions()
        .get::<Arc<Connection>>()
        .is_some_and(|connection| connection.overloaded);
    let reason = match () {
        () if app.drain.is_cancelled() && socketio::polls(request) => return None,
        () if app.drain.is_cancelled() => CloseReason::Draining,
        () if overloaded => CloseReason::Overloaded,
        () if (reads(request) || socketio::begins(request) || request.uri().path() == ws::PATH)
            && cannot_serve(app) =>
        {
            CloseReason::NotReady
        }
        () => return None,
    };
    let (version, path) = (request.version(), request.uri().path());
    if path == "/healthz" {
        return None;
    }
    let retry = "try again after the Retry-After time";
    let mut response = match reason {
        _ if streams(request) => {
            let all = Form::turned_away(reason, app.streams.come_back());
            stream_response(Form::Sse, Body::from(all))
        }
        CloseReason::Draining => {
            let detail = format!("{retry}, here or on another node");
            Problem::new(&problem::DRAINING, detail).into_response()
        }
        CloseReason::NotReady => {
            let detail = format!("{retry}, here or on another node");
            Problem::new(&problem::NOT_READY, detail).into_response()
        }
        _ => Problem::new(&problem::OVERLOADED, retry).into_response(),
    };
    if version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Some(response)
}

/// Whether it wants events as `EventSource` does.
fn streams(request: &Request) -> bool {
    let format = || Format::of(request.headers(), &mut Query::parse(request.uri().query()));
    reads(request) && matches!(format(), Ok(Format::Sse))
}

/// Whether it wants events.
fn reads(request: &Request) -> bool {
    let path = request.uri().path();
    let topic = path.starts_with("/topics/") && !path.ends_with("/presence");
    request.method() == Method::GET && (path == "/events" || topic)
}

/// A node that has never seen the journal has no ids to give; one that cannot read it any more has none that others know.
fn cannot_serve(app: &App) -> bool {
    app.cluster.as_ref().is_some_and(|cluster| {
        app.hub.log().bounds().epoch == 0 || cluster.standing().newer.is_some()
    })
}
