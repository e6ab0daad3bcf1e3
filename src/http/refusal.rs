//! Requests whose head hyper itself refuses, before there is a request to route. It answers them with a bare status;
//! here that becomes a problem like any other.

use super::problem::{self, Kind, Problem};
use axum::http::StatusCode;
use bytes::Bytes;

/// What to send in place of `written`, if that is hyper's own refusal: one head, and nothing after it.
///
/// No answer of the hub looks like that: its own refusals have a body, and nothing in a body has CRLF twice (events
/// have their CR taken out, JSON writes it as `\r`).
pub(super) fn in_place_of(written: &[u8]) -> Option<Bytes> {
    let status = written.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let head = written.strip_suffix(b"\r\n\r\n")?;
    let bare = |line: &[u8]| line.eq_ignore_ascii_case(b"content-length: 0\r");
    if memchr::memmem::find(head, b"\r\n\r\n").is_some() || !lines(written).any(bare) {
        return None;
    }
    let (kind, detail): (&Kind, _) = match status {
        b"00" => (
            &problem::REQUEST,
            "the request's first line or a header is not HTTP",
        ),
        b"14" => (
            &problem::URI_TOO_LONG,
            "the path and query are longer than the hub takes",
        ),
        b"31" => (
            &problem::HEAD_TOO_LARGE,
            "the first line and headers are larger than the hub takes",
        ),
        _ => return None,
    };
    Some(whole(kind.status, &Problem::new(kind, detail)))
}

fn lines(written: &[u8]) -> impl Iterator<Item = &[u8]> {
    written.split(|b| *b == b'\n')
}

fn whole(status: StatusCode, problem: &Problem) -> Bytes {
    let body = format!("{}\n", problem.to_json());
    let reason = status.canonical_reason().unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         vary: accept, origin\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        body.len()
    );
    Bytes::from(head + &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_replaced() {
        let bare = |status: &str| {
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        };
        for (status, slug) in [
            ("400 Bad Request", "request-invalid"),
            ("414 URI Too Long", "uri-too-long"),
            ("431 Request Header Fields Too Large", "head-too-large"),
        ] {
            let answer = in_place_of(bare(status).as_bytes()).unwrap();
            let answer = String::from_utf8(answer.to_vec()).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{answer}"
            );
            assert!(answer.contains(slug), "{answer}");
        }
        for other in [
            bare("200 OK"),
            bare("404 Not Found"),
            bare("400 Bad Request") + "x",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n".to_owned(),
            "HTTP/1.1 400 Bad Request\r\n".to_owned(),
            bare("400 Bad Request") + &bare("400 Bad Request"),
            String::new(),
        ] {
            assert_eq!(in_place_of(other.as_bytes()), None, "{other:?}");
        }
    }
}
