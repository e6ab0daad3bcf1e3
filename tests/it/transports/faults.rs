//! Each kind of fault of a reader's list is found out.

use super::{
    book::{Event, Truth},
    reader::{Diary, Gap},
    session::{Seen, Start},
    verdict::Verdict,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};
use tidings::topic::{Filter, Topic};

/// Of each of two topics six, one by one in turn.
const EVENTS: u64 = 12;

fn truth(begun: Instant) -> Truth {
    let event = |position: u64| {
        let at = begun + Duration::from_millis(position);
        Event {
            position,
            topic: Topic::parse(["a", "b"][usize::from(position.is_multiple_of(2))]).unwrap(),
            event: None,
            data: position.to_string(),
            sent: at,
            answered: at,
        }
    };
    Truth {
        epoch: 0xfeed,
        events: (1..=EVENTS).map(event).collect(),
    }
}

/// That of a reader of both topics that saw all.
fn diary(begun: Instant) -> Diary {
    let seen = |position: u64| Seen {
        id: format!("feed-{position}"),
        topic: None,
        event: None,
        data: position.to_string(),
    };
    Diary {
        name: "a reader".to_owned(),
        filter: Filter::parse(["a", "b"]).unwrap().unwrap(),
        start: Start::Cursor("feed-0".to_owned()),
        events: (1..=EVENTS).map(seen).collect(),
        gaps: Vec::new(),
        begun: (begun, begun),
        told: None,
        settled: Some(begun),
        sessions: BTreeMap::new(),
    }
}

/// A gap at a place, told when so many events were published.
fn gap(begun: Instant, from: u64, published: u64, missed: impl Into<Value>) -> Gap {
    Gap {
        told: json!({ "reason": "expired", "oldest": null, "missed": missed.into() }),
        from: Some(from),
        at: begun + Duration::from_millis(published),
    }
}

#[test]
fn each_fault_of_a_list_is_found_out() {
    type Break = fn(&mut Diary, Instant);
    let table: [(&str, Option<usize>, Break, &str); 17] = [
        ("all", None, |_, _| (), ""),
        (
            "the last missing",
            None,
            |d, _| drop(d.events.pop()),
            "12 of b",
        ),
        ("a hole", None, |d, _| drop(d.events.remove(4)), "5 of a"),
        (
            "two in the wrong order",
            None,
            |d, _| d.events.swap(3, 4),
            "4 comes after 5",
        ),
        (
            "one twice",
            None,
            |d, _| d.events.insert(4, d.events[3].clone()),
            "4 comes after 4",
        ),
        (
            "another's data",
            None,
            |d, _| d.events[3].data = "5".into(),
            "was published as",
        ),
        (
            "another topic",
            None,
            |d, _| d.events[3].topic = Some("a".into()),
            "was published as",
        ),
        (
            "another epoch",
            None,
            |d, _| d.events[3].id = "beef-4".into(),
            "was published as",
        ),
        (
            "a stray",
            None,
            |d, _| d.filter = Filter::parse(["a"]).unwrap().unwrap(),
            "nobody published",
        ),
        (
            "what is before the start",
            None,
            |d, _| d.start = Start::Cursor("feed-3".into()),
            "before its start",
        ),
        (
            "a hole where retention was",
            Some(3),
            |d, _| drop(d.events.remove(4)),
            "no gap was told",
        ),
        (
            "a hole that is told",
            Some(3),
            |d, begun| {
                d.events.remove(4);
                d.gaps.push(gap(begun, 4, 11, 1));
            },
            "",
        ),
        (
            "a hole that is told before retention was there",
            Some(3),
            |d, begun| {
                d.events.remove(4);
                d.gaps.push(gap(begun, 4, 10, 1));
            },
            "5 of a",
        ),
        (
            "a hole that is told behind it",
            Some(3),
            |d, begun| {
                d.events.remove(4);
                d.gaps.push(gap(begun, 6, 12, 1));
            },
            "5 of a",
        ),
        (
            "a gap that is none",
            Some(3),
            |d, begun| d.gaps.push(gap(begun, 4, 12, Value::Null)),
            "nothing was missing",
        ),
        (
            "more missed than there were",
            Some(3),
            |d, begun| {
                d.events.drain(3..5);
                d.gaps.push(gap(begun, 3, 12, 3));
            },
            "at most 2 were missing",
        ),
        (
            "an earliest start after retention",
            Some(3),
            |d, begun| {
                d.start = Start::Earliest;
                d.settled = Some(begun + Duration::from_millis(9));
                d.events.drain(..2);
            },
            "",
        ),
    ];
    for (what, events_max, break_it, expected) in table {
        let begun = Instant::now();
        let (truth, mut diary) = (truth(begun), diary(begun));
        break_it(&mut diary, begun);
        let judged = || Verdict::check(&diary, &truth, events_max);
        let judged = catch_unwind(AssertUnwindSafe(judged));
        let told = match &judged {
            Ok(()) => "",
            Err(panic) => panic.downcast_ref::<String>().expect("a text"),
        };
        assert_eq!(told.is_empty(), expected.is_empty(), "{what}: {told}");
        assert!(told.contains(expected), "{what}: {told}");
    }
}
