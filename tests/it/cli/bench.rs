//! `tidings bench`: each mode measures a hub, and a server that breaks a promise is found out.

use super::{Running, output, read_head, stderr, tidings};
use crate::support::broker::{Kind, fresh_name, shared};
use serde_json::Value;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Output,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server in a process of its own, with its URL.
fn start(args: &[&str], dir: &TempDir) -> (Running, String) {
    let running = Running::start(&mut tidings(args, dir));
    let line = running.line();
    let at = line.find("http://").unwrap_or_else(|| panic!("{line}"));
    let url = line[at..].to_owned();
    (running, url)
}

/// Runs it. If something is missing, it is waited for so long: else the run ends when all is there.
fn bench(mode: &str, url: &str, patience: &str) -> (Output, Value) {
    let dir = TempDir::new().unwrap();
    let mut args = vec!["bench"];
    args.extend(mode.split(' '));
    args.extend(["--json", "--patience", patience, "--url", url]);
    let output = output(&mut tidings(&args, &dir));
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{mode}: {}", stderr(&output)));
    (output, report)
}

/// Runs it; nothing may be wrong.
fn sound(mode: &str, url: &str) -> Value {
    let (output, report) = bench(mode, url, "30s");
    assert_eq!(output.status.code(), Some(0), "{mode}: {report}");
    let faults = [
        "gaps",
        "duplicates",
        "disorder",
        "strays",
        "refused",
        "lost_readers",
    ];
    for fault in faults {
        assert_eq!(report[fault], 0, "{mode}: {report}");
    }
    assert_eq!(report["mode"], mode.split(' ').next().unwrap());
    report
}

fn number(report: &Value, name: &str) -> f64 {
    let number = report[name].as_f64();
    number.unwrap_or_else(|| panic!("no number {name} in {report}"))
}

#[test]
fn measures_what_a_hub_delivers() {
    let dir = TempDir::new().unwrap();
    let (hub, url) = start(&["serve", "--listen", "127.0.0.1:0"], &dir);

    let report = sound(
        "fan --readers 5 --connections 3 --events 200 --warmup 10ms",
        &url,
    );
    assert_eq!(
        (&report["publishes"], &report["deliveries"]),
        (&200.into(), &1_000.into())
    );
    assert_eq!(report["server_pid"], hub.child.id());
    let latency = ["p50", "p90", "p99", "p999", "max"]
        .map(|name| number(&report, &format!("latency_{name}_ms")));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{report}");
    assert!(number(&report, "cpu_us_per_delivery") >= 0.0);

    // None is sent before its time.
    let report = sound("fan --readers 3 --rate 500 --events 50 --warmup 0ms", &url);
    assert_eq!(report["publishes"], 50);
    assert!(number(&report, "seconds") >= 49.0 / 500.0, "{report}");

    let report = sound(
        "fan --readers 6 --own-topics --connections 2 --events 60 --warmup 1ms",
        &url,
    );
    assert_eq!(report["deliveries"], 60);
    let report = sound(
        "fan --readers 4 --own-filter 5 --events 20 --warmup 1ms",
        &url,
    );
    assert_eq!(report["deliveries"], 80);
    // Ten of the readers' streams are never read; the others get all.
    let report = sound(
        "fan --readers 20 --stalled 50 --events 30 --warmup 1ms",
        &url,
    );
    assert_eq!(
        (&report["stalled"], &report["deliveries"]),
        (&10.into(), &300.into())
    );
}

