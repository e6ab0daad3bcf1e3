//! A look into the stream, beside the tail: the entry at a position, and the stream's ends. The broker tells neither, but
//! consumers begin anywhere, and what they are sent first tells. Where brokers form a cluster, it is the connected one's copy
//! that is read.
//!
//! Each consumer has a channel of its own: to a channel's second one the broker may send entries before it says that there
//! is one, and lapin throws them away.

use super::{
    link::{ANSWER_MAX, Link, answered, silent},
    reader::Reader,
    stream::{Names, Offset, begun},
};
use crate::cluster::journal::{Ends, Fault};
use bytes::Bytes;
use lapin::{Channel, options::BasicQosOptions};
use std::{pin::pin, task::Poll, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};

/// A stream that sends nothing for this long, and counts nothing, is empty. Where that is taken for a loss, more is waited.
const EMPTY_AFTER: Duration = Duration::from_millis(400);
const LOST_AFTER: Duration = Duration::from_secs(2);

/// What one consumer's entry may overtake of another's.
const OVERTAKING_MAX: Duration = Duration::from_millis(100);

/// A chunk is cut where it began, so a few entries may come before the one that is looked for.
const PREFETCH: u16 = 16;

/// What is read of the last chunk and what follows. A chunk is what came at once, so no more than all nodes had on their way.
/// Under load the broker would go on sending new entries for as long as it may, and answer nothing else.
const CHUNK_ENTRIES_MAX: u16 = 1_000;

/// The entry at that position.
///
/// If it is there, it comes; if it is a hole, the next one comes; but nothing comes if it is beyond the end. So a second
/// consumer reads the last chunk: what wakes that one has woken the first.
pub(super) async fn entry(
    link: &Link,
    names: &Names,
    position: u64,
) -> Result<Option<Bytes>, Fault> {
    let Some(before) = position.checked_sub(1) else {
        return Ok(None);
    };
    let channel = link.channel().await?;
    let mut wanted = names
        .consume(&channel, Offset::After(before), PREFETCH)
        .await?;
    let of_last = link.channel().await?;
    let mut last = names.consume(&of_last, Offset::Last, 1).await?.once();
    let mut newest = pin!(first_of(&of_last, names, &mut last, LOST_AFTER));
    let mut deadline = None;
    loop {
        tokio::select! {
            biased;
            found = wanted.entry() => match found? {
                (before, _) if before < position => {}
                (at, bytes) => return Ok((at == position).then_some(bytes)),
            },
            newest = &mut newest, if deadline.is_none() => {
                if newest?.is_none() {
                    return Ok(None);
                }
                sent_until_now(&channel).await?;
                deadline = Some(Instant::now() + OVERTAKING_MAX);
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Ok(None),
        }
    }
}

/// The stream's ends: the first entry of all, and the newest of those that follow the last chunk's beginning.
pub(super) async fn ends(link: &Link, names: &Names) -> Result<Ends, Fault> {
    let (of_first, of_last) = (link.channel().await?, link.channel().await?);
    let mut first = names.consume(&of_first, Offset::First, 1).await?.once();
    let last = names.consume(&of_last, Offset::Last, CHUNK_ENTRIES_MAX);
    let mut last = last.await?.once();
    let empty = Ends {
        first: 1,
        last: 0,
        exact: false,
    };
    let Some(mut newest) = first_of(&of_last, names, &mut last, EMPTY_AFTER).await? else {
        return Ok(empty);
    };
    let Some(oldest) = first_of(&of_first, names, &mut first, EMPTY_AFTER).await? else {
        return Ok(empty);
    };
    sent_until_now(&of_last).await?;
    while let Poll::Ready(entry) = begun(pin!(last.entry())) {
        (newest, _) = entry?;
    }
    Ok(Ends {
        first: oldest,
        last: newest,
        exact: false,
    })
}

/// Waits until all is here that a channel's consumer can be sent now: the broker sends that, and then answers this.
async fn sent_until_now(channel: &Channel) -> Result<(), Fault> {
    answered(channel.basic_qos(1, BasicQosOptions::default())).await
}

/// The position of what a reader reads first, or `None` if the stream is empty.
async fn first_of(
    channel: &Channel,
    names: &Names,
    reader: &mut Reader,
    empty_after: Duration,
) -> Result<Option<u64>, Fault> {
    let began = Instant::now();
    if let Ok(entry) = timeout_at(began + empty_after, reader.entry()).await {
        return Ok(Some(entry?.0));
    }
    if names.count(channel).await? == 0 {
        return Ok(None);
    }
    match timeout_at(began + ANSWER_MAX, reader.entry()).await {
        Ok(entry) => Ok(Some(entry?.0)),
        Err(_) => Err(silent()),
    }
}
