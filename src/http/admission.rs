//! What a hub that is full or going down answers. A streaming GET gets a stream that ends at once, with a time to come
//! back: an error status would end an `EventSource` for ever. All else gets 503.

use super::{
    App,
    problem::{self, Problem},
    socket::Connection,
    subscribe::stream_response,
};
use crate::{delivery::sse, fanout::CloseReason};
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
        () if app.drain.is_cancelled() => CloseReason::Draining,
        () if overloaded => CloseReason::Overloaded,
        () if streams(request) && cannot_serve(app) => CloseReason::NotReady,
        () => return None,
    };
    let (version, path) = (request.version(), request.uri().path());
    if path == "/healthz" {
        return None;
    }
    let mut response = match (streams(request), reason) {
        (true, _) => stream_response(Body::from(sse::turned_away(
            reason,
            app.streams.drain_retry,
        ))),
        (false, CloseReason::Draining) => Problem::new(
            &problem::DRAINING,
            "try again after the Retry-After time, here or on another node",
        )
        .into_response(),
        (false, _) => Problem::new(&problem::OVERLOADED, "try again after the Retry-After time")
            .into_response(),
    };
    if version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Some(response)
}

fn streams(request: &Request) -> bool {
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
