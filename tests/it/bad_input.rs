//! Bad input gets its status and its kind of problem, harms nothing else, and leaves nothing in the log.

use crate::support::{server::Answer, witness::Witness};
use tidings::http::problem::KINDS;

/// What a request is answered: its status, kind of problem, and words that its detail has.
type Expected<'a> = (u16, &'a str, &'a str);

fn check(answer: &Answer, (status, kind, words): Expected<'_>, request: &str) {
    assert_eq!(answer.status, status, "{request}: {answer:?}");
    assert_eq!(answer.problem(), kind, "{request}: {answer:?}");
    let json = answer.json();
    let detail = json["detail"].as_str().unwrap();
    assert!(
        detail.contains(words),
        "{request}: {detail:?} without {words:?}"
    );
    assert!(
        detail.len() < 600,
        "{request}: repeats too much of the request"
    );
    let vary = answer.header("vary").unwrap_or_default();
    assert_eq!(vary.to_ascii_lowercase(), "accept, origin", "{request}");
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store"),
        "{request}"
    );
}

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
        ("/topics/*", "only /events takes patterns"),
        ("/topics/a/*", "only /events takes patterns"),
        ("/topics/a/%2A%2a", "only /events takes patterns"),
        ("/topics/**/a", "only /events takes patterns"),
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
                (400, PARAMETER, "`data` or `envelope`"),
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
async fn a_body_that_is_no_event() {
    let mut hub = Witness::start().await;
    let long = "e".repeat(257);
    let row = |field: &str| format!(r#"{{"topic":"t","data":"x",{field}}}"#);
    let mut rows: Vec<(String, Expected<'_>)> = Vec::new();
    let json = "json-invalid";
    let event = "event-invalid";
    for (body, expected) in [
        ("", (400, json, "line 1 column 0")),
        ("   ", (400, json, "line 1 column")),
        (
            "{\"topic\":\"t\",\n \"data\": oops}",
            (400, json, "line 2 column 10"),
        ),
        (
            "{\"topic\":\"t\",\"data\":1",
            (400, json, "line 1 column 21"),
        ),
        (
            "{\"topic\":\"t\",\"data\":1} x",
            (400, json, "line 1 column 24"),
        ),
        (
            "[{\"topic\":\"t\",\"data\":1},\n\n  {]",
            (400, json, "line 3 column 4"),
        ),
        (
            "[{\"topic\":\"t\",\"data\":1},]",
            (400, json, "line 1 column"),
        ),
        ("data=1&topic=t", (400, json, "line 1 column")),
        (
            r#"{"topic":"t","data":"\ud800"}"#,
            (400, json, "line 1 column"),
        ),
        (
            r#""text""#,
            (422, event, "an object with `topic` and `data`"),
        ),
        ("17", (422, event, "an object with `topic` and `data`")),
        ("null", (422, event, "an object with `topic` and `data`")),
        (r#"{"data":"x"}"#, (422, event, "missing field `topic`")),
        (r#"{"topic":"t"}"#, (422, event, "missing field `data`")),
        (
            r#"{"topic":"t","data":null}"#,
            (422, event, "`data` is null"),
        ),
        (r#"{"topic":null,"data":1}"#, (422, event, "`topic`")),
        (
            r#"{"topic":5,"data":1}"#,
            (422, event, "`topic` takes a string, not 5"),
        ),
        (
            r#"{"topic":"","data":1}"#,
            (422, event, "the topic is empty"),
        ),
        (r#"{"topic":"a/*","data":1}"#, (422, event, "patterns")),
        (
            r#"{"topic":"tidings.x","data":1}"#,
            (422, event, "reserved"),
        ),
        (r#"{"topic":"a/../b","data":1}"#, (422, event, "`..`")),
        (r#"{"topic":"a\u0000","data":1}"#, (422, event, "control")),
        (
            r#"{"topic":"t","dat":1}"#,
            (422, event, "unknown field `dat`"),
        ),
        (
            r#"{"topic":"t","data":1,"topic":"u"}"#,
            (422, event, "duplicate field `topic`"),
        ),
        (r#"[17]"#, (422, event, "an object with `topic` and `data`")),
    ] {
        rows.push((body.to_owned(), expected));
    }
    for (field, words) in [
        (r#""key":"k""#, "unknown field `key`"),
        (r#""ttl":1"#, "unknown field `ttl`"),
        (r#""event":"a\rb""#, "`event` has a control character"),
        (r#""event":"a\nb""#, "`event` has a control character"),
        (r#""event":"a\u0000b""#, "`event` has a control character"),
        (r#""event":"""#, "`event` is empty"),
        (r#""event":7"#, "`event` takes a string, not 7"),
        (r#""event":"tidings.gap""#, "reserved for the hub"),
        (r#""own_id":"a\rb""#, "`own_id` has a character"),
        (r#""own_id":"a\nb""#, "`own_id` has a character"),
        (r#""own_id":"a\u0000b""#, "`own_id` has a character"),
        (r#""own_id":"6f2a-1042""#, "the hub's own ids"),
        (r#""own_id":["a"]"#, "`own_id` takes a string"),
        (r#""retry":"soon""#, "`retry` takes a whole number"),
        (r#""retry":"100""#, "`retry` takes a whole number"),
        (r#""retry":-1"#, "`retry` takes a whole number"),
        (r#""retry":1.5"#, "`retry` takes a whole number"),
        (r#""retry":60001"#, "60000"),
        (r#""idempotency_key":"""#, "`idempotency_key` is empty"),
        (r#""idempotency_key":"a b""#, "not visible ASCII"),
        (r#""idempotency_key":1"#, "`idempotency_key` takes a string"),
    ] {
        rows.push((row(field), (422, event, words)));
    }
    for name in ["event", "own_id", "idempotency_key"] {
        let words = if name == "idempotency_key" {
            "longer than 255 bytes"
        } else {
            "longer than 256 bytes"
        };
        rows.push((row(&format!("\"{name}\":\"{long}\"")), (422, event, words)));
    }
    for (body, expected) in &rows {
        let answer = hub
            .post(
                "/publish",
                &[("Content-Type", "application/json")],
                body.as_str(),
            )
            .await;
        check(&answer, *expected, body);
        hub.unharmed(body).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn text_that_is_not_utf8() {
    let mut hub = Witness::start().await;
    let json: &[(&str, &str)] = &[("Content-Type", "application/json")];
    for (path, headers, body) in [
        ("/topics/a", &[][..], &b"caf\xe9"[..]),
        (
            "/topics/a",
            &[("Content-Type", "application/octet-stream")],
            b"\xff\xd8\xff",
        ),
        ("/topics/a", &[], b"cut \xf0\x9f\x93"),
        ("/publish", json, b"{\"topic\":\"a\",\"data\":\"caf\xe9\"}"),
        ("/publish", json, b"[{\"topic\":\"a\",\"data\":\"\xff\"}]"),
        ("/publish", json, b"\xff\xfe{\0}\0"),
    ] {
        let answer = hub.post(path, headers, body).await;
        check(&answer, (422, "not-utf8", "Server-Sent Events"), path);
        hub.unharmed(path).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_type_that_the_path_does_not_take() {
    let mut hub = Witness::start().await;
    let event = r#"{"topic":"a","data":1}"#;
    let media = "media-type-unsupported";
    for (path, name, value) in [
        ("/publish", "X-None", ""),
        ("/publish", "Content-Type", "text/plain"),
        (
            "/publish",
            "Content-Type",
            "application/x-www-form-urlencoded",
        ),
        ("/publish", "Content-Type", "application/jsonp"),
        ("/publish", "Content-Type", ""),
    ] {
        let answer = hub.post(path, &[(name, value)], event).await;
        check(&answer, (415, media, "application/x-ndjson"), value);
        hub.unharmed(value).await;
    }
    for (path, kind) in [
        ("/publish", "application/json"),
        ("/publish", "application/x-ndjson"),
        ("/topics/a", "text/plain"),
    ] {
        for encoding in ["gzip", "br", "deflate, gzip", "nonsense"] {
            let headers = [("Content-Type", kind), ("Content-Encoding", encoding)];
            let answer = hub.post(path, &headers, event).await;
            check(&answer, (415, media, "Content-Encoding"), encoding);
        }
        hub.unharmed(path).await;
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        let headers = [("Content-Type", kind), ("Content-Encoding", "identity")];
        assert_eq!(hub.post("/publish", &headers, event).await.status, 201);
        hub.expect(&["1"], kind).await;
    }
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
        "text/html, application/json",
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
