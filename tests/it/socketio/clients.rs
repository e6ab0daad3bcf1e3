//! Clients of Socket.IO, several to a process: the programs in `tests/clients`.

use crate::support::{client, process, wait::in_time};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};
use tokio::sync::mpsc::{Receiver, channel};

/// Longer than anything takes on a busy machine: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines read and not yet looked at.
const LINES_MAX: usize = 1 << 20;

/// A process with clients by name. It is ended on drop.
pub(super) struct Clients {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// What was read while another client was waited for.
    held: HashMap<String, VecDeque<Value>>,
    calls: u64,
}

impl Clients {
    /// npm `socket.io-client` 4 and 2, in Node.
    pub(super) async fn node() -> Self {
        Self::start(client::node("socketio.mjs")).await
    }

    /// npm `socket.io-client` 4 in Chromium, on a page of that host.
    pub(super) async fn chromium(host: &str) -> Self {
        let mut command = client::node("socketio_page.mjs");
        command.arg(host);
        Self::start(command).await
    }

    /// PyPI `python-socketio`, one client without a name.
    pub(super) async fn python(url: &str, transport: &str, topics: &[&str]) -> Self {
        let mut command = Command::new(client::installed("venv/bin/python"));
        command.arg(client::script("socketio.py"));
        command.args([url, transport]).args(topics);
        Self::start(command).await
    }

