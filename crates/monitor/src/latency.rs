//! Latencies in buckets fine enough to judge a quantile by.
//!
//! A bucket is at most 1/64 of its value wide, so a quantile read from it is at most 1.6 % too high. Buckets are
//! the same in every process: counts of replicas can be added, and counts of an earlier moment taken away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets to each doubling.
const STEPS: u32 = 64;

/// From one microsecond; below, everything is one microsecond.
const DOUBLINGS: u32 = 27;

const BUCKETS: usize = (STEPS * DOUBLINGS) as usize;

/// Latencies that any thread may add to: one relaxed addition each.
#[derive(Debug)]
pub struct LatencyHistogram(Box<[AtomicU64]>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        LatencyHistogram((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl LatencyHistogram {
    /// Counts one.
    pub fn record(&self, latency: Duration) {
        self.0[usize::from(bucket(latency))].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> LatencyCounts {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let kept = (0..).zip(counts).filter(|(_, count)| *count > 0);
        LatencyCounts(kept.collect())
    }
}

/// How many latencies fell into each bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyCounts(BTreeMap<u16, u64>);

impl LatencyCounts {
    /// Counts `times` requests of one latency.
    pub fn add(&mut self, latency: Duration, times: u64) {
        if times > 0 {
            *self.0.entry(bucket(latency)).or_default() += times;
        }
    }

    /// Adds the counts of another process.
    pub fn merge(&mut self, other: &LatencyCounts) {
        for (&bucket, count) in &other.0 {
            *self.0.entry(bucket).or_default() += count;
        }
    }

    /// Returns what has come since an earlier moment of the same histogram.
    pub fn since(&self, earlier: &LatencyCounts) -> LatencyCounts {
        let new = |(&bucket, &count): (&u16, &u64)| {
            let before = earlier.0.get(&bucket).copied().unwrap_or(0);
            (count > before).then(|| (bucket, count - before))
        };
        LatencyCounts(self.0.iter().filter_map(new).collect())
    }

    /// Returns how many there are.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns how many are longer than a latency, as far as the buckets tell: one of the same bucket is
    /// not.
    pub fn above(&self, latency: Duration) -> u64 {
        self.0.range(bucket(latency).saturating_add(1)..).map(|(_, count)| count).sum()
    }

    /// Returns each bucket's upper end and its count, ascending.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = (Duration, u64)> {
        self.0.iter().map(|(&bucket, &count)| (upper(bucket), count))
    }

    /// Returns the latency that a share `quantile` of all does not exceed: the upper end of its bucket.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.total();
        let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        self.buckets().find_map(|(latency, count)| {
            seen += count;
            (seen >= rank).then_some(latency)
        })
    }
}

fn bucket(latency: Duration) -> u16 {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1_000);
    // 1,024 ns is the first doubling's start; what is below shares its bucket.
    let ns = ns.max(1 << 10);
    let doubling = ns.ilog2();
    let step = (ns >> (doubling - STEPS.ilog2())) & u64::from(STEPS - 1);
    let index = u64::from((doubling - 10) * STEPS) + step;
    index.min(BUCKETS as u64 - 1) as u16
}

fn upper(bucket: u16) -> Duration {
    let (doubling, step) = (u32::from(bucket) / STEPS + 10, u32::from(bucket) % STEPS);
    let width = 1u64 << (doubling - STEPS.ilog2());
    Duration::from_nanos((1 << doubling) + u64::from(step + 1) * width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_put_into_it() {
        for ns in [0, 999, 1_024, 1_039, 1_040, 65_536, 1_000_000, 123_456_789, 60_000_000_000] {
            let latency = Duration::from_nanos(ns);
            let end = upper(bucket(latency));
            assert!(end >= latency, "{ns}");
            assert!(end.as_nanos() as f64 <= (ns.max(1_024) as f64) * 1.016 + 1.0, "{ns}: {end:?}");
        }
        assert_eq!(usize::from(bucket(Duration::MAX)), BUCKETS - 1);
    }

    #[test]
    fn counts_are_added_and_taken_away() {
        let histogram = LatencyHistogram::default();
        let ms = Duration::from_millis;
        (1..=100).for_each(|latency| histogram.record(ms(latency)));
        let first = histogram.counts();
        assert_eq!(first.total(), 100);
        let median = first.quantile(0.5).unwrap();
        assert!(median >= ms(50) && median < ms(51), "{median:?}");
        assert_eq!(first.above(ms(90)), 10);
        histogram.record(ms(7));
        let since = histogram.counts().since(&first);
        assert_eq!((since.total(), since.quantile(0.99).unwrap() >= ms(7)), (1, true));
        let mut both = first.clone();
        both.merge(&since);
        assert_eq!(both, histogram.counts());
        assert_eq!(LatencyCounts::default().quantile(0.5), None);
    }
}
