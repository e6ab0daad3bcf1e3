//! The journal on NATS JetStream: a stream's sequence is the position.

mod address;
mod link;
mod session;
mod stream;
mod tail;

use super::{
    BadUrl,
    journal::{ConnectError, Journal, JournalOptions, Session},
};
use crate::log::BoxFuture;
use address::Address;
use link::{ANSWER_MAX, Link};
use rand::seq::SliceRandom as _;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use session::NatsSession;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use stream::Stream;

/// A server gets at least so long to answer, however many there are to try.
const SERVER_ANSWER_MIN: Duration = Duration::from_millis(1_500);

/// A journal in one stream of a NATS server or cluster.
pub struct NatsJournal {
    address: Address,
    ca_file: Option<PathBuf>,
    stream: Arc<Stream>,
    /// Of what nodes tell each other: no stream keeps it.
    announcements: async_nats::Subject,
}

impl NatsJournal {
    /// A journal at `nats://one:4222,two:4222`, or `tls://` for TLS, with `user:password@` or `token@` before the first
    /// server. `options.password` replaces the URL's password.
    ///
    /// # Errors
    ///
    /// [`BadUrl`].
    pub fn new(url: &str, options: &JournalOptions) -> Result<Self, BadUrl> {
        Ok(Self {
            address: Address::parse(url, options.password.as_deref())?,
            ca_file: options.ca_file.clone(),
            stream: Arc::new(Stream::new(options)),
            announcements: format!("tidings.{}.nodes", options.name).into(),
        })
    }

    async fn open(&self, server: &str) -> Result<Box<dyn Session>, ConnectError> {
        let link = Link::open(&self.address, server, self.ca_file.as_deref()).await?;
        let entry_bytes_max = self.stream.open(&link).await?;
        Ok(Box::new(NatsSession {
            link: Arc::new(link),
            entries: self.stream.subject.as_str().into(),
            announcements: self.announcements.clone(),
            stream: Arc::clone(&self.stream),
            entry_bytes_max,
        }))
    }
}

impl Journal for NatsJournal {
    /// Tries the servers in any order, until one gives a session or says what only somebody can mend.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, ConnectError>> {
        Box::pin(async move {
            // rustls has no provider of its own choice where several are compiled in. A second call is refused.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            if let Some(path) = &self.ca_file {
                check_ca_file(path).await?;
            }
            let mut servers: Vec<&str> = self.address.servers.iter().map(String::as_str).collect();
            servers.shuffle(&mut rand::rng());
            let share = u32::try_from(servers.len()).map_or(SERVER_ANSWER_MIN, |n| ANSWER_MAX / n);
            let within = share.max(SERVER_ANSWER_MIN);
            let mut last = ConnectError::Unavailable("no server is named".to_owned());
            for server in servers {
                match tokio::time::timeout(within, self.open(server)).await {
                    Ok(Err(ConnectError::Unavailable(text))) => {
                        last = ConnectError::Unavailable(text);
                    }
                    Ok(decided) => return decided,
                    Err(_) => {
                        let scheme = self.address.scheme();
                        last = ConnectError::Unavailable(format!(
                            "{scheme}://{server} did not answer in {within:?}"
                        ));
                    }
                }
            }
            Err(last)
        })
    }

    fn describe(&self) -> String {
        self.address.describe()
    }
}

/// The client library takes a file without certificates as one that trusts nobody.
async fn check_ca_file(path: &Path) -> Result<(), ConnectError> {
    let file = path.display();
    let pem = tokio::fs::read(path).await.map_err(|error| {
        ConnectError::Refused(format!("cannot read the CA file {file}: {error}"))
    })?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(()),
        _ => Err(ConnectError::Refused(format!(
            "the CA file {file} has no certificate in PEM"
        ))),
    }
}
