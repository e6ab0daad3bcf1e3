//! A chat: each room is a topic of the hub, and this program adds one page.
//!
//! `cargo run --example chat`, then http://127.0.0.1:8080/ in several browsers. It is configured as any hub is, so with
//! `TIDINGS_CLUSTER__JOURNAL` it is a node of a cluster. All other ways in are open, too: docs/examples.md.

use anyhow::Context as _;
use askama::Template;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use std::sync::Arc;
use tidings::{
    Server,
    config::{Sources, load},
    delivery::page::{Limits, Page, Stopped},
    encoding::rfc3339,
    event::Event,
    fanout::{Begin, LagPolicy, Subscription},
    http::Reach,
    log::Start,
    topic::{Filter, Topic},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// Messages that the page comes with.
const MESSAGES: Limits = Limits {
    events_max: 50,
    bytes_max: 1 << 20, // 1 MiB
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = load(&Sources::of_process())?.config;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let hub = Server::open(&config).await?;
    let reach = match address.ip().is_loopback() {
        true => Reach::Loopback,
        false => Reach::Network,
    };
    // The hub has a page of its own at `/`, so its routes are not merged but stand behind these.
    let app = Router::new()
        .route("/", get(lobby))
        .route("/rooms/{*room}", get(room))
        .with_state(hub.clone())
        .fallback_service(hub.router(reach));
    announce(&format!("The chat is at http://{address}/"));

    let mut terminate = signal(SignalKind::terminate())?;
    let (drained, stopped) = (hub.clone(), hub.clone());
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopped.shutdown();
    };
    let serving =
        axum::serve(listener, app).with_graceful_shutdown(async move { drained.stopping().await });
    let (served, ()) = tokio::join!(serving.into_future(), signals);
    hub.close().await;
    Ok(served?)
}

async fn lobby(State(hub): State<Server>) -> Result<Response, StatusCode> {
    page(&hub, "lobby").await
}

async fn room(State(hub): State<Server>, Path(room): Path<String>) -> Result<Response, StatusCode> {
    page(&hub, &room).await
}

#[derive(Template)]
#[template(path = "chat/page.html")]
struct Rendered<'a> {
    room: &'a str,
    topic: &'a str,
    nonce: &'a str,
    /// All up to here is in the markup: what comes after it is the script's.
    cursor: String,
    messages: Vec<Message>,
}

struct Message {
    from: String,
    text: String,
    time: String,
}

impl Message {
    fn of(event: &Event) -> Self {
        #[derive(Deserialize)]
        struct Said {
            from: String,
            text: String,
        }
        // What somebody published at a shell is words as they are. `said` in the page sees it in the same way.
        let words = || Said {
            from: String::new(),
            text: String::from_utf8_lossy(&event.data).into_owned(),
        };
        // (serde would take an array for an object, too.)
        let is_object = event.data.trim_ascii_start().starts_with(b"{");
        let said = serde_json::from_slice(&event.data);
        let Said { from, text } = said.ok().filter(|_| is_object).unwrap_or_else(words);
        let time = rfc3339(event.time_ms);
        Self { from, text, time }
    }
}

async fn page(hub: &Server, room: &str) -> Result<Response, StatusCode> {
    let topic = Topic::parse(&format!("chat/{room}")).map_err(|_| StatusCode::NOT_FOUND)?;
    let filter = Arc::new(Filter::topic(topic.clone()));
    let newest = Begin::Log(Start::Tail(MESSAGES.events_max));
    let mut subscription =
        Subscription::start(hub.hub(), &filter, newest, String::new(), LagPolicy::Gap).await;
    let page = Page::take(&mut subscription, MESSAGES).await;
    let page = page.map_err(|Stopped| StatusCode::SERVICE_UNAVAILABLE)?;
    // Script and style stand in the page, and are told from what a message might bring along by a word of this answer alone.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let html = Rendered {
        room,
        topic: topic.as_str(),
        nonce: &nonce,
        cursor: page.cursor.to_string(),
        messages: page.events().map(|event| Message::of(event)).collect(),
    };
    let html = html
        .render()
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let policy = format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, Html(html)).into_response())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn announce(line: &str) {
    println!("{line}");
}
