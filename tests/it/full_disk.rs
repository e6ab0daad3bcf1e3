//! A full disk, a small one of its own, with publishing and readers under way: what finds no room is refused and
//! certainly not stored, what was acknowledged stays, and all heals by itself.
//!
//! Each test runs itself again in a mount namespace (and, unless it is root, a user namespace) of its own, with a
//! small tmpfs: the mount is gone with the process, however it ends.

use crate::support::{
    hub::{HubProcess, Published},
    load::{END, Load},
    process::output,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tidings::cursor::Cursor;
use tokio::task::JoinSet;

/// The variable that tells the second run where its disk is.
const INSIDE: &str = "FULL_DISK";

/// For the log to find that there is room again, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The small disk, if this is the run that has it; else runs the test with it, and gives nothing.
fn disk(name: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "set by this test alone")]
    if let Ok(disk) = std::env::var(INSIDE) {
        return Some(disk.into());
    }
    let disk = tempfile::tempdir().unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut run = Command::new("unshare");
    run.args(["--mount"])
        .args((!is_root).then_some("--map-root-user"))
        .args([
            "sh",
            "-c",
            r#"mount -t tmpfs -o size=40m tmpfs "$0" && exec "$@""#,
        ])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, disk.path());
    let output = output(&mut run, 10 * PATIENCE);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "this test needs a mount of its own (root, or user namespaces), and did not pass:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    None
}

