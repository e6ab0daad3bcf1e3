//! One connection to one NATS server, and requests to its JetStream. Knows nothing of streams.
//!
//! The client library reconnects, and then sends what it had still to send: on a link it cannot. The credentials that
//! it asks for at each connection are given once, so that a second one is never logged in.

use super::address::{Address, Login};
use crate::cluster::journal::{ConnectError, Fault};
use async_nats::{
    Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerError,
    jetstream::{self, context::RequestErrorKind, response::Response},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    error::Error as _,
    io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long an answer of the broker is waited for.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A server that says nothing is pinged so often, and given up after two pings without an answer.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The oldest server whose JetStream has what the journal needs.
const OLDEST: (u32, u32, u32) = (2, 9, 10);

/// A connection: it ends once it is dropped.
pub(super) struct Link {
    /// For core NATS.
    pub(super) client: Client,
    /// For publishing with acknowledgements.
    pub(super) jetstream: jetstream::Context,
    /// The server for texts, without secrets.
    pub(super) server: Arc<str>,
    broken: Arc<Broken>,
}

/// Whether a connection is over, and why.
#[derive(Default)]
struct Broken {
    token: CancellationToken,
    /// That the server forbids something, in its own words.
    forbidden: OnceLock<String>,
}

/// Why a request to JetStream has no answer that is of use.
#[derive(Debug)]
pub(super) enum RequestFault {
    /// Nobody listens to such requests.
    NobodyThere,
    /// The server says no.
    Answered(jetstream::Error),
    /// No answer, or none that can be read.
    Lost(String),
}

impl Link {
    /// Connects to that server of the address, and checks its version.
    pub(super) async fn open(
        address: &Address,
        server: &str,
        ca_file: Option<&Path>,
    ) -> Result<Self, ConnectError> {
        let url = format!("{}://{server}", address.scheme());
        let broken = Arc::new(Broken::default());
        let connected = Arc::new(AtomicBool::new(false));
        let options = options(&address.login, &connected, &broken)
            .require_tls(address.tls)
            .name("tidings");
        let options = match ca_file {
            Some(path) => options.add_root_certificates(path.to_owned()),
            None => options,
        };
        let client = options
            .connect(url.as_str())
            .await
            .map_err(|error| no_connection(&url, &error))?;
        connected.store(true, Ordering::Relaxed);
        let version = client.server_info().version;
        if !new_enough(&version) {
            let (major, minor, patch) = OLDEST;
            return Err(ConnectError::Refused(format!(
                "{url} is a nats-server {version:?}: {major}.{minor}.{patch} or later is needed"
            )));
        }
        Ok(Self {
            jetstream: jetstream::ContextBuilder::new()
                .timeout(ANSWER_MAX)
                .build(client.clone()),
            client,
            server: url.into(),
            broken,
        })
    }

    /// Asks JetStream's API, and waits for the answer: at most [`ANSWER_MAX`], or until the connection breaks.
    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &impl Serialize,
    ) -> Result<T, RequestFault> {
        let answer = tokio::select! {
            biased;
            answer = self.jetstream.request::<_, _, Response<T>>(subject, body) => answer,
            () = self.broken() => return Err(RequestFault::Lost(self.why_broken())),
        };
        match answer {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) => Err(RequestFault::Answered(error)),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(RequestFault::NobodyThere)
            }
            Err(error) => Err(RequestFault::Lost(format!("{}: {error}", self.server))),
        }
    }

    /// Resolves once the connection is over.
    pub(super) async fn broken(&self) {
        self.broken.token.cancelled().await;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.token.is_cancelled()
    }

    pub(super) fn why_broken(&self) -> String {
        match self.broken.forbidden.get() {
            Some(what) => format!("{} forbids it: {what}", self.server),
            None => format!("the connection to {} broke", self.server),
        }
    }

    /// Whether the server said that it forbids this user something.
    pub(super) fn is_forbidden(&self) -> bool {
        self.broken.forbidden.get().is_some()
    }
}

impl RequestFault {
    /// As the end of a session.
    pub(super) fn fault(&self, link: &Link) -> Fault {
        let server = &link.server;
        Fault(match self {
            Self::NobodyThere => format!("JetStream is not there at {server}"),
            Self::Answered(error) => format!("JetStream at {server} says: {error}"),
            Self::Lost(text) => text.clone(),
        })
    }
}

/// Options of a connection that is never made twice: see the head of this file.
fn options(login: &Login, connected: &Arc<AtomicBool>, broken: &Arc<Broken>) -> ConnectOptions {
    let mut auth = Auth::new();
    match login.clone() {
        Login::Nobody => {}
        Login::Token(token) => auth.token = Some(token),
        Login::User { name, password } => {
            auth.username = Some(name);
            auth.password = Some(password);
        }
    }
    let connected = Arc::clone(connected);
    let broken = Arc::clone(broken);
    ConnectOptions::with_auth_callback(move |_nonce| {
        let answer = if connected.load(Ordering::Relaxed) {
            Err(AuthError::new("a link is not made twice"))
        } else {
            Ok(auth.clone())
        };
        async move { answer }
    })
    .max_reconnects(1)
    .ignore_discovered_servers()
    .connection_timeout(ANSWER_MAX)
    .ping_interval(PING_EVERY)
    .event_callback(move |event| {
        match event {
            // A slow consumer is one of ours, of whose messages the library has just dropped one.
            Event::Disconnected | Event::Closed | Event::SlowConsumer(_) => broken.token.cancel(),
            Event::ServerError(ServerError::Other(text))
                if text.to_lowercase().starts_with("permissions violation") =>
            {
                let _ = broken.forbidden.set(text);
                broken.token.cancel();
            }
            _ => {}
        }
        async {}
    })
}

/// Tells what only somebody can mend from what may pass.
fn no_connection(url: &str, error: &async_nats::ConnectError) -> ConnectError {
    if error.kind() == ConnectErrorKind::AuthorizationViolation {
        return ConnectError::Refused(format!(
            "{url} refuses the user and the password, or the token, of the journal's URL"
        ));
    }
    let tls = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(error) => ConnectError::Refused(format!("no TLS with {url}: {error}")),
        None => ConnectError::Unavailable(format!("cannot connect to {url}: {error}")),
    }
}

/// Whether a version such as `2.10.1-beta.2` is that of [`OLDEST`] or a later one.
fn new_enough(version: &str) -> bool {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = release.trim_start_matches('v').split('.').map(str::parse);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => {
            (major, minor, patch) >= OLDEST
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_below_the_oldest_are_told_apart() {
        for version in [
            "2.9.10",
            "2.9.11",
            "2.10.0",
            "v2.15.1",
            "3.0.0-RC.1",
            "2.10.1+x",
        ] {
            assert!(new_enough(version), "{version}");
        }
        for version in [
            "2.9.9", "2.8.12", "1.99.99", "0.0.0", "", "2.9", "2.9.x", "2.9.10.1",
        ] {
            assert!(!new_enough(version), "{version}");
        }
    }
}
