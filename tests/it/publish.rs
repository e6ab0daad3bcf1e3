//! Publishing: what is answered, what makes a repetition the same publish, and that an array is all or nothing.

use crate::support::{server::Answer, stream::Message, witness::Witness};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn publish(hub: &Witness, body: &Value) -> Answer {
    hub.post("/publish", &[JSON], body.to_string()).await
}

#[tokio::test]
async fn the_body_is_the_data_whatever_its_type_says() {
    let mut hub = Witness::start().await;
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for kind in [
            "application/x-www-form-urlencoded",
            "application/json",
            "text/plain; charset=latin1",
        ] {
            let answer = hub
                .post("/topics/a/b", &[("Content-Type", kind)], "x=1&y=%20")
                .await;
            assert_eq!(answer.status, 201, "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let json = answer.json();
            assert_eq!(json["topic"], "a/b");
            assert_eq!(json["duplicate"], false);
            assert_eq!(json.as_object().unwrap().len(), 3);
            ids.push(json["id"].as_str().unwrap().to_owned());
        }
        ids
    };
    hub.expect(&["x=1&y=%20"; 3], "three types").await;
    let mut stream = hub.subscribe("/topics/a/b?since=earliest").await;
    for id in ids {
        assert_eq!(stream.next().await.id, id);
    }
    hub.stop().await;
}

