//! `tidings serve`: logging, configuration (which binds nothing), limits, socket, hub, banner, signals.

use super::{HubArgs, port};
use anyhow::{Context as _, anyhow};
use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};
use tidings::{
    Server,
    config::{Config, Durability, Engine, environment},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

/// Connections that the kernel holds until they are accepted: as many as Linux allows by default.
const BACKLOG: u32 = 4_096;

/// Runs a hub until a signal ends it.
pub(super) fn run(args: &HubArgs) -> anyhow::Result<ExitCode> {
    start_logging()?;
    let config = args.load()?.config;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(&config));
    // Whatever is still running had its time.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let listener = listen(config.listen)?;
    let address = listener.local_addr().context("the socket has no address")?;
    let server = Server::open(config).await?;
    let mut signals = Signals::new().context("cannot listen for signals")?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "listening beyond loopback: anyone who reaches the port may publish and read");
    }
    // With standard output closed, the hub runs on.
    let _ = banner(config, address);

    // On a worker, where what is accepted runs: this thread only waits for signals.
    let door = server.clone();
    let mut serving = TaskTracker::new().spawn(async move { door.serve(listener).await });
    tokio::select! {
        served = &mut serving => return Ok(served.map(|()| ExitCode::SUCCESS)?),
        name = signals.next() => tracing::info!(signal = name, "stopping; a second signal ends at once"),
    }
    server.shutdown();
    tokio::select! {
        served = &mut serving => Ok(served.map(|()| ExitCode::SUCCESS)?),
        name = signals.next() => {
            tracing::warn!(signal = name, "ending at once");
            Ok(ExitCode::from(130))
        }
    }
}

fn start_logging() -> anyhow::Result<()> {
    let directives = environment::get(environment::TRACE)
        .unwrap_or_else(|| "info,async_nats=off,lapin=off".to_owned());
    let filter = EnvFilter::try_new(&directives).with_context(|| {
        let name = environment::TRACE;
        format!("{name}: expected a filter such as info, debug or tidings=debug,warn; found {directives:?}")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}

/// Each connection is an open file, and the usual soft limit is 1,024.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files_max) => tracing::debug!(files_max, "open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => taken(address),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("cannot listen on {address}: no network interface of this machine has that address")
        }
        io::ErrorKind::PermissionDenied => anyhow!(
            "cannot listen on {address}: not permitted; ports below 1024 need a privilege, try --listen {}:8080",
            ip(address)
        ),
        _ => anyhow!(error).context(format!("cannot listen on {address}")),
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A hub that was just stopped leaves connections behind that keep the port for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn taken(address: SocketAddr) -> anyhow::Error {
    let port = address.port();
    let by = match port::listener(port) {
        Some(listener) => format!("process {} ({})", listener.pid, listener.name),
        None => "another process".to_owned(),
    };
    let next = port.checked_add(1).unwrap_or(8080);
    anyhow!(
        "cannot listen on {address}: the port is taken by {by}; stop it, or listen elsewhere: \
         --listen {}:{next}",
        ip(address)
    )
}

/// The address without its port, in brackets where a port needs them.
fn ip(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

fn banner(config: &Config, address: SocketAddr) -> io::Result<()> {
    // What a browser on this machine can open.
    let here = match address {
        SocketAddr::V4(_) if address.ip().is_unspecified() => {
            (Ipv4Addr::LOCALHOST, address.port()).into()
        }
        SocketAddr::V6(_) if address.ip().is_unspecified() => {
            (Ipv6Addr::LOCALHOST, address.port()).into()
        }
        address => address,
    };
    let data = match (config.log.engine, config.log.durability) {
        (Engine::Memory, _) => "in memory, and gone when the hub stops".to_owned(),
        (Engine::Sqlite, Durability::Sync) => config.data_dir.display().to_string(),
        (Engine::Sqlite, Durability::Os) => {
            format!("{} (durability \"os\")", config.data_dir.display())
        }
    };
    let data = match &config.cluster.journal {
        Some(journal) => format!(
            "{data}, as a node of {} over {journal}",
            config.cluster.name
        ),
        None => data,
    };
    let text = format!(
        "Tidings {} is listening on http://{address}\n  \
           page       http://{here}/\n  \
           subscribe  curl -N http://{here}/topics/demo\n  \
           publish    curl -d 'hello' http://{here}/topics/demo\n  \
           data       {data}\n",
        env!("CARGO_PKG_VERSION"),
    );
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// SIGTERM, and SIGINT, which Ctrl-C is.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
