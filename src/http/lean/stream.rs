//! A stream that has a connection for itself: a task that holds the socket, the stream, and next to nothing else, since
//! there are many of them and most are idle. What only a slow reader needs is allocated when one is slow.

use super::{chunks::Chunks, send};
use crate::{delivery::stream::EventStream, http::listener::Listener};
use bytes::{Buf, Bytes};
use std::{
    future::{Future, poll_fn},
    io,
    net::Shutdown,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, task::coop};

/// A stream whose answer has not begun.
pub(in crate::http) struct Opened {
    pub(super) stream: EventStream,
    pub(super) chunks: Chunks,
    /// The head of the answer.
    pub(super) head: Vec<u8>,
}

/// What is there at once goes out together with the answer's head, unless it is larger.
const FIRST_BYTES_MAX: usize = 2 << 10; // 2 KiB

/// A stream that has a connection.
pub(in crate::http) struct Streaming {
    tcp: TcpStream,
    stream: EventStream,
    chunks: Chunks,
    /// Deadlines, and the end of all.
    door: Arc<Listener>,
    /// One of the connections that the hub may have.
    _place: OwnedSemaphorePermit,
}

/// What comes next.
enum Next {
    Piece(Bytes),
    End,
    /// The client went away.
    Gone,
}

impl Streaming {
    /// Sends the answer's head together with what the stream says at once; `None` if the client went away meanwhile.
    pub(in crate::http) async fn begin(
        opened: Box<Opened>,
        tcp: TcpStream,
        door: Arc<Listener>,
        place: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let Opened {
            stream,
            chunks,
            mut head,
        } = *opened;
        let mut this = Self {
            tcp,
            stream,
            chunks,
            door,
            _place: place,
        };
        match this.next().await {
            Next::Piece(first) => this.chunks.add(&first, &mut head),
            Next::End => {}
            Next::Gone => return None,
        }
        let second = {
            let mut next = pin!(this.next());
            poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await
        };
        let large = match second {
            Poll::Ready(Next::Piece(piece)) if piece.len() <= FIRST_BYTES_MAX => {
                this.chunks.add(&piece, &mut head);
                None
            }
            Poll::Ready(Next::Piece(piece)) => Some(piece),
            Poll::Ready(Next::End) | Poll::Pending => None,
            Poll::Ready(Next::Gone) => return None,
        };
        let mut begun = this.send(head).await;
        if let (Ok(()), Some(piece)) = (&begun, large) {
            begun = match this.write(piece) {
                Ok(None) => Ok(()),
                Ok(Some(slowly)) => slowly.await,
                Err(error) => Err(error),
            };
        }
        begun.inspect_err(log).ok()?;
        Some(this)
    }

    /// Writes the stream, to its end or the client's.
    ///
    /// It need not watch for the hub's own end but while the socket is full: a hub that stops drains first, and then the
    /// stream itself ends.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would keep its argument twice"
    )]
    pub(in crate::http) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            loop {
                let written = match self.next().await {
                    Next::Piece(piece) => self.write(piece),
                    Next::End => return Box::pin(self.end()).await,
                    Next::Gone => return,
                };
                let written = match written {
                    Ok(None) => continue,
                    Ok(Some(slowly)) => slowly.await,
                    Err(error) => Err(error),
                };
                if let Err(error) = written {
                    return log(&error);
                }
            }
        }
    }

    /// Waits for the next piece, or sees that nobody is there for it. Cancel safe.
    async fn next(&mut self) -> Next {
        let Self { tcp, stream, .. } = self;
        let mut next = pin!(stream.next());
        poll_fn(|cx| {
            let budget = ready!(coop::poll_proceed(cx));
            if let Poll::Ready(piece) = next.as_mut().poll(cx) {
                budget.made_progress();
                return Poll::Ready(piece.map_or(Next::End, Next::Piece));
            }
            send::poll_gone(tcp, cx).map(|()| Next::Gone)
        })
        .await
    }

    /// Writes a piece; if the socket does not take all of it, gives what has to be waited for before the next one.
    #[expect(
        clippy::type_complexity,
        reason = "a future, boxed because it is rare and large"
    )]
    fn write(
        &mut self,
        piece: Bytes,
    ) -> io::Result<Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>>>> {
        let tcp = &self.tcp;
        let taken = self.chunks.send(&piece, |parts| send::now(tcp, parts))?;
        if taken.all {
            return Ok(None);
        }
        // The piece is let go of, however long this reader takes.
        drop(piece);
        let rest = self.stream.behind(taken.bytes);
        Ok(Some(Box::pin(self.catch_up(rest))))
    }

    /// Waits until the socket has room, at least once, and has taken these bytes.
    async fn catch_up(&mut self, mut rest: Bytes) -> io::Result<()> {
        let Self {
            tcp, chunks, door, ..
        } = self;
        let written = async {
            loop {
                send::writable(tcp, door.limits.write_timeout).await?;
                let taken = chunks.send(&rest, |parts| send::now(tcp, parts))?;
                rest.advance(taken.bytes);
                if taken.all {
                    return Ok(());
                }
            }
        };
        unless_over(tcp, door, written).await
    }

    /// Says that this was all.
    async fn end(&mut self) {
        let chunks = std::mem::replace(&mut self.chunks, Chunks::new(false));
        match self.send(chunks.end()).await {
            Ok(()) => {
                let _ = socket2::SockRef::from(&self.tcp).shutdown(Shutdown::Write);
            }
            Err(error) => log(&error),
        }
    }

    /// Writes bytes that have their framing.
    async fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let sent = send::now(&self.tcp, &[io::IoSlice::new(&bytes)])?;
        if sent == bytes.len() {
            return Ok(());
        }
        self.stream.stalled();
        let (tcp, door) = (&self.tcp, &self.door);
        let rest = async {
            send::writable(tcp, door.limits.write_timeout).await?;
            send::all(tcp, &bytes[sent..], door.limits.write_timeout).await
        };
        Box::pin(unless_over(tcp, door, rest)).await
    }
}

fn log(error: &io::Error) {
    tracing::debug!(%error, "a stream ended with an error");
}

/// Writes on, unless the client goes away or the hub ends first.
async fn unless_over(
    tcp: &TcpStream,
    door: &Listener,
    written: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::select! {
        biased;
        written = written => written,
        () = poll_fn(|cx| send::poll_gone(tcp, cx)) => Err(io::ErrorKind::ConnectionAborted.into()),
        () = door.stop.cancelled() => Err(io::ErrorKind::Interrupted.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that a function gives.
    fn size_of_future<A, F: Future>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_next<'a, F: Future>(_: fn(&'a mut EventStream) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_stream_holds_next_to_nothing_beside_itself() {
        let task = size_of_future(Streaming::run);
        let stream = size_of::<EventStream>() + size_of_next(EventStream::next);
        let beside = task - stream;
        assert!(
            beside < 256,
            "{beside} bytes beside the stream's own {stream}"
        );
    }
}