#[test]
fn measures_every_way_to_listen() {
    for http1 in ["lean", "library"] {
        let dir = TempDir::new().unwrap();
        let mut serve = tidings(&["serve", "--listen", "127.0.0.1:0"], &dir);
        serve.env("TIDINGS_SERVER__HTTP1", http1);
        let running = Running::start(&mut serve);
        let line = running.line();
        let url = &line[line.find("http://").unwrap_or_else(|| panic!("{line}"))..];
        for transport in ["sse", "ndjson", "longpoll", "ws", "socketio"] {
            let with = format!("--transport {transport} --warmup 10ms");
            let report = sound(
                &format!("fan --readers 5 --connections 3 --events 300 {with}"),
                url,
            );
            assert_eq!(report["deliveries"], 1_500);
            assert_eq!(report["transport"], transport);
            let own = format!("fan --readers 4 --own-topics --events 40 {with}");
            assert_eq!(sound(&own, url)["deliveries"], 40);
            // Events that are larger than what is read at once.
            let large = format!("fan --readers 2 --own-filter 3 --size 300000 --events 20 {with}");
            assert_eq!(sound(&large, url)["deliveries"], 40);
            let idle = format!("idle --readers 10 --seconds 10ms --transport {transport}");
            assert!(number(&sound(&idle, url), "memory_after_bytes") > 1e5);
        }
    }
}

#[test]
fn measures_what_else_a_hub_does() {
    let dir = TempDir::new().unwrap();
    let (_hub, url) = start(&["serve", "--listen", "127.0.0.1:0"], &dir);
    let report = sound("publish --connections 4 --events 100 --warmup 1ms", &url);
    assert_eq!(report["publishes"], 100);
    let report = sound(
        "publish --array 50 --connections 2 --events 1000 --warmup 1ms",
        &url,
    );
    assert_eq!(report["publishes"], 1_000);
    let report = sound("publish --lines --events 3000", &url);
    assert_eq!(report["publishes"], 3_000);
    let report = sound("replay --events 5000 --times 2", &url);
    assert!(number(&report, "events_per_s") > 0.0);
    let report = sound("storm --readers 10 --events 40", &url);
    assert_eq!(
        (&report["deliveries"], &report["open"]),
        (&400.into(), &10.into())
    );
    let report = sound("idle --readers 10 --own-filter 3 --seconds 10ms", &url);
    assert!(number(&report, "memory_after_bytes") > 1e5);
    let report = sound("idle --readers 10 --own-topics --seconds 10ms", &url);
    assert!(number(&report, "server_cpu_percent") >= 0.0);
    let report = sound(
        "topics --topics 300 --feeds 20 --events 50 --warmup 1ms",
        &url,
    );
    assert!(number(&report, "times_slower") > 0.0);
    let report = sound("topics --patterns 30 --events 50 --warmup 1ms", &url);
    assert_eq!(report["patterns_before"], 10);
}

#[test]
fn measures_a_broker_and_the_nodes_on_it() {
    for kind in Kind::ALL {
        let (url, dir) = (shared(kind).url(), TempDir::new().unwrap());
        let name = fresh_name();
        let journal = |mode: &str, name: &str| {
            let mode = format!("journal {mode} --json --url {url} --name {name}");
            let args: Vec<_> = ["bench"].into_iter().chain(mode.split(' ')).collect();
            let done = output(&mut tidings(&args, &dir));
            assert!(done.status.success(), "{mode}: {}", stderr(&done));
            serde_json::from_slice::<Value>(&done.stdout).unwrap()
        };
        let report = journal(
            "append --outstanding 8 --records 3 --seconds 200ms --warmup 10ms",
            &name,
        );
        let entries = number(&report, "entries_per_s");
        assert!(entries > 0.0 && number(&report, "publishes_per_s") > 2.0 * entries);
        let report = journal("latency --rate 200 --seconds 100ms --warmup 10ms", &name);
        assert!(number(&report, "latency_p99_ms") > 0.0);
        assert!(number(&journal("tail", &name), "entries") > 20.0);

        // A publish on one node is read on another; and what they wrote is there.
        let name = fresh_name();
        let node = || {
            let dir = TempDir::new().unwrap();
            let mut serve = tidings(&["serve", "--listen", "127.0.0.1:0"], &dir);
            serve.env("TIDINGS_CLUSTER__JOURNAL", &url);
            serve.env("TIDINGS_CLUSTER__NAME", &name);
            serve.env("TIDINGS_CLUSTER__JOURNAL_BYTES_MAX", "1GiB");
            let running = Running::start(&mut serve);
            let line = running.line();
            let at = line.find("http://").unwrap_or_else(|| panic!("{line}"));
            (running, line[at..].to_owned(), dir)
        };
        let (a, b) = (node(), node());
        wait_until_ready(&a.1);
        wait_until_ready(&b.1);
        let across = format!(
            "fan --publish-url {}/topics/{{topic}} --subscribe-url {}/topics/{{topic}} --readers 3 --events 20 \
             --warmup 0ms",
            a.1, b.1
        );
        assert_eq!(sound(&across, &a.1)["deliveries"], 60);
        assert!(number(&journal("tail --events 20", &name), "entries") > 0.0);
    }
}

