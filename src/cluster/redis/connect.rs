//! The way to the node: Sentinel, TLS, a connection.

use super::{
    address::{Address, Host, Place},
    fault, reply,
};
use crate::cluster::journal::{ConnectError, Fault};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisConnectionInfo, RedisResult, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cmd,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    pipe,
};
use std::{path::PathBuf, time::Duration};

/// How long one Sentinel is waited for before the next one is asked.
const SENTINEL: Duration = Duration::from_secs(1);

/// Requests that may wait for the socket, on each connection.
pub(super) const QUEUE: usize = 1 << 16;

/// Bytes that are gathered into one write.
const WRITE_BYTES: usize = 1 << 16; // 64 KiB

/// Knows how to find the node.
pub(super) struct Connector {
    address: Address,
    ca_file: Option<PathBuf>,
}

/// A node that was found, to be connected to as often as needed.
pub(super) struct Node {
    host: Host,
    client: Client,
}

/// A connection. What clones of it send goes out in the order in which it was first polled.
#[derive(Clone)]
pub(super) struct Connection(MultiplexedConnection);

impl Connector {
    pub(super) fn new(address: Address, ca_file: Option<PathBuf>) -> Self {
        if address.tls {
            // The library panics where there is none; if another one is installed, it does as well.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        Self { address, ca_file }
    }

    pub(super) fn describe(&self) -> String {
        self.address.to_string()
    }

    /// What may be wrong where nothing answers: a server without TLS waits for more of what it takes for a command.
    pub(super) fn hint(&self) -> &'static str {
        if self.address.tls {
            "; does it speak TLS on that port?"
        } else {
            ""
        }
    }

    /// Finds the node, anew each time: Sentinel may name another one than before.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub(super) async fn node(&self) -> Result<Node, ConnectError> {
        let ca = self.ca().await?;
        match &self.address.place {
            Place::Node { host, database } => self.at(host, ca.as_ref(), *database, true),
            Place::Sentinel { sentinels, master } => {
                let host = self.ask_sentinels(sentinels, master, ca.as_ref()).await?;
                self.at(&host, ca.as_ref(), 0, true)
            }
        }
    }

    /// Whether that node is still the one, as far as a Sentinel answers. The master of before takes writes for seconds
    /// after a failover, which are lost when it becomes a replica.
    pub(super) async fn is_current(&self, node: &Node) -> bool {
        let Place::Sentinel { sentinels, master } = &self.address.place else {
            return true;
        };
        let Ok(ca) = self.ca().await else {
            return true;
        };
        match self.ask_sentinels(sentinels, master, ca.as_ref()).await {
            Ok(host) => host == node.host,
            Err(_) => true,
        }
    }

    /// The file is read each time, so that a new one is taken without a restart.
    async fn ca(&self) -> Result<Option<String>, ConnectError> {
        let Some(file) = self.ca_file.as_ref().filter(|_| self.address.tls) else {
            return Ok(None);
        };
        match tokio::fs::read_to_string(file).await {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(Some(pem)),
            Ok(_) => Err(ConnectError::Refused(format!(
                "there is no certificate in {}: a CA's are needed, in PEM",
                file.display()
            ))),
            Err(error) => Err(ConnectError::Refused(format!(
                "cannot read the CA's certificates in {}: {error}",
                file.display()
            ))),
        }
    }

    fn at(
        &self,
        host: &Host,
        ca: Option<&String>,
        database: i64,
        credentials: bool,
    ) -> Result<Node, ConnectError> {
        let (name, port) = (host.name.clone(), host.port);
        let address = if self.address.tls {
            ConnectionAddr::TcpTls {
                host: name,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(name, port)
        };
        let mut login = RedisConnectionInfo::default()
            .set_db(database)
            .set_protocol(ProtocolVersion::RESP2)
            .set_lib_name("tidings", env!("CARGO_PKG_VERSION"));
        if let (true, Some(password)) = (credentials, &self.address.password) {
            login = login.set_password(password);
            if let Some(user) = &self.address.user {
                login = login.set_username(user);
            }
        }
        let client = address
            .into_connection_info()
            .map(|info| info.set_redis_settings(login).set_tcp_settings(tcp()))
            .and_then(|info| match ca {
                Some(pem) => Client::build_with_tls(
                    info,
                    TlsCertificates {
                        client_tls: None,
                        root_cert: Some(pem.clone().into_bytes()),
                    },
                ),
                None => Client::open(info),
            })
            .map_err(|error| {
                ConnectError::Refused(format!(
                    "cannot use the CA's certificates: {}",
                    fault::text(&error)
                ))
            })?;
        Ok(Node {
            host: host.clone(),
            client,
        })
    }

    async fn ask_sentinels(
        &self,
        sentinels: &[Host],
        master: &str,
        ca: Option<&String>,
    ) -> Result<Host, ConnectError> {
        let mut silent = Vec::new();
        let mut last = None;
        for sentinel in sentinels {
            let asked = async {
                let open = self.at(sentinel, ca, 0, false)?;
                match open.master_of(master).await {
                    Err(ConnectError::Refused(_)) if self.address.password.is_some() => {
                        let login = self.at(sentinel, ca, 0, true)?;
                        login.master_of(master).await
                    }
                    answer => answer,
                }
            };
            match tokio::time::timeout(SENTINEL, asked).await {
                Ok(Ok(Some(host))) => return Ok(host),
                Ok(Ok(None)) => {
                    last = Some(ConnectError::Refused(format!(
                        "the Sentinel at {sentinel} knows no master named {master}"
                    )));
                }
                Ok(Err(error @ ConnectError::Refused(_))) => last = Some(error),
                Ok(Err(ConnectError::Unavailable(text))) => silent.push(text),
                Err(_) => silent.push(format!("{sentinel}: no answer in time")),
            }
        }
        Err(last.unwrap_or_else(|| {
            ConnectError::Unavailable(format!("no Sentinel answers: {}", silent.join("; ")))
        }))
    }
}

