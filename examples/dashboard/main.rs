//! A dashboard: an application's own page, rendered from its own state, that keeps itself up to date by events.
//!
//! `cargo run --example dashboard`, then http://127.0.0.1:8080/. It is configured as any hub is. `/` comes with all
//! orders in its markup, so that it is right without scripts; `/ajax` is the same page, which fetches them first.
//!
//! State and cursor belong together: the table is what the log says up to its cursor, and both are read at once. So a
//! page that goes on from that cursor misses nothing, and gets nothing twice.

use anyhow::Context as _;
use askama::Template;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use tidings::{
    Server,
    config::{RetentionRule, Sources, load},
    cursor::Cursor,
    event::{Draft, Event, IdempotencyKey},
    fanout::{Begin, Delivery, GapReason, LagPolicy, Subscription},
    http::Reach,
    log::{Outcome, Start},
    topic::{Filter, Pattern, Topic},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Where the orders are: each has a topic, whose newest event is all of it.
const ORDERS: &str = "orders/*";
/// Events kept of an order. One would do for the table; with some more a page that was away is told no gap.
const EVENTS_PER_ORDER: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    New,
    Packed,
    Shipped,
    Delivered,
}

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    id: u32,
    customer: String,
    total: String,
    status: Status,
}

/// What the log says up to the cursor.
#[derive(Clone)]
struct Table {
    orders: BTreeMap<u32, Order>,
    cursor: Cursor,
}

#[derive(Clone)]
struct App {
    hub: Server,
    /// Of all orders. Whoever changes one waits until its event has come back.
    table: Arc<watch::Sender<Table>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = load(&Sources::of_process())?.config;
    let rule = RetentionRule {
        topics: Pattern::parse(ORDERS)?,
        age_max: None,
        events_max: Some(EVENTS_PER_ORDER),
        bytes_max: None,
    };
    config.log.retention.insert(0, rule);
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let hub = Server::open(&config).await?;
    let app = App::open(hub.clone()).await?;
    let reach = match address.ip().is_loopback() {
        true => Reach::Loopback,
        false => Reach::Network,
    };
    // The hub has a page of its own at `/`, so its routes are not merged but stand behind these.
    let router = Router::new()
        .route("/", get(rendered))
        .route("/ajax", get(empty))
        .route("/orders", get(orders))
        .route("/orders/{id}", post(change))
        .with_state(app)
        .fallback_service(hub.router(reach));
    announce(&format!("The dashboard is at http://{address}/"));

    let mut terminate = signal(SignalKind::terminate())?;
    let (drained, stopped) = (hub.clone(), hub.clone());
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopped.shutdown();
    };
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { drained.stopping().await });
    let (served, ()) = tokio::join!(serving.into_future(), signals);
    hub.close().await;
    Ok(served?)
}

// ---- The state ----

impl App {
    /// Reads the table from the log, and follows it from there.
    async fn open(hub: Server) -> anyhow::Result<Self> {
        let (mut reader, table) = read(&hub).await?;
        let app = Self {
            table: Arc::new(watch::Sender::new(table)),
            hub,
        };
        if app.table.borrow().orders.is_empty() {
            app.begin().await?;
        }
        let (hub, table) = (app.hub.clone(), Arc::clone(&app.table));
        let follow = async move {
            loop {
                let delivery = reader.next().await;
                let cursor = reader.cursor();
                match delivery {
                    Delivery::Events(chunk) => table.send_modify(|table| {
                        chunk.events().iter().for_each(|event| table.apply(event));
                        table.cursor = cursor;
                    }),
                    // The log has lost its end, in a cluster whose broker has: so has the table.
                    Delivery::Gap(gap) if gap.reason == GapReason::Epoch => {
                        let Ok(again) = read(&hub).await else { return };
                        reader = again.0;
                        table.send_replace(again.1);
                    }
                    // Removed: of each order a newer event is there.
                    Delivery::Gap(_) => {}
                    Delivery::Close(_) | Delivery::Stopped => return,
                }
            }
        };
        tokio_util::task::TaskTracker::new().spawn(follow);
        Ok(app)
    }

    /// The orders of the first day.
    async fn begin(&self) -> anyhow::Result<()> {
        let customers = [
            "Ada Lovelace",
            "Grace Hopper",
            "Alan Turing",
            "Edsger Dijkstra",
            "Barbara Liskov",
            "Donald Knuth",
            "Katherine Johnson",
            "Dennis Ritchie",
        ];
        let mut drafts = Vec::new();
        for (id, customer) in (1..).zip(customers) {
            let total = format!("{}.{:02}", 7 * id + 5, 37 * id % 100);
            let (customer, status) = (customer.to_owned(), Status::New);
            let mut draft = draft(&Order {
                id,
                customer,
                total,
                status,
            })?;
            // Should two nodes of a cluster begin at once, it is the same.
            draft.key = Some(IdempotencyKey::parse(&format!("first-{id}"))?);
            drafts.push(draft);
        }
        self.hub.ingest().publish(drafts, true).await?;
        Ok(())
    }
}

