//! The home of servers that a test starts: a directory, the processes in it, and a guard that removes both when the test
//! process has ended, however it ended.

use crate::support::{process, watchdog};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Waits for the end of its input, whose other end the test process holds and nobody else. Processes are listed as empty
/// files that bear their number; renaming the list keeps later ones from starting. A number that has been used again since
/// belongs to a process that is not at home here, and is left alone.
const GUARD: &str = r#"
    trap '' HUP INT TERM
    while read -r _; do :; done
    mv "$0/processes" "$0/ended"
    for process in "$0"/ended/*; do
        pid=${process##*/}
        case $(readlink "/proc/$pid/cwd") in
            "$0" | "$0"/*) kill -9 "$pid" ;;
        esac
    done
    tries=100
    until rm -rf "$0" || [ $((tries -= 1)) = 0 ]; do sleep 0.05; done
"#;

/// Lists itself, then becomes the server.
const LISTED: &str = r#"home=$0; : >"$home/processes/$$" && exec "$@""#;

/// A directory with servers in it. What is in it ends with it: on drop, or with the test process.
pub(crate) struct Home {
    path: PathBuf,
    guard: Child,
}

impl Home {
    /// An empty one below the system's temporary directory.
    pub(crate) fn new(name: &str) -> Self {
        watchdog::watch();
        let path = tempfile::Builder::new()
            .prefix(&format!("tidings-{name}-"))
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let path = path.canonicalize().expect("its path"); // as /proc has it
        fs::create_dir(path.join("processes")).expect("a list of processes");
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // so that Ctrl-C in a terminal is not for it
            .spawn()
            .expect("a shell");
        Self { path, guard }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where that file of its own is.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).expect("a file in a server's home");
        path
    }

    /// Starts a server: the process has the child's id, whatever it says goes to a file, and its working directory is here.
    pub(crate) fn run(&self, server: &Command) -> Child {
        let mut listed = Command::new("sh");
        listed.args(["-c", LISTED]).arg(&self.path);
        listed.arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            listed.env(name, value.expect("a variable that is set"));
        }
        listed
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .stdout(self.said())
            .stderr(self.said())
            .process_group(0)
            .spawn()
            .expect("a shell")
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&self, mut server: Child) {
        server.kill().expect("a signal to a child");
        self.ended(&mut server);
    }

    /// Waits until it is gone.
    pub(crate) fn ended(&self, server: &mut Child) {
        process::ended(server);
        // It was never there if the shell had not come so far.
        let _ = fs::remove_file(self.join("processes").join(server.id().to_string()));
    }

    /// The end of what the servers here have said, in all files that are named like logs.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        for folder in [self.path.clone(), self.join("log")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|e| e == "log") {
                    let said = fs::read(&path).unwrap_or_default();
                    let said = String::from_utf8_lossy(&said);
                    let lines: Vec<_> = said.lines().collect();
                    let last = &lines[lines.len().saturating_sub(30)..];
                    text += &format!("{}:\n{}\n", path.display(), last.join("\n"));
                }
            }
        }
        text
    }

    fn said(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.join("output.log"))
            .expect("a file for a server's output")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        process::ended(&mut self.guard);
    }
}
