//! What a measurement found.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{LoadPlan, Outcome, Pace};

/// The longest latency that is told apart from a longer one.
const LONGEST_NANOSECONDS: u64 = 3_600_000_000_000;

/// Latencies of one kind, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latencies {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Self {
        let microseconds = |nanoseconds: f64| (nanoseconds / 100.0).round() / 10.0;
        let quantile = |quantile| microseconds(histogram.value_at_quantile(quantile) as f64);
        Latencies {
            mean: microseconds(histogram.mean()),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: microseconds(histogram.max() as f64),
        }
    }
}

/// What a measurement found. Only requests that started within the measured time count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `closed` or `open`.
    pub pace: &'static str,
    /// The rate that was intended, for an open loop.
    pub intended_per_second: Option<f64>,
    /// Connections used.
    pub connections: usize,
    /// Time measured, in seconds.
    pub seconds: f64,
    /// Requests that started.
    pub requests: u64,
    /// Successful answers within the measured time, a second.
    pub answers_per_second: f64,
    /// Requests that got no success, by what they got.
    pub errors: BTreeMap<String, u64>,
    /// For an open loop: requests that no connection was free for before the end.
    pub unsent: u64,
    /// From the (intended) start of a request to its answer, successes only.
    pub latency_us: Latencies,
    /// For an open loop: from the intended start to the sending, which is the generator's own
    /// lateness as long as connections are free.
    pub send_delay_us: Option<Latencies>,
}

impl Report {
    /// Returns the number of requests that got no success.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Collects outcomes, one per thread.
pub(super) struct Recorder {
    latency: Histogram<u64>,
    send_delay: Histogram<u64>,
    requests: u64,
    answered_in_time: u64,
    errors: BTreeMap<String, u64>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LONGEST_NANOSECONDS, 3).expect("the bounds are valid");
        Recorder {
            latency: histogram(),
            send_delay: histogram(),
            requests: 0,
            answered_in_time: 0,
            errors: BTreeMap::new(),
        }
    }

    pub(super) fn record(
        &mut self,
        outcome: &Outcome,
        in_time: bool,
        latency: Duration,
        send_delay: Duration,
    ) {
        let nanoseconds =
            |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.requests += 1;
        self.send_delay.saturating_record(nanoseconds(send_delay));
        match outcome {
            Outcome::Answered => {
                self.answered_in_time += u64::from(in_time);
                self.latency.saturating_record(nanoseconds(latency));
            }
            Outcome::Refused(status) => self.count(status),
            Outcome::Broken(reason) => self.count(reason),
        }
    }

    /// Notes a connection that could not be opened again.
    pub(super) fn lost_connection(&mut self, reason: &str) {
        self.count(reason);
    }

    fn count(&mut self, error: &str) {
        match self.errors.get_mut(error) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(error.to_owned(), 1)),
        }
    }

    pub(super) fn add(&mut self, other: &Recorder) {
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.send_delay.add(&other.send_delay).expect("both have the same bounds");
        self.requests += other.requests;
        self.answered_in_time += other.answered_in_time;
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }

    pub(super) fn report(&self, plan: &LoadPlan, unsent: u64) -> Report {
        let seconds = plan.duration.as_secs_f64();
        let (pace, rate) = match plan.pace {
            Pace::Closed => ("closed", None),
            Pace::Open { rate } => ("open", Some(rate)),
        };
        Report {
            pace,
            intended_per_second: rate,
            connections: plan.connections.get(),
            seconds,
            requests: self.requests,
            answers_per_second: (self.answered_in_time as f64 / seconds * 10.0).round() / 10.0,
            errors: self.errors.clone(),
            unsent,
            latency_us: Latencies::of(&self.latency),
            send_delay_us: rate.map(|_| Latencies::of(&self.send_delay)),
        }
    }
}
