//! The load: one thread, one loop over all sockets, one buffer for all of them. It reads millions of events in a
//! second, so it keeps nothing per event and wakes no task.

use super::{
    args::{Interest, Target},
    meter::{Meter, Snapshot},
    publisher::Publisher,
    reader::Reader,
    schedule::Schedule,
    socket::Dialer,
    stamp::Marker,
    system::{self, Processes},
    target::{Hub, Publish, check_size},
    tracker::{Lanes, Tracker},
    transport::Request,
};
use anyhow::Context as _;
use mio::{Events, Poll, Token};
use std::{
    io,
    time::{Duration, Instant},
};

/// What one call reads at most: as much as stays in a core's second cache while it is looked through.
const READ_BYTES: usize = 256 << 10; // 256 KiB

/// Tokens from here on are publishers'.
pub(super) const PUBLISHERS: usize = 1 << 30;

/// A wait is no longer, so that deadlines are looked at.
const WAIT: Duration = Duration::from_millis(20);

/// What is published and read, apart from how fast.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) readers: usize,
    pub(super) topics: u32,
    /// What the names of topics end with.
    pub(super) topic_end: String,
    pub(super) connections: u32,
    pub(super) interest: Interest,
    /// Events in one publish.
    pub(super) array: Option<usize>,
}

/// A load on one hub.
pub(super) struct Load {
    pub(super) hub: Hub,
    pub(super) server: Option<Processes>,
    pub(super) meter: Meter,
    pub(super) tracker: Tracker,
    pub(super) readers: Vec<Reader>,
    pub(super) marker: Marker,
    pub(super) size: usize,
    pub(super) lanes: Lanes,
    pub(super) publishers: Vec<Publisher>,
    pub(super) schedule: Schedule,
    pub(super) patience: Duration,
    interest: Interest,
    /// Readers ask for a pattern each instead: of one more segment, and any.
    pub(super) patterns_below: Option<String>,
    topics: Vec<String>,
    pub(super) publishes: Vec<Publish>,
    /// Events sent, per lane.
    pub(super) sent: Vec<u32>,
    /// Readers that are to get what is published, per topic.
    pub(super) audience: Vec<u32>,
    /// Deliveries that are to come, of the events that were sent.
    pub(super) expected: u64,
    pub(super) dialer: Dialer,
    read_dialer: Dialer,
    pub(super) poll: Poll,
    events: Events,
    pub(super) buffer: Vec<u8>,
    begun: Instant,
}

impl Load {
    pub(super) fn new(target: &Target, shape: &Shape) -> anyhow::Result<Self> {
        check_size(target.size)?;
        anyhow::ensure!(
            shape.connections > 0,
            "--connections 0: expected at least one"
        );
        if let Some(cpu) = target.cpu {
            system::pin(cpu)?;
        }
        // Each connection is an open file.
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
        let wanted = shape.readers as u64 + u64::from(shape.connections) + 32;
        anyhow::ensure!(
            wanted <= files,
            "{} readers need {wanted} open files, and the limit is {files}; see ulimit -n",
            shape.readers
        );
        let hub = Hub::new(target, shape.interest.transport)?;
        let run: u32 = rand::random();
        let topics: Vec<_> = (0..shape.topics)
            .map(|n| format!("bench-{run:08x}-{n}{}", shape.topic_end))
            .collect();
        let publishes = topics.iter().map(|topic| match shape.array {
            None => hub.publish(topic, target.size),
            Some(events) => hub.publish_array(topic, events, target.size),
        });
        let lanes = Lanes {
            topics: shape.topics,
            connections: shape.connections,
        };
        let server = match target.pid {
            Some(pid) => Some(Processes::of(pid)),
            None if hub.address.ip().is_loopback() => Processes::listening(hub.address.port()),
            None => None,
        };
        let mut publishers = Vec::new();
        publishers.resize_with(shape.connections as usize, Publisher::default);
        let readers = (0..shape.readers).map(|n| Reader::new(n as u32 % shape.topics));
        Ok(Self {
            server,
            meter: Meter::new()?,
            tracker: Tracker::new(lanes, shape.readers),
            readers: readers.collect(),
            marker: Marker::new(run),
            size: target.size,
            publishers,
            schedule: Schedule::default(),
            patience: target.patience,
            interest: shape.interest.clone(),
            patterns_below: None,
            publishes: publishes.collect(),
            sent: vec![0; lanes.count() as usize],
            audience: vec![0; shape.topics as usize],
            expected: 0,
            lanes,
            topics,
            dialer: Dialer::new(hub.address),
            read_dialer: Dialer::new(hub.read_address),
            poll: Poll::new().context("cannot wait for sockets")?,
            events: Events::with_capacity(1_024),
            buffer: vec![0; READ_BYTES],
            begun: Instant::now(),
            hub,
        })
    }

