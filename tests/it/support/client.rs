//! Real clients, each in a process of its own: `curl -N`, and the programs in `tests/clients`.

use super::{
    process::{self, PATIENCE_AT_END, kill_all, signal},
    wait::in_time,
    watchdog,
};
use serde::Deserialize;
use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::timeout,
};

/// Longer than anything takes on a busy machine: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same for messages of any number.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(300);
/// Lines read and not yet looked at. A client whose lines nobody takes waits, as it would at a pipe.
const LINES_MAX: usize = 1024;

/// A message as a client hands it to its user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
}

impl Message {
    /// An event without a name of its own.
    pub(crate) fn new(id: &str, data: &str) -> Self {
        Self {
            id: id.to_owned(),
            event: "message".to_owned(),
            data: data.to_owned(),
        }
    }
}

/// One thing that a client saw on a stream.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Seen {
    /// A message or a control event.
    Message(Message),
    /// The stream is open, perhaps again.
    Open { open: bool },
    /// It ended or failed. Most clients come back by themselves.
    Lost { lost: bool },
    /// It was closed as asked for.
    Closed { closed: bool },
    /// The browser has its page.
    Ready { ready: bool },
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    stream: String,
    #[serde(flatten)]
    seen: Seen,
}

/// A client that runs. It is ended on drop.
pub(crate) struct Client {
    name: &'static str,
    pid: u32,
    exited: mpsc::Receiver<ExitStatus>,
    stdin: Option<ChildStdin>,
    lines: Receiver<(String, Seen)>,
    /// What was read while another stream of the same client was waited for.
    held: HashMap<String, VecDeque<Seen>>,
    /// What it wrote to standard error, at its end.
    complaints: mpsc::Receiver<Vec<u8>>,
}

/// What runs in the browser.
#[derive(Clone, Copy)]
pub(crate) enum Library {
    /// Chromium's own.
    EventSource,
    /// npm `event-source-polyfill`.
    Polyfill,
    /// npm `@microsoft/fetch-event-source`.
    FetchEventSource,
    /// Chromium's own WebSocket.
    WebSocket,
}

