//! The load: one thread, one loop over all sockets, one buffer for all of them. It reads millions of events in a
//! second, so it keeps nothing per event and wakes no task.

use super::{
    args::{Interest, Target},
    meter::{Meter, Snapshot},
    publisher::{Due, Publisher},
    reader::{Reader, State, keep_tail},
    schedule::Schedule,
    socket::Dialer,
    stamp::{Marker, PROBE},
    system::{self, Processes},
    target::{Hub, Publish, check_size},
    tracker::{Faults, Lanes, Tracker},
};
use anyhow::Context as _;
use mio::{Events, Poll, Token};
use std::{
    io::{self, Read as _},
    time::{Duration, Instant},
};

/// What one call reads at most: as much as stays in a core's second cache while it is looked through.
const READ_BYTES: usize = 256 << 10; // 256 KiB

/// Connections that are being opened at a time, so that no listener's queue overflows.
const OPENING_MAX: usize = 256;

/// Tokens from here on are publishers'.
const PUBLISHERS: usize = 1 << 30;

/// A wait is no longer, so that deadlines are looked at.
const WAIT: Duration = Duration::from_millis(20);

/// What is published and read, apart from how fast.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) readers: usize,
    pub(super) topics: u32,
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
    patience: Duration,
    interest: Interest,
    topics: Vec<String>,
    publishes: Vec<Publish>,
    /// Events sent, per lane.
    pub(super) sent: Vec<u32>,
    /// Readers that are to get what is published, per topic.
    audience: Vec<u32>,
    /// Deliveries that are to come, of the events that were sent.
    pub(super) expected: u64,
    dialer: Dialer,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
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
        let hub = Hub::new(target)?;
        let run: u32 = rand::random();
        let topics: Vec<_> = (0..shape.topics)
            .map(|n| format!("bench-{run:08x}-{n}"))
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
            publishes: publishes.collect(),
            sent: vec![0; lanes.count() as usize],
            audience: vec![0; shape.topics as usize],
            expected: 0,
            lanes,
            topics,
            dialer: Dialer::new(hub.address),
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

    pub(super) fn topic(&self, topic: u32) -> &str {
        &self.topics[topic as usize]
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let published = self.meter.published;
        let delivered = self.tracker.delivered();
        Snapshot::take(self.now_ns(), delivered, published, self.server.as_ref())
    }

    /// What a reader asks for.
    fn request(&self, at: usize) -> Vec<u8> {
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

    pub(super) fn begin_reader_with(&mut self, at: usize, request: Vec<u8>) -> anyhow::Result<()> {
        let Self {
            readers,
            dialer,
            poll,
            hub,
            ..
        } = self;
        readers[at]
            .connect(dialer, poll.registry(), Token(at), request)
            .with_context(|| format!("cannot connect to {}", hub.host()))
    }

    /// Opens readers' streams, so many of them, and waits until all are open.
    pub(super) fn open_readers(&mut self, which: std::ops::Range<usize>) -> anyhow::Result<()> {
        let mut patience = Patience::new(self.patience);
        let mut next = which.start;
        loop {
            let count = |load: &Self, state| {
                load.readers[which.clone()]
                    .iter()
                    .filter(|one| one.state == state)
                    .count()
            };
            let mut opening = count(self, State::Connecting) + count(self, State::Waiting);
            while opening < OPENING_MAX && next < which.end {
                self.begin_reader(next)?;
                next += 1;
                opening += 1;
            }
            if opening == 0 {
                break;
            }
            self.turn()?;
            self.check_readers()?;
            let open = count(self, State::Open);
            patience.check(open as u64, || {
                format!("{opening} of the streams did not open")
            })?;
        }
        for at in which {
            if !self.readers[at].stalls {
                self.audience[self.readers[at].topic as usize] += 1;
            }
        }
        Ok(())
    }

    /// Ends a run whose streams are refused.
    pub(super) fn check_readers(&self) -> anyhow::Result<()> {
        if self.meter.lost_readers == 0 {
            return Ok(());
        }
        let refused = self.readers.iter().find(|one| one.state == State::Lost);
        match refused.and_then(|one| one.response.status()) {
            Some(200) | None => anyhow::bail!(
                "{} ended a stream, or the connection failed",
                self.hub.host()
            ),
            Some(status) => anyhow::bail!(
                "{} answered a stream's request with {status}",
                self.hub.host()
            ),
        }
    }

    /// Publishes events that are not counted until each reader has got one: an open stream may not be joined yet.
    pub(super) fn probe(&mut self) -> anyhow::Result<()> {
        const AGAIN: Duration = Duration::from_millis(250);
        let mut patience = Patience::new(self.patience);
        loop {
            let unready = self.readers.iter();
            let unready =
                unready.filter(|one| !one.is_ready && !one.stalls && one.state == State::Open);
            let mut topics: Vec<_> = unready.map(|one| one.topic).collect();
            let count = topics.len();
            if count == 0 {
                break;
            }
            topics.sort_unstable();
            topics.dedup();
            let at_ns = self.now_ns();
            for topic in topics {
                let lane = PROBE;
                self.publish(
                    topic as usize % self.publishers.len(),
                    Due { at_ns, topic, lane },
                );
            }
            let until = Instant::now() + AGAIN;
            while Instant::now() < until
                && (self.in_flight() > 0
                    || self.readers.iter().any(|one| !one.is_ready && !one.stalls))
            {
                self.turn()?;
            }
            patience.check(count as u64, || format!("{count} readers got nothing"))?;
        }
        self.settle()?;
        self.check_readers()?;
        self.check_refused()
    }

    /// Publishes that wait for an answer, or to be sent.
    pub(super) fn in_flight(&self) -> usize {
        let publishers = self.publishers.iter();
        publishers
            .map(|one| usize::from(one.flight.is_some()) + one.backlog.len())
            .sum()
    }

    /// Waits for the answers of all publishes.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        let mut patience = Patience::new(self.patience);
        while self.in_flight() > 0 {
            self.turn()?;
            let done = self.meter.published + self.meter.refused;
            // Probes are not counted.
            let done = done + u64::MAX / 2 - self.in_flight() as u64;
            patience.check(done, || "publishes got no answer".to_owned())?;
        }
        Ok(())
    }

    /// Waits until every reader got everything, or nothing more comes: then there are gaps.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        self.settle()?;
        let mut patience = Patience::new(self.patience);
        while self.tracker.delivered() < self.expected {
            self.turn()?;
            if patience
                .check(self.tracker.delivered(), String::new)
                .is_err()
            {
                break;
            }
        }
        Ok(())
    }

    /// Ends a run whose publishes are refused.
    pub(super) fn check_refused(&self) -> anyhow::Result<()> {
        let why = self.meter.refusal.as_deref().unwrap_or_default();
        anyhow::ensure!(self.meter.refused == 0, "a publish was refused: {why}");
        Ok(())
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn events_per_publish(&self) -> u64 {
        self.publishes
            .first()
            .map_or(1, |publish| publish.data_at.len().max(1) as u64)
    }

    /// Events sent so far.
    pub(super) fn sent_in_all(&self) -> u64 {
        self.sent.iter().map(|count| u64::from(*count)).sum()
    }

    /// What was wrong in the end.
    pub(super) fn faults(&self) -> Faults {
        let open = self.readers.iter().enumerate();
        let open = open.filter(|(_, one)| !one.stalls && one.state != State::Away);
        self.tracker
            .finish(&self.sent, open.map(|(at, one)| (at, one.topic)))
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

    fn serve_reader(&mut self, at: usize, readable: bool) {
        let reader = &mut self.readers[at];
        if reader.state == State::Connecting && reader.send_request().is_err() {
            return self.lose_reader(at);
        }
        if readable && self.read(at).is_err() {
            self.lose_reader(at);
        }
    }

    fn lose_reader(&mut self, at: usize) {
        let reader = &mut self.readers[at];
        if reader.stream.take().is_some() {
            reader.state = State::Lost;
            self.meter.lost_readers += 1;
        }
    }

    /// Reads what there is. An error is a stream that has ended.
    fn read(&mut self, at: usize) -> io::Result<()> {
        loop {
            let Some(stream) = &mut self.readers[at].stream else {
                return Ok(());
            };
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let now = self.now_ns();
            self.look_through(at, count, now)?;
            let reader = &mut self.readers[at];
            if reader.opened() && reader.stalls {
                return reader.stall(self.poll.registry());
            }
            if reader.state != State::Open {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn look_through(&mut self, at: usize, count: usize, now: u64) -> io::Result<()> {
        let Self {
            readers,
            tracker,
            meter,
            marker,
            buffer,
            size,
            ..
        } = self;
        let Reader {
            response,
            carry,
            tail,
            is_ready,
            topic,
            ..
        } = &mut readers[at];
        let fed = response.feed(&buffer[..count], |piece| {
            if let Some(tail) = tail {
                keep_tail(tail, piece);
            }
            marker.scan(carry, piece, *size, |stamp| {
                *is_ready = true;
                if stamp.lane == PROBE || !tracker.note(at, *topic, stamp.lane, stamp.seq) {
                    return;
                }
                meter.last_delivery_ns = now;
                if stamp.time_ns >= meter.from_ns {
                    meter.latency.note_ns(now.saturating_sub(stamp.time_ns));
                }
            });
        });
        fed.map_err(io::Error::other)
    }

    fn serve_publisher(&mut self, at: usize, readable: bool) {
        let flushed = self.publishers[at].flush();
        let ended = flushed.and_then(|()| {
            if readable {
                self.read_answer(at)
            } else {
                Ok(())
            }
        });
        if let Err(error) = ended {
            let publisher = &mut self.publishers[at];
            publisher.close();
            if let Some(flight) = publisher.flight.take() {
                self.refuse(u64::from(flight.events), &error.to_string());
                self.next_of(at);
            }
        }
    }

    fn read_answer(&mut self, at: usize) -> io::Result<()> {
        loop {
            let publisher = &mut self.publishers[at];
            let Some(stream) = publisher.stream() else {
                return Ok(());
            };
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let fed = publisher.response.feed(&self.buffer[..count], |_| ());
            fed.map_err(io::Error::other)?;
            if publisher.response.is_done() {
                self.answered(at);
            }
        }
    }

    fn answered(&mut self, at: usize) {
        let publisher = &mut self.publishers[at];
        let status = publisher.response.status().unwrap_or(0);
        let Some(flight) = publisher.flight.take() else {
            return;
        };
        let events = u64::from(flight.events);
        if !(200..300).contains(&status) {
            self.refuse(events, &format!("status {status}"));
        } else if flight.due.lane != PROBE {
            self.meter.published += events;
            if flight.due.at_ns >= self.meter.from_ns {
                let taken = self.now_ns() - flight.due.at_ns;
                self.meter.answers.note_ns(taken);
            }
        }
        self.next_of(at);
    }

    pub(super) fn refuse(&mut self, events: u64, why: &str) {
        self.meter.refused += events;
        self.meter.refusal.get_or_insert_with(|| why.to_owned());
    }

    /// Sends a connection's next publish, if there is one.
    fn next_of(&mut self, at: usize) {
        let due = self.publishers[at]
            .backlog
            .pop_front()
            .or_else(|| self.next_saturated(at));
        if let Some(due) = due {
            self.publish(at, due);
        } else {
            self.schedule.idle.push(at);
        }
    }

    /// Has a connection publish, now or as soon as it has its answer.
    pub(super) fn publish(&mut self, at: usize, due: Due) {
        if self.publishers[at].flight.is_some() {
            self.publishers[at].backlog.push_back(due);
            return;
        }
        let publish = &self.publishes[due.topic as usize];
        let mut seq = 0;
        if let Some(sent) = self.sent.get_mut(due.lane as usize) {
            let events = publish.data_at.len() as u32;
            seq = *sent;
            *sent += events;
            self.expected += u64::from(events) * u64::from(self.audience[due.topic as usize]);
        }
        let publisher = &mut self.publishers[at];
        let mut result = Ok(());
        if publisher.stream().is_none() {
            let token = Token(PUBLISHERS + at);
            result = publisher.connect(&mut self.dialer, self.poll.registry(), token);
        }
        let result = result.and_then(|()| publisher.send(&self.marker, publish, due, seq));
        if let Err(error) = result {
            publisher.close();
            publisher.flight = None;
            self.refuse(publish.data_at.len() as u64, &error.to_string());
        }
    }
}

/// How long nothing may happen.
pub(super) struct Patience {
    limit: Duration,
    seen: Option<u64>,
    since: Instant,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            seen: None,
            since: Instant::now(),
        }
    }

    /// Ends the wait when `progress` has not changed for too long.
    pub(super) fn check(
        &mut self,
        progress: u64,
        what: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.seen != Some(progress) {
            self.seen = Some(progress);
            self.since = Instant::now();
        }
        anyhow::ensure!(
            self.since.elapsed() < self.limit,
            "{} within {:?}",
            what(),
            self.limit
        );
        Ok(())
    }
}
