//! Which pages may use the hub. A page elsewhere on the web must not use a hub on somebody's localhost, neither by its
//! own origin (CORS, and a check of each POST and each WebSocket) nor by a name that it points there (DNS rebinding).

use super::{
    problem::{self, Problem},
    socketio,
};
use crate::config::Config;
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts},
    response::{IntoResponse, Response},
};
use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The headers of answers that scripts may read.
const EXPOSED: [HeaderName; 4] = [
    header::RETRY_AFTER,
    header::LINK,
    header::ETAG,
    HeaderName::from_static("preference-applied"),
];

/// The rules, from the configuration.
pub(super) struct Rules {
    hosts: HashSet<String>,
    origins: Arc<HashSet<String>>,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        let lower = |list: &[String]| {
            list.iter()
                .map(|text| text.to_ascii_lowercase())
                .collect::<HashSet<_>>()
        };
        Self {
            hosts: lower(&config.server.hosts),
            origins: Arc::new(lower(&config.server.origins)),
        }
    }

    /// Answers preflights, and lets pages of welcome origins read. What comes from no page needs it not, but for
    /// [`tell_caches`].
    pub(super) fn cors(&self) -> CorsLayer {
        let origins = Arc::clone(&self.origins);
        let welcome =
            move |_: &HeaderValue, parts: &Parts| welcome(&parts.headers, &parts.uri, &origins);
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(welcome))
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers([
                HeaderName::from_static("last-event-id"),
                HeaderName::from_static("idempotency-key"),
                header::CONTENT_TYPE,
                header::AUTHORIZATION,
                header::CACHE_CONTROL,
                header::IF_NONE_MATCH,
                HeaderName::from_static("prefer"),
            ])
            .expose_headers(EXPOSED)
            .max_age(Duration::from_secs(600))
            .vary([header::ACCEPT, header::ORIGIN])
    }

    fn knows_host(&self, host: &str) -> bool {
        let name = host_name(host);
        is_loopback_name(name)
            || ip(name).is_some()
            || self.hosts.contains(&name.to_ascii_lowercase())
    }
}

/// Whether [`Rules::cors`] has something to decide.
pub(super) fn is_of_a_page(request: &Request) -> bool {
    request.method() == Method::OPTIONS || request.headers().contains_key(header::ORIGIN)
}

/// Tells in an answer to no page that a page may get another one, as [`Rules::cors`] does.
pub(super) fn tell_caches(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("accept, origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("retry-after,link,etag,preference-applied"),
    );
}

/// From where a listener is reached, which decides whether the names it is called by are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From this machine only: it is bound to a loopback address, and answers to loopback names alone.
    Loopback,
    /// Other machines reach it, by names that the hub need not know: any name will do.
    Network,
}

/// The answer to a page that may not ask that; `None` lets the request pass.
pub(super) fn refuse(rules: &Rules, reach: Reach, request: &Request) -> Option<Response> {
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        let detail = "the request has several Host headers";
        return Some(Problem::new(&problem::REQUEST, detail).into_response());
    }
    if request.version() == Version::HTTP_11 && host(request.headers(), request.uri()).is_none() {
        let detail = "the request has no Host header, which HTTP/1.1 asks for";
        return Some(Problem::new(&problem::REQUEST, detail).into_response());
    }
    if reach == Reach::Loopback
        && let Some(host) = host(request.headers(), request.uri())
        && !rules.knows_host(host)
    {
        let detail = format!(
            "the hub listens on loopback only and does not answer to {:?}; if a reverse proxy in front uses that name, \
             add it to `server.hosts`",
            host_name(host).chars().take(200).collect::<String>()
        );
        return Some(Problem::new(&problem::HOST, detail).into_response());
    }
    if may_publish(request) && !welcome(request.headers(), request.uri(), &rules.origins) {
        let shown = |text: &str| text.chars().take(200).collect::<String>();
        let origin = request.headers().get(header::ORIGIN);
        let detail = format!(
            "the page is of {:?}, and the request came for {:?}; behind a reverse proxy pass the Host header on, \
             or add the origin to `server.origins`",
            shown(origin.map_or("", |origin| origin.to_str().unwrap_or("?"))),
            shown(host(request.headers(), request.uri()).unwrap_or_default()),
        );
        return Some(Problem::new(&problem::ORIGIN, detail).into_response());
    }
    None
}

/// Whether it publishes, or opens what a page could publish on and, as CORS is not asked, read: a WebSocket, a Socket.IO.
fn may_publish(request: &Request) -> bool {
    matches!(*request.method(), Method::POST | Method::CONNECT)
        || request.headers().contains_key(header::UPGRADE)
        || socketio::serves(request.uri().path())
}

/// Whether a request comes from a page that may use the hub, or from no page at all.
fn welcome(headers: &HeaderMap, uri: &Uri, origins: &HashSet<String>) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "same-origin")
    {
        return true;
    }
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let own = host(headers, uri).is_some_and(|host| {
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let bare = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_owned();
        bare(&host.to_ascii_lowercase()) == bare(authority)
    });
    let name = host_name(authority);
    own || is_loopback_name(name)
        || ip(name).is_some_and(|ip| ip.is_loopback())
        || origins.contains(&origin)
}

/// The host that a request is for: the `Host` header, or in HTTP/2 the `:authority`.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    match headers.get(header::HOST) {
        Some(host) => Some(host.to_str().unwrap_or("?")),
        None => uri.authority().map(axum::http::uri::Authority::as_str),
    }
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || ip(&name).is_some_and(|ip| ip.is_loopback())
}

fn ip(name: &str) -> Option<IpAddr> {
    match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        headers.insert(header::HOST, host.parse().unwrap());
        welcome(
            &headers,
            &Uri::from_static("/publish"),
            &HashSet::from(["https://app.example.com".to_owned()]),
        )
    }

    #[test]
    fn pages_of_the_hub_of_loopback_and_of_the_list_are_welcome() {
        for origin in [
            "http://hub.example.com",
            "http://hub.example.com:80",
            "HTTP://Hub.Example.com",
        ] {
            assert!(from(origin, "hub.example.com"), "{origin}");
        }
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:5173",
            "https://app.example.com",
        ] {
            assert!(from(origin, "hub.example.com"), "{origin}");
        }
        for origin in [
            "http://hub.example.com:8081",
            "https://evil.example",
            "http://app.example.com",
            "https://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://10.0.0.1",
            "null",
            "file://",
        ] {
            assert!(!from(origin, "hub.example.com"), "{origin}");
        }
    }

    #[test]
    fn hosts_that_are_loopback_or_addresses_are_known() {
        let mut config = Config::default();
        config.server.hosts = vec!["Hub.example.com".to_owned()];
        let rules = Rules::new(&config);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "a.localhost",
            "127.0.0.1:1",
            "[::1]:8080",
            "10.1.2.3",
            "hub.example.com:443",
        ] {
            assert!(rules.knows_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "",
            ":8080",
            "::1",
        ] {
            assert!(!rules.knows_host(host), "{host}");
        }
    }
}
