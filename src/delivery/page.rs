//! A page of events for a reader that asks, in place of a stream.

use crate::{
    cursor::Cursor,
    encoding::Encoding,
    event::Event,
    fanout::{Chunk, Delivery, Gap, Subscription},
};
use bytes::Bytes;
use std::sync::Arc;

/// What a page may hold at most; one event may be larger.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events.
    pub events_max: usize,
    /// Their envelopes.
    pub bytes_max: usize,
}

/// Events of a subscription that are there.
pub struct Page {
    /// What is missing before the events.
    pub gap: Option<Gap>,
    /// Where the next page begins: so far, this one is complete.
    pub cursor: Cursor,
    /// Whether there is more already.
    pub more: bool,
    parts: Vec<(Chunk, usize)>,
    events: usize,
    bytes: usize,
}

/// The hub ends its streams, or the node is too far behind the reader.
#[derive(Debug)]
pub struct Stopped;

impl Page {
    /// What the log has.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if nothing can be said.
    pub async fn take(subscription: &mut Subscription, limits: Limits) -> Result<Self, Stopped> {
        let mut page = Self::empty(subscription);
        page.fill(subscription, limits).await?;
        Ok(page)
    }

    /// The page after one that had nothing, of what came then; `None` if nothing did.
    pub async fn of(
        subscription: &mut Subscription,
        limits: Limits,
        came: Option<Delivery>,
    ) -> Self {
        let mut page = Self::empty(subscription);
        match came {
            Some(Delivery::Stopped) => {}
            Some(events @ Delivery::Events(_)) => {
                page.add(events, subscription.cursor(), limits);
            }
            // A gap is told once the page's cursor lies behind it, with what follows.
            Some(gap) => {
                if page.add(gap, subscription.cursor(), limits) {
                    drop(page.fill(subscription, limits).await);
                }
            }
            // The end has moved on meanwhile, by what others want. If the hub stops now, it is told where it was.
            None => drop(page.fill(subscription, limits).await),
        }
        page
    }

    fn empty(subscription: &Subscription) -> Self {
        Self {
            gap: None,
            cursor: subscription.cursor(),
            more: false,
            parts: Vec::new(),
            events: 0,
            bytes: 0,
        }
    }

    /// Adds what is there, up to the limits.
    async fn fill(
        &mut self,
        subscription: &mut Subscription,
        limits: Limits,
    ) -> Result<(), Stopped> {
        while let Some(delivery) = subscription.next_kept().await {
            if matches!(delivery, Delivery::Stopped) {
                return if self.is_empty() {
                    Err(Stopped)
                } else {
                    Ok(())
                };
            }
            if !self.add(delivery, subscription.cursor(), limits) {
                return Ok(());
            }
        }
        self.cursor = subscription.cursor();
        Ok(())
    }

    /// Adds what came, and says whether there is room for more. `after` is where the subscription is then.
    fn add(&mut self, delivery: Delivery, after: Cursor, limits: Limits) -> bool {
        let chunk = match delivery {
            Delivery::Gap(gap) if self.is_empty() => {
                self.gap = Some(gap);
                return true;
            }
            Delivery::Events(chunk) => chunk,
            // It is told, or found out, from the cursor on.
            _ => {
                self.more = true;
                return false;
            }
        };
        let there = chunk.events().len();
        let count = there.min(limits.events_max - self.events);
        let bytes = chunk.bytes_of(Encoding::Item, 0..count).len();
        if count == 0 || (self.events > 0 && self.bytes + bytes > limits.bytes_max) {
            self.more = true;
            return false;
        }
        self.cursor = match count == there {
            true => after,
            false => chunk.events()[count - 1].cursor,
        };
        self.more = count < there;
        self.events += count;
        self.bytes += bytes;
        self.parts.push((chunk, count));
        !self.more
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0 && self.gap.is_none()
    }

    /// Its events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.parts
            .iter()
            .flat_map(|(chunk, count)| &chunk.events()[..*count])
    }

    /// Its envelopes as the inside of a JSON array.
    pub fn put_items(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes);
        for (chunk, count) in &self.parts {
            out.extend_from_slice(&chunk.bytes_of(Encoding::Item, 0..*count));
        }
        if self.events > 0 {
            out.pop(); // the last comma
        }
    }
}

/// The same of a whole chunk, shared by its readers.
#[must_use]
pub fn items(chunk: &Chunk) -> Bytes {
    let mut bytes = chunk.bytes(Encoding::Item);
    bytes.truncate(bytes.len().saturating_sub(1));
    bytes
}
