//! A Redis, its replica, and the three sentinels that put the one in the other's place.

use super::{ANSWER, Broker, Kind, PATIENCE, Settings, guard::Home};
use crate::support::ports;
use redis::Client;
use std::{
    process::{Child, Command},
    time::Duration,
};
use tokio::time::{Instant, interval, timeout};

/// The name that sentinels know it by.
const NAME: &str = "tests";

pub(crate) struct SentinelSet {
    pub(crate) master: Broker,
    pub(crate) replica: Broker,
    ports: [u16; 3],
    sentinels: Vec<Child>,
    home: Home,
}

impl SentinelSet {
    /// Starts all five, and waits until the replica follows and the sentinels know of each other.
    pub(crate) async fn start() -> Self {
        let (master, replica) = Self::pair().await;
        let home = Home::new("sentinel");
        let ports = [ports::free(), ports::free(), ports::free()];
        let start = |port| {
            let (name, folder) = (format!("{port}.conf"), home.path().display());
            let text = format!(
                "bind 127.0.0.1\nport {port}\ndir {folder}\n\
                 sentinel monitor {NAME} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {NAME} 500\n\
                 sentinel failover-timeout {NAME} 3000\n",
                master.port,
            );
            let mut command = Command::new("redis-sentinel");
            command.arg(home.write(&name, &text));
            home.run(&command)
        };
        let sentinels = ports.into_iter().map(start).collect();
        let set = Self {
            master,
            replica,
            ports,
            sentinels,
            home,
        };
        for port in set.ports {
            let known = ["num-other-sentinels=2", "num-slaves=1", "flags=master"];
            set.until(port, "they know of each other", |about| {
                known
                    .iter()
                    .all(|known| about.contains(&format!(" {known} ")))
            })
            .await;
        }
        set
    }

    /// As `[cluster] journal` takes it.
    pub(crate) fn url(&self) -> String {
        let addresses = self.ports.map(|port| format!("127.0.0.1:{port}"));
        format!("redis-sentinel://{}/{NAME}", addresses.join(","))
    }

    /// `kill -9`, and waits until all sentinels tell of the replica as the master.
    pub(crate) async fn kill_master(&mut self) {
        self.master.kill().await;
        let promoted = format!(" port={} ", self.replica.port);
        for port in self.ports {
            self.until(port, "another master", |about| about.contains(&promoted))
                .await;
        }
    }

    async fn pair() -> (Broker, Broker) {
        // A full copy goes over the wire at once, instead of five seconds later and by way of the disk.
        let quick = "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1";
        let master = Broker::start_with(Kind::Redis, lines(quick.to_owned())).await;
        let follow = format!("{quick}\nreplicaof 127.0.0.1 {}", master.port);
        let replica = Broker::start_with(Kind::Redis, lines(follow)).await;
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        loop {
            let mut connection = super::redis::connect(&replica).await.expect("a connection");
            let info = redis::cmd("INFO").arg("replication").to_owned();
            let info: String = info.query_async(&mut connection).await.expect("INFO");
            if info.contains("master_link_status:up") {
                return (master, replica);
            }
            assert!(begun.elapsed() < PATIENCE, "the replica follows:\n{info}");
            tick.tick().await;
        }
    }

    /// Waits until what that sentinel says about the master, ` {key}={value} ` each, is so.
    async fn until(&self, port: u16, what: &str, holds: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        loop {
            let told = match timeout(ANSWER, about(port)).await {
                Ok(Ok(told)) if holds(&told) => return,
                told => told,
            };
            let patient = begun.elapsed() < PATIENCE;
            assert!(patient, "{what}: {told:?}\n{}", self.home.log());
            tick.tick().await;
        }
    }
}

impl Drop for SentinelSet {
    fn drop(&mut self) {
        for sentinel in self.sentinels.drain(..) {
            self.home.kill(sentinel);
        }
    }
}

fn lines(lines: String) -> Settings {
    Settings {
        lines,
        ..Settings::default()
    }
}

async fn about(port: u16) -> redis::RedisResult<String> {
    let client = Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut ask = redis::cmd("SENTINEL");
    let told: Vec<String> = ask
        .arg("master")
        .arg(NAME)
        .query_async(&mut connection)
        .await?;
    let pairs = told.chunks_exact(2).map(|pair| pair.join("="));
    Ok(format!(" {} ", pairs.collect::<Vec<_>>().join(" ")))
}
