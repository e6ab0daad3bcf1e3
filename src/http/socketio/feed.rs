//! One subscription of a socket: pulls it, and sends what comes as there is room.

use super::{
    super::App,
    room::{Unsent, sent},
    session::{AUTH, Entered},
};
use crate::{
    cursor::Cursor,
    delivery::control::Control,
    encoding::Encoding,
    fanout::{Chunk, CloseReason, Delivery, Subscription},
};
use serde_json::{Value, json, value::RawValue};
use socketioxide::extract::SocketRef;
use std::{sync::Arc, time::Duration};

/// Events that were pulled wait so long for room. Then they are let go of, and come again from the log.
const HOLD: Duration = Duration::from_secs(1);

/// What an event takes of a packet beside its envelope and the subscription's name, in bytes.
const PACKET_COST: usize = 16;

pub(super) struct Feed {
    out: Out,
    subscription: Subscription,
}

/// The way out.
struct Out {
    app: Arc<App>,
    socket: SocketRef,
    entered: Entered,
}

/// Why a feed ends.
pub(super) enum End {
    /// It was said.
    Said,
    /// The socket is gone, or takes nothing.
    Unsent(Unsent),
}

impl From<Unsent> for End {
    fn from(unsent: Unsent) -> Self {
        Self::Unsent(unsent)
    }
}

impl Feed {
    pub(super) fn new(
        app: &Arc<App>,
        socket: SocketRef,
        mut entered: Entered,
        subscription: Subscription,
    ) -> Self {
        entered.at = Some(subscription.cursor());
        let out = Out {
            app: Arc::clone(app),
            socket,
            entered,
        };
        Self { out, subscription }
    }

    /// What the client calls it.
    pub(super) fn name(&self) -> &str {
        self.out.entered.name()
    }

    /// Where it is.
    pub(super) fn cursor(&self) -> Cursor {
        self.subscription.cursor()
    }

    /// Says where it begins, unless that is acknowledged, and before it what is gone before: a client that is cut off after
    /// the cursor would not come back to be told.
    pub(super) async fn open(&mut self, acknowledged: bool) -> Result<(), End> {
        if let Some(gap) = self.subscription.take_start_gap() {
            self.out.say("gap", &Control::gap(&gap).data).await?;
        }
        if acknowledged || self.subscription.has_ended() {
            return Ok(());
        }
        let cursor = self.cursor().to_string();
        self.out
            .say("subscribed", &json!({ "cursor": cursor }))
            .await
    }

    /// Runs until the subscription is ended, by either side.
    pub(super) async fn run(mut self) {
        let stop = self.out.entered.stop().clone();
        if let Some(end) = stop.run_until_cancelled(self.deliver()).await {
            self.over(&end);
        }
    }

    /// It has ended, and perhaps its socket with it.
    pub(super) fn over(self, end: &End) {
        let over = match end {
            // What the socket was opened for is over; in a drain all sockets are closed together.
            End::Said => self.out.entered.name() == AUTH && !self.out.app.drain.is_cancelled(),
            End::Unsent(unsent) => *unsent == Unsent::Full,
        };
        if over {
            let _ = self.out.socket.disconnect();
        }
    }

    async fn deliver(&mut self) -> End {
        loop {
            let step = match self.subscription.next().await {
                Delivery::Events(chunk) => self.events(chunk).await,
                Delivery::Gap(gap) => self.out.say("gap", &Control::gap(&gap).data).await,
                Delivery::Close(reason) => self.out.close(Control::close(reason)).await,
                Delivery::Stopped => {
                    let after = self.out.app.streams.come_back();
                    self.out
                        .close(Control::close_for(CloseReason::Draining, after))
                        .await
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Sends events, or lets go of those that there is no room for and waits until there is some.
    async fn events(&mut self, chunk: Chunk) -> Result<(), End> {
        for index in 0..chunk.events().len() {
            match self.out.event(&chunk, index).await {
                Ok(()) => self.out.entered.at = Some(chunk.events()[index].cursor),
                Err(Unsent::Full) => {
                    self.subscription.behind_by(&chunk, index);
                    drop(chunk);
                    let room = &self.out.entered.session().room;
                    return Ok(room.wait(self.out.app.write_timeout).await?);
                }
                Err(Unsent::Gone) => return Err(Unsent::Gone.into()),
            }
        }
        self.out.entered.at = Some(self.subscription.cursor());
        Ok(())
    }
}

impl Out {
    async fn event(&self, chunk: &Chunk, index: usize) -> Result<(), Unsent> {
        let envelope = chunk.bytes_of(Encoding::Line, index..index + 1);
        // Its own bytes are JSON.
        let Ok(envelope) = serde_json::from_slice::<&RawValue>(&envelope) else {
            return Ok(());
        };
        let bytes = envelope.get().len() + self.entered.name().len() + PACKET_COST;
        self.send("event", envelope, bytes, HOLD).await
    }

    async fn close(&self, control: Control) -> Result<(), End> {
        self.say("closed", &control.data).await?;
        Err(End::Said)
    }

    /// Sends what the hub says itself.
    async fn say(&self, event: &str, data: &Value) -> Result<(), End> {
        let Ok(data) = serde_json::value::to_raw_value(data) else {
            return Ok(());
        };
        let bytes = data.get().len();
        let patience = self.app.write_timeout;
        Ok(self.send(event, &data, bytes, patience).await?)
    }

    async fn send(
        &self,
        event: &str,
        data: &RawValue,
        bytes: usize,
        patience: Duration,
    ) -> Result<(), Unsent> {
        let packet = (data, self.entered.name());
        let room = &self.entered.session().room;
        room.send(bytes, patience, || sent(self.socket.emit(event, &packet)))
            .await
    }
}
