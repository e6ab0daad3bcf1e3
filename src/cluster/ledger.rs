//! What a node makes of the journal's entries, by rules alone: all nodes that have seen the same entries judge the next one
//! alike, whatever their clocks and their past.

use super::entry::{Body, Entry};
use std::collections::BTreeMap;

/// Writers that are remembered; past that the one that wrote longest ago goes, and what it writes next is void.
const WRITERS_MAX: usize = 256;

/// What has been made of the journal up to an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// That entry; 0 before the first.
    pub applied: u64,
    /// The present epoch; 0 before the first.
    pub epoch: u64,
    /// The entry that began it.
    pub epoch_at: u64,
    /// The newest time of any entry that counted, in ms since 1970 UTC.
    pub time_ms: u64,
    /// Who wrote, in this epoch.
    pub writers: BTreeMap<u64, Writer>,
}

/// How far a writer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The number of its newest entry that counted.
    pub number: u64,
    /// Where that stands.
    pub at: u64,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Counts,
    /// It begins an epoch.
    Begins {
        /// The new one.
        to: u64,
        /// All up to this entry belongs to both.
        fork: u64,
    },
    /// It says the same again, or its predecessor is missing.
    Void,
    /// It belongs to another epoch.
    OtherEpoch,
}

impl Ledger {
    /// Judges the entry at that place, which is the next one, and goes on to there.
    pub fn judge(&mut self, at: u64, entry: &Entry) -> Verdict {
        self.applied = at;
        if let Body::Epoch { to, fork, looked } = entry.body {
            let knew_none = entry.epoch == 0 && self.epoch_at <= looked;
            if entry.epoch != self.epoch && !knew_none {
                return Verdict::Void;
            }
            self.begin(to, at);
            return Verdict::Begins { to, fork };
        }
        if entry.epoch != self.epoch {
            return Verdict::OtherEpoch;
        }
        let next = self.writers.get(&entry.writer).map_or(0, |w| w.number) + 1;
        if entry.number != next {
            return Verdict::Void;
        }
        let number = entry.number;
        self.writers.insert(entry.writer, Writer { number, at });
        if self.writers.len() > WRITERS_MAX {
            let oldest = self.writers.iter().min_by_key(|(_, writer)| writer.at);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.writers.remove(&id);
            }
        }
        self.time_ms = self.time_ms.max(entry.time_ms);
        Verdict::Counts
    }

    /// Passes over what is at that place.
    pub fn pass(&mut self, at: u64) {
        self.applied = at;
    }

    /// An epoch begins there: writers begin anew, since none can know which of its entries the others dropped.
    pub(super) fn begin(&mut self, epoch: u64, at: u64) {
        self.epoch = epoch;
        self.epoch_at = at;
        self.applied = at;
        self.writers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: u64 = 7;

    fn entry(epoch: u64, writer: u64, number: u64) -> Entry {
        Entry {
            epoch,
            writer,
            number,
            time_ms: 1_000 + number,
            body: Body::Probe,
        }
    }

    fn epoch(from: u64, to: u64, fork: u64, looked: u64) -> Entry {
        Entry {
            body: Body::Epoch { to, fork, looked },
            ..entry(from, 99, 1)
        }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let begins = Verdict::Begins { to: E, fork: 0 };
        assert_eq!(ledger.judge(1, &epoch(0, E, 0, 0)), begins);
        ledger
    }

    #[test]
    fn a_writers_entries_count_in_sequence_and_once() {
        let mut ledger = ledger();
        for (at, writer, number, verdict) in [
            (2, 1, 1, Verdict::Counts),
            (3, 1, 1, Verdict::Void),
            (4, 1, 3, Verdict::Void),
            (5, 2, 2, Verdict::Void),
            (6, 1, 2, Verdict::Counts),
            (7, 2, 1, Verdict::Counts),
            (8, 1, 3, Verdict::Counts),
        ] {
            let judged = ledger.judge(at, &entry(E, writer, number));
            assert_eq!(judged, verdict, "at {at}");
            assert_eq!(ledger.applied, at);
        }
        assert_eq!(ledger.time_ms, 1_003);
    }

    #[test]
    fn the_first_epoch_from_the_present_one_wins() {
        let mut ledger = ledger();
        assert_eq!(ledger.judge(2, &epoch(0, 8, 0, 0)), Verdict::Void);
        assert_eq!(ledger.judge(3, &entry(E, 1, 1)), Verdict::Counts);
        let begins = Verdict::Begins { to: 9, fork: 2 };
        assert_eq!(ledger.judge(4, &epoch(E, 9, 2, 0)), begins);
        assert_eq!(ledger.judge(5, &epoch(E, 10, 3, 0)), Verdict::Void);
        assert_eq!(ledger.judge(6, &entry(E, 1, 2)), Verdict::OtherEpoch);
        assert_eq!(ledger.judge(7, &entry(9, 1, 2)), Verdict::Void);
        assert_eq!(ledger.judge(8, &entry(9, 2, 1)), Verdict::Counts);
    }

    #[test]
    fn one_who_knew_none_wins_if_it_has_seen_the_present_one_begin() {
        let mut ledger = ledger();
        ledger.judge(2, &entry(E, 1, 1));
        assert_eq!(ledger.judge(3, &epoch(0, 8, 0, 0)), Verdict::Void);
        let begins = Verdict::Begins { to: 8, fork: 0 };
        assert_eq!(ledger.judge(4, &epoch(0, 8, 0, 2)), begins);
        assert_eq!(ledger.judge(5, &epoch(0, 9, 0, 2)), Verdict::Void);
    }

    #[test]
    fn writers_are_bounded_and_the_one_silent_for_longest_goes() {
        let mut ledger = ledger();
        for writer in 0..=WRITERS_MAX as u64 {
            let at = 10 + writer;
            assert_eq!(ledger.judge(at, &entry(E, writer, 1)), Verdict::Counts);
        }
        assert_eq!(ledger.writers.len(), WRITERS_MAX);
        assert_eq!(ledger.judge(1_000, &entry(E, 0, 2)), Verdict::Void);
        assert_eq!(ledger.judge(1_001, &entry(E, 1, 2)), Verdict::Counts);
    }
}
