//! One reader of the crowd: follows its filter from the beginning to the end of the load, over any number of streams on any
//! node, and notes what it got.

use super::{Event, feed::Feed, load::Shared, publisher::TOPICS};
use std::{future::pending, sync::Arc, time::Duration};
use tidings::cursor::Cursor;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a reader that wanders stays, in ms.
const STAY_MS: std::ops::Range<u64> = 200..4_000;

/// Before a reader that was sent away, or found nobody, tries another node.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Said at the end of the load, to all readers.
pub(super) const END: &str = "end";
pub(super) const END_TOPIC: &str = "load/end";

/// What a reader wants of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    All,
    OfPublisher(usize),
    /// A pattern in the middle.
    OfTopic(u32),
    /// One exact topic of one publisher.
    One(usize, u32),
}

impl Want {
    /// One of them, in turn.
    pub(super) fn of(reader: usize) -> Self {
        match reader % 9 {
            0 => Self::All,
            n @ 1..=3 => Self::OfPublisher(n - 1),
            n @ 4..=7 => Self::OfTopic(n as u32 - 4),
            _ => Self::One(reader / 9 % 3, reader as u32 % TOPICS),
        }
    }

    pub(super) fn matches(self, event: &Event) -> bool {
        let topic = event.number % TOPICS;
        match self {
            Self::All => true,
            Self::OfPublisher(publisher) => event.publisher == publisher,
            Self::OfTopic(wanted) => topic == wanted,
            Self::One(publisher, wanted) => event.publisher == publisher && topic == wanted,
        }
    }

    fn path(self) -> String {
        let topic = match self {
            Self::All => "load/**".to_owned(),
            Self::OfPublisher(publisher) => format!("load/{publisher}/**"),
            Self::OfTopic(topic) => format!("load/*/{topic}"),
            Self::One(publisher, topic) => format!("load/{publisher}/{topic}"),
        };
        format!("/events?topic={topic}&topic={END_TOPIC}")
    }
}

pub(super) struct Reader {
    pub(super) index: usize,
    pub(super) want: Want,
    /// Goes to another node at random times. Who does not only goes when the stream ends.
    pub(super) wanders: bool,
    pub(super) shared: Arc<Shared>,
}

/// What a reader got.
pub(super) struct Received {
    pub(super) index: usize,
    pub(super) want: Want,
    pub(super) wanders: bool,
    pub(super) events: Vec<Event>,
    /// Before which of the events a gap was told.
    pub(super) gaps: Vec<usize>,
    /// Streams that were opened.
    pub(super) streams: usize,
    /// Streams that ended though the reader had not left them.
    pub(super) lost: usize,
}

impl Reader {
    pub(super) async fn run(self) -> Received {
        let nodes = self.shared.addresses.len();
        let mut node = self.index % nodes;
        let mut got = Received {
            index: self.index,
            want: self.want,
            wanders: self.wanders,
            events: Vec::new(),
            gaps: Vec::new(),
            streams: 0,
            lost: 0,
        };
        let mut last = None;
        while !self.stream(node, &mut last, &mut got).await {
            node = match self.wanders || nodes == 1 {
                true => rand::random_range(0..nodes),
                false => (node + rand::random_range(1..nodes)) % nodes,
            };
        }
        got
    }

    /// One stream. `true` if all has come.
    async fn stream(&self, node: usize, last: &mut Option<Cursor>, got: &mut Received) -> bool {
        let leave = Instant::now() + Duration::from_millis(rand::random_range(STAY_MS));
        let leaving = async {
            match self.wanders {
                true => sleep_until(leave).await,
                false => pending().await,
            }
        };
        tokio::pin!(leaving);
        let start = if last.is_none() {
            "&since=earliest"
        } else {
            ""
        };
        let path = format!("{}{start}", self.want.path());
        let id = last.map(|id| id.to_string());
        let opened = tokio::select! {
            opened = Feed::open(self.shared.addresses[node], &path, id.as_deref()) => opened,
            () = &mut leaving => return false,
        };
        let Ok(mut feed) = opened else {
            sleep(AGAIN_AFTER).await;
            return false;
        };
        got.streams += 1;
        loop {
            let goes_on = tokio::select! {
                goes_on = feed.more() => goes_on,
                () = &mut leaving => return false,
            };
            while let Some(block) = feed.block() {
                match block.event.as_str() {
                    "" => {}
                    "tidings.gap" => {
                        self.shared.gap(self.index, &block.data);
                        got.gaps.push(got.events.len());
                        continue;
                    }
                    // The stream's end follows.
                    "tidings.close" => continue,
                    _ => panic!("reader {}: {block:?}", self.index),
                }
                let at: Cursor = block.id.parse().expect("an id");
                if let Some(last) = *last
                    && (last.epoch != at.epoch || last.position >= at.position)
                {
                    let n = self.index;
                    self.shared
                        .complain(format!("reader {n} got {at} after {last} from node {node}"));
                }
                *last = Some(at);
                match Event::parse(&block) {
                    Some(event) => got.events.push(event),
                    None if block.data == END => return true,
                    None => {}
                }
            }
            if !goes_on {
                got.lost += 1;
                sleep(AGAIN_AFTER).await;
                return false;
            }
        }
    }
}
