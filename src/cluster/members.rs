//! Who else is there: nodes announce themselves once a second, with how they stand and how many streams of which filter they
//! have. Nothing of it is kept in the journal. One that is silent for some seconds is gone.

use super::{entry::FORMAT, shared::Shared};
use crate::{
    fanout::Hub,
    topic::{Filter, Topic},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// A node that is silent for so long is gone.
const LEASE: Duration = Duration::from_millis(3_500);

/// Filters that one announcement counts; the next ones have the rest.
const FILTERS_MAX: usize = 2_000;

/// All nodes of a cluster, as this one knows them.
pub struct Members {
    id: String,
    hub: OnceLock<Weak<Hub>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    address: String,
    seq: u64,
    linked: Option<Instant>,
    /// When it last had something to say.
    said: Option<Instant>,
    others: BTreeMap<String, Member>,
    /// Somebody does not know all counts of this node.
    full_wanted: bool,
    /// This node does not know all counts of somebody.
    ask: bool,
    /// Counts that are still to be told.
    rest: Vec<Count>,
}

struct Member {
    heard: Instant,
    /// By how much its clock was ahead of this node's, in ms, its way here included.
    ahead_ms: i64,
    seq: u64,
    node: Node,
    feeds: HashMap<Vec<String>, (Filter, u64)>,
}

/// A filter's topics and patterns, and how many streams have it.
type Count = (Vec<String>, u64);

/// A node as it tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Random, for one run.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Of the hub.
    pub version: String,
    /// The newest format of entries that it reads.
    pub format: u8,
    /// The entry of the journal up to which it has all.
    pub position: String,
    /// By how many entries it is behind.
    pub lag_entries: u64,
    /// For how long it has been.
    pub lag_seconds: f64,
    /// Open streams.
    pub streams: u64,
}

/// What a node says once a second.
#[derive(Debug, Serialize, Deserialize)]
struct Announcement {
    #[serde(flatten)]
    node: Node,
    seq: u64,
    time_ms: u64,
    /// Counts that changed; or the first of all, if it is `full`.
    feeds: Vec<Count>,
    #[serde(default)]
    full: bool,
    /// It does not know all counts of the others.
    #[serde(default)]
    ask: bool,
    /// It waits for a checkpoint to begin after.
    #[serde(default)]
    begins: bool,
    /// It goes.
    #[serde(default)]
    leaves: bool,
}

/// How many streams want a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// On each node that has any, by its id.
    pub nodes: Vec<(String, u64)>,
}

impl Members {
    pub(super) fn new() -> Self {
        Self {
            id: format!("{:016x}", rand::random::<u64>()),
            hub: OnceLock::new(),
            state: Mutex::new(State {
                ask: true,
                full_wanted: true,
                ..State::default()
            }),
        }
    }

    /// Whose streams are counted.
    pub fn count_streams_of(&self, hub: &Arc<Hub>) {
        // A second hub over the same log does not count.
        let _ = self.hub.set(Arc::downgrade(hub));
    }

    /// Where this node listens.
    pub fn listens_at(&self, address: String) {
        self.state().address = address;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.get()?.upgrade()
    }

    /// The link is there: from now on silence means something.
    pub(super) fn linked(&self) {
        let mut state = self.state();
        state.linked = Some(Instant::now());
        state.ask = true;
    }

    /// The link is gone: nobody is heard, which says nothing.
    pub(super) fn unlinked(&self) {
        self.state().linked = None;
    }

    /// This node, as it stands.
    fn me(&self, shared: &Shared) -> Node {
        let standing = shared.standing();
        let streams = self.hub().map_or(0, |hub| hub.streams());
        Node {
            id: self.id.clone(),
            address: self.state().address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT,
            position: standing.applied.to_string(),
            lag_entries: standing.lag_entries,
            lag_seconds: (standing.lag.as_millis() as f64) / 1_000.0,
            streams,
        }
    }

    /// What this node announces now.
    pub(super) fn news(&self, shared: &Shared) -> Bytes {
        let node = self.me(shared);
        let changed = self.hub().map(|hub| (hub.changed_counts(), hub));
        let mut state = self.state();
        // It stood still, or could say nothing for long: others may have said much that it has yet to read.
        let said = state.said.replace(Instant::now());
        if said.is_some_and(|said| said.elapsed() > LEASE / 2) {
            state.linked = Some(Instant::now());
        }
        let full = std::mem::take(&mut state.full_wanted);
        if let Some((changed, hub)) = changed {
            let counts = match full {
                true => {
                    state.rest.clear();
                    hub.counts()
                }
                false => changed,
            };
            let counts = counts.iter().map(|(filter, count)| (texts(filter), *count));
            state.rest.extend(counts);
        }
        let now = state.rest.len().min(FILTERS_MAX);
        let feeds = state.rest.drain(..now).collect();
        state.seq += 1;
        encode(&Announcement {
            node,
            seq: state.seq,
            time_ms: shared.wall.now_ms(),
            feeds,
            full,
            ask: std::mem::take(&mut state.ask),
            begins: false,
            leaves: false,
        })
    }

