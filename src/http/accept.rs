//! Which form of an answer a client gets: what its URL says, else its `Accept`.

use super::{
    problem::{self, Problem},
    query::Query,
};
use axum::http::{HeaderMap, header};

/// The forms in which a subscribe route answers, in the order in which they are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A stream of Server-Sent Events.
    Sse,
    /// A stream of lines of JSON.
    Lines,
    /// One page of events as JSON.
    Json,
    /// One page of events to look at, which goes live by itself.
    Html,
}

impl Format {
    const ALL: [Self; 4] = [Self::Sse, Self::Lines, Self::Json, Self::Html];

    /// What a URL calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Lines => "ndjson",
            Self::Json => "json",
            Self::Html => "html",
        }
    }

    /// Its media type, as type and subtype.
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Sse => ("text", "event-stream"),
            Self::Lines => ("application", "x-ndjson"),
            Self::Json => ("application", "json"),
            Self::Html => ("text", "html"),
        }
    }

    /// The form that a request asks for: by its `format`, else by its `Accept`.
    pub(super) fn of(headers: &HeaderMap, query: &mut Query) -> Result<Self, Problem> {
        let what = "`sse`, `ndjson`, `json` or `html`";
        let named = query.take_as("format", what, |text| {
            Self::ALL.into_iter().find(|format| format.name() == text)
        })?;
        match named.or_else(|| accepted(headers)) {
            Some(format) => Ok(format),
            None => Err(Problem::new(
                &problem::ACCEPT,
                "events come as text/event-stream, application/x-ndjson, application/json or text/html, all of which \
                 the Accept header excludes",
            )),
        }
    }
}

/// The highest quality wins, then the more specific range, then the order of the forms. Without an `Accept` anything is
/// taken.
fn accepted(headers: &HeaderMap) -> Option<Format> {
    let ranges = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<Range<'_>> = ranges
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    if ranges.is_empty() {
        return Some(Format::Sse);
    }
    let mut best = None::<(f32, u8, Format)>;
    for format in Format::ALL {
        // Of the ranges that name a type, the most specific says its quality; of several such, the first.
        let mut counts = None::<(u8, f32)>;
        for range in &ranges {
            if let Some(specificity) = range.names(format.media_type())
                && counts.is_none_or(|(known, _)| specificity > known)
            {
                counts = Some((specificity, range.quality));
            }
        }
        if let Some((specificity, quality)) = counts
            && quality > 0.0
            && best.is_none_or(|(q, s, _)| (quality, specificity) > (q, s))
        {
            best = Some((quality, specificity, format));
        }
    }
    best.map(|(.., format)| format)
}

/// One range of an `Accept`.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let weight =
            parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = weight.and_then(|q| q.trim().parse::<f32>().ok());
        Some(Self {
            kind,
            subtype,
            quality: quality.filter(|q| q.is_finite()).unwrap_or(1.0),
        })
    }

    /// How specifically it names a type, if it does.
    fn names(&self, (kind, subtype): (&str, &str)) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(1),
            (k, "*") if k.eq_ignore_ascii_case(kind) => Some(2),
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => Some(3),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn chosen(accept: &'static str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        accepted(&headers)
    }

    #[test]
    fn the_highest_quality_wins_then_the_more_specific_range_then_the_order() {
        assert_eq!(accepted(&HeaderMap::new()), Some(Format::Sse));
        for (accept, expected) in [
            ("", Some(Format::Sse)),
            ("*/*", Some(Format::Sse)),
            ("text/*", Some(Format::Sse)),
            ("Text/Event-Stream", Some(Format::Sse)),
            ("image/png, */*;q=0.1", Some(Format::Sse)),
            ("application/x-ndjson", Some(Format::Lines)),
            ("application/*", Some(Format::Lines)),
            ("application/json", Some(Format::Json)),
            ("application/json, text/plain, */*", Some(Format::Json)),
            ("application/json;q=0.5, */*;q=0.9", Some(Format::Sse)),
            ("application/json, text/event-stream", Some(Format::Sse)),
            (
                "application/json, text/event-stream;q=0.9",
                Some(Format::Json),
            ),
            ("text/event-stream;q=0, */*", Some(Format::Lines)),
            ("*/*, text/event-stream; q=0.0", Some(Format::Lines)),
            ("text/*;q=0, text/event-stream", Some(Format::Sse)),
            ("application/json;charset=utf-8;Q=1", Some(Format::Json)),
            ("text/html", Some(Format::Html)),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
                Some(Format::Html),
            ),
            ("application/json, text/html", Some(Format::Json)),
            ("text/*;q=0", None),
            ("image/png", None),
            ("application/xml", None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }
}
