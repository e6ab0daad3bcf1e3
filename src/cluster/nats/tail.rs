//! Entries and announcements as they come. Knows nothing of appends.
//!
//! A consumer of its own, which is asked for the next entries each time it has sent those it was asked for. Not the
//! library's ordered consumer: that one makes itself anew when something failed, and goes on without a word.

use super::{link::Link, stream::Stream};
use crate::{
    cluster::journal::{EntryTail, Fault, Tailed},
    log::BoxFuture,
};
use async_nats::{Message, StatusCode, Subject, Subscriber};
use serde::Deserialize;
use serde_json::json;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::coop::{consume_budget, unconstrained},
    time::{Instant, sleep_until},
};
use tokio_stream::Stream as _;

/// So many entries are asked for at once: what waits in memory is bounded by the bytes.
const ASK_ENTRIES: usize = 8_192;
/// So many bytes are asked for at once, or one entry.
const ASK_BYTES: usize = 8 << 20; // 8 MiB
/// How long the consumer waits for entries before it wants to be asked again.
const ASK_FOR: Duration = Duration::from_secs(30);

/// What is handed on at once.
const LIST_ENTRIES: usize = 512;
const LIST_BYTES: usize = 4 << 20; // 4 MiB

/// A consumer that was asked shows that it is there so often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A consumer that was asked and is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The broker removes a consumer that was not asked for so long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The tail of one session.
pub(super) struct Tail {
    link: Arc<Link>,
    announcements: Subscriber,
    /// What the consumer sends: entries, and words on what it was asked.
    deliveries: Subscriber,
    /// Where it is asked.
    asking: Subject,
    inbox: String,
    /// The number of the present question.
    question: u64,
    /// How many entries it may still send for it.
    open: usize,
    /// How many entries it sent in all.
    delivered: u64,
    /// Where it began. No entry at or below it comes, unless the stream ended before it.
    begins_after: u64,
    /// Whether the next entry has more bytes than are asked for at once.
    large: bool,
    /// When something came from it.
    heard: Instant,
}

#[derive(Deserialize)]
struct Created {
    name: String,
}

impl Tail {
    pub(super) async fn begin(
        link: Arc<Link>,
        stream: &Stream,
        announcements: Subject,
        after: u64,
    ) -> Result<Self, Fault> {
        // What comes at or below `after` is to be seen where the stream ends before it: servers since 2.10 would hold
        // it back.
        let info = stream.info(&link).await;
        let last = info.map_err(|fault| fault.fault(&link))?.ends().last;
        let stream = &stream.name;
        let inbox = link.client.new_inbox();
        let subscribe = |subject: Subject| {
            let client = link.client.clone();
            async move {
                let subscribed = client.subscribe(subject).await;
                subscribed.map_err(|error| Fault(error.to_string()))
            }
        };
        let announcements = subscribe(announcements).await?;
        let deliveries = subscribe(format!("{inbox}.*").into()).await?;
        // In memory on one server: a consumer that is lost is made anew by the next session.
        let created: Created = link
            .request(
                format!("CONSUMER.CREATE.{stream}"),
                &json!({
                    "stream_name": stream,
                    "config": {
                        "deliver_policy": "by_start_sequence",
                        "opt_start_seq": after.min(last) + 1,
                        "ack_policy": "none",
                        "replay_policy": "instant",
                        "inactive_threshold": nanoseconds(IDLE_MAX),
                        "num_replicas": 1,
                        "mem_storage": true,
                    },
                }),
            )
            .await
            .map_err(|fault| fault.fault(&link))?;
        Ok(Self {
            asking: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", created.name).into(),
            link,
            announcements,
            deliveries,
            inbox,
            question: 0,
            open: 0,
            delivered: 0,
            large: false,
            begins_after: if last < after { 0 } else { after },
            heard: Instant::now(),
        })
    }

    /// Asks for the next entries.
    ///
    /// # Cancel safety
    ///
    /// The question is either sent and noted, or neither.
    async fn ask(&mut self) -> Result<(), Fault> {
        let entries = if self.large { 1 } else { ASK_ENTRIES };
        let mut body = json!({
            "batch": entries,
            "expires": nanoseconds(ASK_FOR),
            "idle_heartbeat": nanoseconds(HEARTBEAT),
        });
        if !self.large {
            body["max_bytes"] = json!(ASK_BYTES);
        }
        let question = self.question + 1;
        self.link
            .client
            .publish_with_reply(
                self.asking.clone(),
                format!("{}.{question}", self.inbox),
                body.to_string().into(),
            )
            .await
            .map_err(|_| Fault(self.link.why_broken()))?;
        self.question = question;
        self.open = entries;
        self.heard = Instant::now();
        Ok(())
    }

