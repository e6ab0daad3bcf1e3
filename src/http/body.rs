//! Request bodies: bounded in bytes, in the time between two parts, and in their encoding.

use super::problem::{self, Problem};
use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, HeaderValue, header},
};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio_stream::StreamExt;

/// How long a body that its client offers may take to begin before the request is answered all the same.
const EXPECT_TIMEOUT: Duration = Duration::from_millis(100);

/// Refuses a body that is compressed: nothing here would take it apart. (Of a Transfer-Encoding, hyper takes only the
/// chunks apart.)
pub(super) fn refuse_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    for (name, plain) in [
        (header::CONTENT_ENCODING, "identity"),
        (header::TRANSFER_ENCODING, "chunked"),
    ] {
        let is_plain =
            |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(plain.as_bytes());
        if !headers.get_all(&name).iter().all(is_plain) {
            let title = if plain == "chunked" {
                "Transfer-Encoding but chunked"
            } else {
                "Content-Encoding"
            };
            let detail = format!("the hub takes no {title}; send the body as it is");
            return Err(Problem::new(&problem::MEDIA_TYPE, detail));
        }
    }
    Ok(())
}

/// Reads a whole body, refusing one that is too large as soon as that is known.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let detail =
            format!("the body is larger than {bytes_max} bytes, the most that is taken here");
        Problem::new(&problem::TOO_LARGE, detail)
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut whole = Vec::with_capacity(announced.unwrap_or_default());
    loop {
        let frame = tokio::time::timeout(timeout, body.frame())
            .await
            .map_err(|_| {
                Problem::new(
                    &problem::BODY_TIMEOUT,
                    "the rest of the body did not arrive in time",
                )
            })?;
        let Some(frame) = frame else { return Ok(whole) };
        let frame =
            frame.map_err(|_| Problem::new(&problem::REQUEST, "the body did not arrive whole"))?;
        let Ok(part) = frame.into_data() else {
            continue;
        };
        if whole.len() + part.len() > bytes_max {
            return Err(too_large());
        }
        whole.extend_from_slice(&part);
        if body.is_end_stream() {
            return Ok(whole);
        }
    }
}

/// The same body, asked for before its request is answered: hyper then says `100 Continue`, for which a client may be
/// waiting. (curl waits a second for it.)
pub(super) async fn expected(mut body: Body) -> Body {
    let first = tokio::time::timeout(EXPECT_TIMEOUT, body.frame()).await;
    let first = first.ok().flatten().and_then(|frame| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    Body::from_stream(tokio_stream::iter(first).chain(body.into_data_stream()))
}
