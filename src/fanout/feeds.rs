//! The index of feeds: which of them want an event. A hash for exact topics, a trie of segments for patterns.

use super::Frame;
use crate::topic::{Filter, Pattern, Topic};
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};
use tokio::sync::broadcast;

/// Frames that a feed holds for readers that are behind; past that they read the log.
/// (`broadcast` allocates all slots at once: about 1.3 KiB a feed.)
const RING_FRAMES: usize = 32;

/// All readers of this node with the same filter.
pub(super) struct Feed {
    /// Its own, for as long as the process lives.
    pub(super) number: u64,
    pub(super) frames: broadcast::Sender<Arc<Frame>>,
    filter: Arc<Filter>,
}

/// Feeds by number, so that one goes without a search.
type Members = BTreeMap<u64, Arc<Feed>>;

/// All feeds, found by their filter and by the topics they want.
#[derive(Default)]
pub(super) struct Feeds {
    /// With the number of readers: the last one to leave takes the feed along.
    by_filter: HashMap<Arc<Filter>, (Arc<Feed>, usize)>,
    by_topic: HashMap<Topic, Members>,
    by_pattern: Node,
    made: u64,
}

/// A place in the trie: after some segments.
#[derive(Default)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    /// After a `*`.
    any: Option<Box<Node>>,
    /// Patterns that end here.
    ends: Members,
    /// Patterns whose final `**` stands here.
    rest: Members,
}

impl Feeds {
    pub(super) fn len(&self) -> usize {
        self.by_filter.len()
    }

    /// Adds a reader to the feed of its filter.
    pub(super) fn enter(&mut self, filter: &Arc<Filter>) -> broadcast::Receiver<Arc<Frame>> {
        if let Some((feed, readers)) = self.by_filter.get_mut(filter) {
            *readers += 1;
            return feed.frames.subscribe();
        }
        self.made += 1;
        let feed = Arc::new(Feed {
            number: self.made,
            frames: broadcast::Sender::new(RING_FRAMES),
            filter: Arc::clone(filter),
        });
        for topic in filter.topics() {
            let members = self.by_topic.entry(topic.clone()).or_default();
            members.insert(feed.number, Arc::clone(&feed));
        }
        for pattern in filter.patterns() {
            let members = self.by_pattern.members(pattern);
            members.insert(feed.number, Arc::clone(&feed));
        }
        let frames = feed.frames.subscribe();
        self.by_filter.insert(Arc::clone(filter), (feed, 1));
        frames
    }

    /// Takes a reader out of the feed of its filter.
    pub(super) fn leave(&mut self, filter: &Arc<Filter>) {
        let Entry::Occupied(mut entry) = self.by_filter.entry(Arc::clone(filter)) else {
            return;
        };
        entry.get_mut().1 -= 1;
        if entry.get().1 == 0 {
            let (_, (feed, _)) = entry.remove_entry();
            self.forget(&feed);
        }
    }

    fn forget(&mut self, feed: &Feed) {
        for topic in feed.filter.topics() {
            if let Entry::Occupied(mut members) = self.by_topic.entry(topic.clone()) {
                members.get_mut().remove(&feed.number);
                if members.get().is_empty() {
                    members.remove();
                }
            }
        }
        for pattern in feed.filter.patterns() {
            self.by_pattern
                .remove(pattern.as_str().split('/'), feed.number);
        }
    }

    /// Calls `found` for each feed that wants events of the topic; for one that wants them for several reasons,
    /// several times.
    pub(super) fn each_match(&self, topic: &Topic, mut found: impl FnMut(&Arc<Feed>)) {
        if let Some(members) = self.by_topic.get(topic) {
            members.values().for_each(&mut found);
        }
        if !self.by_pattern.is_empty() {
            let segments: Vec<&str> = topic.as_str().split('/').collect();
            self.by_pattern.each_match(&segments, &mut found);
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.any.is_none()
            && self.ends.is_empty()
            && self.rest.is_empty()
    }

    fn members(&mut self, pattern: &Pattern) -> &mut Members {
        let mut node = self;
        for segment in pattern.as_str().split('/') {
            node = match segment {
                "**" => return &mut node.rest,
                "*" => node.any.get_or_insert_default(),
                name => node.literal.entry(name.into()).or_default(),
            };
        }
        &mut node.ends
    }

    fn remove<'a>(&mut self, mut pattern: impl Iterator<Item = &'a str>, number: u64) {
        match pattern.next() {
            None => drop(self.ends.remove(&number)),
            Some("**") => drop(self.rest.remove(&number)),
            Some("*") => {
                if let Some(node) = &mut self.any {
                    node.remove(pattern, number);
                    self.any.take_if(|node| node.is_empty());
                }
            }
            Some(name) => {
                if let Some(node) = self.literal.get_mut(name) {
                    node.remove(pattern, number);
                    if node.is_empty() {
                        self.literal.remove(name);
                    }
                }
            }
        }
    }

    fn each_match(&self, segments: &[&str], found: &mut impl FnMut(&Arc<Feed>)) {
        let Some((first, later)) = segments.split_first() else {
            return self.ends.values().for_each(found);
        };
        self.rest.values().for_each(&mut *found);
        if let Some(node) = self.literal.get(*first) {
            node.each_match(later, found);
        }
        if let Some(node) = &self.any {
            node.each_match(later, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feeds_of(feeds: &Feeds, topic: &Topic) -> Vec<u64> {
        let mut found = Vec::new();
        feeds.each_match(topic, |feed| found.push(feed.number));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Topics and patterns over a tiny alphabet, so that they meet often.
    fn path(segments: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(segments), 1..4)
            .prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn finds_what_the_filters_match(
            filters in prop::collection::vec(prop::collection::vec(path(&["a", "b", "", "*"]), 1..4), 1..8),
            rest in any::<bool>(),
            topics in prop::collection::vec(path(&["a", "b", "c", ""]), 1..8),
            removed in prop::collection::vec(any::<bool>(), 8),
        ) {
            let mut feeds = Feeds::default();
            let mut readers = Vec::new();
            for texts in &filters {
                let texts: Vec<String> =
                    texts.iter().map(|text| if rest { format!("{text}/**") } else { text.clone() }).filter(|t| !t.is_empty()).collect();
                if let Ok(Some(filter)) = Filter::parse(texts.iter().map(String::as_str)) {
                    let filter = Arc::new(filter);
                    drop(feeds.enter(&filter));
                    readers.push(filter);
                }
            }
            let mut gone = removed.into_iter();
            readers.retain(|filter| {
                let stays = !gone.next().unwrap_or_default();
                if !stays {
                    feeds.leave(filter);
                }
                stays
            });
            for topic in topics.iter().filter_map(|text| Topic::parse(text).ok()) {
                let matching = readers.iter().filter(|filter| filter.matches(&topic));
                let mut naive: Vec<u64> = matching.map(|filter| feeds.by_filter[filter].0.number).collect();
                naive.sort_unstable();
                naive.dedup();
                prop_assert_eq!(feeds_of(&feeds, &topic), naive, "{}", topic);
            }
            for filter in &readers {
                feeds.leave(filter);
            }
            prop_assert!(feeds.by_pattern.is_empty() && feeds.by_topic.is_empty() && feeds.by_filter.is_empty());
        }
    }
}
