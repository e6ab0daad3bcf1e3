//! What is in an entry of the journal: a header that says who wrote it and for which epoch, a checksum, and records or
//! something that nodes tell each other.
//!
//! All numbers are big-endian. Header: `TDGJ`, format (1 byte), kind (1), CRC-32 of these two and of all that follows (4),
//! epoch (8), writer (8), number (8), time in ms (8).

use super::{
    journal::{Begins, Sealed},
    ledger::{Ledger, Writer},
    records::Records,
};
use crate::log::replica::Ancestor;
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};

/// What this program writes and the newest that it reads.
pub const FORMAT: u8 = 1;

/// Records of an entry: their index has 16 bits of a position.
pub const RECORDS_MAX: usize = 1 << INDEX_BITS;

/// See [`position`].
const INDEX_BITS: u32 = 16;

const MAGIC: [u8; 4] = *b"TDGJ";
const HEADER_BYTES: usize = 42;

/// Where the checksum stands, between what it covers.
const CRC_AT: usize = 6;
const CRC_FROM: usize = 10;
const COVERED_FROM: usize = 4;

/// The checksum of an entry: no other byte of it may change, since a version that is damaged would stop all nodes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(COVERED_FROM..CRC_AT).unwrap_or_default());
    crc.update(bytes.get(CRC_FROM..).unwrap_or_default());
    crc.finalize()
}

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
        let crc = checksum(&out);
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
        if checksum(bytes) != crc {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Draft, EventName, IdempotencyKey, OwnId},
        log::Batch,
        topic::Topic,
    };
    use proptest::{collection::vec, option, prelude::*};

    fn name(bytes: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
        vec(0x21_u8..0x7f, bytes).prop_map(|bytes| String::from_utf8(bytes).unwrap())
    }

    prop_compose! {
        fn draft()(
            topic in "[a-z0-9é]{1,40}(/[a-z]{1,9}){0,3}",
            event in option::of("[a-z]{1,30}"),
            own_id in option::of(name(1..=40)),
            retry_ms in option::of(0_u32..60_000),
            data in ".{0,80}",
            key in option::of(name(1..=255)),
        ) -> Draft {
            Draft {
                topic: Topic::parse(&topic).unwrap(),
                event: event.map(|name| EventName::parse(&name).unwrap()),
                own_id: own_id.and_then(|id| OwnId::parse(&id).ok()),
                retry_ms,
                data: data.into(),
                key: key.and_then(|key| IdempotencyKey::parse(&key).ok()),
            }
        }
    }

    fn records() -> impl Strategy<Value = Body> {
        let batch = (any::<u64>(), any::<bool>(), vec(draft(), 0..6));
        let records = batch.prop_map(|(looked, all_or_nothing, drafts)| Records {
            looked,
            batch: Batch {
                drafts,
                all_or_nothing,
            },
        });
        vec(records, 0..4).prop_map(Body::Records)
    }

    fn checkpoint() -> impl Strategy<Value = Body> {
        let writer = (any::<u64>(), any::<u64>()).prop_map(|(number, at)| Writer { number, at });
        let writers = proptest::collection::btree_map(any::<u64>(), writer, 0..5);
        let ancestor = any::<(u64, u64, u64)>().prop_map(|(epoch, began_at, shared_to)| Ancestor {
            epoch,
            began_at,
            shared_to,
        });
        (any::<(u64, u64, u64, u64)>(), writers, vec(ancestor, 0..4)).prop_map(
            |((applied, epoch, epoch_at, time_ms), writers, ancestors)| {
                let ledger = Ledger {
                    applied,
                    epoch,
                    epoch_at,
                    time_ms,
                    writers,
                };
                Body::Checkpoint(ledger, ancestors)
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let epoch = any::<(u64, u64, u64)>();
        let epoch = epoch.prop_map(|(to, fork, looked)| Body::Epoch { to, fork, looked });
        let body = prop_oneof![records(), checkpoint(), epoch, Just(Body::Probe)];
        (any::<(u64, u64, u64, u64)>(), body).prop_map(
            |((epoch, writer, number, time_ms), body)| Entry {
                epoch,
                writer,
                number,
                time_ms,
                body,
            },
        )
    }

    proptest! {
        #[test]
        fn survives_the_journal(entry in entry()) {
            let sealed = entry.seal(0);
            prop_assert_eq!(Entry::read(&sealed.bytes), Ok(entry));
        }

        /// Wherever a byte is another one, it is noticed; and nothing that comes from outside is more than an error.
        #[test]
        fn damage_is_noticed(entry in entry(), at: prop::sample::Index, flip in 1_u8..) {
            let mut bytes = entry.seal(0).bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let read = Entry::read(&Bytes::from(bytes.clone()));
            // Format and kind are not summed up: another format is a newer one, another kind does not fit its content.
            if at >= CRC_AT {
                prop_assert_eq!(read, Err(Unreadable::Damaged));
            } else {
                prop_assert!(read != Ok(entry));
            }
            bytes.truncate(at);
            prop_assert!(Entry::read(&Bytes::from(bytes)).is_err());
        }

        #[test]
        fn anything_may_come(bytes in vec(any::<u8>(), 0..200)) {
            let mut own = MAGIC.to_vec();
            own.extend_from_slice(&bytes);
            prop_assert!(Entry::read(&Bytes::from(own)).is_err());
            prop_assert!(Entry::read(&Bytes::from(bytes)).is_err());
        }
    }

    #[test]
    fn positions_hold_an_entry_and_an_index() {
        assert_eq!(position(1, 0), 65_536);
        assert_eq!(position(3, 65_535), position_after(3));
        assert_eq!(position_after(3) + 1, position(4, 0));
        assert_eq!(entry_of(position(9, 17)), 9);
    }
}
