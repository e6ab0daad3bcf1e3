//! Streams of lines of JSON.

use crate::support::{
    process,
    server::{TestServer, keep},
    stream::{DEADLINE, PATIENCE, Stream},
    wait::{in_time, wait_until},
};
use serde_json::Value;
use std::{
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::timeout;

async fn open(hub: &TestServer, path: &str) -> Lines {
    let path = format!(
        "{path}{}format=ndjson",
        if path.contains('?') { '&' } else { '?' }
    );
    let stream = hub.subscribe(&path).await;
    assert_eq!(stream.status(), 200);
    let head = stream.head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/x-ndjson\r\n"),
        "{head}"
    );
    assert!(head.contains("x-accel-buffering: no\r\n"), "{head}");
    Lines { stream, read_to: 0 }
}

struct Lines {
    stream: Stream,
    read_to: usize,
}

impl Lines {
    /// The next line, empty or not; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        loop {
            let rest = &self.stream.text[self.read_to..];
            if let Some(end) = rest.find('\n') {
                let line = rest[..end].to_owned();
                self.read_to += end + 1;
                return Some(line);
            }
            if !self.stream.more().await {
                return None;
            }
        }
    }

    /// The next line that is not empty.
    async fn next(&mut self) -> Value {
        let next = async {
            loop {
                let line = self.line().await.expect("a line");
                if !line.is_empty() {
                    return serde_json::from_str(&line).unwrap();
                }
            }
        };
        in_time(PATIENCE, "a line that is not empty", next).await
    }
}

#[tokio::test]
async fn each_event_is_a_line_with_its_envelope() {
    let hub = TestServer::start().await;
    let mut lines = open(&hub, "/events?topic=a&topic=b/*").await;
    assert_eq!(lines.line().await.unwrap(), "", "it is open");
    let body = r#"{"topic":"b/1","data":"two\nlines \u0000 \"","event":"named","own_id":"mine"}"#;
    let json = [("Content-Type", "application/json")];
    let published = hub.post("/publish", &json, body).await.json();
    let line = lines.next().await;
    assert_eq!(line["id"], published["id"]);
    assert_eq!(line["topic"], "b/1");
    assert_eq!(line["data"], "two\nlines \u{0} \"");
    assert_eq!(
        (&line["event"], &line["own_id"]),
        (&"named".into(), &"mine".into())
    );
    hub.publish("a", "").await;
    assert_eq!(lines.next().await["data"], "");
}

/// Some clients cut what they read at any character that ends a line in Unicode.
#[tokio::test]
async fn a_line_has_no_end_of_a_line_in_it() {
    const ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    let hub = TestServer::start().await;
    let (data, topic) = ("a\u{2028}b\u{2029}c\u{85}d", "t\u{2028}\u{2029}");
    let event = serde_json::json!({"topic": topic, "data": data, "event": "n\u{2028}"});
    let wrong = r#"{"topic":"a","data":"x","\u{2028}":1}"#.replace("\\u{2028}", "\u{2028}");
    let json = [("Content-Type", "application/x-ndjson")];
    let published = hub.post("/publish", &json, format!("{event}\n{wrong}\n"));
    let results = published.await.body;
    assert!(!results.contains(ENDS), "{results:?}");
    let results: Vec<Value> = results
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results[0]["topic"], topic);
    let detail = results[1]["error"]["detail"].as_str().unwrap();
    assert!(detail.contains('\u{2028}'), "{detail:?}");

    let path = "/events?topic=**&last_event_id=none%E2%80%A9";
    let mut lines = open(&hub, path).await;
    let mut read = String::new();
    while !read.contains("\"data\"") {
        read += &lines.line().await.unwrap();
        read.push('\n');
    }
    assert!(!read.contains(ENDS), "{read:?}");
    let read: Vec<Value> = read
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read[0]["gap"]["requested"], "none\u{2029}");
    assert_eq!(
        (&read[1]["topic"], &read[1]["data"]),
        (&topic.into(), &data.into())
    );
    let mut stream = hub.subscribe(&format!("{path}&frame=message")).await;
    assert!(!stream.next().await.data.contains(ENDS));
    let envelope = stream.next().await.data;
    assert!(!envelope.contains(ENDS), "{envelope:?}");
    let envelope: Value = serde_json::from_str(&envelope).unwrap();
    assert_eq!(envelope["data"], data);
}

