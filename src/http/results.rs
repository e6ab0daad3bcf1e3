//! Results of an NDJSON request that its client has not read yet. Most clients send everything before they read, so
//! these are held compactly: a run of events stored one after the other on one topic takes one entry.

use super::outcome::{json_name, put_line};
use crate::{cursor::Cursor, encoding::on_one_line, topic::Topic};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Result lines are handed out in pieces of about this many bytes.
const PIECE_BYTES: usize = 16 << 10; // 16 KiB

/// A queue of results between the one task that publishes and the one body that answers.
#[derive(Default)]
pub(super) struct Results {
    state: Mutex<State>,
    /// Something to read, or the end.
    readable: Notify,
    /// Something was read, or the reader is gone.
    taken: Notify,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// About what `entries` and `topics` take.
    bytes: usize,
    topics: Vec<Topic>,
    numbers: HashMap<Topic, u32>,
    end: Option<End>,
    reader_gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Aborted,
}

/// Results are missing at the end: they were not taken in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the results were not read in time")]
pub(super) struct Aborted;

enum Entry {
    /// `count` events of one topic at rising positions without a hole.
    Run {
        topic: u32,
        first: Cursor,
        count: u32,
        duplicate: bool,
    },
    /// A line of its own, with its newline.
    Line(Box<str>),
}

impl Results {
    /// Adds what became of one event.
    pub(super) fn push(&self, topic: &Topic, cursor: Cursor, duplicate: bool) {
        let mut state = self.state();
        let number = state.number(topic);
        let next = |first: &Cursor, count: u32| first.position.checked_add(count.into());
        if let Some(Entry::Run {
            topic,
            first,
            count,
            duplicate: known,
        }) = state.entries.back_mut()
            && (*topic, *known, first.epoch) == (number, duplicate, cursor.epoch)
            && next(first, *count) == Some(cursor.position)
            && *count < u32::MAX
        {
            *count += 1;
        } else {
            state.bytes += size_of::<Entry>();
            state.entries.push_back(Entry::Run {
                topic: number,
                first: cursor,
                count: 1,
                duplicate,
            });
        }
        drop(state);
        self.readable.notify_one();
    }

    /// Adds a line of JSON.
    pub(super) fn push_line(&self, line: String) {
        let mut line = on_one_line(line);
        line.push('\n');
        let mut state = self.state();
        state.bytes += size_of::<Entry>() + line.len();
        state.entries.push_back(Entry::Line(line.into()));
        drop(state);
        self.readable.notify_one();
    }

    /// Nothing follows.
    pub(super) fn finish(&self) {
        self.state().end = Some(End::Finished);
        self.readable.notify_one();
    }

    /// Drops what is unread: the reader sees an end that is none, not one that looks whole.
    pub(super) fn abort(&self) {
        let mut state = self.state();
        *state = State {
            end: Some(End::Aborted),
            reader_gone: state.reader_gone,
            ..State::default()
        };
        drop(state);
        self.readable.notify_one();
    }

    /// Whether the reader is gone: nobody will ever take the results.
    pub(super) fn reader_gone(&self) -> bool {
        self.state().reader_gone
    }

    /// The bytes that unread results take, about.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Waits until the reader took something, or went away. At most one task waits.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self, topic: &Topic) -> u32 {
        if let Some(number) = self.numbers.get(topic) {
            return *number;
        }
        let number = u32::try_from(self.topics.len()).unwrap_or(u32::MAX);
        self.bytes += 3 * size_of::<Topic>() + topic.as_str().len();
        self.topics.push(topic.clone());
        self.numbers.insert(topic.clone(), number);
        number
    }

    /// Moves result lines out, up to a piece.
    fn take_piece(&mut self) -> String {
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            match self.entries.front_mut() {
                None => break,
                Some(Entry::Line(line)) => {
                    piece.push_str(line);
                    self.bytes -= size_of::<Entry>() + line.len();
                    self.entries.pop_front();
                }
                Some(Entry::Run {
                    topic,
                    first,
                    count,
                    duplicate,
                }) => {
                    let name = self.topics.get(*topic as usize).map(json_name);
                    let name = name.unwrap_or_default();
                    while *count > 0 && piece.len() < PIECE_BYTES {
                        put_line(&name, *first, *duplicate, &mut piece);
                        piece.push('\n');
                        first.position += 1;
                        *count -= 1;
                    }
                    if *count == 0 {
                        self.bytes -= size_of::<Entry>();
                        self.entries.pop_front();
                    }
                }
            }
        }
        if self.entries.is_empty() {
            // Nothing names a topic any more: forget them, so that many topics stay bounded, too.
            *self = Self {
                end: self.end,
                reader_gone: self.reader_gone,
                ..Self::default()
            };
        }
        piece
    }
}

/// The reading end. Dropping it tells the publishing one.
pub(super) struct ResultsReader(pub(super) Arc<Results>);

impl ResultsReader {
    /// The next piece of lines, or `None` after the last. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<String, Aborted>> {
        loop {
            {
                let mut state = self.0.state();
                let piece = state.take_piece();
                if !piece.is_empty() {
                    drop(state);
                    self.0.taken.notify_one();
                    return Some(Ok(piece));
                }
                match state.end {
                    Some(End::Finished) => return None,
                    Some(End::Aborted) => return Some(Err(Aborted)),
                    None => {}
                }
            }
            self.0.readable.notified().await;
        }
    }
}

impl Drop for ResultsReader {
    fn drop(&mut self) {
        self.0.state().reader_gone = true;
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_is_held_as_one_entry_and_read_as_lines() {
        let results = Arc::new(Results::default());
        let (a, b) = (Topic::parse("a").unwrap(), Topic::parse("b\"").unwrap());
        let at = |position| Cursor {
            epoch: 15,
            position,
        };
        for position in 1..=10_000 {
            results.push(&a, at(position), false);
        }
        results.push(&a, at(3), true);
        results.push(&b, at(10_001), false);
        results.push_line("{\"error\":{}}".to_owned());
        assert_eq!(results.state().entries.len(), 4);
        assert!(results.bytes() < 600, "{} bytes", results.bytes());
        results.finish();
        let mut reader = ResultsReader(Arc::clone(&results));
        let mut all = String::new();
        while let Some(Ok(piece)) = reader.next().await {
            assert!(piece.len() < PIECE_BYTES + 200);
            all.push_str(&piece);
        }
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 10_003);
        assert_eq!(
            lines[9_999],
            r#"{"id":"f-10000","topic":"a","duplicate":false}"#
        );
        assert_eq!(
            lines[10_000],
            r#"{"id":"f-3","topic":"a","duplicate":true}"#
        );
        assert_eq!(
            lines[10_001],
            r#"{"id":"f-10001","topic":"b\"","duplicate":false}"#
        );
        assert_eq!(lines[10_002], r#"{"error":{}}"#);
        assert_eq!(results.bytes(), 0);
    }

    #[tokio::test]
    async fn what_was_not_read_in_time_is_dropped_and_the_end_says_so() {
        let results = Arc::new(Results::default());
        results.push_line("{}".to_owned());
        results.abort();
        assert_eq!(results.bytes(), 0);
        let mut reader = ResultsReader(results);
        assert!(matches!(reader.next().await, Some(Err(Aborted))));
    }
}
