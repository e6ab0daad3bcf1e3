//! A hub inside one's own axum application: its routes beside one's own, publishing and subscribing without HTTP.
//!
//! `cargo run --example embed` publishes one order, shows that a subscriber got it, and ends.

use anyhow::Context;
use axum::{Router, extract::State, routing::post};
use std::sync::Arc;
use tidings::{
    Server,
    config::{Config, Engine, LogConfig},
    event::Draft,
    fanout::{Begin, Delivery, LagPolicy, Subscription},
    http::Reach,
    topic::{Filter, Topic},
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = LogConfig {
        engine: Engine::Memory,
        ..LogConfig::default()
    };
    let hub = Server::open(&Config {
        log,
        ..Config::default()
    })
    .await?;

    // One's own routes, and all of the hub's: `GET /topics/orders` streams what `POST /orders` publishes.
    let app = Router::new()
        .route("/orders", post(order))
        .with_state(hub.clone())
        .merge(hub.router(Reach::Loopback));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let drained = hub.clone();
    let serving =
        axum::serve(listener, app).with_graceful_shutdown(async move { drained.stopping().await });

    let visit = async {
        let filter = Filter::parse(["orders"])
            .map_err(|(_, error)| error)?
            .context("one topic")?;
        let (fan_out, filter) = (hub.hub(), Arc::new(filter));
        let mut orders =
            Subscription::start(fan_out, &filter, Begin::Live, String::new(), LagPolicy::Gap).await;
        let answer = reqwest::Client::new()
            .post(format!("{url}/orders"))
            .body("two coffees")
            .send()
            .await?;
        announce(&format!("POST /orders: {}", answer.text().await?));
        if let Delivery::Events(chunk) = orders.next().await {
            for event in chunk.events() {
                announce(&format!(
                    "subscriber: {} {}",
                    event.cursor,
                    String::from_utf8_lossy(&event.data)
                ));
            }
        }
        hub.shutdown();
        anyhow::Ok(())
    };
    let (served, visited) = tokio::join!(serving.into_future(), visit);
    hub.close().await;
    served?;
    visited
}

async fn order(State(hub): State<Server>, what: String) -> String {
    let Ok(topic) = Topic::parse("orders") else {
        return String::new();
    };
    match hub
        .ingest()
        .publish(vec![Draft::new(topic, what)], true)
        .await
    {
        Ok(outcomes) => format!("{outcomes:?}"),
        Err(error) => error.to_string(),
    }
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn announce(line: &str) {
    println!("{line}");
}
