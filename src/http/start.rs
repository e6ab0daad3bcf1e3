//! Where a reader starts: the same words on all transports.

use super::{
    problem::{self, Problem},
    query::Query,
};
use crate::{config::units::parse_duration, fanout::Begin, log::Start};
use axum::http::HeaderMap;

/// The most events that `tail` asks for.
pub(super) const TAIL_MAX: usize = 100_000;

/// The parameters of a URL that say where to start: first the names of an id, the first of which counts.
pub(super) const PARAMETERS: [&str; 5] = ["lastEventId", "last_event_id", "after", "since", "tail"];

/// Where a reader starts, and in which words it asked for that. An id counts before the others.
pub(super) type Asked = (Begin, String);

/// What a request asks for; `None` if it does not say.
pub(super) fn of_request(headers: &HeaderMap, query: &mut Query) -> Result<Option<Asked>, Problem> {
    let header = headers
        .get("last-event-id")
        .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let mut ids = vec![header];
    for name in &PARAMETERS[..3] {
        ids.push(query.take_lossy(name)?);
    }
    let since = query.take("since")?;
    let what = tail_words();
    let tail = query.take_as("tail", &what, |text| {
        text.parse().ok().filter(|count| *count <= TAIL_MAX)
    })?;
    let id = ids.into_iter().flatten().find(|id| !id.is_empty());
    asked(id, since, tail)
}

/// The same, of parts that came in another way.
pub(super) fn asked(
    id: Option<String>,
    since_text: Option<String>,
    tail: Option<usize>,
) -> Result<Option<Asked>, Problem> {
    let wrong = |detail: String| Problem::new(&problem::PARAMETER, detail);
    let since = match &since_text {
        None => None,
        Some(text) => Some(since(text, jiff::Timestamp::now()).ok_or_else(|| {
            wrong(format!(
                "`since` takes a time ago such as 10m, an RFC 3339 time, or `earliest`, not {}",
                problem::quoted(text)
            ))
        })?),
    };
    if since.is_some() && tail.is_some() {
        let detail = "`since` and `tail` are two different starts; give one";
        return Err(wrong(detail.to_owned()));
    }
    if tail.is_some_and(|count| count > TAIL_MAX) {
        return Err(wrong(format!("`tail` takes {}", tail_words())));
    }
    let id = id.filter(|id| !id.is_empty());
    Ok(match (id, since, tail) {
        (Some(id), ..) => Some((Begin::last_event_id(&id), id)),
        (None, Some(since), _) => Some((since, since_text.unwrap_or_default())),
        (None, None, Some(0)) => Some((Begin::Live, String::new())),
        (None, None, Some(count)) => Some((Begin::Log(Start::Tail(count)), String::new())),
        (None, None, None) => None,
    })
}

fn tail_words() -> String {
    format!("a number of events from 0 to {TAIL_MAX}")
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
