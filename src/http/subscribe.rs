//! `GET /topics/{topic}` and `GET /events`.

use super::{
    App, accept, cluster,
    problem::{self, Problem, quoted},
    publish::topic_of,
    query::Query,
    socket::Connection,
};
use crate::{
    config::units::parse_duration,
    delivery::sse::{self, Opening, SseStream},
    encoding::Encoding,
    fanout::{Begin, LagPolicy},
    log::Start,
    topic::Filter,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts},
    response::Response,
};
use std::{sync::Arc, time::Duration};

/// Parameters of both routes.
const PARAMETERS: &[&str] = &[
    "topic",
    "last_event_id",
    "lastEventId",
    "since",
    "tail",
    "lag",
    "heartbeat",
    "frame",
    "open",
];

/// The most events that `tail` asks for.
const TAIL_MAX: usize = 100_000;

/// The bounds of `heartbeat`.
const HEARTBEAT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);

/// Subscribes to the topic in the path.
pub(super) async fn topic(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    // A topic that ends so itself has this slash encoded, or stands in the query of /events.
    if let Some(path) = parts.uri.path().strip_suffix("/presence")
        && path != "/topics"
    {
        let topic = topic_of(path)?;
        query.finish(&[])?;
        return Ok(cluster::presence(&app, &topic));
    }
    let filter = Filter::topic(topic_of(parts.uri.path())?);
    subscribe(&app, &parts, filter, query, &PARAMETERS[1..])
}

/// Subscribes to the topics and patterns in the query.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let mut query = Query::parse(parts.uri.query());
    let texts = query.take_all("topic")?;
    if texts.len() > app.filters_max {
        let detail = format!(
            "{} topics and patterns are more than {}, the most on one stream",
            texts.len(),
            app.filters_max
        );
        return Err(Problem::new(&problem::FILTER, detail));
    }
    let filter = Filter::parse(texts.iter().map(String::as_str)).map_err(|(text, error)| {
        Problem::new(&problem::FILTER, format!("{}: {error}", quoted(text)))
    })?;
    let filter = filter.ok_or_else(|| {
        Problem::new(
            &problem::FILTER,
            "there is no `topic` parameter, so nothing to subscribe to",
        )
    })?;
    subscribe(&app, &parts, filter, query, PARAMETERS)
}

