//! The files of `public/`, embedded: compressed once, and told by a tag, so that a browser that has one asks and gets 304.

use super::{App, pages, poll};
use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use std::{
    io::Write as _,
    sync::{Arc, LazyLock},
};

macro_rules! files {
    ($($route:literal $kind:literal $file:literal;)*) => {
        const FILES: &[(&str, &str, &[u8])] =
            &[$(($route, $kind, include_bytes!(concat!("../../public/", $file)))),*];
    };
}

files! {
    "/" "text/html; charset=utf-8" "index.html";
    "/assets/style.css" "text/css; charset=utf-8" "style.css";
    "/assets/icon.svg" "image/svg+xml" "icon.svg";
    "/assets/app.js" "text/javascript; charset=utf-8" "app.js";
    "/assets/cluster.js" "text/javascript; charset=utf-8" "cluster.js";
    "/assets/json.js" "text/javascript; charset=utf-8" "json.js";
    "/assets/rows.js" "text/javascript; charset=utf-8" "rows.js";
    "/assets/topic.js" "text/javascript; charset=utf-8" "topic.js";
    "/tidings.js" "text/javascript; charset=utf-8" "tidings.js";
}

/// Made when the first of them is asked for.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| FILES.iter().map(Asset::new).collect());

struct Asset {
    kind: &'static str,
    bytes: Bytes,
    gzip: Bytes,
    /// Weak, since the two are not the same bytes.
    tag: String,
}

pub(super) fn routes() -> Router<Arc<App>> {
    let routes = FILES.iter().enumerate();
    routes.fold(Router::new(), |router, (at, &(route, ..))| {
        let asset = move |headers: HeaderMap| async move { ASSETS[at].answer(&headers) };
        router.route(route, get(asset))
    })
}

impl Asset {
    fn new(&(_, kind, bytes): &(&'static str, &'static str, &'static [u8])) -> Self {
        let bytes = Bytes::from_static(bytes);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Nothing fails to be written into memory.
        let gzip = encoder.write_all(&bytes).and_then(|()| encoder.finish());
        let digest = Sha256::digest(&bytes);
        let digits: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        Self {
            kind,
            gzip: gzip.map_or_else(|_| bytes.clone(), Bytes::from),
            bytes,
            tag: format!("W/\"{digits}\""),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut known = headers.get_all(header::IF_NONE_MATCH).iter();
        let is_known = known.any(|known| poll::names(known, &self.tag));
        let gzip = takes_gzip(headers);
        let body = match gzip {
            _ if is_known => Bytes::new(),
            true => self.gzip.clone(),
            false => self.bytes.clone(),
        };
        let mut answer = pages::answer(self.kind, body);
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        } else if gzip {
            let gzip = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        let headers = answer.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        answer
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight, Some(Ok(0.0)))
    })
}