    /// What came, or `None` if only a word of the consumer did.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Tailed>, Fault>> {
        // First what is rare, and must not wait for a long catching up: a node's lease may hang on it.
        match Pin::new(&mut self.announcements).poll_next(cx) {
            Poll::Ready(Some(message)) => {
                return Poll::Ready(Ok(Some(Tailed::Announcement(message.payload))));
            }
            Poll::Ready(None) => return Poll::Ready(Err(Fault(self.link.why_broken()))),
            Poll::Pending => {}
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        while self.open > 0 && entries.len() < LIST_ENTRIES && bytes < LIST_BYTES {
            let message = match Pin::new(&mut self.deliveries).poll_next(cx) {
                Poll::Ready(Some(message)) => message,
                Poll::Ready(None) => return Poll::Ready(Err(Fault(self.link.why_broken()))),
                Poll::Pending if entries.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            if let Some(status) = message.status {
                self.told(status, &message)?;
                break;
            }
            bytes += message.payload.len();
            entries.push((self.position(&message)?, message.payload));
        }
        self.heard = Instant::now();
        Poll::Ready(Ok((!entries.is_empty()).then_some(Tailed::Entries(entries))))
    }

    /// Takes note of an entry's delivery, and gives its position.
    fn position(&mut self, message: &Message) -> Result<u64, Fault> {
        let server = &self.link.server;
        let (position, delivered) = place(message.reply.as_deref())
            .ok_or_else(|| Fault(format!("a delivery of {server} does not say its place")))?;
        if delivered != self.delivered + 1 {
            return Err(Fault(format!(
                "entries of {server} were lost on their way: delivery {delivered} came after {}",
                self.delivered
            )));
        }
        // The consumer is on a replica that has not got so far yet: what it repeats proves nothing.
        if position <= self.begins_after {
            return Err(Fault(format!(
                "the consumer at {server} began before entry {}: its replica is behind",
                self.begins_after
            )));
        }
        self.delivered = delivered;
        self.open -= 1;
        self.large = false;
        Ok(position)
    }

    /// Takes the consumer's word on what it was asked.
    fn told(&mut self, status: StatusCode, message: &Message) -> Result<(), Fault> {
        let of_present = message
            .subject
            .strip_prefix(self.inbox.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|question| question == self.question.to_string());
        let word = message.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => {}
            _ if !of_present => {}
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => self.open = 0,
            StatusCode::REQUEST_TERMINATED if word == "Batch Completed" => self.open = 0,
            StatusCode::REQUEST_TERMINATED if word == "Message Size Exceeds MaxBytes" => {
                self.large = self.open == ASK_ENTRIES;
                self.open = 0;
            }
            _ => {
                return Err(Fault(format!(
                    "the consumer at {} ended: {status} {word}",
                    self.link.server
                )));
            }
        }
        Ok(())
    }
}

impl EntryTail for Tail {
    fn next(&mut self) -> BoxFuture<'_, Result<Tailed, Fault>> {
        Box::pin(async move {
            // Lists are collected outside of the runtime's budget, or they would be short: each takes one of it here.
            consume_budget().await;
            loop {
                if self.open == 0 {
                    self.ask().await?;
                }
                let link = Arc::clone(&self.link);
                let silent = sleep_until(self.heard + SILENCE_MAX);
                let came = tokio::select! {
                    biased;
                    came = unconstrained(poll_fn(|cx| self.poll_next(cx))) => came?,
                    () = link.broken() => return Err(Fault(link.why_broken())),
                    () = silent => return Err(Fault(format!(
                        "the consumer at {} has been silent for {SILENCE_MAX:?}",
                        link.server
                    ))),
                };
                if let Some(came) = came {
                    return Ok(came);
                }
            }
        })
    }
}

/// Positions in the stream and among what the consumer sent, from the reply subject of a delivery: that of
/// `$JS.ACK.{stream}.{consumer}.{times}.{stream position}.{consumer position}...`, where later servers may have a
/// domain and an account behind `ACK`.
fn place(reply: Option<&str>) -> Option<(u64, u64)> {
    let reply = reply?.strip_prefix("$JS.ACK.")?;
    let account = if reply.split('.').count() > 7 { 2 } else { 0 };
    let mut positions = reply.split('.').skip(account + 3).map(str::parse);
    Some((positions.next()?.ok()?, positions.next()?.ok()?))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deliverys_place_is_read_from_both_forms_of_its_reply() {
        for (reply, expected) in [
            ("$JS.ACK.s.c.1.42.7.1700000000000000000.0", Some((42, 7))),
            (
                "$JS.ACK.hub.AAAA.s.c.1.42.7.1700000000000000000.0",
                Some((42, 7)),
            ),
            (
                "$JS.ACK._.AAAA.s.c.1.42.7.1700000000000000000.0.xyz",
                Some((42, 7)),
            ),
            ("$JS.ACK.s.c.1.x.7.1700000000000000000.0", None),
            ("$JS.ACK.s.c.1.42", None),
            ("_INBOX.1.2.3.4.5.6.7.8", None),
        ] {
            assert_eq!(place(Some(reply)), expected, "{reply}");
        }
        assert_eq!(place(None), None);
    }
}
