//! The body of a stream over a subscription: what is said, and when. How it is put is its [`Form`]'s.

use super::{
    control::{Control, jittered},
    form::Form,
    silence::{Silence, Silences},
};
use crate::{
    fanout::{Begin, Chunk, Delivery, Hub, LagPolicy, Subscription},
    log::{BoxFuture, Clock},
    topic::Filter,
};
use bytes::Bytes;
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

/// What a reader asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which topics.
    pub filter: Arc<Filter>,
    /// From where.
    pub begin: Begin,
    /// The same in the reader's own words, for a gap to repeat.
    pub requested: String,
    /// What happens if it is too slow.
    pub lag: LagPolicy,
    /// How events are put, and with that all that the hub says itself.
    pub form: Form,
    /// How often a heartbeat comes, if at all.
    pub heartbeat: Option<Duration>,
    /// What says where the stream begins.
    pub opening: Opening,
}

/// What a stream says of its start cursor, so that a reader that is cut off before its first event misses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing.
    Silent,
    /// A block of only `id:`, which `EventSource` takes without firing anything.
    IdOnly,
    /// A control event, [`Control::open`].
    Event,
}

/// What all streams of a hub have in common.
pub struct Settings {
    /// How long a reader is told to wait before it comes back.
    pub retry: Duration,
    /// The longest silence; a keepalive ends it.
    pub silences: Arc<Silences>,
    /// The bounds of the time, at random, after which the readers of a stream that the hub ends are to come back.
    pub drain_retry: (Duration, Duration),
    /// Cancelled when the hub goes down.
    pub drain: CancellationToken,
    /// For heartbeats.
    pub clock: Clock,
}

impl Settings {
    /// When the readers of a stream that the hub ends are to come back.
    #[must_use]
    pub fn come_back(&self) -> Duration {
        let (min, max) = self.drain_retry;
        jittered(min, max)
    }
}

/// One stream, pulled piece by piece by whatever writes it.
pub struct EventStream {
    settings: Arc<Settings>,
    form: Form,
    silence: Silence,
    heartbeat: Option<Box<Heartbeat>>,
    phase: Phase,
    /// What came last, as long as it may not be written.
    last: Option<Last>,
    paced: bool,
}

enum Phase {
    /// Nothing was said yet.
    New(Box<Request>, Arc<Hub>),
    /// Finding the start.
    Starting(BoxFuture<'static, Option<Subscription>>, Opening),
    /// What the stream begins with is to be said.
    Opening(Subscription, Opening),
    Open(Subscription),
    Ended,
}

enum Last {
    Chunk(Chunk),
    Own(Bytes),
}

impl EventStream {
    /// A stream that begins with its first [`EventStream::next`].
    #[must_use]
    pub fn new(hub: Arc<Hub>, request: Request, settings: Arc<Settings>) -> Self {
        let heartbeat = request
            .heartbeat
            .map(|every| Box::new(Heartbeat::new(every)));
        Self {
            form: request.form,
            silence: Silence::new(&settings.silences),
            heartbeat,
            phase: Phase::New(Box::new(request), hub),
            last: None,
            paced: false,
            settings,
        }
    }

    /// Has the pace of the feed's frames wait for this stream: see [`Subscription::pace`].
    #[must_use]
    pub fn paced(mut self) -> Self {
        self.paced = true;
        self
    }

    /// The next bytes to write; `None` at the end. To call it says that all before was written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.last = None;
        let piece = self.piece().await?;
        self.silence.begin();
        Some(match piece {
            Piece::Events(chunk) => {
                let bytes = chunk.bytes(self.form.encoding());
                self.last = Some(Last::Chunk(chunk));
                bytes
            }
            Piece::Own(bytes) => {
                self.last = Some(Last::Own(bytes.clone()));
                bytes
            }
        })
    }

    /// Of the last piece the socket took only so many bytes: gives what has to be written before what comes next. Of
    /// events that is the rest of the one under way; those behind it will come again.
    pub fn behind(&mut self, written: usize) -> Bytes {
        match (self.last.take(), &mut self.phase) {
            (Some(Last::Chunk(chunk)), Phase::Open(subscription)) => {
                subscription.behind(&chunk, self.form.encoding(), written)
            }
            (Some(Last::Chunk(chunk)), _) => chunk.bytes(self.form.encoding()).split_off(written),
            (Some(Last::Own(mut bytes)), _) => {
                self.stalled();
                bytes.split_off(written)
            }
            (None, _) => Bytes::new(),
        }
    }

    /// The socket takes nothing for now, of whatever it was to send: nobody is to wait for this stream.
    pub fn stalled(&mut self) {
        if let Phase::Open(subscription) = &mut self.phase {
            subscription.stalled();
        }
    }

    /// The same as a [`Stream`] of bytes.
    pub fn into_stream(mut self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        async_stream::stream! {
            while let Some(piece) = self.next().await {
                // What is yielded is kept by whoever takes it.
                self.last = None;
                yield Ok(piece);
            }
        }
    }