fn wait_until_ready(url: &str) {
    let address = url.trim().strip_prefix("http://").unwrap();
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(super::DEADLINE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        if answer.contains(" 200 ") {
            return;
        }
        assert!(begun.elapsed() < super::DEADLINE, "{answer}");
        thread::sleep(Duration::from_millis(10)); // there is nothing that would tell
    }
}

#[test]
fn the_ceiling_delivers() {
    let dir = TempDir::new().unwrap();
    let (_ceiling, url) = start(&["bench", "ceiling"], &dir);
    let report = sound(
        "fan --hub plain --readers 7 --events 100 --warmup 1ms",
        &url,
    );
    assert_eq!(report["deliveries"], 700);
    // Addresses in one's own words, and a body with something around the data.
    let own = format!(
        "fan --publish-url {url}/a/{{topic}} --subscribe-url {url}/a/{{topic}} --publish-body <{{data}}> --readers 2 \
         --events 10 --warmup 1ms"
    );
    assert_eq!(sound(&own, &url)["deliveries"], 20);
}

#[test]
fn measures_the_disk_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let done = output(&mut tidings(&["bench", "disk", "--seconds", "50ms"], &dir));
    assert!(done.status.success(), "{}", stderr(&done));
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(
        told.contains("fsync p99 ms") && told.contains("sqlite events per s"),
        "{told}"
    );
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

/// What a server does to the event with this number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Skip,
    Repeat,
    /// Delivers it after the next.
    Delay,
    /// Delivers it to readers of other topics, too.
    Stray,
    Refuse,
    /// Closes a reader's connection.
    Close,
    /// Closes each publisher's connection after an answer, and says so: no fault.
    HangUp,
}

/// The event that gets it.
const FAULTY: usize = 5;

/// A server of few words: one thread per connection, and a fault.
struct Broken {
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: usize,
    delayed: Option<(String, String)>,
    readers: Vec<(String, TcpStream)>,
}

impl Broken {
    fn start(fault: Fault) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Mutex::default();
        let server = Arc::new(Self { fault, state });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        url
    }

    fn serve(&self, mut stream: TcpStream) {
        loop {
            let head = read_head(&mut stream);
            let Some(topic) = head.split(' ').nth(1).map(str::to_owned) else {
                return;
            };
            if head.starts_with("GET") {
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                let mut state = self.state.lock().unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                state.readers.push((topic, stream));
                return;
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let mut data = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut data).unwrap();
            let stored = self.publish(&topic, String::from_utf8(data).unwrap());
            let status = if stored { "201 Created" } else { "503 Busy" };
            let close = if self.fault == Fault::HangUp {
                "Connection: close\r\n"
            } else {
                ""
            };
            let answer = format!("HTTP/1.1 {status}\r\n{close}Content-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_err() || !close.is_empty() {
                return;
            }
        }
    }

    fn publish(&self, topic: &str, data: String) -> bool {
        let mut state = self.state.lock().unwrap();
        // Events that only find out whether readers are there have this lane.
        let is_probe = &data[10..18] == "ffffffff";
        state.events += usize::from(!is_probe);
        let faulty = !is_probe && state.events == FAULTY;
        match self.fault {
            Fault::Skip if faulty => return true,
            Fault::Refuse if faulty => return false,
            Fault::Delay if faulty => state.delayed = Some((topic.to_owned(), data)),
            Fault::Close if faulty => drop(state.readers.remove(0)),
            Fault::Stray if faulty => {
                let topics: Vec<_> = state
                    .readers
                    .iter()
                    .map(|(topic, _)| topic.clone())
                    .collect();
                topics.iter().for_each(|topic| state.deliver(topic, &data));
            }
            _ => {
                state.deliver(topic, &data);
                if self.fault == Fault::Repeat && faulty {
                    state.deliver(topic, &data);
                }
                if let Some((topic, data)) = state.delayed.take() {
                    state.deliver(&topic, &data);
                }
            }
        }
        true
    }
}

