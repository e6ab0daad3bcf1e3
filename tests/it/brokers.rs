//! The brokers that tests start: they answer, keep what they should, lose what they are made to lose, and leave nothing
//! behind. By the brokers' own clients only.

use crate::support::{
    broker::{
        Broker, Kind, RedisFsync, Settings, fresh_name,
        nats::{self, NatsCluster},
        rabbitmq, redis as redis_broker,
        sentinel::SentinelSet,
        shared,
    },
    chaos::{ChaosProxy, Mode},
    process::{exit_within, line_by, lines, signal},
    stream::{DEADLINE, PATIENCE},
    wait::{in_time, wait_until},
    watchdog,
};
use async_nats::jetstream;
use lapin::{
    BasicProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

/// Keeps a text, as a journal of that name would.
async fn put(broker: &Broker, name: &str, text: &str) {
    let stored = in_time(PATIENCE, "a stored text", async {
        match broker.kind() {
            Kind::Redis => {
                let mut connection = redis_broker::connect(broker).await?;
                let mut push = redis::cmd("RPUSH");
                let _: u64 = push
                    .arg(name)
                    .arg(text)
                    .query_async(&mut connection)
                    .await?;
            }
            Kind::Nats => put_nats(&nats::connect(broker).await?, name, text, 1).await?,
            Kind::RabbitMq => put_rabbitmq(broker, name, text).await?,
        }
        anyhow::Ok(())
    });
    stored.await.expect("a stored text");
}

async fn put_nats(
    client: &async_nats::Client,
    name: &str,
    text: &str,
    replicas: usize,
) -> anyhow::Result<()> {
    let context = jetstream::new(client.clone());
    let config = jetstream::stream::Config {
        name: format!("tidings_{name}"),
        subjects: vec![name.to_owned()],
        num_replicas: replicas,
        ..Default::default()
    };
    context.get_or_create_stream(config).await?;
    context
        .publish(name.to_owned(), text.to_owned().into())
        .await?
        .await?;
    Ok(())
}

async fn put_rabbitmq(broker: &Broker, name: &str, text: &str) -> anyhow::Result<()> {
    let connection = rabbitmq::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let queue = format!("tidings.{name}.journal");
    let (options, arguments) = rabbitmq::stream();
    channel
        .queue_declare(queue.as_str().into(), options, arguments)
        .await?;
    channel.confirm_select(Default::default()).await?;
    let publish = channel.basic_publish(
        "".into(),
        queue.into(),
        BasicPublishOptions::default(),
        text.as_bytes(),
        BasicProperties::default(),
    );
    let confirmation = publish.await?.await?;
    anyhow::ensure!(confirmation.is_ack());
    connection.close(200, "".into()).await?;
    Ok(())
}

/// All texts of that name, oldest first.
async fn texts(broker: &Broker, name: &str) -> Vec<String> {
    let read = in_time(PATIENCE, "texts", async {
        anyhow::Ok(match broker.kind() {
            Kind::Redis => {
                let mut connection = redis_broker::connect(broker).await?;
                let mut range = redis::cmd("LRANGE");
                let range = range.arg(name).arg(0).arg(-1);
                range.query_async(&mut connection).await?
            }
            Kind::Nats => texts_nats(&nats::connect(broker).await?, name).await?,
            Kind::RabbitMq => texts_rabbitmq(broker, name).await?,
        })
    });
    read.await.expect("texts")
}

async fn texts_nats(client: &async_nats::Client, name: &str) -> anyhow::Result<Vec<String>> {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream(format!("tidings_{name}")).await?;
    let mut texts = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await?;
        texts.push(String::from_utf8(message.payload.to_vec())?);
    }
    Ok(texts)
}

/// Whether all has been read is seen by a mark at the end, since the broker does not tell.
async fn texts_rabbitmq(broker: &Broker, name: &str) -> anyhow::Result<Vec<String>> {
    let mark = format!("mark {}", fresh_name());
    put_rabbitmq(broker, name, &mark).await?;
    let connection = rabbitmq::connect(broker).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(100, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-stream-offset".into(),
        AMQPValue::LongString("first".into()),
    );
    let queue = format!("tidings.{name}.journal");
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(queue.into(), "".into(), options, arguments)
        .await?;
    let mut texts = Vec::new();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        delivery.ack(BasicAckOptions::default()).await?;
        let text = String::from_utf8(delivery.data.clone())?;
        if text == mark {
            break;
        }
        if !text.starts_with("mark ") {
            texts.push(text);
        }
    }
    connection.close(200, "".into()).await?;
    Ok(texts)
}

fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat"));
    // A zombie has ended. Its state comes after its name, which is in parentheses.
    status.is_ok_and(|s| !s.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Processes that work there: the servers themselves, and their helpers.
pub(crate) fn at_home(home: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .map(|process| process.path())
        .filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(home)))
        .collect()
}

async fn life_of(kind: Kind) {
    let mut broker = Broker::start(kind).await;
    let home = broker.home().to_owned();
    put(&broker, "a", "1").await;
    let killed = broker.pid();
    broker.kill().await;
    assert!(!runs(killed));
    broker.restart().await;
    assert_eq!(texts(&broker, "a").await, ["1"]);

    put(&broker, "a", "2").await;
    let saved = broker.save().await;
    put(&broker, "a", "3").await;
    assert_eq!(texts(&broker, "a").await, ["1", "2", "3"]);
    broker.put_back(&saved).await;
    assert_eq!(texts(&broker, "a").await, ["1", "2"]);
    put(&broker, "a", "another").await;
    assert_eq!(texts(&broker, "a").await, ["1", "2", "another"]);

    broker.pause();
    {
        let silent = texts(&broker, "a");
        let answer = timeout(Duration::from_millis(300), silent).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    broker.resume();
    assert_eq!(texts(&broker, "a").await, ["1", "2", "another"]);

    broker.wipe("a").await;
    put(&broker, "a", "new").await;
    assert_eq!(texts(&broker, "a").await, ["new"]);

    broker.stop().await;
    broker.restart().await;
    assert_eq!(texts(&broker, "a").await, ["new"]);
    assert!(at_home(&home).len() > usize::from(kind == Kind::RabbitMq));
    drop(broker);
    assert!(!home.exists());
    wait_until("helpers have ended", || at_home(&home).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_redis() {
    life_of(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_nats() {
    life_of(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_rabbitmq() {
    life_of(Kind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_with_a_password_and_over_tls() {
    for kind in Kind::ALL {
        let settings = Settings {
            password: Some("open-sesame"),
            tls: true,
            ..Settings::default()
        };
        let broker = Broker::start_with(kind, settings).await;
        assert!(broker.url().contains(":open-sesame@127.0.0.1:"), "{kind:?}");
        assert!(broker.ca_file().is_some_and(|file| file.exists()));
        put(&broker, "a", "secret").await;
        assert_eq!(texts(&broker, "a").await, ["secret"], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_ones_are_reached_by_way_of_a_proxy() {
    for kind in Kind::ALL {
        let broker = shared(kind);
        assert!(std::ptr::eq(broker, shared(kind)));
        let name = fresh_name();
        put(broker, &name, "1").await;
        assert_eq!(texts(broker, &name).await, ["1"]);
        let proxy = ChaosProxy::start(broker.address()).await;
        let direct = broker.address().to_string();
        let by_proxy = broker.url().replace(&direct, &proxy.address.to_string());
        assert_eq!(broker.url_at(proxy.address), by_proxy);
        proxy.set(Mode::Cut).await;
        assert_eq!(texts(broker, &name).await, ["1"], "it goes on itself");
    }
    assert_ne!(fresh_name(), fresh_name());
}

#[tokio::test]
async fn redis_loses_the_end_of_its_file() {
    let mut broker = Broker::start(Kind::Redis).await;
    put(&broker, "a", "1").await;
    put(&broker, "a", "2").await;
    broker.cut_aof(1).await;
    assert_eq!(texts(&broker, "a").await, ["1"]);
    put(&broker, "a", "3").await;
    assert_eq!(texts(&broker, "a").await, ["1", "3"]);
}

#[tokio::test]
async fn redis_as_it_is_told() {
    for (redis_fsync, file, when) in [
        (RedisFsync::Always, "yes", "always"),
        (RedisFsync::EverySecond, "yes", "everysec"),
        (RedisFsync::Nothing, "no", "everysec"),
    ] {
        let settings = Settings {
            redis_fsync,
            lines: "maxmemory-policy allkeys-lru".to_owned(),
            ..Settings::default()
        };
        let mut broker = Broker::start_with(Kind::Redis, settings).await;
        let mut connection = redis_broker::connect(&broker).await.unwrap();
        for (name, expected) in [
            ("appendonly", file),
            ("appendfsync", when),
            ("save", ""),
            ("maxmemory-policy", "allkeys-lru"),
        ] {
            let get = redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
            let pair: Vec<String> = get.query_async(&mut connection).await.unwrap();
            assert_eq!(pair, [name, expected]);
        }
        put(&broker, "a", "1").await;
        broker.kill().await;
        broker.restart().await;
        let left = usize::from(redis_fsync != RedisFsync::Nothing);
        assert_eq!(texts(&broker, "a").await.len(), left);
    }
}

#[tokio::test]
async fn the_oldest_nats() {
    let settings = Settings {
        nats_floor: true,
        ..Settings::default()
    };
    let mut broker = Broker::start_with(Kind::Nats, settings).await;
    let client = nats::connect(&broker).await.unwrap();
    assert!(client.server_info().version.starts_with("2.9."));
    put(&broker, "a", "1").await;
    broker.stop().await;
    broker.restart().await;
    assert_eq!(texts(&broker, "a").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nats_servers_without_their_leader() {
    let mut cluster = NatsCluster::start().await;
    assert_eq!(cluster.url().matches("127.0.0.1:").count(), 3);
    let client = cluster.connect().await;
    put_nats(&client, "a", "1", 3).await.unwrap();
    cluster.kill_leader("tidings_a").await;
    // Of those left one leads, and has it.
    let client = cluster.connect().await;
    let stored = async {
        while put_nats(&client, "a", "2", 3).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, stored).await.expect("a new leader");
    cluster.restart().await;
    let texts = texts_nats(&cluster.connect().await, "a").await.unwrap();
    assert_eq!((&*texts[0], &*texts[texts.len() - 1]), ("1", "2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_put_the_replica_in_the_masters_place() {
    let mut set = SentinelSet::start().await;
    assert_eq!(set.url().matches("127.0.0.1:").count(), 3);
    put(&set.master, "a", "1").await;
    let mut connection = redis_broker::connect(&set.master).await.unwrap();
    let mut wait = redis::cmd("WAIT");
    let wait = wait.arg(1).arg(5000).query_async(&mut connection);
    assert_eq!(wait.await, Ok(1));
    set.kill_master().await;
    put(&set.replica, "a", "2").await;
    assert_eq!(texts(&set.replica, "a").await, ["1", "2"]);
}

/// Says in which of the two processes of that test this is. (No name of Tidings.)
const VICTIM: &str = "BROKERS_VICTIM";

#[test]
fn a_test_process_that_is_killed_leaves_nothing_behind() {
    watchdog::watch();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(VICTIM).is_some() {
        return runtime.block_on(be_killed());
    }
    let name = "brokers::a_test_process_that_is_killed_leaves_nothing_behind";
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines(victim.stdout.take().unwrap());
    let by = Instant::now() + 4 * PATIENCE;
    let homes: Vec<PathBuf> = std::iter::from_fn(|| line_by(&lines, by).ok())
        .filter_map(|line| Some(line.strip_prefix("home ")?.into()))
        .take(Kind::ALL.len())
        .collect();
    assert_eq!(homes.len(), Kind::ALL.len());
    for home in &homes {
        assert!(home.exists() && !at_home(home).is_empty());
    }
    signal("KILL", victim.id());
    let status = exit_within(&mut victim, DEADLINE);
    assert!(status.is_some_and(|status| !status.success()));
    runtime.block_on(wait_until("all is gone", || {
        homes
            .iter()
            .all(|home| !home.exists() && at_home(home).is_empty())
    }));
}

#[expect(clippy::print_stdout, reason = "read by the test above")]
async fn be_killed() {
    let mut brokers = Vec::new();
    for kind in Kind::ALL {
        let broker = Broker::start(kind).await;
        println!("\nhome {}", broker.home().display());
        brokers.push(broker);
    }
    let _ = std::io::stdin().lines().next(); // until killed, or the test above has ended
}
