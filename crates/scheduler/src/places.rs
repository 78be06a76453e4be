//! The places of a queue: how many requests wait, and how many may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outhaul_monitor::ModelMetrics;

use crate::{Level, Levels};

/// The places of one queue, or of each of its levels where it has some.
pub(crate) struct Places {
    /// All requests that wait.
    taken: AtomicUsize,
    capacity: usize,
    levels: Box<[LevelPlaces]>,
    metrics: Arc<ModelMetrics>,
}

struct LevelPlaces {
    taken: AtomicUsize,
    capacity: usize,
}

impl LevelPlaces {
    fn take(&self) -> bool {
        let free = self.taken.fetch_add(1, Ordering::Relaxed) < self.capacity;
        if !free {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
        free
    }
}

impl Places {
    pub(crate) fn new(capacity: usize, levels: &Levels, metrics: Arc<ModelMetrics>) -> Self {
        let limits = levels.iter().filter_map(|level| levels.limits(level));
        let levels: Box<[LevelPlaces]> = limits
            .map(|limits| LevelPlaces { taken: AtomicUsize::new(0), capacity: limits.capacity })
            .collect();
        // Where each level has its own places, there is no limit to all of them together.
        let capacity = if levels.is_empty() { capacity } else { usize::MAX };
        Places { taken: AtomicUsize::new(0), capacity, levels, metrics }
    }

    /// Takes a place for a request of this level, or returns `None` where none is free.
    pub(crate) fn take(places: &Arc<Self>, level: Level) -> Option<Place> {
        let own = places.levels.get(level.index());
        if own.is_some_and(|own| !own.take()) {
            return None;
        }
        if places.taken.fetch_add(1, Ordering::Relaxed) < places.capacity {
            // Counted as it happens: an instance that computes for seconds tells nothing meanwhile.
            places.metrics.queue_entered();
            return Some(Place { places: Arc::clone(places), level });
        }
        places.taken.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Returns how many requests wait.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Returns how many requests of one level wait; of the only one, all.
    pub(crate) fn taken_at(&self, level: Level) -> usize {
        let own = self.levels.get(level.index());
        own.map_or_else(|| self.taken(), |own| own.taken.load(Ordering::Relaxed))
    }
}

/// One of the queue's places; dropping it frees the place.
pub(crate) struct Place {
    places: Arc<Places>,
    level: Level,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(own) = self.places.levels.get(self.level.index()) {
            own.taken.fetch_sub(1, Ordering::Relaxed);
        }
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        self.places.metrics.queue_left();
    }
}
