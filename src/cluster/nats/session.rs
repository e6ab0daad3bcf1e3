//! One connection's life: appends, reads, the stream's ends, announcements.

use super::{
    link::{ANSWER_MAX, Link},
    stream::Stream,
    tail::Tail,
};
use crate::{
    cluster::journal::{Acknowledgement, AppendFault, Ends, EntryTail, Fault, Sealed, Session},
    log::BoxFuture,
};
use async_nats::{
    Subject,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        stream::RawMessageErrorKind,
    },
};
use bytes::Bytes;
use std::{error::Error as _, sync::Arc};

/// A session over one [`Link`].
pub(super) struct NatsSession {
    pub(super) link: Arc<Link>,
    pub(super) stream: Arc<Stream>,
    /// Of the stream's.
    pub(super) entries: Subject,
    /// Of what nodes tell each other.
    pub(super) announcements: Subject,
    pub(super) entry_bytes_max: usize,
}

impl Session for NatsSession {
    fn entry_bytes_max(&self) -> usize {
        self.entry_bytes_max
    }

    fn append<'a>(
        &'a self,
        entry: &'a Sealed,
    ) -> BoxFuture<'a, Result<Acknowledgement, AppendFault>> {
        Box::pin(async move {
            if self.link.is_broken() {
                return Err(AppendFault::NotSent(self.link.why_broken()));
            }
            // The same entry sent twice within two minutes is stored once, and answered with its position.
            let message = PublishMessage::build()
                .payload(entry.bytes.clone())
                .message_id(format!(
                    "{:016x}-{}-{}",
                    entry.writer, entry.number, entry.attempt
                ));
            // Whatever fails here did so before the library had the message.
            let answer = self
                .link
                .jetstream
                .send_publish(self.entries.clone(), message)
                .await
                .map_err(|error| AppendFault::NotSent(error.to_string()))?;
            let link = Arc::clone(&self.link);
            let acknowledgement: Acknowledgement = Box::pin(async move {
                tokio::select! {
                    biased;
                    answer = answer.into_future() => match answer {
                        Ok(ack) => Ok(Some(ack.sequence)),
                        Err(error) => Err(not_acknowledged(&link, &error)),
                    },
                    () = link.broken() => Err(AppendFault::Unknown(link.why_broken())),
                }
            });
            Ok(acknowledgement)
        })
    }

    fn tail(&self, after: u64) -> BoxFuture<'_, Result<Box<dyn EntryTail>, Fault>> {
        Box::pin(async move {
            let tail = Tail::begin(
                Arc::clone(&self.link),
                &self.stream,
                self.announcements.clone(),
                after,
            )
            .await?;
            Ok(Box::new(tail) as Box<dyn EntryTail>)
        })
    }

    fn read(&self, position: u64) -> BoxFuture<'_, Result<Option<Bytes>, Fault>> {
        Box::pin(async move {
            if position == 0 {
                return Ok(None); // JetStream takes it for no position at all.
            }
            let read = async {
                let stream = self.link.jetstream.get_stream_no_info(&self.stream.name);
                let stream = stream.await.map_err(|error| error.to_string())?;
                match stream.get_raw_message(position).await {
                    Ok(message) => Ok(Some(message.payload)),
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                    Err(error) => Err(error.to_string()),
                }
            };
            tokio::select! {
                biased;
                read = read => read.map_err(|text| {
                    Fault(format!("cannot read entry {position} at {}: {text}", self.link.server))
                }),
                () = self.link.broken() => Err(Fault(self.link.why_broken())),
            }
        })
    }

    fn ends(&self) -> BoxFuture<'_, Result<Ends, Fault>> {
        Box::pin(async move {
            match self.stream.info(&self.link).await {
                Ok(info) => Ok(info.ends()),
                Err(fault) => Err(fault.fault(&self.link)),
            }
        })
    }

    fn announce(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if self.link.is_broken() {
                return Err(Fault(self.link.why_broken()));
            }
            self.link
                .client
                .publish(self.announcements.clone(), bytes)
                .await
                .map_err(|error| Fault(error.to_string()))
        })
    }

    fn tend(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        // JetStream keeps the bounds itself. Before 2.10 it tells no time: that of the newest entry would be how long
        // nobody published.
        Box::pin(async move {
            match self.stream.info(&self.link).await {
                Ok(info) => Ok(info.time_ms()),
                Err(fault) => Err(fault.fault(&self.link)),
            }
        })
    }
}

fn not_acknowledged(link: &Link, error: &PublishError) -> AppendFault {
    let answered = error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    let certain = match (error.kind(), answered) {
        // There is no leader that could have got it.
        (PublishErrorKind::StreamNotFound, _) => true,
        (_, Some(answered)) => kept_out(answered.error_code()),
        _ => false,
    };
    let text = match error.kind() {
        PublishErrorKind::TimedOut => {
            format!("no answer from {} in {ANSWER_MAX:?}", link.server)
        }
        _ => format!("{}: {error}", link.server),
    };
    if certain {
        AppendFault::NotSent(text)
    } else {
        AppendFault::Unknown(text)
    }
}

/// Whether the broker says so before it stores an entry on any server. The others, such as a failed write or exceeded
/// resources, come from one replica while another may keep it.
fn kept_out(code: ErrorCode) -> bool {
    [
        ErrorCode::CLUSTER_NOT_AVAILABLE,
        ErrorCode::CLUSTER_NOT_LEADER,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
        ErrorCode::STREAM_NOT_FOUND,
        ErrorCode::STREAM_OFFLINE,
        ErrorCode::STREAM_SEALED,
    ]
    .contains(&code)
}
