//! Processes that a test starts: what they say, signals to them, and their end. Nothing here waits for ever.

use super::watchdog;
use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// For a process to end once it is told to: some have others to end first, for which they have patience of their own.
pub(crate) const PATIENCE_AT_END: Duration = Duration::from_secs(60);

/// Runs it to its end, which must come within `time`: else it is killed, with all that it has started.
pub(crate) fn output(command: &mut Command, time: Duration) -> Output {
    watchdog::watch();
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = command.spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = bytes(child.stdout.take().expect("its output"));
    let stderr = bytes(child.stderr.take().expect("its errors"));
    let status = exit_within(&mut child, time);
    if status.is_none() {
        kill(&mut child);
    }
    let [stdout, stderr] = [stdout, stderr].map(|all| all.recv_timeout(PATIENCE_AT_END));
    let Some(status) = status else {
        let text = |all: Vec<u8>| String::from_utf8_lossy(&all).into_owned();
        let [stdout, stderr] = [stdout, stderr].map(|all| text(all.unwrap_or_default()));
        panic!("{command:?} does not end within {time:?}:\n{stdout}\n{stderr}");
    };
    Output {
        status,
        stdout: stdout.expect("output that ends with it"),
        stderr: stderr.expect("errors that end with it"),
    }
}

/// All of a pipe, read by a thread: once, at its end.
pub(crate) fn bytes(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, all) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(bytes);
    });
    all
}

/// The lines of a pipe as they come, read by a thread. Who writes them never waits.
pub(crate) fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}

/// The next line, which must come by then.
pub(crate) fn line_by(lines: &Receiver<String>, by: Instant) -> Result<String, RecvTimeoutError> {
    lines.recv_timeout(by.saturating_duration_since(Instant::now()))
}

/// Sends a signal to a process.
pub(crate) fn signal(name: &str, pid: u32) {
    // The shell's own `kill`: there on every machine, and no unsafe code here.
    let sent = Command::new("sh")
        .args(["-c", r#"kill -s "$0" "$1""#, name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    assert!(sent.is_ok(), "no shell to send a signal with");
}

/// SIGTERM, and then as [`ended`].
pub(crate) fn end(child: &mut Child) {
    if !has_ended(child) {
        signal("TERM", child.id());
        ended(child);
    }
}

/// Waits until it has ended, as it was told to; if it does not, it is killed.
pub(crate) fn ended(child: &mut Child) {
    if exit_within(child, PATIENCE_AT_END).is_none() {
        kill(child);
    }
}

/// Waits until it has ended, but not longer than that.
pub(crate) fn exit_within(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        let status = child.try_wait().expect("a child's exit status");
        if status.is_some() || begun.elapsed() > time {
            return status;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// SIGKILL, as [`kill_all`]. One that cannot even be killed is left behind.
pub(crate) fn kill(child: &mut Child) {
    // A number that was waited for may be another process's by now.
    if !has_ended(child) {
        kill_all(child.id());
        exit_within(child, PATIENCE_AT_END);
    }
}

/// SIGKILL to a process, to all that it has started, and to what they have, be it in sessions of their own.
pub(crate) fn kill_all(pid: u32) {
    let (all, mut family) = (with_parents(), vec![pid]);
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        signal("KILL", parent);
        family.extend(
            all.iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid),
        );
        next += 1;
    }
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().expect("a child's exit status").is_some()
}

/// All processes, each with the one that started it.
fn with_parents() -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc")
        .expect("a list of processes")
        .flatten();
    let parents = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        // Behind its name, which is in parentheses, and its state.
        let parent = stat.rsplit(')').next()?.split(' ').nth(2)?.parse().ok()?;
        Some((pid, parent))
    });
    parents.collect()
}
