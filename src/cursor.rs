//! A place in the log, and its form on the wire. Knows nothing of topics or engines.

use std::{fmt, str::FromStr};

/// A reader's place in the log: every event up to and including it has been delivered.
///
/// Wire form `{epoch}-{position}`, such as `6f2a91c04be7d812-1042` (the epoch in lower-case hex, the
/// position in decimal): sent as the SSE `id:`, given back in `Last-Event-ID`, opaque to clients.
/// Positions rise within an epoch; holes are allowed. 64 bits, of which an engine uses at most
/// 63: SQLite's rowid, a JetStream sequence and a RabbitMQ stream offset all fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor {
    /// The life of one log: a wiped log has another.
    pub epoch: u64,
    /// The place within that life. 0 is before the first event.
    pub position: u64,
}

/// The text is not a cursor (it may be a publisher's own id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.position)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (epoch, position) = text.split_once('-').ok_or(NotACursor)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if epoch.is_empty() || !epoch.bytes().all(hex) {
            return Err(NotACursor);
        }
        if position.is_empty() || !position.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotACursor);
        }
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| NotACursor)?,
            position: position.parse().map_err(|_| NotACursor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn survives_the_wire(epoch: u64, position: u64) {
            let cursor = Cursor { epoch, position };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        for text in [
            "",
            "-",
            "1-",
            "-1",
            "1",
            "g-1",
            "A-1",
            "1-+1",
            "1- 1",
            "1-1-1",
            "11112222333344445-1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text:?}");
        }
    }
}
