//! What a hub and `tidings config` make of a `[cluster]` table: which are refused, what is warned of, where passwords never
//! appear, and what a node answers before its broker is there. What it says of brokers themselves: `cluster::refusals`.

use crate::support::{
    broker::{self, Broker, Kind, Settings, fresh_name, shared},
    cluster::{feed::Feed, publish_soon, until_ready},
    hub::HubProcess,
    process::output,
    stream::DEADLINE,
    wait::{in_time, within},
};
use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

fn config(url: &str, name: &str) -> String {
    format!("[cluster]\njournal = {url:?}\nname = {name:?}\n")
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// Runs the program with that configuration file: whether it succeeded, and all that it printed. It refuses with 1.
fn run(arguments: &[&str], config: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("tidings.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(arguments).current_dir(home.path());
    let output = output(command.envs(variables.iter().copied()), DEADLINE);
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

#[test]
fn what_is_no_url_of_a_broker_is_refused_and_not_shown() {
    let schemes = ["redis", "rediss-sentinel", "nats", "tls", "amqps"];
    for journal in [
        "\"kafka://user:s3cret@127.0.0.1:1\"",
        "\"s3cret\"",
        "\" redis://:s3cret@127.0.0.1:1\"",
        "[\"redis://:s3cret@127.0.0.1:1\"]",
        "{ url = \"redis://:s3cret@127.0.0.1:1\" }",
    ] {
        let text = format!("[cluster]\njournal = {journal}\n");
        let (valid, said) = run(&["config"], &text, &[]);
        assert!(!valid && !said.contains("s3cret"), "{said}");
        assert_says(&said, &["tidings.toml:2: cluster.journal"]);
        assert_says(&said, &schemes);
        let said = HubProcess::refused(&text);
        assert_says(&said, &schemes);
        assert!(!said.contains("s3cret"), "{said}");
    }
    let variable = ("TIDINGS_CLUSTER__JOURNAL", "kafka://user:s3cret@host");
    let (valid, said) = run(&["config"], "", &[variable]);
    assert!(!valid && !said.contains("s3cret"), "{said}");
    assert_says(&said, &[variable.0]);
    assert_says(&said, &schemes);
}

/// A URL in the wrong place, or one that is cut short, or that has what its scheme does not: its password stays hidden.
#[test]
fn a_url_with_a_mistake_in_it_is_refused_without_its_password() {
    for text in [
        "cluster = \"redis://:s3cret@127.0.0.1:1\"",
        "[cluster]\njournal = \"redis://:s3cret@127.0.0.1:1",
        "[cluster]\njournal = redis://:s3cret@127.0.0.1:1",
        "[cluster]\njournal = \"redis://:s3cret\\q@127.0.0.1:1\"",
        "[cluster]\njournals = \"redis://:s3cret@127.0.0.1:1\"",
    ] {
        let (valid, said) = run(&["config"], text, &[]);
        assert!(!valid && !said.contains("s3cret"), "{said}");
        assert_says(&said, &["tidings.toml:"]);
        let said = HubProcess::refused(text);
        assert!(!said.contains("s3cret"), "{said}");
    }
    for (url, shown) in [
        ("redis://:a/s3cret@h", "redis://h"),
        ("redis://:a?s3cret@h", "redis://h"),
        (
            "redis-sentinel://h/m?password=s3cret",
            "redis-sentinel://h/m",
        ),
        ("nats://u:p@h,u:s3cret@h2", "nats://h2"),
        ("amqp://u:s3cret#1@h", "amqp://h"),
    ] {
        let text = config(url, "a");
        let (valid, said) = run(&["config"], &text, &[]);
        assert!(valid && !said.contains("s3cret"), "{said}");
        assert_says(&said, &[&format!("journal = \"{shown}\"")]);
        let said = HubProcess::refused(&text);
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_be_in_a_file() {
    for kind in Kind::ALL {
        let password = "open-sesame";
        let settings = Settings {
            password: Some(password),
            ..Settings::default()
        };
        let broker = Broker::start_with(kind, settings).await;
        let url = match kind {
            Kind::Redis => broker.url().replace(&format!(":{password}@"), ""),
            _ => broker.url().replace(&format!(":{password}"), ""),
        };
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("password");
        let config = format!("{}password_file = {file:?}\n", config(&url, "a"));

        let said = HubProcess::refused(&config);
        assert_says(&said, &["password", &file.display().to_string()]);
        fs::write(&file, "n0-idea-what\n").unwrap();
        let said = HubProcess::refused(&config);
        assert_says(&said.to_lowercase(), &["refuse", "password"]);
        assert_says(&said, &[&broker.address().to_string()]);
        assert!(!said.contains("n0-idea"), "{said}");

        fs::write(&file, format!("{password}\nanother line\n")).unwrap();
        let hub = HubProcess::start(&config);
        until_ready(&hub).await;
        publish_soon(&hub, "a", "x").await;
        let (_, cluster) = hub.get("/cluster").await.unwrap();
        for text in [hub.log(), hub.shown(), cluster] {
            assert!(!text.contains(password), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_its_broker_is_there_a_node_says_what_it_waits_for() {
    let mut broker = Broker::start(Kind::Redis).await;
    broker.kill().await;
    let mut hub = HubProcess::start(&config(&broker.url(), "a"));
    for (path, status, says) in [
        ("/healthz", 200, ""),
        (
            "/readyz",
            503,
            "not ready: not caught up with the journal yet; journal down",
        ),
        ("/cluster", 200, "\"linked\":false"),
    ] {
        let (answered, body) = hub.get(path).await.unwrap();
        assert_eq!(answered, status, "{path}: {body}");
        assert_says(&body, &[says]);
    }
    let (status, body) = hub.post_raw("a", "x", "k").await.unwrap();
    assert_eq!(status, 503, "{body}");
    // Readers are told to come back, perhaps to another node: no error, which ends an EventSource.
    for path in ["/events?topic=a", "/topics/a"] {
        let (status, body) = hub.get(path).await.unwrap();
        assert_eq!(status, 200, "{body}");
        assert_says(&body, &["retry: ", "not_ready"]);
    }
    let waits = || hub.log().matches("waiting for the journal").count();
    let twice = Duration::from_secs(12);
    within(twice, "it says so every few seconds", || waits() >= 2).await;
    assert_says(&hub.log(), &[&broker.address().to_string()]);

    broker.restart().await;
    until_ready(&hub).await;
    let feed = Feed::open(hub.address(), "/topics/a?since=earliest", None);
    let mut feed = feed.await.unwrap();
    publish_soon(&hub, "a", "x").await;
    let event = feed.next().await.unwrap();
    assert_eq!(event.data, "x");
    hub.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_its_broker_ends_when_it_is_told_to() {
    let url = format!("redis://127.0.0.1:{}", crate::support::ports::free());
    let mut hub = HubProcess::start(&config(&url, "a"));
    assert_eq!(hub.get("/readyz").await.unwrap().0, 503);
    hub.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_memory_and_a_queue_that_is_none_are_not_taken() {
    let (nats, name) = (shared(Kind::Nats), fresh_name());
    let jetstream = async_nats::jetstream::new(broker::nats::connect(nats).await.unwrap());
    let stream = async_nats::jetstream::stream::Config {
        name: format!("tidings_{name}"),
        subjects: vec![format!("tidings.{name}.journal")],
        storage: async_nats::jetstream::stream::StorageType::Memory,
        max_messages: 10,
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let said = HubProcess::refused(&config(&nats.url(), &name));
    let stream = format!("tidings_{name}");
    let changes = "storage from memory to file, max_msgs from 10 to -1";
    assert_says(&said, &[&stream, &nats.address().to_string(), changes]);
    jetstream.delete_stream(stream).await.unwrap();

    let (rabbitmq, name) = (shared(Kind::RabbitMq), fresh_name());
    let connection = broker::rabbitmq::connect(rabbitmq).await.unwrap();
    let queue = format!("tidings.{name}.journal");
    let mut arguments = FieldTable::default();
    let classic = AMQPValue::LongString("classic".into());
    arguments.insert("x-queue-type".into(), classic);
    let declared = in_time(DEADLINE, "a queue", async {
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(queue.as_str().into(), options, arguments);
        declared.await.map(|_| channel)
    });
    let channel = declared.await.unwrap();
    let said = HubProcess::refused(&config(&rabbitmq.url(), &name));
    assert_says(
        &said,
        &[
            &queue,
            "other settings",
            "another cluster.name",
            "delete it",
        ],
    );
    let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
    in_time(DEADLINE, "a queue less", deleted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_broker_does_not_take_are_warned_of_and_refused() {
    let settings = Settings {
        lines: "max_payload: 65536".to_owned(),
        ..Settings::default()
    };
    let broker = Broker::start_with(Kind::Nats, settings).await;
    let more = "[publish]\nevent_bytes_max = \"128KiB\"\n";
    let hub = HubProcess::start(&format!("{}{more}", config(&broker.url(), "a")));
    until_ready(&hub).await;
    let warned = || hub.log().contains("publish.event_bytes_max");
    within(DEADLINE, "a warning", warned).await;
    let log = hub.log();
    let line = log.lines().find(|line| line.contains("entry_bytes_max="));
    let line = line.expect("the bound");
    assert_says(line, &["WARN", "event_bytes_max=131072", "413"]);
    let bound = line.split("entry_bytes_max=").nth(1).unwrap();
    let bound = bound.split_whitespace().next().unwrap();

    let (status, body) = hub.post_raw("a", &"x".repeat(65_536), "1").await.unwrap();
    assert_eq!(status, 413, "{body}");
    assert_says(
        &body,
        &[&format!("at most {bound} bytes"), "nothing was stored"],
    );
    let near = bound.parse::<usize>().unwrap() - 500;
    let (status, body) = hub.post_raw("a", &"x".repeat(near), "2").await.unwrap();
    assert_eq!(status, 201, "{body}");
    // Larger than the hub's own bound: that one is named.
    let (status, body) = hub.post_raw("a", &"x".repeat(131_073), "3").await.unwrap();
    assert_eq!(status, 413, "{body}");
    assert_says(&body, &["131072"]);
}

/// The files in a directory, not those below it.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hub_kept_alone_stays_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut alone = HubProcess::start_in("", Some(data.clone()));
    alone.publish_numbers("a", 1..=3).await;
    alone.terminate();
    let before = files(&data);
    assert!(before.contains_key("log.sqlite"), "{:?}", before.keys());

    let name = fresh_name();
    let config = config(&shared(Kind::Redis).url(), &name);
    let mut node = HubProcess::start_in(&config, Some(data.clone()));
    let log = data.join("log.sqlite").display().to_string();
    assert_says(&node.log(), &["WARN", &log, "unused", "docs/clustering.md"]);
    until_ready(&node).await;
    publish_soon(&node, "a", "4").await;
    let mut feed = Feed::open(node.address(), "/topics/a?since=earliest", None)
        .await
        .unwrap();
    let first = feed.next().await.unwrap();
    assert_eq!(first.data, "4");
    drop(feed);
    node.terminate();
    assert!(files(&data) == before, "{:?}", files(&data).keys());
    assert!(data.join(format!("cluster-{name}")).is_dir());

    let arguments = ["log", "new-epoch", "--data-dir", data.to_str().unwrap()];
    let (done, said) = run(&arguments, &config, &[]);
    assert!(!done, "{said}");
    assert_says(&said, &["in a cluster the epoch is the journal's"]);
    assert!(files(&data) == before, "{:?}", files(&data).keys());

    let alone = HubProcess::start_in("", Some(data));
    let mut feed = Feed::open(alone.address(), "/topics/a?since=earliest", None)
        .await
        .unwrap();
    for number in ["1", "2", "3"] {
        let event = feed.next().await.unwrap();
        assert_eq!(event.data, number);
    }
}

#[test]
fn a_cluster_needs_to_know_keys_for_long_enough() {
    let cluster = config("redis://127.0.0.1:1", "a");
    let with = |keys| format!("{cluster}[log]\nidempotency_keys_max = {keys}\n");
    let says = "log.idempotency_keys_max: expected in a cluster, at least 10000; found 9999";
    let (valid, said) = run(&["config"], &with(9_999), &[]);
    assert!(!valid, "{said}");
    assert_says(&said, &["tidings.toml:5", says]);
    assert_says(&HubProcess::refused(&with(9_999)), &[says]);
    let (valid, said) = run(&["config"], &with(10_000), &[]);
    assert!(valid, "{said}");
    // A hub alone decides about keys by itself.
    let (valid, said) = run(&["config"], "[log]\nidempotency_keys_max = 9999\n", &[]);
    assert!(valid, "{said}");
}
