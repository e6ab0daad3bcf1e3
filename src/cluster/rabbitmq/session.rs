//! One session: a connection for what is sent, which the broker may hold up, and one for what is read.

use super::{
    link::{ANSWER_MAX, Link, answered, text},
    look,
    stream::{Names, begun},
    tail::Tail,
};
use crate::{
    cluster::journal::{Acknowledgement, AppendFault, Ends, EntryTail, Fault, Sealed, Session},
    log::BoxFuture,
};
use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Confirmation, ConnectionStatus, Event, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use std::{
    future::ready,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio_stream::Stream;

/// The broker does not tell its bound. Version 4 takes 16 MiB unless told otherwise, earlier ones more; this leaves
/// room for what comes around an entry.
const ENTRY_BYTES_MAX: usize = (16 << 20) - (64 << 10);

/// AMQP's delivery mode 2.
const PERSISTENT: u8 = 2;

/// See [`Session`].
pub(super) struct RabbitSession {
    names: Names,
    /// With confirms.
    entries: Channel,
    /// Without: announcements may get lost.
    announcements: Channel,
    alarm: Arc<Alarm>,
    #[expect(dead_code, reason = "held, since the channels end with it")]
    sending: Link,
    reading: Arc<Link>,
}

impl RabbitSession {
    pub(super) async fn new(names: Names, sending: Link, reading: Link) -> Result<Self, Fault> {
        let entries = sending.channel().await?;
        answered(entries.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self {
            names,
            entries,
            announcements: sending.channel().await?,
            alarm: Arc::new(Alarm::of(&sending)),
            sending,
            reading: Arc::new(reading),
        })
    }
}

impl Session for RabbitSession {
    fn entry_bytes_max(&self) -> usize {
        ENTRY_BYTES_MAX
    }

    fn append<'a>(
        &'a self,
        entry: &'a Sealed,
    ) -> BoxFuture<'a, Result<Acknowledgement, AppendFault>> {
        Box::pin(async move {
            if let Some(alarm) = self.alarm.now() {
                return Err(AppendFault::NotSent(alarm));
            }
            let (channel, queue) = (self.entries.clone(), self.names.queue.clone());
            let mut publishing = Box::pin(publish(channel, queue, entry.bytes.clone()));
            // The entry is now among the frames to be written, behind those before it: that is the order that counts.
            let published = match begun(publishing.as_mut()) {
                // Nothing was taken: the channel is closed.
                Poll::Ready(Err(error)) => return Err(AppendFault::NotSent(text(&error))),
                Poll::Ready(Ok(confirm)) => Ok(confirm),
                Poll::Pending => Err(publishing),
            };
            let (bytes, alarm) = (entry.bytes.clone(), self.alarm.clone());
            let confirmed = async move {
                match published {
                    Ok(confirm) => confirm.await,
                    Err(publishing) => publishing.await?.await,
                }
            };
            let confirmed = tokio::time::timeout(ANSWER_MAX, confirmed);
            let acknowledgement: Acknowledgement = Box::pin(async move {
                match confirmed.await {
                    Ok(Ok(confirmation)) => acknowledged(confirmation, &bytes),
                    Ok(Err(error)) => Err(AppendFault::Unknown(text(&error))),
                    Err(_) => Err(AppendFault::Unknown(alarm.now().unwrap_or_else(|| {
                        format!("no confirm within {} s", ANSWER_MAX.as_secs())
                    }))),
                }
            });
            Ok(acknowledgement)
        })
    }

    fn tail(&self, after: u64) -> BoxFuture<'_, Result<Box<dyn EntryTail>, Fault>> {
        Box::pin(async move {
            let tail = Tail::new(self.reading.clone(), &self.names, after).await?;
            Ok(Box::new(tail) as Box<dyn EntryTail>)
        })
    }

    fn read(&self, position: u64) -> BoxFuture<'_, Result<Option<Bytes>, Fault>> {
        Box::pin(look::entry(&self.reading, &self.names, position))
    }

    fn ends(&self) -> BoxFuture<'_, Result<Ends, Fault>> {
        Box::pin(look::ends(&self.reading, &self.names))
    }

    fn announce(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let exchange = self.names.exchange.clone();
            let sending = async {
                let options = BasicPublishOptions::default();
                let properties = BasicProperties::default();
                let any = ShortString::default();
                self.announcements
                    .basic_publish(exchange, any, options, &bytes, properties)
                    .await
            };
            // An alarm holds everything up, but breaks nothing.
            if self.alarm.now().is_some() {
                return Ok(());
            }
            match answered(sending).await {
                Err(_) if self.alarm.now().is_some() => Ok(()),
                sent => sent.map(|_| ()),
            }
        })
    }

    /// The queue's own settings remove what is over its bounds, and AMQP does not tell the broker's clock. What is left is
    /// to tell that sending has ended: the broker may close a channel for one entry that it does not like.
    fn tend(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        let sends = [&self.entries, &self.announcements]
            .into_iter()
            .all(|channel| channel.status().connected());
        let tended = if sends {
            Ok(None)
        } else {
            Err(Fault("the broker closed a channel".to_owned()))
        };
        Box::pin(ready(tended))
    }
}

/// Resolves once the entry is written to the connection. `mandatory`: else it would be confirmed even if the queue is gone.
async fn publish(
    channel: Channel,
    queue: ShortString,
    bytes: Bytes,
) -> lapin::Result<PublisherConfirm> {
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let unnamed = ShortString::default();
    channel
        .basic_publish(unnamed, queue, mandatory, &bytes, properties)
        .await
}

fn acknowledged(confirmation: Confirmation, bytes: &Bytes) -> Result<Option<u64>, AppendFault> {
    match confirmation {
        Confirmation::Ack(None) => Ok(None),
        // Of several that came back, lapin may give one's confirm another's message.
        Confirmation::Ack(Some(returned)) if returned.delivery.data == **bytes => {
            Err(AppendFault::NotSent("the queue is gone".to_owned()))
        }
        Confirmation::Ack(Some(_)) => Err(AppendFault::Unknown("the queue is gone".to_owned())),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(AppendFault::Unknown(
            "the broker did not confirm it".to_owned(),
        )),
    }
}

/// What the broker said about a shortage that stops all that is sent.
struct Alarm {
    status: ConnectionStatus,
    told: Mutex<Told>,
}

struct Told {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    reason: String,
}

impl Alarm {
    fn of(link: &Link) -> Self {
        Self {
            status: link.connection.status().clone(),
            told: Mutex::new(Told {
                events: Box::pin(link.connection.events_listener()),
                reason: "low on disk or memory".to_owned(),
            }),
        }
    }

    /// What stops sending now, if anything does.
    fn now(&self) -> Option<String> {
        if !self.status.blocked() {
            return None;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = told.events.as_mut().poll_next(&mut cx) {
            if let Event::ConnectionBlocked(reason) = event {
                told.reason = reason;
            }
        }
        Some(format!(
            "the broker takes nothing while it is {}",
            told.reason
        ))
    }
}
