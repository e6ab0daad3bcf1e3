//! Signals, and the end of processes that a test started.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// For a process to end once it is told to.
pub(crate) const PATIENCE_AT_END: Duration = Duration::from_secs(20);

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
    // A number that was waited for may be another process's by now.
    if child.try_wait().expect("a child's exit status").is_none() {
        signal("TERM", child.id());
        ended(child);
    }
}

/// Waits until it has ended, as it was told to: some have others to end first, which may be stuck, so not for ever.
pub(crate) fn ended(child: &mut Child) {
    let begun = Instant::now();
    while child.try_wait().expect("a child's exit status").is_none() {
        if begun.elapsed() > PATIENCE_AT_END {
            child.kill().expect("a signal to a child");
        }
        thread::sleep(Duration::from_millis(10));
    }
}