    /// What a node says that waits for a checkpoint.
    pub(super) fn hello(&self) -> Bytes {
        self.word(true, false)
    }

    /// What a node says that goes.
    pub(super) fn farewell(&self) -> Bytes {
        self.word(false, true)
    }

    fn word(&self, begins: bool, leaves: bool) -> Bytes {
        encode(&Announcement {
            node: Node {
                id: self.id.clone(),
                address: self.state().address.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                format: FORMAT,
                position: "0".to_owned(),
                lag_entries: 0,
                lag_seconds: 0.0,
                streams: 0,
            },
            seq: 0,
            time_ms: 0,
            feeds: Vec::new(),
            full: false,
            ask: false,
            begins,
            leaves,
        })
    }

    /// Takes what a node announced.
    pub(super) fn heard(&self, bytes: &[u8], shared: &Shared) {
        let Ok(said) = serde_json::from_slice::<Announcement>(bytes) else {
            // Of a later version, or of somebody else.
            tracing::debug!("an announcement that says nothing to this version");
            return;
        };
        if said.node.id == self.id {
            return;
        }
        if said.begins {
            shared.checkpoint_wanted.notify_one();
            return;
        }
        let mut state = self.state();
        if said.leaves {
            state.others.remove(&said.node.id);
            return;
        }
        state.full_wanted |= said.ask;
        let ahead_ms = said.time_ms.cast_signed() - shared.wall.now_ms().cast_signed();
        let known = state.others.remove(&said.node.id);
        let follows = said.full || known.as_ref().is_some_and(|one| one.seq + 1 == said.seq);
        state.ask |= !follows;
        let mut feeds = known
            .filter(|_| !said.full)
            .map_or_else(HashMap::new, |one| one.feeds);
        for (texts, count) in said.feeds {
            let filter = Filter::parse(texts.iter().map(String::as_str));
            match filter {
                Ok(Some(filter)) if count > 0 => drop(feeds.insert(texts, (filter, count))),
                _ => drop(feeds.remove(&texts)),
            }
        }
        let member = Member {
            heard: Instant::now(),
            ahead_ms,
            seq: said.seq,
            node: said.node,
            feeds,
        };
        state.others.insert(member.node.id.clone(), member);
    }

    /// Whether another node said that, and has more than nothing: it can write a checkpoint, now or soon.
    pub(super) fn may_know(&self, bytes: &[u8]) -> bool {
        let said = serde_json::from_slice::<Announcement>(bytes);
        said.is_ok_and(|said| said.node.id != self.id && !said.begins && !said.leaves)
    }

    /// All nodes that live, this one first.
    #[must_use]
    pub(super) fn nodes(&self, shared: &Shared) -> Vec<Node> {
        let me = self.me(shared);
        let mut state = self.state();
        state.expire();
        let others = state.others.values().map(|member| member.node.clone());
        std::iter::once(me).chain(others).collect()
    }

    /// How many streams want a topic, on which nodes.
    #[must_use]
    pub(super) fn presence(&self, topic: &Topic) -> Presence {
        let own = self.hub().map_or(0, |hub| hub.presence(topic));
        let mut state = self.state();
        state.expire();
        let mut nodes = vec![(self.id.clone(), own)];
        for (id, member) in &state.others {
            let wanted = member.feeds.values();
            let wanted = wanted.filter(|(filter, _)| filter.matches(topic));
            nodes.push((id.clone(), wanted.map(|(_, count)| count).sum()));
        }
        Presence { nodes }
    }

    /// By how much this node's clock differs from the one in the middle of all, its own included, in ms: so that one that is
    /// wrong misleads nobody else. Of two, nobody knows which it is.
    pub(super) fn clock_off(&self) -> Option<u64> {
        let mut state = self.state();
        state.expire();
        if state.others.is_empty() {
            return None;
        }
        let others = state.others.values().map(|one| one.ahead_ms);
        let mut ahead: Vec<i64> = others.chain([0]).collect();
        ahead.sort_unstable();
        let middle = [(ahead.len() - 1) / 2, ahead.len() / 2];
        let middle = middle.into_iter().filter_map(|at| ahead.get(at));
        middle.map(|ahead| ahead.unsigned_abs()).max()
    }
}

impl State {
    /// Forgets who was silent for too long, while it could have been heard.
    fn expire(&mut self) {
        let Some(linked) = self.linked else {
            return;
        };
        self.others
            .retain(|_, one| one.heard.max(linked).elapsed() < LEASE);
    }
}

fn texts(filter: &Filter) -> Vec<String> {
    let topics = filter.topics().iter().map(|topic| topic.as_str());
    let patterns = filter.patterns().iter().map(|pattern| pattern.as_str());
    topics.chain(patterns).map(str::to_owned).collect()
}

fn encode(said: &Announcement) -> Bytes {
    // Nothing in it fails to be JSON.
    serde_json::to_vec(said).unwrap_or_default().into()
}
