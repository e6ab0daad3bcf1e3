//! One row of events: its two checksums, how it is written and how it is read.
//!
//! SQLite has no checksums of its own. The upper half of `crc` covers what decides whose row it is and
//! when (checked on every row that is looked at), the lower half the topic's name, the other fields and the
//! data (checked on every row that is delivered).

use crate::{
    cursor::Cursor,
    encoding::Encodings,
    event::{Event, EventName, OwnId},
    log::removal,
    topic::Topic,
};
use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, Row, params, types::ValueRef};

/// The columns that [`Header::read`] and [`decode`] expect, in their order.
macro_rules! columns {
    () => {
        "position, topic, time_ms, seq, bytes, event, own_id, retry_ms, crc, data"
    };
}
pub(super) use columns;

/// What a row says before its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) position: u64,
    /// The topic's row.
    pub(super) topic: i64,
    pub(super) time_ms: u64,
    /// Its number among the topic's events.
    pub(super) seq: u64,
    /// What the topic's events before it cost.
    pub(super) bytes: u64,
}

impl Header {
    /// `None` if it is damaged.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let mut fields = [0; 5];
        for (i, field) in fields.iter_mut().enumerate() {
            let ValueRef::Integer(value) = row.get_ref(i)? else {
                return Ok(None);
            };
            *field = value;
        }
        let header = Self {
            position: fields[0].cast_unsigned(),
            topic: fields[1],
            time_ms: fields[2].cast_unsigned(),
            seq: fields[3].cast_unsigned(),
            bytes: fields[4].cast_unsigned(),
        };
        let ValueRef::Integer(crc) = row.get_ref(8)? else {
            return Ok(None);
        };
        let intact = crc.cast_unsigned() >> 32 == u64::from(header.crc());
        Ok(intact.then_some(header))
    }

    fn crc(&self) -> u32 {
        // In one piece: a checksum of so little costs most where it begins.
        let mut bytes = [0; 40];
        let fields = [
            self.position,
            self.topic.cast_unsigned(),
            self.time_ms,
            self.seq,
            self.bytes,
        ];
        for (part, field) in bytes.chunks_exact_mut(8).zip(fields) {
            part.copy_from_slice(&field.to_le_bytes());
        }
        crc32fast::hash(&bytes)
    }
}

/// The checksum of the content.
fn crc(
    topic: &str,
    event: Option<&str>,
    own_id: Option<&str>,
    retry: Option<i64>,
    data: &[u8],
) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    // Most names fit in here, and are summed up in one piece.
    let (mut head, mut len) = ([0; 96], 0);
    let mut add = |part: &[u8]| {
        if len + part.len() > head.len() {
            hash.update(&head[..len]);
            len = 0;
        }
        match head.get_mut(len..len + part.len()) {
            Some(room) => room.copy_from_slice(part),
            None => return hash.update(part),
        }
        len += part.len();
    };
    for part in [Some(topic), event, own_id] {
        // Framed, so that no field runs into the next; u32::MAX is none.
        let len = part.map_or(u32::MAX, |part| part.len() as u32);
        add(&len.to_le_bytes());
        add(part.unwrap_or_default().as_bytes());
    }
    add(&retry.unwrap_or(-1).to_le_bytes());
    hash.update(&head[..len]);
    hash.update(data);
    hash.finalize()
}

/// Writes rows.
pub(super) struct Insert<'a>(CachedStatement<'a>);

impl<'a> Insert<'a> {
    pub(super) fn prepare(conn: &'a Connection) -> rusqlite::Result<Self> {
        let sql = concat!(
            "INSERT INTO events (",
            columns!(),
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        );
        conn.prepare_cached(sql).map(Self)
    }

    /// Writes an event as the topic's row `topic`, number `seq`, after `bytes` of others; gives what it costs.
    pub(super) fn execute(
        &mut self,
        event: &Event,
        topic: i64,
        seq: u64,
        bytes: u64,
    ) -> rusqlite::Result<u64> {
        let header = Header {
            position: event.cursor.position,
            topic,
            time_ms: event.time_ms,
            seq,
            bytes,
        };
        let name = event.event.as_ref().map(|name| name.as_str());
        let own_id = event.own_id.as_ref().map(|id| id.as_str());
        let retry = event.retry_ms.map(i64::from);
        let content = crc(event.topic.as_str(), name, own_id, retry, &event.data);
        let crc = u64::from(header.crc()) << 32 | u64::from(content);
        self.0.execute(params![
            header.position,
            topic,
            header.time_ms,
            seq,
            bytes,
            name,
            own_id,
            retry,
            crc.cast_signed(),
            &event.data[..],
        ])?;
        Ok(removal::cost(&event.data, name, own_id))
    }
}

/// The event of a row whose header is `header`; `None` if it is damaged.
pub(super) fn decode(
    row: &Row<'_>,
    header: &Header,
    topic: &Topic,
    epoch: u64,
) -> rusqlite::Result<Option<Event>> {
    let (Ok(name), Ok(own_id)) = (text(row, 5)?, text(row, 6)?) else {
        return Ok(None);
    };
    let retry = match row.get_ref(7)? {
        ValueRef::Null => None,
        ValueRef::Integer(ms) => Some(ms),
        _ => return Ok(None),
    };
    let (ValueRef::Integer(stored), ValueRef::Blob(data)) = (row.get_ref(8)?, row.get_ref(9)?)
    else {
        return Ok(None);
    };
    if stored as u32 != crc(topic.as_str(), name, own_id, retry, data) {
        return Ok(None);
    }
    // The checksum holds, so that these were checked when they came in.
    let event = name.map(EventName::parse).transpose();
    let own_id = own_id.map(OwnId::parse).transpose();
    let (Ok(event), Ok(own_id)) = (event, own_id) else {
        return Ok(None);
    };
    Ok(Some(Event {
        cursor: Cursor {
            epoch,
            position: header.position,
        },
        time_ms: header.time_ms,
        topic: topic.clone(),
        event,
        own_id,
        retry_ms: retry.and_then(|ms| u32::try_from(ms).ok()),
        data: Bytes::copy_from_slice(data),
        encodings: Encodings::default(),
    }))
}

/// A text, or none; an error if it is neither.
fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Result<Option<&'a str>, ()>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| ()),
        _ => Err(()),
    })
}
