//! Errors as RFC 9457 problem details. Each kind has a stable `type` under `/problems/`, described on a page that
//! the hub serves. No text here comes from an error's source.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// A kind of error: what is stable about it.
#[derive(Debug)]
pub struct Kind {
    /// The last segment of its `type`.
    pub slug: &'static str,
    /// Its status.
    pub status: StatusCode,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What it means and what to do, for its page.
    pub about: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal $about:literal;)*) => {
        $(#[doc = $title] pub static $name: Kind = Kind { slug: $slug, status: StatusCode::$status, title: $title, about: $about };)*
        /// All of them.
        pub static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    TOPIC = BAD_REQUEST "topic-invalid" "not a topic"
        "A topic is 1 to 1,024 bytes of UTF-8 without control or format characters. Its segments, separated by `/`, are never `.`, `..`, `*` or `**`, and the first never begins with `tidings.`. Patterns are for readers: on GET /events, WebSockets and Socket.IO.";
    FILTER = BAD_REQUEST "filter-invalid" "not a topic or pattern"
        "In a pattern `*` stands for one segment and a final `**` for one or more. The rest follows the rules of topics. A stream has at most `subscribe.filters_max` of them, and at least one.";
    PARAMETER = BAD_REQUEST "parameter-invalid" "a parameter has a wrong value"
        "The detail names the query parameter and what it takes.";
    UNKNOWN_PARAMETER = BAD_REQUEST "parameter-unknown" "no such parameter"
        "The detail gives the nearest known name. Names that begin with `_` are ignored, for those who need to get past a cache.";
    HEADER = BAD_REQUEST "header-invalid" "a header has a wrong value"
        "The detail names the header and what it takes. An Idempotency-Key is 1 to 255 visible ASCII characters; with an array or NDJSON, each event has an `idempotency_key` of its own instead.";
    REQUEST = BAD_REQUEST "request-invalid" "not a request that the hub understands"
        "The request contradicts itself, or its body did not arrive whole. The connection is closed.";
    JSON = BAD_REQUEST "json-invalid" "not JSON"
        "The detail gives the line and column at which the JSON ends to be any.";
    ORIGIN = FORBIDDEN "origin-refused" "pages of that origin may not publish here"
        "A page may publish, or open a WebSocket, if the hub served it, if it comes from a loopback address, or if its origin is among `server.origins`. Programs other than browsers send no Origin and are not asked.";
    MESSAGE = BAD_REQUEST "message-invalid" "not a message that the hub knows"
        "A message on a WebSocket is a JSON object with exactly one of `subscribe`, `unsubscribe` and `publish`. The detail says what this one has instead, and `message` how it begins.";
    UPGRADE = UPGRADE_REQUIRED "upgrade-required" "the path takes WebSockets only"
        "Open /ws with a WebSocket of version 13. Events over plain HTTP come from GET /topics/{topic} and GET /events.";
    NOT_FOUND = NOT_FOUND "not-found" "no such path"
        "Publish with POST /topics/{topic} or POST /publish; subscribe with GET /topics/{topic} or GET /events?topic=…";
    METHOD = METHOD_NOT_ALLOWED "method-not-allowed" "the path does not take that method"
        "The Allow header says which it takes.";
    ACCEPT = NOT_ACCEPTABLE "not-acceptable" "events do not come in such a form"
        "Events come as text/event-stream, application/x-ndjson, application/json or text/html. Send one of these, or `*/*`, or no Accept header at all; or say `format=sse`, `ndjson`, `json` or `html` in the URL, which counts before the header.";
    BODY_TIMEOUT = REQUEST_TIMEOUT "body-timeout" "the body did not arrive in time"
        "Between two parts of a body at most `server.body_timeout` may pass.";
    HEAD_TOO_LARGE = REQUEST_HEADER_FIELDS_TOO_LARGE "head-too-large" "the request's first line and headers are too large"
        "Together they may have `server.head_bytes_max` bytes, in at most 256 headers. A stream of very many topics does with fewer bytes if they have a pattern in common.";
    URI_TOO_LONG = URI_TOO_LONG "uri-too-long" "the request's path and query are too long"
        "They may have 65,534 bytes. A stream of very many topics does with fewer bytes if they have a pattern in common.";
    TOO_LARGE = PAYLOAD_TOO_LARGE "too-large" "more than the hub takes"
        "An event's data is at most `publish.event_bytes_max`, a body with a JSON object or array `publish.batch_bytes_max` with at most `publish.batch_events_max` events. Nothing of the request was published. In a cluster the broker has a bound of its own, which the detail names.";
    MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "media-type-unsupported" "the body has a type that the path does not take"
        "POST /publish takes application/json and application/x-ndjson. POST /topics/{topic} takes any type. Neither takes a Content-Encoding.";
    HOST = MISDIRECTED_REQUEST "host-refused" "the hub is not that host"
        "While it listens on loopback only, the hub answers to loopback names and IP addresses, so that no page elsewhere can reach it through a name of its own (DNS rebinding). Behind a reverse proxy, add the name to `server.hosts`.";
    EVENT = UNPROCESSABLE_ENTITY "event-invalid" "not an event"
        "The detail names the field and its rule. Of an array with one bad event nothing was published.";
    NOT_UTF8 = UNPROCESSABLE_ENTITY "not-utf8" "not UTF-8"
        "Events reach browsers as Server-Sent Events, which are UTF-8 text by definition: other bytes would arrive changed. Send them as Base64.";
    KEY_CONFLICT = UNPROCESSABLE_ENTITY "idempotency-conflict" "the key belongs to another event"
        "The same idempotency key came before, on the same topic, with other data, another event name or another own id. Nothing was published.";
    BUSY = TOO_MANY_REQUESTS "too-many-requests" "too much is under way"
        "Of a connection on which many requests may be sent at once only so many bytes wait for an answer. Nothing was done. Send on when answers have come.";
    FULL = INSUFFICIENT_STORAGE "log-full" "the log has no room"
        "The disk is full. The events were certainly not stored; publishing works again as soon as there is room.";
    UNKNOWN_OUTCOME = SERVICE_UNAVAILABLE "outcome-unknown" "it is unknown whether the events were stored"
        "Writing to the log failed at a point where both may be true. Publish again with the same idempotency key: it settles to exactly one event.";
    OUTCOME_PENDING = GATEWAY_TIMEOUT "outcome-pending" "the journal did not show in time whether the events are stored"
        "The events were handed to the cluster's broker, and may be stored now, later or never. Publish again with the same idempotency key: it settles to exactly one event.";
    UNAVAILABLE = SERVICE_UNAVAILABLE "log-unavailable" "the log is not available"
        "The events were certainly not stored. Try again after the Retry-After time.";
    OVERLOADED = SERVICE_UNAVAILABLE "overloaded" "the hub has too many connections"
        "Try again after the Retry-After time. The bound is `server.connections_max`.";
    NOT_READY = SERVICE_UNAVAILABLE "not-ready" "the node cannot serve readers now"
        "A node of a cluster that has nothing of the journal yet, that is behind a reader, or that cannot read the journal any more. Try again after the Retry-After time, on this node or another.";
    DRAINING = SERVICE_UNAVAILABLE "draining" "the hub is going down"
        "Try again after the Retry-After time, on this node or another.";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "the hub has a bug"
        "The hub's log on stderr says more. Please report it.";
}

/// A part of a request as its error repeats it: in quotes, and only enough to know it again.
pub(super) fn quoted(text: &str) -> String {
    const CHARS: usize = 100;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// An error as its client gets it.
#[derive(Debug)]
pub struct Problem {
    kind: &'static Kind,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem of a kind, with what is particular about this one: words for the client.
    #[must_use]
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            more: Map::new(),
        }
    }

    /// The same on one line, for protocols that have room for nothing else.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}: {}", self.kind.slug, self.detail)
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The object as it goes over the wire.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "type": format!("/problems/{}", self.kind.slug),
            "title": self.kind.title,
            "status": self.kind.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(object) = &mut object {
            object.extend(self.more.clone());
        }
        object
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(format!("{}\n", self.to_json())));
        *response.status_mut() = self.kind.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.kind.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
