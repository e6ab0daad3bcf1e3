//! `POST /publish` with NDJSON: one event per line, a result per line, streamed both ways, for hours if need be.
//!
//! A task of its own reads lines and publishes them, since a client that does not read its results yet must not
//! keep its own lines from being published. While one group of lines is on its way to the disk the next one is read:
//! so one producer with one open request reaches the log's group commit.

use super::{
    App,
    outcome::{append_problem, conflict, json_problem},
    problem::{self, Problem},
    results::{Results, ResultsReader},
    stall,
};
use crate::{
    event::Draft,
    ingest::json::{self, JsonError, Place},
    log::{AppendError, Outcome},
    topic::Topic,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Lines gathered for one append, at the most.
const GROUP_LINES_MAX: usize = 4_096;

/// Bytes of data gathered for one append, about at the most.
const GROUP_BYTES_MAX: usize = 4 << 20; // 4 MiB

/// Which results a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answers {
    /// One per line.
    #[default]
    All,
    /// Refused lines, and a summary.
    Errors,
}

impl Answers {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            "errors" => Some(Self::Errors),
            _ => None,
        }
    }
}

/// Answers at once, and publishes as the lines come.
pub(super) fn respond(app: &Arc<App>, body: Body, answers: Answers) -> Response {
    let results = Arc::new(Results::default());
    let mut reader = ResultsReader(Arc::clone(&results));
    let session = Session {
        app: Arc::clone(app),
        results,
        answers,
        counts: Counts::default(),
        line: 0,
    };
    app.tasks.spawn(session.run(body));
    let stream = async_stream::stream! {
        while let Some(piece) = reader.next().await {
            let ended = piece.is_err();
            yield piece;
            if ended {
                return;
            }
        }
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        ),
    ];
    (headers, Body::from_stream(stall::noted(stream))).into_response()
}

struct Session {
    app: Arc<App>,
    results: Arc<Results>,
    answers: Answers,
    counts: Counts,
    /// Lines seen, to name one in its error.
    line: u64,
}

#[derive(Default)]
struct Counts {
    stored: u64,
    duplicates: u64,
    refused: u64,
}

/// Lines that wait to be published, in order.
#[derive(Default)]
struct Group {
    lines: Vec<(u64, Result<Topic, Box<Problem>>)>,
    drafts: Vec<Draft>,
    bytes: usize,
}

impl Group {
    fn is_full(&self) -> bool {
        self.lines.len() >= GROUP_LINES_MAX || self.bytes >= GROUP_BYTES_MAX
    }
}

/// Why no more lines are read.
#[derive(PartialEq, Eq)]
enum End {
    /// The body ended properly.
    Input,
    /// It did not: whatever line was begun is not one. Most often nobody is there any more to be told.
    CutOff,
    Draining,
}

impl Session {
    async fn run(mut self, mut body: Body) {
        let drain: CancellationToken = self.app.drain.clone();
        let mut splitter = Splitter::new(self.app.ingest.bounds.json_bytes_max());
        let mut gathered = Group::default();
        let mut under_way = std::pin::pin!(None);
        let mut lines_under_way = Vec::new();
        let mut end = None;
        loop {
            if under_way.is_none() && !gathered.lines.is_empty() {
                let group = std::mem::take(&mut gathered);
                lines_under_way = group.lines;
                let ingest = self.app.ingest.clone();
                under_way.set(Some(
                    async move { ingest.publish(group.drafts, false).await },
                ));
            }
            if under_way.is_none() && end.is_some() {
                break;
            }
            tokio::select! {
                biased;
                outcomes = async { under_way.as_mut().as_pin_mut()?.await.into() }, if under_way.is_some() => {
                    let outcomes: Option<Result<Vec<Outcome>, AppendError>> = outcomes;
                    under_way.set(None);
                    self.answer(std::mem::take(&mut lines_under_way), outcomes.unwrap_or(Err(AppendError::Unknown)));
                    if !self.room_for_results().await {
                        return self.results.abort();
                    }
                }
                () = drain.cancelled(), if end.is_none() => end = Some(End::Draining),
                frame = body.frame(), if end.is_none() && !gathered.is_full() => match frame {
                    Some(Ok(frame)) => if let Ok(part) = frame.into_data() {
                        splitter.feed(&part, |line| self.gather(line, &mut gathered));
                    },
                    Some(Err(_)) => end = Some(End::CutOff),
                    None => {
                        splitter.finish(|line| self.gather(line, &mut gathered));
                        end = Some(End::Input);
                    }
                },
            }
        }
        let problem = match end {
            Some(End::Draining) => Some(Problem::new(
                &problem::DRAINING,
                "lines after this one were not read",
            )),
            Some(End::CutOff) => Some(Problem::new(
                &problem::REQUEST,
                "the body did not arrive whole; a line that was cut off was not published",
            )),
            Some(End::Input) | None => None,
        };
        if let Some(problem) = problem {
            self.results
                .push_line(json!({ "error": problem.to_json() }).to_string());
        }
        if self.answers == Answers::Errors {
            let Counts {
                stored,
                duplicates,
                refused,
            } = self.counts;
            let summary = json!({ "summary": { "stored": stored, "duplicates": duplicates, "refused": refused } });
            self.results.push_line(summary.to_string());
        }
        self.results.finish();
    }

