//! The stream queue and the exchange beside it: their names and settings, and how one reads them.

use super::{
    link::{answered, text, unavailable},
    reader::Reader,
};
use crate::cluster::journal::{ConnectError, Fault, JournalOptions};
use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Retention removes whole segments: with at most this part of the bound in each, it keeps nearly all of it.
const SEGMENTS_MIN: u64 = 8;

/// What a broker takes where none is given; it is slow at opening larger ones.
const SEGMENT_BYTES_MAX: u64 = 500_000_000;

/// Each segment is two files, so tiny ones would cost more than they are worth.
const SEGMENT_BYTES_MIN: u64 = 4 << 10; // 4 KiB

/// Announcements that wait for a node; more of them push the oldest out.
const ANNOUNCEMENTS_MAX: u16 = 1_000;

/// Where a consumer begins; and of each delivery, where it is in the stream.
pub(super) const OFFSET: &str = "x-stream-offset";

/// The names that a cluster has at the broker.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The stream queue of the entries.
    pub(super) queue: ShortString,
    /// The exchange that copies announcements to all nodes.
    pub(super) exchange: ShortString,
}

impl Names {
    pub(super) fn of(cluster: &str) -> Self {
        Self {
            queue: format!("tidings.{cluster}.journal").into(),
            exchange: format!("tidings.{cluster}.nodes").into(),
        }
    }

    /// Makes queue and exchange where they are not there, and finds out whether the queue can be read.
    pub(super) async fn declare(
        &self,
        connection: &Connection,
        options: &JournalOptions,
    ) -> Result<(), ConnectError> {
        let channel = connection.create_channel().await;
        let channel = channel.map_err(|error| unavailable(&error))?;
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel.queue_declare(self.queue.clone(), durable, settings(options));
        queue
            .await
            .map_err(|error| not_declared(&error, "queue", &self.queue))?;
        let exchange = channel.exchange_declare(
            self.exchange.clone(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            },
            FieldTable::default(),
        );
        exchange
            .await
            .map_err(|error| not_declared(&error, "exchange", &self.exchange))?;
        // A broker that has just started knows the queue before it has opened the stream.
        match self.consume(&channel, Offset::Next, 1).await {
            Ok(_) => Ok(()),
            Err(Fault(text)) => Err(ConnectError::Unavailable(text)),
        }
    }

    /// Reads the queue on, at most `prefetch` entries ahead.
    pub(super) async fn consume(
        &self,
        channel: &Channel,
        from: Offset,
        prefetch: u16,
    ) -> Result<Reader, Fault> {
        let mut arguments = FieldTable::default();
        arguments.insert(OFFSET.into(), from.value());
        let consumer = answered(async {
            channel
                .basic_qos(prefetch, BasicQosOptions::default())
                .await?;
            let queue = self.queue.clone();
            let options = BasicConsumeOptions::default();
            channel
                .basic_consume(queue, ShortString::default(), options, arguments)
                .await
        });
        Ok(Reader::new(channel.clone(), consumer.await?, prefetch))
    }

