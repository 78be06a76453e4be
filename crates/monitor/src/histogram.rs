//! Histograms of whole numbers (nanoseconds, bytes, rows) that any thread may add to at once.
//!
//! Two relaxed additions an observation, no lock and no floating point, so that counting a request
//! costs less than the clock that timed it. A reader may see the bucket of an observation before its
//! sum; the count is the sum of the buckets and therefore never disagrees with them.

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::DurationCount;

/// Upper bounds of durations in nanoseconds: from the fastest models (6 microseconds) to the default
/// timeout of a request (60 seconds).
pub(crate) const DURATIONS: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Upper bounds of how long a load takes in nanoseconds: from a model of a few kilobytes to one of many
/// gigabytes that is fetched first (10 minutes).
pub(crate) const LOADS: &[u64] = &[
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
    600_000_000_000,
];

/// Upper bounds of sizes of bodies in bytes.
pub(crate) const SIZES: &[u64] = &[
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
];

/// Upper bounds of small counts: rows or requests of a batch.
pub(crate) const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];

/// How often values fell below each bound, and their sum.
///
/// A hot histogram is kept in shards, one to a processor, and a thread always adds to the same one:
/// threads that count into the same cache lines would cost each other up to a microsecond a request.
pub(crate) struct Histogram {
    bounds: &'static [u64],
    lines: Box<[CacheLine]>,
    /// Cache lines of one shard: a counter for each bound, one for what exceeds them all, the sum.
    lines_per_shard: usize,
}

/// Counters that share one cache line.
#[derive(Default)]
#[repr(align(64))]
struct CacheLine([AtomicU64; PER_LINE]);

const PER_LINE: usize = 8;

impl Histogram {
    /// Makes an empty histogram over ascending `bounds`, for values that many threads add at once.
    pub(crate) fn hot(bounds: &'static [u64]) -> Self {
        Histogram::new(bounds, *SHARDS)
    }

    /// Makes an empty histogram over ascending `bounds`, for values that come seldom.
    pub(crate) fn cold(bounds: &'static [u64]) -> Self {
        Histogram::new(bounds, 1)
    }

    fn new(bounds: &'static [u64], shards: usize) -> Self {
        debug_assert!(bounds.is_sorted(), "bounds ascend");
        let lines_per_shard = (bounds.len() + 2).div_ceil(PER_LINE);
        let lines = (0..shards * lines_per_shard).map(|_| CacheLine::default()).collect();
        Histogram { bounds, lines, lines_per_shard }
    }

    /// Adds one value.
    pub(crate) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        let shard = shard_of_this_thread() & (self.shards() - 1);
        self.cell(shard, bucket).fetch_add(1, Ordering::Relaxed);
        self.cell(shard, self.bounds.len() + 1).fetch_add(value, Ordering::Relaxed);
    }

    /// Adds one duration.
    pub(crate) fn observe_duration(&self, duration: Duration) {
        self.observe(nanoseconds(duration));
    }

    /// Returns how many values there were.
    pub(crate) fn count(&self) -> u64 {
        (0..=self.bounds.len()).map(|bucket| self.read(bucket)).sum()
    }

    /// Returns the sum of all values.
    pub(crate) fn sum(&self) -> u64 {
        self.read(self.bounds.len() + 1)
    }

    /// Returns each bound (`None` is infinity) with the number of values up to it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let counts = (0..=self.bounds.len()).scan(0, |total, bucket| {
            *total += self.read(bucket);
            Some(*total)
        });
        bounds.zip(counts)
    }

    /// Returns count and sum of a histogram of durations.
    pub(crate) fn total(&self) -> DurationCount {
        DurationCount { count: self.count(), ns: self.sum() }
    }

    /// A power of two.
    fn shards(&self) -> usize {
        self.lines.len() / self.lines_per_shard
    }

    fn cell(&self, shard: usize, index: usize) -> &AtomicU64 {
        let line = shard * self.lines_per_shard + index / PER_LINE;
        &self.lines[line].0[index % PER_LINE]
    }

    fn read(&self, index: usize) -> u64 {
        let shards = (0..self.shards()).map(|shard| self.cell(shard, index));
        shards.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

/// The shards of a hot histogram: a power of two near the number of processors, at most 16.
static SHARDS: LazyLock<usize> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    processors.next_power_of_two().min(16)
});

/// Returns a number that stays the same for a thread and differs between neighbours.
fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    SHARD.with(|shard| *shard)
}

/// Returns a duration in whole nanoseconds; what exceeds 584 years counts as that.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_under_the_first_bound_that_is_not_below_it() {
        let histogram = Histogram::hot(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.observe(value);
        }
        let buckets: Vec<_> = histogram.cumulative().collect();
        assert_eq!(buckets, [(Some(10), 2), (Some(20), 4), (None, 6)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, 1_062));
    }

    #[test]
    fn shards_are_read_as_one() {
        let histogram = Histogram::new(&[10], 4);
        thread::scope(|scope| {
            for value in 1..=9 {
                let histogram = &histogram;
                scope.spawn(move || histogram.observe(value));
            }
        });
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(Some(10), 9), (None, 9)]);
        assert_eq!(histogram.sum(), 45);
    }
}