    fn gather(&mut self, line: Line<'_>, group: &mut Group) {
        self.line += 1;
        let bounds = self.app.ingest.bounds;
        let parsed = match line {
            // An empty line asks for nothing and gets no answer.
            Line::Whole(line) if line.trim_ascii().is_empty() => return,
            Line::Whole(line) => std::str::from_utf8(line)
                .map_err(|_| JsonError::NotUtf8)
                .and_then(|text| json::parse_event(text, bounds)),
            Line::TooLong => Err(JsonError::TooLarge(bounds.event_bytes_max)),
        };
        match parsed {
            Ok(draft) => {
                group.lines.push((self.line, Ok(draft.topic.clone())));
                group.bytes += draft.data.len();
                group.drafts.push(draft);
            }
            Err(error) => {
                let begin = Place::line(usize::try_from(self.line).unwrap_or(usize::MAX));
                let problem = json_problem(&error.moved(begin));
                group.lines.push((self.line, Err(Box::new(problem))));
            }
        }
    }

    fn answer(
        &mut self,
        lines: Vec<(u64, Result<Topic, Box<Problem>>)>,
        outcomes: Result<Vec<Outcome>, AppendError>,
    ) {
        let mut outcomes = outcomes.map(Vec::into_iter);
        for (number, line) in lines {
            let outcome = line.and_then(|topic| match &mut outcomes {
                Ok(outcomes) => Ok((topic, outcomes.next().unwrap_or(Outcome::Conflict))),
                Err(error) => Err(Box::new(append_problem(*error))),
            });
            let (topic, cursor, duplicate) = match outcome {
                Ok((topic, Outcome::Stored(cursor))) => (topic, cursor, false),
                Ok((topic, Outcome::Duplicate(cursor))) => (topic, cursor, true),
                Ok((topic, Outcome::Conflict)) => {
                    self.refuse(number, conflict(&topic));
                    continue;
                }
                Ok((_, Outcome::TooLarge(bytes_max))) => {
                    self.refuse(number, append_problem(AppendError::TooLarge(bytes_max)));
                    continue;
                }
                Err(problem) => {
                    self.refuse(number, *problem);
                    continue;
                }
            };
            if duplicate {
                self.counts.duplicates += 1;
            } else {
                self.counts.stored += 1;
            }
            if self.answers == Answers::All {
                self.results.push(&topic, cursor, duplicate);
            }
        }
    }

    fn refuse(&mut self, line: u64, problem: Problem) {
        self.counts.refused += 1;
        self.results
            .push_line(json!({ "error": problem.with("line", line).to_json() }).to_string());
    }

    /// Waits until unread results are within their bound; false if nobody reads them, which ends the request. A
    /// reader that is only slow has the whole time again after each piece.
    async fn room_for_results(&self) -> bool {
        while self.results.bytes() > self.app.results_bytes_max && !self.results.reader_gone() {
            let taken = tokio::time::timeout(self.app.write_timeout, self.results.taken());
            if taken.await.is_err() {
                return false;
            }
        }
        !self.results.reader_gone()
    }
}

#[derive(Clone, Copy)]
enum Line<'a> {
    Whole(&'a [u8]),
    /// Its end came, but it was longer than any event may be.
    TooLong,
}

/// Cuts a body into lines, wherever its parts were cut.
struct Splitter {
    begun: Vec<u8>,
    too_long: bool,
    bytes_max: usize,
}

impl Splitter {
    fn new(bytes_max: usize) -> Self {
        Self {
            begun: Vec::new(),
            too_long: false,
            bytes_max,
        }
    }

    fn feed(&mut self, mut part: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', part) {
            if self.begun.is_empty() && !self.too_long && end <= self.bytes_max {
                each(Line::Whole(&part[..end]));
            } else {
                self.begin(&part[..end]);
                self.finish(&mut each);
            }
            part = &part[end + 1..];
        }
        self.begin(part);
    }

    /// The line that the end of a whole body ends, if one was begun.
    fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if self.too_long {
            each(Line::TooLong);
        } else if !self.begun.is_empty() {
            each(Line::Whole(&self.begun));
        }
        self.too_long = false;
        self.begun.clear();
    }

    fn begin(&mut self, part: &[u8]) {
        if self.too_long || self.begun.len() + part.len() > self.bytes_max {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(parts: &[&[u8]], bytes_max: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::new(bytes_max);
        let mut each = |line: Line<'_>| {
            lines.push(match line {
                Line::Whole(line) => Some(line.to_vec()),
                Line::TooLong => None,
            });
        };
        for part in parts {
            splitter.feed(part, &mut each);
        }
        splitter.finish(&mut each);
        lines
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_where_the_body_is_cut(text in "[ab\n]{0,40}", cuts in prop::collection::vec(0usize..41, 0..6)) {
            let whole = lines(&[text.as_bytes()], 5);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let cut = lines(&parts, 5);
            // An empty line is told from nothing only when it is whole, and asks for nothing either way.
            let filled = |lines: Vec<Option<Vec<u8>>>| lines.into_iter().filter(|line| line.as_deref() != Some(b"")).collect::<Vec<_>>();
            prop_assert_eq!(filled(cut), filled(whole.clone()));
            let naive: Vec<_> = text.split('\n').filter(|line| !line.is_empty()).map(|line| (line.len() <= 5).then(|| line.as_bytes().to_vec())).collect();
            prop_assert_eq!(filled(whole), naive);
        }
    }
}