#[tokio::test]
async fn what_a_publisher_says_of_an_event_reaches_its_reader() {
    let hub = Witness::start().await;
    let mut plain = hub.subscribe("/topics/a").await;
    let mut envelopes = hub.subscribe("/topics/a?frame=envelope").await;
    let long = "é".repeat(128);
    let answer = hub
        .post(
            &format!("/topics/a?event={long}&own_id=order-7&retry=60000"),
            &[],
            "one\r\ntwo",
        )
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let body = json!({ "topic": "a", "data": { "b": [1, 2.50], "a": null }, "event": "e", "own_id": "8", "retry": 0 });
    assert_eq!(publish(&hub, &body).await.status, 201);
    let Message { event, data, .. } = plain.next().await;
    assert_eq!((event, data.as_str()), (long.clone(), "one\ntwo"));
    assert!(plain.text.contains("\nretry: 60000\n"), "{}", plain.text);
    let Message { event, data, .. } = plain.next().await;
    assert_eq!(
        (event.as_str(), data.as_str()),
        ("e", r#"{"b":[1,2.5],"a":null}"#)
    );
    assert!(plain.text.contains("\nretry: 0\n"), "{}", plain.text);
    let first: Value = serde_json::from_str(&envelopes.next().await.data).unwrap();
    assert_eq!(
        (&first["own_id"], &first["event"], &first["data"]),
        (&json!("order-7"), &json!(long), &json!("one\r\ntwo"))
    );
    hub.stop().await;
}

#[tokio::test]
async fn a_repeated_key_publishes_nothing() {
    let mut hub = Witness::start().await;
    let key = |key: &'static str| [("Idempotency-Key", key)];
    let first = hub
        .post("/topics/a?event=e&own_id=o", &key("k-1"), "x")
        .await;
    assert_eq!(first.status, 201);
    // A quoted string equals its content, and `retry` is no part of what makes it the same.
    for header in ["k-1", "\"k-1\""] {
        let again = hub
            .post("/topics/a?event=e&own_id=o&retry=5", &key(header), "x")
            .await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!(
            again.json(),
            json!({ "id": first.json()["id"], "topic": "a", "duplicate": true })
        );
    }
    let as_json = json!({ "topic": "a", "data": "x", "event": "e", "own_id": "o", "idempotency_key": "\"k-1\"" });
    assert_eq!(publish(&hub, &as_json).await.status, 200);
    for (path, data) in [
        ("/topics/a?event=e&own_id=o", "y"),
        ("/topics/a?event=f&own_id=o", "x"),
        ("/topics/a?event=e", "x"),
    ] {
        let other = hub.post(path, &key("k-1"), data).await;
        assert_eq!(
            (other.status, other.problem().as_str()),
            (422, "idempotency-conflict"),
            "{path}"
        );
    }
    assert_eq!(
        hub.post("/topics/b", &key("k-1"), "y").await.status,
        201,
        "a key is its topic's"
    );
    hub.expect(&["x", "y"], "one key on two topics").await;
    hub.unharmed("repetitions").await;
    hub.stop().await;
}

#[tokio::test]
async fn concurrent_twins_are_one_event() {
    let mut hub = Witness::start().await;
    let twins = (0..8).map(|_| hub.post("/topics/a", &[("Idempotency-Key", "twin")], "x"));
    let answers = futures(twins.collect()).await;
    let new = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((answers.len(), new), (8, 1));
    assert!(
        answers
            .iter()
            .all(|answer| answer.json()["id"] == answers[0].json()["id"])
    );
    hub.expect(&["x"], "twins").await;
    hub.unharmed("twins").await;
    hub.stop().await;
}

/// All of them, driven at once.
async fn futures<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        for (one, output) in &mut all {
            if output.is_none()
                && let std::task::Poll::Ready(done) = one.as_mut().poll(cx)
            {
                *output = Some(done);
            }
        }
        match all.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn a_header_that_is_no_key() {
    let mut hub = Witness::start().await;
    let long = "k".repeat(256);
    for (key, words) in [
        ("", "is empty"),
        ("\"\"", "is empty"),
        ("a b", "not visible ASCII"),
        ("caf\u{e9}", "not visible ASCII"),
        (&long, "longer than 255 bytes"),
    ] {
        for path in ["/topics/a", "/publish"] {
            let headers = [JSON, ("Idempotency-Key", key)];
            let answer = hub.post(path, &headers, r#"{"topic":"a","data":1}"#).await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (400, "header-invalid"),
                "{key:?}"
            );
            assert!(answer.body.contains(words), "{key:?}: {}", answer.body);
        }
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    let answer = hub.post("/topics/a", &twice, "x").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "header-invalid")
    );
    let both = json!({ "topic": "a", "data": 1, "idempotency_key": "field" });
    let answer = hub
        .post(
            "/publish",
            &[JSON, ("Idempotency-Key", "header")],
            both.to_string(),
        )
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "header-invalid"),
        "{answer:?}"
    );
    hub.unharmed("keys").await;
    // None of them was used up; and the same key in both places is one key.
    for status in [201, 200] {
        let answer = hub
            .post(
                "/publish",
                &[JSON, ("Idempotency-Key", "\"field\"")],
                both.to_string(),
            )
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    hub.expect(&["1"], "one key in two places").await;
    let headers = [JSON, ("Idempotency-Key", "k")];
    let answer = hub
        .post("/publish", &headers, r#"[{"topic":"a","data":1}]"#)
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "header-invalid")
    );
    assert!(answer.body.contains("`idempotency_key`"), "{}", answer.body);
    hub.unharmed("a key for an array").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_refused_publish_uses_up_no_key() {
    let mut hub = Witness::with(|config| config.publish.event_bytes_max = 10).await;
    let key = [("Idempotency-Key", "k")];
    for (path, body, status) in [
        ("/topics/a", &b"more than ten bytes"[..], 413),
        ("/topics/a", b"\xff", 422),
        ("/topics/a?retry=x", b"x", 400),
    ] {
        assert_eq!(hub.post(path, &key, body).await.status, status);
    }
    hub.unharmed("refused").await;
    assert_eq!(hub.post("/topics/a", &key, "x").await.status, 201);
    hub.expect(&["x"], "refused").await;
    hub.stop().await;
}

#[tokio::test]
async fn an_array_is_answered_in_its_order() {
    let mut hub = Witness::start().await;
    let event = |data: &str, key: Option<&str>| json!({ "topic": "a", "data": data, "idempotency_key": key });
    let answer = publish(
        &hub,
        &json!([
            event("1", Some("k")),
            event("2", None),
            event("1", Some("k"))
        ]),
    )
    .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let results = answer.json();
    let duplicates: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["duplicate"].clone())
        .collect();
    assert_eq!(duplicates, [false, false, true]);
    assert_eq!(results[0]["id"], results[2]["id"]);
    hub.expect(&["1", "2"], "an array").await;

    let nothing_new = publish(&hub, &json!([event("1", Some("k")), event("1", Some("k"))])).await;
    assert_eq!(nothing_new.status, 200, "{nothing_new:?}");
    assert_eq!(nothing_new.json()[1], results[2]);
    let empty = publish(&hub, &json!([])).await;
    assert_eq!((empty.status, empty.json()), (200, json!([])));
    hub.unharmed("nothing new").await;

    for (index, conflict) in [
        (1, vec![event("3", None), event("other", Some("k"))]),
        (
            2,
            vec![
                event("3", Some("n")),
                event("4", None),
                event("5", Some("n")),
            ],
        ),
    ] {
        let answer = publish(&hub, &json!(conflict)).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (422, "idempotency-conflict")
        );
        assert_eq!(answer.json()["index"], index);
    }
    hub.unharmed("conflicts").await;
    // The key of the refused array is free.
    assert_eq!(
        publish(&hub, &json!([event("6", Some("n"))])).await.status,
        201
    );
    hub.expect(&["6"], "conflicts").await;
    hub.stop().await;
}

