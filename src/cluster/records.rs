//! Batches of events as an entry has them. Names and data are checked as if they came from a publisher, since what is in a
//! broker may be anybody's.

use super::entry::{RECORDS_MAX, Unreadable};
use crate::{
    event::{Draft, EventName, IdempotencyKey, OwnId},
    log::Batch,
    topic::Topic,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A batch of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// The writer found none of the keys up to this position.
    pub looked: u64,
    /// The events.
    pub batch: Batch,
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

impl Records {
    const HEADER_BYTES: usize = 13;

    pub(super) fn bytes(&self) -> usize {
        Self::HEADER_BYTES + self.batch.drafts.iter().map(draft_bytes).sum::<usize>()
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
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

    pub(super) fn read(rest: &mut &[u8]) -> Result<Self, Unreadable> {
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
