//! A connection's socket as hyper sees it, and what its streams need to know of it.

use super::{poll::Waiting, refusal, stall, ws};
use crate::delivery::stream::EventStream;
use axum::{body::Body, http::Version};
use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit},
    time::{Sleep, sleep},
};
use tokio_stream::StreamExt;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::TaskTrackerToken,
};

/// What one stream may have in hyper's buffer, not yet taken by the socket; one piece may be larger.
const UNSENT_BYTES_MAX: usize = 64 << 10; // 64 KiB

/// A request that is on its way is there within this time.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// What an answer leaves to be done on its connection.
#[expect(
    clippy::large_enum_variant,
    reason = "it is there for a moment, and mostly the largest"
)]
pub(super) enum Left {
    /// Its body is this stream.
    Stream(EventStream),
    /// The rest of it, and its body, come when there is an event.
    Page(Box<Waiting>),
    /// The connection becomes this WebSocket once its protocol is switched. Nothing is HTTP on it from there on.
    Socket(Box<ws::Opened>),
}

/// What handlers know of the connection that a request came on: an extension of the request.
pub(super) struct Connection {
    /// It is beyond the cap, and may only be turned away.
    pub(super) overloaded: bool,
    /// Whether a stream is taken from here, rather than out of the answer's body.
    takes_streams: bool,
    left: Mutex<Option<Left>>,
    /// How often all that was to be sent was taken by the socket.
    flushes: AtomicU64,
    flushed: Notify,
    /// Called then, if anybody wants to know.
    on_flush: OnceLock<Box<dyn Fn() + Send + Sync>>,
    streaming: AtomicBool,
    stream_begun: Notify,
    /// Set once its socket is another protocol's. Cancelled to end it.
    upgraded: OnceLock<CancellationToken>,
    /// Whether a request is on its way.
    awaited: AtomicBool,
}

impl Connection {
    /// A connection that hyper serves.
    pub(super) fn library(overloaded: bool) -> Self {
        Self::new(overloaded, false)
    }

    /// A connection that [`super::lean`] serves.
    pub(super) fn lean(overloaded: bool) -> Self {
        Self::new(overloaded, true)
    }

    fn new(overloaded: bool, takes_streams: bool) -> Self {
        Self {
            overloaded,
            takes_streams,
            left: Mutex::new(None),
            flushes: AtomicU64::new(0),
            flushed: Notify::new(),
            on_flush: OnceLock::new(),
            upgraded: OnceLock::new(),
            streaming: AtomicBool::new(false),
            stream_begun: Notify::new(),
            awaited: AtomicBool::new(true),
        }
    }

    /// Its request came. Whether there will be another, nobody knows.
    pub(super) fn asked(&self) {
        self.awaited.store(false, Ordering::Relaxed);
    }

