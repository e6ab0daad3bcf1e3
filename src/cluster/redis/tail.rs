//! Follows the journal and the announcements on a connection of its own. Where replicas are waited for, what is read is held
//! back until they have it: else a failover would take back what was shown, and acknowledged with it.

use super::{
    Keys,
    connect::Connection,
    reply::{self, Entry, Id},
    session::{REPLICAS, begun},
};
use crate::{
    cluster::journal::{EntryTail, Fault, Tailed},
    log::BoxFuture,
};
use bytes::Bytes;
use redis::{Cmd, Value, cmd, pipe};
use std::{collections::VecDeque, mem, time::Duration};

/// How long Redis holds a read that finds nothing.
const BLOCK: Duration = Duration::from_secs(1);

/// Entries of a read.
const ENTRIES: usize = 512;

/// Entries of the first read, when nothing is known of their size.
const ENTRIES_FIRST: usize = 16;

/// Bytes of a read, if its entries are as large as those before. Where they are not, it comes in parts.
const BYTES: usize = 1 << 22; // 4 MiB

/// An [`EntryTail`] that reads ahead: while a batch is looked at, the next one is on its way.
pub(super) struct RedisTail {
    connection: Connection,
    keys: Keys,
    /// That have to have what is read.
    replicas: u32,
    after: Id,
    announced: Id,
    entries: usize,
    read: VecDeque<Tailed>,
    reading: Option<BoxFuture<'static, Result<Value, Fault>>>,
}

impl RedisTail {
    /// How long a read may take: generous, since a batch may come over a slow line. That the server is there at all is
    /// seen by others.
    pub(super) const ANSWER: Duration = Duration::from_secs(60);

    /// Entries after that position, and announcements from now on.
    pub(super) async fn new(
        connection: Connection,
        keys: Keys,
        replicas: u32,
        after: u64,
    ) -> Result<Self, Fault> {
        let mut newest = cmd("XREVRANGE");
        newest.arg(&keys.nodes).arg(&["+", "-", "COUNT", "1"]);
        let newest = reply::entries(connection.ask(newest).await?)?;
        let none = Id {
            position: 0,
            part: 0,
        };
        Ok(Self {
            connection,
            keys,
            replicas,
            after: Id {
                position: after,
                part: u64::MAX,
            },
            announced: newest.first().map_or(none, |entry| entry.id),
            entries: ENTRIES_FIRST,
            read: VecDeque::new(),
            reading: None,
        })
    }

    fn command(&self) -> Cmd {
        let mut read = cmd("XREAD");
        read.arg("COUNT")
            .arg(self.entries)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.keys.journal)
            .arg(&self.keys.nodes)
            .arg(self.after.to_string())
            .arg(self.announced.to_string());
        read
    }

    fn start(&self) -> BoxFuture<'static, Result<Value, Fault>> {
        let connection = self.connection.clone();
        let command = self.command();
        let (meta, replicas) = (self.keys.meta.clone(), self.replicas);
        Box::pin(async move {
            let answer = connection.ask(command).await?;
            if replicas > 0 && answer != Value::Nil {
                replicated(&connection, &meta, replicas).await?;
            }
            Ok(answer)
        })
    }

    fn take(&mut self, answer: Value) -> Result<(), Fault> {
        let [entries, announcements] =
            reply::streams(answer, [&self.keys.journal, &self.keys.nodes])?;
        if let Some(entry) = announcements.last() {
            self.announced = entry.id;
        }
        let largest = entries.iter().map(|entry| entry.bytes.len()).max();
        if let Some(largest) = largest {
            self.entries = (BYTES / largest.max(1)).clamp(1, ENTRIES);
        }
        for entry in announcements {
            self.read.push_back(Tailed::Announcement(entry.bytes));
        }
        if let Some(entry) = entries.last() {
            self.after = entry.id;
        }
        self.read
            .extend(batches(entries).into_iter().map(Tailed::Entries));
        Ok(())
    }
}

/// Waits until so many replicas have all that was read. Redis waits for what the same connection wrote, so it writes something.
async fn replicated(connection: &Connection, meta: &str, replicas: u32) -> Result<(), Fault> {
    let mut commands = pipe();
    commands.cmd("HSET").arg(meta).arg(&["read", "1"]);
    commands
        .cmd("WAIT")
        .arg(replicas)
        .arg(REPLICAS.as_millis() as u64);
    let [written, have_it] = reply::array(Value::Array(connection.send(&commands).await?))?;
    reply::sound(written)?;
    match reply::number(have_it)?.unwrap_or(0) {
        have_it if have_it >= u64::from(replicas) => Ok(()),
        have_it => Err(Fault(format!(
            "{have_it} of {replicas} replicas have what was read"
        ))),
    }
}

/// The entries with their positions, in batches of which none is too large.
fn batches(entries: Vec<Entry>) -> Vec<Vec<(u64, Bytes)>> {
    let mut batches = Vec::new();
    let mut batch = Vec::with_capacity(entries.len());
    let mut bytes = 0;
    for entry in entries {
        if entry.id.part != 0 {
            tracing::error!(
                id = %entry.id,
                "somebody added to the journal what has no position in it: skipped"
            );
            continue;
        }
        if bytes + entry.bytes.len() > BYTES && !batch.is_empty() {
            batches.push(mem::take(&mut batch));
            bytes = 0;
        }
        bytes += entry.bytes.len();
        batch.push((entry.id.position, entry.bytes));
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

impl EntryTail for RedisTail {
    fn next(&mut self) -> BoxFuture<'_, Result<Tailed, Fault>> {
        Box::pin(async {
            loop {
                if let Some(next) = self.read.pop_front() {
                    return Ok(next);
                }
                let reading = match &mut self.reading {
                    Some(reading) => reading,
                    None => self.reading.insert(self.start()),
                };
                let answer = reading.await;
                self.reading = None;
                self.take(answer?)?;
                self.reading = Some(begun(self.start()).await);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u64, part: u64, bytes: usize) -> Entry {
        Entry {
            id: Id { position, part },
            bytes: vec![0; bytes].into(),
        }
    }

    fn positions(entries: Vec<Entry>) -> Vec<Vec<u64>> {
        let position = |(position, _)| position;
        batches(entries)
            .into_iter()
            .map(|batch| batch.into_iter().map(position).collect())
            .collect()
    }

    #[test]
    fn a_batch_ends_before_it_is_too_large() {
        let half = BYTES / 2;
        assert_eq!(
            positions(vec![
                entry(1, 0, half),
                entry(2, 0, half),
                entry(3, 0, 1),
                entry(4, 0, 2 * BYTES),
                entry(6, 0, 0),
            ]),
            [vec![1, 2], vec![3], vec![4], vec![6]]
        );
        assert!(positions(vec![]).is_empty());
    }

    #[test]
    fn what_has_no_position_is_skipped() {
        assert_eq!(
            positions(vec![entry(1, 0, 1), entry(1, 7, 1), entry(2, 0, 1)]),
            [[1, 2]]
        );
        assert!(positions(vec![entry(1, 7, 1)]).is_empty());
    }
}