/// A file beside the log that takes so much of the disk, or all that is left.
fn ballast(disk: &Path, name: &str, bytes: usize) {
    let mut file = File::create(disk.join(name)).unwrap();
    let mut left = bytes;
    while left > 0 {
        match file.write(&[1; 4096][..left.min(4096)]) {
            Ok(written) => left -= written,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One publisher's way to the hub, and what came of it.
struct Publisher {
    http: reqwest::Client,
    origin: String,
    /// Id and data of what was acknowledged.
    stored: Vec<(String, String)>,
    /// What was refused, by its key.
    refused: BTreeMap<String, String>,
}

impl Publisher {
    fn new(hub: &HubProcess) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        Self {
            http: http.pool_max_idle_per_host(0).build().unwrap(),
            origin: hub.origin(),
            stored: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Publishes one event; gives whether it was stored. Else it was refused because the log is full.
    async fn put(&mut self, key: &str, data: &str) -> bool {
        let request = self.http.post(format!("{}/topics/load/a", self.origin));
        let request = request.header("Idempotency-Key", key).body(data.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        if status == 507 {
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["type"], "/problems/log-full", "{text}");
            self.refused.insert(key.to_owned(), data.to_owned());
            return false;
        }
        // Never a duplicate: what was refused was not stored.
        assert_eq!(status, 201, "{text}");
        let published: Published = serde_json::from_str(&text).unwrap();
        self.refused.remove(key);
        self.stored.push((published.id, data.to_owned()));
        true
    }

    /// Publishes until that many in a row were refused.
    async fn fill(&mut self, name: &str, bytes: usize, refusals: usize) {
        let mut in_a_row = 0;
        for n in 0.. {
            let data = format!("{name} {n} {}", "x".repeat(bytes));
            match self.put(&format!("{name}-{n}"), &data).await {
                true => in_a_row = 0,
                false => in_a_row += 1,
            }
            if in_a_row == refusals {
                break;
            }
        }
    }

    /// Tries again until it is stored.
    async fn put_at_last(&mut self, key: &str, data: &str) {
        let begun = Instant::now();
        while !self.put(key, data).await {
            assert!(begun.elapsed() < PATIENCE, "does not heal");
        }
    }

    async fn settle(&mut self) {
        for (key, data) in self.refused.clone() {
            self.put_at_last(&key, &data).await;
        }
    }
}

fn sorted(mut stored: Vec<(String, String)>) -> Vec<(String, String)> {
    stored.sort_by_key(|(id, _)| id.parse::<Cursor>().unwrap().position);
    stored
}

async fn kept(load: &Load, hub: &HubProcess) -> Vec<(String, String)> {
    let id = hub.publish("load/end", END).await;
    let mut events = load
        .spawn_reader("/events?topic=load/**&since=earliest")
        .await
        .events;
    assert_eq!(events.pop(), Some((id, END.to_owned())));
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_is_refused_and_all_else_goes_on() {
    let name = "full_disk::what_finds_no_room_is_refused_and_all_else_goes_on";
    let Some(disk) = disk(name) else { return };
    // Once it is gone there is room for all that was refused, several times over.
    ballast(&disk, "ballast", 24 << 20);
    let mut hub = HubProcess::start_in("", Some(disk.join("data")));
    let mut load = Load::new(hub.origin());
    let reader = load.spawn_reader("/events?topic=load/**&since=earliest");
    let mut publishers = JoinSet::new();
    for n in 0..4 {
        let mut publisher = Publisher::new(&hub);
        publishers.spawn(async move {
            let bytes = [30_000, 3_000, 200, 100_000][n];
            publisher.fill(&format!("before-{n}"), bytes, 20).await;
            publisher
        });
    }
    let mut publishers = publishers.join_all().await;
    for publisher in &publishers {
        assert!(publisher.stored.len() > 10 && publisher.refused.len() >= 20);
    }
    // Nothing at all is left now, and another process took the last of it.
    ballast(&disk, "more", 1 << 30);
    for (n, publisher) in publishers.iter_mut().enumerate() {
        publisher.fill(&format!("full-{n}"), 50_000, 20).await;
    }
    // Readers go on: live, and from the beginning.
    let stored = |publishers: &[Publisher]| {
        let all = publishers.iter().flat_map(|p| p.stored.iter().cloned());
        sorted(all.collect())
    };
    let before = stored(&publishers);
    load.delivered_at_least(before.len()).await;
    let first = &before[0].0;
    let path = format!("/events?topic=load/**&last_event_id={first}");
    assert_eq!(load.read_some(&path, before.len() - 1).await, before[1..]);

    hub.kill();
    hub.start_again();
    load.started_again();
    assert_eq!(load.read_some(&path, before.len() - 1).await, before[1..]);
    for (n, publisher) in publishers.iter_mut().enumerate() {
        publisher.fill(&format!("again-{n}"), 50_000, 3).await;
    }

    fs::remove_file(disk.join("more")).unwrap();
    fs::remove_file(disk.join("ballast")).unwrap();
    publishers[0].put_at_last("healed", "healed").await;
    let mut work = JoinSet::new();
    for mut publisher in publishers {
        work.spawn(async move {
            publisher.settle().await;
            publisher
        });
    }
    let publishers = work.join_all().await;
    let all = stored(&publishers);
    assert!(all.len() > before.len() + 80);
    assert_eq!(kept(&load, &hub).await, all);
    let mut delivered = reader.await.events;
    delivered.pop();
    assert_eq!(delivered, all);
    assert!(hub.log().contains("the log has no room"));
}

/// Nobody makes room: old events go, and new ones come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_alone_heals_a_full_log() {
    let Some(disk) = disk("full_disk::retention_alone_heals_a_full_log") else {
        return;
    };
    let config = "[[log.retention]]\ntopics = \"load/a\"\nage_max = \"4s\"\n";
    let mut hub = HubProcess::start_in(config, Some(disk.join("data")));
    let mut load = Load::new(hub.origin());
    let mut publisher = Publisher::new(&hub);
    for round in 0..3 {
        publisher.fill(&format!("fill-{round}"), 40_000, 3).await;
        ballast(&disk, &format!("ballast-{round}"), 1 << 30);
        match round {
            0 => {}
            1 => hub.kill(),
            _ => hub.terminate(),
        }
        if round > 0 {
            // After a clean stop another takes even what that left.
            ballast(&disk, &format!("more-{round}"), 1 << 30);
            hub.start_again();
            load.started_again();
        }
        publisher.settle().await;
        let stored = publisher.stored.len();
        for n in 0..100 {
            let data = "y".repeat(5_000 + n);
            publisher.put_at_last(&format!("{round}-{n}"), &data).await;
        }
        assert_eq!(publisher.stored.len(), stored + 100);
    }
    // What is left is the newest stretch of what was acknowledged.
    let kept = kept(&load, &hub).await;
    let stored = &publisher.stored;
    assert!(!kept.is_empty() && kept.len() < stored.len());
    assert_eq!(kept, stored[stored.len() - kept.len()..]);
}

#[tokio::test]
async fn a_log_without_its_reserve_says_what_to_do() {
    let Some(disk) = disk("full_disk::a_log_without_its_reserve_says_what_to_do") else {
        return;
    };
    let mut hub = HubProcess::start_in("", Some(disk.join("data")));
    let id = hub.publish("load/a", "1").await;
    hub.terminate();
    fs::remove_file(disk.join("data/reserve")).unwrap();
    ballast(&disk, "ballast", 1 << 30);
    let text = hub.try_start_again().expect_err("a refusal");
    assert!(text.contains("the room on its disk"), "{text}");
    fs::remove_file(disk.join("ballast")).unwrap();
    hub.start_again();
    assert_eq!(
        kept(&Load::new(hub.origin()), &hub).await,
        [(id, "1".to_owned())]
    );
}
