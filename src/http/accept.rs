//! `Accept`: whether an answer's type is among those that a client takes.

use axum::http::{HeaderMap, header};

/// Whether the client takes `kind/subtype`. Without an `Accept` it takes anything. Of the ranges that name the type,
/// the most specific counts.
pub(super) fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let mut best: Option<(u8, bool)> = None;
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some((k, s)) = parts.next().and_then(|name| name.split_once('/')) else {
                continue;
            };
            any = true;
            let specificity = match (
                k.eq_ignore_ascii_case(kind),
                s.eq_ignore_ascii_case(subtype),
                k,
                s,
            ) {
                (true, true, ..) => 3,
                (true, _, _, "*") => 2,
                (_, _, "*", "*") => 1,
                _ => continue,
            };
            let weight =
                parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let wanted = weight
                .and_then(|q| q.parse::<f32>().ok())
                .is_none_or(|q| q > 0.0);
            if best.is_none_or(|(known, _)| specificity > known) {
                best = Some((specificity, wanted));
            }
        }
    }
    match best {
        Some((_, wanted)) => wanted,
        None => !any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_most_specific_range_counts() {
        let sse = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            accepts(&headers, "text", "event-stream")
        };
        assert!(accepts(&HeaderMap::new(), "text", "event-stream"));
        for yes in [
            "",
            "*/*",
            "text/*",
            "Text/Event-Stream",
            "image/png, */*;q=0.1",
            "text/*;q=0, text/event-stream",
        ] {
            assert!(sse(yes), "{yes:?}");
        }
        for no in [
            "image/png",
            "text/html",
            "text/event-stream;q=0",
            "*/*, text/event-stream; q=0.0",
            "text/*;q=0, */*",
        ] {
            assert!(!sse(no), "{no:?}");
        }
    }
}
