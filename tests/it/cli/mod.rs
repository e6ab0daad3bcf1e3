//! The command line does what its help says. Here: the program by itself; [`bench`]: what it measures; [`hub`]: with a
//! real hub; [`scripted`]: with one whose connections break at a certain byte.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bench;
mod hub;
mod scripted;

use crate::support::{
    process::{self, exit_within, line_by, lines},
    watchdog,
};
use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longer than anything here takes; a test that gets here fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// The program, in an empty folder and without any of its variables.
fn tidings(args: &[&str], dir: &TempDir) -> Command {
    watchdog::watch();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(args).current_dir(dir.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end, which must come in time.
fn output(command: &mut Command) -> Output {
    process::output(command, DEADLINE)
}

fn run(args: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    output(&mut tidings(args, &dir))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running program whose lines come through channels, so that no read waits for ever.
struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).unwrap()
    }

    /// The first line on standard error that has the text.
    fn error_line(&self, text: &str) -> String {
        let by = Instant::now() + DEADLINE;
        loop {
            let line = line_by(&self.stderr, by).expect(text);
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn wait(&mut self) -> ExitStatus {
        exit_within(&mut self.child, DEADLINE).expect("the program's end")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn help_and_usage() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    for word in [
        "serve",
        "publish",
        "subscribe",
        "config",
        "log",
        "curl -d hello",
    ] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let version = run(&["--version"]);
    assert_eq!(
        stdout(&version),
        format!("tidings {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["serve", "--port", "1"]).status.code(), Some(2));
    assert_eq!(run(&["subscribe"]).status.code(), Some(2));
}

#[test]
fn config_prints_and_checks() {
    let dir = TempDir::new().unwrap();
    let args = ["config", "--listen", "127.0.0.1:9000"];
    let mut command = tidings(&args, &dir);
    let printed = output(command.env("TIDINGS_LOG__DURABILITY", "os"));
    assert!(printed.status.success());
    let text = stdout(&printed);
    assert!(
        text.contains("listen = \"127.0.0.1:9000\" # flag --listen; default"),
        "{text}"
    );
    assert!(
        text.contains("durability = \"os\" # environment variable TIDINGS_LOG__DURABILITY"),
        "{text}"
    );

    std::fs::write(dir.path().join("tidings.toml"), text).unwrap();
    let again = output(&mut tidings(&["config"], &dir));
    assert!(stdout(&again).contains("durability = \"os\" # tidings.toml:"));

    std::fs::write(
        dir.path().join("tidings.toml"),
        "[log]\ndurabilty = \"os\"\n",
    )
    .unwrap();
    for command in ["config", "serve"] {
        let refused = output(&mut tidings(&[command], &dir));
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(
            stderr(&refused),
            "tidings: tidings.toml:2: unknown key log.durabilty; did you mean log.durability?\n"
        );
        assert!(refused.stdout.is_empty());
    }
}

#[test]
fn a_bad_trace_filter_is_told() {
    let dir = TempDir::new().unwrap();
    let mut command = tidings(&["serve"], &dir);
    let output = output(command.env("TIDINGS_TRACE", "a=b=c"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("tidings: TIDINGS_TRACE: expected"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn clients_refuse_what_cannot_work() {
    let cases: [(&[&str], &str); 7] = [
        (&["publish", "../healthz", "x"], "segment `.` or `..`"),
        (&["publish", "a/*", "x"], "no topic"),
        (&["subscribe", "a/**/b"], "last segment"),
        (
            &["publish", "a", "x", "--url", "https://127.0.0.1"],
            "speaks http:// only",
        ),
        (
            &["subscribe", "a", "--url", "localhost:1"],
            "expected the address of a hub",
        ),
        (&["publish", "a", "x", "--lines"], "leave out the data"),
        (
            &["--listen", "127.0.0.1:1", "publish", "a", "x"],
            "by --url",
        ),
    ];
    for (args, text) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&output).contains(text),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for args in [
        ["publish", "a", "x", "--url", &url],
        ["subscribe", "a", "b", "--url", &url],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(
            told.contains(&format!("cannot reach a hub at {url}: Connection refused")),
            "{told}"
        );
    }
}

#[test]
fn a_log_in_memory_has_no_epoch_to_renew() {
    let dir = TempDir::new().unwrap();
    let mut command = tidings(&["log", "new-epoch"], &dir);
    let output = output(command.env("TIDINGS_LOG__ENGINE", "memory"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("log.engine"),
        "{}",
        stderr(&output)
    );
}

/// A wrong directory is left as it is: not there, or empty.
#[test]
fn where_there_is_no_log_there_is_no_epoch_to_renew() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    for wrong in ["empty", "nothing"] {
        let args = ["log", "new-epoch", "--data-dir", wrong];
        let output = output(&mut tidings(&args, &dir));
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        let told = stderr(&output);
        let file = std::path::Path::new(wrong).join("log.sqlite");
        assert!(told.contains(file.to_str().unwrap()), "{told}");
        assert_eq!(stdout(&output), "");
    }
    assert!(!dir.path().join("nothing").exists());
    assert_eq!(
        std::fs::read_dir(dir.path().join("empty")).unwrap().count(),
        0
    );
}
