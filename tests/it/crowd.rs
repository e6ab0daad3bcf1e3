//! More clients than usual: thousands of streams when the hub goes down, and more connections than it has files for.

use crate::support::{
    process::{kill, lines, signal},
    stream::{DEADLINE, Stream},
    wait::within,
    watchdog,
};
use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

/// A hub in a process of its own, which a shell first gives its limits.
struct Limited {
    hub: Child,
    address: SocketAddr,
    _data: TempDir,
}

impl Limited {
    fn start(limits: &str, config: &str) -> Self {
        watchdog::watch();
        let data = TempDir::new().unwrap();
        std::fs::write(data.path().join("tidings.toml"), config).unwrap();
        let mut hub = Command::new("sh")
            .args(["-c", &format!("{limits}; exec \"$0\" --listen 127.0.0.1:0")])
            .arg(env!("CARGO_BIN_EXE_tidings"))
            .current_dir(data.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let banner = lines(hub.stdout.take().unwrap()).recv_timeout(DEADLINE);
        let banner = banner.expect("a banner");
        let (_, address) = banner.trim().rsplit_once("http://").expect("an address");
        Self {
            hub,
            address: address.parse().unwrap(),
            _data: data,
        }
    }

    async fn publish(&self, data: &str) {
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE);
        let url = format!("http://{}/topics/a", self.address);
        let answer = http.build().unwrap().post(url).body(data.to_owned()).send();
        assert_eq!(answer.await.unwrap().status().as_u16(), 201);
    }

    /// SIGTERM, and how long it then takes to end well.
    async fn terminate(&mut self) -> Duration {
        let begun = Instant::now();
        signal("TERM", self.hub.id());
        let mut status = None;
        within(DEADLINE, "the hub ends", || {
            status = self.hub.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{status:?}");
        begun.elapsed()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        kill(&mut self.hub);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_streams_and_stalled_readers_do_not_hold_up_the_end() {
    const STREAMS: usize = 5_000;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut hub = Limited::start("true", "[server]\ndrain_timeout = \"3s\"\n");
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut stream = Stream::open(hub.address, "/topics/a?open=1", &[]).await;
        assert_eq!(stream.next().await.event, "tidings.open");
        stalled.push(stream);
    }
    // More than the stalled readers' sockets take.
    for _ in 0..20 {
        hub.publish(&"x".repeat(900_000)).await;
    }
    let mut opening = JoinSet::new();
    for _ in 0..STREAMS {
        let address = hub.address;
        opening.spawn(async move {
            let mut stream = Stream::open(address, "/topics/b?open=1", &[]).await;
            assert_eq!(stream.next().await.event, "tidings.open");
            stream
        });
    }
    let mut streams = opening.join_all().await;
    assert_eq!(streams.len(), STREAMS);
    let took = hub.terminate().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    for stream in &mut streams {
        assert!(stream.rest().await.is_empty());
        let (_, last) = stream
            .text
            .trim_end()
            .rsplit_once("\nretry: ")
            .expect("a time to come back");
        assert!(
            (1_000..=10_000).contains(&last.parse::<u64>().unwrap()),
            "{last}"
        );
    }
}

#[tokio::test]
async fn out_of_files_accepting_pauses_and_nothing_dies() {
    const CROWD: usize = 120;
    let mut hub = Limited::start("ulimit -n 80", "[server]\nconnections_max = 1000\n");
    let mut stream = Stream::open(hub.address, "/topics/a?open=1", &[]).await;
    assert_eq!(stream.next().await.event, "tidings.open");
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut tcp = TcpStream::connect(hub.address).await.unwrap();
        tcp.write_all(b"GET /topics/b?open=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            .await
            .unwrap();
        crowd.push(tcp);
    }
    // Some of them are served, the others wait in the kernel's queue; whoever leaves makes room for one of them.
    let mut served = 0;
    for tcp in crowd {
        let mut other = Stream::on(tcp).await;
        assert_eq!(other.next().await.event, "tidings.open");
        served += 1;
    }
    assert_eq!(served, CROWD);
    hub.publish("still here").await;
    assert_eq!(stream.next().await.data, "still here");
    drop(stream);
    hub.terminate().await;
}
