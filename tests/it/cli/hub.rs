//! Against the hub itself.

use super::{Running, output, read_head, run, stderr, stdout, tidings};
use crate::support::process::kill;
use std::{
    io::Write as _,
    net::TcpStream,
    process::{Command, Output},
};
use tempfile::TempDir;

/// The hub itself.
struct Hub {
    running: Running,
    url: String,
    dir: TempDir,
}

impl Hub {
    fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), "127.0.0.1:0")
    }

    fn start_in(dir: TempDir, listen: &str) -> Self {
        let mut command = tidings(&["serve", "--listen", listen], &dir);
        let running = Running::start(&mut command);
        let line = running.line();
        let version = env!("CARGO_PKG_VERSION");
        let url = line.strip_prefix(&format!("Tidings {version} is listening on "));
        let url = url.unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { running, url, dir }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = tidings(args, &self.dir);
        command.env("TIDINGS_URL", &self.url);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        output(&mut self.client(args))
    }
}

#[test]
fn the_hub_starts_says_where_and_stops() {
    let mut hub = Hub::start();
    assert!(!hub.url.ends_with(":0"));
    let url = hub.url.clone();
    assert_eq!(hub.running.line(), format!("  page       {url}/"));
    assert!(
        hub.running
            .line()
            .contains(&format!("curl -N {url}/topics/demo"))
    );
    assert!(
        hub.running
            .line()
            .contains(&format!("curl -d 'hello' {url}/topics/demo"))
    );
    assert!(hub.running.line().contains("tidings-data"));
    hub.running.signal("-TERM");
    assert_eq!(hub.running.wait().code(), Some(0));
}

#[test]
fn ctrl_c_stops_it_too_and_no_command_means_serve() {
    let dir = TempDir::new().unwrap();
    let args = ["--listen", "localhost:0", "--data-dir", "here"];
    let mut hub = Running::start(&mut tidings(&args, &dir));
    assert!(hub.line().starts_with("Tidings "));
    hub.signal("-INT");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn listening_beyond_loopback_warns() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(&mut tidings(&["serve", "--listen", "0.0.0.0:0"], &dir));
    assert!(hub.line().contains("http://0.0.0.0:"));
    assert!(hub.line().contains("  page       http://127.0.0.1:"));
    hub.error_line("anyone who reaches the port may publish");
}

#[test]
fn a_taken_port_is_told_with_its_taker() {
    let hub = Hub::start();
    let other = run(&["serve", "--listen", hub.address()]);
    assert_eq!(other.status.code(), Some(1));
    let told = stderr(&other);
    let taker = format!("taken by process {} (tidings)", hub.running.child.id());
    assert!(told.contains(&taker), "{told}");
    assert!(told.contains("--listen 127.0.0.1:"), "{told}");
}

#[test]
fn a_taken_data_directory_is_told() {
    let hub = Hub::start();
    let args = ["serve", "--listen", "127.0.0.1:0"];
    let other = output(&mut tidings(&args, &hub.dir));
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr(&other).contains("tidings-data"),
        "{}",
        stderr(&other)
    );
    assert!(other.stdout.is_empty());
}

#[test]
fn a_second_signal_ends_at_once() {
    let dir = TempDir::new().unwrap();
    let mut command = tidings(&["--listen", "127.0.0.1:0"], &dir);
    let mut hub = Running::start(command.env("TIDINGS_SERVER__DRAIN_TIMEOUT", "1h"));
    let line = hub.line();
    let (_, address) = line.split_once("http://").unwrap();
    // A publish under way, for which a drain waits.
    let mut publisher = TcpStream::connect(address).unwrap();
    let head = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    publisher.write_all(head.as_bytes()).unwrap();
    assert!(read_head(&mut publisher).starts_with("HTTP/1.1 100 "));
    hub.signal("-TERM");
    hub.error_line("a second signal ends at once");
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(130));
}

