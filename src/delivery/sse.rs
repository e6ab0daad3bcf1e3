//! Server-Sent Events over a subscription.
//!
//! Comments, keepalives and the hub's `retry:` are single lines that end in one LF and never have a blank line
//! after them: several popular clients dispatch an empty message at any blank line.

use super::control::{Control, jittered};
use crate::{
    cursor::Cursor,
    encoding::Encoding,
    fanout::{Begin, CloseReason, Delivery, Hub, LagPolicy, Subscription},
    log::Clock,
    topic::Filter,
};
use bytes::Bytes;
use std::{
    convert::Infallible,
    fmt::Write as _,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::{Stream, StreamExt};
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
    /// Plain data or envelopes.
    pub encoding: Encoding,
    /// How often a `tidings.heartbeat` comes, if at all.
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
    /// A `tidings.open` event.
    Event,
}

/// What all streams of a hub have in common.
#[derive(Clone)]
pub struct Settings {
    /// The `retry:` that each stream begins with.
    pub retry: Duration,
    /// The longest silence; a comment ends it.
    pub keepalive: Duration,
    /// The bounds of the jittered `retry:` of a stream that the hub ends.
    pub drain_retry: (Duration, Duration),
    /// Cancelled when the hub goes down.
    pub drain: CancellationToken,
    /// For heartbeats.
    pub clock: Clock,
}

/// One stream, pulled piece by piece by whatever writes it.
pub struct SseStream {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>>,
    last: Bytes,
}

impl SseStream {
    /// A stream that begins with its first [`SseStream::next`].
    #[must_use]
    pub fn new(hub: Arc<Hub>, request: Request, settings: Settings) -> Self {
        Self {
            pieces: Box::pin(pieces(hub, request, settings)),
            last: Bytes::new(),
        }
    }

    /// The next bytes to write; `None` at the end. To call it says that all before was written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        let Ok(piece) = self.pieces.next().await?;
        self.last = piece.clone();
        Some(piece)
    }

    /// Of the last piece the socket took only so many bytes: gives what has to be written before what comes next.
    pub fn behind(&mut self, written: usize) -> Bytes {
        std::mem::take(&mut self.last).split_off(written)
    }

    /// The same as a [`Stream`] of bytes.
    pub fn into_stream(mut self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        async_stream::stream! {
            while let Some(piece) = self.next().await {
                yield Ok(piece);
            }
        }
    }
}

/// The bytes of one stream, until the hub drains, the log closes, or the reader has to go.
fn pieces(
    hub: Arc<Hub>,
    request: Request,
    settings: Settings,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    async_stream::stream! {
        // At once, so that `onopen` fires behind any proxy.
        yield Ok(Bytes::from(format!("retry: {}\n: tidings\n", settings.retry.as_millis())));
        let Request { filter, begin, requested, lag, encoding, heartbeat, opening } = request;
        let mut timers = Timers::new(settings.keepalive, heartbeat);
        let mut subscription = {
            let mut starting = pin!(Subscription::start(&hub, &filter, begin, requested, lag));
            loop {
                match step(&settings, starting.as_mut(), &mut timers).await {
                    Step::Ready(subscription) => break subscription,
                    Step::Due(due) => yield Ok(due.bytes(&settings)),
                    Step::Drain => {
                        yield Ok(Bytes::from(retry_line(settings.drain_retry)));
                        return;
                    }
                }
            }
        };
        drop(filter);
        // First the gap: a reader cut off after the cursor would not come back to be told.
        if let Some(gap) = subscription.take_start_gap() {
            yield Ok(control(&Control::gap(&gap), None));
        }
        match opening {
            Opening::Silent => {}
            Opening::IdOnly => yield Ok(Bytes::from(format!("id: {}\n\n", subscription.cursor()))),
            Opening::Event => {
                let cursor = subscription.cursor();
                yield Ok(control(&Control::open(cursor), Some(cursor)));
            }
        }
        loop {
            // One future until it is ready, however often a timer is due: a read of the log is not begun anew each time.
            let mut next = pin!(subscription.next());
            let delivery = loop {
                match step(&settings, next.as_mut(), &mut timers).await {
                    Step::Ready(delivery) => break delivery,
                    Step::Due(due) => yield Ok(due.bytes(&settings)),
                    Step::Drain => break Delivery::Stopped,
                }
            };
            timers.sent();
            match delivery {
                Delivery::Events(chunk) => yield Ok(chunk.bytes(encoding)),
                Delivery::Gap(gap) => yield Ok(control(&Control::gap(&gap), None)),
                Delivery::Close(reason) => {
                    yield Ok(control(&Control::close(reason), None));
                    return;
                }
                Delivery::Stopped => {
                    yield Ok(Bytes::from(retry_line(settings.drain_retry)));
                    return;
                }
            }
        }
    }
}

