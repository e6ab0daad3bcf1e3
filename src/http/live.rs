//! A page of events rendered on the server: complete and readable without scripts; with them it goes on by itself from
//! the cursor in its markup.

use super::{
    App, poll,
    problem::{self, Problem},
    readable::{self, Kind},
    start,
};
use crate::{encoding::rfc3339, event::Event, fanout::Gap, topic::Filter};
use askama::Template;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header, request::Parts},
    response::Response,
};
use std::{borrow::Cow, sync::Arc};

/// Nothing comes from elsewhere, and no script or style stands in the markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

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
    data: Vec<(Kind, Cow<'a, str>)>,
}

impl<'a> Row<'a> {
    fn new(event: &'a Arc<Event>) -> Self {
        let data = match str::from_utf8(&event.data) {
            Ok("") | Err(_) => Vec::new(),
            Ok(text) => {
                readable::pretty(text).unwrap_or_else(|| vec![(Kind::Plain, Cow::Borrowed(text))])
            }
        };
        Self {
            topic: event.topic.as_str(),
            name: event.event.as_ref().map(|name| name.as_str()),
            own_id: event.own_id.as_ref().map(|id| id.as_str()),
            id: event.cursor.to_string(),
            time: rfc3339(event.time_ms),
            data,
        }
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
    let page = poll::page(app, filter, start, limit).await?;
    let mut events: Vec<_> = page.events().map(Row::new).collect();
    events.reverse();
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let again = poll::without(query, &start::PARAMETERS);
    let own = [&start::PARAMETERS[..], &["limit", "format"]].concat();
    let rendered = Rendered {
        title: &title,
        root: "../".repeat(path.matches('/').count().saturating_sub(1)),
        now: rfc3339(app.streams.clock.now_ms()),
        cursor: page.cursor.to_string(),
        stream: format!(
            "{}format=sse&frame=message&open=1",
            poll::without(query, &own)
        ),
        next: page.more.then(|| format!("{again}after={}", page.cursor)),
        events,
        gap: page.gap.as_ref().map(facts),
    };
    let html = rendered.render().map_err(|error| {
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
