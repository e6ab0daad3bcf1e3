//! One subscription of a connection, under the name that its client chose.

use super::message::told;
use crate::{
    delivery::{control::Control, page},
    fanout::{Begin, CloseReason, Delivery, LagPolicy, Subscription},
    http::{App, start},
    log::BoxFuture,
    topic::Filter,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    future::{Future, pending, poll_fn},
    sync::Arc,
    task::Poll,
};

/// What follows a message's events.
pub(super) const EVENTS_END: &[u8] = b"]}";

/// A subscription and its name.
pub(super) struct Reader {
    name: Box<str>,
    /// What its events follow: `{"sub":"a","events":[`.
    events_begin: Bytes,
    /// Topics and patterns.
    filters: usize,
    paced: bool,
    phase: Phase,
}

enum Phase {
    /// Finding the start.
    Starting(BoxFuture<'static, Option<Subscription>>),
    /// Where it begins is to be said.
    Opening(Subscription),
    Open(Subscription),
    Ended,
}

/// What a reader is to be told.
pub(super) enum Said {
    /// Events, as the inside of an array.
    Events(Bytes),
    /// A whole message.
    Own(String),
    /// It ended: why.
    End(CloseReason),
}

impl Reader {
    /// A reader that is told where it begins first of all, and before that of what is gone before.
    ///
    /// `paced` has the pace of its feed's frames wait for it. That is for a socket of which it is known at once whether it
    /// has room: one of HTTP/2's streams takes what it has room for only when another task has its turn.
    pub(super) fn new(
        app: &App,
        name: &str,
        filter: Filter,
        ((begin, requested), lag): (start::Asked, LagPolicy),
        paced: bool,
    ) -> Self {
        let filters = filter.len();
        let filter = Arc::new(filter);
        let phase = match begin {
            Begin::Live => Phase::Opening(Subscription::live_now(&app.hub, &filter, lag)),
            _ => {
                let hub = Arc::clone(&app.hub);
                let start =
                    async move { Subscription::start(&hub, &filter, begin, requested, lag).await };
                let drain = app.drain.clone();
                Phase::Starting(Box::pin(drain.run_until_cancelled_owned(start)))
            }
        };
        Self {
            events_begin: format!("{{\"sub\":{},\"events\":[", Value::from(name)).into(),
            name: name.into(),
            filters,
            paced,
            phase,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn filters(&self) -> usize {
        self.filters
    }

    pub(super) fn events_begin(&self) -> Bytes {
        self.events_begin.clone()
    }

    /// What comes next; to call it says that what came before is written. Nothing comes after its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Said {
        if let Phase::Starting(start) = &mut self.phase {
            let Some(subscription) = start.await else {
                return self.end(CloseReason::NotReady);
            };
            self.phase = Phase::Opening(subscription);
        }
        if let Phase::Opening(_) = self.phase
            && let Some(said) = self.opening()
        {
            return said;
        }
        let Phase::Open(subscription) = &mut self.phase else {
            return pending().await;
        };
        match subscription.next().await {
            Delivery::Events(chunk) => Said::Events(page::items(&chunk)),
            Delivery::Gap(gap) => Said::Own(told(&self.name, "gap", &Control::gap(&gap).data)),
            Delivery::Close(reason) => self.end(reason),
            Delivery::Stopped => self.end(CloseReason::NotReady),
        }
    }

    /// First the gap: a client that is cut off after the cursor would not come back to be told.
    fn opening(&mut self) -> Option<Said> {
        let Phase::Opening(mut subscription) = std::mem::replace(&mut self.phase, Phase::Ended)
        else {
            return None;
        };
        if let Some(gap) = subscription.take_start_gap() {
            self.phase = Phase::Opening(subscription);
            return Some(Said::Own(told(&self.name, "gap", &Control::gap(&gap).data)));
        }
        if self.paced {
            subscription.pace();
        }
        let cursor = subscription.cursor().to_string();
        let ended = subscription.has_ended();
        self.phase = Phase::Open(subscription);
        let begun = || Said::Own(told(&self.name, "subscribed", &json!({ "cursor": cursor })));
        (!ended).then(begun)
    }

    fn end(&mut self, reason: CloseReason) -> Said {
        self.phase = Phase::Ended;
        Said::End(reason)
    }

    /// The socket takes nothing for now: nobody is to wait for this reader.
    pub(super) fn stalled(&mut self) {
        if self.paced
            && let Phase::Open(subscription) = &mut self.phase
        {
            subscription.stalled();
        }
    }
}

/// Waits for what any of the readers is to be told, and says which. The one at `turn` is asked first, so that each has
/// its turn; to call it says that all before was written.
///
/// # Cancel safety
///
/// Dropping the future loses nothing.
pub(super) async fn next_of(readers: &mut [Reader], turn: usize) -> (usize, Said) {
    let count = readers.len();
    if let [reader] = readers {
        return (0, reader.next().await);
    }
    let mut all: Vec<_> = readers
        .iter_mut()
        .map(|reader| Box::pin(reader.next()))
        .collect();
    poll_fn(|cx| {
        for at in (0..count).map(|n| (turn + n) % count) {
            if let Poll::Ready(said) = all[at].as_mut().poll(cx) {
                return Poll::Ready((at, said));
            }
        }
        Poll::Pending
    })
    .await
}