fn subscribe(
    app: &App,
    parts: &Parts,
    filter: Filter,
    mut query: Query,
    known: &[&str],
) -> Result<Response, Problem> {
    let headers = &parts.headers;
    if !accept::accepts(headers, "text", "event-stream") {
        return Err(Problem::new(
            &problem::ACCEPT,
            "the stream is text/event-stream, which the Accept header excludes",
        ));
    }
    let (begin, requested) = begin(headers, &mut query)?;
    let lag = query.take_as(
        "lag",
        "`gap`, `disconnect` or `latest`",
        |text| match text {
            "gap" => Some(LagPolicy::Gap),
            "disconnect" => Some(LagPolicy::Disconnect),
            "latest" => Some(LagPolicy::Latest),
            _ => None,
        },
    )?;
    let encoding = query.take_as("frame", "`data` or `envelope`", |text| match text {
        "data" => Some(Encoding::Sse),
        "envelope" => Some(Encoding::SseEnvelope),
        _ => None,
    })?;
    let heartbeat = query.take_as("heartbeat", "a time from 1s to 1h, such as 15s", |text| {
        parse_duration(text).filter(|every| HEARTBEAT.contains(every))
    })?;
    let open = query.take_as("open", "`1` or `0`", |text| match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    })?;
    query.finish(known)?;
    if parts.method == Method::HEAD {
        return Ok(stream_response(Body::empty()));
    }
    let request = sse::Request {
        filter: Arc::new(filter),
        begin,
        requested,
        lag: lag.unwrap_or_default(),
        encoding: encoding.unwrap_or(Encoding::Sse),
        heartbeat,
        opening: match open {
            Some(true) => Opening::Event,
            _ if like_event_source(headers) => Opening::IdOnly,
            _ => Opening::Silent,
        },
    };
    let stream = SseStream::new(Arc::clone(&app.hub), request, app.streams.clone());
    let body = match parts.extensions.get::<Arc<Connection>>() {
        Some(connection) => connection.stream_body(stream, parts.version),
        None => Body::from_stream(stream.into_stream()),
    };
    let mut response = stream_response(body);
    if parts.version < Version::HTTP_2 {
        // Nothing is read from the connection any more once a stream has it.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Where the reader starts, and in which words it asked for that.
fn begin(headers: &HeaderMap, query: &mut Query) -> Result<(Begin, String), Problem> {
    let header = headers
        .get("last-event-id")
        .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let (camel, snake) = (
        query.take_lossy("lastEventId")?,
        query.take_lossy("last_event_id")?,
    );
    let what = "a time ago such as 10m, an RFC 3339 time, or `earliest`";
    let mut since_text = String::new();
    let since = query.take_as("since", what, |text| {
        text.clone_into(&mut since_text);
        since(text, jiff::Timestamp::now())
    })?;
    let what = format!("a number of events from 0 to {TAIL_MAX}");
    let tail = query.take_as("tail", &what, |text| {
        text.parse().ok().filter(|count| *count <= TAIL_MAX)
    })?;
    if since.is_some() && tail.is_some() {
        return Err(Problem::new(
            &problem::PARAMETER,
            "`since` and `tail` are two different starts; give one",
        ));
    }
    let id = [header, camel, snake]
        .into_iter()
        .flatten()
        .find(|id| !id.is_empty());
    Ok(match (id, since, tail) {
        (Some(id), ..) => (Begin::last_event_id(&id), id),
        (None, Some(since), _) => (since, since_text),
        (None, None, Some(0)) => (Begin::Live, String::new()),
        (None, None, Some(count)) => (Begin::Log(Start::Tail(count)), String::new()),
        (None, None, None) => (Begin::Live, String::new()),
    })
}

/// A time in the future means live: clocks differ.
fn since(text: &str, now: jiff::Timestamp) -> Option<Begin> {
    if text == "earliest" {
        return Some(Begin::Log(Start::Earliest));
    }
    let now_ms = now.as_millisecond();
    let ms = match parse_duration(text) {
        Some(ago) => now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        // A `+` before an offset comes as a space if it was not escaped.
        None => text
            .replace(' ', "+")
            .parse::<jiff::Timestamp>()
            .ok()?
            .as_millisecond(),
    };
    Some(if ms > now_ms {
        Begin::Live
    } else {
        Begin::Log(Start::Since(u64::try_from(ms).unwrap_or(0)))
    })
}

/// Whether the request is one of `EventSource`'s, which takes a block of only `id:` without firing anything. Other
/// clients, which would fire an empty message, do not send both headers.
fn like_event_source(headers: &HeaderMap) -> bool {
    let uncached = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"no-cache");
    headers.contains_key("sec-fetch-mode")
        && headers.get(header::CACHE_CONTROL).is_some_and(uncached)
}

/// The head of every stream. The connection serves nothing after it.
pub(super) fn stream_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_durations_times_and_earliest() {
        let now: jiff::Timestamp = "2026-11-20T10:00:00Z".parse().unwrap();
        let ms = |text: &str| match since(text, now) {
            Some(Begin::Log(Start::Since(ms))) => Some(ms),
            _ => None,
        };
        let now_ms = u64::try_from(now.as_millisecond()).unwrap();
        assert_eq!(ms("10m"), Some(now_ms - 600_000));
        assert_eq!(ms("2026-11-20T10:30:00+01:00"), Some(now_ms - 1_800_000));
        assert_eq!(ms("2026-11-20T10:30:00 01:00"), Some(now_ms - 1_800_000));
        assert_eq!(ms("2026-11-20T09:59:59.5Z"), Some(now_ms - 500));
        assert_eq!(ms("1960-01-01T00:00:00Z"), Some(0));
        assert!(matches!(
            since("2126-11-20T10:00:00Z", now),
            Some(Begin::Live)
        ));
        assert!(matches!(
            since("earliest", now),
            Some(Begin::Log(Start::Earliest))
        ));
        for nonsense in ["", "10", "-10m", "yesterday", "2026-11-20", "10:00"] {
            assert!(since(nonsense, now).is_none(), "{nonsense:?}");
        }
    }
}
