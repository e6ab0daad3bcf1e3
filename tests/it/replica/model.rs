//! Random steps of brokers and nodes: in the end all nodes have the same, and all that was acknowledged and not lost.

use super::*;
use crate::log_support::{join_all, try_append};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tidings::{config::environment, log::Outcome};

/// An event that was acknowledged: its data, and the entry that it is in.
type Acknowledged = (String, u64);

struct Copy {
    saved: Saved,
    acknowledged: Vec<Acknowledged>,
    trimmed: bool,
}

struct Model {
    random: StdRng,
    journal: MemoryJournal,
    nodes: Vec<Node>,
    /// What is on the disks of nodes that are away.
    away: Vec<Arc<dyn ReplicaLog>>,
    acknowledged: Vec<Acknowledged>,
    copies: Vec<Copy>,
    published: usize,
    trimmed: bool,
}

const NODES: usize = 3;

impl Model {
    async fn new(seed: u64) -> Self {
        let journal = MemoryJournal::new();
        Self {
            random: StdRng::seed_from_u64(seed),
            nodes: nodes(&journal, NODES).await,
            journal,
            away: Vec::new(),
            acknowledged: Vec::new(),
            copies: Vec::new(),
            published: 0,
            trimmed: false,
        }
    }

    async fn settle(&self, not: u64) {
        settled(&self.journal, &self.nodes, not).await;
    }

    async fn step(&mut self) -> String {
        match self.random.random_range(0..16) {
            0..6 => self.publish().await,
            6..8 => {
                self.settle(0).await;
                self.copies.push(Copy {
                    saved: self.journal.save(),
                    acknowledged: self.acknowledged.clone(),
                    trimmed: self.trimmed,
                });
                "save".to_owned()
            }
            8..10 if !self.copies.is_empty() => self.put_back().await,
            10 => {
                self.settle(0).await;
                let before = self.nodes[0].epoch();
                let cut = self.random.random();
                self.nodes.iter().for_each(|node| node.journal.cut(cut));
                self.journal.wipe();
                self.nodes.iter().for_each(|node| node.journal.cut(false));
                self.acknowledged.clear();
                self.trimmed = false;
                self.settle(before).await;
                "wipe".to_owned()
            }
            11 => {
                self.journal.set_up(false);
                self.journal.set_up(true);
                "outage".to_owned()
            }
            12 if self.nodes.len() > 1 => {
                if self.trimmed {
                    // Else the only one that knows could go.
                    self.settle(0).await;
                }
                let at = self.random.random_range(0..self.nodes.len());
                self.away.push(self.nodes.remove(at).killed().await);
                "kill".to_owned()
            }
            13 if !self.away.is_empty() => {
                let at = self.random.random_range(0..self.away.len());
                let local = self.away.remove(at);
                if self.random.random_range(0..3) == 0 {
                    self.nodes.push(Node::new(&self.journal).await);
                    return "new".to_owned();
                }
                self.nodes
                    .push(Node::on(&self.journal, local, &system()).await);
                "restart".to_owned()
            }
            14 => {
                // Somebody has all of it.
                self.settle(0).await;
                let to = self.journal.last() / 2;
                self.journal.trim(to);
                self.trimmed = true;
                // Of a copy of another history, put back on a trimmed journal, nobody knows how it stands.
                self.copies.clear();
                format!("trim to {to}")
            }
            _ => {
                self.settle(0).await;
                "settle".to_owned()
            }
        }
    }

    async fn publish(&mut self) -> String {
        let mut drafts = Vec::new();
        for _ in 0..self.random.random_range(1..20) {
            drafts.push((
                self.random.random_range(0..self.nodes.len()),
                format!("{}", self.published),
            ));
            self.published += 1;
        }
        let count = drafts.len();
        let publishing = drafts.into_iter().map(|(node, data)| {
            let log = Arc::clone(&self.nodes[node].log);
            async move {
                let outcomes = try_append(&*log, vec![draft("a", &data)]).await.ok()?;
                let [Outcome::Stored(cursor)] = outcomes[..] else {
                    panic!("{outcomes:?}");
                };
                Some((data, cursor.position >> 16))
            }
        });
        let acknowledged = join_all(publishing).await;
        self.acknowledged.extend(acknowledged.into_iter().flatten());
        format!("publish {count}")
    }

    async fn put_back(&mut self) -> String {
        // The window between a loss and its discovery is not what this is about: all have more than the copy, and see it.
        self.settle(0).await;
        let before = self.nodes[0].epoch();
        put(
            &*self.nodes[0].log,
            "a",
            &format!("after {}", self.published),
        )
        .await;
        self.settle(0).await;
        let chosen = self.random.random_range(0..self.copies.len());
        let last = self.copies[chosen].saved.last();
        let mut begun = self
            .nodes
            .iter()
            .map(|node| node.log.bounds().removed_to >> 16);
        if begun.all(|begun| begun >= last) {
            return "nobody there would know the copy".to_owned();
        }
        if self.trimmed {
            self.copies.truncate(chosen + 1);
        }
        let Copy {
            saved,
            acknowledged,
            trimmed,
        } = &self.copies[chosen];
        if self.random.random() {
            self.journal.put_back(saved);
        } else {
            self.journal.set_up(false);
            self.journal.put_back(saved);
            self.journal.set_up(true);
        }
        self.trimmed |= trimmed;
        self.acknowledged.retain(|one| acknowledged.contains(one));
        self.settle(before).await;
        format!("put back {chosen}")
    }

    async fn check(&self) {
        self.settle(0).await;
        let mut all = Vec::new();
        for node in &self.nodes {
            let (_, replay) = crate::log_support::start(&*node.log, Start::Earliest, ALL).await;
            all.push((node.log.bounds().removed_to, replay));
        }
        let from = all.iter().map(|(removed_to, _)| *removed_to).max().unwrap();
        assert!(self.trimmed || from == 0);
        let common = |replay: &Replay| {
            let mut events = seen(&replay.events);
            events.retain(|(cursor, ..)| cursor.position > from);
            events
        };
        for (_, replay) in &all {
            assert_eq!(common(replay), common(&all[0].1));
        }
        for (removed_to, replay) in &all {
            let data = replay.data();
            for (acknowledged, entry) in &self.acknowledged {
                let kept = data.iter().filter(|data| *data == acknowledged).count();
                let is_kept = entry << 16 > *removed_to;
                assert!(
                    kept == 1 || (kept == 0 && !is_kept),
                    "{acknowledged} of {entry}: {kept}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
#[expect(clippy::print_stderr, reason = "the steps are shown with what fails")]
async fn whatever_happens_nodes_end_alike() {
    // (No names of Tidings: the hub refuses variables of its own that it does not know.)
    let number = |name| environment::get(name).and_then(|text| text.parse().ok());
    let from = number("REPLICA_SEED").unwrap_or(0);
    let rounds = number("REPLICA_ROUNDS").unwrap_or(100);
    for seed in from..from + rounds {
        let mut model = Model::new(seed).await;
        for _ in 0..30 {
            let step = model.step().await;
            eprintln!("{seed}: {step}");
        }
        while let Some(local) = model.away.pop() {
            model
                .nodes
                .push(Node::on(&model.journal, local, &system()).await);
        }
        model.check().await;
    }
}