    /// Nanoseconds since the run began.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Looks which processes the server has by now: some start their workers after they listen.
    pub(super) fn look_for_server(&mut self) {
        if let Some(server) = &mut self.server {
            *server = Processes::of(server.root());
        }
    }

    pub(super) fn topic(&self, topic: u32) -> &str {
        &self.topics[topic as usize]
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let published = self.meter.published;
        let delivered = self.tracker.delivered();
        Snapshot::take(self.now_ns(), delivered, published, self.server.as_ref())
    }

    /// Has readers expect only what is sent from now on.
    pub(super) fn skip_sent(&mut self) {
        for (at, reader) in self.readers.iter().enumerate() {
            for lane in self.lanes.of_topic(reader.topic) {
                let seq = self.sent[lane as usize];
                self.tracker.skip(at, reader.topic, lane, seq);
            }
        }
    }

    /// What a reader asks for.
    fn request(&self, at: usize) -> Request {
        if let Some(below) = &self.patterns_below {
            return self
                .hub
                .subscribe_filter(&[format!("{below}/{at}/*")], None);
        }
        let reader = &self.readers[at];
        let topic = self.topic(reader.topic).to_owned();
        let own = match self.interest.own_filter {
            Some(topics) => 1..topics,
            None => 0..0,
        };
        let own = own.map(|n| format!("{topic}-{at}-{n}"));
        let topics: Vec<_> = [topic.clone()].into_iter().chain(own).collect();
        self.hub.subscribe(&topics, reader.last_id())
    }

    /// Begins a reader's connection, from its last id on if it keeps one.
    pub(super) fn begin_reader(&mut self, at: usize) -> anyhow::Result<()> {
        let request = self.request(at);
        self.begin_reader_with(at, request)
    }

    pub(super) fn begin_reader_with(&mut self, at: usize, request: Request) -> anyhow::Result<()> {
        let Self {
            readers,
            read_dialer,
            poll,
            hub,
            ..
        } = self;
        readers[at]
            .connect(read_dialer, poll.registry(), Token(at), request)
            .with_context(|| format!("cannot connect to {}", hub.read_address))
    }

    /// Sends what is due, waits for sockets, and does what they are ready for.
    pub(super) fn turn(&mut self) -> anyhow::Result<()> {
        self.send_due();
        let wait = self
            .schedule
            .wait_ns(self.now_ns())
            .map_or(WAIT, Duration::from_nanos);
        // The kernel waits in whole milliseconds: what is due earlier is waited for awake.
        let wait = Duration::from_millis(u64::try_from(wait.min(WAIT).as_millis()).unwrap_or(0));
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result.context("cannot wait for sockets")?,
        }
        for event in &events {
            let closed = event.is_read_closed() || event.is_error();
            match event.token().0 {
                token if token >= PUBLISHERS => {
                    self.serve_publisher(token - PUBLISHERS, event.is_readable() || closed);
                }
                at => self.serve_reader(at, event.is_readable() || closed),
            }
            if self.schedule.is_paced() {
                self.send_due();
            }
        }
        self.events = events;
        Ok(())
    }
}
