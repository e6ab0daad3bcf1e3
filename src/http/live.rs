//! A page of events rendered on the server: complete and readable without scripts; with them it goes on by itself from
//! the cursor in its markup.

use super::{
    App, poll,
    problem::{self, Problem},
    readable::{escaped_bytes, markup},
    start,
};
use crate::{
    cursor::Cursor, delivery::page::Page, encoding::rfc3339, event::Event, fanout::Gap,
    topic::Filter,
};
use askama::Template;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header, request::Parts},
    response::Response,
};
use std::sync::Arc;
use tokio::task::yield_now;

/// Nothing comes from elsewhere, and no script or style stands in the markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// What an event takes of a page beside its data and its names, in bytes, about.
const ROW_BYTES: usize = 512;

/// What a page takes beside its events, in bytes, about.
const PAGE_BYTES: usize = 4 << 10; // 4 KiB

/// So much is made of events at a time; then others are served.
const TURN_BYTES: usize = 32 << 10; // 32 KiB

#[derive(Template)]
#[template(path = "topic.html")]
struct Rendered<'a> {
    title: &'a str,
    /// From the page's URL to the hub's root.
    root: String,
    now: String,
    cursor: String,
    /// The stream from the cursor on, but for the cursor.
    stream: String,
    /// The next page, if there is more already.
    next: Option<String>,
    /// The first page of all, if these are only the newest.
    first: Option<String>,
    /// Newest first.
    events: Vec<Row<'a>>,
    gap: Option<Vec<(&'static str, String)>>,
}

struct Row<'a> {
    topic: &'a str,
    name: Option<&'a str>,
    own_id: Option<&'a str>,
    id: String,
    time: String,
    /// Markup.
    data: String,
}

impl<'a> Row<'a> {
    fn new(event: &'a Arc<Event>) -> Self {
        Self {
            topic: event.topic.as_str(),
            name: event.event.as_ref().map(|name| name.as_str()),
            own_id: event.own_id.as_ref().map(|id| id.as_str()),
            id: event.cursor.to_string(),
            time: rfc3339(event.time_ms),
            data: str::from_utf8(&event.data).map(markup).unwrap_or_default(),
        }
    }

    /// What it takes of the page, in bytes, about.
    fn bytes(&self) -> usize {
        let names = [Some(self.topic), self.name, self.own_id];
        let names = names.into_iter().flatten().map(escaped_bytes);
        ROW_BYTES + names.sum::<usize>() + self.data.len()
    }
}

/// Events of a page as markup, up to its bounds.
struct Rows<'a> {
    rows: Vec<Row<'a>>,
    bytes: usize,
    /// Where the next page begins, and whether there is more already.
    cursor: Cursor,
    more: bool,
}

impl<'a> Rows<'a> {
    async fn of(page: &'a Page) -> Self {
        let mut this = Self {
            rows: Vec::new(),
            bytes: 0,
            cursor: page.cursor,
            more: page.more,
        };
        let (mut last, mut turn) = (None, 0);
        for event in page.events() {
            let row = Row::new(event);
            let bytes = row.bytes();
            // Markup is longer than what it is made of, so the page may have to end before its events do.
            if let Some(last) = last
                && this.bytes + bytes > poll::BYTES_MAX
            {
                (this.cursor, this.more) = (last, true);
                break;
            }
            this.bytes += bytes;
            this.rows.push(row);
            last = Some(event.cursor);
            turn += event.data.len();
            if turn >= TURN_BYTES {
                turn = 0;
                yield_now().await;
            }
        }
        this
    }
}

/// Answers with what there is from a start on, or with the newest.
pub(super) async fn answer(
    app: &App,
    parts: &Parts,
    filter: Filter,
    start: Option<start::Asked>,
    limit: usize,
) -> Result<Response, Problem> {
    let title = title(&filter);
    let is_newest = start.is_none();
    let page = poll::page(app, filter, start, limit).await?;
    let Rows {
        rows: mut events,
        bytes,
        cursor,
        more,
    } = Rows::of(&page).await;
    events.reverse();
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let again = poll::without(query, &start::PARAMETERS);
    let own = [&start::PARAMETERS[..], &["limit", "format"]].concat();
    let rendered = Rendered {
        title: &title,
        root: "../".repeat(path.matches('/').count().saturating_sub(1)),
        now: rfc3339(app.streams.clock.now_ms()),
        cursor: cursor.to_string(),
        stream: format!(
            "{}format=sse&frame=message&open=1",
            poll::without(query, &own)
        ),
        next: more.then(|| format!("{again}after={cursor}")),
        first: (is_newest && events.len() == limit).then(|| format!("{again}since=earliest")),
        events,
        gap: page.gap.as_ref().map(facts),
    };
    let mut html = String::with_capacity(PAGE_BYTES + bytes);
    rendered.render_into(&mut html).map_err(|error| {
        tracing::error!(%error, "a page could not be rendered");
        Problem::new(&problem::INTERNAL, "the page could not be rendered")
    })?;
    let mut response = Response::new(Body::from(html));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let (name, value): (HeaderName, HeaderValue) = (name, HeaderValue::from_static(value));
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn title(filter: &Filter) -> String {
    let topics = filter.topics().iter().map(|topic| topic.as_str());
    let patterns = filter.patterns().iter().map(|pattern| pattern.as_str());
    topics.chain(patterns).collect::<Vec<_>>().join(", ")
}

/// What is known of a gap.
fn facts(gap: &Gap) -> Vec<(&'static str, String)> {
    let mut facts = vec![("reason", gap.reason.as_str().to_owned())];
    if !gap.requested.is_empty() {
        facts.push(("asked for", gap.requested.clone()));
    }
    facts.extend(gap.oldest.map(|oldest| ("oldest kept", oldest.to_string())));
    facts.extend(gap.missed.map(|missed| ("missed", missed.to_string())));
    facts
}
