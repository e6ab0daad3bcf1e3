//! `GET /topics/{topic}` and `GET /events`.

use super::{
    App,
    accept::Format,
    cluster, live, poll,
    problem::{self, Problem, quoted},
    publish::topic_of,
    query::Query,
    socket::Connection,
    start,
};
use crate::{
    config::units::parse_duration,
    delivery::{
        form::Form,
        stream::{self, EventStream, Opening},
    },
    fanout::{Begin, LagPolicy},
    topic::Filter,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts},
    response::Response,
};
use std::{sync::Arc, time::Duration};

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
    subscribe(&app, &parts, filter, query, &[]).await
}

/// Subscribes to the topics and patterns in the query.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let mut query = Query::parse(parts.uri.query());
    let texts = query.take_all("topic")?;
    let none = "there is no `topic` parameter, so nothing to subscribe to";
    let filter = filter(app.filters_max, &texts, none)?;
    subscribe(&app, &parts, filter, query, &["topic"]).await
}

/// The filter of these topics and patterns, of so many at most. `none` says that there are none.
pub(super) fn filter(filters_max: usize, texts: &[String], none: &str) -> Result<Filter, Problem> {
    if texts.len() > filters_max {
        let detail = format!(
            "{} topics and patterns are more than {filters_max}, the most on one stream",
            texts.len(),
        );
        return Err(Problem::new(&problem::FILTER, detail));
    }
    let filter = Filter::parse(texts.iter().map(String::as_str)).map_err(|(text, error)| {
        Problem::new(&problem::FILTER, format!("{}: {error}", quoted(text)))
    })?;
    filter.ok_or_else(|| Problem::new(&problem::FILTER, none))
}

/// `topic` is the parameter that was taken already, if one was.
async fn subscribe(
    app: &App,
    parts: &Parts,
    filter: Filter,
    mut query: Query,
    topic: &[&str],
) -> Result<Response, Problem> {
    let format = Format::of(&parts.headers, &mut query)?;
    let start = start::of_request(&parts.headers, &mut query)?;
    let known = |own: &[&'static str]| [topic, &start::PARAMETERS, &["format"], own].concat();
    let form = match format {
        Format::Json => {
            let asked = poll::Asked::of(&parts.headers, &mut query)?;
            query.finish(&known(poll::PARAMETERS))?;
            return poll::answer(app, parts, filter, start, &asked).await;
        }
        Format::Html => {
            let limit = poll::limit(&mut query)?;
            query.finish(&known(&["limit"]))?;
            return live::answer(app, parts, filter, start, limit).await;
        }
        Format::Lines => Form::Lines,
        Format::Sse => query
            .take_as(
                "frame",
                "`data`, `envelope` or `message`",
                |text| match text {
                    "data" => Some(Form::Sse),
                    "envelope" => Some(Form::SseEnvelope),
                    "message" => Some(Form::SseMessage),
                    _ => None,
                },
            )?
            .unwrap_or(Form::Sse),
    };
    let lag = query.take_as("lag", LagPolicy::NAMES, LagPolicy::parse)?;
    let heartbeat = query.take_as("heartbeat", "a time from 1s to 1h, such as 15s", |text| {
        parse_duration(text).filter(|every| HEARTBEAT.contains(every))
    })?;
    let open = query.take_as("open", "`1` or `0`", |text| match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    })?;
    let own: &[&str] = match format {
        Format::Sse => &["lag", "heartbeat", "frame", "open"],
        _ => &["lag", "heartbeat", "open"],
    };
    if let Some(name) = poll::PARAMETERS.iter().find(|name| query.has(name)) {
        let detail = format!("`{name}` is for a page of JSON: ask for one with `format=json`");
        return Err(Problem::new(&problem::UNKNOWN_PARAMETER, detail));
    }
    query.finish(&known(own))?;
    if parts.method == Method::HEAD {
        return Ok(stream_response(form, Body::empty()));
    }
    let (begin, requested) = start.unwrap_or((Begin::Live, String::new()));
    let request = stream::Request {
        filter: Arc::new(filter),
        begin,
        requested,
        lag: lag.unwrap_or_default(),
        form,
        heartbeat,
        opening: match open {
            Some(true) => Opening::Event,
            _ if form != Form::Lines && like_event_source(&parts.headers) => Opening::IdOnly,
            _ => Opening::Silent,
        },
    };
    let stream = EventStream::new(Arc::clone(&app.hub), request, app.streams.clone());
    let body = match parts.extensions.get::<Arc<Connection>>() {
        Some(connection) => connection.stream_body(stream, parts.version),
        None => Body::from_stream(stream.into_stream()),
    };
    let mut response = stream_response(form, body);
    if parts.version < Version::HTTP_2 {
        // Nothing is read from the connection any more once a stream has it.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Whether the request is one of `EventSource`'s, which takes a block of only `id:` without firing anything. Other
/// clients, which would fire an empty message, do not send both headers.
fn like_event_source(headers: &HeaderMap) -> bool {
    let uncached = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"no-cache");
    headers.contains_key("sec-fetch-mode")
        && headers.get(header::CACHE_CONTROL).is_some_and(uncached)
}

/// The head of every stream. The connection serves nothing after it.
pub(super) fn stream_response(form: Form, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let media_type = match form {
        Form::Sse | Form::SseEnvelope | Form::SseMessage => "text/event-stream",
        Form::Lines => "application/x-ndjson",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
