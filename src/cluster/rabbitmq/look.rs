//! A look into the stream, beside the tail: the entry at a position, and the stream's ends. The broker tells neither, but
//! consumers begin anywhere, and what they are sent first tells. Where brokers form a cluster, it is the connected one's copy
//! that is read.

use super::{
    reader::Reader,
    stream::{Names, Offset, answered, begun, silent},
};
use crate::cluster::journal::{Ends, Fault};
use bytes::Bytes;
use lapin::{Channel, options::BasicQosOptions};
use std::{pin::pin, task::Poll, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};

/// After this long without an entry, the broker is asked whether there are any.
const SILENCE_MIN: Duration = Duration::from_millis(200);

/// A stream that has entries, and sends none for this long, does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What one consumer's entry may overtake of another's.
const OVERTAKING_MAX: Duration = Duration::from_millis(100);

/// A chunk is cut where it began, so a few entries may come before the one that is looked for.
const PREFETCH: u16 = 16;

/// The entry at that position.
///
/// If it is there, it comes; if it is a hole, the next one comes; but nothing comes if it is beyond the end. So a second
/// consumer reads the last chunk. The broker wakes consumers in turn: when that one's entry is here, the first one has
/// been asked, too.
pub(super) async fn entry(
    channel: &Channel,
    names: &Names,
    position: u64,
) -> Result<Option<Bytes>, Fault> {
    let Some(before) = position.checked_sub(1) else {
        return Ok(None);
    };
    let mut wanted = names
        .consume(channel, Offset::After(before), PREFETCH)
        .await?;
    let mut last = names.consume(channel, Offset::Last, 1).await?;
    let mut newest = pin!(first_of(channel, names, &mut last));
    let mut deadline = None;
    loop {
        tokio::select! {
            biased;
            found = wanted.entry() => match found? {
                (before, _) if before < position => {}
                (at, bytes) => return Ok((at == position).then_some(bytes)),
            },
            newest = &mut newest, if deadline.is_none() => match newest? {
                Some(_) => deadline = Some(Instant::now() + OVERTAKING_MAX),
                None => return Ok(None),
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Ok(None),
        }
    }
}

/// The stream's ends: the first entry of all, and the newest of those that follow the last chunk's beginning.
pub(super) async fn ends(channel: &Channel, names: &Names) -> Result<Ends, Fault> {
    let mut first = names.consume(channel, Offset::First, 1).await?;
    let mut last = names.consume(channel, Offset::Last, u16::MAX).await?;
    let newest = first_of(channel, names, &mut last).await?;
    let oldest = match newest {
        Some(_) => first_of(channel, names, &mut first).await?,
        None => None,
    };
    let (Some(oldest), Some(newest)) = (oldest, newest) else {
        return Ok(Ends {
            first: 1,
            last: 0,
            exact: false,
        });
    };
    // The broker sends all that it has at once, and then answers this.
    answered(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let mut newest = newest;
    while let Poll::Ready(entry) = begun(pin!(last.entry())) {
        (newest, _) = entry?;
    }
    Ok(Ends {
        first: oldest,
        last: newest,
        exact: false,
    })
}

/// The position of what a reader reads first, or `None` if the stream has nothing.
async fn first_of(
    channel: &Channel,
    names: &Names,
    reader: &mut Reader,
) -> Result<Option<u64>, Fault> {
    let began = Instant::now();
    if let Ok(entry) = timeout_at(began + SILENCE_MIN, reader.entry()).await {
        return Ok(Some(entry?.0));
    }
    if names.count(channel).await? == 0 {
        return Ok(None);
    }
    match timeout_at(began + SILENCE_MAX, reader.entry()).await {
        Ok(entry) => Ok(Some(entry?.0)),
        Err(_) => Err(silent()),
    }
}
