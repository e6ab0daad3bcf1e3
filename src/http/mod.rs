//! HTTP: routes, who may call them, and what they answer. Listening is [`listener`]'s part.

mod accept;
mod admission;
mod assets;
mod body;
mod browser;
mod cluster;
mod gate;
mod lean;
mod library;
pub mod listener;
mod live;
mod ndjson;
mod outcome;
mod pages;
mod poll;
pub mod problem;
mod publish;
mod publishes;
mod query;
mod readable;
mod refusal;
mod results;
mod socket;
mod socketio;
mod stall;
mod start;
mod subscribe;
mod ws;

use crate::{
    cluster::ReplicatedLog,
    config::Config,
    delivery::{silence::Silences, stream},
    fanout::Hub,
    ingest::{Bounds, Ingest},
    log::Clock,
};
use axum::{
    Router,
    http::{Method, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
pub use browser::Reach;
use gate::GateLayer;
use problem::Problem;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What all handlers share.
pub struct App {
    hub: Arc<Hub>,
    cluster: Option<Arc<ReplicatedLog>>,
    ingest: Ingest,
    streams: Arc<stream::Settings>,
    filters_max: usize,
    keepalive: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    results_bytes_max: usize,
    browser: browser::Rules,
    drain: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Handlers over a hub. `silences` says when streams need a keepalive. Cancelling `drain` ends streams and refuses what is new; `tasks` has what outlives a
    /// handler.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        cluster: Option<Arc<ReplicatedLog>>,
        config: &Config,
        silences: Arc<Silences>,
        drain: CancellationToken,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let bounds = Bounds {
            event_bytes_max: size(config.publish.event_bytes_max),
            batch_events_max: size(config.publish.batch_events_max),
            batch_bytes_max: size(config.publish.batch_bytes_max),
        };
        let streams = stream::Settings {
            retry: config.subscribe.retry,
            silences,
            drain_retry: (
                config.subscribe.drain_retry_min,
                config.subscribe.drain_retry_max,
            ),
            drain: drain.clone(),
            clock: Clock::system(),
        };
        Arc::new(Self {
            ingest: Ingest::new(Arc::clone(hub.log()), bounds),
            hub,
            cluster,
            streams: Arc::new(streams),
            filters_max: size(config.subscribe.filters_max),
            keepalive: config.subscribe.keepalive,
            body_timeout: config.server.body_timeout,
            write_timeout: config.server.write_timeout,
            results_bytes_max: size(config.publish.results_bytes_max),
            browser: browser::Rules::new(config),
            drain,
            tasks,
        })
    }

    /// The door in that its routes use.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// All routes, for a listener that is reached from there.
    pub fn router(self: &Arc<Self>, reach: Reach) -> Router {
        let no_topic = || async { Problem::new(&problem::TOPIC, "the path ends before the topic") };
        let topic = get(subscribe::topic).post(publish::topic);
        Router::new()
            .route("/topics", get(no_topic).post(no_topic))
            .route("/topics/", get(no_topic).post(no_topic))
            .route("/topics/{*topic}", topic)
            .route("/events", get(subscribe::events))
            .route("/publish", post(publish::publish))
            .route(ws::PATH, get(ws::open).connect(ws::open))
            .route("/healthz", get(pages::healthz))
            .route("/readyz", get(cluster::readyz))
            .route("/cluster", get(cluster::nodes))
            .merge(assets::routes())
            .merge(pages::routes())
            .merge(socketio::routes(self))
            .fallback(not_found)
            .method_not_allowed_fallback(wrong_method)
            .layer(GateLayer::new(Arc::clone(self), reach))
            .with_state(Arc::clone(self))
    }
}

/// A size from the configuration as one of memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(
        &problem::NOT_FOUND,
        format!(
            "there is nothing at {}",
            uri.path().chars().take(200).collect::<String>()
        ),
    )
}

async fn wrong_method(method: Method) -> Response {
    Problem::new(&problem::METHOD, format!("the path does not take {method}")).into_response()
}