#[tokio::test]
async fn it_starts_where_the_other_forms_do() {
    let hub = TestServer::start().await;
    let first = hub.publish("a", "1").await;
    hub.publish("a", "2").await;
    for start in [format!("last_event_id={first}"), "tail=1".to_owned()] {
        let mut lines = open(&hub, &format!("/topics/a?{start}")).await;
        assert_eq!(lines.next().await["data"], "2", "{start}");
    }
    let mut lines = open(
        &hub,
        &format!("/topics/a?open=1&heartbeat=1s&after={first}"),
    )
    .await;
    assert_eq!(lines.next().await["open"]["cursor"], first);
    assert_eq!(lines.next().await["data"], "2");
    assert!(lines.next().await["heartbeat"]["time"].is_string());
}

#[tokio::test]
async fn an_empty_line_ends_a_silence() {
    let hub =
        TestServer::with(|config| config.subscribe.keepalive = Duration::from_millis(50)).await;
    let mut lines = open(&hub, "/topics/a").await;
    for _ in 0..4 {
        assert_eq!(lines.line().await.unwrap(), "");
    }
    hub.publish("a", "1").await;
    assert_eq!(lines.next().await["data"], "1");
}

#[tokio::test]
async fn what_is_missing_and_why_it_ends_are_told() {
    let hub = TestServer::with(|config| {
        config.log.retention = vec![keep("**", 2)];
    })
    .await;
    let first = hub.publish("a", "0").await;
    for n in 1..5 {
        hub.publish("a", n.to_string()).await;
    }
    let mut lines = open(&hub, &format!("/topics/a?last_event_id={first}")).await;
    let gap = lines.next().await;
    assert_eq!(gap["gap"]["reason"], "expired");
    assert_eq!(gap["gap"]["requested"], first);
    assert_eq!(lines.next().await["data"], "3");
    assert_eq!(lines.next().await["data"], "4");
    hub.server.shutdown();
    let close = lines.next().await;
    assert_eq!(close["close"]["reason"], "draining");
    assert!((1_000..=10_000).contains(&close["close"]["retry"].as_u64().unwrap()));
    assert_eq!(lines.line().await, None);
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_costs_nothing() {
    const EVENTS: usize = 400;
    let hub = TestServer::start().await;
    let mut slow = open(&hub, "/topics/a").await;
    wait_until("it listens", || hub.server.hub().feeds() == 1).await;
    for n in 0..EVENTS {
        let publish = hub.publish("a", format!("{n} {}", "x".repeat(20_000)));
        timeout(DEADLINE, publish)
            .await
            .expect("nobody waits for it");
    }
    for n in 0..EVENTS {
        let line = slow.next().await;
        let data = line["data"].as_str().unwrap();
        assert!(data.starts_with(&format!("{n} ")), "{}", &data[..10]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_prints_each_line_as_it_happens() {
    let hub = TestServer::start().await;
    let mut curl = Command::new("curl")
        .args(["-sN", "--noproxy", "*"])
        .args(["-H", "Accept: application/x-ndjson"])
        .arg(hub.url("/topics/a"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = process::lines(curl.stdout.take().unwrap());
    assert_eq!(lines.recv_timeout(DEADLINE).unwrap(), "");
    for n in 0..3 {
        hub.publish("a", format!("{{\"n\":{n}}}")).await;
        let line: Value = serde_json::from_str(&lines.recv_timeout(DEADLINE).unwrap()).unwrap();
        let data: Value = serde_json::from_str(line["data"].as_str().unwrap()).unwrap();
        assert_eq!(data["n"], n);
    }
    process::kill(&mut curl);
}
