//! Real brokers, private to a test: on free ports of 127.0.0.1, with their data in a temporary directory. A guard removes
//! them with the test process, so that nothing is left of a run that was killed.

mod guard;
pub(crate) mod nats;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
pub(crate) mod sentinel;
mod shared;
mod tls;

pub(crate) use guard::Home;
pub(crate) use shared::{fresh_name, shared};

use super::{ports, process::signal, wait::in_time};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};
use tokio::time::{Instant, interval, timeout};

/// How long a broker may take to be ready, or to end: much longer than it ever does.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to answer whether it is ready.
const ANSWER: Duration = Duration::from_secs(5);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
    RabbitMq,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Nats, Self::RabbitMq];
}

/// How a broker is set up. What is not told is the surest and simplest: every write is on the disk before it is answered
/// (RabbitMQ cannot), no password, no TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Clients must know it. NATS: of the user `tidings`; RabbitMQ: of `guest`, in place of `guest`.
    pub(crate) password: Option<&'static str>,
    /// TLS only, with a certificate of an authority of its own: see [`Broker::ca_file`].
    pub(crate) tls: bool,
    pub(crate) redis_fsync: RedisFsync,
    /// Debian's NATS 2.9.10, the oldest that is supported, which cannot be told to sync at once.
    pub(crate) nats_floor: bool,
    /// More lines of its configuration file, such as `maxmemory-policy allkeys-lru`.
    pub(crate) lines: String,
}

/// What Redis does for its data to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RedisFsync {
    #[default]
    Always,
    EverySecond,
    /// It writes no append-only file at all.
    Nothing,
}

/// A broker that runs, or did and may again.
pub(crate) struct Broker {
    kind: Kind,
    settings: Settings,
    port: u16,
    server: Option<Child>,
    /// RabbitMQ's register of names, which outlives the server.
    register: Option<Child>,
    copies: u32,
    home: Home,
}

/// A copy of a broker's data.
pub(crate) struct Saved(PathBuf);

impl Broker {
    /// Starts one, and waits until it is ready for work.
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::start_with(kind, Settings::default()).await
    }

    /// The same, set up like that.
    pub(crate) async fn start_with(kind: Kind, settings: Settings) -> Self {
        let mut broker = Self::new(kind, settings);
        broker.restart().await;
        broker
    }

    /// One that does not run yet.
    fn new(kind: Kind, settings: Settings) -> Self {
        let home = Home::new(match kind {
            Kind::Redis => "redis",
            Kind::Nats => "nats",
            Kind::RabbitMq => "rabbitmq",
        });
        fs::create_dir(home.join("data")).expect("a data directory");
        if settings.tls {
            tls::write(&home);
        }
        let mut broker = Self {
            kind,
            settings,
            port: ports::free(),
            server: None,
            register: None,
            copies: 0,
            home,
        };
        match kind {
            Kind::Redis => redis::configure(&broker),
            Kind::Nats => nats::configure(&broker),
            Kind::RabbitMq => {
                let register = rabbitmq::configure(&broker);
                broker.register = Some(broker.home.run(&register));
            }
        }
        broker
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What `[cluster] journal` takes, with the user and the password in it.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The same, reached by way of a proxy.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        let password = self.settings.password;
        let (scheme, user) = match self.kind {
            Kind::Redis => ("redis", password.map(|p| format!(":{p}@"))),
            Kind::Nats => ("nats", password.map(|p| format!("tidings:{p}@"))),
            Kind::RabbitMq => (
                "amqp",
                Some(format!("guest:{}@", password.unwrap_or("guest"))),
            ),
        };
        let scheme = match (self.settings.tls, self.kind) {
            (false, _) => scheme,
            (true, Kind::Redis) => "rediss",
            (true, Kind::Nats) => "tls",
            (true, Kind::RabbitMq) => "amqps",
        };
        format!("{scheme}://{}{address}", user.unwrap_or_default())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The certificate of its authority, if it speaks TLS.
    pub(crate) fn ca_file(&self) -> Option<PathBuf> {
        self.settings.tls.then(|| self.home.join(tls::CA))
    }

    /// The process id of the server itself.
    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().expect("a broker that runs").id()
    }

    /// The directory that is removed with it.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        let server = self.server.take().expect("a broker that runs");
        self.home.kill(server);
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let mut server = self.server.take().expect("a broker that runs");
        signal("TERM", server.id());
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(5));
        while server.try_wait().expect("its exit status").is_none() {
            if begun.elapsed() > PATIENCE {
                self.home.kill(server);
                panic!("the broker did not end at SIGTERM\n{}", self.home.log());
            }
            tick.tick().await;
        }
        self.home.ended(&mut server);
    }

    /// Starts it again where it was, with what data it has, and waits until it is ready for work.
    pub(crate) async fn restart(&mut self) {
        self.launch();
        self.until_ready().await;
    }

    /// Stops the time for it: its connections stay, and nothing moves.
    pub(crate) fn pause(&self) {
        signal("STOP", self.pid());
    }

    /// Ends [`Broker::pause`].
    pub(crate) fn resume(&self) {
        signal("CONT", self.pid());
    }

    /// Copies its data, for which it is stopped and started again.
    pub(crate) async fn save(&mut self) -> Saved {
        self.stop().await;
        self.copies += 1;
        let saved = Saved(self.home.join(&format!("copy-{}", self.copies)));
        copy(&self.data(), &saved.0);
        self.restart().await;
        saved
    }

    /// Kills it, and starts it with that older data.
    pub(crate) async fn put_back(&mut self, saved: &Saved) {
        self.kill().await;
        fs::remove_dir_all(self.data()).expect("a data directory to remove");
        copy(&saved.0, &self.data());
        self.restart().await;
    }

    /// Removes all that the journal of that name has stored, while it runs.
    pub(crate) async fn wipe(&self, name: &str) {
        in_time(PATIENCE, "it is wiped", async {
            match self.kind {
                Kind::Redis => redis::wipe(self).await,
                Kind::Nats => nats::wipe(self, name).await,
                Kind::RabbitMq => rabbitmq::wipe(self, name).await,
            }
        })
        .await;
    }

    /// Kills Redis, and starts it without the last bytes of its append-only file: as if they had never reached the disk.
    pub(crate) async fn cut_aof(&mut self, bytes: u64) {
        assert_eq!(self.kind, Kind::Redis);
        self.kill().await;
        redis::cut_aof(&self.data(), bytes);
        self.restart().await;
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn launch(&mut self) {
        assert!(self.server.is_none(), "the broker runs");
        let command = match self.kind {
            Kind::Redis => redis::command(self),
            Kind::Nats => nats::command(self),
            Kind::RabbitMq => rabbitmq::command(self),
        };
        self.server = Some(self.home.run(&command));
    }

    async fn until_ready(&mut self) {
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        loop {
            let ready = async {
                match self.kind {
                    Kind::Redis => redis::ready(self).await,
                    Kind::Nats => nats::ready(self).await,
                    Kind::RabbitMq => rabbitmq::ready(self).await,
                }
            };
            let why_not = match timeout(ANSWER, ready).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{error:#}"),
                Err(elapsed) => elapsed.to_string(),
            };
            let server = self.server.as_mut().expect("it was started");
            let exited = server.try_wait().expect("its exit status");
            assert!(
                exited.is_none() && begun.elapsed() < PATIENCE,
                "{:?} does not get ready: {exited:?} {why_not}\n{}",
                self.kind,
                self.home.log(),
            );
            tick.tick().await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for server in [self.server.take(), self.register.take()] {
            server.into_iter().for_each(|s| self.home.kill(s));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp -a");
}
