//! Events as a JSON page: polling, and long polling.

use super::{
    App,
    problem::{self, Problem},
    query::Query,
    socket::{Connection, Left},
    start,
};
use crate::{
    cursor::Cursor,
    delivery::{
        control::Control,
        page::{Limits, Page, Stopped},
    },
    fanout::{Begin, Delivery, LagPolicy, Subscription},
    log::Start,
    topic::Filter,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, sync::Arc, time::Duration};
use tokio::time::timeout;

/// The parameters of a page.
pub(super) const PARAMETERS: &[&str] = &["limit", "wait"];

/// Events on a page, unless its reader wants fewer.
const EVENTS: usize = 100;

/// The most on a page, whatever its reader wants.
const EVENTS_MAX: usize = 1_000;
pub(super) const BYTES_MAX: usize = 4 << 20; // 4 MiB

/// The longest that a request may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is asked of a page.
pub(super) struct Asked {
    limit: usize,
    wait: Duration,
    /// The header that says so, if it was one, to be told that it is followed.
    prefers: bool,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap, query: &mut Query) -> Result<Self, Problem> {
        let limit = limit(query)?;
        let what = format!("a number of seconds from 0 to {}", WAIT_MAX.as_secs());
        let wait = query.take_as("wait", &what, |text| {
            let wait = Duration::from_secs(text.parse().ok()?);
            (wait <= WAIT_MAX).then_some(wait)
        })?;
        let preferred = preferred_wait(headers).filter(|_| wait.is_none());
        Ok(Self {
            limit,
            wait: wait.or(preferred).unwrap_or_default(),
            prefers: preferred.is_some(),
        })
    }
}

/// How many events a page is to have at most.
pub(super) fn limit(query: &mut Query) -> Result<usize, Problem> {
    let what = format!("a number of events from 1 to {EVENTS_MAX}");
    let limit = query.take_as("limit", &what, |text| {
        let limit = text.parse().ok()?;
        (1..=EVENTS_MAX).contains(&limit).then_some(limit)
    })?;
    Ok(limit.unwrap_or(EVENTS))
}

/// `Prefer: wait=30`: a wish, so that more than there is at most means the most.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let mut wishes = values.flat_map(|value| value.split([',', ';']));
    let seconds = wishes.find_map(|wish| {
        let (name, value) = wish.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let named = name.trim().eq_ignore_ascii_case("wait");
        named.then(|| value.parse::<u32>().ok()).flatten()
    })?;
    Some(Duration::from_secs(seconds.into()).min(WAIT_MAX))
}

/// Answers with a page.
pub(super) async fn answer(
    app: &App,
    parts: &Parts,
    filter: Filter,
    start: Option<start::Asked>,
    asked: &Asked,
) -> Result<Response, Problem> {
    let (mut subscription, limits) = subscribe(app, filter, start, asked.limit).await;
    let page = Page::take(&mut subscription, limits).await;
    let page = page.map_err(|Stopped| stopped())?;
    let told = Told::new(parts, asked);
    if asked.wait.is_zero() || !page.is_empty() || parts.method == Method::HEAD {
        return Ok(told.answer(&page));
    }
    let waiting = Box::new(Waiting {
        subscription,
        limits,
        most: asked.wait,
        told,
    });
    match parts.extensions.get::<Arc<Connection>>() {
        Some(connection) if connection.takes_pages() => {
            let body = connection.leave_body(Left::Page(waiting));
            Ok(Response::new(body))
        }
        _ => Ok(waiting.answer().await),
    }
}

/// A page that waits for its first event.
pub(super) struct Waiting {
    subscription: Subscription,
    limits: Limits,
    most: Duration,
    told: Told,
}

impl Waiting {
    /// The answer, once it is there.
    pub(super) async fn answer(mut self: Box<Self>) -> Response {
        let came = timeout(self.most, self.subscription.next()).await.ok();
        // Boxed, so that who waits does not take the room of what comes after.
        Box::pin(self.answer_with(came)).await
    }

    async fn answer_with(self: Box<Self>, came: Option<Delivery>) -> Response {
        let mut this = *self;
        let page = Page::of(&mut this.subscription, this.limits, came);
        this.told.answer(&page.await)
    }
}

/// What of a request its answer depends on, beside the page.
struct Told {
    /// The URL's parameters but for the start.
    kept: Box<str>,
    /// The tags that the client knows.
    known: Box<[HeaderValue]>,
    /// The wish that is followed, in seconds.
    preferred: Option<u64>,
}

impl Told {
    fn new(parts: &Parts, asked: &Asked) -> Self {
        let known = parts.headers.get_all(header::IF_NONE_MATCH);
        Self {
            kept: without(parts.uri.query(), &start::PARAMETERS).into(),
            known: known.into_iter().map(own).collect(),
            preferred: asked.prefers.then_some(asked.wait.as_secs()),
        }
    }

