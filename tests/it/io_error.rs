//! A disk that fails at a commit: whether the event is stored is unknown then, the answer says so, and the same
//! key settles it.

use crate::support::{
    hub::HubProcess,
    process::output,
    stream::{DEADLINE, Stream},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Loaded into the hub before the system's library: writes to the write-ahead file, or its way to the disk, fail once
/// if a file asks for it. Only those of the thread that commits.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int fd, const char *trigger) {
    char thread[16] = "", link[64], path[4096];
    int error = errno;
    prctl(PR_GET_NAME, thread);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    const char *file = getenv(trigger);
    int failing = strcmp(thread, "log-writer") == 0
        && length > 4 && memcmp(path + length - 4, "-wal", 4) == 0
        && file && unlink(file) == 0;
    errno = failing ? EIO : error;
    return failing;
}

#define NEXT(name, ...) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

int fsync(int fd) {
    return fails(fd, "FAIL_SYNC") ? -1 : NEXT(fsync, fd);
}

int fdatasync(int fd) {
    return fails(fd, "FAIL_SYNC") ? -1 : NEXT(fdatasync, fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return fails(fd, "FAIL_WRITE") ? -1 : NEXT(write, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return fails(fd, "FAIL_WRITE") ? -1 : NEXT(pwrite, fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return fails(fd, "FAIL_WRITE") ? -1 : NEXT(pwrite64, fd, bytes, count, at);
}
"#;

/// A hub on a disk that fails on request.
struct Bench {
    hub: HubProcess,
    dir: tempfile::TempDir,
    http: reqwest::Client,
}

impl Bench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = HubProcess::start("");
        hub.terminate();
        hub.set_env("LD_PRELOAD", compiled(dir.path()));
        for trigger in ["FAIL_SYNC", "FAIL_WRITE"] {
            hub.set_env(trigger, dir.path().join(trigger));
        }
        hub.start_again();
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE);
        let http = http.build().unwrap();
        Self { hub, dir, http }
    }

    /// Status and answer of a publish to `a`.
    async fn post(&self, data: &str, key: &str) -> (u16, serde_json::Value) {
        let url = format!("{}/topics/a", self.hub.origin());
        let post = self.http.post(url).header("Idempotency-Key", key);
        let answer = post.body(data.to_owned()).send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// The event whose commit fails, and what the same key makes of it.
    async fn fails_then_settles(&self, trigger: &str) -> (u16, bool) {
        let file = self.dir.path().join(trigger);
        fs::write(&file, "").unwrap();
        let (status, problem) = self.post("unsure", "key").await;
        assert!(!file.exists(), "nothing failed: {problem}");
        assert_eq!(status, 503, "{problem}");
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.ends_with("outcome-unknown"), "{problem}");
        let (status, settled) = self.post("unsure", "key").await;
        let duplicate = settled["duplicate"].as_bool().unwrap();
        let (again, twice) = self.post("unsure", "key").await;
        assert_eq!((again, &twice["id"]), (200, &settled["id"]), "{twice}");
        (status, duplicate)
    }
}

fn compiled(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    fs::write(&source, SHIM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
    let output = output(cc.arg(&source).arg("-ldl"), DEADLINE);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    library
}

async fn a_failed_commit(trigger: &str, settled: (u16, bool)) {
    let bench = Bench::start();
    let address = bench.hub.address();
    let mut live = Stream::open(address, "/topics/a", &[]).await;
    bench.post("before", "before").await;
    assert_eq!(bench.fails_then_settles(trigger).await, settled);
    bench.post("after", "after").await;
    // Once for those who listen, and once for those who come later, also after a restart.
    let expected = ["before", "unsure", "after"];
    assert_eq!(live.data(3).await, expected);
    let mut hub = bench.hub;
    for _ in 0..2 {
        let mut replay = Stream::open(address, "/topics/a?since=earliest", &[]).await;
        assert_eq!(replay.data(3).await, expected);
        drop(replay);
        hub.terminate();
        hub.start_again();
    }
}

/// It is in the file all the same.
#[tokio::test]
async fn a_commit_that_does_not_reach_the_disk_is_unknown() {
    a_failed_commit("FAIL_SYNC", (200, true)).await;
}

/// It is not in the file.
#[tokio::test]
async fn a_commit_that_cannot_be_written_is_unknown() {
    a_failed_commit("FAIL_WRITE", (201, false)).await;
}
