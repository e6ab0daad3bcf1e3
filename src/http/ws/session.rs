//! One connection: what its client asks, and what its subscriptions have for it.

use super::{
    URL,
    message::{self, Asked, Message, Refused, Subscribe},
    reader::{Reader, Said, next_of},
    wire::{Received, Wire},
};
use crate::{
    delivery::silence::Silence,
    event::Draft,
    fanout::CloseReason,
    http::{
        App,
        outcome::{append_problem, put_result},
        problem::{self, Problem},
    },
    log::{BoxFuture, Outcome},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::upgrade::Upgraded;
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Events of a connection that are on their way to the log. While there are so many, nothing is read from it.
const PUBLISHES_MAX: usize = 64;

/// One connection.
pub(super) struct Session {
    app: Arc<App>,
    upgraded: Upgraded,
    readers: Vec<Reader>,
}

/// A session whose socket is open.
struct Open {
    app: Arc<App>,
    wire: Wire,
    readers: Vec<Reader>,
    /// The reader that is asked first.
    turn: usize,
    /// Each gives the message that answers it.
    publishes: FuturesUnordered<BoxFuture<'static, String>>,
    /// How long nothing was heard of the client.
    silence: Silence,
    /// Whether it was asked if it is there, and has not answered yet.
    asked: bool,
}

/// What happens next.
enum Event {
    Said(usize, Said),
    Received(Received),
    Published(String),
    Silent,
    Drain,
}

/// How a connection ends: with a close of the hub's own, with the client's, or with the socket.
enum End {
    Told(CloseCode, String),
    Closed,
    Gone(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

impl Session {
    pub(super) fn new(app: Arc<App>, upgraded: Upgraded, reader: Option<Reader>) -> Self {
        Self {
            app,
            upgraded,
            readers: reader.into_iter().collect(),
        }
    }

    /// Serves it to its end. Publishes under way finish, whoever ends it.
    pub(super) async fn run(self) {
        let bytes_max = self.app.ingest.bounds.json_bytes_max();
        let wire = Wire::new(self.upgraded, bytes_max, self.app.write_timeout);
        let mut open = Open {
            wire: wire.await,
            readers: self.readers,
            turn: 0,
            publishes: FuturesUnordered::new(),
            silence: Silence::new(&self.app.streams.silences),
            asked: false,
            app: self.app,
        };
        let end = open.serve().await;
        // Not for as long as the connection: an idle one has no room for this.
        Box::pin(open.end(end)).await;
    }
}

impl Open {
    async fn serve(&mut self) -> End {
        loop {
            let event = self.next().await;
            let done = match event {
                Event::Said(at, said) => {
                    self.turn = at + 1;
                    self.tell(at, said).await
                }
                Event::Received(Received::Text(text)) => {
                    self.heard();
                    self.take(&text).await
                }
                Event::Received(Received::Sign) => {
                    self.heard();
                    Ok(())
                }
                Event::Received(Received::End(None)) => Err(End::Closed),
                Event::Received(Received::End(Some((code, reason)))) => {
                    Err(End::Told(code, reason.to_owned()))
                }
                Event::Published(answer) => self.answer(answer).await,
                Event::Silent => self.ping().await,
                Event::Drain => Err(self.come_back()),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Waits for what happens next. All that was to be sent is sent by then.
    async fn next(&mut self) -> Event {
        let reads = self.publishes.len() < PUBLISHES_MAX;
        let publishes = !self.publishes.is_empty();
        tokio::select! {
            () = self.app.drain.cancelled() => Event::Drain,
            Some(answer) = self.publishes.next(), if publishes => Event::Published(answer),
            received = self.wire.receive(), if reads => Event::Received(received),
            (at, said) = next_of(&mut self.readers, self.turn), if !self.readers.is_empty() => Event::Said(at, said),
            () = poll_fn(|cx| self.silence.poll_end(cx)) => Event::Silent,
        }
    }

    /// What a reader has to say.
    async fn tell(&mut self, at: usize, said: Said) -> Result<(), End> {
        match said {
            Said::Events(items) => self.send_events(at, items).await?,
            Said::Own(message) => self.send(message).await?,
            Said::End(reason) => self.end_reader(at, reason).await?,
        }
        Ok(())
    }

    /// Sends events of a reader. While the socket has no room, nobody waits for any reader of the connection.
    async fn send_events(&mut self, at: usize, items: Bytes) -> io::Result<()> {
        let begin = Bytes::copy_from_slice(self.readers[at].events_begin());
        let stalled = {
            let sent = self.wire.send_events(&begin, items);
            patiently(&mut self.readers, sent).await?
        };
        if stalled {
            // It had room again: somebody reads.
            self.heard();
        }
        Ok(())
    }

    /// Sends a message of the hub's own.
    async fn send(&mut self, message: String) -> io::Result<()> {
        let wire = &mut self.wire;
        let sent = async {
            wire.feed(message).await?;
            wire.flush().await
        };
        if patiently(&mut self.readers, sent).await? {
            self.heard();
        }
        Ok(())
    }

    /// Sends an answer, and the other ones that are there, together.
    async fn answer(&mut self, first: String) -> Result<(), End> {
        let mut answers = vec![first];
        while let Poll::Ready(Some(answer)) = now(self.publishes.next()).await {
            answers.push(answer);
        }
        let wire = &mut self.wire;
        let sent = async {
            for answer in answers {
                wire.feed(answer).await?;
            }
            wire.flush().await
        };
        patiently(&mut self.readers, sent).await?;
        Ok(())
    }

    /// Does what a message asks.
    async fn take(&mut self, text: &Bytes) -> Result<(), End> {
        // The codec has checked it.
        let text = std::str::from_utf8(text).unwrap_or_default();
        let refused = match message::parse(text, self.app.ingest.bounds, self.app.filters_max) {
            Err(refused) => refused,
            Ok(Message { reference, asked }) => {
                let done = match asked {
                    Asked::Publish(draft) => {
                        self.publish(reference, draft, message::shown(text));
                        return Ok(());
                    }
                    Asked::Subscribe(asked) => self.subscribe(*asked),
                    Asked::Unsubscribe(sub) => match self.index_of(&sub) {
                        Some(at) => return self.end_reader(at, CloseReason::Unsubscribed).await,
                        None => Err(message::wrong("there is no subscription of that name")),
                    },
                };
                match done {
                    Ok(()) => return Ok(()),
                    Err(problem) => Refused { reference, problem },
                }
            }
        };
        let Refused { reference, problem } = refused;
        self.send(message::error(reference, &problem, text)).await?;
        Ok(())
    }

    fn index_of(&self, sub: &str) -> Option<usize> {
        self.readers.iter().position(|reader| reader.name() == sub)
    }

    fn subscribe(&mut self, asked: Subscribe) -> Result<(), Problem> {
        let Subscribe {
            sub,
            filter,
            start,
            lag,
        } = asked;
        if self.index_of(&sub).is_some() {
            let detail = format!("there is a subscription {} already", problem::quoted(&sub));
            return Err(message::wrong(detail));
        }
        let reader = Reader::new(&self.app.hub, &sub, filter, start, lag);
        let filters: usize = self.readers.iter().map(Reader::filters).sum();
        let (all, max) = (filters + reader.filters(), self.app.filters_max);
        if all > max {
            let detail = format!(
                "{all} topics and patterns are more than {max}, the most on one connection"
            );
            return Err(Problem::new(&problem::FILTER, detail));
        }
        self.readers.reserve_exact(1);
        self.readers.push(reader);
        Ok(())
    }

    fn publish(&mut self, reference: Option<String>, draft: Draft, shown: &str) {
        let (ingest, shown) = (self.app.ingest.clone(), shown.to_owned());
        self.publishes.push(Box::pin(async move {
            let topic = draft.topic.clone();
            let mut result = String::with_capacity(96 + topic.as_str().len());
            let done = match ingest.publish(vec![draft], true).await {
                Ok(outcomes) => {
                    let outcome = outcomes.first().copied().unwrap_or(Outcome::Conflict);
                    put_result(&topic, outcome, &mut result)
                }
                Err(error) => Err(append_problem(error)),
            };
            match done {
                Ok(()) => message::published(reference, &result),
                Err(problem) => message::error(reference, &problem, &shown),
            }
        }));
    }

    /// A subscription ends. With that of the URL the connection does: its client may never look for anything else.
    async fn end_reader(&mut self, at: usize, reason: CloseReason) -> Result<(), End> {
        let reader = self.readers.swap_remove(at);
        let after = (reason == CloseReason::NotReady).then(|| self.app.streams.come_back());
        let closed = message::closed(reason, after);
        self.send(message::told(reader.name(), "closed", closed))
            .await?;
        match reason {
            _ if reader.name() != URL => Ok(()),
            CloseReason::Unsubscribed => Ok(()),
            CloseReason::Lagged => Err(End::Told(CloseCode::Policy, reason.as_str().to_owned())),
            _ => Err(self.come_back()),
        }
    }

    fn come_back(&self) -> End {
        let retry_ms = self.app.streams.come_back().as_millis();
        End::Told(CloseCode::Restart, format!("retry={retry_ms}"))
    }

    fn heard(&mut self) {
        self.silence.begin();
        self.asked = false;
    }

    /// Nothing was heard for long: the client is asked whether it is there, once.
    async fn ping(&mut self) -> Result<(), End> {
        if self.asked {
            return Err(End::Told(CloseCode::Away, "idle".to_owned()));
        }
        self.asked = true;
        self.silence.begin();
        patiently(&mut self.readers, self.wire.ping()).await?;
        Ok(())
    }

    async fn end(mut self, end: End) {
        // Whoever publishes is told what became of it, if that can be.
        let mut answered = !matches!(end, End::Gone(_) | End::Closed);
        self.readers.clear();
        while let Some(answer) = self.publishes.next().await {
            answered = answered && self.send(answer).await.is_ok();
        }
        match end {
            End::Told(code, reason) => self.wire.close(Some((code, reason))).await,
            End::Closed => self.wire.close(None).await,
            End::Gone(error) => tracing::debug!(%error, "a WebSocket ended with an error"),
        }
    }
}

/// Waits for the socket, and says whether that took time. Meanwhile nobody waits for the readers of its connection.
async fn patiently(
    readers: &mut [Reader],
    sent: impl Future<Output = io::Result<()>>,
) -> io::Result<bool> {
    let mut sent = pin!(sent);
    if let Poll::Ready(sent) = now(sent.as_mut()).await {
        return sent.map(|()| false);
    }
    readers.iter_mut().for_each(Reader::stalled);
    sent.await.map(|()| true)
}

/// What a future gives without waiting.
async fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
