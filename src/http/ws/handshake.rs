//! The handshake: what a request has to have to become a WebSocket, over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441).

use crate::http::problem::{self, Problem};
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts,
    },
    response::{IntoResponse, Response},
};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The subprotocol: the messages of `docs/websocket.md`.
const SUBPROTOCOL: &str = "tidings.v1";

/// The length of a key: 16 bytes in Base64.
const KEY_BYTES: usize = 24;

/// The answer that switches to WebSocket, or why there is none.
#[expect(clippy::result_large_err, reason = "both are answers")]
pub(super) fn answer(parts: &Parts) -> Result<Response, Response> {
    let headers = &parts.headers;
    if !opens(parts) {
        let detail = "this path takes WebSockets only: over HTTP/1.1 a GET with `Connection: Upgrade` and \
                      `Upgrade: websocket`, over HTTP/2 a CONNECT with the protocol `websocket`";
        return Err(upgrade_required(detail));
    }
    if !has_version(headers) {
        return Err(upgrade_required("`Sec-WebSocket-Version` has to be 13"));
    }
    let protocol = subprotocol(headers).map_err(IntoResponse::into_response)?;
    let mut answer = Response::new(Body::empty());
    let mut tell = |name: HeaderName, value: HeaderValue| answer.headers_mut().insert(name, value);
    if parts.version < Version::HTTP_2 {
        tell(
            header::SEC_WEBSOCKET_ACCEPT,
            accept_of(headers).map_err(IntoResponse::into_response)?,
        );
        tell(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        tell(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if let Some(protocol) = protocol {
        tell(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if parts.version < Version::HTTP_2 {
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    Ok(answer)
}

fn opens(parts: &Parts) -> bool {
    if parts.version >= Version::HTTP_2 {
        let protocol = parts.extensions.get::<Protocol>();
        return protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    }
    parts.method == Method::GET && parts.version == Version::HTTP_11 && is_upgrade(&parts.headers)
}

/// Whether a request of HTTP/1.1 wants the connection to become a WebSocket.
pub(in crate::http) fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, value| words(headers, name).any(|word| word.eq_ignore_ascii_case(value));
    has(&header::CONNECTION, "upgrade") && has(&header::UPGRADE, "websocket")
}

/// Whether it is of the version that there is.
pub(in crate::http) fn has_version(headers: &HeaderMap) -> bool {
    headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_some_and(|version| version == "13")
}

/// A client that offers none gets the same messages. One that offers only others speaks something else.
fn subprotocol(headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
    let mut offered = words(headers, &header::SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    if offered.any(|word| word == SUBPROTOCOL) {
        return Ok(Some(HeaderValue::from_static(SUBPROTOCOL)));
    }
    let detail = format!(
        "the hub speaks `{SUBPROTOCOL}` only, which `Sec-WebSocket-Protocol` does not offer"
    );
    Err(Problem::new(&problem::HEADER, detail))
}

fn accept_of(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let wrong = || {
        Problem::new(
            &problem::HEADER,
            "`Sec-WebSocket-Key` takes 16 bytes in Base64",
        )
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(wrong)?;
    let (digits, padding) = key.as_bytes().split_last_chunk::<2>().ok_or_else(wrong)?;
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if key.len() != KEY_BYTES || padding != b"==" || !digits.iter().all(is_digit) {
        return Err(wrong());
    }
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| wrong())
}

fn upgrade_required(detail: &str) -> Response {
    let mut refused = Problem::new(&problem::UPGRADE, detail).into_response();
    let headers = refused.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    refused
}

/// The words of a header that is a list.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}
