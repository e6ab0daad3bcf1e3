//! One consumer: what it is sent, acknowledged as it is taken.

use super::{
    link::fault,
    stream::{OFFSET, begun},
};
use crate::cluster::journal::Fault;
use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Consumer, message::Delivery, options::BasicAckOptions,
    types::AMQPValue,
};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tokio_stream::Stream as _;

/// A consumer and its channel. Dropping the last one of a channel closes that.
pub(super) struct Reader {
    channel: Channel,
    consumer: Consumer,
    /// Taken since the last acknowledgement.
    open: u16,
    /// Acknowledged this often, the broker need not wait for it.
    open_max: u16,
}

impl Reader {
    /// The consumer was promised that at most `prefetch` deliveries wait for it.
    pub(super) fn new(channel: Channel, consumer: Consumer, prefetch: u16) -> Self {
        Self {
            channel,
            consumer,
            open: 0,
            open_max: prefetch / 4,
        }
    }

    /// Acknowledges nothing, so that it is sent no more than was promised.
    pub(super) fn once(self) -> Self {
        Self {
            open_max: u16::MAX,
            ..self
        }
    }

    /// What comes next, or why nothing will.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivery, Fault>> {
        let delivery = match ready!(Pin::new(&mut self.consumer).poll_next(cx)) {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Poll::Ready(Err(fault(&error))),
            None => {
                return Poll::Ready(Err(Fault(
                    "the broker ended a consumer: its queue was deleted, or has lost its node"
                        .to_owned(),
                )));
            }
        };
        self.open += 1;
        if self.open > self.open_max {
            self.open = 0;
            let all = BasicAckOptions { multiple: true };
            // On the channel: a delivery's own acker goes through a task, and two may overtake each other. If the channel
            // is broken, the consumer says so.
            let _ = begun(pin!(self.channel.basic_ack(delivery.delivery_tag, all)));
        }
        Poll::Ready(Ok(delivery))
    }

    /// The same for a stream queue's entries.
    pub(super) fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u64, Bytes), Fault>> {
        let delivery = ready!(self.poll_next(cx))?;
        Poll::Ready(match position(&delivery.properties) {
            Some(position) => Ok((position, delivery.data.into())),
            None => Err(Fault(format!("a delivery of the journal has no {OFFSET}"))),
        })
    }

    /// The same as a future. Dropping it loses nothing.
    pub(super) async fn entry(&mut self) -> Result<(u64, Bytes), Fault> {
        poll_fn(|cx| self.poll_entry(cx)).await
    }
}

/// Positions begin at 1, offsets at 0.
fn position(properties: &BasicProperties) -> Option<u64> {
    let headers = properties.headers().as_ref()?;
    match headers.inner().get(OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok()?.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldTable;

    #[test]
    fn positions_are_one_beyond_offsets() {
        let mut headers = FieldTable::default();
        headers.insert(OFFSET.into(), AMQPValue::LongLongInt(41));
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(Some(42), position(&properties));
        assert_eq!(None, position(&BasicProperties::default()));
    }
}