    async fn start(mut command: Command) -> Self {
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = process.spawn().expect("`make test` installs it");
        let stdout = process.stdout.take().expect("its output");
        let (send, lines) = channel(LINES_MAX);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // A process that is ended ends in the middle of a line.
                let Ok(line) = serde_json::from_str(&line) else {
                    return;
                };
                let _ = send.blocking_send(line);
            }
        });
        let stdin = process.stdin.take();
        let mut this = Self {
            process,
            stdin,
            lines,
            held: HashMap::new(),
            calls: 0,
        };
        assert_eq!(this.next("").await["ready"], true);
        this
    }

    /// Has it do something.
    pub(super) fn tell(&mut self, command: &Value) {
        let stdin = self.stdin.as_mut().expect("its input");
        writeln!(stdin, "{command}").expect("a process that listens");
    }

    /// Sends a line as it is.
    pub(super) fn line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input");
        writeln!(stdin, "{line}").expect("a process that listens");
    }

    /// Connects a client, which listens to what `listen` says, and waits until it is connected, by the last of its
    /// transports.
    pub(super) async fn connect(
        &mut self,
        name: &str,
        url: &str,
        kind: Kind,
        listen: Option<Value>,
    ) {
        self.begin(name, url, kind, listen);
        let mut transport = self.connected(name).await;
        if kind.transports.len() == 2 && transport == kind.transports[0] {
            let line = self.find(name, "upgraded").await;
            transport = line["upgraded"].as_str().unwrap().to_owned();
        }
        assert_eq!(kind.transports.last(), Some(&&*transport), "{kind:?}");
    }

    /// The same without waiting.
    pub(super) fn begin(&mut self, name: &str, url: &str, kind: Kind, listen: Option<Value>) {
        let mut command = json!({"connect": name, "url": url, "version": kind.version, "options": {"transports": kind.transports}});
        if let Some(listen) = listen {
            command["listen"] = listen;
        }
        self.tell(&command);
    }

    /// Waits until a client is connected (again); what failed before is no news.
    pub(super) async fn connected(&mut self, name: &str) -> String {
        let line = self.find(name, "connected").await;
        line["connected"].as_str().unwrap().to_owned()
    }

    /// The acknowledgement of an event.
    pub(super) async fn call(&mut self, name: &str, args: Value) -> Value {
        let call = self.send(name, &args);
        self.answer(name, call).await
    }

    /// Emits an event without waiting. Gives what its answer is known by.
    pub(super) fn send(&mut self, name: &str, args: &Value) -> u64 {
        self.calls += 1;
        self.tell(&json!({"emit": name, "args": args, "call": self.calls}));
        self.calls
    }

    pub(super) async fn answer(&mut self, name: &str, call: u64) -> Value {
        let answer = |line: Value| (line["call"] == call).then(|| line["answer"].clone());
        self.first(name, "an answer", answer).await
    }

    /// What `ok` has in the acknowledgement of an event.
    pub(super) async fn ok(&mut self, name: &str, args: Value) -> Value {
        let answer = self.call(name, args.clone()).await;
        assert_eq!(answer.as_object().map(|all| all.len()), Some(1), "{answer}");
        assert!(answer["ok"].is_object(), "{args}: {answer}");
        answer["ok"].clone()
    }

    /// The last segment of the problem's type in the acknowledgement of an event, and the problem.
    pub(super) async fn error(&mut self, name: &str, args: Value) -> (String, Value) {
        let answer = self.call(name, args.clone()).await;
        assert_eq!(answer.as_object().map(|all| all.len()), Some(1), "{answer}");
        let problem = &answer["error"];
        let kind = problem["type"]
            .as_str()
            .unwrap_or_else(|| panic!("{args}: {answer}"));
        let kind = kind.strip_prefix("/problems/").unwrap().to_owned();
        (kind, problem.clone())
    }

    /// The next event of a client: its data and its subscription.
    pub(super) async fn event(&mut self, name: &str) -> (String, String) {
        let line = self.next(name).await;
        assert!(line["event"].is_object(), "{line}");
        let data = line["event"]["data"].as_str().unwrap().to_owned();
        (data, line["sub"].as_str().unwrap().to_owned())
    }

    /// The data of all events of a client up to that one, over any number of reconnects; nothing may be told beside them.
    pub(super) async fn until(&mut self, name: &str, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        let until = |line: Value| {
            for told in ["gap", "closed"] {
                assert!(
                    line.get(told).is_none(),
                    "{line} after {} events",
                    all.len()
                );
            }
            let data = line["event"]["data"].as_str()?;
            all.push(data.to_owned());
            (data == last).then_some(())
        };
        self.first(name, last, until).await;
        all
    }

    /// The next line of a client that has this member; those before it are let go of.
    pub(super) async fn find(&mut self, name: &str, member: &str) -> Value {
        let found = |line: Value| line.get(member).is_some().then_some(line);
        self.first(name, member, found).await
    }

    /// The next thing that a client sees.
    pub(super) async fn next(&mut self, name: &str) -> Value {
        self.first(name, "a line", Some).await
    }

    /// The first that is wanted of what a client sees, which must come in time, whatever it sees before.
    pub(super) async fn first<T>(
        &mut self,
        name: &str,
        what: &str,
        mut wanted: impl FnMut(Value) -> Option<T>,
    ) -> T {
        let first = async {
            loop {
                if let Some(wanted) = wanted(self.line_of(name).await) {
                    return wanted;
                }
            }
        };
        in_time(PATIENCE, format!("{what:?} of {name:?}"), first).await
    }

    /// The next line of a client, for which it waits for ever.
    async fn line_of(&mut self, name: &str) -> Value {
        if let Some(line) = self.held.get_mut(name).and_then(VecDeque::pop_front) {
            return line;
        }
        loop {
            let line = self.lines.recv().await;
            let line = line.unwrap_or_else(|| panic!("the process of {name:?} ended"));
            let of = line["client"].as_str().unwrap_or_default().to_owned();
            if of == name {
                return line;
            }
            self.held.entry(of).or_default().push_back(line);
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.lines.close();
        drop(self.stdin.take());
        process::end(&mut self.process);
    }
}

/// Which client, by which transports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) version: u8,
    pub(super) transports: &'static [&'static str],
}

const fn kind(version: u8, transports: &'static [&'static str]) -> Kind {
    Kind {
        version,
        transports,
    }
}

pub(super) const POLLING: Kind = kind(4, &["polling"]);
pub(super) const WEBSOCKET: Kind = kind(4, &["websocket"]);
pub(super) const UPGRADE: Kind = kind(4, &["polling", "websocket"]);

/// All of them.
pub(super) const KINDS: [Kind; 6] = [
    POLLING,
    WEBSOCKET,
    UPGRADE,
    kind(2, &["polling"]),
    kind(2, &["websocket"]),
    kind(2, &["polling", "websocket"]),
];