#[test]
fn publish_and_subscribe() {
    let hub = Hub::start();
    let first = hub.run(&[
        "publish", "demo/1", "one", "--event", "greeting", "--own-id", "o1",
    ]);
    assert!(first.status.success(), "{}", stderr(&first));
    let id = stdout(&first).trim().to_owned();
    assert!(id.contains('-'), "{id}");

    let args = ["subscribe", "demo/*", "--json", "--since", "earliest"];
    let reader = Running::start(&mut hub.client(&args));
    let event: serde_json::Value = serde_json::from_str(&reader.line()).unwrap();
    assert_eq!(event["topic"], "demo/1");
    assert_eq!(event["id"], *id);
    assert_eq!(event["own_id"], "o1");
    assert_eq!(event["event"], "greeting");
    assert_eq!(event["data"], "one");

    let mut publisher = Running::start(&mut hub.client(&["publish", "demo/2"]));
    let mut stdin = publisher.child.stdin.take().unwrap();
    stdin.write_all("zwei\nZeilen, größer".as_bytes()).unwrap();
    drop(stdin);
    assert!(publisher.wait().success());
    let event: serde_json::Value = serde_json::from_str(&reader.line()).unwrap();
    assert_eq!(event["data"], "zwei\nZeilen, größer");

    let twice = ["publish", "demo/3", "x", "--idempotency-key", "k"];
    let (once, again) = (hub.run(&twice), hub.run(&twice));
    assert_eq!(stdout(&once), stdout(&again));
    assert!(stderr(&again).contains("published before"));

    let refused = hub.run(&["publish", "demo/3", "x", "--event", "tidings.x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("tidings."),
        "{}",
        stderr(&refused)
    );

    let tail = Running::start(&mut hub.client(&["subscribe", "demo/1", "--tail", "1"]));
    assert_eq!(tail.line(), "one");
    let after = Running::start(&mut hub.client(&[
        "subscribe",
        "demo/3",
        "demo/1",
        "--last-event-id",
        "o1",
    ]));
    assert_eq!(after.line(), "x");
}

#[test]
fn publish_lines_as_they_come() {
    let hub = Hub::start();
    let reader = Running::start(&mut hub.client(&["subscribe", "lines", "--since", "earliest"]));
    let mut publisher = Running::start(&mut hub.client(&["publish", "lines", "--lines"]));
    let mut stdin = publisher.child.stdin.take().unwrap();
    // Each line is answered and delivered before the next one is written.
    for number in 0..20 {
        writeln!(stdin, "line {number}").unwrap();
        assert!(publisher.line().contains('-'));
        assert_eq!(reader.line(), format!("line {number}"));
    }
    stdin.write_all(b"\xFF\r\nlast").unwrap();
    drop(stdin);
    publisher.error_line("line 21 is not UTF-8: not published");
    assert_eq!(publisher.wait().code(), Some(1));
    assert_eq!(reader.line(), "last");
}

#[test]
fn subscribe_survives_a_hub_that_is_killed() {
    let mut hub = Hub::start();
    let reader = Running::start(&mut hub.client(&["subscribe", "demo", "--since", "earliest"]));
    assert!(hub.run(&["publish", "demo", "before"]).status.success());
    assert_eq!(reader.line(), "before");
    kill(&mut hub.running.child);
    reader.error_line("connecting again");
    let address = hub.address().to_owned();
    let Hub { running, dir, .. } = hub;
    drop(running);
    let hub = Hub::start_in(dir, &address);
    assert!(hub.run(&["publish", "demo", "after"]).status.success());
    assert_eq!(reader.line(), "after");
}

#[test]
fn a_new_epoch_is_told_to_readers() {
    let mut hub = Hub::start();
    let published = hub.run(&["publish", "demo", "one"]);
    assert!(published.status.success());
    let id = stdout(&published).trim().to_owned();
    hub.running.signal("-TERM");
    assert_eq!(hub.running.wait().code(), Some(0));
    let address = hub.address().to_owned();
    let Hub { running, dir, .. } = hub;
    drop(running);

    let output = output(&mut tidings(&["log", "new-epoch"], &dir));
    assert!(output.status.success(), "{}", stderr(&output));
    let (epoch, _) = id.split_once('-').unwrap();
    assert!(stdout(&output).contains(epoch), "{}", stdout(&output));

    let hub = Hub::start_in(dir, &address);
    let args = ["subscribe", "demo", "--last-event-id", &id];
    let reader = Running::start(&mut hub.client(&args));
    reader.error_line("(epoch)");
    assert_eq!(reader.line(), "one");
}