impl State {
    fn deliver(&mut self, topic: &str, data: &str) {
        let event = format!("id: {}\ndata: {data}\n\n", self.events);
        for (_, reader) in self.readers.iter_mut().filter(|(name, _)| name == topic) {
            // A reader may have left.
            let _ = reader.write_all(event.as_bytes());
        }
    }
}

#[test]
fn a_broken_promise_is_found_out() {
    // Two readers of one topic; with strays, a topic each.
    let table = [
        (Fault::None, "", 0),
        (Fault::HangUp, "", 0),
        (Fault::Skip, "gaps", 2),
        (Fault::Repeat, "duplicates", 2),
        (Fault::Delay, "disorder", 2),
        (Fault::Stray, "strays", 1),
        (Fault::Refuse, "refused", 1),
        (Fault::Close, "lost_readers", 1),
    ];
    // At the same time, since some wait for what never comes.
    thread::scope(|scope| {
        for (fault, name, count) in table {
            scope.spawn(move || found_out(fault, name, count));
        }
    });
}

fn found_out(fault: Fault, name: &str, count: u64) {
    let url = Broken::start(fault);
    let own = if fault == Fault::Stray {
        " --own-topics"
    } else {
        ""
    };
    let mode = format!("fan --hub plain --readers 2 --connections 1 --events 20 --warmup 0ms{own}");
    // An event that was refused, or whose reader is gone, is missing too.
    let missing = matches!(fault, Fault::Refuse | Fault::Close);
    let patience = if missing || fault == Fault::Skip {
        "5s"
    } else {
        "30s"
    };
    let (output, report) = bench(&mode, &url, patience);
    let code = i32::from(!name.is_empty());
    assert_eq!(output.status.code(), Some(code), "{fault:?}: {report}");
    for kind in [
        "gaps",
        "duplicates",
        "disorder",
        "strays",
        "refused",
        "lost_readers",
    ] {
        if kind == name || !missing {
            let expected = if kind == name { count } else { 0 };
            assert_eq!(report[kind], expected, "{fault:?}: {report}");
        }
    }
}

#[test]
fn a_server_without_a_log_fails_the_storm() {
    let url = Broken::start(Fault::None);
    let (output, report) = bench("storm --hub plain --readers 3 --events 20", &url, "5s");
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["gaps"], 60, "{report}");
}

#[test]
fn says_what_keeps_it_from_measuring() {
    let dir = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let table = [
        (vec!["fan", "--url", "localhost"], "begins with http://"),
        (vec!["fan", "--size", "10"], "42 bytes at least"),
        (
            vec!["fan", "--hub", "nchan", "--transport", "ws"],
            "only tidings",
        ),
        (
            vec!["fan", "--url", &gone, "--readers", "1"],
            "connection failed",
        ),
        (
            vec![
                "publish",
                "--url",
                &gone,
                "--events",
                "1",
                "--patience",
                "1s",
            ],
            "refused",
        ),
    ];
    for (args, told) in table {
        let done = output(tidings(&["bench"], &dir).args(&args));
        assert_eq!(done.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&done).to_lowercase().contains(told),
            "{args:?}: {}",
            stderr(&done)
        );
        assert!(done.stdout.is_empty());
    }
}
