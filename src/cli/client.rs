//! What `publish` and `subscribe` share: the hub's address, requests to it, and its problems in words.

use anyhow::{Context as _, anyhow};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Response};
use serde::Deserialize;
use std::{fmt, time::Duration};

/// Unreserved in a URL, and the slash that separates a topic's segments.
const PATH: &AsciiSet = &QUERY.remove(b'/');
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// As much of an error's body as is read.
const PROBLEM_BYTES_MAX: usize = 64 << 10; // 64 KiB

/// The hub's address: `http://host:port`, perhaps with a path where a proxy has put it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Base(String);

impl Base {
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !url.starts_with("https://"),
            "{url}: this version speaks http:// only; for https:// use curl, or a proxy on this machine"
        );
        let plain = url.starts_with("http://") && !url.contains(['?', '#']);
        let parsed = reqwest::Url::parse(url).ok().filter(|_| plain);
        let parsed = parsed.ok_or_else(|| {
            anyhow!("{url}: expected the address of a hub, such as http://127.0.0.1:8080")
        })?;
        Ok(Self(parsed.as_str().trim_end_matches('/').to_owned()))
    }

    pub(super) fn topic(&self, topic: &str) -> String {
        format!("{self}/topics/{}", utf8_percent_encode(topic, PATH))
    }

    pub(super) fn publish(&self) -> String {
        format!("{self}/publish")
    }

    pub(super) fn events(&self) -> String {
        format!("{self}/events")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The URL with those parameters.
pub(super) fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    let mut out = url.to_owned();
    for (at, (name, value)) in query.iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.extend(utf8_percent_encode(value, QUERY));
    }
    out
}

/// A client that goes straight to the hub: proxies hold streams back.
pub(super) fn client() -> anyhow::Result<Client> {
    Client::builder()
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .tcp_nodelay(true)
        .build()
        .context("cannot start the HTTP client")
}

/// Why there was no answer.
pub(super) fn unreachable(base: &Base, error: &reqwest::Error) -> anyhow::Error {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    if error.is_connect() {
        anyhow!(
            "cannot reach a hub at {base}: {root}; `tidings serve` starts one, --url names another"
        )
    } else {
        anyhow!("the connection to {base} failed: {root}")
    }
}

/// What the hub says against a request (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.title, &self.detail) {
            (Some(title), Some(detail)) => write!(f, "{title}: {detail}"),
            (Some(text), None) | (None, Some(text)) => f.write_str(text),
            (None, None) => f.write_str("refused without a reason"),
        }
    }
}

/// The error of an answer that is none of those hoped for.
pub(super) async fn problem(base: &Base, mut response: Response) -> anyhow::Error {
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < PROBLEM_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => anyhow!("{problem} (status {})", status.as_u16()),
        Err(_) => anyhow!("{base} answered with status {status}; is it a hub?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let base = Base::parse("http://127.0.0.1:8080/").unwrap();
        assert_eq!(base.publish(), "http://127.0.0.1:8080/publish");
        assert_eq!(
            base.topic("https://example.com/a b/é?#%"),
            "http://127.0.0.1:8080/topics/https%3A//example.com/a%20b/%C3%A9%3F%23%25"
        );
        let under = Base::parse("http://example.com/hub/").unwrap();
        assert_eq!(under.events(), "http://example.com/hub/events");
        for bad in [
            "127.0.0.1:8080",
            "ftp://a",
            "http://",
            "http://a?b",
            "https://a",
        ] {
            assert!(Base::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries() {
        let query = [("topic", "a/*"), ("since", "2026-11-20T08:30:00+01:00")];
        assert_eq!(
            with_query("http://a/events", &query),
            "http://a/events?topic=a%2F%2A&since=2026-11-20T08%3A30%3A00%2B01%3A00"
        );
        assert_eq!(with_query("http://a", &[]), "http://a");
    }
}
