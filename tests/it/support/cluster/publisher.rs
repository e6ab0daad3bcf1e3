//! One publisher of the load: an NDJSON request and a single post in turn, at a steady pace. What is not acknowledged is
//! sent again with the same keys, most often to another node, until it is.

use super::load::Shared;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tidings::cursor::Cursor;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Between two requests.
const PACE: Duration = Duration::from_millis(60);

/// Before a request is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Lines of an NDJSON request.
const LINES: u32 = 5;

/// Requests until a publisher that was sent away tries its own node again.
const HOME_AFTER: u32 = 16;

/// Topics of each publisher.
pub(super) const TOPICS: u32 = 4;

pub(super) struct Publisher {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) http: reqwest::Client,
}

/// What is acknowledged: its number and its id.
pub(super) struct Acknowledged {
    pub(super) number: u32,
    pub(super) at: Cursor,
}

/// Why something was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The connection failed, or there was no answer in time.
    Lost(String),
    /// The status and the kind of problem.
    Problem(u64, String),
}

type Results = Result<Vec<(Cursor, bool)>, Refusal>;

impl Publisher {
    /// Until the load ends. Whatever was begun is acknowledged then.
    pub(super) async fn run(self) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut next, mut node) = (0, self.index);
        for request in 0_u32.. {
            pace.tick().await;
            if self.shared.is_stopped() {
                return;
            }
            if request % HOME_AFTER == 0 {
                node = self.index;
            }
            let count = if request % 2 == 0 { LINES } else { 1 };
            let results = loop {
                let sent = match count {
                    1 => self.single(node, next).await,
                    _ => self.lines(node, next, count).await,
                };
                match sent {
                    Ok(results) => break results,
                    Err(refusal) => self.shared.refused(node, &refusal),
                }
                sleep(AGAIN_AFTER).await;
                // Any other one, or the same.
                node = rand::random_range(0..self.shared.addresses.len());
            };
            assert_eq!(results.len(), count as usize);
            let numbers = next..next + count;
            let acknowledged = numbers
                .zip(results)
                .map(|(number, (at, duplicate))| (Acknowledged { number, at }, duplicate));
            self.shared.acknowledged(self.index, acknowledged.collect());
            next += count;
        }
    }

    fn topic(&self, number: u32) -> String {
        format!("load/{}/{}", self.index, number % TOPICS)
    }

    fn data(&self, number: u32) -> String {
        let padding = "x".repeat(self.shared.options.padding);
        format!("{} {number} {padding}", self.index)
    }

    fn url(&self, node: usize, path: &str) -> String {
        format!("http://{}{path}", self.shared.addresses[node])
    }

    async fn single(&self, node: usize, number: u32) -> Results {
        let path = format!("/topics/{}", self.topic(number));
        let request = self.http.post(self.url(node, &path));
        let request = request
            .header("Idempotency-Key", number.to_string())
            .body(self.data(number));
        let (status, text) = answer(request).await?;
        Ok(vec![result(status, &text)?])
    }

    async fn lines(&self, node: usize, first: u32, count: u32) -> Results {
        let lines = (first..first + count).map(|number| {
            let line = json!({
                "topic": self.topic(number),
                "data": self.data(number),
                "idempotency_key": number.to_string(),
            });
            format!("{line}\n")
        });
        let request = self.http.post(self.url(node, "/publish"));
        let request = request
            .header("Content-Type", "application/x-ndjson")
            .body(lines.collect::<String>());
        let (status, text) = answer(request).await?;
        if status != 200 {
            result(status, &text)?;
        }
        let results: Vec<_> = text
            .lines()
            .map(|line| result(status, line))
            .collect::<Result<_, _>>()?;
        if results.len() < count as usize {
            return Err(Refusal::Lost("results are missing".to_owned()));
        }
        Ok(results)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u64, String), Refusal> {
    let lost = |error: reqwest::Error| Refusal::Lost(error.to_string());
    let response = request.send().await.map_err(lost)?;
    let status = response.status().as_u16();
    Ok((status.into(), response.text().await.map_err(lost)?))
}

/// An id and whether it was there before; or the problem, which NDJSON has in a line of its own.
fn result(status: u64, text: &str) -> Result<(Cursor, bool), Refusal> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| Refusal::Problem(status, format!("{error}: {text}")))?;
    if let Some(id) = json["id"].as_str() {
        let duplicate = json["duplicate"].as_bool().expect("a result");
        return Ok((id.parse().expect("an id"), duplicate));
    }
    let problem = json.get("error").unwrap_or(&json);
    let kind = problem["type"].as_str().unwrap_or(text);
    let kind = kind.trim_start_matches("/problems/").to_owned();
    let status = problem["status"].as_u64().unwrap_or(status);
    Err(Refusal::Problem(status, kind))
}
