//! What is in an entry of the journal: a header that says who wrote it and for which epoch, a checksum, and records or
//! something that nodes tell each other.
//!
//! All numbers are big-endian. Header: `TDGJ`, format (1 byte), kind (1), CRC-32 of all that follows (4), epoch (8),
//! writer (8), number (8), time in ms (8).

use super::{
    journal::{Begins, Sealed},
    ledger::{Ledger, Writer},
};
use crate::{
    event::{Draft, EventName, IdempotencyKey, OwnId},
    log::{Batch, replica::Ancestor},
    topic::Topic,
};
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};

/// What this program writes and the newest that it reads.
pub const FORMAT: u8 = 1;

/// Records of an entry: their index has 16 bits of a position.
pub const RECORDS_MAX: usize = 1 << INDEX_BITS;

/// See [`position`].
const INDEX_BITS: u32 = 16;

const MAGIC: [u8; 4] = *b"TDGJ";
const HEADER_BYTES: usize = 42;

/// Where the checksum stands, and what it covers begins.
const CRC_AT: usize = 6;
const CRC_FROM: usize = 10;

/// The position of a record in the log: its entry's in the journal, and its index there.
#[must_use]
pub fn position(entry: u64, index: usize) -> u64 {
    (entry << INDEX_BITS) | (index as u64 & (RECORDS_MAX as u64 - 1))
}

/// The last position that an entry could have: all of it lies at or before.
#[must_use]
pub fn position_after(entry: u64) -> u64 {
    position(entry, RECORDS_MAX - 1)
}

/// The entry of a position.
#[must_use]
pub fn entry_of(position: u64) -> u64 {
    position >> INDEX_BITS
}

/// An entry, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The epoch that it belongs to; 0 if its writer knew none.
    pub epoch: u64,
    /// Who wrote it: random, at least one for each run of a node.
    pub writer: u64,
    /// Its number among the writer's, from 1.
    pub number: u64,
    /// By the writer's clock, in ms since 1970 UTC.
    pub time_ms: u64,
    /// What it says.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Batches of events. The index of a record counts over all of them.
    Records(Vec<Records>),
    /// The entry's epoch ends, and another begins. Counts only if its epoch is the present one; or if it is 0 and no epoch
    /// began after the entry `looked`.
    Epoch {
        /// The new one.
        to: u64,
        /// All up to this entry belongs to both.
        fork: u64,
        /// How far its writer had seen.
        looked: u64,
    },
    /// What a node knew once it had applied an entry: where another one can begin.
    Checkpoint(Ledger, Vec<Ancestor>),
    /// Nothing: it comes back, and what its writer wanted to know is where and that it does.
    Probe,
}

/// A batch of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// The writer found none of the keys up to this position.
    pub looked: u64,
    /// The events.
    pub batch: Batch,
}

/// Why bytes are no entry that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Somebody else wrote it.
    #[error("not written by a hub")]
    Foreign,
    /// It was changed on its way or in the broker.
    #[error("damaged")]
    Damaged,
    /// A later version of the hub wrote it.
    #[error("format {0}, and this version of the hub reads up to {FORMAT}")]
    Newer(u8),
}

impl From<TryGetError> for Unreadable {
    fn from(_: TryGetError) -> Self {
        Self::Damaged
    }
}

/// Tells the entries of one place apart: of two histories, of damage.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let crc = u64::from(crc32fast::hash(bytes));
    // The writer is random: two histories hardly ever have one at the same place with the same checksum.
    let mut writer = bytes.get(18..26).unwrap_or_default();
    (crc << 32) ^ writer.try_get_u64().unwrap_or(bytes.len() as u64)
}

