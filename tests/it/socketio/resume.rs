//! Slow clients, and clients that come back: nothing is lost without a word, and nothing comes twice.

use super::{Clients, KINDS, TestServer, numbers, publish_numbers, slow};
use crate::support::{hub::HubProcess, server::keep};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_gets_the_rest_once_while_publishing_goes_on() {
    let mut hub = HubProcess::start("");
    let mut clients = Clients::node().await;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let listen = json!({"topics": ["numbers"], "since": "earliest"});
        clients
            .connect(&n.to_string(), &hub.origin(), kind, Some(listen))
            .await;
    }
    let mut next = 1;
    for round in 0..4 {
        for _ in 0..5 {
            hub.publish_numbers("numbers", next..=next + 49).await;
            next += 50;
        }
        match round {
            0 | 2 => hub.kill(),
            1 => hub.terminate(),
            _ => break,
        }
        // Published where nobody listens, so that it is there when they come back.
        hub.start_elsewhere();
        hub.publish_numbers("numbers", next..=next + 9).await;
        next += 10;
        hub.terminate();
        hub.start_again();
    }
    let last = next - 1;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let (mut all, end) = (Vec::new(), last.to_string());
        let until = |line: Value| {
            assert!(line.get("gap").is_none(), "{kind:?}: {line}");
            all.extend(line["event"]["data"].as_str().map(str::to_owned));
            (all.last() == Some(&end)).then_some(())
        };
        clients.first(&n.to_string(), &end, until).await;
        assert_eq!(all, numbers(1..=last), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_for_a_while_gets_all_afterwards() {
    let (hub, mut clients) = (TestServer::start().await, Clients::node().await);
    for kind in slow() {
        let (name, topic) = (&format!("{}", kind.version), format!("v{}", kind.version));
        let listen = json!({"topics": [topic, "small"]});
        clients
            .connect(name, &hub.url(""), kind, Some(listen))
            .await;
        hub.publish("small", "first").await;
        assert_eq!(clients.event(name).await.0, "first");
        clients.tell(&json!({"pause": name}));
        // More than all buffers on the way take.
        for _ in 0..40 {
            hub.publish(&topic, "x".repeat(900_000)).await;
        }
        publish_numbers(&hub, &topic, 1..=500).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await; // longer than events are held for it
        clients.tell(&json!({"resume": name}));
        let all = clients.until(name, "500").await;
        assert_eq!(
            all[..40].iter().map(String::len).collect::<Vec<_>>(),
            [900_000; 40]
        );
        assert_eq!(all[40..], numbers(1..=500));
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_takes_from_a_slow_client_is_told_under_its_policy() {
    for lag in ["gap", "disconnect", "latest"] {
        let hub = TestServer::with(|config| {
            config.log.retention = vec![keep("**", 10)];
        })
        .await;
        let mut clients = Clients::node().await;
        let listen = json!({"topics": ["a"], "lag": lag});
        let kind = super::WEBSOCKET;
        clients.connect("c", &hub.url(""), kind, Some(listen)).await;
        hub.publish("a", "first").await;
        assert_eq!(clients.event("c").await.0, "first");
        clients.tell(&json!({"pause": "c"}));
        for n in 1..=60 {
            hub.publish("a", format!("{n} {}", "x".repeat(900_000)))
                .await;
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await; // longer than events are held for it
        clients.tell(&json!({"resume": "c"}));
        let (mut got, mut last, mut told) = (0, 0, false);
        let closed = |line: Value| {
            if let Some(data) = line["event"]["data"].as_str() {
                let n: u32 = data.split(' ').next().unwrap().parse().unwrap();
                assert!(
                    n == last + 1 || (n > last && told),
                    "{n} after {last} without a word"
                );
                (got, last, told) = (got + 1, n, false);
            } else if lag == "disconnect" {
                assert_eq!(line["closed"], json!({"reason": "lagged"}), "{line}");
                return Some(true);
            } else {
                let gap = &line["gap"];
                assert_eq!(gap["reason"], "lagged", "{line}");
                assert_eq!(line["sub"], "auth", "{line}");
                told = true;
            }
            (last >= 60).then_some(false)
        };
        if clients
            .first("c", "the last event or the end", closed)
            .await
        {
            let lost = clients.find("c", "lost").await["lost"].clone();
            assert_eq!(lost, "io server disconnect");
        }
        assert!(last == 60 || lag == "disconnect");
        assert!(got < 50, "{got} of 60 came: the client was not slow");
        hub.stop().await;
    }
}