    /// Hears announcements from now on, each once and in order.
    pub(super) async fn listen(&self, channel: &Channel) -> Result<Reader, Fault> {
        let mut arguments = FieldTable::default();
        let length = i64::from(ANNOUNCEMENTS_MAX);
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(length));
        let own = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        // Not named by the broker, so that one pattern of permissions fits all names.
        let queue: ShortString = format!("{}.{:016x}", self.exchange, rand::random::<u64>()).into();
        let consumer = answered(async {
            let (exchange, any) = (self.exchange.clone(), ShortString::default());
            channel.queue_declare(queue.clone(), own, arguments).await?;
            channel
                .queue_bind(
                    queue.clone(),
                    exchange,
                    any.clone(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            channel
                .basic_qos(ANNOUNCEMENTS_MAX, BasicQosOptions::default())
                .await?;
            let options = BasicConsumeOptions::default();
            channel
                .basic_consume(queue, any, options, FieldTable::default())
                .await
        });
        let consumer = consumer.await?;
        Ok(Reader::new(channel.clone(), consumer, ANNOUNCEMENTS_MAX))
    }

    /// What the broker says the queue has. Only to be believed if it is 0 and nothing comes.
    pub(super) async fn count(&self, channel: &Channel) -> Result<u32, Fault> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asking = channel.queue_declare(self.queue.clone(), passive, FieldTable::default());
        Ok(answered(asking).await?.message_count())
    }
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Offset {
    /// With the oldest entry.
    First,
    /// With the last chunk: what the broker wrote at once.
    Last,
    /// With what comes now.
    Next,
    /// With the entry after that position, or the next there is.
    After(u64),
}

impl Offset {
    fn value(self) -> AMQPValue {
        let text = |text: &str| AMQPValue::LongString(text.into());
        match self {
            Self::First | Self::After(0) => text("first"),
            Self::Last => text("last"),
            Self::Next => text("next"),
            // Offsets begin at 0, positions at 1: the offset of the entry after it is the same number.
            Self::After(position) => {
                AMQPValue::LongLongInt(i64::try_from(position).unwrap_or(i64::MAX))
            }
        }
    }
}

/// Polls it once, and so hands to lapin what is to be sent; what it would then wait for is the writing.
pub(super) fn begun<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn settings(options: &JournalOptions) -> FieldTable {
    let number = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |text: &str| AMQPValue::LongString(text.into());
    let segment = options.bytes_max / SEGMENTS_MIN;
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("stream"));
    let age = options.age_max_ms.div_ceil(1_000);
    table.insert("x-max-age".into(), text(&format!("{age}s")));
    table.insert("x-max-length-bytes".into(), number(options.bytes_max));
    table.insert(
        "x-stream-max-segment-size-bytes".into(),
        number(segment.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)),
    );
    table
}

fn not_declared(error: &lapin::Error, what: &str, name: &ShortString) -> ConnectError {
    let said = text(error);
    match error.kind() {
        // PRECONDITION_FAILED
        ErrorKind::ProtocolError(code) if code.get_id() == 406 => ConnectError::Refused(format!(
            "{what} {name} is there with other settings ({said}): configure its bounds in cluster.journal_bytes_max \
             and cluster.journal_age_max if it is a stream of Tidings, or another cluster.name; or delete it with all \
             that it holds"
        )),
        // RESOURCE_LOCKED, COMMAND_INVALID, NOT_IMPLEMENTED
        ErrorKind::ProtocolError(code) if matches!(code.get_id(), 405 | 503 | 540) => {
            ConnectError::Refused(format!("{what} {name}: {said}"))
        }
        // Among them NOT_FOUND: a broker that has just started says so of a queue that it will find.
        _ => unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(age_max_ms: u64, bytes_max: u64) -> JournalOptions {
        JournalOptions {
            name: "a".to_owned(),
            age_max_ms,
            bytes_max,
            ca_file: None,
            password: None,
            redis_wait: 0,
            nats_replicas: 1,
        }
    }

    fn setting(options: &JournalOptions, name: &str) -> AMQPValue {
        settings(options).inner()[name].clone()
    }

    #[test]
    fn a_segment_has_at_most_an_eighth_of_the_bound() {
        const SEGMENT: &str = "x-stream-max-segment-size-bytes";
        for (bytes_max, segment) in [
            (1 << 30, 1 << 27),
            (1 << 20, 1 << 17),
            (1 << 40, 500_000_000),
            (1, 4_096),
        ] {
            let value = setting(&options(1_000, bytes_max), SEGMENT);
            assert_eq!(AMQPValue::LongLongInt(segment), value);
        }
    }

    #[test]
    fn settings_do_not_cut_what_is_to_be_kept() {
        let age = |ms| setting(&options(ms, 1 << 30), "x-max-age");
        assert_eq!(AMQPValue::LongString("2s".into()), age(1_001));
        assert_eq!(AMQPValue::LongString("3600s".into()), age(3_600_000));
        let bytes = setting(&options(1, u64::MAX), "x-max-length-bytes");
        assert_eq!(AMQPValue::LongLongInt(i64::MAX), bytes);
    }

    #[test]
    fn the_offset_after_a_position_is_the_same_number() {
        assert_eq!(AMQPValue::LongLongInt(41), Offset::After(41).value());
        assert_eq!(
            AMQPValue::LongString("first".into()),
            Offset::After(0).value()
        );
    }
}
