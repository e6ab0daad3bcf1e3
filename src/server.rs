//! A hub that runs: its log, its fan-out, its door, and how it goes down.

use crate::{
    config::{self, Config},
    delivery::silence::Silences,
    fanout::Hub,
    http::{
        App, Reach,
        listener::{Listener, drained},
    },
    ingest::Ingest,
    log::{
        Clock, EventLog, LogOptions,
        memory::MemoryLog,
        retention::{Limits, Retention, Rule},
        sqlite::{self, OpenError, SqliteLog},
    },
};
use axum::Router;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
}

/// A hub. Clones are handles to the same one.
#[derive(Clone)]
pub struct Server {
    hub: Arc<Hub>,
    config: Arc<Config>,
    app: Arc<App>,
    drain: CancellationToken,
    stop: CancellationToken,
    /// Connections, and what they left running.
    tasks: TaskTracker,
    /// The fan-out, which ends with the log.
    fan_out: TaskTracker,
}

impl Server {
    /// Opens the log and starts the fan-out; binds nothing.
    ///
    /// # Errors
    ///
    /// [`StartError`], with a text that says what to do.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let log = open_log(config).await?;
        let (drain, tasks, fan_out) = (
            CancellationToken::new(),
            TaskTracker::new(),
            TaskTracker::new(),
        );
        let cache_bytes_max =
            usize::try_from(config.subscribe.cache_bytes_max).unwrap_or(usize::MAX);
        let (hub, tail) = Hub::new(log, cache_bytes_max, drain.clone());
        fan_out.spawn(Arc::clone(&hub).run(tail));
        let silences = Silences::new(config.subscribe.keepalive);
        fan_out.spawn(Arc::clone(&silences).run(drain.clone()));
        fan_out.close();
        let app = App::new(
            Arc::clone(&hub),
            config,
            silences,
            drain.clone(),
            tasks.clone(),
        );
        let (config, stop) = (Arc::new(config.clone()), CancellationToken::new());
        Ok(Self {
            hub,
            config,
            app,
            drain,
            stop,
            tasks,
            fan_out,
        })
    }

    /// The hub's routes, for a program that serves them beside its own. Such a program calls [`Server::shutdown`]
    /// when it goes down and [`Server::close`] at its end; the deadlines of connections are its own affair. `reach`
    /// says where its listener is reached from.
    pub fn router(&self, reach: Reach) -> Router {
        self.app.router(reach)
    }

    /// The fan-out and the log, for a program that subscribes without HTTP.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The door in, for a program that publishes without HTTP.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        self.app.ingest()
    }

    /// Serves connections until [`Server::shutdown`] was called and the last one ended, or `drain_timeout` passed;
    /// then closes the log.
    pub async fn serve(&self, listener: TcpListener) {
        let loopback = listener
            .local_addr()
            .is_ok_and(|address| address.ip().is_loopback());
        let reach = if loopback {
            Reach::Loopback
        } else {
            Reach::Network
        };
        let door = Listener {
            router: self.app.router(reach),
            limits: self.config.server.clone(),
            drain: self.drain.clone(),
            stop: self.stop.clone(),
            tasks: self.tasks.clone(),
        };
        let ended = async {
            self.drain.cancelled().await;
            self.tasks.close();
            if !drained(
                &self.tasks,
                Instant::now() + self.config.server.drain_timeout,
            )
            .await
            {
                tracing::warn!("some connections did not end in time and are cut");
            }
            self.stop.cancel();
        };
        // The door stays open meanwhile: who comes is told to come back.
        tokio::join!(door.accept(listener), ended);
        self.close().await;
    }

    /// Begins to go down: streams end with a time to come back, new requests are turned away, publishes under way
    /// finish. May be called several times.
    pub fn shutdown(&self) {
        self.drain.cancel();
    }

    /// Waits until [`Server::shutdown`] was called.
    pub async fn stopping(&self) {
        self.drain.cancelled().await;
    }

    /// Ends what is still open and closes the log. [`Server::serve`] does it by itself.
    pub async fn close(&self) {
        self.drain.cancel();
        self.stop.cancel();
        self.hub.log().close().await;
        self.fan_out.wait().await;
    }
}

async fn open_log(config: &Config) -> Result<Arc<dyn EventLog>, OpenError> {
    let options = log_options(&config.log);
    match config.log.engine {
        config::Engine::Memory => Ok(Arc::new(MemoryLog::new(options))),
        config::Engine::Sqlite => {
            let durability = match config.log.durability {
                config::Durability::Sync => sqlite::Durability::Sync,
                config::Durability::Os => sqlite::Durability::Os,
            };
            Ok(Arc::new(SqliteLog::open(
                &config.data_dir,
                durability,
                options,
            )?))
        }
    }
}

fn log_options(config: &config::LogConfig) -> LogOptions {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let rules = config.retention.iter().map(|rule| Rule {
        topics: rule.topics.clone(),
        limits: Limits {
            age_max_ms: rule.age_max.map(ms),
            events_max: rule.events_max,
            bytes_max: rule.bytes_max,
        },
    });
    LogOptions {
        retention: Retention {
            rules: rules.collect(),
            default: Limits {
                age_max_ms: Some(ms(config::RETENTION_AGE_DEFAULT)),
                events_max: None,
                bytes_max: None,
            },
            bytes_max: config.bytes_max,
        },
        key_age_max_ms: ms(config.idempotency_age_max),
        keys_max: config.idempotency_keys_max,
        emptied_topics_max: config.emptied_topics_max,
        clock: Clock::system(),
    }
}