/// The table as the log has it now, and a reader that goes on from there.
async fn read(hub: &Server) -> anyhow::Result<(Subscription, Table)> {
    let filter = Filter::parse([ORDERS]).map_err(|(_, error)| error)?;
    let filter = Arc::new(filter.context("a pattern")?);
    let start = Begin::Log(Start::Earliest);
    let mut reader =
        Subscription::start(hub.hub(), &filter, start, String::new(), LagPolicy::Gap).await;
    let mut table = Table {
        orders: BTreeMap::new(),
        cursor: reader.cursor(),
    };
    while let Some(delivery) = reader.next_kept().await {
        match delivery {
            Delivery::Events(chunk) => chunk.events().iter().for_each(|event| table.apply(event)),
            Delivery::Gap(_) => {}
            Delivery::Close(_) | Delivery::Stopped => anyhow::bail!("the hub stopped"),
        }
    }
    table.cursor = reader.cursor();
    Ok((reader, table))
}

impl Table {
    /// An event is a whole row. What is none, as anybody may publish, is passed over here and in the page.
    /// (serde would take an array for an object, too.)
    fn apply(&mut self, event: &Event) {
        if let Ok(order) = serde_json::from_slice::<Order>(&event.data)
            && event.data.trim_ascii_start().starts_with(b"{")
            && event.topic.as_str() == format!("orders/{}", order.id)
        {
            self.orders.insert(order.id, order);
        }
    }

    /// Orders that are not delivered yet.
    fn open(&self) -> usize {
        let open = |order: &&Order| order.status != Status::Delivered;
        self.orders.values().filter(open).count()
    }
}

fn draft(order: &Order) -> anyhow::Result<Draft> {
    let topic = Topic::parse(&format!("orders/{}", order.id))?;
    Ok(Draft::new(topic, serde_json::to_string(order)?))
}

// ---- The routes ----

#[derive(Template)]
#[template(path = "dashboard/page.html")]
struct Page<'a> {
    nonce: &'a str,
    /// `None`: the page is to fetch the table.
    table: Option<&'a Table>,
}

async fn rendered(State(app): State<App>) -> Result<Response, StatusCode> {
    let table = app.table.borrow().clone();
    page(Some(&table))
}

async fn empty() -> Result<Response, StatusCode> {
    page(None)
}

fn page(table: Option<&Table>) -> Result<Response, StatusCode> {
    // Script and style stand in the page, and are told from what an order might bring along by a word of this answer alone.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let page = Page {
        nonce: &nonce,
        table,
    };
    let html = page
        .render()
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    Ok((headers, Html(html)).into_response())
}

/// The table for scripts: `{"cursor","orders"}`.
async fn orders(State(app): State<App>) -> Response {
    let table = app.table.borrow().clone();
    let orders: Vec<_> = table.orders.values().rev().collect();
    let state = serde_json::json!({ "cursor": table.cursor.to_string(), "orders": orders });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, state.to_string()).into_response()
}

/// `status=packed`: by a form, by the page's script, or by `curl -d`.
async fn change(
    State(app): State<App>,
    Path(id): Path<u32>,
    headers: HeaderMap,
    body: String,
) -> Result<Redirect, StatusCode> {
    if !is_own(&headers) {
        return Err(StatusCode::FORBIDDEN);
    }
    let status = body.trim().strip_prefix("status=").and_then(Status::named);
    let order = app.table.borrow().orders.get(&id).cloned();
    let order = Order {
        status: status.ok_or(StatusCode::UNPROCESSABLE_ENTITY)?,
        ..order.ok_or(StatusCode::NOT_FOUND)?
    };
    let draft = draft(&order).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let stored = app.hub.ingest().publish(vec![draft], true).await;
    let stored = stored.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    // Who is sent back to the page is to see it there.
    if let [Outcome::Stored(at) | Outcome::Duplicate(at)] = stored[..] {
        let there = |table: &Table| table.cursor.epoch != at.epoch || table.cursor >= at;
        let _ = app.table.subscribe().wait_for(there).await;
    }
    Ok(Redirect::to("/"))
}

/// Whether a request comes from a page of this server, or from no page: one elsewhere on the web can send a form here, too.
fn is_own(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    // Over plain HTTP browsers send that to none but this very machine.
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers.get(header::HOST);
    let origin = origin.to_str().ok().and_then(|url| url.split_once("://"));
    origin.is_some_and(|(_, authority)| host.is_some_and(|host| host == authority))
}

impl Status {
    const ALL: [(Self, &str); 4] = [
        (Self::New, "new"),
        (Self::Packed, "packed"),
        (Self::Shipped, "shipped"),
        (Self::Delivered, "delivered"),
    ];

    fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(status, _)| *status)
    }

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(status, _)| *status == self);
        found.map_or("", |(_, name)| name)
    }
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn announce(line: &str) {
    println!("{line}");
}
