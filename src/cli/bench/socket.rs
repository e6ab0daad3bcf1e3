//! Connections: opened without waiting, and from as many source addresses as it takes.

use mio::{Interest, Registry, Token, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

/// Connections from one source address to one port: below the 28,000 ports that Linux gives out by itself, since
/// closed connections keep theirs for a minute.
const PER_SOURCE: u64 = 20_000;

/// Opens connections to one server.
#[derive(Debug)]
pub(super) struct Dialer {
    address: SocketAddr,
    opened: u64,
}

impl Dialer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, opened: 0 }
    }

    /// Begins to connect. The first event of the token says that it is done, or has failed. Of what is sent to it
    /// the kernel holds about `receive_bytes`, or as much as it likes.
    pub(super) fn dial(
        &mut self,
        registry: &Registry,
        token: Token,
        receive_bytes: Option<usize>,
    ) -> io::Result<TcpStream> {
        let domain = Domain::for_address(self.address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if self.address.ip().is_loopback() && self.address.is_ipv4() {
            let source = 1 + self.opened / PER_SOURCE % 250;
            let source = Ipv4Addr::new(127, 0, 0, u8::try_from(source).unwrap_or(1));
            if source != Ipv4Addr::LOCALHOST {
                // Else closed connections would keep their ports from it.
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from((source, 0)).into())?;
            }
        }
        self.opened += 1;
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }
}

fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Whether a connection that was begun is there by now.
pub(super) fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes what the socket takes; gives how much.
pub(super) fn write_some(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                written += count;
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Reads what there is, once; `None` if there is nothing now. A stream that has ended is an error.
pub(super) fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match stream.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}
