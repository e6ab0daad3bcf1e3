//! A proxy that does to connections what networks do: it stalls, cuts, delays and throttles them.

use super::{ports, stream::DEADLINE, wait::in_time};
use anyhow::ensure;
use bytes::{Buf as _, Bytes};
use std::{
    collections::VecDeque,
    future::pending,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What is on its way in one direction of a connection: no more is read then.
const ON_ITS_WAY_BYTES_MAX: usize = 1 << 20; // 1 MiB
const READ_BYTES: usize = 16 << 10; // 16 KiB
/// Throttled bytes go in portions of so much time.
const PORTION: Duration = Duration::from_millis(10);

/// What happens to bytes and connections, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Connections stay and new ones are taken, but no byte moves.
    Stall,
    /// All connections end and new ones are refused.
    Cut,
    /// Bytes come so much later. (At most 1 MiB is on its way.)
    Delay(Duration),
    /// So many bytes per second and connection.
    Throttle(u32),
}

/// A proxy in front of a server. It ends, and its connections with it, on drop.
pub(crate) struct ChaosProxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    listening: watch::Receiver<bool>,
    _task: JoinSet<()>,
}

impl ChaosProxy {
    /// Starts one that passes everything.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let (mode, modes) = watch::channel(Mode::Pass);
        let (tell, listening) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(listen(address, target, modes, tell));
        let proxy = Self {
            address,
            mode,
            listening,
            _task: task,
        };
        proxy.set(Mode::Pass).await;
        proxy
    }

    /// From now on, for open connections too. Once it returns, new ones are refused or taken accordingly.
    pub(crate) async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        let mut listening = self.listening.clone();
        let listens = listening.wait_for(|listens| *listens == (mode != Mode::Cut));
        let listens = in_time(DEADLINE, format!("a proxy in {mode:?}"), listens);
        listens.await.expect("the proxy's task");
    }
}

async fn listen(
    address: SocketAddr,
    target: SocketAddr,
    mut modes: watch::Receiver<Mode>,
    tell: watch::Sender<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let listener = TcpListener::bind(address).await.expect("its port");
        tell.send_replace(true);
        loop {
            let mode_of_connections = modes.clone();
            select! {
                cut = modes.wait_for(|mode| *mode == Mode::Cut) => match cut {
                    Ok(_) => break,
                    Err(_) => return,
                },
                accepted = listener.accept() => {
                    let (client, _) = accepted.expect("a connection");
                    connections.spawn(connection(client, target, mode_of_connections));
                }
                // Finished ones are forgotten.
                Some(_) = connections.join_next() => (),
            }
        }
        drop(listener);
        connections.shutdown().await;
        tell.send_replace(false);
        if modes.wait_for(|mode| *mode != Mode::Cut).await.is_err() {
            return;
        }
    }
}

/// Ends with an error when either end does, or when it is cut; both sockets are closed then.
async fn connection(
    client: TcpStream,
    target: SocketAddr,
    mut modes: watch::Receiver<Mode>,
) -> anyhow::Result<()> {
    modes.wait_for(|mode| *mode != Mode::Stall).await?;
    let server = TcpStream::connect(target).await?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        Direction::new(from_client, to_server, modes.clone()).run(),
        Direction::new(from_server, to_client, modes.clone()).run(),
    )?;
    Ok(())
}

/// One direction of a connection.
struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    modes: watch::Receiver<Mode>,
    /// What was read and is not written yet, with the time when it was read.
    on_its_way: VecDeque<(Instant, Bytes)>,
    on_its_way_bytes: usize,
    /// No more comes.
    at_end: bool,
    /// When a throttled direction may write again.
    rested: Instant,
}

impl Direction {
    fn new(from: OwnedReadHalf, to: OwnedWriteHalf, modes: watch::Receiver<Mode>) -> Self {
        Self {
            from,
            to,
            modes,
            on_its_way: VecDeque::new(),
            on_its_way_bytes: 0,
            at_end: false,
            rested: Instant::now(),
        }
    }

    /// Ends well once the end of what came has been passed on.
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let mode = *self.modes.borrow_and_update();
            ensure!(mode != Mode::Cut, "cut");
            if self.at_end && self.on_its_way.is_empty() && mode != Mode::Stall {
                return Ok(self.to.shutdown().await?);
            }
            let room = !self.at_end && self.on_its_way_bytes < ON_ITS_WAY_BYTES_MAX;
            let due = self.due(mode);
            let may_write = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
                self.to.writable().await
            };
            select! {
                changed = self.modes.changed() => changed?,
                readable = self.from.readable(), if room && mode != Mode::Stall => {
                    readable?;
                    unless_blocked(self.read())?;
                }
                writable = may_write => {
                    writable?;
                    unless_blocked(self.write(mode))?;
                }
            }
        }
    }

    /// When what is first on its way may be written; `None`: not before something else happens.
    fn due(&self, mode: Mode) -> Option<Instant> {
        let (read, _) = self.on_its_way.front()?;
        match mode {
            Mode::Pass => Some(*read),
            Mode::Stall | Mode::Cut => None,
            Mode::Delay(delay) => Some(*read + delay),
            Mode::Throttle(_) => Some(self.rested),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        let length = self.from.try_read(&mut buffer)?;
        if length == 0 {
            self.at_end = true;
        } else {
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            self.on_its_way_bytes += length;
            self.on_its_way.push_back((Instant::now(), bytes));
        }
        Ok(())
    }

    fn write(&mut self, mode: Mode) -> io::Result<()> {
        let Some((_, bytes)) = self.on_its_way.front_mut() else {
            return Ok(());
        };
        let portion = match mode {
            Mode::Throttle(bytes_per_second) => {
                (bytes_per_second as usize / (1000 / PORTION.as_millis() as usize)).max(1)
            }
            _ => bytes.len(),
        };
        let written = self.to.try_write(&bytes[..portion.min(bytes.len())])?;
        bytes.advance(written);
        if bytes.is_empty() {
            self.on_its_way.pop_front();
        }
        self.on_its_way_bytes -= written;
        if let Mode::Throttle(bytes_per_second) = mode {
            let took = Duration::from_secs(1) * written as u32 / bytes_per_second;
            self.rested = self.rested.max(Instant::now()) + took;
        }
        Ok(())
    }
}

/// A socket that was ready and is not so any more is asked again.
fn unless_blocked(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}
