//! The handles that count requests, batches and calls.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outhaul_types::{ErrorKind, Timings};

use crate::histogram::{COUNTS, DURATIONS, Histogram, SIZES};
use crate::statistics::BatchTable;
use crate::{DurationCount, ModelStatistics};

/// Handles of one model version. Every method only adds to atomics.
pub struct ModelMetrics {
    pub(crate) answered: Histogram,
    /// By kind, in the order of [`ErrorKind::ALL`].
    pub(crate) failed: [Histogram; ErrorKind::ALL.len()],
    /// Only requests that went through a transform are in it.
    pub(crate) transform: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) assemble: Histogram,
    pub(crate) compute: Histogram,
    pub(crate) split: Histogram,
    /// Rows of each answered request; only the sum is shown.
    pub(crate) rows: Histogram,
    pub(crate) batch_rows: Histogram,
    pub(crate) batch_requests: Histogram,
    pub(crate) queue_depth: AtomicU64,
    batches: BatchTable,
    last_ms: AtomicU64,
}

impl Default for ModelMetrics {
    fn default() -> Self {
        ModelMetrics {
            answered: Histogram::hot(DURATIONS),
            failed: array::from_fn(|_| Histogram::cold(DURATIONS)),
            transform: Histogram::cold(DURATIONS),
            queue: Histogram::hot(DURATIONS),
            assemble: Histogram::hot(DURATIONS),
            compute: Histogram::hot(DURATIONS),
            split: Histogram::hot(DURATIONS),
            rows: Histogram::hot(&[]),
            batch_rows: Histogram::hot(COUNTS),
            batch_requests: Histogram::hot(COUNTS),
            queue_depth: AtomicU64::new(0),
            batches: BatchTable::default(),
            last_ms: AtomicU64::new(0),
        }
    }
}

