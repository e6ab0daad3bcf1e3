//! NDJSON: a line in, a result out, for as long as the producer likes; and what becomes of lines that are no events.

use crate::support::{
    http2::{self, Client},
    server::{Answer, TestServer},
    stream::{DEADLINE, Stream},
    wait::wait_until,
    witness::{Expected, Witness},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// An open request whose body goes out in chunks.
async fn open(hub: &TestServer, query: &str) -> Stream {
    let mut tcp = hub.connect().await;
    let head = format!(
        "POST /publish{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let request = Stream::on(tcp).await;
    assert_eq!(request.status(), 200, "at once");
    assert!(
        request.head.contains("application/x-ndjson"),
        "{}",
        request.head
    );
    request
}

async fn send(request: &mut Stream, part: &str) {
    let chunk = format!("{:x}\r\n{part}\r\n", part.len());
    request.tcp().write_all(chunk.as_bytes()).await.unwrap();
}

async fn finish(request: &mut Stream) {
    request.tcp().write_all(b"0\r\n\r\n").await.unwrap();
}

fn line(topic: &str, data: &str) -> String {
    json!({ "topic": topic, "data": data }).to_string() + "\n"
}

fn results(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn post(hub: &TestServer, query: &str, body: &str) -> Vec<Value> {
    let answer = hub.post(&format!("/publish{query}"), &[NDJSON], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    results(&answer.body)
}

#[tokio::test]
async fn a_line_is_answered_before_the_next_one_is_sent() {
    let mut hub = Witness::start().await;
    let mut request = open(&hub, "").await;
    for i in 1..=20 {
        send(&mut request, &line("a", &i.to_string())).await;
        while request.text.lines().count() < i {
            request.until(&format!("-{i}\"")).await;
        }
        hub.expect(&[&i.to_string()], "a line").await;
    }
    // A line may come in pieces.
    send(&mut request, "{\"topic\":\"a\",").await;
    send(&mut request, "\"data\":\"21\"}").await;
    send(&mut request, "\n").await;
    hub.expect(&["21"], "a line in pieces").await;
    finish(&mut request).await;
    assert_eq!(request.rest().await, []);
    let results = results(&request.text);
    assert_eq!(results.len(), 21);
    assert!(
        results
            .iter()
            .all(|result| result["duplicate"] == false && result["topic"] == "a")
    );
    hub.unharmed("NDJSON").await;
    hub.stop().await;
}

#[tokio::test]
async fn the_same_over_http2() {
    let mut hub = Witness::start().await;
    let mut client = Client::connect(&hub).await;
    let (lines, answer) = client.post("/publish", &[NDJSON]).await;
    assert_eq!(answer.status(), 200);
    let (mut body, mut read) = (answer.into_body(), String::new());
    for i in 1..=20 {
        lines
            .send(Bytes::from(line("a", &i.to_string())))
            .await
            .unwrap();
        http2::until(&mut body, &mut read, &format!("-{i}\"")).await;
        hub.expect(&[&i.to_string()], "a line").await;
    }
    drop(lines);
    let rest = timeout(DEADLINE, body.collect()).await.unwrap().unwrap();
    assert_eq!(rest.to_bytes(), "");
    assert_eq!(results(&read).len(), 20);
    hub.unharmed("NDJSON").await;
    hub.stop().await;
}

#[tokio::test]
async fn bad_lines_are_refused_by_themselves() {
    let mut hub = Witness::with(|config| config.publish.event_bytes_max = 1_000).await;
    let long = "x".repeat(100_000);
    let keyed =
        |data: &str| json!({ "topic": "a", "data": data, "idempotency_key": "k" }).to_string();
    let rows: Vec<(String, Option<Expected<'_>>)> = vec![
        (line("a", "1").trim_end().into(), None),
        (
            "{oops}".into(),
            Some((400, "json-invalid", "at line 2 column 2")),
        ),
        (
            "{\"topic\":\"a\",\"dat\":1}".into(),
            Some((422, "event-invalid", "`dat`")),
        ),
        (
            "[]".into(),
            Some((422, "event-invalid", "an object with `topic` and `data`")),
        ),
        (
            line("a/*", "x").trim_end().into(),
            Some((422, "event-invalid", "patterns")),
        ),
        (
            line("a", &long[..1_001]).trim_end().into(),
            Some((413, "too-large", "1000 bytes")),
        ),
        (
            line("a", &long).trim_end().into(),
            Some((413, "too-large", "1000 bytes")),
        ),
        (keyed("2"), None),
        (keyed("2"), None),
        (
            keyed("other"),
            Some((422, "idempotency-conflict", "another content")),
        ),
        ("{\"topic\":\"a\",\"data\":\"3\"}\r".into(), None),
    ];
    let body: Vec<&str> = rows.iter().map(|(line, _)| line.as_str()).collect();
    let results = post(&hub, "", &(body.join("\n") + "\n")).await;
    assert_eq!(results.len(), rows.len());
    for (number, (result, (line, refused))) in (1..).zip(results.iter().zip(&rows)) {
        let line = &line[..line.len().min(80)];
        let Some((status, kind, words)) = *refused else {
            assert!(result["id"].is_string(), "{line}: {result}");
            continue;
        };
        let error = &result["error"];
        assert_eq!(error["status"], status, "{line}: {result}");
        assert_eq!(error["type"], format!("/problems/{kind}"), "{line}");
        assert_eq!(error["line"], number, "{line}");
        assert!(
            error["detail"].as_str().unwrap().contains(words),
            "{line}: {result}"
        );
    }
    assert_eq!(results[8]["duplicate"], true);
    assert_eq!(results[8]["id"], results[7]["id"]);
    hub.expect(&["1", "2", "3"], "the good lines").await;
    hub.unharmed("bad lines").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_line_that_is_not_utf8() {
    let mut hub = Witness::start().await;
    let body = [
        line("a", "1").as_bytes(),
        b"{\"topic\":\"a\",\"data\":\"caf\xe9\"}\n",
        line("a", "2").as_bytes(),
    ]
    .concat();
    let answer = hub.post("/publish", &[NDJSON], body).await;
    let results = results(&answer.body);
    assert_eq!(results.len(), 3);
    assert_eq!(results[1]["error"]["type"], "/problems/not-utf8");
    assert!(
        results[1]["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("Server-Sent Events")
    );
    hub.expect(&["1", "2"], "the good lines").await;
    hub.unharmed("not UTF-8").await;
    hub.stop().await;
}

#[tokio::test]
async fn only_errors_and_a_summary() {
    let mut hub = Witness::start().await;
    let keyed = json!({ "topic": "a", "data": 1, "idempotency_key": "k" }).to_string();
    let body = format!("{keyed}\n\n{keyed}\noops\n  \r\n{}", line("a", "2"));
    let results = post(&hub, "?results=errors", &body).await;
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(results[0]["error"]["line"], 4, "an empty line counts");
    assert_eq!(
        results[1],
        json!({ "summary": { "stored": 2, "duplicates": 1, "refused": 1 } })
    );
    hub.expect(&["1", "2"], "lines").await;
    let nothing = post(&hub, "?results=errors", "").await;
    assert_eq!(
        nothing,
        [json!({ "summary": { "stored": 0, "duplicates": 0, "refused": 0 } })]
    );
    let answer = hub.post("/publish", &[NDJSON], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    hub.unharmed("nothing").await;
    hub.stop().await;
}

#[tokio::test]
async fn what_is_refused_before_the_first_line() {
    let mut hub = Witness::start().await;
    let body = line("a", "x");
    for (path, header, status, kind) in [
        ("/publish", ("Idempotency-Key", "k"), 400, "header-invalid"),
        (
            "/publish",
            ("Content-Encoding", "gzip"),
            415,
            "media-type-unsupported",
        ),
        (
            "/publish?results=some",
            ("X-None", ""),
            400,
            "parameter-invalid",
        ),
        (
            "/publish?result=all",
            ("X-None", ""),
            400,
            "parameter-unknown",
        ),
    ] {
        let answer = hub.post(path, &[NDJSON, header], body.as_str()).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, kind),
            "{path}"
        );
    }
    hub.unharmed("refused").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_last_line_without_newline_counts_if_the_body_ended_properly() {
    let mut hub = Witness::start().await;
    let body = line("a", "1") + line("a", "2").trim_end();
    assert_eq!(post(&hub, "", &body).await.len(), 2);
    hub.expect(&["1", "2"], "a last line").await;
    let mut request = open(&hub, "").await;
    send(&mut request, &body).await;
    finish(&mut request).await;
    request.rest().await;
    assert_eq!(results(&request.text).len(), 2);
    hub.expect(&["1", "2"], "a last line").await;
    hub.unharmed("a last line").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_line_that_was_cut_off_is_not_published() {
    let mut hub = Witness::start().await;
    // A whole event, but for its newline: only a proper end would make it one.
    let cut = line("a", "1") + line("a", "cut off").trim_end();
    let mut chunked = open(&hub, "").await;
    send(&mut chunked, &cut).await;
    hub.expect(&["1"], "a whole line").await;
    chunked.tcp().shutdown().await.unwrap();
    chunked.rest().await;
    let answers = results(&chunked.text);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[1]["error"]["type"], "/problems/request-invalid");
    hub.unharmed("chunks cut off").await;

    let mut tcp = hub.connect().await;
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{cut}",
        cut.len() + 1
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    hub.expect(&["1"], "a whole line").await;
    // Gone without a word.
    socket2::SockRef::from(&tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(tcp);
    hub.unharmed("a reset in mid-line").await;

    let mut client = Client::connect(&hub).await;
    let (lines, answer) = client.post("/publish", &[NDJSON]).await;
    lines.send(Bytes::from(cut)).await.unwrap();
    hub.expect(&["1"], "a whole line").await;
    client.cut();
    drop((lines, answer));
    hub.unharmed("a cut HTTP/2 connection").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_pause_is_no_end() {
    let mut hub = Witness::with(|config| {
        config.server.body_timeout = Duration::from_millis(20);
        config.server.write_timeout = Duration::from_millis(20);
        config.server.head_timeout = Duration::from_millis(20);
    })
    .await;
    let mut request = open(&hub, "").await;
    send(&mut request, &line("a", "1")).await;
    request.until("\n").await;
    let mut byte = [0];
    let quiet = timeout(Duration::from_millis(200), request.tcp().read(&mut byte)).await;
    assert!(quiet.is_err(), "{quiet:?} after {}", request.text);
    send(&mut request, &line("a", "2")).await;
    finish(&mut request).await;
    request.rest().await;
    assert_eq!(results(&request.text).len(), 2);
    hub.expect(&["1", "2"], "a pause").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_client_may_send_everything_before_it_reads() {
    const LINES: usize = 200_000;
    // Far less than the results' lines: they are held compactly.
    let hub = TestServer::with(|config| config.publish.results_bytes_max = 64 << 10).await;
    let body: String = (0..LINES)
        .map(|i| format!("{{\"topic\":\"a\",\"data\":{i}}}\n"))
        .collect();
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut tcp = hub.connect().await;
    let sending = tcp.write_all((head + &body).as_bytes()).await;
    sending.expect("all is taken");
    wait_until("all is published", || {
        hub.server.hub().log().bounds().head == LINES as u64
    })
    .await;
    let mut raw = Vec::new();
    timeout(DEADLINE, tcp.read_to_end(&mut raw))
        .await
        .unwrap()
        .unwrap();
    let results = results(&Answer::parse(&raw).body);
    assert_eq!(results.len(), LINES);
    let epoch = hub.server.hub().log().bounds().epoch;
    for (position, result) in (1..).zip(results) {
        assert_eq!(result["id"], format!("{epoch:x}-{position}"));
    }
    hub.stop().await;
}

/// Sends lines whose refusals are long, and reads nothing, until the hub has had enough.
async fn never_read(tcp: &mut TcpStream) -> usize {
    let part = "x\n".repeat(1_000);
    let chunk = format!("{:x}\r\n{part}\r\n", part.len());
    let mut sent = 0;
    let send = async {
        while sent < 64 << 20 && tcp.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
    };
    timeout(2 * DEADLINE, send).await.expect("ended in time");
    sent
}

#[tokio::test]
async fn a_client_that_never_reads_its_results_is_ended() {
    let mut hub = Witness::with(|config| {
        config.publish.results_bytes_max = 64 << 10;
        config.server.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut request = open(&hub, "").await;
    let sent = never_read(request.tcp()).await;
    assert!(
        sent < 32 << 20,
        "{sent} bytes were taken before the hub stopped reading"
    );
    hub.unharmed("unread results").await;
    // What it finds when it reads at last does not look whole.
    let mut raw = Vec::new();
    let _ = timeout(DEADLINE, request.tcp().read_to_end(&mut raw))
        .await
        .unwrap();
    assert!(!raw.ends_with(b"\r\n0\r\n\r\n"));
    hub.stop().await;
}

#[tokio::test]
async fn nor_does_one_over_http2_stay() {
    let mut hub = Witness::with(|config| {
        config.publish.results_bytes_max = 64 << 10;
        config.server.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut client = Client::connect(&hub).await;
    let (lines, answer) = client.post("/publish", &[NDJSON]).await;
    let part = Bytes::from("x\n".repeat(1_000));
    let flood = async { while lines.send(part.clone()).await.is_ok() {} };
    timeout(DEADLINE, flood).await.expect("ended in time");
    let body = timeout(DEADLINE, answer.into_body().collect()).await;
    let body = body.expect("an end in time");
    assert!(
        body.is_err(),
        "what is left of the results does not look whole"
    );
    assert_eq!(client.get("/healthz").await.status(), 200);
    hub.unharmed("unread results").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_drain_answers_whole_lines_and_says_why_it_ends() {
    let hub = TestServer::start().await;
    let mut stream = hub.subscribe("/topics/a").await;
    let mut requests = Vec::new();
    for query in ["", "?results=all"] {
        let mut request = open(&hub, query).await;
        send(
            &mut request,
            &(line("a", "whole") + line("a", "half").trim_end()),
        )
        .await;
        request.until("\n").await;
        requests.push(request);
    }
    assert_eq!(stream.data(2).await, ["whole", "whole"]);
    hub.server.shutdown();
    for mut request in requests {
        request.rest().await;
        let results = results(&request.text);
        assert_eq!(results.len(), 2, "{results:?}");
        assert!(results[0]["id"].is_string());
        assert_eq!(results[1]["error"]["type"], "/problems/draining");
        assert_eq!(results[1]["error"]["status"], 503);
    }
    assert_eq!(stream.rest().await, [], "the half line is no event");
    hub.stop().await;
}
