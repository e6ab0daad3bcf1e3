//! Whether what a reader saw is what it had to see.

use super::{
    book::{Event, Truth},
    reader::{Diary, Gap, position},
    session::{Seen, Start},
};
use std::{collections::BTreeSet, time::Duration};
use tidings::cursor::Cursor;

/// A publish may be answered before the fan-out has it: a live reader that comes in between gets it, too.
const MATCHED: Duration = Duration::from_secs(1);

/// What a reader had to see, and what it saw.
pub(super) struct Verdict<'a> {
    diary: &'a Diary,
    truth: &'a Truth,
    /// The filter's part of the log.
    wanted: Vec<&'a Event>,
    seen: BTreeSet<u64>,
    events_max: Option<usize>,
}

impl<'a> Verdict<'a> {
    /// Fails if anything is missing, comes twice, out of order or otherwise than it was published; if a gap was not told
    /// that was one, or one was told that was none.
    pub(super) fn check(diary: &'a Diary, truth: &'a Truth, events_max: Option<usize>) {
        let this = Self {
            diary,
            truth,
            wanted: truth.of(&diary.filter),
            seen: diary.events.iter().map(|seen| position(&seen.id)).collect(),
            events_max,
        };
        this.events_are_the_logs();
        let start = this.start();
        if let Some(early) = this.seen.first().filter(|first| **first <= start) {
            this.fail(format!("{early} is before its start, {start}"));
        }
        for missing in this.missing(start) {
            if !this.is_excused(missing) {
                this.fail(format!(
                    "{} of {} ({:?}) is missing, and no gap was told for it; its start is {start}",
                    missing.position,
                    missing.topic.as_str(),
                    missing.data.get(..20)
                ));
            }
        }
        for gap in &diary.gaps {
            this.gap_is_one(gap, start);
        }
    }

    fn fail(&self, what: impl std::fmt::Display) -> ! {
        let events: Vec<_> = self.seen.iter().collect();
        let gaps = self.diary.gaps.iter();
        let gaps: Vec<_> = gaps.map(|gap| (gap.from, gap.told.to_string())).collect();
        panic!(
            "{} from {:?} (told {:?}): {what}\nof each topic are kept: {:?}\nit saw {events:?}\nand was told {gaps:?}",
            self.diary.name, self.diary.start, self.diary.told, self.events_max
        );
    }

    fn events_are_the_logs(&self) {
        let mut last = 0;
        for seen in &self.diary.events {
            let at = position(&seen.id);
            if at <= last {
                self.fail(format!("{at} comes after {last}"));
            }
            last = at;
            let published = self.wanted.iter().find(|event| event.position == at);
            match published {
                Some(event) if *seen == self.told(event, seen) => {}
                Some(event) => self.fail(format!("{seen:?} was published as {event:?}")),
                None => self.fail(format!("nobody published {seen:?} to it")),
            }
        }
    }

    /// An event as it has to be told in the form in which it came.
    fn told(&self, event: &Event, seen: &Seen) -> Seen {
        let cursor = Cursor {
            epoch: self.truth.epoch,
            position: event.position,
        };
        let topic = event.topic.as_str().to_owned();
        Seen {
            id: cursor.to_string(),
            topic: seen.topic.as_ref().map(|_| topic),
            event: event.event.map(str::to_owned),
            data: event.data.clone(),
        }
    }

    /// The place after which it has to have all.
    fn start(&self) -> u64 {
        let (from, to) = self.diary.begun;
        let matched = from.checked_sub(MATCHED).unwrap_or(from);
        let live = self.truth.head_at_least(matched)..=self.truth.head_at_most(to);
        let first = self.seen.first().map_or(u64::MAX, |first| first - 1);
        let told = self.diary.told;
        match &self.diary.start {
            Start::Earliest => 0,
            Start::Cursor(id) => position(id),
            Start::Live => {
                let start = told.unwrap_or(first.clamp(*live.start(), *live.end()));
                if !live.contains(&start) {
                    self.fail(format!("live began at {start}, not in {live:?}"));
                }
                start
            }
            Start::Tail(count) => {
                let least = match self.events_max {
                    None => self.tail(*count, self.truth.head_at_least(from)),
                    // What is kept of them begins earlier.
                    Some(_) => 0,
                };
                let start = told.unwrap_or(first);
                // Places between two of its events are the same to it.
                let start = self.wanted.iter().find(|event| event.position > start);
                let start = start.map_or(u64::MAX, |next| next.position - 1);
                start.clamp(least, self.tail(*count, *live.end()).max(least))
            }
        }
    }

    /// The place before the newest so many events up to a head.
    fn tail(&self, count: usize, head: u64) -> u64 {
        let until = self.wanted.partition_point(|event| event.position <= head);
        let first = until.checked_sub(count).map(|at| self.wanted[at].position);
        first.map_or(0, |first| first - 1)
    }

    fn missing(&self, after: u64) -> impl Iterator<Item = &'a Event> {
        let events = self.wanted.iter().copied();
        events.filter(move |event| event.position > after && !self.seen.contains(&event.position))
    }

    fn is_removed(&self, event: &Event, by: std::time::Instant) -> bool {
        self.truth.may_lack(event, self.events_max, by)
    }

    /// Whether a gap was told for an event while its reader was before it, and the event was gone by then.
    fn is_excused(&self, event: &Event) -> bool {
        let gaps = &self.diary.gaps;
        let before_it = |gap: &&Gap| gap.from.is_none_or(|from| from < event.position);
        let names_no_place = matches!(self.diary.start, Start::Earliest | Start::Tail(_));
        let settled = self.diary.settled.filter(|_| names_no_place);
        let told = gaps.iter().filter(before_it).map(|gap| gap.at);
        told.chain(settled).any(|by| self.is_removed(event, by))
    }

    fn gap_is_one(&self, gap: &Gap, start: u64) {
        let told = &gap.told;
        let lacks = self.missing(gap.from.unwrap_or(start));
        let lacks = lacks.filter(|event| self.is_removed(event, gap.at)).count() as u64;
        if lacks == 0 {
            self.fail(format!("at {:?} nothing was missing: {told}", gap.from));
        }
        if told["missed"]
            .as_u64()
            .is_some_and(|missed| missed == 0 || missed > lacks)
        {
            self.fail(format!(
                "at {:?} at most {lacks} were missing: {told}",
                gap.from
            ));
        }
        if !["expired", "lagged"]
            .iter()
            .any(|reason| told["reason"] == *reason)
        {
            self.fail(format!("a gap of an odd kind: {told}"));
        }
        if let Some(oldest) = told["oldest"].as_str()
            && !self
                .wanted
                .iter()
                .any(|event| event.position == position(oldest))
        {
            self.fail(format!("the oldest is none of its events: {told}"));
        }
    }
}
