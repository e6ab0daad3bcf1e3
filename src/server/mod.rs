//! A hub that runs: its log, its fan-out, its door, and how it goes down. `open` is where the configuration becomes a log.

mod open;

use crate::{
    cluster::{BadUrl, ReplicatedLog, journal::ConnectError},
    config::Config,
    delivery::silence::Silences,
    fanout::Hub,
    http::{
        App, Reach,
        listener::{Listener, drained},
    },
    ingest::Ingest,
    log::sqlite::OpenError,
};
use axum::Router;
pub use open::journal_options;
use open::open_log;
use std::{path::PathBuf, sync::Arc};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// `cluster.journal` cannot be used.
    #[error("cluster.journal: {0}")]
    Url(#[from] BadUrl),
    /// The broker refuses this hub.
    #[error("the journal at {journal} refuses this hub: {why}")]
    Journal {
        /// Where it is, without user and password.
        journal: String,
        /// What has to be changed.
        why: ConnectError,
    },
    /// `cluster.password_file` cannot be read.
    #[error("cluster.password_file: cannot read {}", path.display())]
    Password {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A hub. Clones are handles to the same one.
#[derive(Clone)]
pub struct Server {
    hub: Arc<Hub>,
    cluster: Option<Arc<ReplicatedLog>>,
    config: Arc<Config>,
    pub(crate) app: Arc<App>,
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
        let (log, cluster) = open_log(config).await?;
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
        if let Some(cluster) = &cluster {
            cluster.members().count_streams_of(&hub);
            cluster
                .members()
                .listens_at(match config.cluster.address.as_str() {
                    "" => config.listen.to_string(),
                    address => address.to_owned(),
                });
            fan_out.spawn(warn_of_small_entries(
                Arc::clone(cluster),
                config.publish.event_bytes_max,
                drain.clone(),
            ));
            fan_out.spawn(end_streams_if_outdated(
                Arc::clone(cluster),
                Arc::clone(&hub),
                drain.clone(),
            ));
        }
        fan_out.close();
        let app = App::new(
            Arc::clone(&hub),
            cluster.clone(),
            config,
            silences,
            drain.clone(),
            tasks.clone(),
        );
        let (config, stop) = (Arc::new(config.clone()), CancellationToken::new());
        Ok(Self {
            hub,
            cluster,
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
        if let Some(cluster) = &self.cluster
            && self.config.cluster.address.is_empty()
            && let Ok(address) = listener.local_addr()
        {
            cluster.members().listens_at(address.to_string());
        }
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

/// An event that is allowed here and is too large for the broker is refused only when it comes.
async fn warn_of_small_entries(
    cluster: Arc<ReplicatedLog>,
    event_bytes_max: u64,
    drain: CancellationToken,
) {
    let entry = drain.run_until_cancelled(cluster.entry_bytes_max()).await;
    if let Some(entry_bytes_max) = entry
        && (entry_bytes_max as u64) < event_bytes_max
    {
        tracing::warn!(
            event_bytes_max,
            entry_bytes_max,
            "the broker takes less at once than publish.event_bytes_max allows: larger events are refused with 413; \
             raise the broker's limit or lower that one"
        );
    }
}

/// A node that cannot read the journal any more sends its readers to the others, and waits to be upgraded.
async fn end_streams_if_outdated(
    cluster: Arc<ReplicatedLog>,
    hub: Arc<Hub>,
    drain: CancellationToken,
) {
    tokio::select! {
        () = cluster.outdated() => hub.end(),
        () = drain.cancelled() => {}
    }
}
