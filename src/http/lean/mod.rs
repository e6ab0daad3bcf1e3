//! Plain HTTP/1 requests, read and answered without a library in between, as far as that goes: small ones on a connection
//! that stays open, and the streams that they open, of which each costs little more than its socket.
//!
//! **Invariant:** what a request may do is the router's to say, which is the same for all. **Invariant:** nothing is
//! answered here that hyper would answer in other words; what is unusual in any way is handed to it, with the bytes
//! already read, before the router has seen it.

mod answer;
mod chunks;
mod request;
mod send;
mod stream;
#[cfg(test)]
mod tests;
mod wait;

pub(super) use request::FIELDS_MAX;
use stream::Opened;
pub(super) use stream::Streaming;
pub(super) use wait::{Waited, Waiter};

use super::{
    listener::{HTTP2_PREFACE, Listener},
    socket::{Connection, Left},
};
use crate::config::Http1;
use answer::Length;
use axum::{
    Router,
    body::{Body, HttpBody},
    http::{HeaderMap, Request, StatusCode, Version},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use chunks::Chunks;
use http_body_util::BodyExt;
use request::{Asked, Plain};
use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

/// What is read at once of requests that are no larger.
const READ_BYTES: usize = 1 << 10; // 1 KiB

/// A connection keeps no larger buffers between two requests.
const KEPT_BYTES_MAX: usize = 16 << 10; // 16 KiB

/// How the lean part of a connection ends.
pub(super) enum End {
    /// The client is gone, or took too long to ask for something.
    Gone,
    /// All was answered, and the connection is to be closed.
    Answered,
    /// It is a stream's from now on.
    Stream(Box<Opened>),
    /// It has an answer to wait for, and serves further requests after that.
    Wait(Box<Waiter>),
    /// It is hyper's from now on, beginning with these bytes. If their first request was answered already, the answer is
    /// there, too.
    Library(Bytes, Option<Box<Response>>),
    /// The same, for HTTP/2.
    Http2(Bytes),
}

/// A connection to be served.
pub(super) struct Begun {
    pub(super) tcp: TcpStream,
    /// What was read from it already.
    pub(super) read: BytesMut,
    /// Whether a request was answered on it.
    pub(super) served: bool,
}

/// A connection on which plain requests come.
pub(super) struct Lean {
    pub(super) tcp: TcpStream,
    door: Arc<Listener>,
    drain: CancellationToken,
    router: Router,
    connection: Arc<Connection>,
    pub(super) read: BytesMut,
    /// Whether a request was answered.
    served: bool,
    /// Whether the connection is to be closed after the answer.
    last: bool,
    /// Made when first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    drained: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Used again by each request.
    headers: HeaderMap,
    head: Vec<u8>,
}

/// Why no more is read.
enum Stop {
    /// The client sends no more.
    End,
    /// It took too long, or the connection broke.
    Late,
    /// The hub goes down.
    Drain,
}

/// What became of an answer.
enum Answered {
    /// It is sent; whether further requests are served after it.
    Whole { keep_alive: bool },
    /// Its body is a stream, and its head is to be sent with the stream's first bytes.
    Stream(Box<Opened>),
    /// It is still to come.
    Later(Box<Waiter>),
    /// It is not one that can be sent here.
    NotHere(Box<Response>),
}

impl Lean {
    /// A connection from which this was read already, perhaps after other requests were answered.
    pub(super) fn new(
        Begun { tcp, read, served }: Begun,
        door: Arc<Listener>,
        drain: CancellationToken,
        overloaded: bool,
    ) -> Self {
        Self {
            tcp,
            router: door.router.clone(),
            connection: Arc::new(Connection::lean(overloaded)),
            door,
            drain,
            read,
            served,
            last: false,
            timer: None,
            drained: None,
            headers: HeaderMap::new(),
            head: Vec::new(),
        }
    }

    /// Serves one request after the other.
    pub(super) async fn run(&mut self) -> End {
        loop {
            let (head, plain) = match self.request().await {
                Ok(request) => request,
                Err(end) => return end,
            };
            let body = self.read.split_to(plain.body_bytes).freeze();
            let request = plain.request.map(|()| Body::from(body.clone()));
            let Some(response) = self.call(request).await else {
                return End::Gone;
            };
            match self.answer(plain.asked, plain.keep_alive, response).await {
                Ok(Answered::Whole { keep_alive: true }) => self.served = true,
                Ok(Answered::Whole { keep_alive: false }) => return End::Answered,
                Ok(Answered::Stream(opened)) => return End::Stream(opened),
                Ok(Answered::Later(waiter)) => return End::Wait(waiter),
                Ok(Answered::NotHere(response)) => {
                    let before = [&head[..], &body, &self.read].concat();
                    return End::Library(before.into(), Some(response));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection ended with an error");
                    return End::Gone;
                }
            }
            if head.len() + body.len() > KEPT_BYTES_MAX && self.read.is_empty() {
                self.read = BytesMut::new();
            }
        }
    }

    /// The next request, with its body read; also its head as it came.
    async fn request(&mut self) -> Result<(Bytes, Plain), End> {
        let deadline = Instant::now() + self.door.limits.head_timeout;
        let head_bytes_max = self.door.head_bytes_max();
        let mut searched = 0;
        let head = loop {
            if self.read.is_empty() || self.is_preface()? {
                // More is needed to see what it is.
            } else if self.door.limits.http1 == Http1::Library {
                return Err(self.library(b""));
            } else {
                match request::end(&self.read, searched) {
                    request::End::At(end) => break self.read.split_to(end).freeze(),
                    request::End::Unusual => return Err(self.library(b"")),
                    // It is looked at a first time, so that what is no HTTP is told so at once, and then at its end.
                    request::End::Beyond(_) if searched == 0 && !request::may_begin(&self.read) => {
                        return Err(self.library(b""));
                    }
                    request::End::Beyond(at) => searched = at,
                }
            }
            let room = head_bytes_max.saturating_sub(self.read.len());
            if room == 0 {
                return Err(self.library(b""));
            }
            let room = room.min(self.read.len().max(READ_BYTES));
            match self.more(room, deadline, !self.last).await {
                Ok(()) => {}
                // Also what was cut off is hyper's to judge.
                Err(Stop::End) if !self.read.is_empty() => return Err(self.library(b"")),
                Err(Stop::Drain) if self.served => return Err(End::Answered),
                Err(Stop::Drain) if !self.read.is_empty() => self.last = true,
                Err(_) => return Err(End::Gone),
            }
        };
        let headers = std::mem::take(&mut self.headers);
        let plain = match request::plain(&head, headers) {
            Some(plain) if head.len() <= head_bytes_max => plain,
            _ => return Err(self.library(&head)),
        };
        // A body of which more is to come is hyper's, so that its request is judged now.
        while let Some(room) = plain.body_bytes.checked_sub(self.read.len())
            && room > 0
        {
            self.read.reserve(room);
            let mut reading = pin!(self.tcp.read_buf(&mut self.read));
            let read = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
            if !matches!(read, Poll::Ready(Ok(1..))) {
                return Err(self.library(&head));
            }
        }
        Ok((head, plain))
    }

    /// Whether what was read can still become the beginning of an HTTP/2 connection.
    fn is_preface(&self) -> Result<bool, End> {
        match &self.read[..] {
            _ if self.served => Ok(false),
            read if read.starts_with(HTTP2_PREFACE) => Err(End::Http2(self.read.clone().freeze())),
            read => Ok(HTTP2_PREFACE.starts_with(read)),
        }
    }

    /// Hands all that was read to hyper, also a head that was taken out.
    fn library(&mut self, head: &[u8]) -> End {
        let rest = self.read.split().freeze();
        let before = match head.is_empty() {
            true => rest,
            false => [head, &rest].concat().into(),
        };
        End::Library(before, None)
    }

    /// Reads more, with room for so much.
    async fn more(
        &mut self,
        room: usize,
        deadline: Instant,
        heeds_drain: bool,
    ) -> Result<(), Stop> {
        self.read.reserve(room);
        let Self {
            tcp,
            read,
            timer,
            drain,
            drained,
            connection,
            ..
        } = self;
        let mut reading = pin!(tcp.read_buf(read));
        poll_fn(|cx| {
            if let Poll::Ready(count) = reading.as_mut().poll(cx) {
                return Poll::Ready(match count {
                    Ok(0) => Err(Stop::End),
                    Ok(_) => Ok(()),
                    Err(_) => Err(Stop::Late),
                });
            }
            if heeds_drain {
                let drained = drained
                    .get_or_insert_with(|| Box::pin(Arc::clone(connection).drained(drain.clone())));
                if drained.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Stop::Drain));
                }
            }
            // Kept over requests, so that it is not set anew for each: when it fires it is moved.
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            loop {
                ready!(timer.as_mut().poll(cx));
                if timer.deadline() >= deadline {
                    return Poll::Ready(Err(Stop::Late));
                }
                timer.as_mut().reset(deadline);
            }
        })
        .await
    }

    /// The router's answer; `None` if the client goes away before it is there.
    async fn call(&mut self, mut request: Request<Body>) -> Option<Response> {
        self.connection.asked();
        request
            .extensions_mut()
            .insert(Arc::clone(&self.connection));
        let Self {
            tcp, read, router, ..
        } = self;
        let mut answering = pin!(Service::call(router, request));
        poll_fn(|cx| {
            if poll_gone(tcp, read, cx).is_ready() {
                return Poll::Ready(None);
            }
            let response = ready!(answering.as_mut().poll(cx));
            Poll::Ready(response.ok())
        })
        .await
    }

    /// Sends an answer, or sees that it cannot be sent here.
    async fn answer(
        &mut self,
        asked: Asked,
        keep_alive: bool,
        response: Response,
    ) -> io::Result<Answered> {
        let (mut parts, mut body) = response.into_parts();
        let left = self.connection.take_left();
        let stream = match left.filter(|_| parts.status == StatusCode::OK) {
            Some(Left::Stream(stream)) => Some(stream),
            Some(Left::Page(waiting)) => {
                let keep_alive = keep_alive && !self.last;
                let waiter = Waiter::new(waiting, &parts.headers, asked, keep_alive);
                return Ok(Answered::Later(Box::new(waiter)));
            }
            Some(Left::Socket(_)) | None => None,
        };
        let length = match (&stream, body.size_hint().exact()) {
            _ if !answer::is_plain(parts.status, &parts.headers) => None,
            (Some(_), _) => Some(Length::Unknown),
            _ if body.is_end_stream() => Some(Length::Empty),
            (None, bytes) => bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .map(Length::Known),
        };
        let Some(length) = length else {
            let response = Response::from_parts(parts, body);
            return Ok(Answered::NotHere(Box::new(response)));
        };
        let keep_alive = keep_alive && !self.last && !self.drain.is_cancelled();
        self.head.clear();
        let after = answer::write_head(
            &mut self.head,
            parts.status,
            &mut parts.headers,
            &asked,
            keep_alive,
            length,
        );
        self.headers = parts.headers;
        if let Some(stream) = stream {
            return Ok(Answered::Stream(Box::new(Opened {
                stream,
                chunks: Chunks::new(asked.version == Version::HTTP_11),
                head: std::mem::take(&mut self.head),
            })));
        }
        let bytes = match after.body {
            true => whole(&mut body).await.map_err(io::Error::other)?,
            false => Bytes::new(),
        };
        self.send(bytes).await?;
        Ok(Answered::Whole {
            keep_alive: after.keep_alive,
        })
    }

    /// Sends the head and the body.
    async fn send(&mut self, body: Bytes) -> io::Result<()> {
        let sent = send::now(&self.tcp, &[IoSlice::new(&self.head), IoSlice::new(&body)])?;
        if sent == self.head.len() + body.len() {
            return Ok(());
        }
        Box::pin(self.send_rest(sent, body)).await
    }

    /// Sends all but so many bytes, as the socket takes them.
    async fn send_rest(&mut self, sent: usize, body: Bytes) -> io::Result<()> {
        let (tcp, read) = (&self.tcp, &mut self.read);
        let write_timeout = self.door.limits.write_timeout;
        let rest = [&self.head[..], &body].concat();
        drop(body);
        let written = async {
            send::writable(tcp, write_timeout).await?;
            send::all(tcp, &rest[sent..], write_timeout).await
        };
        tokio::select! {
            biased;
            written = written => written,
            () = poll_fn(|cx| poll_gone(tcp, read, cx)) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Whether the client goes away while it is answered. A next request that comes meanwhile is read, and then it is not
/// looked at any more; all that as hyper does it.
fn poll_gone(tcp: &TcpStream, read: &mut BytesMut, cx: &mut Context<'_>) -> Poll<()> {
    while read.is_empty() {
        if ready!(tcp.poll_read_ready(cx)).is_err() {
            return Poll::Ready(());
        }
        // Mostly there is nothing, and nothing is to be kept for it.
        let mut part = [0; READ_BYTES];
        match tcp.try_read(&mut part) {
            Ok(count @ 1..) => read.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return Poll::Ready(()),
        }
    }
    Poll::Pending
}

/// All of a body that is there.
async fn whole(body: &mut Body) -> Result<Bytes, axum::Error> {
    let first = body.frame().await.transpose()?;
    let first = first
        .and_then(|frame| frame.into_data().ok())
        .unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    let rest = body.collect().await?.to_bytes();
    Ok([first, rest].concat().into())
}

/// Routes that give an answer that is there already to the first request, and are the given ones for those after it.
pub(super) fn answered(router: Router, response: Box<Response>) -> Router {
    let first = Arc::new(Mutex::new(Some(response)));
    Router::new().fallback(move |request: Request<Body>| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let router = router.clone();
        async move {
            match first {
                Some(response) => Ok(*response),
                None => router.oneshot(request).await,
            }
        }
    })
}