/// Waits for what is awaited, a timer, or the end. Cancel safe as long as `awaited` is kept.
async fn step<F: Future>(
    settings: &Settings,
    awaited: Pin<&mut F>,
    timers: &mut Timers,
) -> Step<F::Output> {
    tokio::select! {
        biased;
        () = settings.drain.cancelled() => Step::Drain,
        output = awaited => Step::Ready(output),
        due = timers.due() => Step::Due(due),
    }
}

/// All that a stream gets from a hub that cannot serve it now. (An error status would end an `EventSource` for ever.)
#[must_use]
pub fn turned_away(reason: CloseReason, drain_retry: (Duration, Duration)) -> Bytes {
    let mut text = retry_line(drain_retry).into_bytes();
    text.extend_from_slice(&control(&Control::close(reason), None));
    text.into()
}

fn retry_line((min, max): (Duration, Duration)) -> String {
    format!("retry: {}\n", jittered(min, max).as_millis())
}

fn control(control: &Control, id: Option<Cursor>) -> Bytes {
    let mut text = format!("event: {}\n", control.name);
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "data: {}\n\n", control.data);
    text.into()
}

enum Step<T> {
    Ready(T),
    Due(Due),
    Drain,
}

enum Due {
    Keepalive,
    Heartbeat,
}

impl Due {
    fn bytes(&self, settings: &Settings) -> Bytes {
        match self {
            Self::Keepalive => Bytes::from_static(b":\n"),
            Self::Heartbeat => control(&Control::heartbeat(settings.clock.now_ms()), None),
        }
    }
}

/// When to break the silence. The timer is not moved at each event, which would cost a busy stream: when it
/// fires it looks how long the silence really is.
struct Timers {
    keepalive: Duration,
    last_sent: Instant,
    heartbeat: Option<(Duration, Instant)>,
    sleep: Pin<Box<Sleep>>,
}

impl Timers {
    fn new(keepalive: Duration, heartbeat: Option<Duration>) -> Self {
        let now = Instant::now();
        let mut this = Self {
            keepalive,
            last_sent: now,
            heartbeat: heartbeat.map(|every| (every, now + every)),
            sleep: Box::pin(sleep_until(now)),
        };
        this.arm();
        this
    }

    fn sent(&mut self) {
        self.last_sent = Instant::now();
    }

    fn arm(&mut self) {
        let silence_ends = self.last_sent + self.keepalive;
        let at = self
            .heartbeat
            .map_or(silence_ends, |(_, next)| next.min(silence_ends));
        self.sleep.as_mut().reset(at);
    }

    /// Cancel safe.
    async fn due(&mut self) -> Due {
        loop {
            self.sleep.as_mut().await;
            let now = Instant::now();
            let mut due = None;
            if let Some((every, next)) = &mut self.heartbeat
                && *next <= now
            {
                *next = now + *every;
                due = Some(Due::Heartbeat);
            } else if self.last_sent + self.keepalive <= now {
                due = Some(Due::Keepalive);
            }
            if due.is_some() {
                self.last_sent = now;
            }
            self.arm();
            if let Some(due) = due {
                return due;
            }
        }
    }
}
