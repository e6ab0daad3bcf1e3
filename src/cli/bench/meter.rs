//! What is counted while a load runs.

use super::system::Processes;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Longer is taken as that: an hour, in microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A distribution of times.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?))
    }

    pub(super) fn note_ns(&mut self, ns: u64) {
        self.0.saturating_record(ns / 1_000);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that so many percent do not exceed, in milliseconds.
    pub(super) fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1_000.0
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }
}

/// Counts and distributions over a run.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// From an event's time to its arrival.
    pub(super) latency: Times,
    /// From a publish's time to its answer.
    pub(super) answers: Times,
    /// Events of an earlier time are not in the distributions.
    pub(super) from_ns: u64,
    /// Events answered 2xx.
    pub(super) published: u64,
    /// Events answered otherwise, or not at all.
    pub(super) refused: u64,
    /// What was said against the first of them.
    pub(super) refusal: Option<String>,
    /// Readers whose stream ended.
    pub(super) lost_readers: u64,
    pub(super) last_delivery_ns: u64,
}

impl Meter {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Times::new()?,
            answers: Times::new()?,
            from_ns: 0,
            published: 0,
            refused: 0,
            refusal: None,
            lost_readers: 0,
            last_delivery_ns: 0,
        })
    }
}

/// All counts at one time; the difference of two is what was measured between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) at_ns: u64,
    pub(super) delivered: u64,
    pub(super) published: u64,
    /// The server's, if it can be seen.
    pub(super) cpu: Option<Duration>,
    pub(super) own_cpu: Duration,
}

impl Snapshot {
    pub(super) fn take(
        at_ns: u64,
        delivered: u64,
        published: u64,
        server: Option<&Processes>,
    ) -> Self {
        Self {
            at_ns,
            delivered,
            published,
            cpu: server.map(Processes::cpu),
            own_cpu: Processes::own().cpu(),
        }
    }

    pub(super) fn since(&self, begin: &Self) -> Measured {
        Measured {
            seconds: (self.at_ns - begin.at_ns) as f64 / 1e9,
            deliveries: self.delivered - begin.delivered,
            publishes: self.published - begin.published,
            cpu_s: self
                .cpu
                .zip(begin.cpu)
                .map(|(end, begin)| end.saturating_sub(begin).as_secs_f64()),
            own_cpu_s: self.own_cpu.saturating_sub(begin.own_cpu).as_secs_f64(),
        }
    }
}

/// What happened between two snapshots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) deliveries: u64,
    pub(super) publishes: u64,
    pub(super) cpu_s: Option<f64>,
    pub(super) own_cpu_s: f64,
}
