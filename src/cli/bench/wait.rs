//! What a run waits for: open streams, answers, the last delivery. Nothing is waited for by sleeping.

use super::{load::Load, publisher::Due, reader::State, stamp::PROBE, tracker::Faults};
use std::time::{Duration, Instant};

/// Connections that are being opened at a time, so that no listener's queue overflows.
const OPENING_MAX: usize = 256;

impl Load {
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
        match refused.and_then(|one| one.wire.status()) {
            Some(101 | 200) | None => anyhow::bail!(
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
        self.look_for_server();
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