impl Entry {
    /// What is stored of it, to be handed over for the so manieth time.
    #[must_use]
    pub fn seal(&self, attempt: u32) -> Sealed {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.body.bytes());
        out.put_slice(&MAGIC);
        out.put_u8(FORMAT);
        out.put_u8(self.body.kind());
        out.put_u32(0);
        out.put_u64(self.epoch);
        out.put_u64(self.writer);
        out.put_u64(self.number);
        out.put_u64(self.time_ms);
        self.body.put(&mut out);
        let crc = crc32fast::hash(out.get(CRC_FROM..).unwrap_or_default());
        if let Some(mut place) = out.get_mut(CRC_AT..CRC_FROM) {
            place.put_u32(crc);
        }
        let begins = match self.body {
            Body::Epoch { to, looked, .. } => Some(Begins { epoch: to, looked }),
            _ => None,
        };
        Sealed {
            epoch: self.epoch,
            begins,
            writer: self.writer,
            number: self.number,
            attempt,
            time_ms: self.time_ms,
            bytes: out.freeze(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Unreadable`], the same on all nodes of this version.
    pub fn read(bytes: &Bytes) -> Result<Self, Unreadable> {
        let mut rest = &bytes[..];
        if rest.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(Unreadable::Foreign);
        }
        rest.advance(MAGIC.len());
        let format = rest.try_get_u8()?;
        let kind = rest.try_get_u8()?;
        let crc = rest.try_get_u32()?;
        if crc32fast::hash(rest) != crc {
            return Err(Unreadable::Damaged);
        }
        if format > FORMAT {
            return Err(Unreadable::Newer(format));
        }
        let (epoch, writer) = (rest.try_get_u64()?, rest.try_get_u64()?);
        let (number, time_ms) = (rest.try_get_u64()?, rest.try_get_u64()?);
        let body = Body::read(kind, &mut rest)?;
        if !rest.is_empty() {
            return Err(Unreadable::Damaged);
        }
        Ok(Self {
            epoch,
            writer,
            number,
            time_ms,
            body,
        })
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Records(_) => 1,
            Self::Epoch { .. } => 2,
            Self::Checkpoint(..) => 3,
            Self::Probe => 4,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Records(batches) => batches.iter().map(Records::bytes).sum(),
            _ => 64,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Records(batches) => {
                for records in batches {
                    records.put(out);
                }
            }
            Self::Epoch { to, fork, looked } => {
                out.put_u64(*to);
                out.put_u64(*fork);
                out.put_u64(*looked);
            }
            Self::Checkpoint(ledger, ancestors) => {
                ledger.put(out);
                out.put_u32(ancestors.len() as u32);
                for ancestor in ancestors {
                    out.put_u64(ancestor.epoch);
                    out.put_u64(ancestor.began_at);
                    out.put_u64(ancestor.shared_to);
                }
            }
            Self::Probe => {}
        }
    }

    fn read(kind: u8, rest: &mut &[u8]) -> Result<Self, Unreadable> {
        Ok(match kind {
            1 => {
                let mut batches = Vec::new();
                while !rest.is_empty() {
                    batches.push(Records::read(rest)?);
                }
                let records: usize = batches.iter().map(|one| one.batch.drafts.len()).sum();
                if records > RECORDS_MAX {
                    return Err(Unreadable::Damaged);
                }
                Self::Records(batches)
            }
            2 => Self::Epoch {
                to: rest.try_get_u64()?,
                fork: rest.try_get_u64()?,
                looked: rest.try_get_u64()?,
            },
            3 => {
                let ledger = Ledger::read(rest)?;
                let ancestors = (0..rest.try_get_u32()?).map(|_| {
                    Ok(Ancestor {
                        epoch: rest.try_get_u64()?,
                        began_at: rest.try_get_u64()?,
                        shared_to: rest.try_get_u64()?,
                    })
                });
                Self::Checkpoint(ledger, ancestors.collect::<Result<_, Unreadable>>()?)
            }
            4 => Self::Probe,
            _ => return Err(Unreadable::Damaged),
        })
    }
}

const ALL_OR_NOTHING: u8 = 1;

const HAS_EVENT: u8 = 1;
const HAS_OWN_ID: u8 = 2;
const HAS_RETRY: u8 = 4;
const HAS_KEY: u8 = 8;

/// What a draft takes in an entry, in bytes.
#[must_use]
pub fn draft_bytes(draft: &Draft) -> usize {
    let names = [
        draft.event.as_ref().map(EventName::as_str),
        draft.own_id.as_ref().map(OwnId::as_str),
        draft.key.as_ref().map(IdempotencyKey::as_str),
    ];
    let names = names.into_iter().flatten().map(|name| 2 + name.len());
    let retry = if draft.retry_ms.is_some() { 4 } else { 0 };
    1 + 2 + draft.topic.as_str().len() + names.sum::<usize>() + retry + 4 + draft.data.len()
}

/// What an entry of one batch takes beside its drafts, in bytes.
pub const BATCH_BYTES: usize = HEADER_BYTES + Records::HEADER_BYTES;

impl Records {
    const HEADER_BYTES: usize = 13;

    fn bytes(&self) -> usize {
        Self::HEADER_BYTES + self.batch.drafts.iter().map(draft_bytes).sum::<usize>()
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(if self.batch.all_or_nothing {
            ALL_OR_NOTHING
        } else {
            0
        });
        out.put_u64(self.looked);
        out.put_u32(self.batch.drafts.len() as u32);
        for draft in &self.batch.drafts {
            put_draft(draft, out);
        }
    }

    fn read(rest: &mut &[u8]) -> Result<Self, Unreadable> {
        let all_or_nothing = rest.try_get_u8()? & ALL_OR_NOTHING != 0;
        let looked = rest.try_get_u64()?;
        let count = rest.try_get_u32()? as usize;
        if count > RECORDS_MAX {
            return Err(Unreadable::Damaged);
        }
        let drafts = (0..count).map(|_| read_draft(rest));
        Ok(Self {
            looked,
            batch: Batch {
                drafts: drafts.collect::<Result<_, _>>()?,
                all_or_nothing,
            },
        })
    }
}

fn put_draft(draft: &Draft, out: &mut BytesMut) {
    let Draft {
        topic,
        event,
        own_id,
        retry_ms,
        data,
        key,
    } = draft;
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.put_u8(
        flag(event.is_some(), HAS_EVENT)
            | flag(own_id.is_some(), HAS_OWN_ID)
            | flag(retry_ms.is_some(), HAS_RETRY)
            | flag(key.is_some(), HAS_KEY),
    );
    let mut put = |name: &str| {
        out.put_u16(name.len() as u16);
        out.put_slice(name.as_bytes());
    };
    put(topic.as_str());
    if let Some(event) = event {
        put(event.as_str());
    }
    if let Some(own_id) = own_id {
        put(own_id.as_str());
    }
    if let Some(key) = key {
        put(key.as_str());
    }
    if let Some(retry_ms) = retry_ms {
        out.put_u32(*retry_ms);
    }
    out.put_u32(data.len() as u32);
    out.put_slice(data);
}

fn read_draft(rest: &mut &[u8]) -> Result<Draft, Unreadable> {
    let damaged = |_| Unreadable::Damaged;
    let flags = rest.try_get_u8()?;
    let topic = Topic::parse(read_name(rest)?).map_err(|_| Unreadable::Damaged)?;
    let mut name = |flag: u8| match flags & flag {
        0 => Ok(None),
        _ => read_name(rest).map(Some),
    };
    let event = name(HAS_EVENT)?.map(EventName::parse).transpose();
    let own_id = name(HAS_OWN_ID)?.map(OwnId::parse).transpose();
    let key = name(HAS_KEY)?.map(IdempotencyKey::parse).transpose();
    let retry_ms = match flags & HAS_RETRY {
        0 => None,
        _ => Some(rest.try_get_u32()?),
    };
    let len = rest.try_get_u32()? as usize;
    let data = rest.split_off(..len).ok_or(Unreadable::Damaged)?;
    if std::str::from_utf8(data).is_err() {
        return Err(Unreadable::Damaged);
    }
    Ok(Draft {
        topic,
        event: event.map_err(damaged)?,
        own_id: own_id.map_err(damaged)?,
        retry_ms,
        // An allocation of its own: an event must not keep the whole entry.
        data: Bytes::copy_from_slice(data),
        key: key.map_err(damaged)?,
    })
}

fn read_name<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Unreadable> {
    let len = rest.try_get_u16()? as usize;
    let name = rest.split_off(..len).ok_or(Unreadable::Damaged)?;
    std::str::from_utf8(name).map_err(|_| Unreadable::Damaged)
}

impl Ledger {
    /// Its bytes, in a checkpoint or beside a replica's events.
    pub(super) fn put(&self, out: &mut BytesMut) {
        for number in [self.applied, self.epoch, self.epoch_at, self.time_ms] {
            out.put_u64(number);
        }
        out.put_u32(self.writers.len() as u32);
        for (id, Writer { number, at }) in &self.writers {
            out.put_u64(*id);
            out.put_u64(*number);
            out.put_u64(*at);
        }
    }

    pub(super) fn read(rest: &mut &[u8]) -> Result<Self, Unreadable> {
        let (applied, epoch) = (rest.try_get_u64()?, rest.try_get_u64()?);
        let (epoch_at, time_ms) = (rest.try_get_u64()?, rest.try_get_u64()?);
        let writers = (0..rest.try_get_u32()?).map(|_| {
            let id = rest.try_get_u64()?;
            let (number, at) = (rest.try_get_u64()?, rest.try_get_u64()?);
            Ok((id, Writer { number, at }))
        });
        Ok(Self {
            applied,
            epoch,
            epoch_at,
            time_ms,
            writers: writers.collect::<Result<_, Unreadable>>()?,
        })
    }
}
