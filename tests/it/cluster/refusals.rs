//! What a hub says of a broker that it cannot use, or not yet, or not as well as one might think.

use crate::support::{
    broker as brokers,
    broker::{Broker, Kind, RedisFsync, Settings, fresh_name, shared},
    cluster::{publish_soon, until_ready},
    hub::HubProcess,
    ports,
    wait::within,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const SOON: Duration = Duration::from_secs(30);

fn config(url: &str, name: &str) -> String {
    format!("[cluster]\njournal = {url:?}\nname = {name:?}\n")
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

on_each_broker! {
    async fn a_wrong_password_is_refused_and_no_password_is_shown(kind: Kind) {
        let (password, wrong) = ("open-sesame", "n0-idea-what");
        let settings = Settings { password: Some(password), ..Settings::default() };
        let broker = Broker::start_with(kind, settings).await;
        let url = broker.url().replace(password, wrong);
        let said = HubProcess::refused(&config(&url, "a"));
        assert_says(&said.to_lowercase(), &["refuse", &broker.address().to_string()]);
        assert!(!said.contains(wrong) && !said.contains(password), "{said}");

        let hub = HubProcess::start(&config(&broker.url(), "a"));
        until_ready(&hub).await;
        publish_soon(&hub, "a", "x").await;
        let shown = hub.shown();
        assert_says(&shown, &["journal = ", &broker.address().to_string()]);
        let (_, cluster) = hub.get("/cluster").await.unwrap();
        for text in [hub.log(), shown, cluster] {
            assert!(!text.contains(password), "{text}");
        }
    }

    async fn a_broker_that_is_not_there_is_waited_for_in_words(kind: Kind) {
        let mut broker = Broker::start(kind).await;
        broker.kill().await;
        let hub = HubProcess::start(&config(&broker.url(), "a"));
        let waits = || hub.log().matches("waiting for the journal").count();
        within(SOON, "it says so again", || waits() >= 2).await;
        assert_says(&hub.log(), &[&broker.address().to_string()]);
        let (status, body) = hub.get("/readyz").await.unwrap();
        assert_eq!(status, 503, "{body}");
        let (status, body) = hub.post_raw("a", "x", "k").await.unwrap();
        assert_eq!(status, 503, "{body}");
        broker.restart().await;
        until_ready(&hub).await;
        publish_soon(&hub, "a", "x").await;
    }
}

#[test]
fn an_unknown_scheme_is_refused() {
    let said = HubProcess::refused(&config("kafka://:secret-word@127.0.0.1:1", "a"));
    assert_says(&said, &["cluster.journal", "redis", "nats", "amqp"]);
    assert!(!said.contains("secret-word"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_keeps_nothing_is_warned_of() {
    let settings = Settings {
        redis_fsync: RedisFsync::Nothing,
        ..Settings::default()
    };
    let broker = Broker::start_with(Kind::Redis, settings).await;
    let hub = HubProcess::start(&config(&broker.url(), "a"));
    until_ready(&hub).await;
    assert_says(&hub.log(), &["WARN", "appendonly no", "lost"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicts_is_refused() {
    let settings = Settings {
        lines: "maxmemory 100mb\nmaxmemory-policy allkeys-lru".to_owned(),
        ..Settings::default()
    };
    let broker = Broker::start_with(Kind::Redis, settings).await;
    let said = HubProcess::refused(&config(&broker.url(), "a"));
    assert_says(&said, &["maxmemory-policy allkeys-lru", "noeviction"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_made_is_named_and_left_alone() {
    let broker = shared(Kind::Redis);
    let name = fresh_name();
    // Keys are made by a hub first, so that the test need not know their names.
    let hub = HubProcess::start(&config(&broker.url(), &name));
    until_ready(&hub).await;
    drop(hub);
    let mut redis = brokers::redis::connect(broker).await.unwrap();
    let keys = ::redis::cmd("KEYS").arg(format!("*{name}*")).clone();
    let keys: Vec<String> = keys.query_async(&mut redis).await.unwrap();
    assert!(!keys.is_empty());
    for key in &keys {
        let set = ::redis::cmd("SET").arg(key).arg("mine").clone();
        let _: () = set.query_async(&mut redis).await.unwrap();
    }
    let said = HubProcess::refused(&config(&broker.url(), &name));
    assert_says(&said, &["something else under the key", "another name"]);

    let broker = shared(Kind::Nats);
    let name = fresh_name();
    let jetstream = async_nats::jetstream::new(brokers::nats::connect(broker).await.unwrap());
    let stream = async_nats::jetstream::stream::Config {
        name: format!("tidings_{name}"),
        subjects: vec![format!("somebody.{name}")],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let said = HubProcess::refused(&config(&broker.url(), &name));
    assert_says(
        &said,
        &["was made with other settings", "subjects", "delete it"],
    );

    let broker = shared(Kind::RabbitMq);
    let name = fresh_name();
    let hub = HubProcess::start(&config(&broker.url(), &name));
    until_ready(&hub).await;
    drop(hub);
    // It is as the hub made it, and a hub with other bounds does not change that.
    let more = format!(
        "{}journal_bytes_max = \"64MiB\"\n",
        config(&broker.url(), &name)
    );
    let said = HubProcess::refused(&more);
    assert_says(&said, &["is there with other settings", "delete it"]);
    assert!(brokers::rabbitmq::connect(broker).await.is_ok());
}

/// It speaks as an old one would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_that_is_too_old_is_refused() {
    let port = ports::free();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let info = r#"INFO {"server_id":"old","version":"2.9.9","proto":1,"host":"127.0.0.1","port":1,"headers":true,"max_payload":1048576,"jetstream":true}"#;
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut sent = tcp.write_all(format!("{info}\r\n").as_bytes()).await;
            let mut bytes = [0; 4_096];
            while let Ok(()) = sent {
                match tcp.read(&mut bytes).await {
                    Ok(1..) => sent = tcp.write_all(b"PONG\r\n").await,
                    _ => break,
                }
            }
        }
    });
    let url = format!("nats://127.0.0.1:{port}");
    let said = tokio::task::spawn_blocking(move || HubProcess::refused(&config(&url, "a")));
    assert_says(&said.await.unwrap(), &["2.9.9", "2.9.10 or later"]);
}
