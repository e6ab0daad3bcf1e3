//! How this node and the others stand: readiness, the nodes, and who listens to a topic.

use super::App;
use crate::topic::Topic;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Whether readers may be sent here. While the hub drains, admission answers in its place.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let Some(cluster) = &app.cluster else {
        return (StatusCode::OK, "ready\n".to_owned());
    };
    let standing = cluster.standing();
    let journal = if standing.linked {
        ""
    } else {
        "; journal down"
    };
    if standing.is_ready() {
        return (StatusCode::OK, format!("ready{journal}\n"));
    }
    let why = if let Some(format) = standing.newer {
        format!("the journal has entries of format {format}, which this version does not read")
    } else if standing.caught_up {
        format!("{:.1} s behind the journal", standing.lag.as_secs_f64())
    } else {
        "not caught up with the journal yet".to_owned()
    };
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: {why}{journal}\n"),
    )
}

/// `GET /cluster`.
pub(super) async fn nodes(State(app): State<Arc<App>>) -> Response {
    let Some(cluster) = &app.cluster else {
        // A hub that is alone. No error: its own page asks, and browsers show errors to whoever looks.
        return answer(&json!({ "journal": null, "nodes": [] }));
    };
    let standing = cluster.standing();
    answer(&json!({
        "journal": cluster.journal(),
        "linked": standing.linked,
        "ready": standing.is_ready(),
        "unreadable_entries": standing.unreadable,
        "clock_off_ms": standing.clock_off_ms,
        "nodes": cluster.nodes(),
    }))
}

/// `GET /topics/{topic}/presence`.
pub(super) fn presence(app: &App, topic: &Topic) -> Response {
    let nodes = match &app.cluster {
        Some(cluster) => cluster.presence(topic).nodes,
        None => vec![("0".to_owned(), app.hub.presence(topic))],
    };
    let streams: u64 = nodes.iter().map(|(_, streams)| streams).sum();
    let nodes: Vec<_> = nodes
        .into_iter()
        .map(|(id, streams)| json!({ "id": id, "streams": streams }))
        .collect();
    answer(&json!({ "topic": topic.as_str(), "streams": streams, "nodes": nodes }))
}

fn answer(body: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, format!("{body}\n")).into_response()
}
