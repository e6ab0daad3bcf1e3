//! A hub in a process of its own, as a user runs it, so that it can be killed and started again.

use super::{
    process::{output, signal},
    watchdog,
};
use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

/// Longer than anything takes on a busy machine: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hub with a data directory of its own. It is ended by SIGTERM on drop.
pub(crate) struct HubProcess {
    home: tempfile::TempDir,
    data_dir: PathBuf,
    /// The one of the first start, kept over restarts so that clients find it again.
    port: u16,
    running: Option<Running>,
    http: reqwest::Client,
    environment: Vec<(&'static str, PathBuf)>,
}

struct Running {
    pid: u32,
    exited: Receiver<ExitStatus>,
    port: u16,
}

/// The hub's answer to a publish.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Published {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) duplicate: bool,
}

impl HubProcess {
    /// Starts a hub with this configuration (TOML; may be empty) on a free port.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(config, None)
    }

    /// The same, with its data elsewhere.
    pub(crate) fn start_in(config: &str, data_dir: Option<PathBuf>) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::write(home.path().join("tidings.toml"), config).expect("a configuration file");
        let data_dir = data_dir.unwrap_or_else(|| home.path().join("data"));
        let mut hub = Self::new(home, data_dir);
        hub.start_on(0);
        hub.port = hub.running().port;
        hub
    }

    /// Starts a hub that refuses to: it ends with exit code 1. Gives what it says.
    pub(crate) fn refused(config: &str) -> String {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::write(home.path().join("tidings.toml"), config).expect("a configuration file");
        let data_dir = home.path().join("data");
        let mut hub = Self::new(home, data_dir);
        hub.try_start_on(0).expect_err("a hub that does not start")
    }

    /// What `tidings config` prints of it.
    pub(crate) fn shown(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        let config = self.home.path().join("tidings.toml");
        command.arg("config").arg("--config").arg(config);
        let output = output(&mut command, PATIENCE);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// A hub that does not run yet, with its data in that place.
    pub(crate) fn not_started(data_dir: PathBuf) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::write(home.path().join("tidings.toml"), "").expect("a configuration file");
        Self::new(home, data_dir)
    }

    fn new(home: tempfile::TempDir, data_dir: PathBuf) -> Self {
        watchdog::watch();
        Self {
            data_dir,
            home,
            environment: Vec::new(),
            port: 0,
            running: None,
            // A connection per request: a kept one may belong to a hub that was killed.
            http: reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(PATIENCE)
                .build()
                .expect("an HTTP client"),
        }
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        self.start_on(self.port);
    }

    /// Starts it again with its data, but on a port that its clients do not know.
    pub(crate) fn start_elsewhere(&mut self) {
        self.start_on(0);
    }

    /// Gives it a variable from its next start on.
    pub(crate) fn set_env(&mut self, name: &'static str, value: PathBuf) {
        self.environment.push((name, value));
    }

    /// Starts it again where it was, unless it refuses: it ends with exit code 1 then. Gives what it says.
    pub(crate) fn try_start_again(&mut self) -> Result<(), String> {
        self.try_start_on(self.port)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let running = self.running.take().expect("a hub that runs");
        signal("KILL", running.pid);
        let status = running.exited.recv_timeout(PATIENCE);
        assert!(!status.expect("a killed hub is gone").success());
    }

    /// `kill -9` while this publish is under way: perhaps stored, perhaps not.
    pub(crate) fn kill_while_publishing(&mut self, topic: &str, data: &str, key: &str) {
        let mut publish = tokio::task::JoinSet::new();
        publish.spawn(answer(self.publish_request(topic, data, Some(key))));
        self.kill();
    }

    /// Stops the time for it: its connections stay, and nothing moves.
    pub(crate) fn pause(&self) {
        signal("STOP", self.running().pid);
    }

    /// Ends [`HubProcess::pause`].
    pub(crate) fn resume(&self) {
        signal("CONT", self.running().pid);
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        if let Some(running) = self.running.take() {
            signal("TERM", running.pid);
            let Ok(status) = running.exited.recv_timeout(PATIENCE) else {
                signal("KILL", running.pid);
                panic!("the hub did not end at SIGTERM; its log:\n{}", self.log());
            };
            assert!(status.success(), "{status}; its log:\n{}", self.log());
        }
    }

    /// Removes its data while it does not run.
    pub(crate) fn wipe(&self) {
        assert!(self.running.is_none());
        fs::remove_dir_all(self.data_dir()).expect("a data directory to remove");
    }

    /// The hub's address as its clients know it, such as `http://127.0.0.1:41234`.
    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same, for a raw connection.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The address of a stream of these topics and patterns, with more parameters as they are.
    pub(crate) fn events(&self, topics: &[&str], more: &str) -> String {
        let topics: Vec<_> = topics.iter().map(|t| format!("topic={t}")).collect();
        format!("{}/events?{}{more}", self.origin(), topics.join("&"))
    }

    /// Publishes one event, which is a new one.
    pub(crate) async fn publish(&self, topic: &str, data: &str) -> String {
        let (status, published) = self.post(topic, data, None).await.expect("an answer");
        assert_eq!((status, published.duplicate), (201, false));
        published.id
    }

    /// Publishes one event, perhaps again. An error is a hub that did not answer.
    pub(crate) async fn post(
        &self,
        topic: &str,
        data: &str,
        key: Option<&str>,
    ) -> reqwest::Result<(u16, Published)> {
        let request = self.publish_request(topic, data, key);
        let (status, answer) = answer(request).await?;
        let published: Published = serde_json::from_str(&answer)
            .unwrap_or_else(|_| panic!("{status} to a publish of {topic}: {answer}"));
        assert_eq!(published.topic, topic);
        Ok((status, published))
    }

    /// Publishes that many events in one request: `1`, `2`, `3`, ... Gives their ids.
    pub(crate) async fn publish_numbers(
        &self,
        topic: &str,
        numbers: std::ops::RangeInclusive<u32>,
    ) -> Vec<String> {
        let events: Vec<_> = numbers
            .map(|n| serde_json::json!({"topic": topic, "data": n.to_string()}))
            .collect();
        let request = self
            .http
            .post(format!("http://127.0.0.1:{}/publish", self.running().port))
            .header("Content-Type", "application/json")
            .body(serde_json::Value::from(events.clone()).to_string());
        let (status, answer) = answer(request).await.expect("an answer");
        assert_eq!(status, 201, "{answer}");
        let published: Vec<Published> = serde_json::from_str(&answer).expect("results");
        assert_eq!(published.len(), events.len());
        published.into_iter().map(|one| one.id).collect()
    }

    /// Publishes one event, and gives the answer as it comes.
    pub(crate) async fn post_raw(
        &self,
        topic: &str,
        data: &str,
        key: &str,
    ) -> reqwest::Result<(u16, String)> {
        answer(self.publish_request(topic, data, Some(key))).await
    }

    /// `GET`: the status and the body.
    pub(crate) async fn get(&self, path: &str) -> reqwest::Result<(u16, String)> {
        answer(self.http.get(format!("{}{path}", self.origin()))).await
    }

    fn publish_request(
        &self,
        topic: &str,
        data: &str,
        key: Option<&str>,
    ) -> reqwest::RequestBuilder {
        let url = format!("http://127.0.0.1:{}/topics/{topic}", self.running().port);
        let request = self.http.post(url).body(data.to_owned());
        match key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        }
    }

    fn start_on(&mut self, port: u16) {
        if let Err(text) = self.try_start_on(port) {
            panic!("the hub did not start; its log:\n{text}");
        }
    }

    fn try_start_on(&mut self, port: u16) -> Result<(), String> {
        let said = self.log().len();
        assert!(self.running.is_none(), "the hub runs");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a file for the hub's log");
        let mut child = self
            .command(port)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .spawn()
            .expect("the hub's binary");
        let pid = child.id();
        let stdout = child.stdout.take().expect("its output");
        let (send_exit, exited) = sync_channel(1);
        let (send_line, first_line) = sync_channel(1);
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = send_line.send(lines.next());
            lines.for_each(drop); // so that the hub never waits for a reader of its output
            let _ = send_exit.send(child.wait().expect("its exit status"));
        });
        let line = first_line.recv_timeout(PATIENCE);
        if let Ok(None) = line {
            let status = exited.recv_timeout(PATIENCE).expect("its exit status");
            let text = self.log().split_off(said);
            assert_eq!(status.code(), Some(1), "{text}");
            return Err(text);
        }
        let Ok(Some(Ok(line))) = line else {
            signal("KILL", pid);
            panic!("the hub did not start: {line:?}; its log:\n{}", self.log());
        };
        let port = line
            .strip_prefix("Tidings 0.1.0 is listening on http://127.0.0.1:")
            .and_then(|port| port.trim_end_matches('/').parse().ok())
            .unwrap_or_else(|| panic!("an unknown first line: {line:?}"));
        self.running = Some(Running { pid, exited, port });
        Ok(())
    }

    fn command(&self, port: u16) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .arg("--config")
            .arg(self.home.path().join("tidings.toml"))
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(self.data_dir())
            .current_dir(self.home.path());
        command
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a hub that runs")
    }

    /// Where its data is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("hub.log")
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        if thread::panicking() {
            if let Some(running) = self.running.take() {
                signal("KILL", running.pid);
            }
            eprint_log(&self.log());
        } else {
            self.terminate();
            let log = self.log();
            assert!(!log.contains("panicked"), "the hub's log:\n{log}");
        }
    }
}

/// What the hub said may tell why the test failed.
#[expect(clippy::print_stderr, reason = "shown by the test harness on failure")]
fn eprint_log(log: &str) {
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(40)..];
    eprintln!("the end of the hub's log:\n{}", last.join("\n"));
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<(u16, String)> {
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}