impl Client {
    /// `curl -N`, whose output is read strictly: each blank line ends a message, even an empty one.
    pub(crate) fn curl(url: &str, last_event_id: Option<&str>) -> Self {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "*", "--globoff", "-N", url]);
        if let Some(id) = last_event_id {
            command.args(["-H", &format!("Last-Event-ID: {id}")]);
        }
        Self::spawn("curl", command, strict_lines)
    }

    /// npm `eventsource`.
    pub(crate) fn eventsource(url: &str) -> Self {
        let mut command = node("eventsource.mjs");
        command.arg(url);
        Self::spawn("eventsource", command, json_lines)
    }

    /// PyPI `httpx-sse`.
    pub(crate) fn httpx_sse(url: &str, last_event_id: Option<&str>) -> Self {
        let mut command = Command::new(installed("venv/bin/python"));
        command.arg(script("httpx_sse.py")).arg(url);
        command.args(last_event_id);
        Self::spawn("httpx-sse", command, json_lines)
    }

    /// npm `ws`.
    pub(crate) fn ws(url: &str) -> Self {
        let mut command = node("ws.mjs");
        command.arg(url);
        Self::spawn("ws", command, json_lines)
    }

    /// PyPI `websockets`.
    pub(crate) fn websockets(url: &str) -> Self {
        let mut command = Command::new(installed("venv/bin/python"));
        command.arg(script("websockets_client.py")).arg(url);
        Self::spawn("websockets", command, json_lines)
    }

    /// Chromium on the hub's own page; streams are opened in it by [`Client::open`].
    pub(crate) async fn chromium(origin: &str) -> Self {
        Self::browser(origin, &[]).await
    }

    /// Chromium on a page of another origin on this machine.
    pub(crate) async fn chromium_elsewhere(origin: &str) -> Self {
        Self::browser(origin, &["--elsewhere"]).await
    }

    /// Chromium on a page of that host, which is not the hub's.
    pub(crate) async fn chromium_as(origin: &str, host: &str) -> Self {
        Self::browser(origin, &["--as", host]).await
    }

    /// The walk over the hub's own page.
    pub(crate) fn page_walk(origin: &str) -> Self {
        let mut command = node("page.mjs");
        command.arg(origin);
        Self::spawn("the walk over the page", command, json_lines)
    }

    /// A script that ends by itself.
    pub(crate) fn walk(name: &'static str, arguments: &[&str]) -> Self {
        let mut command = node(name);
        command.args(arguments);
        Self::spawn(name, command, json_lines)
    }

    /// Chromium with tabs of the hub's own client.
    pub(crate) async fn tabs(origin: &str, flags: &[&str]) -> Self {
        Self::in_chromium("tabs.mjs", origin, flags).await
    }

    async fn browser(origin: &str, more: &[&str]) -> Self {
        Self::in_chromium("chromium.mjs", origin, more).await
    }

    async fn in_chromium(program: &str, origin: &str, more: &[&str]) -> Self {
        let mut command = node(program);
        command.arg(origin).args(more);
        let mut client = Self::spawn("chromium", command, json_lines);
        let ready = client.first("", "its page", Some).await;
        assert_eq!(ready, Seen::Ready { ready: true });
        client
    }

    /// Opens a stream in the browser, and waits until it is open.
    pub(crate) async fn open(&mut self, stream: &str, url: &str, library: Library) {
        self.try_to_open(stream, url, library);
        self.opened_of(stream).await;
    }

    /// The same for a stream that may not open.
    pub(crate) fn try_to_open(&mut self, stream: &str, url: &str, library: Library) {
        let library = match library {
            Library::EventSource => "EventSource",
            Library::Polyfill => "event-source-polyfill",
            Library::FetchEventSource => "fetch-event-source",
            Library::WebSocket => "WebSocket",
        };
        self.command(&serde_json::json!({"open": stream, "url": url, "with": library}));
    }

    /// Publishes on a WebSocket, in the browser on that stream.
    pub(crate) fn publish(&mut self, stream: &str, reference: &str, event: &serde_json::Value) {
        self.command(&serde_json::json!({"publish": event, "ref": reference, "on": stream}));
    }

    /// Closes a stream in the browser.
    pub(crate) async fn close(&mut self, stream: &str) {
        self.command(&serde_json::json!({"close": stream}));
        self.closed_of(stream).await;
    }

    /// Waits until a stream in the browser is closed.
    pub(crate) async fn closed_of(&mut self, stream: &str) {
        let closed = |seen| matches!(seen, Seen::Closed { closed: true }).then_some(());
        self.first(stream, "the end", closed).await;
    }

    /// Tells its program what to do.
    pub(crate) fn command(&mut self, command: &serde_json::Value) {
        let stdin = self.stdin.as_mut().expect("its input");
        writeln!(stdin, "{command}").expect("a program that listens");
    }

    /// Waits until the stream is open.
    pub(crate) async fn opened(&mut self) {
        self.opened_of("").await;
    }

    /// [`Client::opened`] of one stream in the browser. Failed tries before it are not news.
    pub(crate) async fn opened_of(&mut self, stream: &str) {
        let name = self.name;
        let opened = |seen| match seen {
            Seen::Open { .. } => Some(()),
            Seen::Lost { .. } => None,
            other => panic!("{name}: {other:?} before {stream:?} was open"),
        };
        self.first(stream, "an open stream", opened).await;
    }

    /// The messages up to and including the one with this data, over any number of reconnects.
    pub(crate) async fn until(&mut self, data: &str) -> Vec<Message> {
        self.until_of("", data).await
    }

    /// [`Client::until`] on one stream in the browser.
    pub(crate) async fn until_of(&mut self, stream: &str, data: &str) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        let until = async {
            while messages.last().is_none_or(|last| last.data != data) {
                messages.push(self.message_of(stream).await);
            }
        };
        let what = format!("the messages up to {data:?} on {stream:?}");
        in_time(PATIENCE_FOR_ALL, what, until).await;
        messages
    }

    /// The messages before the stream is lost.
    pub(crate) async fn until_lost(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        let until = |seen| match seen {
            Seen::Message(message) => {
                messages.push(message);
                None
            }
            _ => Some(()),
        };
        self.first("", "the end of the stream", until).await;
        messages
    }

    /// The next message, over any number of reconnects.
    pub(crate) async fn message(&mut self) -> Message {
        self.message_of("").await
    }

    /// [`Client::message`] on one stream in the browser.
    pub(crate) async fn message_of(&mut self, stream: &str) -> Message {
        let message = |seen| match seen {
            Seen::Message(message) => Some(message),
            _ => None,
        };
        self.first(stream, "a message", message).await
    }

    /// Waits until it has ended by itself, and well.
    pub(crate) async fn ended_well(mut self) {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        assert!(
            matches!(line, Ok(None)),
            "{}: {line:?} and no end",
            self.name
        );
        let status = self.exited.recv_timeout(PATIENCE).expect("its exit status");
        if !status.success() {
            panic!("{}: {status}: {}", self.name, self.complaints());
        }
    }

    /// The first that is wanted of what it sees on a stream, which must come in time, whatever it sees before.
    async fn first<T>(
        &mut self,
        stream: &str,
        what: &str,
        mut wanted: impl FnMut(Seen) -> Option<T>,
    ) -> T {
        let what = format!("{}: {what} on {stream:?}", self.name);
        let first = async {
            loop {
                if let Some(wanted) = wanted(self.next_of(stream).await) {
                    return wanted;
                }
            }
        };
        in_time(PATIENCE, what, first).await
    }

    /// What it sees next on a stream, for which it waits for ever.
    async fn next_of(&mut self, stream: &str) -> Seen {
        if let Some(seen) = self.held.get_mut(stream).and_then(VecDeque::pop_front) {
            return seen;
        }
        loop {
            match self.lines.recv().await {
                Some((of, seen)) if of == stream => return seen,
                Some((of, seen)) => self.held.entry(of).or_default().push_back(seen),
                None => panic!("{} ended: {}", self.name, self.complaints()),
            }
        }
    }

    /// What it wrote to standard error, once its output has ended.
    fn complaints(&self) -> String {
        let complaints = self.complaints.recv_timeout(PATIENCE_AT_END);
        // Its output has ended also if what it printed could not be read.
        let complaints = complaints.unwrap_or_else(|_| b"it goes on, in silence".to_vec());
        String::from_utf8_lossy(&complaints).into_owned()
    }

    fn spawn(name: &'static str, mut command: Command, read: Reader) -> Self {
        watchdog::watch();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}: `make test` installs it"));
        let stdout = process.stdout.take().expect("its output");
        let complaints = process::bytes(process.stderr.take().expect("its errors"));
        let (send, lines) = channel(LINES_MAX);
        let (pid, stdin) = (process.id(), process.stdin.take());
        let (send_exit, exited) = mpsc::sync_channel(1);
        thread::spawn(move || read(BufReader::new(stdout), &send));
        // Apart from it, for what is printed may be such that the reader panics.
        thread::spawn(move || send_exit.send(process.wait().expect("its exit status")));
        Self {
            name,
            pid,
            exited,
            stdin,
            lines,
            held: HashMap::new(),
            complaints,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Not SIGKILL at first: Chromium is to go as well, with its profile. A client that waits to be
        // read goes on, because its reader drains what nobody takes any more.
        self.lines.close();
        drop(self.stdin.take());
        if self.exited.try_recv() == Err(mpsc::TryRecvError::Empty) {
            signal("TERM", self.pid);
            if self.exited.recv_timeout(PATIENCE_AT_END).is_err() {
                kill_all(self.pid);
            }
        }
    }
}

