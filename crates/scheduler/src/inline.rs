//! Running very fast models on the calling thread.
//!
//! Handing a request to an instance thread and its answer back costs two wake-ups: microseconds between
//! threads that never rest, tens of microseconds where a core sleeps. Where a model is cheaper than
//! that, the hop is most of the latency and a good part of the CPU time. So each queue measures what
//! its hops really cost and what its model costs, and a request skips the hop where the model has
//! proved cheaper at its size.
//!
//! What is not done here: batching. A request that runs on its own thread waits for nobody.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use outhaul_engine::Session;

/// Runs at a proven size that may exceed the limit, one after the other, before the proof is void.
/// One such run is more likely an interrupt than a slow model.
const TOLERATED_SLOW_RUNS: u32 = 3;

/// Bounds of what a hop is taken to cost. Below the lower one a measurement says more of the clock
/// than of the threads; above the upper one it was the machine that was busy, and holding up an async
/// thread for that long would hold up other connections.
const HOP_COST_NS: std::ops::RangeInclusive<u64> = 5_000..=100_000;

/// The share of a new measurement in the running mean, as a power of two: one eighth.
const HOP_WEIGHT: u32 = 3;

/// What has been learnt of a model's cost: up to which size of input a run is cheaper than a hop.
#[derive(Debug)]
pub(crate) struct CostGauge {
    /// The running mean of what a hop costs, 0 while none has been measured.
    hop_ns: AtomicU64,
    proven_size: AtomicUsize,
    slow_runs: AtomicU32,
}

impl CostGauge {
    /// Makes a gauge that has learnt nothing yet.
    pub(crate) fn new() -> Self {
        CostGauge {
            hop_ns: AtomicU64::new(0),
            proven_size: AtomicUsize::new(0),
            slow_runs: AtomicU32::new(0),
        }
    }

    /// Learns from one hop: the time from submitting to a sleeping instance until it began, plus the
    /// time from its answer until the caller went on.
    pub(crate) fn observe_hop(&self, cost: Duration) {
        let cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let cost = cost.clamp(*HOP_COST_NS.start(), *HOP_COST_NS.end());
        let mean = self.hop_ns.load(Ordering::Relaxed);
        let mean = match mean {
            0 => cost,
            mean => mean - (mean >> HOP_WEIGHT) + (cost >> HOP_WEIGHT),
        };
        self.hop_ns.store(mean, Ordering::Relaxed);
    }

    /// Returns what a hop costs; nothing while that is not known.
    fn limit(&self) -> Duration {
        Duration::from_nanos(self.hop_ns.load(Ordering::Relaxed))
    }

    /// Returns whether a run on inputs of this size has proved cheaper than a hop.
    pub(crate) fn is_cheap(&self, size: usize) -> bool {
        size <= self.proven_size.load(Ordering::Relaxed)
    }

    /// Learns from one answer to one request; a failure may come early and proves nothing. Racing
    /// observers may lose an update, which only delays the next decision by a run.
    pub(crate) fn observe(&self, size: usize, compute: Duration) {
        let proven = self.proven_size.load(Ordering::Relaxed);
        if compute <= self.limit() {
            if self.slow_runs.load(Ordering::Relaxed) != 0 {
                self.slow_runs.store(0, Ordering::Relaxed);
            }
            if size > proven {
                self.proven_size.store(size, Ordering::Relaxed);
            }
        } else if size <= proven
            && self.slow_runs.fetch_add(1, Ordering::Relaxed) + 1 >= TOLERATED_SLOW_RUNS
        {
            self.slow_runs.store(0, Ordering::Relaxed);
            self.proven_size.store(size / 2, Ordering::Relaxed);
        }
    }

    /// Learns from a run of several requests, which bounds the cost of each of them from above.
    pub(crate) fn observe_at_most(&self, sizes: impl Iterator<Item = usize>, compute: Duration) {
        if compute <= self.limit()
            && let Some(largest) = sizes.max()
        {
            self.observe(largest, compute);
        }
    }
}

/// A session, opened by its first user and opened anew after a crash.
type Slot = Option<Box<dyn Session>>;

/// Sessions for callers that run the model themselves. There are as many as instances, so the
/// declared number also bounds what runs here.
pub(crate) struct InlineSessions {
    slots: Box<[Mutex<Slot>]>,
}

impl InlineSessions {
    /// Makes the slots; sessions are opened by their first user.
    pub(crate) fn new(count: usize) -> Self {
        InlineSessions { slots: (0..count).map(|_| Mutex::new(None)).collect() }
    }

    /// Returns a free slot, or `None` where all are in use: the caller then queues instead of
    /// waiting.
    pub(crate) fn try_acquire(&self) -> Option<MutexGuard<'_, Slot>> {
        let first = thread_number() % self.slots.len().max(1);
        let (before, from) = self.slots.split_at(first);
        from.iter().chain(before).find_map(|slot| slot.try_lock().ok())
    }
}

/// A small number that is this thread's own, so that threads start their search at different slots.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_must_be_proven_and_can_lose_its_proof() {
        let gauge = CostGauge::new();
        gauge.observe_hop(Duration::from_micros(10));
        let (fast, slow) = (Duration::from_micros(5), Duration::from_micros(500));
        assert!(!gauge.is_cheap(1), "nothing is known yet, of the smallest size neither");
        gauge.observe(16, fast);
        assert!(gauge.is_cheap(16) && !gauge.is_cheap(17));
        gauge.observe(64, slow);
        assert!(gauge.is_cheap(16), "a larger input says nothing of a smaller one");
        gauge.observe(16, slow);
        gauge.observe(16, slow);
        gauge.observe(16, fast);
        gauge.observe(16, slow);
        gauge.observe(16, slow);
        assert!(gauge.is_cheap(16), "slow runs must follow each other");
        gauge.observe(16, slow);
        assert!(!gauge.is_cheap(16));
        gauge.observe(1, fast);
        (0..3 * TOLERATED_SLOW_RUNS).for_each(|_| gauge.observe(1, slow));
        assert!(!gauge.is_cheap(1), "the smallest size can lose its proof too");
    }

    #[test]
    fn a_hop_is_learnt_and_bounded() {
        let gauge = CostGauge::new();
        gauge.observe(16, Duration::from_nanos(1));
        assert!(!gauge.is_cheap(16), "nothing is cheaper than a hop of unknown cost");
        gauge.observe_hop(Duration::from_secs(1));
        assert_eq!(gauge.limit(), Duration::from_micros(100));
        for _ in 0..200 {
            gauge.observe_hop(Duration::from_micros(20));
        }
        let limit = gauge.limit();
        assert!(
            limit >= Duration::from_micros(20) && limit < Duration::from_micros(21),
            "{limit:?}"
        );
    }

    #[test]
    fn slots_run_out() {
        let sessions = InlineSessions::new(2);
        let first = sessions.try_acquire();
        let second = sessions.try_acquire();
        assert!(first.is_some() && second.is_some());
        assert!(sessions.try_acquire().is_none());
        drop(first);
        assert!(sessions.try_acquire().is_some());
    }
}
