//! The files of `public/`, embedded: compressed once, and told by a tag, so that a browser that has one asks and gets 304.

use super::{App, pages};
use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
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

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| FILES.iter().map(Asset::new).collect());

struct Asset {
    route: &'static str,
    kind: &'static str,
    bytes: Bytes,
    gzip: Bytes,
    /// Weak, since the two are not the same bytes.
    tag: HeaderValue,
}

pub(super) fn routes() -> Router<Arc<App>> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        router.route(
            asset.route,
            get(move |headers: HeaderMap| async move { asset.answer(&headers) }),
        )
    })
}

impl Asset {
    fn new(&(route, kind, bytes): &(&'static str, &'static str, &'static [u8])) -> Self {
        let bytes = Bytes::from_static(bytes);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Neither fails: it writes into memory, and the tag is made of hexadecimal digits.
        let gzip = encoder.write_all(&bytes).and_then(|()| encoder.finish());
        let digest = Sha256::digest(&bytes);
        let digits: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        let tag = HeaderValue::try_from(format!("W/\"{digits}\""));
        Self {
            route,
            kind,
            gzip: gzip.map_or_else(|_| bytes.clone(), Bytes::from),
            bytes,
            tag: tag.unwrap_or(HeaderValue::from_static("W/\"\"")),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = listed(headers, header::IF_NONE_MATCH).any(|tag| tag == "*" || tag == self.tag);
        let mut answer = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false if takes_gzip(headers) => {
                let gzip = HeaderValue::from_static("gzip");
                let body = pages::answer(self.kind, self.gzip.clone());
                ([(header::CONTENT_ENCODING, gzip)], body).into_response()
            }
            false => pages::answer(self.kind, self.bytes.clone()),
        };
        let headers = answer.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        answer
    }
}

/// The items of a list header.
fn listed(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    listed(headers, header::ACCEPT_ENCODING).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight, Some(Ok(0.0)))
    })
}
