//! `public/tidings.js` in the tabs of a Chromium: one connection for all, and each event once in each.

mod all_at_once;
mod network;
mod own;
mod together;

use crate::support::{
    client::{Client, Message},
    hub::HubProcess,
    stream::DEADLINE,
    wait::in_time,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// Longer than anything takes on a busy machine, for a tab that tells other things meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tabs by name. A tab's subscriptions are one stream of the client, its states are another.
struct Tabs(Client);

impl Tabs {
    async fn of(origin: &str) -> Self {
        Self(Client::tabs(origin, &[]).await)
    }

    /// Subscribes in a tab, and waits until it is open.
    async fn open(&mut self, tab: &str, topics: &[&str], options: Value) {
        self.ask(&json!({"open": tab, "topics": topics, "options": options}));
        self.0.opened_of(tab).await;
    }

    fn ask(&mut self, command: &Value) {
        self.0.command(command);
    }

    /// Asks, and waits for the answer.
    async fn asked(&mut self, command: Value) -> Value {
        self.ask(&command);
        serde_json::from_str(&self.0.message_of("").await.data).expect("JSON")
    }

    async fn close(&mut self, tab: &str) {
        self.ask(&json!({"close": tab}));
        self.0.closed_of(tab).await;
    }

    /// The tab that leads; there is never another one for long.
    async fn leader(&mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let leaders = self.asked(json!({"leaders": ""})).await;
            if let [leader] = &leaders.as_array().expect("tabs")[..] {
                return leader.as_str().expect("a name").to_owned();
            }
            assert!(Instant::now() < deadline, "{leaders}");
        }
    }

    /// Waits for a state of a tab, and gives what is said of it.
    async fn state(&mut self, tab: &str, state: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let states = format!("{tab}/state");
        let wanted = async {
            loop {
                let told = self.0.message_of(&states).await;
                let said = serde_json::from_str(&told.data).expect("JSON");
                if told.event == state && wanted(&said) {
                    return said;
                }
            }
        };
        in_time(PATIENCE, format!("{state} of {tab}"), wanted).await
    }

    /// That each of them sees exactly these, as the next ones.
    async fn see(&mut self, tabs: &[String], expected: &[Message]) {
        let last = &expected.last().expect("messages").data;
        for tab in tabs {
            let seen = self.0.until_of(tab, last);
            let seen = in_time(PATIENCE, format!("{last:?} in {tab}"), seen).await;
            assert!(seen == expected, "{tab}: {}", differing(&seen, expected));
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("tab {n}")).collect()
}

/// Publishes these, one after the other.
async fn publish(
    hub: &HubProcess,
    topic: &str,
    data: impl IntoIterator<Item = String>,
) -> Vec<Message> {
    let mut published = Vec::new();
    for data in data {
        let id = hub.publish(topic, &data).await;
        published.push(Message::new(&id, &data));
    }
    published
}

fn numbers(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix} {n}")).collect()
}

/// Streams of a topic that the hub serves.
async fn streams(hub: &HubProcess, topic: &str) -> u64 {
    let path = format!("/topics/{topic}/presence");
    let (status, text) = hub.get(&path).await.expect("an answer");
    assert_eq!(status, 200, "{text}");
    let presence: Value = serde_json::from_str(&text).expect("JSON");
    presence["streams"].as_u64().expect("a number")
}

/// Waits until the hub serves so many.
async fn until_streams(hub: &HubProcess, topic: &str, count: u64) {
    let deadline = Instant::now() + DEADLINE;
    let mut tick = interval(Duration::from_millis(20));
    loop {
        let now = streams(hub, topic).await;
        if now == count {
            return;
        }
        assert!(Instant::now() < deadline, "{now} streams, not {count}");
        tick.tick().await;
    }
}

/// Where they part, for people to read.
fn differing(seen: &[Message], expected: &[Message]) -> String {
    let at = seen
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let (seen, expected) = (&seen[at..], &expected[at..]);
    format!(
        "after {at}: {:?} of {}, not {:?} of {}",
        seen.first(),
        seen.len(),
        expected.first(),
        expected.len()
    )
}
