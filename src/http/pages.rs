//! What the hub serves beside events: its page, descriptions of problems, health.

use super::{
    App,
    problem::{self, Kind, Problem},
};
use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;

/// Nothing on a page comes from elsewhere, and no script or style stands in the markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";

macro_rules! assets {
    ($($route:literal $kind:literal $file:literal;)*) => {
        /// The files of `public/`, embedded.
        const ASSETS: &[(&str, &str, &[u8])] =
            &[$(($route, $kind, include_bytes!(concat!("../../public/", $file)))),*];
    };
}

assets! {
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

pub(super) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/problems/", get(list))
        .route("/problems/{slug}", get(describe));
    for &(route, kind, bytes) in ASSETS {
        router = router.route(route, get(move || async move { asset(kind, bytes) }));
    }
    router
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

fn asset(kind: &'static str, bytes: impl Into<axum::body::Body>) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    (headers, bytes.into()).into_response()
}

async fn describe(slug: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let slug = slug.map(|Path(slug)| slug).unwrap_or_default();
    let kind = problem::KINDS.iter().find(|kind| kind.slug == slug);
    let kind = kind.ok_or_else(|| Problem::new(&problem::NOT_FOUND, "no problem has that name"))?;
    Ok(asset(HTML, description(kind)))
}

async fn list() -> Response {
    let mut list = String::from("<ul>\n");
    for Kind { slug, title, .. } in problem::KINDS {
        let item = format!("<li><a href=\"{slug}\">{slug}</a>: {}</li>\n", text(title));
        list.push_str(&item);
    }
    asset(HTML, page("Problems", &(list + "</ul>")))
}

fn description(kind: &Kind) -> String {
    let prose = format!(
        "<h2>{}</h2>\n<p class=\"status\">Status {}, type <code>/problems/{}</code></p>\n<p>{}</p>",
        text(kind.title),
        kind.status.as_u16(),
        kind.slug,
        text(kind.about),
    );
    page(kind.slug, &prose)
}

fn page(title: &str, prose: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"../assets/icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"../assets/style.css\">\n\
         <header class=\"bar\"><h1><img src=\"../assets/icon.svg\" width=\"28\" height=\"28\" alt=\"\">Tidings</h1></header>\n\
         <article class=\"prose\">\n{prose}\n</article>\n</html>\n",
    )
}

fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
