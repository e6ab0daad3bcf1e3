//! The index of feeds: which of them want an event. A hash for exact topics, a trie of segments for patterns.

use super::feed::Feed;
use crate::topic::{Filter, Pattern, Topic};
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Weak},
};

/// What feeds without readers may take in memory beside their frames, about; past that those without for longest go.
const IDLE_BYTES_MAX: usize = 16 << 20; // 16 MiB

/// Feeds that want the same. Most often it is one.
#[derive(Default)]
enum Members {
    #[default]
    None,
    One(Arc<Feed>),
    /// By address, so that one goes without a search.
    #[expect(
        clippy::box_collection,
        reason = "most often there is one, and there are many of these"
    )]
    Many(Box<HashMap<usize, Arc<Feed>>>),
}

/// All feeds with their readers, found by their filter; those with a live reader also by the topics they want.
#[derive(Default)]
pub(super) struct Feeds {
    by_filter: HashMap<Arc<Filter>, Known>,
    by_topic: Topics,
    by_pattern: Node,
    live: usize,
    streams: u64,
    /// Filters whose number of readers has changed, once somebody wants to know.
    changed: Option<HashSet<Arc<Filter>>>,
    /// Feeds without readers that hold frames, with their cost; those that have been so for longest first.
    idle: VecDeque<(Weak<Feed>, usize)>,
    idle_bytes: usize,
}

struct Known {
    feed: Arc<Feed>,
    /// Readers, live or not.
    readers: usize,
    /// Readers with a seat: the last one to leave takes the feed out of the index.
    seats: usize,
}

/// Feeds by the topics they want. There are many of these where readers want much, each for itself; so a topic's name is
/// where its feed has it already.
#[derive(Default)]
struct Topics {
    wanted: HashTable<Wanted>,
    hasher: RandomState,
}

enum Wanted {
    /// By this feed alone, as the topic at that place of its filter.
    One(u32, Arc<Feed>),
    Many(Box<(Topic, Members)>),
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
    /// How many have a live reader.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// How many readers there are, live or not.
    pub(super) fn streams(&self) -> u64 {
        self.streams
    }

    /// How many readers each filter has.
    pub(super) fn counts(&self) -> Vec<(Arc<Filter>, u64)> {
        let known = self.by_filter.iter().filter(|(_, known)| known.readers > 0);
        known
            .map(|(filter, known)| (Arc::clone(filter), known.readers as u64))
            .collect()
    }

    /// The same of those filters for which it has changed since this was asked last.
    pub(super) fn changed_counts(&mut self) -> Vec<(Arc<Filter>, u64)> {
        let changed = self.changed.replace(HashSet::new()).unwrap_or_default();
        let count = |filter: Arc<Filter>| {
            let known = self.by_filter.get(&filter);
            let count = known.map_or(0, |known| known.readers as u64);
            (filter, count)
        };
        changed.into_iter().map(count).collect()
    }

    fn note(&mut self, filter: &Arc<Filter>) {
        if let Some(changed) = &mut self.changed {
            changed.insert(Arc::clone(filter));
        }
    }

    /// Adds a reader to the feed of its filter.
    pub(super) fn enter(&mut self, filter: &Arc<Filter>) -> Arc<Feed> {
        self.streams += 1;
        self.note(filter);
        if let Some(known) = self.by_filter.get_mut(filter) {
            known.readers += 1;
            return Arc::clone(&known.feed);
        }
        let feed = Arc::new(Feed::new(Arc::clone(filter)));
        let known = Known {
            feed: Arc::clone(&feed),
            readers: 1,
            seats: 0,
        };
        self.by_filter.insert(Arc::clone(filter), known);
        feed
    }

    /// Takes a reader out of its feed. With the last one the feed goes, unless it holds frames for who comes back.
    pub(super) fn leave(&mut self, feed: &Arc<Feed>) {
        self.streams = self.streams.saturating_sub(1);
        self.note(&feed.filter);
        if let Some(known) = self.known(feed) {
            known.readers -= 1;
            self.tidy(feed);
        }
    }

    /// Forgets the feed if nobody has a use for it. One without readers that holds frames waits for who comes back.
    pub(super) fn tidy(&mut self, feed: &Arc<Feed>) {
        if !self.is_idle(feed) {
            return;
        }
        if !feed.holds_frames() {
            self.by_filter.remove(&feed.filter);
            return;
        }
        let bytes = feed.cost();
        self.idle.push_back((Arc::downgrade(feed), bytes));
        self.idle_bytes += bytes;
        while self.idle_bytes > IDLE_BYTES_MAX
            && let Some((oldest, bytes)) = self.idle.pop_front()
        {
            self.idle_bytes -= bytes;
            // It may have readers again, or be in the queue a second time.
            if let Some(oldest) = oldest.upgrade()
                && self.is_idle(&oldest)
            {
                oldest.forget_all();
                self.by_filter.remove(&oldest.filter);
            }
        }
    }

