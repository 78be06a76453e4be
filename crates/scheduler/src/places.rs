//! The places of a queue: how many requests wait, and how many may.
//!
//! Whose they are is looked at only where none is left, under the lock of the sorted requests
//! (`ModelQueue::make_room`); taking a free one is an atomic add or two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use outhaul_monitor::ModelMetrics;

use crate::{CallerKey, Level, Levels};

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

impl Place {
    /// Hands it to a request that takes the holder's place. Where levels have places of their own, both are
    /// of one level.
    pub(crate) fn pass_on(mut self, level: Level) -> Place {
        if self.places.levels.is_empty() {
            self.level = level;
        }
        self
    }
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

/// How long a refusal holds for the caller's next requests. Meanwhile only a place that is free lets one in;
/// what was given up or is held beyond a share is not looked for again. It bounds what a flood of refused
/// requests costs: the sorted requests are looked through a thousand times a second for each caller.
const REFUSAL_HOLDS: Duration = Duration::from_millis(1);

/// Callers whose refusals are told apart; more share places here, and the newest counts.
const NOTES: usize = 16;

/// Who was refused lately. Times count from any moment that stays the same.
#[derive(Default)]
pub struct Refusals([Note; NOTES]);

/// A refusal: whose, and in microseconds when. What is read of two that meet may be mixed: then one request
/// is refused, or looked for, that need not have been.
#[derive(Default)]
struct Note {
    key: AtomicU64,
    until_us: AtomicU64,
}

impl Refusals {
    /// Returns whether a request of this caller and level was refused just before.
    pub fn is_fresh(&self, caller: CallerKey, level: Level, now: Duration) -> bool {
        let (key, note) = self.find(caller, level);
        note.key.load(Ordering::Relaxed) == key
            && micros(now) < note.until_us.load(Ordering::Relaxed)
    }

    /// Notes that a request of this caller and level is refused.
    pub fn note(&self, caller: CallerKey, level: Level, now: Duration) {
        let (key, note) = self.find(caller, level);
        note.key.store(key, Ordering::Relaxed);
        note.until_us.store(micros(now + REFUSAL_HOLDS), Ordering::Relaxed);
    }

    fn find(&self, caller: CallerKey, level: Level) -> (u64, &Note) {
        let key = caller.0 ^ (level.index() as u64);
        (key, &self.0[(key % NOTES as u64) as usize])
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_its_caller_and_level_and_ends() {
        let (refusals, now) = (Refusals::default(), Duration::from_secs(1));
        let (caller, level) = (CallerKey(7), Level::of_index(1));
        assert!(!refusals.is_fresh(CallerKey(0), Level::of_index(0), now), "nothing is noted");
        refusals.note(caller, level, now);
        assert!(refusals.is_fresh(caller, level, now));
        assert!(!refusals.is_fresh(caller, Level::of_index(0), now), "another level");
        assert!(!refusals.is_fresh(CallerKey(7 + NOTES as u64), level, now), "of one note");
        assert!(!refusals.is_fresh(caller, level, now + REFUSAL_HOLDS));
    }
}
