//! `examples/cluster/cluster.sh` on each broker, as a user runs it: what it prints, that nginx in front of the nodes is in
//! nobody's way, and that nothing is left after Ctrl-C.

use crate::{
    brokers::at_home,
    support::{
        broker::Kind,
        client::{Client, Message, installed},
        hub::Published,
        ports,
        process::{ended, line_by, lines, output, signal},
        stream::DEADLINE,
    },
};
use std::{
    env,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::Receiver,
    time::Duration,
};
use tokio::time::{Instant, interval};

/// For a broker, three hubs and nginx to start, or to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks the script to end when the test process has ended, however it ended. After the script's own end it finds nothing
/// at home, and asks nobody.
const WATCH: &str = r#"
    while read -r _; do :; done
    case $(readlink "/proc/$1/cwd") in
        "$0"/*) kill -TERM "$1" ;;
    esac
"#;

/// The script while it runs.
struct Example {
    script: Child,
    lines: Receiver<String>,
    /// Where its temporary directory is.
    home: tempfile::TempDir,
    port: u16,
    watch: Child,
}

impl Example {
    fn start(kind: Kind) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let port = ports::free_in_a_row(7);
        let nats = installed("venv/bin");
        let path = env::var_os("PATH").expect("a path");
        let path = env::join_paths(env::split_paths(&path).chain([nats])).expect("a path");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cluster/cluster.sh");
        // A shell that began with SIGINT ignored, as in the background of another, could not be told to end by it.
        let mut script = Command::new("env")
            .args(["--default-signal=INT", script])
            .arg(match kind {
                Kind::Redis => "redis",
                Kind::Nats => "nats",
                Kind::RabbitMq => "rabbitmq",
            })
            .env("PATH", path)
            .env("PORT", port.to_string())
            .env("TIDINGS", env!("CARGO_BIN_EXE_tidings"))
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the script");
        let lines = lines(script.stdout.take().expect("its output"));
        let watch = Command::new("sh")
            .args(["-c", WATCH])
            .arg(home.path().canonicalize().expect("its path"))
            .arg(script.id().to_string())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self {
            script,
            lines,
            home,
            port,
            watch,
        }
    }

    /// What it prints up to the last line of its greeting.
    fn greeting(&self) -> Vec<String> {
        let by = (Instant::now() + PATIENCE).into_std();
        let mut lines = Vec::new();
        while lines
            .last()
            .is_none_or(|last| last != "Ctrl-C ends all of it.")
        {
            let line = line_by(&self.lines, by);
            lines.push(line.unwrap_or_else(|_| panic!("it ended, or is not ready: {lines:#?}")));
        }
        lines
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Ctrl-C. Nothing is left after it.
    async fn interrupt(mut self) {
        let ours = self.home.path().canonicalize().expect("its path");
        assert!(!at_home(&ours).is_empty());
        signal("INT", self.script.id());
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        let status = loop {
            if let Some(status) = self.script.try_wait().expect("its exit status") {
                break status;
            }
            let left = || at_home(&ours);
            assert!(begun.elapsed() < PATIENCE, "it does not end: {:?}", left());
            tick.tick().await;
        };
        assert!(status.success(), "{status}");
        assert_eq!(at_home(&ours), Vec::<PathBuf>::new());
        let left = ours.read_dir().expect("its temporary directory");
        assert_eq!(left.count(), 0, "a file is left");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        ended(&mut self.watch);
        ended(&mut self.script);
    }
}

/// Publishes as one is told to: again after a 503 or a 504 (on a busy machine a broker's disk may be slow), with the same key.
async fn publish(http: &reqwest::Client, url: &str, data: &str) -> String {
    let begun = Instant::now();
    loop {
        let request = http.post(url).header("Idempotency-Key", data);
        let answer = request.body(data.to_owned()).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        if let 200 | 201 = status {
            let published: Published = serde_json::from_str(&text).unwrap();
            return published.id;
        }
        let again = matches!(status, 503 | 504) && begun.elapsed() < PATIENCE;
        assert!(again, "{status}: {text}");
    }
}

async fn through_nginx(kind: Kind) {
    let example = Example::start(kind);
    let greeting = example.greeting().join("\n");
    let listen = format!("curl -N '{}'", example.at("/topics/demo"));
    assert!(greeting.contains(&listen), "{greeting}");
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    let http = http.build().unwrap();

    // Round robin: each on another node.
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = Client::curl(&example.at("/topics/demo"), None);
        reader.opened().await;
        readers.push(reader);
    }
    let mut published = Vec::new();
    for n in 1..=6 {
        let data = n.to_string();
        let id = publish(&http, &example.at("/topics/demo"), &data).await;
        published.push(Message::new(&id, &data));
    }
    for reader in &mut readers {
        assert_eq!(reader.until("6").await, published);
    }
    let mut late = Client::curl(&example.at("/topics/demo"), Some(&published[1].id));
    assert_eq!(late.until("6").await, published[2..]);

    // Streams are told within a second.
    let begun = Instant::now();
    loop {
        let answer = http.get(example.at("/cluster")).send().await.unwrap();
        let cluster: serde_json::Value =
            serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let nodes = cluster["nodes"].as_array().unwrap();
        let streams: Vec<_> = nodes.iter().map(|node| node["streams"].as_u64()).collect();
        if streams.iter().all(|streams| *streams >= Some(1)) && streams.len() == 3 {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{cluster}");
    }
    drop((readers, late));
    example.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    through_nginx(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats() {
    through_nginx(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    through_nginx(Kind::RabbitMq).await;
}

#[test]
fn what_it_cannot_do_it_says() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cluster/cluster.sh");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, says) in [
        (&[][..], "usage: cluster.sh redis|nats|rabbitmq".to_owned()),
        (
            &["kafka"],
            "usage: cluster.sh redis|nats|rabbitmq".to_owned(),
        ),
        (&["redis"], format!("port {port} is taken")),
    ] {
        let mut command = Command::new(script);
        command.args(arguments).env("PORT", &port);
        command.env("TIDINGS", env!("CARGO_BIN_EXE_tidings"));
        let output = output(&mut command, DEADLINE);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&says), "{said}");
    }
}