impl Node {
    /// Connects. A request fails when it was not answered for so long.
    pub(super) async fn connect(&self, answer: Duration) -> Result<Connection, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(answer))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(WRITE_BYTES);
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map(Connection)
            .map_err(|error| self.error(&error))
    }

    /// Why it cannot be used.
    pub(super) fn error(&self, error: &redis::RedisError) -> ConnectError {
        fault::connect_error(&self.host.to_string(), error)
    }

    /// It cannot be used until somebody changes something: text to follow its name.
    pub(super) fn refused(&self, why: &str) -> ConnectError {
        ConnectError::Refused(format!("{} {why}", self.host))
    }

    /// It cannot be used now: text to follow its name.
    pub(super) fn unavailable(&self, why: &str) -> ConnectError {
        ConnectError::Unavailable(format!("{} {why}", self.host))
    }

    /// Whom this Sentinel takes for the master of that name.
    async fn master_of(&self, name: &str) -> Result<Option<Host>, ConnectError> {
        let connection = self.connect(SENTINEL).await?;
        let mut ask = cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answer: Option<(String, u16)> = connection
            .query(&ask)
            .await
            .map_err(|error| self.error(&error))?;
        Ok(answer.map(|(name, port)| Host { name, port }))
    }
}

impl Connection {
    /// Asks, and gives the answer in the form that is wanted.
    pub(super) async fn query<T: redis::FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.0.clone()).await
    }

    /// Sends all of them together, and gives their answers; errors of the server are among them.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut connection = self.0.clone();
        connection
            .send_packed_commands(commands, 0, commands.len())
            .await
    }

    /// Asks the master: one that has become a replica answers with the past, or with the history of another node.
    ///
    /// # Errors
    ///
    /// [`Fault`] of the connection, or if the node is no master; an error about the command itself is in the answer.
    pub(super) async fn ask(&self, command: Cmd) -> Result<Value, Fault> {
        let mut commands = pipe();
        commands.cmd("ROLE").add_command(command);
        let [role, answer] = reply::array(Value::Array(self.send(&commands).await?))?;
        if reply::is_master(role)? {
            Ok(answer)
        } else {
            Err(Fault("the node is no longer the master".to_owned()))
        }
    }
}

/// Without a delay for small writes, and with an end for connections whose other side is gone.
fn tcp() -> TcpSettings {
    const PROBE: Duration = Duration::from_secs(5);
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(PROBE).with_interval(PROBE))
        .set_user_timeout(3 * PROBE)
}
