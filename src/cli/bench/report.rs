//! What a run found: the same figures as text and as JSON, with their units in their names.

use super::{
    load::Load,
    meter::{Measured, Times},
    tracker::Faults,
};
use serde_json::{Map, Value, json};
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Figures in the order in which they are told.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Map<String, Value>,
    failed: bool,
}

impl Report {
    pub(super) fn new(mode: &str) -> Self {
        let mut report = Self::default();
        report.add("mode", json!(mode));
        report
    }

    pub(super) fn add(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    /// A number with as many digits as are worth reading.
    pub(super) fn number(&mut self, name: &str, value: f64) {
        let scale = if value.abs() < 10.0 { 1e4 } else { 1e2 };
        self.add(name, json!((value * scale).round() / scale));
    }

    /// A figure that some servers do not show.
    pub(super) fn maybe(&mut self, name: &str, value: Option<f64>) {
        match value {
            Some(value) => self.number(name, value),
            None => self.add(name, Value::Null),
        }
    }

    pub(super) fn times(&mut self, name: &str, times: &Times) {
        if times.count() == 0 {
            return;
        }
        for (label, percent) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9)] {
            self.number(&format!("{name}_{label}_ms"), times.percentile_ms(percent));
        }
        self.number(&format!("{name}_max_ms"), times.max_ms());
    }

    /// Rates, and what they cost.
    pub(super) fn measured(&mut self, measured: &Measured) {
        let per = |count: u64| count as f64 / measured.seconds.max(1e-9);
        self.number("seconds", measured.seconds);
        self.add("publishes", json!(measured.publishes));
        self.number("publishes_per_s", per(measured.publishes));
        if measured.deliveries > 0 {
            self.add("deliveries", json!(measured.deliveries));
            self.number("deliveries_per_s", per(measured.deliveries));
        }
        let us_per = |count: u64| {
            let cpu = measured.cpu_s.filter(|_| count > 0);
            cpu.map(|cpu| cpu * 1e6 / count as f64)
        };
        if measured.deliveries > 0 {
            self.maybe("cpu_us_per_delivery", us_per(measured.deliveries));
        }
        self.maybe("cpu_us_per_publish", us_per(measured.publishes));
        let percent = |cpu: f64| cpu * 100.0 / measured.seconds.max(1e-9);
        self.maybe("server_cpu_percent", measured.cpu_s.map(percent));
        self.number("load_cpu_percent", percent(measured.own_cpu_s));
    }

    /// What was wrong: then the run has failed.
    pub(super) fn faults(&mut self, faults: Faults, load: &Load) {
        self.add("gaps", json!(faults.gaps));
        self.add("duplicates", json!(faults.duplicates));
        self.add("disorder", json!(faults.disorder));
        self.add("strays", json!(faults.strays));
        self.add("refused", json!(load.meter.refused));
        if let Some(refusal) = &load.meter.refusal {
            self.add("refusal", json!(refusal));
        }
        self.add("lost_readers", json!(load.meter.lost_readers));
        self.failed |= faults.any() || load.meter.refused > 0 || load.meter.lost_readers > 0;
    }

    /// Prints it; gives the process's exit code.
    pub(super) fn print(self, as_json: bool) -> ExitCode {
        let mut out = io::stdout().lock();
        // If nobody reads it, the exit code still tells.
        let _ = if as_json {
            writeln!(out, "{}", Value::Object(self.figures))
        } else {
            self.figures.iter().try_for_each(|(name, value)| {
                let value = match value {
                    Value::String(text) => text.clone(),
                    Value::Null => "unknown".to_owned(),
                    other => other.to_string(),
                };
                writeln!(out, "{:<24}{value}", name.replace('_', " "))
            })
        };
        if self.failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}
