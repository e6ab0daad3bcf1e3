//! `examples/feed.sh`: three readers at a shell, over a restart of the hub.

use crate::support::{
    hub::HubProcess,
    process::{end, line_by, lines, output, signal},
};
use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/feed.sh");
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Feed {
    script: Child,
    lines: Receiver<String>,
    /// Where its temporary directory is.
    home: tempfile::TempDir,
}

impl Feed {
    fn start(hub: &HubProcess, topics: &[&str]) -> Self {
        Self::of(&hub.origin(), topics)
    }

    fn of(origin: &str, topics: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut script = Command::new(SCRIPT)
            .args(topics)
            .env("HUB", origin)
            .env("SINCE", "earliest")
            .env("TIDINGS", env!("CARGO_BIN_EXE_tidings"))
            .env("TMPDIR", home.path())
            .env("NO_PROXY", "*")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the script");
        Self {
            lines: lines(script.stdout.take().expect("its output")),
            script,
            home,
        }
    }

    /// What each of the three shows, once all have shown so many.
    fn until(&self, count: usize) -> HashMap<String, Vec<String>> {
        let by = Instant::now() + PATIENCE;
        let mut shown = HashMap::<String, Vec<String>>::new();
        while shown.values().map(Vec::len).sum::<usize>() < 3 * count {
            let line = line_by(&self.lines, by);
            let line = line.unwrap_or_else(|_| panic!("no more than {shown:?}"));
            let (reader, text) = line.split_once('|').expect("a prefix");
            let texts = shown.entry(reader.trim().to_owned()).or_default();
            texts.push(text.trim().to_owned());
        }
        shown
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        end(&mut self.script);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_readers_show_each_event_once_over_a_restart() {
    let mut hub = HubProcess::start("");
    hub.publish("news/a", "one \"quoted\"").await;
    let feed = Feed::start(&hub, &["news/*", "other"]);
    hub.publish("other", "two").await;
    let expect = |shown: HashMap<String, Vec<String>>, events: &[(&str, &str)]| {
        let data: Vec<_> = events.iter().map(|(_, data)| (*data).to_owned()).collect();
        let named: Vec<_> = events
            .iter()
            .map(|(topic, data)| format!("{topic}: {data}"))
            .collect();
        let all = [("tidings", &data), ("curl -N", &data), ("ndjson", &named)];
        let all = all.map(|(reader, texts)| (reader.to_owned(), texts.clone()));
        assert_eq!(shown, HashMap::from(all));
    };
    expect(
        feed.until(2),
        &[("news/a", "one \"quoted\""), ("other", "two")],
    );
    hub.kill();
    hub.start_again();
    hub.publish("news/b", "three").await;
    hub.publish("news/a", "four").await;
    expect(feed.until(2), &[("news/b", "three"), ("news/a", "four")]);

    let home = feed.home.path().to_owned();
    let left = || home.read_dir().expect("its home").count();
    assert_eq!(left(), 1);
    signal("TERM", feed.script.id());
    // Its readers have its output, too: there is an end of it only when all are gone.
    let rest = feed.lines.recv_timeout(PATIENCE);
    assert_eq!(rest, Err(RecvTimeoutError::Disconnected));
    assert_eq!(left(), 0, "a file is left");
}

/// Answers readers of Server-Sent Events with one after the other, and closes; says nothing to others.
fn cutting(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a listener");
    let origin = format!("http://{}", listener.local_addr().expect("its address"));
    thread::spawn(move || {
        let (mut answers, mut others) = (answers.iter(), Vec::new());
        while let Ok((mut stream, _)) = listener.accept() {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            if !head[0].contains("format=sse") {
                others.push(stream);
                continue;
            }
            let Some(answer) = answers.next() else { return };
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close";
            let _ = write!(stream, "{head}\r\n\r\n{answer}");
        }
    });
    origin
}

#[test]
fn an_event_that_was_cut_off_is_shown_once() {
    let hub = cutting(&[
        "id: 1-1\ndata: one\n",
        "id: 1-1\ndata: one\n\nid: 1-2\ndata: two\ndata: \ndata:  more\n\n",
    ]);
    let feed = Feed::of(&hub, &["news"]);
    let mut shown = Vec::new();
    while shown.last().is_none_or(|line| line != "curl -N |  more") {
        let line = feed.lines.recv_timeout(PATIENCE);
        shown.push(line.unwrap_or_else(|_| panic!("no more than {shown:?}")));
    }
    let expected = ["one", "two", "", " more"].map(|text| format!("curl -N | {text}"));
    assert_eq!(shown, expected);
}

#[test]
fn it_says_how_it_is_used() {
    let help = output(Command::new(SCRIPT).arg("--help"), PATIENCE);
    assert!(help.status.success());
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("tidings subscribe")
    );
    let wrong = output(Command::new(SCRIPT).arg("--nonsense"), PATIENCE);
    assert_eq!(wrong.status.code(), Some(2));
}
