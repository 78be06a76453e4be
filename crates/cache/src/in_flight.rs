//! What is being computed, so that who asks for the same can wait for it.
//!
//! Invariant: at most one computation of a key is found here at a time, and it is there only as long as
//! somebody waits for it: the table holds it weakly, and its entry goes with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::CacheKey;

/// Tables, so that requests for different answers seldom meet at a lock.
const SHARDS: usize = 16;

/// A computation that several wait for.
pub(crate) type Computing<T> = Shared<BoxFuture<'static, T>>;

/// Computations under way, by key.
pub(crate) struct InFlight<T: Clone> {
    shards: [Mutex<HashMap<CacheKey, Known<T>>>; SHARDS],
    begun: AtomicU64,
}

struct Known<T: Clone> {
    number: u64,
    computing: WeakShared<BoxFuture<'static, T>>,
}

/// Takes the entry of one computation away when it ends, in whatever way.
struct Ending<T: Clone + Send + Sync + 'static> {
    table: Arc<InFlight<T>>,
    key: CacheKey,
    number: u64,
}

impl<T: Clone + Send + Sync + 'static> Drop for Ending<T> {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.key);
        // One that nobody waited for may have been followed by another.
        if shard.get(&self.key).is_some_and(|known| known.number == self.number) {
            shard.remove(&self.key);
        }
    }
}

impl<T: Clone + Send + Sync + 'static> InFlight<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(InFlight {
            shards: std::array::from_fn(|_| Mutex::default()),
            begun: AtomicU64::new(0),
        })
    }

    /// Returns the computation of `key` that is under way, or the one that `begin` makes; also whether it
    /// was joined.
    pub(crate) fn join_or_begin<F: Future<Output = T> + Send + 'static>(
        self: &Arc<Self>,
        key: CacheKey,
        begin: impl FnOnce() -> F,
    ) -> (Computing<T>, bool) {
        let mut shard = self.shard(&key);
        let entry = shard.entry(key);
        if let Entry::Occupied(known) = &entry
            && let Some(computing) = known.get().computing.upgrade()
        {
            return (computing, true);
        }
        let work = begin();
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let ending = Ending { table: Arc::clone(self), key, number };
        let work = async move {
            let _ending = ending;
            work.await
        };
        let computing = work.boxed().shared();
        if let Some(weak) = computing.downgrade() {
            entry.insert_entry(Known { number, computing: weak });
        }
        (computing, false)
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, HashMap<CacheKey, Known<T>>> {
        // Nobody computes under the lock, nor drops a computation, which would come back for it.
        let shard = &self.shards[usize::from(key.as_bytes()[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let count = |shard: &Mutex<HashMap<CacheKey, Known<T>>>| shard.lock().unwrap().len();
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::KeyBuilder;

    #[tokio::test]
    async fn a_computation_is_known_as_long_as_somebody_waits_for_it() {
        let table = InFlight::<u32>::new();
        let key = KeyBuilder::new().number(1).finish();
        let (first, joined) = table.join_or_begin(key, std::future::pending);
        assert!(!joined);
        let (second, joined) = table.join_or_begin(key, || async { 7 });
        assert!(joined, "equal requests share one");
        drop(first);
        let (third, joined) = table.join_or_begin(key, || async { 7 });
        assert!(joined, "the second still waits");
        drop((second, third));
        assert_eq!(table.len(), 0, "nobody waits");
        let (last, joined) = table.join_or_begin(key, || async { 7 });
        assert!(!joined);
        assert_eq!(last.await, 7);
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn whoever_stays_drives_it_on() {
        let table = InFlight::<u32>::new();
        let key = KeyBuilder::new().number(1).finish();
        let (answer, answered) = oneshot::channel::<u32>();
        let (first, _) = table.join_or_begin(key, || async { answered.await.unwrap() });
        let (second, _) = table.join_or_begin(key, std::future::pending);
        let leader = tokio::spawn(first);
        let joiner = tokio::spawn(second);
        tokio::task::yield_now().await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        answer.send(3).unwrap();
        assert_eq!(joiner.await.unwrap(), 3);
    }
}
