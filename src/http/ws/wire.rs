//! The socket of a WebSocket. tungstenite reads it, and writes what is small; a message of events, whose bytes are shared,
//! goes to the socket past it, as one frame that is never copied.

use super::reader::EVENTS_END;
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::{io, pin::pin, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::CapacityError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                FrameHeader,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

/// What tungstenite reads at once, and what it gathers of small messages before it writes them.
const BUFFER_BYTES: usize = 4 << 10; // 4 KiB

/// How long a client may take to answer a close, or to close its end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest head of a frame that a server sends.
const HEAD_BYTES_MAX: usize = 10;

/// What came from the client.
pub(super) enum Received {
    /// A message.
    Text(Bytes),
    /// Something that shows only that the client is there.
    Sign,
    /// The end. If the client broke the rules, it is to be told so.
    End(Option<(CloseCode, &'static str)>),
}

/// The socket.
pub(super) struct Wire {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    write_timeout: Duration,
    /// Whether nothing more can be read as messages.
    broken: bool,
}

impl Wire {
    pub(super) async fn new(
        upgraded: Upgraded,
        message_bytes_max: usize,
        write_timeout: Duration,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let io = TokioIo::new(upgraded);
        Self {
            socket: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
            write_timeout,
            broken: false,
        }
    }

    /// Waits for what comes next.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> Received {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text.into()),
            Some(Ok(Message::Binary(_))) => {
                Received::End(Some((CloseCode::Unsupported, "messages are text")))
            }
            Some(Ok(Message::Close(_))) | None => Received::End(None),
            Some(Ok(_)) => Received::Sign,
            Some(Err(error)) => {
                self.broken = true;
                Received::End(fault(&error))
            }
        }
    }

    /// Takes a message of the hub's own, to be sent with the next [`Wire::flush`] at the latest.
    pub(super) async fn feed(&mut self, message: String) -> io::Result<()> {
        let fed = self.socket.feed(Message::text(message));
        timeout(self.write_timeout, fed).await?.map_err(to_io)
    }

    /// Asks whether the client is there.
    pub(super) async fn ping(&mut self) -> io::Result<()> {
        let sent = self.socket.send(Message::Ping(Bytes::new()));
        timeout(self.write_timeout, sent).await?.map_err(to_io)
    }

    /// Sends what was fed.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let flushed = self.socket.flush();
        timeout(self.write_timeout, flushed).await?.map_err(to_io)
    }

    /// Sends a message of events: what stands before them, they themselves, and what ends it.
    pub(super) async fn send_events(&mut self, begin: &[u8], items: Bytes) -> io::Result<()> {
        // A pong may be there in part.
        self.flush().await?;
        let head = FrameHeader {
            opcode: OpCode::Data(Data::Text),
            ..FrameHeader::default()
        };
        let length = begin.len() + items.len() + EVENTS_END.len();
        let mut first = Vec::with_capacity(HEAD_BYTES_MAX + begin.len());
        head.format(length as u64, &mut first).map_err(to_io)?;
        first.extend_from_slice(begin);
        let mut message = Bytes::from(first).chain(items).chain(EVENTS_END);
        let socket = self.socket.get_mut();
        while message.has_remaining() {
            // The time begins anew with each byte that the client makes room for.
            if timeout(self.write_timeout, socket.write_buf(&mut message)).await?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        timeout(self.write_timeout, socket.flush()).await?
    }

    /// Ends it: says why, and lets the client read that before the connection is closed.
    pub(super) async fn close(mut self, why: Option<(CloseCode, String)>) {
        if let Some((code, reason)) = why {
            let reason = reason.into();
            let close = Message::Close(Some(CloseFrame { code, reason }));
            if !matches!(
                timeout(self.write_timeout, self.socket.send(close)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
        if !self.broken {
            // Until both have said that they close; whatever else comes is not looked at.
            let closed = async { while let Some(Ok(_)) = self.socket.next().await {} };
            let _ = timeout(CLOSE_TIMEOUT, closed).await;
        }
        let io = self.socket.get_mut();
        if !matches!(timeout(CLOSE_TIMEOUT, io.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        // A connection that is closed with bytes unread is reset, and then the client may never see why.
        let mut unread = Box::new([0; BUFFER_BYTES]);
        let mut read_on = pin!(async { while let Ok(1..) = io.read(&mut *unread).await {} });
        let _ = timeout(CLOSE_TIMEOUT, read_on.as_mut()).await;
    }
}

/// What a client is told that broke the rules; `None` if there is nobody to be told.
fn fault(error: &Error) -> Option<(CloseCode, &'static str)> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Some((CloseCode::Size, "the message is larger than any may be"))
        }
        Error::Utf8(_) => Some((CloseCode::Invalid, "the text is not UTF-8")),
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => None,
        Error::Protocol(_) => Some((CloseCode::Protocol, "that is not the WebSocket protocol")),
        _ => None,
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
