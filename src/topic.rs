//! Names of topics, and the filters that select them. Compared byte by byte; no engine, no HTTP.

use std::{borrow::Borrow, fmt, sync::Arc};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// The longest topic, in bytes of UTF-8.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// First segments that begin so belong to the hub.
pub const RESERVED_PREFIX: &str = "tidings.";

/// The name of a stream of events: 1 to 1,024 bytes of UTF-8, without control or format characters.
///
/// `/` separates segments, which may be empty (`https://example.com/books/1` is a topic). Never
/// among them: `.` and `..` (URL parsers remove them), `*` and `**` (patterns); the first one
/// never begins with `tidings.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A selection of topics in which `*` is one segment and a final `**` is one or more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// What a reader asked for: topics and patterns, sorted, each once, never empty.
///
/// Equal filters make one feed, whatever order they were asked for in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    topics: Box<[Topic]>,
    patterns: Box<[Pattern]>,
}

/// Why a text is no topic, or no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No bytes at all.
    #[error("the topic is empty")]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`].
    #[error("the topic is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// A character of Unicode's categories Cc or Cf.
    #[error("the topic has a control or format character")]
    Control,
    /// A segment `.` or `..`.
    #[error("the topic has a segment `.` or `..`, which URL parsers remove")]
    Dots,
    /// A segment `*` or `**` where only a topic may stand.
    #[error("`*` and `**` are patterns, which are for reading: an event has one topic")]
    Wildcard,
    /// `**` before the last segment.
    #[error("`**` may only be the last segment of a pattern")]
    InnerRest,
    /// The first segment begins with [`RESERVED_PREFIX`].
    #[error("topics that begin with `{RESERVED_PREFIX}` are reserved for the hub")]
    Reserved,
}

fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    let unseen = |c: char| {
        // ASCII has no format characters, and needs no table.
        c.is_ascii_control()
            || (!c.is_ascii()
                && matches!(
                    c.general_category(),
                    GeneralCategory::Control | GeneralCategory::Format
                ))
    };
    if text.chars().any(unseen) {
        return Err(TopicError::Control);
    }
    if text.starts_with(RESERVED_PREFIX) {
        return Err(TopicError::Reserved);
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(TopicError::Dots);
    }
    Ok(())
}

impl Topic {
    /// Checks a name that came from outside, already percent-decoded.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the one who sent it.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        if text.split('/').any(|segment| matches!(segment, "*" | "**")) {
            return Err(TopicError::Wildcard);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Checks a pattern that came from outside; one without wildcards is an exact name.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the one who sent it.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        let mut segments = text.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment == "**" && segments.peek().is_some() {
                return Err(TopicError::InnerRest);
            }
        }
        Ok(Self(text.into()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes that each topic it matches begins with: all before its first wildcard.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        let mut end = 0;
        for segment in self.0.split('/') {
            if matches!(segment, "*" | "**") {
                return &self.0[..end];
            }
            end += segment.len() + 1;
        }
        &self.0
    }

    /// Whether it selects the topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut names = topic.0.split('/');
        for segment in self.0.split('/') {
            let Some(name) = names.next() else {
                return false;
            };
            match segment {
                "**" => return true,
                "*" => {}
                literal if literal == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Filter {
    /// The filter of exactly one topic.
    #[must_use]
    pub fn topic(topic: Topic) -> Self {
        Self {
            topics: Box::new([topic]),
            patterns: Box::new([]),
        }
    }

    /// The filter of some topics and patterns, or `None` of none at all.
    ///
    /// # Errors
    ///
    /// The text that is neither, and why.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Self>, (&'a str, TopicError)> {
        let (mut topics, mut patterns) = (Vec::new(), Vec::new());
        for text in texts {
            if text.split('/').any(|segment| matches!(segment, "*" | "**")) {
                patterns.push(Pattern::parse(text).map_err(|error| (text, error))?);
            } else {
                topics.push(Topic::parse(text).map_err(|error| (text, error))?);
            }
        }
        topics.sort_unstable();
        topics.dedup();
        patterns.sort_unstable();
        patterns.dedup();
        let filter = Self {
            topics: topics.into(),
            patterns: patterns.into(),
        };
        Ok((!filter.is_empty()).then_some(filter))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.patterns.is_empty()
    }

    /// Its exact topics, sorted.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Its patterns, sorted; each has at least one wildcard.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// How many topics and patterns it has; one at least.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.topics().len() + self.patterns().len()
    }

    /// Whether it selects the topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        self.topics.binary_search(topic).is_ok()
            || self.patterns.iter().any(|pattern| pattern.matches(topic))
    }
}