    fn answer(&self, page: &Page) -> Response {
        let tag = tag(page);
        let is_known = self.known.iter().any(|known| names(known, &tag));
        let body = match is_known {
            true => Body::empty(),
            false => Body::from(json(page)),
        };
        let mut response = Response::new(body);
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        if !is_known {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        let cached = HeaderValue::from_static("private, no-cache");
        headers.insert(header::CACHE_CONTROL, cached);
        let mut tell = |name, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        let (kept, cursor) = (&self.kept, page.cursor);
        tell(
            header::LINK,
            format!("<{kept}after={cursor}>; rel=\"next\""),
        );
        tell(header::ETAG, tag);
        if let Some(seconds) = self.preferred {
            let name = HeaderName::from_static("preference-applied");
            tell(name, format!("wait={seconds}"));
        }
        response
    }
}

/// A copy of a header's value. A clone would keep the whole head that it came in.
pub(super) fn own(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// What there is from a start on, or the newest.
pub(super) async fn page(
    app: &App,
    filter: Filter,
    start: Option<start::Asked>,
    limit: usize,
) -> Result<Page, Problem> {
    let (mut subscription, limits) = subscribe(app, filter, start, limit).await;
    let page = Page::take(&mut subscription, limits).await;
    page.map_err(|Stopped| stopped())
}

async fn subscribe(
    app: &App,
    filter: Filter,
    start: Option<start::Asked>,
    limit: usize,
) -> (Subscription, Limits) {
    let (begin, requested) = match start {
        None => (Begin::Log(Start::Tail(limit)), String::new()),
        // What was published before the request is not to come.
        Some((Begin::Live, requested)) => {
            let bounds = app.hub.log().bounds();
            let head = Cursor {
                epoch: bounds.epoch,
                position: bounds.head,
            };
            (Begin::Log(Start::Cursor(head)), requested)
        }
        Some(start) => start,
    };
    let limits = Limits {
        events_max: limit,
        bytes_max: BYTES_MAX,
    };
    let filter = Arc::new(filter);
    let start = Subscription::start(&app.hub, &filter, begin, requested, LagPolicy::Gap);
    (start.await, limits)
}

fn stopped() -> Problem {
    let detail = "the node is going down, or has not got as far as this reader yet; try again, here or elsewhere";
    Problem::new(&problem::NOT_READY, detail)
}

fn json(page: &Page) -> Vec<u8> {
    let mut out = b"{\"events\":[".to_vec();
    page.put_items(&mut out);
    let gap = match &page.gap {
        Some(gap) => Control::gap(gap).data.to_string(),
        None => "null".to_owned(),
    };
    let (cursor, more) = (page.cursor, page.more);
    let end = format!("],\"cursor\":\"{cursor}\",\"more\":{more},\"gap\":{gap}}}\n");
    out.extend_from_slice(end.as_bytes());
    out
}

/// A weak tag: the same for pages that differ only in their cursors. An id stands for its event, which never changes.
fn tag(page: &Page) -> String {
    let mut hash = Sha256::new();
    for event in page.events() {
        hash.update(event.cursor.epoch.to_le_bytes());
        hash.update(event.cursor.position.to_le_bytes());
    }
    let gap = page.gap.as_ref().map(|gap| Control::gap(gap).data);
    hash.update(format!("{} {gap:?}", page.more));
    let mut tag = String::from("W/\"");
    for byte in &hash.finalize()[..12] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

/// Whether an `If-None-Match` names a tag, compared weakly.
pub(super) fn names(known: &HeaderValue, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = known.to_str().unwrap_or_default();
    known.trim() == "*" || known.split(',').any(|known| opaque(known) == opaque(tag))
}

/// The parameters of a URL but for some, to add others to. Relative, so that it is right behind any proxy.
pub(super) fn without(query: Option<&str>, names: &[&str]) -> String {
    let mut kept = String::from("?");
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = percent_decode_str(name).decode_utf8_lossy();
        if !names.contains(&&*name) {
            // A link stands between angle brackets.
            kept.push_str(&pair.replace('<', "%3C").replace('>', "%3E"));
            kept.push('&');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_has_the_same_url_with_another_start() {
        for (query, expected) in [
            (None, "?"),
            (
                Some("topic=a%2Fb&tail=3&limit=2&since=1h"),
                "?topic=a%2Fb&limit=2&",
            ),
            (
                Some("last_event_id=a-1&%61fter=b-2&_x=<1>&wait=5"),
                "?_x=%3C1%3E&wait=5&",
            ),
        ] {
            assert_eq!(without(query, &start::PARAMETERS), expected);
        }
    }

    #[test]
    fn a_wish_to_wait_is_read_among_others() {
        let wait = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", HeaderValue::from_static(value));
            preferred_wait(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("wait=30"), Some(30));
        assert_eq!(wait("respond-async, Wait = \"5\"; foo"), Some(5));
        assert_eq!(wait("wait=3600"), Some(60));
        assert_eq!(wait("wait=-1"), None);
        assert_eq!(wait("wait"), None);
    }

    #[test]
    fn what_is_kept_for_an_answer_is_not_the_requests_head() {
        let head = axum::body::Bytes::from(vec![b'x'; 30_000]);
        let tag = HeaderValue::from_maybe_shared(head.slice(100..120)).unwrap();
        let mut request = axum::http::Request::new(());
        *request.uri_mut() = "/topics/a?limit=1".parse().unwrap();
        request.headers_mut().insert(header::IF_NONE_MATCH, tag);
        let (parts, ()) = request.into_parts();
        let asked = Asked {
            limit: 1,
            wait: Duration::ZERO,
            prefers: false,
        };
        let told = Told::new(&parts, &asked);
        assert_eq!(told.known[0], "x".repeat(20));
        drop(parts);
        assert!(head.is_unique());
    }

    #[test]
    fn tags_are_compared_weakly() {
        let names = |known: &'static str| names(&HeaderValue::from_static(known), "W/\"a1\"");
        for yes in ["W/\"a1\"", "\"a1\"", "*", "\"b\", W/\"a1\""] {
            assert!(names(yes), "{yes}");
        }
        for no in ["", "\"b\"", "a1", "W/\"a\""] {
            assert!(!names(no), "{no}");
        }
    }
}
