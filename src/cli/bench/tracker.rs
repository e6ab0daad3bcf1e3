//! Whether each reader got each event once and in order: per lane, since a hub promises no order between publishers
//! that do not wait for each other.

use std::collections::HashMap;

/// What was wrong, over all readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Events that never came.
    pub(super) gaps: u64,
    /// Events that came once more.
    pub(super) duplicates: u64,
    /// Events that came after a later one of their lane.
    pub(super) disorder: u64,
    /// Events of a topic that the reader did not ask for.
    pub(super) strays: u64,
}

impl Faults {
    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Which lanes there are, and which of them a reader of a topic gets.
///
/// With at most as many connections as topics, each topic has one connection and is one lane; else each connection
/// has one topic and is one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub(super) topics: u32,
    pub(super) connections: u32,
}

impl Lanes {
    pub(super) fn count(self) -> u32 {
        self.topics.max(self.connections)
    }

    /// The lane's place among those that a reader of the topic gets, if it is one.
    fn place(self, topic: u32, lane: u32) -> Option<u32> {
        (lane < self.count() && lane % self.topics == topic).then(|| lane / self.topics)
    }

    /// The lanes of a topic.
    pub(super) fn of_topic(self, topic: u32) -> impl Iterator<Item = u32> {
        (topic..self.count()).step_by(self.topics as usize)
    }

    fn per_topic(self) -> u32 {
        self.count().div_ceil(self.topics)
    }
}

/// What every reader has got so far.
#[derive(Debug)]
pub(super) struct Tracker {
    lanes: Lanes,
    /// The sequence number that comes next, per reader and lane of its topic.
    next: Vec<u32>,
    /// What was passed over and may still come late, as ranges; by the place in `next`.
    missing: HashMap<usize, Vec<(u32, u32)>>,
    faults: Faults,
    /// Events that came for the first time: per reader, and over all of them.
    received: Vec<u32>,
    delivered: u64,
}

impl Tracker {
    pub(super) fn new(lanes: Lanes, readers: usize) -> Self {
        Self {
            lanes,
            next: vec![0; readers * lanes.per_topic() as usize],
            missing: HashMap::new(),
            faults: Faults::default(),
            received: vec![0; readers],
            delivered: 0,
        }
    }

    /// Notes that a reader of the topic got an event; whether it was a new one.
    pub(super) fn note(&mut self, reader: usize, topic: u32, lane: u32, seq: u32) -> bool {
        let Some(place) = self.lanes.place(topic, lane) else {
            self.faults.strays += 1;
            return false;
        };
        let at = reader * self.lanes.per_topic() as usize + place as usize;
        let next = &mut self.next[at];
        if seq == *next {
            *next += 1;
        } else if seq > *next {
            self.missing.entry(at).or_default().push((*next, seq));
            self.faults.gaps += u64::from(seq - *next);
            *next = seq + 1;
        } else if self.take_missing(at, seq) {
            self.faults.gaps -= 1;
            self.faults.disorder += 1;
        } else {
            self.faults.duplicates += 1;
            return false;
        }
        self.received[reader] += 1;
        self.delivered += 1;
        true
    }

    /// Whether it was passed over, and is not any more.
    fn take_missing(&mut self, at: usize, seq: u32) -> bool {
        let Some(ranges) = self.missing.get_mut(&at) else {
            return false;
        };
        let Some(range) = ranges
            .iter()
            .position(|(from, to)| (*from..*to).contains(&seq))
        else {
            return false;
        };
        let (from, to) = ranges.swap_remove(range);
        let parts = [(from, seq), (seq + 1, to)];
        ranges.extend(parts.iter().filter(|(from, to)| from < to));
        true
    }

    /// Events that came for the first time, over all readers.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Has a reader of the topic expect the lane's events from that one on.
    pub(super) fn skip(&mut self, reader: usize, topic: u32, lane: u32, seq: u32) {
        if let Some(place) = self.lanes.place(topic, lane) {
            self.next[reader * self.lanes.per_topic() as usize + place as usize] = seq;
        }
    }

    /// The same for one reader.
    pub(super) fn received(&self, reader: usize) -> u64 {
        u64::from(self.received[reader])
    }

    /// What was wrong in the end. `sent` is the number of events per lane, `readers` those that count, with
    /// their topics.
    pub(super) fn finish(
        &self,
        sent: &[u32],
        readers: impl Iterator<Item = (usize, u32)>,
    ) -> Faults {
        let mut faults = self.faults;
        for (reader, topic) in readers {
            let base = reader * self.lanes.per_topic() as usize;
            for (place, lane) in self.lanes.of_topic(topic).enumerate() {
                let next = self.next[base + place];
                faults.gaps += u64::from(sent[lane as usize].saturating_sub(next));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(topics: u32, connections: u32, events: &[(u32, u32)], sent: &[u32]) -> Faults {
        let lanes = Lanes {
            topics,
            connections,
        };
        let mut tracker = Tracker::new(lanes, 2);
        for (lane, seq) in events {
            tracker.note(1, 0, *lane, *seq);
        }
        tracker.finish(sent, [(1, 0)].into_iter())
    }

    #[test]
    fn counts_each_kind_of_fault() {
        let none = Faults::default();
        let table = [
            (vec![0, 1, 2], none),
            (vec![0, 2], Faults { gaps: 1, ..none }),
            (vec![], Faults { gaps: 3, ..none }),
            (vec![0, 1], Faults { gaps: 1, ..none }),
            (
                vec![0, 1, 1, 2],
                Faults {
                    duplicates: 1,
                    ..none
                },
            ),
            (
                vec![0, 2, 1],
                Faults {
                    disorder: 1,
                    ..none
                },
            ),
            (
                vec![2, 0, 1, 0],
                Faults {
                    disorder: 2,
                    duplicates: 1,
                    ..none
                },
            ),
        ];
        for (seqs, expected) in table {
            let events: Vec<_> = seqs.iter().map(|seq| (0, *seq)).collect();
            assert_eq!(faults(1, 1, &events, &[3]), expected, "{seqs:?}");
        }
    }

    #[test]
    fn lanes_are_apart() {
        // Two connections publish to one topic: any order between them is fine.
        let events = [(1, 0), (1, 1), (0, 0), (1, 2), (0, 1)];
        assert!(!faults(1, 2, &events, &[2, 3]).any());
        // Two topics: the second one's lane is a stray to a reader of the first.
        let stray = faults(2, 1, &[(0, 0), (1, 0)], &[1, 1]);
        assert_eq!(stray.strays, 1);
        assert_eq!(stray.gaps, 0);
    }

    #[test]
    fn lanes_of_topics() {
        let lanes = Lanes {
            topics: 3,
            connections: 8,
        };
        assert_eq!(lanes.of_topic(1).collect::<Vec<_>>(), [1, 4, 7]);
        assert_eq!(lanes.of_topic(2).collect::<Vec<_>>(), [2, 5]);
        let lanes = Lanes {
            topics: 5,
            connections: 2,
        };
        assert_eq!(lanes.of_topic(4).collect::<Vec<_>>(), [4]);
        assert_eq!((lanes.count(), lanes.place(4, 4)), (5, Some(0)));
    }
}
