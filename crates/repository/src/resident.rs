//! A version in memory: what answers, what it takes, when it was used.
//!
//! Invariant: the last holder of a [`Resident`] never pays for its end. Ending a version joins its
//! threads and frees its weights, which may take long; a connection's thread that happens to finish
//! the last request must not wait for it. So the contents go to the reaper's thread.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// How exactly the last use is known. A store by every request would move the cache line between the
/// cores.
const RESOLUTION_MS: u64 = 16;

/// A version in memory.
#[derive(Debug)]
pub struct Resident<T> {
    /// `None` only while it is being dropped.
    contents: Option<T>,
    memory: u64,
    born: Instant,
    /// Milliseconds from `born` to the last use.
    used_ms: AtomicU64,
    reaper: Option<Sender<(T, u64)>>,
}

impl<T> Resident<T> {
    /// Makes a version in memory that ends where its last holder drops it: for tests, and for programs
    /// without a repository.
    pub fn unattended(contents: T) -> Self {
        Self::new(contents, 0, None)
    }

    pub(crate) fn attended(contents: T, memory: u64, reaper: Sender<(T, u64)>) -> Self {
        Self::new(contents, memory, Some(reaper))
    }

    fn new(contents: T, memory: u64, reaper: Option<Sender<(T, u64)>>) -> Self {
        let (contents, used_ms) = (Some(contents), AtomicU64::new(0));
        Resident { contents, memory, born: Instant::now(), used_ms, reaper }
    }

    /// Notes that a request uses it at `now`.
    pub fn touch(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.born).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        if elapsed >= self.used_ms.load(Ordering::Relaxed) + RESOLUTION_MS {
            self.used_ms.store(elapsed, Ordering::Relaxed);
        }
    }

    /// Returns when it was used last, to about 16 ms; when it was made where never.
    pub fn last_used(&self) -> Instant {
        self.born + Duration::from_millis(self.used_ms.load(Ordering::Relaxed))
    }

    /// Returns the bytes that it was measured to take; 0 where nobody measured.
    pub fn memory(&self) -> u64 {
        self.memory
    }
}

impl<T> Deref for Resident<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.contents.as_ref().expect("the contents are taken only by drop")
    }
}

impl<T> Drop for Resident<T> {
    fn drop(&mut self) {
        if let (Some(contents), Some(reaper)) = (self.contents.take(), &self.reaper) {
            // Where the reaper is gone the process is ending: the contents end here.
            let _ = reaper.send((contents, self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_contents_end_with_the_reaper() {
        let (send, reaper) = mpsc::channel();
        let first = Arc::new(Resident::attended("weights", 7, send));
        let second = Arc::clone(&first);
        drop(first);
        assert!(reaper.try_recv().is_err(), "somebody still uses it");
        drop(second);
        assert_eq!(reaper.try_recv(), Ok(("weights", 7)));
    }

    #[test]
    fn uses_are_noted_coarsely() {
        let resident = Resident::unattended(());
        let at = |ms| resident.born + Duration::from_millis(ms);
        assert_eq!(resident.last_used(), at(0));
        resident.touch(at(10));
        assert_eq!(resident.last_used(), at(0));
        resident.touch(at(40));
        assert_eq!(resident.last_used(), at(40));
        resident.touch(at(20));
        assert_eq!(resident.last_used(), at(40), "time does not go back");
    }
}
