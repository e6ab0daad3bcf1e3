//! Socket.IO with the real clients: what they may ask for, and what they get over whatever happens.

mod begin;
mod clients;
mod order;
mod packets;
mod raw;
mod resume;

use crate::support::server::TestServer;
use clients::{Clients, KINDS, Kind, POLLING, UPGRADE, WEBSOCKET};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_subscribes_publishes_and_unsubscribes() {
    let (hub, mut clients) = (TestServer::start().await, Clients::node().await);
    for (n, kind) in KINDS.into_iter().enumerate() {
        let (name, topic) = (&format!("client {n}"), format!("topic/{n}"));
        clients.connect(name, &hub.url(""), kind, None).await;
        let ok = clients.ok(name, json!(["subscribe", topic])).await;
        assert_eq!(ok["sub"], "1");
        assert!(ok["cursor"].is_string());
        let ok = clients
            .ok(
                name,
                json!(["subscribe", [topic, "other/**"], {"sub": "mine"}]),
            )
            .await;
        assert_eq!(ok["sub"], "mine");

        let event = json!({"topic": topic, "data": {"n": 1.0}, "event": "named", "own_id": format!("own-{n}")});
        let call = clients.send(name, &json!(["publish", event]));
        // They come in any order.
        let (mut published, mut envelopes, mut subs) = (None, Vec::new(), Vec::new());
        while published.is_none() || envelopes.len() < 2 {
            let line = clients.next(name).await;
            if line["call"] == call {
                published = Some(line["answer"]["ok"].clone());
            } else if line["event"].is_object() {
                envelopes.push(line["event"].clone());
                subs.push(line["sub"].as_str().unwrap().to_owned());
            }
        }
        let published = published.unwrap();
        assert_eq!(
            (&published["topic"], &published["duplicate"]),
            (&json!(topic), &json!(false))
        );
        for envelope in envelopes {
            assert_eq!(envelope["id"], published["id"]);
            assert_eq!(envelope["topic"], topic);
            assert_eq!(
                envelope["data"], r#"{"n":1}"#,
                "a client of JavaScript has one kind of number"
            );
            assert_eq!(envelope["event"], "named");
            assert_eq!(envelope["own_id"], format!("own-{n}"));
            assert!(envelope["time"].is_string());
        }
        subs.sort();
        assert_eq!(subs, ["1", "mine"]);

        let ok = clients.ok(name, json!(["unsubscribe", "1"])).await;
        assert_eq!((&ok["sub"], &ok["cursor"]), (&json!("1"), &published["id"]));
        hub.publish(&topic, "after").await;
        assert_eq!(clients.event(name).await, ("after".into(), "mine".into()));
        // The name is free again.
        let ok = clients
            .ok(name, json!(["subscribe", topic, {"sub": "1", "tail": 1}]))
            .await;
        assert_eq!(ok["sub"], "1");
        assert_eq!(clients.event(name).await, ("after".into(), "1".into()));
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_start_and_its_gap() {
    let hub = TestServer::start().await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(hub.publish("a", n.to_string()).await);
    }
    let mut clients = Clients::node().await;
    clients.connect("c", &hub.url(""), UPGRADE, None).await;
    for (options, from) in [
        (json!({"since": "earliest"}), 1),
        (json!({"tail": 2}), 4),
        (json!({"last_event_id": ids[2]}), 4),
        (json!({"lastEventId": ids[3], "lag": "latest"}), 5),
    ] {
        let sub = clients.ok("c", json!(["subscribe", "a", options])).await["sub"].clone();
        for n in from..=5 {
            let line = clients.find("c", "event").await;
            assert_eq!(
                (line["event"]["data"].as_str(), &line["sub"]),
                (Some(n.to_string().as_str()), &sub)
            );
        }
        clients.ok("c", json!(["unsubscribe", sub])).await;
    }
    let options = json!({"last_event_id": "unheard of", "sub": "g"});
    let call = clients.send("c", &json!(["subscribe", "a", options]));
    let line = clients.find("c", "gap").await;
    assert_eq!(line["sub"], "g");
    assert_eq!(
        line["gap"],
        json!({"reason": "unknown", "requested": "unheard of", "oldest": ids[0], "missed": null})
    );
    assert_eq!(clients.answer("c", call).await["ok"]["sub"], "g");
    assert_eq!(clients.event("c").await, ("1".into(), "g".into()));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_is_answered_with_one_object() {
    let hub = TestServer::with(|config| {
        config.subscribe.filters_max = 3;
        config.publish.event_bytes_max = 1_000;
    })
    .await;
    let mut clients = Clients::node().await;
    for (name, kind) in [("four", UPGRADE), ("two", KINDS[5])] {
        clients.connect(name, &hub.url(""), kind, None).await;
        clients
            .ok(name, json!(["subscribe", "a", {"sub": "used"}]))
            .await;
        let asked: Vec<(Value, &str)> = vec![
            (json!(["subscribe"]), "filter-invalid"),
            (json!(["subscribe", null]), "filter-invalid"),
            (json!(["subscribe", []]), "filter-invalid"),
            (json!(["subscribe", "a//../b"]), "filter-invalid"),
            (json!(["subscribe", 5]), "parameter-invalid"),
            (json!(["subscribe", {"a": 1}]), "parameter-invalid"),
            (json!(["subscribe", ["a", 1]]), "parameter-invalid"),
            (json!(["subscribe", "a", "x"]), "parameter-invalid"),
            (json!(["subscribe", "a", {"tail": -1}]), "parameter-invalid"),
            (
                json!(["subscribe", "a", {"tail": "x"}]),
                "parameter-invalid",
            ),
            (
                json!(["subscribe", "a", {"tail": true}]),
                "parameter-invalid",
            ),
            (
                json!(["subscribe", "a", {"tail": 1, "since": "1h"}]),
                "parameter-invalid",
            ),
            (
                json!(["subscribe", "a", {"since": "yesterday"}]),
                "parameter-invalid",
            ),
            (
                json!(["subscribe", "a", {"lag": "never"}]),
                "parameter-invalid",
            ),
            (json!(["subscribe", "a", {"sub": ""}]), "parameter-invalid"),
            (
                json!(["subscribe", "a", {"sub": "x".repeat(129)}]),
                "parameter-invalid",
            ),
            (
                json!(["subscribe", "a", {"sub": "used"}]),
                "parameter-invalid",
            ),
            (
                json!(["subscribe", "a", {"last_event": "x"}]),
                "parameter-unknown",
            ),
            (json!(["subscribe", "a", {}, 1]), "parameter-invalid"),
            (json!(["subscribe", ["b", "c", "d", "e"]]), "filter-invalid"),
            (json!(["subscribe", ["b", "c", "d"]]), "filter-invalid"),
            (json!(["unsubscribe"]), "parameter-invalid"),
            (json!(["unsubscribe", 1]), "parameter-invalid"),
            (json!(["unsubscribe", "none"]), "not-found"),
            (json!(["publish"]), "parameter-invalid"),
            (json!(["publish", null]), "event-invalid"),
            (json!(["publish", "x"]), "event-invalid"),
            (
                json!(["publish", [{"topic": "a", "data": 1}]]),
                "event-invalid",
            ),
            (json!(["publish", {"topic": "a"}]), "event-invalid"),
            (
                json!(["publish", {"topic": "*", "data": 1}]),
                "event-invalid",
            ),
            (
                json!(["publish", {"topic": "a", "data": 1, "dat": 2}]),
                "event-invalid",
            ),
            (
                json!(["publish", {"topic": "a", "data": null}]),
                "event-invalid",
            ),
            (
                json!(["publish", {"topic": "a", "data": "x".repeat(1_001)}]),
                "too-large",
            ),
            (json!(["greet", "you"]), "not-found"),
        ];
        for (args, kind) in asked {
            let (error, problem) = clients.error(name, args.clone()).await;
            assert_eq!(error, kind, "{args}: {problem}");
            assert!(
                problem["status"].is_u64() && problem["detail"].is_string(),
                "{problem}"
            );
        }
        // The words are those of POST /publish and GET /events.
        let (_, problem) = clients
            .error(name, json!(["publish", {"topic": "a", "dat": 2}]))
            .await;
        let json = [("Content-Type", "application/json")];
        let posted = hub
            .post("/publish", &json, r#"{"topic":"a","dat":2}"#)
            .await
            .json();
        assert_eq!(
            problem["detail"].as_str().unwrap().split(" at line").next(),
            posted["detail"].as_str().unwrap().split(" at line").next()
        );
        let (_, problem) = clients
            .error(name, json!(["subscribe", "a", {"tai": 2}]))
            .await;
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("did you mean `tail`?"),
            "{problem}"
        );
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_wait_for_answers_gets_them_all() {
    const COUNT: u32 = 2_000;
    for (few, kind) in [false, true]
        .into_iter()
        .flat_map(|few| KINDS.map(|kind| (few, kind)))
    {
        let hub = TestServer::with(|config| {
            if few {
                config.publish.batch_bytes_max = 64 << 10;
            }
        })
        .await;
        let mut clients = Clients::node().await;
        clients.connect("c", &hub.url(""), kind, None).await;
        clients.ok("c", json!(["subscribe", "a"])).await;
        for n in 0..COUNT {
            clients.send("c", &json!(["publish", {"topic": "a", "data": n}]));
        }
        let (mut stored, mut refused, mut events) = (0, 0, 0);
        let all = |line: Value| {
            match &line["answer"] {
                answer if answer["ok"].is_object() => stored += 1,
                answer if answer["error"]["status"] == 429 => refused += 1,
                _ => {
                    assert!(line["event"].is_object(), "{kind:?}: {line}");
                    events += 1;
                }
            }
            (stored + refused == COUNT && events >= stored).then_some(())
        };
        clients.first("c", "all answers and events", all).await;
        assert!(
            stored > 0 && (few || refused == 0),
            "{kind:?}: {refused} refused"
        );
        hub.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_listens_says_so_when_it_connects() {
    let (hub, mut clients) = (TestServer::start().await, Clients::node().await);
    for (n, kind) in KINDS.into_iter().enumerate() {
        let (name, topic) = (&format!("client {n}"), format!("topic/{n}"));
        let first = hub.publish(&topic, "first").await;
        hub.publish(&topic, "second").await;
        let listen = json!({"topics": [topic, "other/*"], "last_event_id": first});
        clients.begin(name, &hub.url(""), kind, Some(listen));
        let line = clients.find(name, "event").await;
        assert_eq!(
            (&line["event"]["data"], &line["sub"]),
            (&json!("second"), &json!("auth"))
        );
        hub.publish(&format!("other/{n}"), "third").await;
        assert_eq!(clients.find(name, "event").await["event"]["data"], "third");
        let (error, _) = clients
            .error(name, json!(["subscribe", "a", {"sub": "auth"}]))
            .await;
        assert_eq!(error, "parameter-invalid");
        clients.tell(&json!({"disconnect": name}));
    }
    for (n, kind) in [WEBSOCKET, POLLING, KINDS[4]].into_iter().enumerate() {
        for (m, (listen, slug)) in [
            (json!({"topics": ["a/**/b"]}), "filter-invalid"),
            (
                json!({"topics": ["a"], "since": "yesterday"}),
                "parameter-invalid",
            ),
            (json!({"topics": ["a"], "token": "x"}), "parameter-unknown"),
            (json!({"topic": "a"}), "parameter-unknown"),
        ]
        .into_iter()
        .enumerate()
        {
            let name = &format!("refused {n} {m}");
            clients.begin(name, &hub.url(""), kind, Some(listen.clone()));
            let line = clients.find(name, "failed").await;
            let text = line["failed"].as_str().unwrap_or_default();
            assert!(
                text.starts_with(&format!("{slug}: ")),
                "{kind:?} {listen}: {line}"
            );
        }
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_told_of_a_drain_and_hold_up_nothing() {
    for kinds in [&KINDS[..1], &KINDS] {
        let hub =
            TestServer::with(|config| config.server.drain_timeout = Duration::from_secs(60)).await;
        let mut clients = Clients::node().await;
        let name = |n: usize| format!("client {n}");
        for (n, kind) in kinds.iter().enumerate() {
            clients.connect(&name(n), &hub.url(""), *kind, None).await;
            if n != 1 {
                clients.ok(&name(n), json!(["subscribe", "a"])).await;
            }
        }
        let begun = Instant::now();
        hub.stop().await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        for (n, kind) in kinds.iter().enumerate() {
            let line = clients.find(&name(n), "closed").await;
            assert_eq!(line["closed"]["reason"], "draining");
            let retry = line["closed"]["retry"].as_u64().unwrap();
            assert!((1_000..=10_000).contains(&retry), "{line}");
            assert_eq!(line["sub"], if n == 1 { json!(null) } else { json!("1") });
            let lost = clients.find(&name(n), "lost").await["lost"].clone();
            assert_ne!(lost, "io server disconnect", "{kind:?} would not come back");
            clients.find(&name(n), "failed").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_listens_publishes_and_comes_back() {
    for transport in ["polling", "websocket"] {
        let data = tempfile::tempdir().unwrap();
        let hub = TestServer::on(data.path(), |_| {}).await;
        let address = hub.address;
        let mut python = Clients::python(&hub.url(""), transport, &["a", "b/*"]).await;
        assert_eq!(python.connected("").await, transport);
        python.line("one");
        let answer = python.find("", "answer").await;
        assert!(answer["answer"]["ok"]["id"].is_string(), "{answer}");
        hub.publish("b/c", "two").await;
        // The event and the answer may come in any order, so the first event was perhaps passed over.
        assert_eq!(python.until("", "two").await.last().unwrap(), "two");
        hub.stop().await;
        let hub = TestServer::again(data.path(), address).await;
        hub.publish("b/d", "three").await;
        let line = python.find("", "event").await;
        assert_eq!(line["event"]["data"], "three");
        drop(python);
        hub.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_uses_it_from_a_welcome_page_and_not_from_another() {
    let hub = TestServer::start().await;
    let mut watcher = hub.subscribe("/events?topic=**").await;
    let mut chromium = Clients::chromium("dashboard.localhost").await;
    for (name, kind) in [("p", POLLING), ("w", WEBSOCKET), ("u", UPGRADE)] {
        let listen = json!({"topics": [name]});
        chromium
            .connect(name, &hub.url(""), kind, Some(listen))
            .await;
        let event = json!(["publish", {"topic": name, "data": "hello"}]);
        chromium.send(name, &event);
        assert_eq!(chromium.until(name, "hello").await, ["hello"]);
        assert_eq!(watcher.next().await.data, "hello");
    }
    drop(chromium);

    let mut evil = Clients::chromium("evil.example").await;
    for (name, kind) in [("p", POLLING), ("w", WEBSOCKET), ("u", UPGRADE)] {
        evil.begin(name, &hub.url(""), kind, Some(json!({"topics": ["a"]})));
        let line = evil.next(name).await;
        assert!(line["failed"].is_string(), "{line}");
        evil.tell(&json!({"disconnect": name}));
    }
    // A page need not see the answer to do harm, and such a POST has no preflight.
    let session = hub.get("/socket.io/?EIO=4&transport=polling", &[]).await;
    let sid = session.body[1..].parse::<Value>().unwrap()["sid"]
        .as_str()
        .unwrap()
        .to_owned();
    let url = hub.url(&format!("/socket.io/?EIO=4&transport=polling&sid={sid}"));
    for mode in ["cors", "no-cors"] {
        let publish = r#"42["publish",{"topic":"a","data":"evil"}]"#;
        let options = json!({"method": "POST", "mode": mode, "headers": {"Content-Type": "text/plain"}, "body": format!("40\u{1e}{publish}")});
        evil.tell(&json!({"fetch": mode, "url": url, "options": options}));
        assert_eq!(evil.find(mode, "status").await["status"], 0);
    }
    hub.publish("a", "good").await;
    assert_eq!(watcher.next().await.data, "good");
    hub.stop().await;
}

/// Publishes numbers without a pause, so many.
async fn publish_numbers(hub: &TestServer, topic: &str, numbers: std::ops::RangeInclusive<u32>) {
    let events: Vec<Value> = numbers
        .map(|n| json!({"topic": topic, "data": n.to_string()}))
        .collect();
    let json = [("Content-Type", "application/json")];
    let answer = hub
        .post("/publish", &json, Value::from(events).to_string())
        .await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn numbers(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_all_of_a_long_replay_and_all_that_comes_meanwhile() {
    let (hub, mut clients) = (TestServer::start().await, Clients::node().await);
    publish_numbers(&hub, "a", 1..=3_000).await;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let listen = json!({"topics": ["a"], "since": "earliest"});
        clients.begin(&n.to_string(), &hub.url(""), kind, Some(listen));
    }
    publish_numbers(&hub, "a", 3_001..=6_000).await;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let all = clients.until(&n.to_string(), "6000").await;
        assert_eq!(all, numbers(1..=6_000), "{kind:?}");
    }
    hub.stop().await;
}

fn slow() -> [Kind; 2] {
    [WEBSOCKET, KINDS[4]]
}
