//! What is held of frames over all feeds, bounded in bytes.

use super::{feed::Feed, frame::Frame};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The frames of all feeds, oldest first: past the bound those go, and readers use the log.
pub(super) struct FrameCache {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    frames: VecDeque<Entry>,
}

struct Entry {
    feed: Weak<Feed>,
    frame: Weak<Frame>,
    bytes: usize,
}

impl FrameCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            held: Mutex::default(),
        }
    }

    /// Counts a feed's new frames. Gives the feeds that lost their last frame for it.
    pub(super) fn add(&self, feed: &Arc<Feed>, frames: &[Arc<Frame>]) -> Vec<Arc<Feed>> {
        let mut over = Vec::new();
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            for frame in frames {
                let bytes = frame.cost();
                held.bytes += bytes;
                held.frames.push_back(Entry {
                    feed: Arc::downgrade(feed),
                    frame: Arc::downgrade(frame),
                    bytes,
                });
            }
            while held.bytes > self.bytes_max
                && let Some(entry) = held.frames.pop_front()
            {
                held.bytes -= entry.bytes;
                over.push(entry);
            }
        }
        let mut emptied = Vec::new();
        for entry in over {
            if let Some(feed) = entry.feed.upgrade()
                && feed.forget(&entry.frame)
            {
                emptied.push(feed);
            }
        }
        emptied
    }
}
