//! One connection to the broker: its TLS, its end, and what its failures mean. Knows nothing of queues.

use super::address::Address;
use crate::cluster::journal::{ConnectError, Fault};
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind,
    tcp::{AsyncTcpStream, RustlsConnector},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use socket2::{SockRef, Socket};
use std::{
    io,
    net::Shutdown,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// How long the broker may take for anything that it is asked.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long a connection that is no longer wanted may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What all connections to one broker have in common.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) address: Address,
    ca_file: Option<PathBuf>,
    tasks: TaskTracker,
}

impl Door {
    pub(super) fn new(address: Address, ca_file: Option<PathBuf>) -> Self {
        Self {
            address,
            ca_file,
            tasks: TaskTracker::new(),
        }
    }

    /// What TLS trusts: the file's certificates, or the system's. `None` without TLS.
    pub(super) async fn trust(&self) -> Result<Option<RustlsConnector>, ConnectError> {
        if !self.address.tls {
            return Ok(None);
        }
        // An error says that another one is installed already, which will do as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let connector = match &self.ca_file {
            Some(path) => from_file(path).await?,
            None => RustlsConnector::new_with_native_certs()
                .map_err(|error| refused(&format!("no certificates of the system: {error}")))?,
        };
        Ok(Some(connector))
    }

    /// Opens a connection, which the broker lists under `name`. When the future is dropped, so is the connection.
    pub(super) async fn open(
        &self,
        trust: Option<RustlsConnector>,
        name: String,
    ) -> Result<Link, ConnectError> {
        let leash = Leash {
            socket: Arc::new(OnceLock::new()),
            tasks: self.tasks.clone(),
            runtime: Handle::current(),
        };
        let socket = leash.socket.clone();
        let runtime = lapin::runtime::default_runtime().map_err(|error| unavailable(&error))?;
        let connecting = Connection::connector(
            self.address.uri(),
            runtime,
            async move |uri, runtime| {
                let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
                let connecting = async {
                    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(plain) = &stream {
                        let plain = SockRef::from(plain.get_ref()).try_clone()?;
                        if socket.set(Some(plain)).is_err() {
                            return Err(io::ErrorKind::ConnectionAborted.into());
                        }
                    }
                    match &trust {
                        Some(trust) => stream.into_rustls(trust, host).await,
                        None => Ok(stream),
                    }
                };
                // Of its own, since it goes on in lapin's thread when nobody waits for it any more.
                let connected = tokio::time::timeout(ANSWER_MAX, connecting).await;
                Ok(connected.map_err(io::Error::from)??)
            },
            ConnectionProperties::default().with_connection_name(name.into()),
        );
        let connection = connecting.await.map_err(|error| unavailable(&error))?;
        Ok(Link { connection, leash })
    }
}

/// A connection. Dropping it closes it, and cuts it if the broker does not answer that.
pub(super) struct Link {
    // Dropped first: it says goodbye.
    pub(super) connection: Connection,
    #[expect(dead_code, reason = "held for what its drop does")]
    leash: Leash,
}

impl Link {
    pub(super) async fn channel(&self) -> Result<Channel, Fault> {
        answered(self.connection.create_channel()).await
    }
}

/// Ends a connection's thread, which would wait for as long as the broker keeps the socket open and says nothing.
struct Leash {
    /// Another handle to the connection's socket, as soon as there is one; `None` if by then nobody wants it.
    socket: Arc<OnceLock<Option<Socket>>>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.socket.set(None).is_ok() {
            return;
        }
        let socket = self.socket.clone();
        let cut = async move {
            tokio::time::sleep(GOODBYE_MAX).await;
            if let Some(Some(socket)) = socket.get() {
                // Fails if it is closed already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        };
        self.tasks.spawn_on(cut, &self.runtime);
    }
}

/// The broker's answer, if it comes in time.
pub(super) async fn answered<T>(
    asking: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(ANSWER_MAX, asking).await {
        Ok(answer) => answer.map_err(|error| fault(&error)),
        Err(_) => Err(silent()),
    }
}

pub(super) fn silent() -> Fault {
    Fault(format!("no answer within {} s", ANSWER_MAX.as_secs()))
}

pub(super) fn fault(error: &lapin::Error) -> Fault {
    Fault(text(error))
}

async fn from_file(path: &Path) -> Result<RustlsConnector, ConnectError> {
    let pem = tokio::fs::read(path).await;
    let pem = pem.map_err(|error| refused(&format!("{}: {error}", path.display())))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| refused(&format!("{}: {error}", path.display())))?;
        roots
            .add(certificate)
            .map_err(|error| refused(&format!("{}: {error}", path.display())))?;
    }
    if roots.is_empty() {
        return Err(refused(&format!(
            "{}: expected a certificate in PEM",
            path.display()
        )));
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config.into())
}

fn refused(text: &str) -> ConnectError {
    ConnectError::Refused(text.to_owned())
}

/// What a failure to connect means: somebody has to act if the broker, or its certificate, says so.
pub(super) fn unavailable(error: &lapin::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::IOError(error) => unreachable(error),
        // ACCESS_REFUSED: user or password, or what the user may not; NOT_ALLOWED: virtual host, or the user in it.
        ErrorKind::ProtocolError(said) if matches!(said.get_id(), 403 | 530) => {
            let said = text(error);
            ConnectError::Refused(match said.contains("Login was refused") {
                true => format!("the user or the password is wrong ({said})"),
                false => said,
            })
        }
        _ => ConnectError::Unavailable(text(error)),
    }
}

/// The broker's own words if it sent any.
pub(super) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(said) => said.get_message().to_string(),
        _ => error.to_string(),
    }
}

/// The same of the connection below AMQP.
pub(super) fn unreachable(error: &io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => ConnectError::Refused(format!(
            "the broker's certificate is not trusted ({error}): name its CA's file, or the host that the certificate is for"
        )),
        Some(rustls::Error::InvalidMessage(_)) => {
            refused("what listens there does not speak TLS: amqp:// goes without")
        }
        _ => ConnectError::Unavailable(error.to_string()),
    }
}
