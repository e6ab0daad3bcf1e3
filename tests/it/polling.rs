//! Pages of JSON: polling, and long polling.

use crate::support::{
    server::{Answer, TestServer, keep},
    stream::{DEADLINE, PATIENCE},
    wait::{in_time, wait_until},
};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

fn data(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap();
    let data = events
        .iter()
        .map(|event| event["data"].as_str().unwrap().to_owned());
    data.collect()
}

async fn page(hub: &TestServer, path: &str) -> Value {
    let answer = hub.get(path, &[("Accept", "application/json")]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// The URL that an answer's link leads to.
fn next(answer: &Answer, path: &str) -> String {
    let link = answer.header("link").unwrap();
    let query = link.strip_prefix("<?").unwrap();
    let query = query.strip_suffix(">; rel=\"next\"").unwrap();
    format!("{path}?{query}")
}

/// Until a request waits for events.
async fn until_waited_for(hub: &TestServer) {
    wait_until("a request waits", || hub.server.hub().feeds() > 0).await;
}

#[tokio::test]
async fn without_a_start_it_is_the_newest() {
    let hub = TestServer::start().await;
    let empty = page(&hub, "/topics/a").await;
    assert_eq!(data(&empty), [""; 0]);
    assert_eq!(empty["more"], false);
    assert!(empty["gap"].is_null());
    let mut ids = Vec::new();
    for n in 0..150 {
        ids.push(hub.publish("a", n.to_string()).await);
    }
    hub.publish("b", "not asked for").await;
    let newest = page(&hub, "/topics/a").await;
    let expected: Vec<_> = (50..150).map(|n: i32| n.to_string()).collect();
    assert_eq!(data(&newest), expected);
    assert_eq!(newest["events"][99]["id"], ids[149]);
    assert_eq!(newest["more"], false);
    let three = page(&hub, "/events?topic=a&topic=c/**&limit=3").await;
    assert_eq!(data(&three), ["147", "148", "149"]);
    let envelope = &three["events"][0];
    let names: Vec<_> = envelope.as_object().unwrap().keys().collect();
    assert_eq!(names, ["topic", "id", "own_id", "event", "time", "data"]);
}

#[tokio::test]
async fn pages_follow_each_other_from_cursor_to_cursor() {
    let hub = TestServer::durable().await;
    for n in 0..700 {
        hub.publish("a", n.to_string()).await;
    }
    for start in ["since=earliest", "tail=700", "since=1h"] {
        let (mut seen, mut url) = (
            Vec::new(),
            format!("/topics/a?format=json&limit=300&{start}"),
        );
        loop {
            let answer = hub.get(&url, &[]).await;
            let page = answer.json();
            seen.extend(data(&page));
            url = next(&answer, "/topics/a");
            assert!(url.contains(&format!("after={}", page["cursor"].as_str().unwrap())));
            assert!(!url.contains("since") && !url.contains("tail") && url.contains("limit=300"));
            if page["more"] == false {
                break;
            }
            assert_eq!(data(&page).len(), 300);
        }
        let expected: Vec<_> = (0..700).map(|n: i32| n.to_string()).collect();
        assert_eq!(seen, expected, "{start}");
        let end = hub.get(&url, &[]).await.json();
        assert_eq!((data(&end).len(), &end["more"]), (0, &Value::Bool(false)));
    }
}

#[tokio::test]
async fn all_names_of_a_start_mean_the_same() {
    let hub = TestServer::start().await;
    let first = hub.publish("a", "1").await;
    hub.publish("a", "2").await;
    for name in ["after", "last_event_id", "lastEventId"] {
        let page = page(&hub, &format!("/topics/a?{name}={first}")).await;
        assert_eq!(data(&page), ["2"], "{name}");
    }
    let json = ("Accept", "application/json");
    let with = [json, ("Last-Event-ID", &first)];
    assert_eq!(data(&hub.get("/topics/a", &with).await.json()), ["2"]);
    assert_eq!(data(&page(&hub, "/topics/a?tail=0").await), [""; 0]);
    let stream = hub.subscribe(&format!("/topics/a?after={first}")).await;
    let mut stream = stream;
    assert_eq!(stream.next().await.data, "2");
}

#[tokio::test]
async fn the_cursor_moves_on_for_quiet_topics_and_never_back() {
    let hub = TestServer::start().await;
    let mut cursor = hub.publish("quiet", "1").await;
    for n in 0..3 {
        let last = hub.publish("busy", n.to_string()).await;
        let page = page(&hub, &format!("/topics/quiet?after={cursor}")).await;
        assert_eq!(data(&page), [""; 0]);
        cursor = page["cursor"].as_str().unwrap().to_owned();
        assert_eq!(cursor, last);
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_on_the_next_page() {
    let hub = TestServer::durable().await;
    let mut cursor = page(&hub, "/topics/a").await["cursor"].clone();
    for n in 0..200 {
        hub.publish("a", n.to_string()).await;
        let page = page(
            &hub,
            &format!("/topics/a?after={}", cursor.as_str().unwrap()),
        )
        .await;
        assert_eq!(data(&page), [n.to_string()]);
        cursor = page["cursor"].clone();
    }
}

#[tokio::test]
async fn a_page_that_is_known_is_not_sent_again() {
    let hub = TestServer::start().await;
    hub.publish("a", "1").await;
    let json = ("Accept", "application/json");
    let first = hub.get("/topics/a", &[json]).await;
    let tag = first.header("etag").unwrap().to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    let last = hub.publish("elsewhere", "2").await;
    let known = hub.get("/topics/a", &[json, ("If-None-Match", &tag)]).await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    assert_eq!(known.header("etag"), Some(&*tag));
    assert_eq!(next(&known, "/topics/a"), format!("/topics/a?after={last}"));
    hub.publish("a", "3").await;
    let other = hub.get("/topics/a", &[json, ("If-None-Match", &tag)]).await;
    assert_eq!(data(&other.json()), ["1", "3"]);
    assert_ne!(other.header("etag"), Some(&*tag));
}

#[tokio::test]
async fn a_gap_stands_before_the_events_and_is_told_once() {
    let hub = TestServer::with(|config| {
        config.log.retention = vec![keep("**", 3)];
    })
    .await;
    let first = hub.publish("a", "0").await;
    for n in 1..10 {
        hub.publish("a", n.to_string()).await;
    }
    let page1 = page(&hub, &format!("/topics/a?after={first}")).await;
    assert_eq!(page1["gap"]["reason"], "expired");
    assert_eq!(page1["gap"]["requested"], first);
    assert_eq!(page1["gap"]["oldest"], page1["events"][0]["id"]);
    assert_eq!(data(&page1), ["7", "8", "9"]);
    let cursor = page1["cursor"].as_str().unwrap();
    let page2 = page(&hub, &format!("/topics/a?after={cursor}")).await;
    assert!(page2["gap"].is_null());
    let unknown = page(&hub, "/topics/a?after=nobody-knows").await;
    assert_eq!(unknown["gap"]["reason"], "unknown");
    assert_eq!(data(&unknown), ["7", "8", "9"]);
    let newest = page(&hub, "/topics/a?limit=2").await;
    assert!(newest["gap"].is_null());
}

/// A batch that retention cuts short while a reader waits for its first event, on a hub that holds no frames.
#[tokio::test]
async fn a_gap_that_ends_a_wait_comes_with_what_follows_and_is_told_once() {
    let hub = TestServer::with(|config| {
        config.log.retention = vec![keep("**", 3)];
        config.subscribe.cache_bytes_max = 0;
    })
    .await;
    let mut begun = hub.publish("a", "old").await;
    let mut gaps = 0;
    for round in 0..5 {
        let url = format!("/topics/a?format=json&wait=20&after={begun}");
        let waiting = hub.get(&url, &[]);
        let events =
            (0..2_000).map(|n| json!({"topic": "a", "data": format!("{n} {}", "x".repeat(900))}));
        let batch = Value::Array(events.collect()).to_string();
        let publishing = async {
            until_waited_for(&hub).await;
            let json = [("Content-Type", "application/json")];
            let answer = hub.post("/publish", &json, batch).await;
            assert_eq!(answer.status, 201, "{}", answer.body);
        };
        let (answer, ()) = tokio::join!(waiting, publishing);
        let page1 = answer.json();
        let cursor = page1["cursor"].as_str().unwrap().to_owned();
        if !page1["gap"].is_null() {
            gaps += 1;
            assert_eq!(page1["gap"]["requested"], begun, "round {round}");
            assert_eq!(data(&page1).len(), 3, "round {round}");
            let rest = page(&hub, &format!("/topics/a?after={cursor}")).await;
            assert!(rest["gap"].is_null() && data(&rest).is_empty(), "{rest}");
        }
        begun = page(&hub, "/topics/a?limit=1").await["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    assert!(gaps > 0, "no round had a gap");
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let hub = TestServer::start().await;
    for n in 0..8 {
        hub.publish("a", format!("{n}{}", "x".repeat(999_000)))
            .await;
    }
    let answer = hub.get("/topics/a?format=json&since=earliest", &[]).await;
    assert!(answer.body.len() <= 4 << 20, "{}", answer.body.len());
    let page1 = answer.json();
    assert_eq!(
        (data(&page1).len(), &page1["more"]),
        (4, &Value::Bool(true))
    );
    let rest = hub.get(&next(&answer, "/topics/a"), &[]).await.json();
    assert_eq!(data(&rest).len(), 4);
    assert!(data(&rest)[0].starts_with('4'));
}

#[tokio::test]
async fn who_waits_is_answered_by_the_first_event() {
    let hub = TestServer::start().await;
    let begun = hub.publish("a", "old").await;
    let url = format!("/topics/a?format=json&wait=30&after={begun}");
    let waiting = hub.get(&url, &[]);
    let publishing = async {
        until_waited_for(&hub).await;
        hub.publish("a", "new").await
    };
    let began = Instant::now();
    let (answer, id) = tokio::join!(waiting, publishing);
    assert!(began.elapsed() < Duration::from_secs(10));
    let answer = answer.json();
    assert_eq!(data(&answer), ["new"]);
    assert_eq!(answer["cursor"], id);
    // What is there is not waited for.
    let there = timeout(DEADLINE, hub.get(&url, &[])).await.unwrap();
    assert_eq!(data(&there.json()), ["new"]);
}

#[tokio::test]
async fn who_waits_in_vain_gets_an_empty_page_at_the_end() {
    let hub = TestServer::start().await;
    let begun = hub.publish("a", "old").await;
    let url = format!("/topics/a?format=json&after={begun}");
    let waiting = hub.get(&url, &[("Prefer", "respond-async, wait=1")]);
    let publishing = async {
        until_waited_for(&hub).await;
        hub.publish("elsewhere", "new").await
    };
    let (answer, last) = tokio::join!(waiting, publishing);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
    let answer = answer.json();
    assert_eq!(
        (data(&answer).len(), &answer["cursor"]),
        (0, &Value::from(last))
    );
}

#[tokio::test]
async fn who_waits_is_answered_when_the_hub_goes_down() {
    let hub = TestServer::start().await;
    let begun = hub.publish("a", "old").await;
    let url = format!("/topics/a?format=json&wait=60&after={begun}");
    let stopping = async {
        until_waited_for(&hub).await;
        hub.server.shutdown();
    };
    let (answer, ()) = tokio::join!(timeout(DEADLINE, hub.get(&url, &[])), stopping);
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["cursor"], begun);
}

#[tokio::test]
async fn a_connection_serves_further_requests_after_a_wait() {
    let hub = TestServer::start().await;
    let begun = hub.publish("a", "old").await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", hub.address);
    let wait = request(&format!("/topics/a?format=json&wait=30&after={begun}"));
    let mut tcp = hub.connect().await;
    // The second one comes while the first waits, the third is cut in two.
    let health = request("/healthz");
    let (half, rest) = health.split_at(10);
    let sent = format!("{wait}{wait}{half}");
    tcp.write_all(sent.as_bytes()).await.unwrap();
    until_waited_for(&hub).await;
    hub.publish("a", "new").await;
    let mut read = String::new();
    until(&mut tcp, &mut read, "null}\n", 2).await;
    tcp.write_all(rest.as_bytes()).await.unwrap();
    until(&mut tcp, &mut read, "ok\n", 1).await;
    assert_eq!(read.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{read}");
    assert_eq!(read.matches("\"data\":\"new\"").count(), 2, "{read}");
    assert_eq!(
        read.matches("vary: accept, origin\r\n").count(),
        3,
        "{read}"
    );
}

/// Reads until the text is there so many times.
async fn until(tcp: &mut TcpStream, read: &mut String, text: &str, times: usize) {
    in_time(PATIENCE, format!("{times} times {text:?}"), async {
        while read.matches(text).count() < times {
            let mut part = [0; 4_096];
            let count = tcp.read(&mut part).await.unwrap();
            assert!(count > 0, "closed after {read}");
            read.push_str(std::str::from_utf8(&part[..count]).unwrap());
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_and_leaves_is_forgotten() {
    let hub = TestServer::start().await;
    let begun = hub.publish("a", "old").await;
    let mut tcp = hub.connect().await;
    let wait = format!(
        "GET /topics/a?format=json&wait=60&after={begun} HTTP/1.1\r\nHost: {}\r\n\r\n",
        hub.address
    );
    tcp.write_all(wait.as_bytes()).await.unwrap();
    until_waited_for(&hub).await;
    drop(tcp);
    wait_until("nobody waits", || hub.server.hub().streams() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_of_long_polls_misses_nothing() {
    const EVENTS: usize = 3_000;
    let hub = TestServer::durable().await;
    let all_there = AtomicBool::new(false);
    let publish = async {
        let (mut done, mut batch) = (0, Vec::new());
        while done < EVENTS {
            batch.clear();
            for n in done..(done + 1 + done % 7).min(EVENTS) {
                batch.push(json!({"topic": "a", "data": n.to_string()}));
            }
            let json = [("Content-Type", "application/json")];
            let body = serde_json::to_vec(&batch).unwrap();
            assert_eq!(hub.post("/publish", &json, body).await.status, 201);
            done += batch.len();
        }
        all_there.store(true, Ordering::Relaxed);
    };
    let read = |limit: usize| {
        let (hub, all_there) = (&hub, &all_there);
        async move {
            let (mut seen, mut url) = (
                Vec::new(),
                format!("/topics/a?format=json&wait=20&limit={limit}&since=earliest"),
            );
            while seen.len() < EVENTS {
                let more_is_there = all_there.load(Ordering::Relaxed);
                let answer = hub.get(&url, &[]).await;
                let page = answer.json();
                assert!(page["gap"].is_null());
                let got = data(&page);
                assert!(
                    !(got.is_empty() && more_is_there),
                    "nothing after {}",
                    seen.len()
                );
                seen.extend(got);
                url = next(&answer, "/topics/a");
            }
            seen
        }
    };
    let all = async { tokio::join!(publish, read(3), read(1_000)) };
    let ((), few, many) = in_time(4 * PATIENCE, "all events", all).await;
    let expected: Vec<_> = (0..EVENTS).map(|n| n.to_string()).collect();
    assert!(few == expected && many == expected);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told() {
    let hub = TestServer::start().await;
    for (query, slug) in [
        ("limit=0", "parameter-invalid"),
        ("limit=1001", "parameter-invalid"),
        ("limit=x", "parameter-invalid"),
        ("wait=61", "parameter-invalid"),
        ("wait=-1", "parameter-invalid"),
        ("wait=1.5", "parameter-invalid"),
        ("since=never", "parameter-invalid"),
        ("tail=1&since=1h", "parameter-invalid"),
        ("lag=gap", "parameter-unknown"),
        ("heartbeat=5s", "parameter-unknown"),
        ("frame=data", "parameter-unknown"),
        ("after=a&after=b", "parameter-invalid"),
    ] {
        let answer = hub
            .get(&format!("/topics/a?format=json&{query}"), &[])
            .await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(
            answer.json()["type"],
            format!("/problems/{slug}"),
            "{query}"
        );
    }
    for (path, status) in [
        ("/topics/a?format=xml", 400),
        ("/topics/a?wait=3", 400),
        ("/topics/a?format=ndjson&limit=3", 400),
        ("/topics/a?format=html&wait=3", 400),
    ] {
        assert_eq!(hub.get(path, &[]).await.status, status, "{path}");
    }
    let refused = hub.get("/topics/a", &[("Accept", "image/png")]).await;
    assert_eq!(refused.status, 406);
    let vary = refused.header("vary").unwrap().to_ascii_lowercase();
    assert!(vary.contains("accept") && vary.contains("origin"), "{vary}");
}

#[tokio::test]
async fn the_head_alone_can_be_asked_for() {
    let hub = TestServer::start().await;
    hub.publish("a", "1").await;
    let head = hub.ask(
        "HEAD",
        "/topics/a?format=json&wait=30&tail=0",
        &[],
        Vec::new(),
    );
    let head = timeout(DEADLINE, head).await.unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.header("etag").is_some() && head.header("link").is_some());
}