    /// Its client asks again once it is answered.
    pub(super) fn asks_again(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// Waits until a connection on which nothing is asked is to be closed, as the hub goes down. Where a request is on its
    /// way, that has a little longer: it is told what one is told that comes later.
    pub(super) async fn drained(self: Arc<Self>, drain: CancellationToken) {
        drain.cancelled().await;
        if self.awaited.load(Ordering::Relaxed) {
            sleep(ON_ITS_WAY).await;
        }
    }

    /// A body for a stream that lasts. In HTTP/2 flow control and the stream's send buffer bound what is unsent, and
    /// [`stall`] how long; in HTTP/1 the stream has the connection for itself, and waits here for the socket.
    pub(super) fn stream_body(self: &Arc<Self>, stream: EventStream, version: Version) -> Body {
        if self.takes_streams {
            return self.leave_body(Left::Stream(stream.paced()));
        }
        let stream = stream.into_stream();
        if version >= Version::HTTP_2 {
            return Body::from_stream(stall::noted(stream));
        }
        let this = Arc::clone(self);
        this.streaming.store(true, Ordering::Release);
        this.stream_begun.notify_one();
        Body::from_stream(async_stream::stream! {
            let mut stream = std::pin::pin!(stream);
            let (mut unsent, mut seen) = (0, this.flushes.load(Ordering::Acquire));
            while let Some(Ok(piece)) = stream.next().await {
                if unsent > 0 && unsent + piece.len() > UNSENT_BYTES_MAX {
                    this.flushed_since(seen).await;
                }
                let flushes = this.flushes.load(Ordering::Acquire);
                if flushes != seen {
                    (unsent, seen) = (0, flushes);
                }
                unsent += piece.len();
                yield Ok::<_, Infallible>(piece);
            }
        })
    }

    /// Whether an answer may be left to be given later.
    pub(super) fn takes_pages(&self) -> bool {
        self.takes_streams
    }

    /// The body of an answer that leaves this: of no known size, so that nobody on the way out takes it for an empty one.
    pub(super) fn leave_body(&self, left: Left) -> Body {
        self.leave(left);
        Body::from_stream(tokio_stream::empty::<Result<Bytes, Infallible>>())
    }

    pub(super) fn leave(&self, left: Left) {
        *self.slot() = Some(left);
    }

    /// What the answer that was given last left.
    pub(super) fn take_left(&self) -> Option<Left> {
        self.slot().take()
    }

    /// The WebSocket that the connection has become.
    pub(super) fn take_socket(&self) -> Option<Box<ws::Opened>> {
        match self.take_left() {
            Some(Left::Socket(opened)) => {
                self.streaming.store(true, Ordering::Release);
                Some(opened)
            }
            _ => None,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stream has the connection for itself, or had it.
    pub(super) fn is_streaming(&self) -> bool {
        self.streaming.load(Ordering::Acquire)
    }

    /// Calls that whenever the socket has taken all that was to be sent. The first one to want it gets it.
    pub(super) fn on_flush(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_flush.set(Box::new(call));
    }

    /// Its socket is another protocol's from now on, which cancels `end` to end it.
    pub(super) fn set_upgraded(&self, end: CancellationToken) {
        let _ = self.upgraded.set(end);
    }

    /// Whether it is.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.get().is_some()
    }

    async fn flushed_since(&self, seen: u64) {
        while self.flushes.load(Ordering::Acquire) == seen {
            self.flushed.notified().await;
        }
    }

    /// Waits until a stream has the connection, and then until the client is gone: by FIN or RST, whatever bytes it
    /// sent before. (hyper sees neither behind bytes that nobody reads.)
    pub(super) async fn client_gone(&self, tcp: &TcpStream) {
        while !self.is_streaming() {
            self.stream_begun.notified().await;
        }
        while tcp.readable().await.is_ok() {
            // After a stream nothing is read from the connection any more, so whatever comes is dropped here: a FIN
            // behind more bytes than the socket holds would never arrive.
            let mut dropped = [0; 4_096];
            match tcp.try_read(&mut dropped) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }
}

/// The socket, with what was already read put back in front, and with a deadline on writing.
pub(super) struct Socket {
    tcp: Arc<TcpStream>,
    connection: Arc<Connection>,
    read_before: Bytes,
    write_timeout: Duration,
    /// Runs while the socket takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What goes out in place of what hyper wrote.
    instead: Option<Bytes>,
    held: Held,
    /// Wait for the hub's hard stop, and for the other protocol's end, once the socket is that one's.
    stopped: Option<[Pin<Box<WaitForCancellationFutureOwned>>; 2]>,
}

/// What a socket holds as long as it lives, which for another protocol's is longer than its connection's task.
#[derive(Clone)]
pub(super) struct Held {
    /// Its place among the hub's connections.
    pub(super) _place: Arc<OwnedSemaphorePermit>,
    /// A drain waits for it.
    pub(super) _task: TaskTrackerToken,
    /// Cancelled to end all at once.
    pub(super) stop: CancellationToken,
}

impl Socket {
    pub(super) fn new(
        tcp: Arc<TcpStream>,
        connection: Arc<Connection>,
        read_before: Bytes,
        write_timeout: Duration,
        held: Held,
    ) -> TokioIo<Self> {
        TokioIo::new(Self {
            tcp,
            connection,
            read_before,
            write_timeout,
            stalled: None,
            instead: None,
            held,
            stopped: None,
        })
    }

    /// Fails once a socket is to end that no task of the hub's own watches.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(end) = self.connection.upgraded.get() else {
            return Poll::Pending;
        };
        let stop = &self.held.stop;
        let stopped = self
            .stopped
            .get_or_insert_with(|| [stop, end].map(|end| Box::pin(end.clone().cancelled_owned())));
        match stopped
            .iter_mut()
            .any(|end| end.as_mut().poll(cx).is_ready())
        {
            true => Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
            false => Poll::Pending,
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        while self.tcp.poll_write_ready(cx)?.is_ready() {
            match send(&self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    self.stalled = None;
                    return Poll::Ready(sent);
                }
            }
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        if stalled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.poll_stopped(cx).map(Err)
    }

    /// Sends what stands in place of `bytes`, if anything does, and takes them as sent.
    fn poll_instead(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<Option<usize>>> {
        if self.instead.is_none() && !self.connection.is_streaming() {
            self.instead = refusal::in_place_of(bytes);
        }
        let Some(mut instead) = self.instead.take() else {
            return Poll::Ready(Ok(None));
        };
        while instead.has_remaining() {
            match self.poll_send(cx, |tcp| tcp.try_write(&instead)) {
                Poll::Ready(sent) => instead.advance(sent?),
                Poll::Pending => {
                    self.instead = Some(instead);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(Some(bytes.len())))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_before.has_remaining() {
            let count = self.read_before.len().min(buf.remaining());
            buf.put_slice(&self.read_before.split_to(count));
            if self.read_before.is_empty() {
                self.read_before = Bytes::new(); // which lets go of the memory
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.tcp.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.poll_stopped(cx).map(Err),
            }
            // Into memory as it is: to clear all of hyper's buffer for each read would cost more than the read.
            match self.tcp.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = ready!(self.poll_instead(cx, bytes))? {
            return Poll::Ready(Ok(count));
        }
        self.poll_send(cx, |tcp| tcp.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = parts
            && let Some(count) = ready!(self.poll_instead(cx, bytes))?
        {
            return Poll::Ready(Ok(count));
        }
        self.poll_send(cx, |tcp| tcp.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when its buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.flushes.fetch_add(1, Ordering::Release);
        self.connection.flushed.notify_one();
        if let Some(call) = self.connection.on_flush.get() {
            call();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.tcp).shutdown(std::net::Shutdown::Write))
    }
}
