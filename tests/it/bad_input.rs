//! Bad input gets its status and its kind of problem, harms nothing else, and leaves nothing in the log.

use crate::support::{
    server::Answer,
    witness::{Expected, Witness, check},
};
use tidings::http::problem::KINDS;

/// Rows of a request target and what it is answered.
async fn check_all(method: &str, rows: &[(&str, Expected<'_>)]) {
    let mut hub = Witness::start().await;
    assert!(!rows.is_empty());
    for &(target, expected) in rows {
        let answer = hub.ask(method, target, &[], b"data".to_vec()).await;
        check(&answer, expected, target);
        hub.unharmed(target).await;
    }
    hub.stop().await;
}

const TOPIC: &str = "topic-invalid";
const FILTER: &str = "filter-invalid";
const PARAMETER: &str = "parameter-invalid";
const UNKNOWN: &str = "parameter-unknown";

/// Paths that name no topic, and what is wrong with them.
fn bad_topics() -> Vec<(String, &'static str)> {
    let long = "a".repeat(1_025);
    let mut all: Vec<(String, &str)> = [
        ("/topics", "topic"),
        ("/topics/", "topic"),
        ("/topics/a%00b", "control"),
        ("/topics/a%0Ab", "control"),
        ("/topics/a%7F", "control"),
        ("/topics/%C2%85", "control"),
        ("/topics/%E2%80%AEb", "format character"),
        ("/topics/%EF%BB%BFa", "format character"),
        ("/topics/%FF%FE", "not UTF-8"),
        ("/topics/%C3", "not UTF-8"),
        ("/topics/tidings.gap", "reserved"),
        ("/topics/%74idings.gap/a", "reserved"),
        ("/topics/tidings.", "reserved"),
        ("/topics/..", "`..`"),
        ("/topics/a/../b", "`..`"),
        ("/topics/a/./b", "`.`"),
        ("/topics/a/%2e%2E/b", "`..`"),
        ("/topics/a%2F..%2Fb", "`..`"),
        ("/topics/.", "`.`"),
        ("/topics/*", "patterns, which are for reading"),
        ("/topics/a/*", "patterns, which are for reading"),
        ("/topics/a/%2A%2a", "patterns, which are for reading"),
        ("/topics/**/a", "patterns, which are for reading"),
    ]
    .map(|(path, words)| (path.to_owned(), words))
    .into();
    all.push((format!("/topics/{long}"), "longer than 1024 bytes"));
    // 1,026 bytes of 513 characters.
    all.push((
        format!("/topics/{}", "%C3%A9".repeat(513)),
        "longer than 1024 bytes",
    ));
    all
}

#[tokio::test]
async fn a_path_that_names_no_topic() {
    let topics = bad_topics();
    let rows: Vec<_> = topics
        .iter()
        .map(|(path, words)| (path.as_str(), (400, TOPIC, *words)))
        .collect();
    check_all("POST", &rows).await;
    check_all("GET", &rows).await;
}

#[tokio::test]
async fn topics_at_the_edge_are_topics() {
    let hub = Witness::start().await;
    let longest = "a".repeat(1_024);
    for (path, topic) in [
        (longest.as_str(), longest.as_str()),
        ("https://example.com/books/1", "https://example.com/books/1"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("/", "/"),
        ("a//", "a//"),
        ("...", "..."),
        ("a*/**b", "a*/**b"),
        ("a/tidings.b", "a/tidings.b"),
        ("tidings", "tidings"),
        ("a+b%20c", "a+b c"),
        ("%F0%9F%93%AF", "📯"),
    ] {
        let answer = hub.post(&format!("/topics/{path}"), &[], "x").await;
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
        assert_eq!(answer.json()["topic"], topic);
        let mut stream = hub
            .subscribe(&format!("/topics/{path}?tail=1&frame=envelope"))
            .await;
        let envelope: serde_json::Value = serde_json::from_str(&stream.next().await.data).unwrap();
        assert_eq!(envelope["topic"], topic);
    }
    hub.stop().await;
}

/// What no URL library would send.
#[tokio::test]
async fn bytes_that_belong_in_no_path() {
    let mut hub = Witness::start().await;
    for (target, kind) in [
        (&b"/topics/a\x01b"[..], "request-invalid"),
        (b"/topics/a\x00b", "request-invalid"),
        (b"/topics/\xff\xfe", "request-invalid"),
        (b"/topics/a b", "request-invalid"),
        (b"topics/a", "request-invalid"),
    ] {
        for method in ["GET", "POST"] {
            let mut raw = format!("{method} ").into_bytes();
            raw.extend_from_slice(target);
            raw.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
            let name = format!("{method} {}", target.escape_ascii());
            let answer = Answer::parse(&hub.raw(&raw).await);
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
            assert_eq!(answer.problem(), kind, "{name}");
            hub.unharmed(&name).await;
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_query_that_subscribes_to_nothing_known() {
    let too_many: Vec<String> = (0..129).map(|i| format!("topic=t{i}")).collect();
    let too_many = format!("/events?{}", too_many.join("&"));
    check_all(
        "GET",
        &[
            ("/events", (400, FILTER, "no `topic` parameter")),
            ("/events?topic=", (400, FILTER, "empty")),
            (
                "/events?topic=a/**/b",
                (400, FILTER, "only be the last segment"),
            ),
            (
                "/events?topic=ok&topic=**/b",
                (400, FILTER, "only be the last segment"),
            ),
            ("/events?topic=tidings.gap", (400, FILTER, "reserved")),
            ("/events?topic=tidings.*", (400, FILTER, "reserved")),
            ("/events?topic=a/../*", (400, FILTER, "`..`")),
            ("/events?topic=a%00", (400, FILTER, "control")),
            ("/events?topic=%FF", (400, PARAMETER, "not UTF-8")),
            (
                &too_many,
                (400, FILTER, "129 topics and patterns are more than 128"),
            ),
            (
                &format!("/events?topic={}", "a".repeat(30_000)),
                (400, FILTER, "longer than 1024 bytes"),
            ),
            (
                "/topics/a?since=yesterday",
                (400, PARAMETER, "`since` takes a time ago"),
            ),
            ("/topics/a?since=-10m", (400, PARAMETER, "`since`")),
            ("/topics/a?since=", (400, PARAMETER, "`since`")),
            (
                &format!("/topics/a?since={}", "9".repeat(30_000)),
                (400, PARAMETER, "`since`"),
            ),
            (
                "/topics/a?tail=-1",
                (400, PARAMETER, "`tail` takes a number"),
            ),
            ("/topics/a?tail=1e3", (400, PARAMETER, "`tail`")),
            ("/topics/a?tail=100001", (400, PARAMETER, "100000")),
            ("/topics/a?since=1h&tail=5", (400, PARAMETER, "give one")),
            (
                "/topics/a?tail=1&tail=2",
                (400, PARAMETER, "`tail` comes more than once"),
            ),
            (
                "/topics/a?last_event_id=1&last_event_id=2",
                (400, PARAMETER, "more than once"),
            ),
            (
                "/topics/a?lag=never",
                (400, PARAMETER, "`gap`, `disconnect` or `latest`"),
            ),
            (
                "/topics/a?frame=xml",
                (400, PARAMETER, "`data`, `envelope` or `message`"),
            ),
            ("/topics/a?heartbeat=1ms", (400, PARAMETER, "1s to 1h")),
            ("/topics/a?open=yes", (400, PARAMETER, "`1` or `0`")),
            (
                "/topics/a?sinse=1h",
                (400, UNKNOWN, "did you mean `since`?"),
            ),
            (
                "/topics/a?last-event-id=1",
                (400, UNKNOWN, "did you mean `last_event_id`?"),
            ),
            (
                "/topics/a?topic=b",
                (400, UNKNOWN, "no parameter `topic` here"),
            ),
            ("/topics/a?zzz", (400, UNKNOWN, "there are: ")),
            ("/topics/a?wait=5", (400, UNKNOWN, "with `format=json`")),
            ("/topics/a?foo=bar", (400, UNKNOWN, "there are: ")),
            (
                "/events?topics=a&topic=a",
                (400, UNKNOWN, "did you mean `topic`?"),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_query_that_publishes_nothing_known() {
    let long = format!("/topics/a?event={}", "e".repeat(257));
    let long_id = format!("/topics/a?own_id={}", "e".repeat(257));
    check_all(
        "POST",
        &[
            (
                "/topics/a?event=a%0Db",
                (400, PARAMETER, "`event` has a control character"),
            ),
            (
                "/topics/a?event=a%0Ab",
                (400, PARAMETER, "`event` has a control character"),
            ),
            (
                "/topics/a?event=a%00b",
                (400, PARAMETER, "`event` has a control character"),
            ),
            ("/topics/a?event=", (400, PARAMETER, "`event` is empty")),
            (
                "/topics/a?event=%FF",
                (400, PARAMETER, "`event` is not UTF-8"),
            ),
            (
                "/topics/a?event=tidings.gap",
                (400, PARAMETER, "reserved for the hub"),
            ),
            (&long, (400, PARAMETER, "`event` is longer than 256 bytes")),
            (
                "/topics/a?own_id=a%0Db",
                (400, PARAMETER, "`own_id` has a character"),
            ),
            (
                "/topics/a?own_id=a%0Ab",
                (400, PARAMETER, "`own_id` has a character"),
            ),
            (
                "/topics/a?own_id=a%00b",
                (400, PARAMETER, "`own_id` has a character"),
            ),
            (
                "/topics/a?own_id=a+b",
                (400, PARAMETER, "`own_id` has a character"),
            ),
            (
                "/topics/a?own_id=%C3%A9",
                (400, PARAMETER, "not visible ASCII"),
            ),
            ("/topics/a?own_id=", (400, PARAMETER, "`own_id` is empty")),
            (
                "/topics/a?own_id=6f2a-1042",
                (400, PARAMETER, "the hub's own ids"),
            ),
            (
                &long_id,
                (400, PARAMETER, "`own_id` is longer than 256 bytes"),
            ),
            (
                "/topics/a?retry=soon",
                (400, PARAMETER, "`retry` takes a whole number"),
            ),
            ("/topics/a?retry=-1", (400, PARAMETER, "`retry`")),
            ("/topics/a?retry=1.5", (400, PARAMETER, "`retry`")),
            ("/topics/a?retry=", (400, PARAMETER, "`retry`")),
            ("/topics/a?retry=60001", (400, PARAMETER, "60000")),
            (
                "/topics/a?retry=99999999999999999999",
                (400, PARAMETER, "`retry`"),
            ),
            (
                "/topics/a?event=a&event=b",
                (400, PARAMETER, "`event` comes more than once"),
            ),
            ("/topics/a?key=k", (400, PARAMETER, "`key` is reserved")),
            ("/topics/a?ttl=1h", (400, PARAMETER, "`ttl` is reserved")),
            (
                "/topics/a?private=1",
                (400, PARAMETER, "`private` is reserved"),
            ),
            ("/topics/a?evnt=a", (400, UNKNOWN, "did you mean `event`?")),
            ("/topics/a?id=a", (400, UNKNOWN, "no parameter `id` here")),
        ],
    )
    .await;
}

#[tokio::test]
async fn names_that_begin_with_an_underscore_are_ignored() {
    let hub = Witness::start().await;
    let answer = hub.post("/topics/a?_=1&_nonce=2&_", &[], "x").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let answer = hub
        .post(
            "/publish?_=1",
            &[("Content-Type", "application/json")],
            "[]",
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut stream = hub
        .subscribe("/events?_=1700000000&topic=a&tail=1&_=again")
        .await;
    assert_eq!(stream.next().await.data, "x");
    hub.stop().await;
}

#[tokio::test]
async fn a_method_that_the_path_does_not_take() {
    let mut hub = Witness::start().await;
    for (method, path, allow) in [
        ("PUT", "/topics/a", &["GET", "HEAD", "POST"][..]),
        ("DELETE", "/topics/a", &["GET", "HEAD", "POST"]),
        ("PATCH", "/topics/a", &["GET", "HEAD", "POST"]),
        ("POST", "/events?topic=a", &["GET", "HEAD"]),
        ("GET", "/publish", &["POST"]),
        ("POST", "/healthz", &["GET", "HEAD"]),
        ("POST", "/", &["GET", "HEAD"]),
        ("BREW", "/events", &["GET", "HEAD"]),
    ] {
        let answer = hub.ask(method, path, &[], Vec::new()).await;
        check(&answer, (405, "method-not-allowed", method), path);
        let allowed = answer.header("allow").unwrap_or_default();
        let mut allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, allow, "{method} {path}");
    }
    hub.unharmed("wrong methods").await;
    for path in [
        "/nothing",
        "/events/",
        "/topicsx",
        "/problems/none",
        "/problems/%FF",
        "/assets/../Cargo.toml",
    ] {
        check(&hub.get(path, &[]).await, (404, "not-found", ""), path);
    }
    hub.stop().await;
}

#[tokio::test]
async fn an_accept_header_that_excludes_streams() {
    let mut hub = Witness::start().await;
    for accept in [
        "image/png",
        "application/xml, text/csv",
        "text/event-stream;q=0",
    ] {
        for path in ["/events?topic=a", "/topics/a"] {
            let answer = hub.get(path, &[("Accept", accept)]).await;
            check(
                &answer,
                (406, "not-acceptable", "text/event-stream"),
                accept,
            );
        }
    }
    hub.unharmed("Accept").await;
    hub.stop().await;
}

#[tokio::test]
async fn head_opens_no_stream() {
    let hub = Witness::start().await;
    for path in ["/events?topic=a", "/topics/a"] {
        let answer = hub.ask("HEAD", path, &[], Vec::new()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.body, "");
    }
    let refused = hub
        .ask("HEAD", "/events?topic=a&tail=-1", &[], Vec::new())
        .await;
    assert_eq!((refused.status, refused.body.as_str()), (400, ""));
    assert_eq!(hub.server.hub().feeds(), 1, "only the witness reads");
    hub.stop().await;
}

#[tokio::test]
async fn every_problem_has_its_page() {
    let hub = Witness::start().await;
    assert!(KINDS.len() > 20);
    for kind in KINDS {
        let page = hub.get(&format!("/problems/{}", kind.slug), &[]).await;
        assert_eq!(page.status, 200, "{}", kind.slug);
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let text = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
        assert!(page.body.contains(&text(kind.title)), "{}", page.body);
        assert!(page.body.contains(&text(kind.about)), "{}", page.body);
        assert!(
            page.body
                .contains(&format!("Status {}", kind.status.as_u16()))
        );
    }
    hub.stop().await;
}
