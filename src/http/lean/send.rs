//! Writing to a socket without a buffer of its own in between.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{io::Interest, net::TcpStream, time::timeout};

/// Parts that are no more together are copied: that costs less than telling the kernel of each.
const JOINED_BYTES_MAX: usize = 1 << 10; // 1 KiB

/// How much is read at once of what nobody wants.
const DROPPED_BYTES: usize = 4 << 10; // 4 KiB

/// Sends what the socket takes now. After less than all it is [`writable`] only when there is room again.
pub(super) fn now(tcp: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    if whole == 0 {
        return Ok(0);
    }
    let mut sent = 0;
    let result = tcp.try_io(Interest::WRITABLE, || {
        let socket = socket2::SockRef::from(tcp);
        sent = match parts {
            [part] => socket.send(part)?,
            _ if whole <= JOINED_BYTES_MAX => {
                let (mut joined, mut len) = ([0; JOINED_BYTES_MAX], 0);
                for part in parts {
                    joined[len..len + part.len()].copy_from_slice(part);
                    len += part.len();
                }
                socket.send(&joined[..len])?
            }
            parts => socket.send_vectored(parts)?,
        };
        // A socket that took a part is full. To learn of its room, tokio must hear so from within this call.
        match sent == whole {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    });
    match result {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(sent),
    }
}

/// Waits for room, at most for so long.
pub(super) async fn writable(tcp: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    timeout(write_timeout, tcp.writable())
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// Sends all, or fails once the socket takes nothing for so long.
pub(super) async fn all(
    tcp: &TcpStream,
    mut bytes: &[u8],
    write_timeout: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = now(tcp, &[IoSlice::new(bytes)])?;
        bytes = &bytes[sent..];
        if !bytes.is_empty() {
            writable(tcp, write_timeout).await?;
        }
    }
    Ok(())
}

/// Whether the client is gone: by FIN or RST, whatever bytes it sent before. They are dropped, for a FIN behind more of
/// them than the socket holds would never arrive.
pub(super) fn poll_gone(tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
    while ready!(tcp.poll_read_ready(cx)).is_ok() {
        let mut dropped = [0; DROPPED_BYTES];
        match tcp.try_read(&mut dropped) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    Poll::Ready(())
}