    fn is_idle(&mut self, feed: &Arc<Feed>) -> bool {
        self.known(feed)
            .is_some_and(|known| known.readers == 0 && known.seats == 0)
    }

    /// Gives a reader a seat: the feed has all events beyond `from`, or from earlier on.
    pub(super) fn sit(&mut self, feed: &Arc<Feed>, from: u64) {
        let Some(known) = self.known(feed) else {
            return;
        };
        known.seats += 1;
        if known.seats > 1 {
            return;
        }
        feed.begin(from);
        self.live += 1;
        self.by_topic.insert(feed);
        for pattern in feed.filter.patterns() {
            self.by_pattern.members(pattern).insert(feed);
        }
    }

    /// Takes a reader's seat.
    pub(super) fn rise(&mut self, feed: &Arc<Feed>) {
        let Some(known) = self.known(feed) else {
            return;
        };
        // A seat that was taken after the hub ended its streams was not counted.
        if known.seats == 0 {
            return;
        }
        known.seats -= 1;
        if known.seats > 0 {
            return;
        }
        feed.end();
        self.live -= 1;
        self.by_topic.remove(feed);
        for pattern in feed.filter.patterns() {
            self.by_pattern.remove(pattern.as_str().split('/'), feed);
        }
        self.tidy(feed);
    }

    /// Ends all feeds: their readers see the end.
    pub(super) fn end(&mut self) {
        for known in self.by_filter.values() {
            known.feed.end();
        }
        *self = Self::default();
    }

    /// The log ends there now: no feed holds anything, and all readers look again.
    pub(super) fn cut(&mut self, at: u64) {
        for known in self.by_filter.values() {
            known.feed.cut(at);
        }
    }

    /// What is known of a feed; nothing once it was forgotten.
    fn known(&mut self, feed: &Arc<Feed>) -> Option<&mut Known> {
        let known = self.by_filter.get_mut(&feed.filter)?;
        Arc::ptr_eq(&known.feed, feed).then_some(known)
    }

    /// Calls `found` for each feed that wants events of the topic; for one that wants them for several reasons,
    /// several times.
    pub(super) fn each_match(&self, topic: &Topic, mut found: impl FnMut(&Arc<Feed>)) {
        self.by_topic.each(topic, &mut found);
        if !self.by_pattern.is_empty() {
            let segments: Vec<&str> = topic.as_str().split('/').collect();
            self.by_pattern.each_match(&segments, &mut found);
        }
    }
}

impl Topics {
    fn insert(&mut self, feed: &Arc<Feed>) {
        for (index, topic) in (0..).zip(feed.filter.topics()) {
            let hash = self.hasher.hash_one(topic);
            let rehash = |wanted: &Wanted| {
                wanted
                    .topic()
                    .map_or(0, |topic| self.hasher.hash_one(topic))
            };
            let same = |wanted: &Wanted| wanted.topic() == Some(topic);
            match self.wanted.entry(hash, same, rehash) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Wanted::One(index, Arc::clone(feed)));
                }
                Entry::Occupied(mut wanted) => wanted.get_mut().add(topic, feed),
            }
        }
    }

    fn remove(&mut self, feed: &Arc<Feed>) {
        for topic in feed.filter.topics() {
            let hash = self.hasher.hash_one(topic);
            let same = |wanted: &Wanted| wanted.topic() == Some(topic);
            if let Ok(mut wanted) = self.wanted.find_entry(hash, same)
                && wanted.get_mut().remove(feed)
            {
                wanted.remove();
            }
        }
    }

    fn each(&self, topic: &Topic, found: &mut impl FnMut(&Arc<Feed>)) {
        let hash = self.hasher.hash_one(topic);
        let same = |wanted: &Wanted| wanted.topic() == Some(topic);
        match self.wanted.find(hash, same) {
            None => {}
            Some(Wanted::One(_, feed)) => found(feed),
            Some(Wanted::Many(many)) => many.1.each(found),
        }
    }
}

impl Wanted {
    fn topic(&self) -> Option<&Topic> {
        match self {
            Self::One(index, feed) => feed.filter.topics().get(*index as usize),
            Self::Many(many) => Some(&many.0),
        }
    }

    fn add(&mut self, topic: &Topic, feed: &Arc<Feed>) {
        if let Self::One(_, one) = self {
            let one = Members::One(Arc::clone(one));
            *self = Self::Many(Box::new((topic.clone(), one)));
        }
        if let Self::Many(many) = self {
            many.1.insert(feed);
        }
    }