#[tokio::test]
async fn one_bad_event_keeps_out_its_array() {
    let mut hub = Witness::start().await;
    let mut lines: Vec<String> = (0..1_000)
        .map(|i| json!({ "topic": "a", "data": i }).to_string())
        .collect();
    for (bad, status, kind, words) in [
        (r#"{"topic":"a","dat":1}"#, 422, "event-invalid", "`dat`"),
        (
            r#"{"topic":"a","data":null}"#,
            422,
            "event-invalid",
            "`data` is null",
        ),
        (
            r#"{"topic":"a/*","data":1}"#,
            422,
            "event-invalid",
            "patterns",
        ),
        (
            r#"{"topic":"a","data":1,"retry":"x"}"#,
            422,
            "event-invalid",
            "`retry`",
        ),
        (
            &format!(r#"{{"topic":"a","data":"{}"}}"#, "x".repeat((1 << 20) + 1)),
            413,
            "too-large",
            "1048576 bytes",
        ),
    ] {
        lines[499] = bad.to_owned();
        let body = format!("[\n{}\n]", lines.join(",\n"));
        let answer = hub.post("/publish", &[JSON], body).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, kind),
            "{words}"
        );
        let json = answer.json();
        assert_eq!(json["index"], 499);
        let detail = json["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
        if let Some((_, line)) = detail.split_once(" at line ") {
            assert!(
                line.starts_with("501 "),
                "the line in the whole body: {detail}"
            );
        }
        hub.unharmed(words).await;
    }
    lines[499] = "{\"topic\": oops}".to_owned();
    let answer = hub
        .post("/publish", &[JSON], format!("[\n{}\n]", lines.join(",\n")))
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "json-invalid")
    );
    assert!(
        answer.body.contains("line 501 column 11"),
        "{}",
        answer.body
    );
    hub.unharmed("a syntax error").await;
    hub.stop().await;
}

#[tokio::test]
async fn an_array_that_is_too_large() {
    let mut hub = Witness::start().await;
    let event = r#"{"topic":"a","data":1}"#;
    let body = format!("[{}]", vec![event; 10_001].join(","));
    let answer = hub.post("/publish", &[JSON], body).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (413, "too-large")
    );
    assert!(answer.body.contains("10000 events"), "{}", answer.body);
    // Far too many, and not even events: the bound holds before all of them are looked at.
    let answer = hub
        .post("/publish", &[JSON], format!("[{}1]", "1,".repeat(1 << 20)))
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (413, "too-large")
    );
    let large = format!("[{event},\"{}\"]", "x".repeat(16 << 20));
    let answer = hub.post("/publish", &[JSON], large).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (413, "too-large")
    );
    hub.unharmed("too large").await;
    let most = format!("[{}]", vec![event; 10_000].join(","));
    let answer = hub.post("/publish", &[JSON], most).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json().as_array().unwrap().len(), 10_000);
    hub.stop().await;
}

#[tokio::test]
async fn the_largest_event_is_taken() {
    let hub = Witness::with(|config| config.publish.event_bytes_max = 1_000).await;
    let (most, more) = ("x".repeat(1_000), "x".repeat(1_001));
    assert_eq!(hub.post("/topics/a", &[], most.as_str()).await.status, 201);
    assert_eq!(
        hub.post("/topics/a", &[], "").await.status,
        201,
        "empty data are data"
    );
    assert_eq!(
        publish(&hub, &json!({ "topic": "a", "data": most }))
            .await
            .status,
        201
    );
    for answer in [
        hub.post("/topics/a", &[], more.as_str()).await,
        publish(&hub, &json!({ "topic": "a", "data": more })).await,
    ] {
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (413, "too-large")
        );
    }
    hub.stop().await;
}
