//! An answer that is waited for: a task that holds the socket, what is waited for, and next to nothing else, since there
//! are as many of them as there are streams.

use super::{Begun, answer, poll_gone, request::Asked, send};
use crate::http::{
    browser,
    listener::Listener,
    poll::{self, Waiting},
};
use axum::{
    body::HttpBody,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
};
use tokio::net::TcpStream;

/// A request whose answer is still to come.
pub(in crate::http) struct Waiter {
    waiting: Box<Waiting>,
    /// What of its head is known already; `None` for what all answers to no page have.
    headers: Option<Box<[(HeaderName, HeaderValue)]>>,
    asked: Asked,
    keep_alive: bool,
}

/// How the wait ended.
pub(in crate::http) enum Waited {
    /// The answer is sent, and further requests are served.
    Again(Begun),
    /// The answer is sent, and the connection is to be closed.
    Answered(TcpStream),
    /// The client went away, or the hub ended.
    Gone,
}

impl Waiter {
    pub(super) fn new(
        waiting: Box<Waiting>,
        headers: &HeaderMap,
        asked: Asked,
        keep_alive: bool,
    ) -> Self {
        Self {
            waiting,
            headers: unusual(headers),
            asked,
            keep_alive,
        }
    }

    /// Waits, and sends the answer.
    ///
    /// It need not watch for the hub's own end but while it sends: a hub that stops drains first, and then the answer
    /// comes.
    pub(in crate::http) async fn run(self: Box<Self>, begun: Begun, door: &Listener) -> Waited {
        let Self {
            waiting,
            headers,
            asked,
            keep_alive,
        } = *self;
        let Begun { tcp, mut read, .. } = begun;
        // Mostly nothing; the memory that the request came in is let go of.
        read = BytesMut::from(&read[..]);
        let response = {
            let mut answer = pin!(waiting.answer());
            poll_fn(|cx| {
                if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(Box::new(response)));
                }
                poll_gone(&tcp, &mut read, cx).map(|()| None)
            })
            .await
        };
        let Some(response) = response else {
            return Waited::Gone;
        };
        let head = Head {
            headers,
            asked,
            keep_alive: keep_alive && !door.drain.is_cancelled(),
        };
        let sent = Box::pin(
            door.stop
                .run_until_cancelled(head.send(*response, &tcp, door)),
        );
        match sent.await {
            Some(Ok(true)) => Waited::Again(Begun {
                tcp,
                read,
                served: true,
            }),
            Some(Ok(false)) => Waited::Answered(tcp),
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection ended with an error");
                Waited::Gone
            }
            None => Waited::Gone,
        }
    }
}

/// What of a head is to be kept.
fn unusual(headers: &HeaderMap) -> Option<Box<[(HeaderName, HeaderValue)]>> {
    let mut usual = HeaderMap::new();
    browser::tell_caches(&mut usual);
    // The origin that is allowed is the request's own.
    let own = |(name, value): (&HeaderName, &HeaderValue)| {
        let usual = usual.get(name).filter(|usual| *usual == value);
        let value = usual.cloned().unwrap_or_else(|| poll::own(value));
        (name.clone(), value)
    };
    (*headers != usual).then(|| headers.iter().map(own).collect())
}

struct Head {
    headers: Option<Box<[(HeaderName, HeaderValue)]>>,
    asked: Asked,
    keep_alive: bool,
}

impl Head {
    /// Sends the answer; whether the connection stays open.
    async fn send(self, response: Response, tcp: &TcpStream, door: &Listener) -> io::Result<bool> {
        let (mut parts, mut body) = response.into_parts();
        match self.headers {
            Some(headers) => {
                for (name, value) in headers {
                    parts.headers.append(name, value);
                }
            }
            None => browser::tell_caches(&mut parts.headers),
        }
        let (length, body) = match body.is_end_stream() {
            true => (answer::Length::Empty, Bytes::new()),
            false => {
                let whole = super::whole(&mut body).await.map_err(io::Error::other)?;
                (answer::Length::Known(whole.len()), whole)
            }
        };
        let mut bytes = Vec::with_capacity(512 + body.len());
        let after = answer::write_head(
            &mut bytes,
            parts.status,
            &mut parts.headers,
            &self.asked,
            self.keep_alive,
            length,
        );
        if after.body {
            bytes.extend_from_slice(&body);
        }
        send::all(tcp, &bytes, door.limits.write_timeout).await?;
        Ok(after.keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_run<'a, F: Future>(_: fn(Box<Waiter>, Begun, &'a Listener) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_waiter_holds_next_to_nothing() {
        let (task, waiting) = (size_of_run(Waiter::run), size_of::<Waiting>());
        assert!(
            task < 640 && waiting < 320,
            "{task} bytes, and {waiting} for what is waited for"
        );
    }

    #[test]
    fn a_waiter_keeps_nothing_of_its_requests_head() {
        let head = Bytes::from(vec![b'x'; 30_000]);
        let mut headers = HeaderMap::new();
        browser::tell_caches(&mut headers);
        assert!(unusual(&headers).is_none());
        let origin = HeaderValue::from_maybe_shared(head.slice(100..120)).unwrap();
        headers.insert("access-control-allow-origin", origin);
        let kept = unusual(&headers).unwrap();
        assert_eq!(kept.iter().cloned().collect::<HeaderMap>(), headers);
        drop(headers);
        assert!(head.is_unique());
    }
}