    /// Gives whether nobody wants the topic any more.
    fn remove(&mut self, feed: &Arc<Feed>) -> bool {
        match self {
            Self::One(_, one) => Arc::ptr_eq(one, feed),
            Self::Many(many) => many.1.remove(feed),
        }
    }
}

fn address(feed: &Arc<Feed>) -> usize {
    Arc::as_ptr(feed).addr()
}

impl Members {
    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn insert(&mut self, feed: &Arc<Feed>) {
        match std::mem::take(self) {
            Self::None => *self = Self::One(Arc::clone(feed)),
            Self::One(one) => {
                let both = [one, Arc::clone(feed)];
                let both = both.map(|feed| (address(&feed), feed));
                *self = Self::Many(Box::new(HashMap::from(both)));
            }
            Self::Many(mut feeds) => {
                feeds.insert(address(feed), Arc::clone(feed));
                *self = Self::Many(feeds);
            }
        }
    }

    /// Gives whether none is left.
    fn remove(&mut self, feed: &Arc<Feed>) -> bool {
        let empty = match self {
            Self::None => true,
            Self::One(one) => Arc::ptr_eq(one, feed),
            Self::Many(feeds) => {
                feeds.remove(&address(feed));
                feeds.is_empty()
            }
        };
        if empty {
            *self = Self::None;
        }
        empty
    }

    fn each(&self, found: &mut impl FnMut(&Arc<Feed>)) {
        match self {
            Self::None => {}
            Self::One(feed) => found(feed),
            Self::Many(feeds) => feeds.values().for_each(found),
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

    fn remove<'a>(&mut self, mut pattern: impl Iterator<Item = &'a str>, feed: &Arc<Feed>) {
        match pattern.next() {
            None => drop(self.ends.remove(feed)),
            Some("**") => drop(self.rest.remove(feed)),
            Some("*") => {
                if let Some(node) = &mut self.any {
                    node.remove(pattern, feed);
                    self.any.take_if(|node| node.is_empty());
                }
            }
            Some(name) => {
                if let Some(node) = self.literal.get_mut(name) {
                    node.remove(pattern, feed);
                    if node.is_empty() {
                        self.literal.remove(name);
                    }
                }
            }
        }
    }

    fn each_match(&self, segments: &[&str], found: &mut impl FnMut(&Arc<Feed>)) {
        let Some((first, later)) = segments.split_first() else {
            return self.ends.each(found);
        };
        self.rest.each(found);
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

    fn feeds_of(feeds: &Feeds, topic: &Topic) -> Vec<usize> {
        let mut found = Vec::new();
        feeds.each_match(topic, |feed| found.push(address(feed)));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Topics and patterns over a tiny alphabet, so that they meet often.
    fn path(segments: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(segments), 1..4)
            .prop_map(|parts| parts.join("/"))
    }

    #[test]
    fn topics_are_found_however_many_there_are() {
        let mut feeds = Feeds::default();
        let name = |n: usize| format!("topic/{n}");
        let readers: Vec<Arc<Feed>> = (0..500)
            .map(|n| {
                let texts = [name(n), name(n + 1), "shared".to_owned()];
                let filter = Filter::parse(texts.iter().map(String::as_str));
                let feed = feeds.enter(&Arc::new(filter.unwrap().unwrap()));
                feeds.sit(&feed, 0);
                feed
            })
            .collect();
        let count = |feeds: &Feeds, text: &str| feeds_of(feeds, &Topic::parse(text).unwrap()).len();
        for n in 1..500 {
            assert_eq!(count(&feeds, &name(n)), 2, "{n}");
        }
        assert_eq!(count(&feeds, "shared"), 500);
        for feed in &readers[1..] {
            feeds.rise(feed);
        }
        assert_eq!((count(&feeds, &name(1)), count(&feeds, &name(2))), (1, 0));
        assert_eq!(count(&feeds, "shared"), 1);
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
                    let feed = feeds.enter(&Arc::new(filter));
                    feeds.sit(&feed, 0);
                    readers.push(feed);
                }
            }
            let mut gone = removed.into_iter();
            readers.retain(|feed| {
                let stays = !gone.next().unwrap_or_default();
                if !stays {
                    feeds.rise(feed);
                    feeds.leave(feed);
                }
                stays
            });
            for topic in topics.iter().filter_map(|text| Topic::parse(text).ok()) {
                let matching = readers.iter().filter(|feed| feed.filter.matches(&topic));
                let mut naive: Vec<usize> = matching.map(address).collect();
                naive.sort_unstable();
                naive.dedup();
                prop_assert_eq!(feeds_of(&feeds, &topic), naive, "{}", topic);
            }
            for feed in &readers {
                feeds.rise(feed);
                feeds.leave(feed);
            }
            prop_assert!(feeds.by_pattern.is_empty() && feeds.by_topic.wanted.is_empty() && feeds.by_filter.is_empty());
        }
    }
}
