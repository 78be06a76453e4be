//! The cache of one version: memory, then what is under way, then Redis, then computing.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outhaul_monitor::traffic::CacheMetrics;
use outhaul_types::{CacheSpec, CacheStatus, CacheStore, Deadline, ModelName};
use tokio::time::Instant;

use crate::in_flight::InFlight;
use crate::memory::Memory;
use crate::store::LARGEST;
use crate::{CacheKey, Kept, KeyBuilder, SharedStore, codec};

/// Answers of one version, kept and shared. Errors of its computations are of type `E`, which must be cheap
/// to clone: all who wait for one get it. A clone is the same cache.
pub struct AnswerCache<E: Clone>(Arc<Inner<E>>);

struct Inner<E: Clone> {
    keeper: Arc<Keeper>,
    in_flight: Arc<InFlight<Result<Settled, E>>>,
}

/// Where answers are kept.
struct Keeper {
    model: ModelName,
    memory: Option<Memory>,
    store: Option<SharedStore>,
    ttl: Option<Duration>,
    metrics: Arc<CacheMetrics>,
}

/// How a computation that several may wait for came to its answer.
#[derive(Clone)]
struct Settled {
    kept: Arc<Kept>,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Memory,
    Store,
    Computed,
}

/// What somebody wants of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What the answer is found by.
    pub key: CacheKey,
    /// Whether it must be computed anew. The fresh answer is kept all the same.
    pub bypass: bool,
    /// When it becomes worthless for whoever asks.
    pub deadline: Option<Deadline>,
    /// How urgent it is: only who asks in the same lane waits for the same computation.
    pub lane: u64,
}

/// An answer, and where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The answer.
    pub kept: Arc<Kept>,
    /// What the cache had to do with it.
    pub status: CacheStatus,
    /// Whether it came from Redis.
    pub is_shared: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed<E> {
    /// The deadline of whoever asked passed; others may go on waiting.
    Late,
    /// It could not be computed.
    Failed(E),
}

impl<E: Clone> Clone for AnswerCache<E> {
    fn clone(&self) -> Self {
        AnswerCache(Arc::clone(&self.0))
    }
}

impl<E: Clone> fmt::Debug for AnswerCache<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerCache({})", self.0.keeper.model)
    }
}

impl<E: Clone + Send + Sync + 'static> AnswerCache<E> {
    /// Makes the cache of a version of `model`. Where the declaration names Redis, `store` is asked; without
    /// one only memory is.
    pub fn new(
        model: ModelName,
        spec: &CacheSpec,
        store: Option<SharedStore>,
        metrics: Arc<CacheMetrics>,
    ) -> Self {
        let in_memory = matches!(spec.store, CacheStore::Memory | CacheStore::Both);
        let in_store = matches!(spec.store, CacheStore::Redis | CacheStore::Both);
        let memory = in_memory.then(|| Memory::new(spec.capacity, Arc::clone(&metrics)));
        let store = store.filter(|_| in_store);
        let keeper = Arc::new(Keeper { model, memory, store, ttl: spec.ttl, metrics });
        AnswerCache(Arc::new(Inner { keeper, in_flight: InFlight::new() }))
    }

    /// Returns an answer that is in memory.
    pub fn peek(&self, key: &CacheKey) -> Option<Arc<Kept>> {
        self.0.keeper.memory.as_ref()?.get(key)
    }

    /// Returns the answer to a key: from memory, from an equal computation under way, from Redis, or from
    /// `compute`, whose answer is then kept.
    ///
    /// The computation goes on as long as anybody waits for it, so it must not end at the deadline of the
    /// one who asks; that is seen to here. One that bypasses the cache is nobody else's.
    ///
    /// # Errors
    ///
    /// Fails where the deadline passes first, or the computation fails.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime with its timers on, where there is a deadline or a Redis.
    pub async fn get_or_compute(
        &self,
        ask: Ask,
        compute: impl FnOnce() -> BoxFuture<'static, Result<Kept, E>>,
    ) -> Result<Found, Missed<E>> {
        let Ask { key, bypass, deadline, lane } = ask;
        let found = |kept, status, is_shared| Found { kept, status, is_shared };
        if bypass {
            let fresh = in_time(deadline, compute()).await?.map_err(Missed::Failed)?;
            let kept = self.0.keeper.keep(key, Arc::new(fresh));
            return Ok(found(kept, CacheStatus::Bypassed, false));
        }
        if let Some(kept) = self.peek(&key) {
            return Ok(found(kept, CacheStatus::Hit, false));
        }
        let begin = || {
            let keeper = Arc::clone(&self.0.keeper);
            let compute = compute();
            async move { keeper.settle(key, compute).await }
        };
        let shared_by = KeyBuilder::new().bytes(key.as_bytes()).number(lane).finish();
        let (computing, joined) = self.0.in_flight.join_or_begin(shared_by, begin);
        let settled = in_time(deadline, computing).await?.map_err(Missed::Failed)?;
        let status = match settled.source {
            Source::Memory | Source::Store => CacheStatus::Hit,
            Source::Computed if joined => CacheStatus::Joined,
            Source::Computed => CacheStatus::Miss,
        };
        Ok(found(settled.kept, status, settled.source == Source::Store))
    }
}

