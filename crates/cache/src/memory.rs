//! Answers in this process's memory: bounded in bytes, admitted by W-TinyLFU.
//!
//! The counts of a model (several versions of it may be in memory, each with answers of its own) follow what
//! comes and goes; what a version still held when it was dropped is taken off then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use outhaul_monitor::traffic::CacheMetrics;

use crate::{CacheKey, Kept};

/// An answer that would take more than this part of the memory would push out too many others.
const LARGEST_PART: u64 = 8;

/// Answers by key.
pub(crate) struct Memory {
    entries: Cache<CacheKey, Entry>,
    largest: usize,
    held: Arc<Held>,
}

#[derive(Clone)]
struct Entry {
    kept: Arc<Kept>,
    size: u32,
    good_for: Option<Duration>,
}

/// What one version holds, counted in the model's metrics as long as it does.
struct Held {
    bytes: AtomicU64,
    entries: AtomicU64,
    metrics: Arc<CacheMetrics>,
}

impl Held {
    fn add(&self, size: u32) {
        for (held, by) in self.counts().into_iter().zip([u64::from(size), 1]) {
            for count in held {
                count.fetch_add(by, Ordering::Relaxed);
            }
        }
    }

    fn remove(&self, size: u32) {
        for (held, by) in self.counts().into_iter().zip([u64::from(size), 1]) {
            for count in held {
                count.fetch_sub(by, Ordering::Relaxed);
            }
        }
    }

    fn counts(&self) -> [[&AtomicU64; 2]; 2] {
        [[&self.bytes, &self.metrics.bytes], [&self.entries, &self.metrics.entries]]
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for [own, all] in self.counts() {
            all.fetch_sub(own.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Each answer says itself how long it is good for: one that came from Redis has spent some of its time
/// there.
struct OwnTime;

impl Expiry<CacheKey, Entry> for OwnTime {
    fn expire_after_create(&self, _: &CacheKey, entry: &Entry, _: Instant) -> Option<Duration> {
        entry.good_for
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        entry.good_for
    }
}

impl Memory {
    pub(crate) fn new(capacity: u64, metrics: Arc<CacheMetrics>) -> Self {
        let held = Arc::new(Held { bytes: 0.into(), entries: 0.into(), metrics });
        let left = Arc::clone(&held);
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Entry| entry.size)
            .expire_after(OwnTime)
            .eviction_listener(move |_, entry, _| left.remove(entry.size))
            .build();
        let largest = usize::try_from(capacity / LARGEST_PART).unwrap_or(usize::MAX);
        // An entry's weight is 32 bits wide.
        Memory { entries, largest: largest.min(u32::MAX as usize), held }
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<Kept>> {
        self.entries.get(key).map(|entry| entry.kept)
    }

    /// Whether an answer of so many bytes is kept at all.
    pub(crate) fn takes(&self, size: usize) -> bool {
        size <= self.largest
    }

    /// Keeps an answer, unless it is too large. `kept` must hold no larger buffer than it needs.
    pub(crate) fn insert(&self, key: CacheKey, kept: Arc<Kept>, good_for: Option<Duration>) {
        let size = kept.size();
        let Some(size) = u32::try_from(size).ok().filter(|_| self.takes(size)) else { return };
        // Before it can leave.
        self.held.add(size);
        self.entries.insert(key, Entry { kept, size, good_for });
    }

    /// Does what is otherwise done little by little: lets go of what expired or is too much.
    #[cfg(test)]
    pub(crate) fn settle(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyBuilder;
    use crate::testing::kept;

    fn key(number: u64) -> CacheKey {
        KeyBuilder::new().number(number).finish()
    }

    #[test]
    fn the_bound_holds_and_what_is_asked_for_often_stays() {
        let metrics = Arc::new(CacheMetrics::default());
        let memory = Memory::new(64 << 10, Arc::clone(&metrics));
        let size = kept(0.0).size() as u64;
        let fit = (64 << 10) / size;
        memory.insert(key(0), Arc::new(kept(0.0)), None);
        for number in 1..20 * fit {
            assert!(memory.get(&key(0)).is_some(), "it is asked for all the time ({number})");
            memory.insert(key(number), Arc::new(kept(1.0)), None);
            if number % fit == 0 {
                let (entries, bytes) = memory.settle();
                assert!(bytes <= 64 << 10, "{bytes} bytes");
                assert!(entries <= fit, "{entries} entries");
            }
        }
        let (entries, bytes) = memory.settle();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((count(&metrics.entries), count(&metrics.bytes)), (entries, bytes));
        assert!(entries > fit / 2, "{entries} of {fit}");
        drop(memory);
        assert_eq!((count(&metrics.entries), count(&metrics.bytes)), (0, 0));
    }

    #[test]
    fn versions_of_one_model_are_counted_together() {
        let metrics = Arc::new(CacheMetrics::default());
        let memory = || Memory::new(1 << 20, Arc::clone(&metrics));
        let (old, new) = (memory(), memory());
        for (memory, number) in [(&old, 1), (&new, 1), (&new, 2), (&new, 2)] {
            memory.insert(key(number), Arc::new(kept(1.0)), None);
            memory.settle();
        }
        assert_eq!(metrics.entries.load(Ordering::Relaxed), 3, "one was replaced");
        drop(old);
        assert_eq!(metrics.entries.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_answer_that_would_push_out_the_others_is_not_kept() {
        let memory = Memory::new(8 * 1024, Arc::new(CacheMetrics::default()));
        let large = crate::testing::kept_of(vec![0.0; 250]);
        assert!(large.size() > 1024 && !memory.takes(large.size()));
        memory.insert(key(1), Arc::new(large), None);
        assert!(memory.get(&key(1)).is_none());
        memory.insert(key(1), Arc::new(kept(1.0)), None);
        assert!(memory.get(&key(1)).is_some());
    }

    #[test]
    fn an_answer_is_good_for_its_time() {
        let memory = Memory::new(1 << 20, Arc::new(CacheMetrics::default()));
        let started = Instant::now();
        memory.insert(key(1), Arc::new(kept(1.0)), Some(Duration::from_millis(100)));
        memory.insert(key(2), Arc::new(kept(2.0)), Some(Duration::from_secs(3600)));
        let mut seen = false;
        while memory.get(&key(1)).is_some() {
            seen = true;
            assert!(started.elapsed() < Duration::from_secs(60), "it never expires");
            std::thread::yield_now();
        }
        assert!(seen || started.elapsed() >= Duration::from_millis(100), "it expired at once");
        assert!(memory.get(&key(2)).is_some());
        // The time of an answer that is replaced begins anew.
        memory.insert(key(1), Arc::new(kept(3.0)), None);
        assert_eq!(memory.get(&key(1)).map(|kept| (*kept).clone()), Some(kept(3.0)));
    }
}
