//! One subscription of a connection, under the name that its client chose.

use super::message::told;
use crate::{
    delivery::{control::Control, page},
    fanout::{Begin, CloseReason, Delivery, Hub, LagPolicy, Subscription},
    http::start,
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
    phase: Phase,
}

enum Phase {
    /// Finding the start.
    Starting(BoxFuture<'static, Subscription>),
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
    pub(super) fn new(
        hub: &Arc<Hub>,
        name: &str,
        filter: Filter,
        (begin, requested): start::Asked,
        lag: LagPolicy,
    ) -> Self {
        let filters = filter.topics().len() + filter.patterns().len();
        let filter = Arc::new(filter);
        let phase = match begin {
            Begin::Live => Phase::Opening(Subscription::live_now(hub, &filter, lag)),
            _ => {
                let hub = Arc::clone(hub);
                Phase::Starting(Box::pin(async move {
                    Subscription::start(&hub, &filter, begin, requested, lag).await
                }))
            }
        };
        Self {
            events_begin: format!("{{\"sub\":{},\"events\":[", Value::from(name)).into(),
            name: name.into(),
            filters,
            phase,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn filters(&self) -> usize {
        self.filters
    }

    pub(super) fn events_begin(&self) -> &[u8] {
        &self.events_begin
    }

    /// What comes next; to call it says that what came before is written. Nothing comes after its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Said {
        if let Phase::Starting(start) = &mut self.phase {
            self.phase = Phase::Opening(start.await);
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
            Delivery::Gap(gap) => Said::Own(told(&self.name, "gap", Control::gap(&gap).data)),
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
            return Some(Said::Own(told(&self.name, "gap", Control::gap(&gap).data)));
        }
        subscription.pace();
        let cursor = subscription.cursor().to_string();
        let ended = subscription.has_ended();
        self.phase = Phase::Open(subscription);
        let begun = || Said::Own(told(&self.name, "subscribed", json!({ "cursor": cursor })));
        (!ended).then(begun)
    }

    fn end(&mut self, reason: CloseReason) -> Said {
        self.phase = Phase::Ended;
        Said::End(reason)
    }

    /// The socket takes nothing for now: nobody is to wait for this reader.
    pub(super) fn stalled(&mut self) {
        if let Phase::Open(subscription) = &mut self.phase {
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