impl Keeper {
    async fn settle<E>(
        &self,
        key: CacheKey,
        compute: BoxFuture<'static, Result<Kept, E>>,
    ) -> Result<Settled, E> {
        // An equal computation may have ended between the look into memory and the beginning of this one.
        if let Some(kept) = self.memory.as_ref().and_then(|memory| memory.get(&key)) {
            return Ok(Settled { kept, source: Source::Memory });
        }
        if let Some(kept) = self.fetch(key).await {
            return Ok(Settled { kept, source: Source::Store });
        }
        let kept = self.keep(key, Arc::new(compute.await?));
        Ok(Settled { kept, source: Source::Computed })
    }

    /// Looks into Redis. What is found is from then on in memory too.
    async fn fetch(&self, key: CacheKey) -> Option<Arc<Kept>> {
        let store = self.store.as_ref()?;
        let Ok(found) = store.get(&key).await else {
            self.metrics.store_failures.increment();
            return None;
        };
        let (bytes, left) = found?;
        // In buffers of its own: in the message, tensors lie at any address.
        let kept = Arc::new(codec::decode(&key, bytes)?.compact());
        if let Some(memory) = &self.memory {
            // It has been good for a while already, there.
            let good_for = self.ttl.map(|ttl| left.unwrap_or(ttl).min(ttl));
            memory.insert(key, Arc::clone(&kept), good_for);
        }
        Some(kept)
    }

    /// Keeps an answer wherever answers are kept; returns it in buffers of its own, where it is in memory.
    fn keep(&self, key: CacheKey, fresh: Arc<Kept>) -> Arc<Kept> {
        let kept = match self.memory.as_ref().filter(|memory| memory.takes(fresh.size())) {
            None => fresh,
            Some(memory) => {
                let own = Arc::new(fresh.compact());
                memory.insert(key, Arc::clone(&own), self.ttl);
                own
            }
        };
        if let Some(store) = self.store.as_ref().filter(|_| kept.size() <= LARGEST) {
            let metrics = Arc::clone(&self.metrics);
            let value = codec::encode(&key, &self.model, &kept);
            store.put(&key, value, self.ttl, move || metrics.store_failures.increment());
        }
        kept
    }
}

async fn in_time<T, E>(
    deadline: Option<Deadline>,
    work: impl Future<Output = T>,
) -> Result<T, Missed<E>> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) if deadline.has_passed(Instant::now().into_std()) => Err(Missed::Late),
        Some(Deadline(at)) => {
            tokio::time::timeout_at(at.into(), work).await.map_err(|_| Missed::Late)
        }
    }
}

#[cfg(test)]
mod tests;
