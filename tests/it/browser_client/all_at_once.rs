//! Whatever happens in whatever order, each tab sees what it asked for, once.

use super::{Tabs, publish, until_streams};
use crate::support::{client::Message, hub::HubProcess};
use serde_json::json;

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % count
    }
}

const TOPICS: [&str; 3] = ["x/a", "x/b", "y"];
const FILTERS: [&[&str]; 5] = [&["x/a"], &["x/*"], &["y", "x/b"], &["**"], &["y"]];

struct Tab {
    name: String,
    filter: &'static [&'static str],
    /// What was published before it was there.
    from: usize,
}

impl Tab {
    fn wants(&self, topic: &str) -> bool {
        self.filter.iter().any(|pattern| match *pattern {
            "**" => true,
            "x/*" => topic.starts_with("x/"),
            exact => exact == topic,
        })
    }
}

struct World {
    hub: HubProcess,
    tabs: Tabs,
    open: Vec<Tab>,
    published: Vec<(&'static str, Message)>,
    dice: Dice,
    opened: usize,
}

impl World {
    async fn open(&mut self) {
        self.opened += 1;
        let tab = Tab {
            name: format!("tab {}", self.opened),
            filter: FILTERS[self.opened % FILTERS.len()],
            from: self.published.len(),
        };
        self.tabs.open(&tab.name, tab.filter, json!({})).await;
        self.tabs.asked(json!({"lose": tab.name})).await;
        self.open.push(tab);
    }

    async fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let topic = TOPICS[self.dice.below(TOPICS.len())];
            let data = (self.published.len() + 1).to_string();
            let published = publish(&self.hub, topic, [data]).await;
            self.published
                .extend(published.into_iter().map(|message| (topic, message)));
        }
    }

    fn any(&mut self) -> String {
        let at = self.dice.below(self.open.len());
        self.open[at].name.clone()
    }

    /// Something happens. What is published meanwhile is so before it is over.
    async fn step(&mut self) {
        match self.dice.below(6) {
            0 => {
                let tab = self.any();
                self.tabs.ask(&json!({"again": tab}));
                self.publish(30).await;
                self.tabs.asked(json!({"lose": tab})).await;
            }
            1 => {
                let tab = self.any();
                self.tabs.asked(json!({"freeze": tab})).await;
                self.publish(30).await;
                self.tabs.asked(json!({"thaw": tab})).await;
            }
            2 => {
                let leader = self.tabs.leader().await;
                self.tabs.ask(&json!({"freeze": leader}));
                self.publish(30).await;
                self.tabs.ask(&json!({"thaw": leader}));
                self.tabs.asked(json!({"lose": leader})).await;
                for _ in 0..2 {
                    self.tabs.0.message_of("").await;
                }
            }
            3 => {
                self.hub.kill();
                self.hub.start_elsewhere();
                self.publish(10).await;
                self.hub.terminate();
                self.hub.start_again();
            }
            4 if self.open.len() < 6 => self.open().await,
            _ => self.publish(60).await,
        }
    }

    /// One tab is closed, after all that it was to see.
    async fn close(&mut self, at: usize) {
        self.see(at).await;
        let tab = self.open.remove(at);
        self.tabs.close(&tab.name).await;
    }

    async fn see(&mut self, at: usize) {
        // One more of each, so that there is a last one.
        for topic in TOPICS {
            let data = (self.published.len() + 1).to_string();
            let published = publish(&self.hub, topic, [data]).await;
            self.published
                .extend(published.into_iter().map(|message| (topic, message)));
        }
        let tab = &mut self.open[at];
        let wanted = self.published[tab.from..].iter();
        let expected: Vec<_> = wanted
            .filter(|(topic, _)| tab.wants(topic))
            .map(|(_, message)| message.clone())
            .collect();
        tab.from = self.published.len();
        let name = [tab.name.clone()];
        self.tabs.see(&name, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tab_sees_what_it_asked_for_once() {
    let hub = HubProcess::start("");
    let tabs = Tabs::of(&hub.origin()).await;
    let mut world = World {
        hub,
        tabs,
        open: Vec::new(),
        published: Vec::new(),
        dice: Dice(7),
        opened: 0,
    };
    for _ in 0..4 {
        world.open().await;
    }
    for _ in 0..4 {
        for _ in 0..4 {
            world.step().await;
        }
        let at = world.dice.below(world.open.len());
        world.close(at).await;
        world.open().await;
    }
    for at in 0..world.open.len() {
        world.see(at).await;
    }
    assert!(world.published.len() > 200);
    until_streams(&world.hub, "y", 1).await;
}
