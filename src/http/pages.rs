//! What the hub serves beside events: its page, descriptions of problems, health.

use super::{
    App,
    problem::{self, Kind, Problem},
};
use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use std::sync::Arc;

/// Nothing on a page comes from elsewhere, and no script or style stands in the markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";

pub(super) fn routes() -> Router<Arc<App>> {
    let list_at = || async { Redirect::permanent("/problems/") };
    Router::new()
        .route("/problems", get(list_at))
        .route("/problems/", get(list))
        .route("/problems/{slug}", get(describe))
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Something to look at, or what belongs to it.
pub(super) fn answer(kind: &'static str, bytes: impl Into<axum::body::Body>) -> Response {
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
    Ok(answer(HTML, description(kind)))
}

async fn list() -> Response {
    let mut list = String::from(
        "<h2>Problems</h2>\n<p>What the hub answers when it refuses something, and what to do.</p>\n<ul>\n",
    );
    for Kind { slug, title, .. } in problem::KINDS {
        let item = format!("<li><a href=\"{slug}\">{slug}</a>: {}</li>\n", text(title));
        list.push_str(&item);
    }
    answer(HTML, page("Problems", &(list + "</ul>")))
}

fn description(kind: &Kind) -> String {
    let prose = format!(
        "<h2>{}</h2>\n<p class=\"status\">Status {}, type <code>/problems/{}</code></p>\n<p>{}</p>\n\
         <p><a href=\"./\">All problems</a></p>",
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
         <header class=\"bar\"><h1><a href=\"../\"><img src=\"../assets/icon.svg\" width=\"28\" height=\"28\" alt=\"\">Tidings</a></h1></header>\n\
         <article class=\"prose\">\n{prose}\n</article>\n</html>\n",
    )
}

fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