    /// Each piece leads to the next phase before it is given, so that the future may be dropped while it waits.
    async fn piece(&mut self) -> Option<Piece> {
        loop {
            let delivery = match &mut self.phase {
                Phase::New(..) => return self.hello(),
                Phase::Starting(starting, opening) => {
                    let opening = *opening;
                    let started = or_due(starting.as_mut(), &mut self.silence, &mut self.heartbeat);
                    match started.await {
                        Ok(Some(subscription)) => {
                            self.phase = Phase::Opening(subscription, opening);
                            continue;
                        }
                        Ok(None) => Delivery::Stopped,
                        Err(due) => return Some(due.piece(self.form, &self.settings)),
                    }
                }
                Phase::Opening(..) => match self.opening() {
                    Some(piece) => return Some(piece),
                    None => continue,
                },
                Phase::Open(subscription) => {
                    let next = pin!(subscription.next());
                    let delivery = or_due(next, &mut self.silence, &mut self.heartbeat);
                    match delivery.await {
                        Ok(delivery) => delivery,
                        Err(due) => return Some(due.piece(self.form, &self.settings)),
                    }
                }
                Phase::Ended => return None,
            };
            return Some(match delivery {
                Delivery::Events(chunk) => Piece::Events(chunk),
                Delivery::Gap(gap) => Piece::Own(self.form.control(&Control::gap(&gap))),
                Delivery::Close(reason) => {
                    self.phase = Phase::Ended;
                    Piece::Own(self.form.control(&Control::close(reason)))
                }
                Delivery::Stopped => {
                    self.phase = Phase::Ended;
                    Piece::Own(self.form.later(self.settings.come_back()))
                }
            });
        }
    }

    /// Said at once, so that `onopen` fires behind any proxy.
    fn hello(&mut self) -> Option<Piece> {
        let Phase::New(request, hub) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return None;
        };
        let opening = request.opening;
        self.phase = match request.begin {
            Begin::Live => {
                let live = Subscription::live_now(&hub, &request.filter, request.lag);
                Phase::Opening(live, opening)
            }
            _ => {
                let drain = self.settings.drain.clone();
                let start = drain.run_until_cancelled_owned(start(hub, request));
                Phase::Starting(Box::pin(start), opening)
            }
        };
        Some(Piece::Own(self.form.hello(self.settings.retry)))
    }

    /// First the gap: a reader cut off after the cursor would not come back to be told.
    fn opening(&mut self) -> Option<Piece> {
        let Phase::Opening(mut subscription, opening) =
            std::mem::replace(&mut self.phase, Phase::Ended)
        else {
            return None;
        };
        if let Some(gap) = subscription.take_start_gap() {
            self.phase = Phase::Opening(subscription, opening);
            return Some(Piece::Own(self.form.control(&Control::gap(&gap))));
        }
        if self.paced {
            subscription.pace();
        }
        let cursor = subscription.cursor();
        self.phase = Phase::Open(subscription);
        match opening {
            Opening::Silent => None,
            Opening::IdOnly => Some(Piece::Own(Form::id_only(cursor))),
            Opening::Event => Some(Piece::Own(self.form.control(&Control::open(cursor)))),
        }
    }
}

async fn start(hub: Arc<Hub>, request: Box<Request>) -> Subscription {
    let Request {
        filter,
        begin,
        requested,
        lag,
        ..
    } = *request;
    Subscription::start(&hub, &filter, begin, requested, lag).await
}

enum Piece {
    Events(Chunk),
    Own(Bytes),
}

/// Waits for what is awaited, or for a time at which something has to be said. Cancel safe if `awaited` is.
/// (Not an `async fn`, which would keep its arguments twice.)
fn or_due<F: Future + ?Sized>(
    mut awaited: Pin<&mut F>,
    silence: &mut Silence,
    heartbeat: &mut Option<Box<Heartbeat>>,
) -> impl Future<Output = Result<F::Output, Due>> {
    poll_fn(move |cx| {
        if let Poll::Ready(output) = awaited.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if let Some(heartbeat) = heartbeat
            && heartbeat.poll_due(cx).is_ready()
        {
            return Poll::Ready(Err(Due::Heartbeat));
        }
        silence.poll_end(cx).map(|()| Err(Due::Keepalive))
    })
}

#[derive(Clone, Copy)]
enum Due {
    Keepalive,
    Heartbeat,
}

impl Due {
    fn piece(self, form: Form, settings: &Settings) -> Piece {
        Piece::Own(match self {
            Self::Keepalive => form.keepalive(),
            Self::Heartbeat => form.control(&Control::heartbeat(settings.clock.now_ms())),
        })
    }
}

/// When the next heartbeat comes.
struct Heartbeat {
    every: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Heartbeat {
    fn new(every: Duration) -> Self {
        Self {
            every,
            sleep: Box::pin(sleep(every)),
        }
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.sleep.as_mut().poll(cx));
        let next = self.sleep.deadline() + self.every;
        self.sleep.as_mut().reset(next.max(Instant::now()));
        Poll::Ready(())
    }
}