type Reader = fn(BufReader<ChildStdout>, &Sender<(String, Seen)>);

fn json_lines(output: BufReader<ChildStdout>, send: &Sender<(String, Seen)>) {
    for line in output.lines().map_while(Result::ok) {
        let line: Line = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let _ = send.blocking_send((line.stream, line.seen));
    }
}

/// An event stream read without mercy: unlike the standard's parser, this one also gives a message
/// for a block without data, because popular clients do.
fn strict_lines(output: BufReader<ChildStdout>, send: &Sender<(String, Seen)>) {
    let send = |seen| {
        let _ = send.blocking_send((String::new(), seen));
    };
    let (mut id, mut event) = (String::new(), String::new());
    let mut data: Vec<String> = Vec::new();
    let mut open = false;
    for line in output.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8(line).expect("an event stream is UTF-8");
        if !open {
            open = true;
            send(Seen::Open { open });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut id),
            "event" => value.clone_into(&mut event),
            "data" => data.push(value.to_owned()),
            // Comments begin with a colon.
            "retry" => assert!(value.parse::<u32>().is_ok(), "{line}"),
            "" if line.starts_with(':') => {}
            "" => {
                let event = std::mem::take(&mut event);
                send(Seen::Message(Message {
                    id: std::mem::take(&mut id),
                    event: if event.is_empty() {
                        "message".to_owned()
                    } else {
                        event
                    },
                    data: std::mem::take(&mut data).join("\n"),
                }));
            }
            _ => panic!("not a line of an event stream: {line:?}"),
        }
    }
    send(Seen::Lost { lost: true });
}

pub(crate) fn node(name: &str) -> Command {
    installed("node_modules");
    let mut command = Command::new("node");
    command.arg(script(name));
    command
}

/// The payloads of `payloads.mjs`: topic and body.
pub(crate) fn github_payloads() -> Vec<(String, String)> {
    #[derive(Deserialize)]
    struct Payload {
        event: String,
        body: String,
    }
    let output = process::output(&mut node("payloads.mjs"), PATIENCE);
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let payload = |line| serde_json::from_str(line).expect("a payload");
    let payloads = lines.lines().map(payload);
    payloads
        .map(|p: Payload| (format!("github/{}", p.event), p.body))
        .collect()
}

pub(crate) fn script(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    [folder, name].iter().collect()
}

pub(crate) fn installed(name: &str) -> PathBuf {
    let path = script(name);
    assert!(
        path.exists(),
        "{} is missing: `make test` installs it",
        path.display()
    );
    path
}
