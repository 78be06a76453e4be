//! Running very fast models on the calling thread.
//!
//! Handing a request to an instance thread and its answer back costs two wake-ups. Where a model is
//! cheaper than that, the hop would be most of the latency and a good part of the CPU time. So the
//! cost of a hop is measured once per process, the cost of the model is learnt from its runs, and a
//! request skips the hop where the model has proved cheaper at its size.
//!
//! What is not done here: batching. A request that runs on its own thread waits for nobody.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, mpsc};
use std::time::{Duration, Instant};

use outhaul_engine::Session;

/// Runs at a proven size that may exceed the limit, one after the other, before the proof is void.
/// One such run is more likely an interrupt than a slow model.
const TOLERATED_SLOW_RUNS: u32 = 3;

/// Returns what handing work to another thread and back costs on this machine: the median of some
/// hundred round trips, measured once, kept between 2 and 50 microseconds against odd clocks.
pub fn hop_cost() -> Duration {
    static COST: OnceLock<Duration> = OnceLock::new();
    *COST.get_or_init(|| {
        measure_hop()
            .unwrap_or(Duration::from_micros(10))
            .clamp(Duration::from_micros(2), Duration::from_micros(50))
    })
}

fn measure_hop() -> Option<Duration> {
    let (send, receive) = mpsc::channel::<()>();
    let (send_back, receive_back) = mpsc::channel::<()>();
    let echo = std::thread::Builder::new()
        .name("outhaul-hop".to_owned())
        .spawn(move || while receive.recv().is_ok_and(|()| send_back.send(()).is_ok()) {})
        .ok()?;
    let mut trips = Vec::with_capacity(200);
    for _ in 0..200 {
        let start = Instant::now();
        send.send(()).ok()?;
        receive_back.recv().ok()?;
        trips.push(start.elapsed());
    }
    drop(send);
    echo.join().ok()?;
    trips.sort_unstable();
    Some(trips[trips.len() / 2])
}

/// What has been learnt of a model's cost: up to which size of input a run is cheaper than a hop.
#[derive(Debug)]
pub(crate) struct CostGauge {
    limit: Duration,
    proven_bytes: AtomicUsize,
    slow_runs: AtomicU32,
}

impl CostGauge {
    /// Makes a gauge that has proven nothing yet.
    pub(crate) fn new(limit: Duration) -> Self {
        CostGauge { limit, proven_bytes: AtomicUsize::new(0), slow_runs: AtomicU32::new(0) }
    }

    /// Returns whether a run on this many input bytes has proved cheaper than a hop.
    pub(crate) fn is_cheap(&self, bytes: usize) -> bool {
        bytes <= self.proven_bytes.load(Ordering::Relaxed)
    }

    /// Learns from one run of one request. Racing observers may lose an update, which only delays
    /// the next decision by a run.
    pub(crate) fn observe(&self, bytes: usize, compute: Duration) {
        let proven = self.proven_bytes.load(Ordering::Relaxed);
        if compute <= self.limit {
            if self.slow_runs.load(Ordering::Relaxed) != 0 {
                self.slow_runs.store(0, Ordering::Relaxed);
            }
            if bytes > proven {
                self.proven_bytes.store(bytes, Ordering::Relaxed);
            }
        } else if bytes <= proven
            && self.slow_runs.fetch_add(1, Ordering::Relaxed) + 1 >= TOLERATED_SLOW_RUNS
        {
            self.slow_runs.store(0, Ordering::Relaxed);
            self.proven_bytes.store(bytes / 2, Ordering::Relaxed);
        }
    }
}

impl CostGauge {
    /// Learns from a run of several requests, which bounds the cost of each of them from above.
    pub(crate) fn observe_at_most(&self, sizes: impl Iterator<Item = usize>, compute: Duration) {
        if compute <= self.limit
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
        let gauge = CostGauge::new(Duration::from_micros(10));
        let (fast, slow) = (Duration::from_micros(5), Duration::from_micros(500));
        assert!(!gauge.is_cheap(16), "nothing is known yet");
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
    }

    #[test]
    fn the_hop_cost_is_plausible() {
        let cost = hop_cost();
        assert!(cost >= Duration::from_micros(2) && cost <= Duration::from_micros(50));
        assert_eq!(cost, hop_cost(), "measured once");
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
