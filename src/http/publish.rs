//! `POST /topics/{topic}` and `POST /publish`.

use super::{
    App, body, ndjson,
    outcome::{append_problem, json_problem, put_result},
    problem::{self, Problem},
    query::Query,
};
use crate::{
    event::{Draft, EventName, FieldError, IdempotencyKey, OwnId, RETRY_MS_MAX, check_retry},
    ingest::json::{self, JsonError, Parsed, Refused},
    log::Outcome,
    topic::Topic,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

/// Parameters of POST /topics/{topic}.
const TOPIC_PARAMETERS: &[&str] = &["event", "own_id", "retry"];

/// Parameters that are to come: refused until then, so that nobody relies on their being ignored.
const RESERVED_PARAMETERS: &[&str] = &["key", "ttl", "private"];

/// The topic in a path: all after `/topics/`, percent-decoded once.
pub(super) fn topic_of(path: &str) -> Result<Topic, Problem> {
    let encoded = path.strip_prefix("/topics/").unwrap_or_default();
    let decoded = percent_decode_str(encoded)
        .decode_utf8()
        .map_err(|_| Problem::new(&problem::TOPIC, "the topic is not UTF-8"))?;
    Topic::parse(&decoded).map_err(|error| Problem::new(&problem::TOPIC, error.to_string()))
}

/// Publishes the body as the data of one event.
pub(super) async fn topic(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let topic = topic_of(parts.uri.path())?;
    let mut query = Query::parse(parts.uri.query());
    for name in RESERVED_PARAMETERS {
        if query.take_lossy(name)?.is_some() {
            return Err(Problem::new(
                &problem::PARAMETER,
                format!("`{name}` is reserved and not built yet"),
            ));
        }
    }
    let field = |name: &'static str| {
        move |error: FieldError| Problem::new(&problem::PARAMETER, format!("`{name}` {error}"))
    };
    let event = query
        .take("event")?
        .map(|text| EventName::parse(&text))
        .transpose()
        .map_err(field("event"))?;
    let own_id = query
        .take("own_id")?
        .map(|text| OwnId::parse(&text))
        .transpose()
        .map_err(field("own_id"))?;
    let what = format!("a whole number of milliseconds up to {RETRY_MS_MAX}");
    let retry_ms = query.take_as("retry", &what, |text| check_retry(text.parse().ok()?).ok())?;
    query.finish(TOPIC_PARAMETERS)?;
    let key = idempotency_key(&parts.headers)?;
    body::refuse_encoding(&parts.headers)?;
    let data = body::read(
        &parts.headers,
        body,
        app.ingest.bounds.event_bytes_max,
        app.body_timeout,
    )
    .await?;
    if std::str::from_utf8(&data).is_err() {
        return Err(json_problem(&JsonError::NotUtf8));
    }
    let data = Bytes::from(data.into_boxed_slice());
    // They share the buffer that the next request is read into: hyper needs no other one if it is free by then.
    drop(parts);
    publish_one(
        &app,
        Draft {
            topic,
            event,
            own_id,
            retry_ms,
            data,
            key,
        },
    )
    .await
}

/// Publishes a JSON object, a JSON array, or NDJSON.
pub(super) async fn publish(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    body::refuse_encoding(&parts.headers)?;
    let key = idempotency_key(&parts.headers)?;
    let kind = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let mut query = Query::parse(parts.uri.query());
    match kind.as_str() {
        "application/x-ndjson" => {
            let answers = query.take_as("results", "`all` or `errors`", ndjson::Answers::parse)?;
            query.finish(&["results"])?;
            no_header_key(key.as_ref())?;
            let body = match parts.headers.contains_key(header::EXPECT) {
                true => body::expected(body).await,
                false => body,
            };
            Ok(ndjson::respond(&app, body, answers.unwrap_or_default()))
        }
        "application/json" => {
            query.finish(&[])?;
            publish_json(&app, &parts.headers, body, key).await
        }
        _ => {
            let detail = "publish takes application/json or application/x-ndjson; \
                          to publish a body as it is, use POST /topics/{topic}";
            Err(Problem::new(&problem::MEDIA_TYPE, detail))
        }
    }
}

async fn publish_json(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    key: Option<IdempotencyKey>,
) -> Result<Response, Problem> {
    let bounds = app.ingest.bounds;
    let body = body::read(headers, body, bounds.batch_bytes_max, app.body_timeout).await?;
    let drafts = match json::parse(&body, bounds).map_err(refused)? {
        Parsed::Many(drafts) => {
            no_header_key(key.as_ref())?;
            drafts
        }
        Parsed::One(mut draft) => {
            if let Some(key) = key {
                if draft.key.as_ref().is_some_and(|field| *field != key) {
                    let detail = "the Idempotency-Key header and `idempotency_key` differ";
                    return Err(Problem::new(&problem::HEADER, detail));
                }
                draft.key = Some(key);
            }
            return publish_one(app, draft).await;
        }
    };
    let topics: Vec<Topic> = drafts.iter().map(|draft| draft.topic.clone()).collect();
    let outcomes = app
        .ingest
        .publish(drafts, true)
        .await
        .map_err(append_problem)?;
    let mut body = String::with_capacity(96 * topics.len() + 3);
    for (index, (topic, outcome)) in topics.iter().zip(&outcomes).enumerate() {
        body.push(if index == 0 { '[' } else { ',' });
        put_result(topic, *outcome, &mut body).map_err(|problem| problem.with("index", index))?;
    }
    body.push_str(if topics.is_empty() { "[]" } else { "]" });
    Ok(answer(&outcomes, body))
}

async fn publish_one(app: &App, draft: Draft) -> Result<Response, Problem> {
    let (outcome, body) = store(app, draft).await?;
    Ok(answer(&[outcome], body))
}

/// Publishes one event. With what became of it, also as JSON: `{"id","topic","duplicate"}`.
async fn store(app: &App, draft: Draft) -> Result<(Outcome, String), Problem> {
    let topic = draft.topic.clone();
    let outcomes = app
        .ingest
        .publish(vec![draft], true)
        .await
        .map_err(append_problem)?;
    let outcome = outcomes.first().copied().unwrap_or(Outcome::Conflict);
    let mut body = String::with_capacity(96 + topic.as_str().len());
    put_result(&topic, outcome, &mut body)?;
    Ok((outcome, body))
}

/// 201 if something new was published, else 200. The newline is for those who read it in a terminal.
fn answer(outcomes: &[Outcome], mut body: String) -> Response {
    body.push('\n');
    let mut answer = Response::new(Body::from(body));
    let new = outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Stored(_)));
    if new {
        *answer.status_mut() = StatusCode::CREATED;
    }
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn refused(Refused { index, error }: Refused) -> Problem {
    let problem = json_problem(&error);
    match index {
        Some(index) => problem.with("index", index),
        None => problem,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let wrong =
        |error: &str| Problem::new(&problem::HEADER, format!("the Idempotency-Key {error}"));
    if values.next().is_some() {
        return Err(wrong("comes more than once"));
    }
    let text = value
        .to_str()
        .map_err(|_| wrong("has a character that is not visible ASCII"))?;
    IdempotencyKey::parse(text)
        .map(Some)
        .map_err(|error| wrong(&error.to_string()))
}

fn no_header_key(key: Option<&IdempotencyKey>) -> Result<(), Problem> {
    match key {
        None => Ok(()),
        Some(_) => {
            let detail = "one Idempotency-Key cannot stand for several events; give each an `idempotency_key`";
            Err(Problem::new(&problem::HEADER, detail))
        }
    }
}
