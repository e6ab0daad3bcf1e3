//! Publishers: each waits for an answer before it publishes again, and asks again with the same key until it has one.

use super::{TOPICS, World, book::Draft, random, session::http::Http, topic};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Requests of one publisher.
const REQUESTS: usize = 120;

/// Events in one request, at the most.
const BATCH: usize = 12;

/// After an outage.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Publisher {
    world: Arc<World>,
    random: StdRng,
    number: usize,
    count: usize,
    connection: Option<Http>,
}

impl Publisher {
    pub(super) fn new(world: &Arc<World>, seed: u64, number: usize) -> Self {
        Self {
            world: Arc::clone(world),
            random: random(seed, 100 + number),
            number,
            count: 0,
            connection: None,
        }
    }

    pub(super) async fn run(mut self) {
        for _ in 0..REQUESTS {
            let count = match self.random.random_range(0..4) {
                0 => self.random.random_range(1..=BATCH),
                _ => 1,
            };
            let drafts = (0..count).map(|_| self.draft()).collect();
            self.publish(drafts).await;
            if self.random.random() {
                sleep(Duration::from_millis(self.random.random_range(0..8))).await;
            }
        }
    }

    /// One event to each topic: whoever has those of its filter has all.
    pub(super) async fn last(mut self) {
        let drafts = (0..TOPICS).map(|n| Draft {
            topic: topic(n),
            event: None,
            data: format!("the last of {}", topic(n)),
        });
        self.publish(drafts.collect()).await;
    }

    fn draft(&mut self) -> Draft {
        self.count += 1;
        let padding = match self.random.random_range(0..100) {
            0..2 => 30_000,
            2..10 => 3_000,
            _ => 100,
        };
        let padding = self.random.random_range(0..padding);
        let line = ["-", "\n", "ü\"\\"][self.random.random_range(0..3)];
        Draft {
            topic: topic(self.random.random_range(0..TOPICS)),
            event: [None, Some("named")][self.random.random_range(0..2)],
            data: format!(
                "{}-{} {}",
                self.number,
                self.count,
                line.repeat(padding / line.len())
            ),
        }
    }

    async fn publish(&mut self, drafts: Vec<Draft>) {
        let of = |n: usize| format!("{}-{}-{n}", self.number, self.count);
        let items = drafts.iter().enumerate().map(|(n, draft)| {
            json!({
                "topic": draft.topic,
                "event": draft.event,
                "data": draft.data,
                "idempotency_key": of(n),
            })
        });
        let body = Value::from(items.collect::<Vec<_>>()).to_string();
        let sent = Instant::now();
        let results = loop {
            match self.ask(&body).await {
                Ok((200 | 201, answer)) => break answer,
                Ok((503, _)) | Err(_) => {
                    self.connection = None;
                    sleep(PAUSE).await;
                }
                Ok((status, answer)) => panic!("{status} to a publish: {answer}"),
            }
        };
        let results: Vec<Value> = serde_json::from_str(&results).expect("results");
        assert_eq!(results.len(), drafts.len());
        for (draft, result) in drafts.into_iter().zip(results) {
            let id = result["id"].as_str().expect("an id");
            self.world.book.note(draft, id, sent);
        }
    }

    async fn ask(&mut self, body: &str) -> std::io::Result<(u16, String)> {
        let http = match &mut self.connection {
            Some(http) => http,
            none => none.insert(Http::connect(self.world.address, None).await?),
        };
        let json = [("Content-Type", "application/json")];
        let status = http.ask("POST", "/publish", &json, body).await?;
        Ok((status, http.whole().await?))
    }
}
