//! Asks a broker for its version, which lapin keeps to itself: the first frame of a connection tells it.

use super::link::{Door, unreachable};
use crate::cluster::journal::ConnectError;
use lapin::tcp::{HandshakeError, RustlsConnector, TcpStream};
use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream as StdTcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// The first version whose streams are known to keep what the journal needs.
const NEEDED: (u32, u32) = (3, 10);

/// For each step of the connection.
const STEP_MAX: Duration = Duration::from_secs(2);

const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Type, channel and size.
const FRAME_HEAD_BYTES: usize = 7;

/// A frame's bound before one is negotiated is 4 KiB; this leaves a broker room to be wrong.
const FRAME_BYTES_MAX: usize = 64 << 10; // 64 KiB

/// Class 10 (connection), method 10 (start).
const START: &[u8; 4] = b"\x00\x0a\x00\x0a";

/// Refuses a broker that is too old, on a connection of its own.
pub(super) async fn check(door: &Door, trust: Option<RustlsConnector>) -> Result<(), ConnectError> {
    let (host, port) = (door.address.host.clone(), door.address.port);
    let asking = tokio::task::spawn_blocking(move || first_frame(&host, port, trust.as_ref()));
    let frame = match asking.await {
        Ok(frame) => frame.map_err(|error| match error.kind() {
            // How a socket says that its time is over.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(),
            _ => unreachable(&error),
        })?,
        Err(stopped) => return Err(ConnectError::Unavailable(stopped.to_string())),
    };
    match version(&frame) {
        Some(version) if number(&version) >= Some(NEEDED) => Ok(()),
        Some(version) => Err(ConnectError::Refused(format!(
            "the broker is version {version}: its streams need RabbitMQ 3.10 or later"
        ))),
        None => Err(ConnectError::Refused(
            "what listens there does not speak AMQP 0-9-1 as RabbitMQ does; TLS is amqps://"
                .to_owned(),
        )),
    }
}

fn silent() -> ConnectError {
    ConnectError::Unavailable(format!("no answer within {} s", STEP_MAX.as_secs()))
}

/// What the broker says first, or what it said in place of a frame.
fn first_frame(host: &str, port: u16, trust: Option<&RustlsConnector>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::from_std(connected(host, port)?)?;
    if let Some(trust) = trust {
        stream = stream
            .into_rustls(trust, host)
            .map_err(|error| match error {
                HandshakeError::Failure(error) => error,
                HandshakeError::WouldBlock(_) => io::ErrorKind::TimedOut.into(),
            })?;
    }
    stream.write_all(PROTOCOL_HEADER)?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head)?;
    let [1, _, _, size @ ..] = head else {
        return Ok(head.to_vec());
    };
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    let mut frame = vec![0; size.min(FRAME_BYTES_MAX)];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn connected(host: &str, port: u16) -> io::Result<StdTcpStream> {
    let mut failed = io::ErrorKind::NotFound.into();
    for address in (host, port).to_socket_addrs()? {
        match StdTcpStream::connect_timeout(&address, STEP_MAX) {
            Ok(stream) => {
                stream.set_read_timeout(Some(STEP_MAX))?;
                stream.set_write_timeout(Some(STEP_MAX))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The server property `version`. A key is written with its length before it, a text with its type and length, so no
/// other property looks like it, and the table need not be parsed.
fn version(frame: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\x07versionS";
    let table = frame.strip_prefix(START)?;
    let at = table.windows(KEY.len()).position(|bytes| bytes == KEY)?;
    let (size, text) = table[at + KEY.len()..].split_first_chunk()?;
    let text = text.get(..usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// `3.10.8`, `4.0.0-rc.1`: the first two of its numbers.
fn number(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_among_the_properties() {
        let mut frame = [START.as_slice(), b"\x00\x09\x00\x00\x00\x40"].concat();
        frame.extend(b"\x07productS\x00\x00\x00\x08RabbitMQ");
        frame.extend(b"\x0fproduct_versionS\x00\x00\x00\x031.0");
        frame.extend(b"\x07versionS\x00\x00\x00\x063.10.8");
        assert_eq!(Some("3.10.8".to_owned()), version(&frame));
        frame.pop();
        assert_eq!(None, version(&frame));
        assert_eq!(None, version(b"AMQP\x00\x00\x09"));
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(number("3.10.0") >= Some(NEEDED));
        assert!(number("4.0.0-rc.1") >= Some(NEEDED));
        assert!(number("3.11+rc") >= Some(NEEDED));
        assert!(number("3.9.29") < Some(NEEDED));
        assert!(number("2.100.0") < Some(NEEDED));
        assert!(number("unknown") < Some(NEEDED));
    }
}