impl ModelMetrics {
    /// Counts one finished request of `rows` rows. `timings` is not looked at for a failed one.
    pub fn record_request(
        &self,
        outcome: Result<(), ErrorKind>,
        total: Duration,
        timings: &Timings,
        rows: usize,
    ) {
        match outcome {
            Ok(()) => {
                self.answered.observe_duration(total);
                if !timings.transform.is_zero() {
                    self.transform.observe_duration(timings.transform);
                }
                self.queue.observe_duration(timings.queue);
                self.assemble.observe_duration(timings.assemble);
                self.compute.observe_duration(timings.compute);
                self.split.observe_duration(timings.split);
                self.rows.observe(rows as u64);
            }
            Err(kind) => self.failed[kind as usize].observe_duration(total),
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = since_epoch.as_millis() as u64;
        // Reading is cheap while nobody writes: at most one request a millisecond does.
        if self.last_ms.load(Ordering::Relaxed) != now_ms {
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Counts one engine run of `rows` rows that `requests` requests share.
    pub fn record_batch(&self, rows: usize, requests: usize, compute: Duration) {
        self.batch_rows.observe(rows as u64);
        self.batch_requests.observe(requests as u64);
        self.batches.record(rows, compute);
    }

    /// Notes that a request begins to wait.
    pub fn queue_entered(&self) {
        self.queue_depth.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request that waited does so no more.
    pub fn queue_left(&self) {
        self.queue_depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// Reads the statistics extension's numbers.
    pub fn statistics(&self) -> ModelStatistics {
        let fail = self.failed.iter().fold(DurationCount::default(), |sum, histogram| {
            let total = histogram.total();
            DurationCount { count: sum.count + total.count, ns: sum.ns.wrapping_add(total.ns) }
        });
        ModelStatistics {
            last_inference_ms: self.last_ms.load(Ordering::Relaxed),
            inference_count: self.rows.sum(),
            execution_count: self.batch_rows.count(),
            success: self.answered.total(),
            fail,
            queue: self.queue.total(),
            compute_input: self.assemble.total(),
            compute_infer: self.compute.total(),
            compute_output: self.split.total(),
            batches: self.batches.read(),
        }
    }
}

/// The contracts that calls are counted under. Calls of any other name count as the last.
pub(crate) const CONTRACTS: [&str; 12] = [
    "oip_rest",
    "oip_grpc",
    "tensorflow_rest",
    "tensorflow_grpc",
    "vertex",
    "sagemaker",
    "azure",
    "openai",
    "rerank",
    "graphql",
    "admin",
    "other",
];

/// How a call ended, in the terms that HTTP and gRPC share.
pub(crate) const OUTCOMES: [&str; 3] = ["ok", "caller_error", "server_error"];

/// Handles of the listeners. Every method only adds to atomics.
pub struct ServerMetrics {
    /// In the order of [`CONTRACTS`].
    pub(crate) contracts: [ContractMetrics; CONTRACTS.len()],
    pub(crate) connections_open: AtomicU64,
    pub(crate) connections_total: AtomicU64,
}

/// What one contract's calls took.
pub(crate) struct ContractMetrics {
    /// In the order of [`OUTCOMES`].
    pub(crate) durations: [Histogram; OUTCOMES.len()],
    pub(crate) request_bytes: Histogram,
    pub(crate) response_bytes: Histogram,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        let contract = |_| ContractMetrics {
            durations: array::from_fn(|_| Histogram::hot(DURATIONS)),
            request_bytes: Histogram::hot(SIZES),
            response_bytes: Histogram::hot(SIZES),
        };
        ServerMetrics {
            contracts: array::from_fn(contract),
            connections_open: AtomicU64::new(0),
            connections_total: AtomicU64::new(0),
        }
    }
}

impl ServerMetrics {
    /// Counts one answered call.
    ///
    /// `contract` is one of `CONTRACTS` (`admin`: health, metadata and metrics); any other name counts
    /// as `other`. `status` is a gRPC code where the contract's name ends in `_grpc`,
    /// else an HTTP status.
    #[allow(clippy::too_many_arguments, reason = "five and self; a struct would only rename them")]
    pub fn record_call(
        &self,
        contract: &'static str,
        status: u16,
        total: Duration,
        request_bytes: usize,
        response_bytes: usize,
    ) {
        let known = CONTRACTS.iter().position(|&name| name == contract);
        let metrics = &self.contracts[known.unwrap_or(CONTRACTS.len() - 1)];
        metrics.durations[outcome(contract, status)].observe_duration(total);
        metrics.request_bytes.observe(request_bytes as u64);
        metrics.response_bytes.observe(response_bytes as u64);
    }

    /// Counts a connection in.
    pub fn connection_opened(&self) {
        self.connections_open.fetch_add(1, Ordering::Relaxed);
        self.connections_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection out.
    pub fn connection_closed(&self) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the index into [`OUTCOMES`].
fn outcome(contract: &str, status: u16) -> usize {
    let grpc = contract.ends_with("_grpc");
    match status {
        0 if grpc => 0,
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS; 504 and 503 are their HTTP
        // counterparts. All other codes blame the caller.
        2 | 4 | 13 | 14 | 15 if grpc => 2,
        _ if grpc => 1,
        0..400 => 0,
        400..500 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_their_own_index() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind}");
        }
    }

    #[test]
    fn calls_are_sorted_by_who_has_to_act() {
        for (contract, status, expected) in [
            ("oip_rest", 200, "ok"),
            ("oip_rest", 304, "ok"),
            ("oip_rest", 404, "caller_error"),
            ("oip_rest", 429, "caller_error"),
            ("oip_rest", 503, "server_error"),
            ("oip_grpc", 0, "ok"),
            ("oip_grpc", 3, "caller_error"),
            ("oip_grpc", 8, "caller_error"),
            ("oip_grpc", 13, "server_error"),
            ("oip_grpc", 14, "server_error"),
        ] {
            assert_eq!(OUTCOMES[outcome(contract, status)], expected, "{contract} {status}");
        }
    }

    #[test]
    fn a_name_that_is_not_in_the_set_makes_no_series() {
        let metrics = ServerMetrics::default();
        metrics.record_call("surprise", 200, Duration::ZERO, 0, 0);
        assert_eq!(metrics.contracts.last().map(|other| other.request_bytes.count()), Some(1));
    }

    #[test]
    fn statistics_are_the_sums_of_what_was_recorded() {
        let metrics = ModelMetrics::default();
        let ns = Duration::from_nanos;
        let timings = Timings {
            transform: Duration::ZERO,
            load: ns(0),
            queue: ns(5),
            assemble: ns(4),
            compute: ns(3),
            split: ns(2),
            batch_rows: 8,
        };
        metrics.record_request(Ok(()), ns(20), &timings, 6);
        metrics.record_request(Ok(()), ns(30), &timings, 2);
        metrics.record_request(Err(ErrorKind::Overloaded), ns(1), &timings, 9);
        metrics.record_request(Err(ErrorKind::Internal), ns(2), &timings, 9);
        metrics.record_batch(8, 2, ns(3));
        let statistics = metrics.statistics();
        let count = |count, ns| DurationCount { count, ns };
        assert_eq!(statistics.success, count(2, 50));
        assert_eq!(statistics.fail, count(2, 3));
        assert_eq!(statistics.queue, count(2, 10));
        assert_eq!(statistics.compute_input, count(2, 8));
        assert_eq!(statistics.compute_infer, count(2, 6));
        assert_eq!(statistics.compute_output, count(2, 4));
        assert_eq!(statistics.inference_count, 8, "only answered rows count");
        assert_eq!(statistics.execution_count, 1);
        assert_eq!(statistics.batches, [(8, count(1, 3))]);
        assert!(statistics.last_inference_ms > 1_600_000_000_000);
    }

    #[test]
    fn no_observation_is_lost_between_threads() {
        let metrics = ModelMetrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let total = Duration::from_nanos(1);
                        metrics.record_request(Ok(()), total, &Timings::default(), 1);
                    }
                });
            }
        });
        assert_eq!(metrics.statistics().success, DurationCount { count: 4_000, ns: 4_000 });
    }
}
