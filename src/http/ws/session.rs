//! One connection: what its client asks, and what its subscriptions have for it.

use super::{
    URL,
    message::{self, Asked, Message, Publisher, Refused, Subscribe},
    reader::{Reader, Said, next_of},
    wire::{Received, Wire},
};
use crate::{
    delivery::silence::Silence,
    fanout::CloseReason,
    http::{
        App,
        problem::{self, Problem},
        publishes::{Published, Publishes},
    },
};
use bytes::Bytes;
use hyper::upgrade::Upgraded;
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
};
use tokio::task::unconstrained;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

/// One connection. There are many, and most are idle: what is rare is allocated when it is there.
pub(in crate::http) struct Session {
    app: Arc<App>,
    wire: Wire,
    readers: Vec<Reader>,
    paced: bool,
    /// The reader that is asked first.
    turn: usize,
    publishes: Publishes<Publisher>,
    /// How long nothing was heard of the client.
    silence: Silence,
    /// Whether it was asked if it is there, and has not answered yet.
    asked: bool,
}

/// What happens next.
enum Event {
    Said(usize, Said),
    Received(Received),
    Published(Published<Publisher>),
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
    /// `paced` says whether its readers are to be waited for: see [`Reader::new`].
    pub(super) async fn new(
        app: Arc<App>,
        upgraded: Upgraded,
        reader: Option<Reader>,
        paced: bool,
    ) -> Self {
        let bytes_max = app.ingest.bounds.json_bytes_max();
        Self {
            wire: Wire::new(upgraded, bytes_max, app.write_timeout).await,
            readers: reader.into_iter().collect(),
            paced,
            turn: 0,
            publishes: Publishes::new(app.ingest.clone(), app.tasks.clone()),
            silence: Silence::new(&app.streams.silences),
            asked: false,
            app,
        }
    }

    /// Serves it to its end, or until `stop`. Publishes under way finish, whoever ends it.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would keep its arguments twice"
    )]
    pub(in crate::http) fn run(
        mut self,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let end = tokio::select! {
                end = self.serve() => end,
                () = stop.cancelled() => return,
            };
            stop.run_until_cancelled(Box::pin(self.end(end))).await;
        }
    }

    async fn serve(&mut self) -> End {
        loop {
            let event = self.next().await;
            let done = match event {
                Event::Said(at, said) => {
                    self.turn = at + 1;
                    match said {
                        Said::Events(items) => self.send_events(at, items).await.map_err(End::from),
                        said => Box::pin(self.tell(at, said)).await,
                    }
                }
                Event::Received(Received::Text(text)) => {
                    self.heard();
                    Box::pin(self.take(&text)).await
                }
                Event::Received(Received::Sign) => {
                    self.heard();
                    Ok(())
                }
                Event::Received(Received::End(None)) => Err(End::Closed),
                Event::Received(Received::End(Some((code, reason)))) => {
                    Err(End::Told(code, reason.to_owned()))
                }
                Event::Published(published) => {
                    let answers = answers(published);
                    Box::pin(self.send_all(answers)).await.map_err(End::from)
                }
                Event::Silent => Box::pin(self.ping()).await,
                Event::Drain => Err(self.come_back()),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Waits for what happens next. All that was to be sent is sent by then.
    async fn next(&mut self) -> Event {
        let reads = !self.publishes.is_full();
        tokio::select! {
            // Readers hear of it by their feeds. To wait for it here, too, would take one lock of all connections' for
            // each event.
            () = self.app.drain.cancelled(), if self.readers.is_empty() => Event::Drain,
            published = self.publishes.next() => Event::Published(published),
            received = self.wire.receive(), if reads => Event::Received(received),
            (at, said) = next_of(&mut self.readers, self.turn), if !self.readers.is_empty() => Event::Said(at, said),
            () = poll_fn(|cx| self.silence.poll_end(cx)) => Event::Silent,
        }
    }

    /// What a reader has to say but for events.
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
        let begin = self.readers[at].events_begin();
        let sent = self.wire.send_events(&begin, items);
        if patiently(&mut self.readers, sent).await? {
            // It had room again: somebody reads.
            self.heard();
        }
        Ok(())
    }

    /// Sends a message of the hub's own.
    async fn send(&mut self, message: String) -> io::Result<()> {
        self.send_all(vec![message]).await
    }

    /// Sends messages of the hub's own, together.
    async fn send_all(&mut self, messages: Vec<String>) -> io::Result<()> {
        let wire = &mut self.wire;
        let sent = async {
            for message in messages {
                wire.feed(message).await?;
            }
            wire.flush().await
        };
        if patiently(&mut self.readers, sent).await? {
            self.heard();
        }
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
                        self.publishes.add(draft, Publisher::new(reference, text));
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
                    Err(problem) => Refused {
                        reference,
                        problem: Box::new(problem),
                    },
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
        let has = self.readers.iter().map(Reader::filters).sum::<usize>();
        let (all, max) = (has + filter.len(), self.app.filters_max);
        if all > max {
            let detail = format!(
                "{all} topics and patterns are more than {max}, the most on one connection"
            );
            return Err(Problem::new(&problem::FILTER, detail));
        }
        let reader = Reader::new(&self.app, &sub, filter, (start, lag), self.paced);
        self.readers.reserve_exact(1);
        self.readers.push(reader);
        Ok(())
    }

    /// A subscription ends. With that of the URL the connection does: its client may never look for anything else.
    async fn end_reader(&mut self, at: usize, reason: CloseReason) -> Result<(), End> {
        if self.app.drain.is_cancelled() {
            // That is why it ended, or will be heard of all the same.
            return Err(self.come_back());
        }
        let reader = self.readers.swap_remove(at);
        let after = (reason == CloseReason::NotReady).then(|| self.app.streams.come_back());
        let closed = message::closed(reason, after);
        self.send(message::told(reader.name(), "closed", &closed))
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

    /// Nothing was heard for long: the client is asked whether it is there. If it was before, it is not, unless what it
    /// was sent has yet to reach it.
    async fn ping(&mut self) -> Result<(), End> {
        if patiently(&mut self.readers, self.wire.ping()).await? {
            self.heard();
        } else if std::mem::replace(&mut self.asked, true) {
            return Err(End::Told(CloseCode::Away, "idle".to_owned()));
        }
        self.silence.begin();
        Ok(())
    }

    async fn end(mut self, end: End) {
        self.readers.clear();
        // Whoever publishes is told what became of it, if that can be.
        let mut told = matches!(end, End::Told(..));
        while !self.publishes.is_empty() {
            let answers = answers(self.publishes.next().await);
            told = told && self.send_all(answers).await.is_ok();
        }
        match end {
            End::Told(code, reason) => self.wire.close(Some((code, reason))).await,
            End::Closed => self.wire.close(None).await,
            End::Gone(error) => tracing::debug!(%error, "a WebSocket ended with an error"),
        }
    }
}

fn answers(published: Published<Publisher>) -> Vec<String> {
    let answer = |(publisher, result): (Publisher, _)| publisher.answer(result);
    published.into_iter().map(answer).collect()
}

/// Waits for the socket, and says whether that took time. Meanwhile nobody waits for the readers of its connection.
async fn patiently(
    readers: &mut [Reader],
    sent: impl Future<Output = io::Result<()>>,
) -> io::Result<bool> {
    // What waits is to be the socket, and not a task that has had its turn.
    let mut sent = pin!(unconstrained(sent));
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
