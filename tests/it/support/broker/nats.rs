//! NATS with JetStream: one server, or three of them.

use super::{Broker, Kind, Settings, tls};
use crate::support::{client::installed, ports};
use async_nats::{Client, ConnectOptions, jetstream};
use std::{process::Command, time::Duration};
use tokio::time::{Instant, interval};

/// A client of the broker.
pub(crate) async fn connect(broker: &Broker) -> anyhow::Result<Client> {
    let mut options = ConnectOptions::new().connection_timeout(Duration::from_secs(5));
    if let Some(ca_file) = broker.ca_file() {
        tls::install_provider();
        options = options.add_root_certificates(ca_file);
    }
    if let Some(password) = broker.settings.password {
        options = options.user_and_password("tidings".to_owned(), password.to_owned());
    }
    Ok(options.connect(broker.url()).await?)
}

pub(super) fn configure(broker: &Broker) {
    let Broker { port, settings, .. } = broker;
    let home = broker.home.path().display();
    let sync = if settings.nats_floor {
        ""
    } else {
        "sync_interval: always"
    };
    let password = settings
        .password
        .map(|p| format!("authorization {{ user: tidings, password: {p:?} }}"));
    let tls = settings.tls.then(|| {
        format!(
            "tls {{ cert_file: \"{home}/{}\", key_file: \"{home}/{}\" }}",
            tls::CERTIFICATE,
            tls::KEY,
        )
    });
    // A stream's bound is set aside when it is made; nothing is written for it, so that there may be more than the disk has.
    let text = format!(
        "host: 127.0.0.1\nport: {port}\nserver_name: n{port}\n\
         jetstream {{ store_dir: \"{home}/data\", max_file_store: 1TB, {sync} }}\n{}\n{}\n{}\n",
        password.unwrap_or_default(),
        tls.unwrap_or_default(),
        settings.lines,
    );
    broker.home.write("nats.conf", &text);
}

pub(super) fn command(broker: &Broker) -> Command {
    let mut command = if broker.settings.nats_floor {
        Command::new("/usr/sbin/nats-server")
    } else {
        Command::new(installed("venv/bin/nats-server"))
    };
    command.arg("-c").arg(broker.home.join("nats.conf"));
    command
}

/// JetStream answers. In a cluster, it has a leader then.
pub(super) async fn ready(broker: &Broker) -> anyhow::Result<()> {
    // The client's own question does not understand the answer of 2.9.
    let client = connect(broker).await?;
    let answer = client.request("$JS.API.INFO", "".into()).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    anyhow::ensure!(answer.get("error").is_none(), "{answer}");
    Ok(())
}

pub(super) async fn wipe(broker: &Broker, name: &str) {
    let context = jetstream::new(connect(broker).await.expect("a connection"));
    let deleted = context.delete_stream(format!("tidings_{name}")).await;
    assert!(deleted.expect("a stream").success);
}

/// Three servers that keep streams together.
pub(crate) struct NatsCluster {
    servers: Vec<Broker>,
}

impl NatsCluster {
    /// Starts them, and waits until they have a leader.
    pub(crate) async fn start() -> Self {
        let routes = [ports::free(), ports::free(), ports::free()];
        let urls = routes
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .join(", ");
        let mut servers: Vec<_> = routes
            .into_iter()
            .map(|port| {
                let lines = format!(
                    "cluster {{ name: tests, host: 127.0.0.1, port: {port}, routes: [{urls}] }}"
                );
                let settings = Settings {
                    lines,
                    ..Settings::default()
                };
                Broker::new(Kind::Nats, settings)
            })
            .collect();
        servers.iter_mut().for_each(Broker::launch);
        for server in &mut servers {
            server.until_ready().await;
        }
        Self { servers }
    }

    /// All three, as `[cluster] journal` takes them.
    pub(crate) fn url(&self) -> String {
        let addresses: Vec<_> = self
            .servers
            .iter()
            .map(|server| server.address().to_string())
            .collect();
        format!("nats://{}", addresses.join(","))
    }

    /// `kill -9` of the server that leads the stream now. Electing another one takes some seconds.
    pub(crate) async fn kill_leader(&mut self, stream: &str) {
        let leader = self.leader(stream).await;
        self.servers[leader].kill().await;
    }

    /// Waits until a server that runs leads the stream. Gives which.
    pub(crate) async fn leader(&self, stream: &str) -> usize {
        let context = jetstream::new(self.connect().await);
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        loop {
            let info = context.get_stream(stream).await;
            let leader = info.map(|stream| stream.cached_info().cluster.clone()?.leader);
            if let Ok(Some(leader)) = &leader
                && let Some(index) = self.running(leader)
            {
                return index;
            }
            assert!(begun.elapsed() < super::PATIENCE, "{leader:?}");
            tick.tick().await;
        }
    }

    /// Starts those again that were killed.
    pub(crate) async fn restart(&mut self) {
        for server in &mut self.servers {
            if server.server.is_none() {
                server.restart().await;
            }
        }
    }

    /// A client of a server that runs.
    pub(crate) async fn connect(&self) -> Client {
        let mut running = self.servers.iter().filter(|s| s.server.is_some());
        let client = connect(running.next().expect("a server that runs")).await;
        client.expect("a connection")
    }

    fn running(&self, name: &str) -> Option<usize> {
        let named =
            |server: &Broker| server.server.is_some() && name == format!("n{}", server.port);
        self.servers.iter().position(named)
    }
}
