//! What must hold at the end of a load.

use super::{
    Event,
    load::{PUBLISHERS, Tally},
    reader::Received,
};
use std::collections::{HashMap, HashSet};

/// What a load was, once it has held.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "all of it is shown, and some of it asserted")]
pub(crate) struct Report {
    /// Stored events.
    pub(crate) events: usize,
    /// Events that readers got, over all of them.
    pub(crate) delivered: usize,
    /// Streams that readers opened, over all of them.
    pub(crate) streams: usize,
    /// Readers that never leave a stream, and whose stream ended all the same.
    pub(crate) cut: usize,
    /// Readers that were told of a gap.
    pub(crate) gapped: usize,
    pub(crate) tally: Tally,
}

/// Compares what was acknowledged, what nodes have, and what readers got.
pub(super) fn check(
    acknowledged: &[Event],
    stored: &[(usize, Vec<Event>)],
    received: &[Received],
    tally: Tally,
) -> Report {
    let (first, truth) = stored.first().expect("a node that has all");
    assert!(truth.len() > 50, "{} events are no load", truth.len());
    for (node, other) in stored {
        if let Some(how) = difference(truth, other) {
            panic!("nodes {first} and {node} have different logs: {how}");
        }
    }
    for publisher in 0..PUBLISHERS {
        let own = truth.iter().filter(|event| event.publisher == publisher);
        for (expected, event) in (0..).zip(own) {
            assert_eq!(
                event.number, expected,
                "{event:?}: not the next of its publisher"
            );
        }
    }
    let ids: HashMap<_, _> = truth
        .iter()
        .map(|event| ((event.publisher, event.number), event.at))
        .collect();
    for event in acknowledged {
        let kept = ids.get(&(event.publisher, event.number));
        assert_eq!(kept, Some(&event.at), "acknowledged and lost: {event:?}");
    }
    assert_eq!(acknowledged.len(), truth.len(), "all was acknowledged");
    assert!(!received.is_empty());
    for reader in received {
        check_reader(reader, truth);
    }
    Report {
        events: truth.len(),
        delivered: received.iter().map(|reader| reader.events.len()).sum(),
        streams: received.iter().map(|reader| reader.streams).sum(),
        cut: received.iter().filter(|r| !r.wanders && r.lost > 0).count(),
        gapped: received.iter().filter(|r| !r.gaps.is_empty()).count(),
        tally,
    }
}

fn check_reader(reader: &Received, truth: &[Event]) {
    let want = reader.want;
    let mut expected: Vec<Event> = truth.iter().copied().filter(|e| want.matches(e)).collect();
    assert!(!expected.is_empty(), "{want:?}");
    // What a gap stands for is not expected.
    for gap in &reader.gaps {
        let before = gap
            .checked_sub(1)
            .map_or(0, |n| reader.events[n].at.position);
        let after = reader.events.get(*gap);
        let after = after.map_or(u64::MAX, |event| event.at.position);
        expected.retain(|event| event.at.position <= before || event.at.position >= after);
    }
    if let Some(how) = difference(&expected, &reader.events) {
        panic!(
            "reader {} of {want:?}, after {} streams and {} gaps: {how}",
            reader.index,
            reader.streams,
            reader.gaps.len()
        );
    }
}

/// In words, if there is one.
fn difference(expected: &[Event], got: &[Event]) -> Option<String> {
    if expected == got {
        return None;
    }
    let unique: HashSet<_> = got.iter().collect();
    let all: HashSet<_> = expected.iter().collect();
    let missing: Vec<_> = expected.iter().filter(|e| !unique.contains(e)).collect();
    let foreign: Vec<_> = got.iter().filter(|event| !all.contains(event)).collect();
    let at = expected.iter().zip(got).position(|(a, b)| a != b);
    Some(format!(
        "{} events for {} expected, the first difference at {at:?}; {} are twice; {} missing, such as {:?}; \
         {} not expected, such as {:?}",
        got.len(),
        expected.len(),
        got.len() - unique.len(),
        missing.len(),
        &missing[..missing.len().min(3)],
        foreign.len(),
        &foreign[..foreign.len().min(3)],
    ))
}
