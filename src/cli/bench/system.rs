//! What the machine tells: which core this process runs on, and what the server's processes cost. From /proc, so on
//! Linux only; elsewhere a run goes without.

use super::super::port;
use std::{fs, time::Duration};

/// Has this process run on one core only.
#[cfg(target_os = "linux")]
pub(super) fn pin(cpu: usize) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use rustix::thread::{CpuSet, sched_setaffinity};
    anyhow::ensure!(cpu < CpuSet::MAX_CPU, "there is no core {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {cpu}"))
}

/// Has this process run on one core only.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_: usize) -> anyhow::Result<()> {
    anyhow::bail!("--cpu needs Linux")
}

/// A server's processes: one, and all that it has started.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    pids: Vec<u32>,
}

impl Processes {
    /// This process and its children.
    pub(super) fn of(root: u32) -> Self {
        let mut pids = vec![root];
        let all = all();
        let mut at = 0;
        while let Some(parent) = pids.get(at).copied() {
            pids.extend(
                all.iter()
                    .filter(|one| one.parent == parent)
                    .map(|one| one.pid),
            );
            at += 1;
        }
        Self { pids }
    }

    /// Those of the server that listens on the port, if they can be seen.
    pub(super) fn listening(port: u16) -> Option<Self> {
        let mut found = port::listener(port)?.pid;
        // Workers share the socket with the one that started them.
        let mut one = Process::read(found)?;
        while let Some(parent) = Process::read(one.parent)
            && parent.name == one.name
        {
            found = parent.pid;
            one = parent;
        }
        Some(Self::of(found))
    }

    /// This process.
    pub(super) fn own() -> Self {
        let pids = vec![std::process::id()];
        Self { pids }
    }

    pub(super) fn root(&self) -> u32 {
        self.pids[0]
    }

    /// User and system time so far, to 10 ms.
    pub(super) fn cpu(&self) -> Duration {
        let processes = self.pids.iter().filter_map(|pid| Process::read(*pid));
        processes.map(|one| one.cpu).sum()
    }

    /// Memory that is theirs alone and not a file's (`RssAnon`), or shared among them (`RssShmem`): bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        let anonymous = self.pids.iter().map(|pid| status_bytes(*pid, "RssAnon:"));
        // Each of them has the shared pages mapped.
        let shared = self.pids.iter().map(|pid| status_bytes(*pid, "RssShmem:"));
        anonymous.sum::<u64>() + shared.max().unwrap_or(0)
    }
}

struct Process {
    pid: u32,
    parent: u32,
    name: String,
    cpu: Duration,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &text, ticks_per_second())
    }

    /// The name is in parentheses, and may have some itself.
    fn parse(pid: u32, stat: &str, ticks_per_second: u64) -> Option<Self> {
        let (head, rest) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            cpu: Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / ticks_per_second),
        })
    }
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

fn status_bytes(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_process() {
        let line = "42 (a) (b) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 9 9 20 0 1 0";
        let one = Process::parse(42, line, 100).unwrap();
        assert_eq!((one.parent, one.name.as_str()), (7, "a) (b"));
        assert_eq!(one.cpu, Duration::from_secs(2));
    }

    #[test]
    fn sees_itself() {
        let own = Processes::own();
        assert!(own.memory_bytes() > 100_000);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = Processes::listening(socket.local_addr().unwrap().port()).unwrap();
        assert!(found.pids.contains(&std::process::id()));
    }
}
