//! Bodies that are no event, or no text, or of no type that the path takes.

use crate::support::witness::{Expected, Witness, check};

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
