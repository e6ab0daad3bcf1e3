//! When which connection publishes what: at given times whatever the answers, or as fast as they come.

use super::{load::Load, publisher::Due};

/// What is to be published from now on.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Nanoseconds from one event to the next; `None` is saturated.
    period_ns: Option<f64>,
    begun_ns: u64,
    /// Publishes given to connections.
    count: u64,
    count_max: u64,
    until_ns: u64,
    running: bool,
    /// Connections that had nothing to do when they were last asked.
    pub(super) idle: Vec<usize>,
}

impl Schedule {
    pub(super) fn is_paced(&self) -> bool {
        self.running && self.period_ns.is_some()
    }

    /// Nothing more will become due.
    fn is_over(&self, now: u64) -> bool {
        !self.running || self.count >= self.count_max || now >= self.until_ns
    }

    /// The time of the next event, if there is a schedule of times.
    fn next_ns(&self) -> Option<u64> {
        let period = self
            .period_ns
            .filter(|_| self.running && self.count < self.count_max)?;
        let at = self.begun_ns + (self.count as f64 * period) as u64;
        (at < self.until_ns).then_some(at)
    }

    /// How long nothing is due.
    pub(super) fn wait_ns(&self, now: u64) -> Option<u64> {
        self.next_ns().map(|at| at.saturating_sub(now))
    }
}

impl Load {
    /// Begins to publish: at so many per second, else saturated; until a time and up to a number of publishes.
    pub(super) fn start(&mut self, rate: Option<f64>, count_max: u64, until_ns: u64) {
        self.schedule = Schedule {
            period_ns: rate.map(|rate| 1e9 / rate),
            begun_ns: self.now_ns(),
            count: 0,
            count_max,
            until_ns,
            running: true,
            idle: (0..self.publishers.len()).collect(),
        };
        if rate.is_none() {
            for at in std::mem::take(&mut self.schedule.idle) {
                if let Some(due) = self.next_saturated(at) {
                    self.publish(at, due);
                }
            }
        }
    }

    /// Whether all was sent, though perhaps not answered.
    pub(super) fn is_sent(&self) -> bool {
        match self.schedule.period_ns {
            Some(_) => self.schedule.next_ns().is_none(),
            None => self.schedule.is_over(self.now_ns()),
        }
    }

    /// Stops publishing.
    pub(super) fn stop(&mut self) {
        self.schedule.running = false;
    }

    /// Gives all that is due to connections.
    pub(super) fn send_due(&mut self) {
        while let Some(at_ns) = self.schedule.next_ns() {
            if at_ns > self.now_ns() {
                return;
            }
            let count = self.schedule.count;
            self.schedule.count += 1;
            let connections = self.publishers.len() as u64;
            let topics = u64::from(self.lanes.topics);
            let (at, topic) = if topics >= connections {
                let topic = count % topics;
                ((topic % connections) as usize, topic as u32)
            } else {
                let at = self.free_publisher(count);
                (at, at as u32 % self.lanes.topics)
            };
            self.publish(at, self.due(at, topic, at_ns));
        }
    }

    /// One that waits for no answer, or else each in turn.
    fn free_publisher(&mut self, count: u64) -> usize {
        while let Some(at) = self.schedule.idle.pop() {
            if self.publishers[at].flight.is_none() {
                return at;
            }
        }
        (count % self.publishers.len() as u64) as usize
    }

    /// What a connection publishes next if it is to do so as fast as it can.
    pub(super) fn next_saturated(&mut self, at: usize) -> Option<Due> {
        let now = self.now_ns();
        if self.schedule.period_ns.is_some() || self.schedule.is_over(now) {
            return None;
        }
        self.schedule.count += 1;
        let connections = self.publishers.len() as u32;
        let topics = self.lanes.topics;
        let turns = self.publishers[at].turns;
        let first = at as u32;
        let topic = if topics >= connections {
            let own = (topics - first).div_ceil(connections);
            first + connections * (turns % own)
        } else {
            first % topics
        };
        self.publishers[at].turns = turns.wrapping_add(1);
        Some(self.due(at, topic, now))
    }

    fn due(&self, at: usize, topic: u32, at_ns: u64) -> Due {
        let lane = if self.lanes.topics >= self.lanes.connections {
            topic
        } else {
            at as u32
        };
        Due { at_ns, topic, lane }
    }
}
