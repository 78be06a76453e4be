//! What became of requests on routes, in caches, at fallbacks and elsewhere.
//!
//! Handles are looked up once, when a route table or a model is built, and then only add to atomics. They
//! outlive a change of the route table: a variant goes on counting under its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use outhaul_types::{ErrorKind, FallbackCause, ModelName, Name};
use serde::{Deserialize, Serialize};

use crate::latency::{LatencyCounts, LatencyHistogram};

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of the requests that a route sent to one variant.
#[derive(Debug, Default)]
pub struct VariantMetrics {
    /// Of the requests that were answered by computing.
    latency: LatencyHistogram,
    cached: Counter,
    failed: Counter,
    refused: Counter,
}

impl VariantMetrics {
    /// Counts one request. A caller's mistake is neither for nor against the variant.
    pub fn record(&self, outcome: Result<(), ErrorKind>, latency: Duration) {
        match outcome {
            Ok(()) => self.latency.record(latency),
            Err(kind) if is_callers(kind) => self.refused.increment(),
            Err(_) => self.failed.increment(),
        }
    }

    /// Counts an answer that was there before: it says nothing of how long the variant takes.
    pub fn record_cached(&self) {
        self.cached.increment();
    }

    /// Counts a request that gave no answer for a reason which says nothing of the variant.
    pub fn excuse(&self) {
        self.refused.increment();
    }

    /// Returns the latency that half of the answers took no longer than.
    pub fn median(&self) -> Option<Duration> {
        self.latency.counts().quantile(0.5)
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> VariantCounts {
        VariantCounts {
            latency: self.latency.counts(),
            cached: self.cached.get(),
            failed: self.failed.get(),
            refused: self.refused.get(),
        }
    }
}

/// Whether an error says nothing about the model that was asked.
pub fn is_callers(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::InvalidInput
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::Conflict
        | ErrorKind::Unsupported => true,
        // A version that a route names and that is not there is the variant's failure.
        ErrorKind::NotFound
        | ErrorKind::NotReady
        | ErrorKind::Overloaded
        | ErrorKind::DeadlineExceeded
        | ErrorKind::EngineFailed
        | ErrorKind::Unavailable
        | ErrorKind::Internal => false,
    }
}

/// What became of the requests to one variant, as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantCounts {
    /// The latencies of those that were answered by computing.
    pub latency: LatencyCounts,
    /// Those that were answered from a cache.
    #[serde(default)]
    pub cached: u64,
    /// Those that failed through no fault of the caller.
    pub failed: u64,
    /// Those that say nothing of the variant: the caller's mistakes, above all.
    pub refused: u64,
}

impl VariantCounts {
    /// Returns those that say something about the variant: answered or failed.
    pub fn judged(&self) -> u64 {
        self.answered() + self.failed
    }

    /// Returns those that were answered.
    pub fn answered(&self) -> u64 {
        self.latency.total() + self.cached
    }

    /// Adds another process's.
    pub fn merge(&mut self, other: &VariantCounts) {
        self.latency.merge(&other.latency);
        self.cached += other.cached;
        self.failed += other.failed;
        self.refused += other.refused;
    }

    /// Returns what has come since an earlier moment of the same handle.
    pub fn since(&self, earlier: &VariantCounts) -> VariantCounts {
        VariantCounts {
            latency: self.latency.since(&earlier.latency),
            cached: self.cached.saturating_sub(earlier.cached),
            failed: self.failed.saturating_sub(earlier.failed),
            refused: self.refused.saturating_sub(earlier.refused),
        }
    }
}

/// What became of the copies that a route sent to a shadow.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the struct below says it")]
pub struct ShadowMetrics {
    pub compared: Counter,
    pub disagreed: Counter,
    pub failed: Counter,
    pub shed: Counter,
}

impl ShadowMetrics {
    /// Returns the counts so far.
    pub fn counts(&self) -> ShadowCounts {
        ShadowCounts {
            compared: self.compared.get(),
            disagreed: self.disagreed.get(),
            failed: self.failed.get(),
            shed: self.shed.get(),
        }
    }
}

/// What became of shadowed requests, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCounts {
    /// Both answers came and were compared.
    pub compared: u64,
    /// Of these, the answers that disagreed.
    pub disagreed: u64,
    /// The shadow gave no answer.
    pub failed: u64,
    /// No copy was made, to keep the primary fast.
    pub shed: u64,
}

impl ShadowCounts {
    /// Adds another process's.
    pub fn merge(&mut self, other: &ShadowCounts) {
        self.compared += other.compared;
        self.disagreed += other.disagreed;
        self.failed += other.failed;
        self.shed += other.shed;
    }

    /// Returns what has come since an earlier moment of the same handle.
    pub fn since(&self, earlier: &ShadowCounts) -> ShadowCounts {
        ShadowCounts {
            compared: self.compared.saturating_sub(earlier.compared),
            disagreed: self.disagreed.saturating_sub(earlier.disagreed),
            failed: self.failed.saturating_sub(earlier.failed),
            shed: self.shed.saturating_sub(earlier.shed),
        }
    }
}

/// What a model's cache did.
#[derive(Debug, Default)]
pub struct CacheMetrics {
    /// Answers that were there.
    pub hits: Counter,
    /// Of the hits, those that came from Redis.
    pub shared_hits: Counter,
    /// Requests that joined an equal one under way.
    pub joined: Counter,
    /// Answers that had to be computed.
    pub misses: Counter,
    /// Requests that asked for a fresh answer.
    pub bypassed: Counter,
    /// Calls to Redis that failed; each costs a miss and no more.
    pub store_failures: Counter,
    /// Engine time that hits and joined requests did not spend, in nanoseconds.
    pub saved_ns: Counter,
    /// Bytes that are kept in memory now.
    pub bytes: AtomicU64,
    /// Answers that are kept in memory now.
    pub entries: AtomicU64,
}

/// How often fallbacks answered in place of one destination, by cause.
#[derive(Debug, Default)]
pub struct FallbackMetrics([Counter; FallbackCause::ALL.len()]);

impl FallbackMetrics {
    /// Counts a request that was led on for this cause.
    pub fn record(&self, cause: FallbackCause) {
        self.0[cause as usize].increment();
    }

    /// Returns the count of a cause.
    pub fn count(&self, cause: FallbackCause) -> u64 {
        self.0[cause as usize].get()
    }
}

/// What became of requests to a model elsewhere.
#[derive(Debug, Default)]
pub struct RemoteMetrics {
    /// Requests sent.
    pub sent: Counter,
    /// Those that failed.
    pub failed: Counter,
    /// Requests that were sent a second time because the first took long.
    pub hedged: Counter,
    /// Of these, the ones whose second answer came first.
    pub hedges_won: Counter,
    /// From sending to the answer.
    pub latency: LatencyHistogram,
}

type Table<K, V> = RwLock<BTreeMap<K, Arc<V>>>;

/// All handles of this module.
#[derive(Debug, Default)]
pub struct TrafficMetrics {
    variants: Table<(ModelName, Name), VariantMetrics>,
    shadows: Table<(ModelName, Name), ShadowMetrics>,
    caches: Table<ModelName, CacheMetrics>,
    fallbacks: Table<Name, FallbackMetrics>,
    remotes: Table<Name, RemoteMetrics>,
    limited: Table<Name, Counter>,
}

impl TrafficMetrics {
    /// Returns the handle of a route's variant.
    pub fn variant(&self, route: &ModelName, variant: &str) -> Arc<VariantMetrics> {
        handle(&self.variants, (route.clone(), variant.into()))
    }

    /// Returns the handle of a route's shadow.
    pub fn shadow(&self, route: &ModelName, to: &str) -> Arc<ShadowMetrics> {
        handle(&self.shadows, (route.clone(), to.into()))
    }

    /// Returns the handle of a model's cache.
    pub fn cache(&self, model: &ModelName) -> Arc<CacheMetrics> {
        handle(&self.caches, model.clone())
    }

    /// Returns the handle of what is done when a declared destination does not answer.
    pub fn fallback(&self, from: &str) -> Arc<FallbackMetrics> {
        handle(&self.fallbacks, from.into())
    }

    /// Returns the handle of a model elsewhere. `url` is one that somebody configured.
    pub fn remote(&self, url: &str) -> Arc<RemoteMetrics> {
        handle(&self.remotes, url.into())
    }

    /// Returns the counter of requests that came above a configured caller's rate.
    pub fn limited(&self, caller: &str) -> Arc<Counter> {
        handle(&self.limited, caller.into())
    }

    /// Returns every cache, by model.
    pub fn caches(&self) -> Vec<(ModelName, Arc<CacheMetrics>)> {
        all(&self.caches)
    }

    /// Returns every variant, by route and name.
    pub fn variants(&self) -> Vec<((ModelName, Name), Arc<VariantMetrics>)> {
        all(&self.variants)
    }

    /// Returns every shadow, by route and destination.
    pub fn shadows(&self) -> Vec<((ModelName, Name), Arc<ShadowMetrics>)> {
        all(&self.shadows)
    }

    /// Returns every declared destination with a fallback.
    pub fn fallbacks(&self) -> Vec<(Name, Arc<FallbackMetrics>)> {
        all(&self.fallbacks)
    }

    /// Returns every model elsewhere.
    pub fn remotes(&self) -> Vec<(Name, Arc<RemoteMetrics>)> {
        all(&self.remotes)
    }

    /// Returns every limited caller.
    pub fn limits(&self) -> Vec<(Name, Arc<Counter>)> {
        all(&self.limited)
    }
}

fn handle<K: Ord, V: Default>(table: &Table<K, V>, key: K) -> Arc<V> {
    let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(table.entry(key).or_default())
}

fn all<K: Clone, V>(table: &Table<K, V>) -> Vec<(K, Arc<V>)> {
    let table = table.read().unwrap_or_else(PoisonError::into_inner);
    table.iter().map(|(key, value)| (key.clone(), Arc::clone(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_mistake_is_not_held_against_the_variant() {
        let metrics = VariantMetrics::default();
        for kind in ErrorKind::ALL {
            metrics.record(Err(kind), Duration::ZERO);
        }
        metrics.record(Ok(()), Duration::from_millis(1));
        let counts = metrics.counts();
        assert_eq!((counts.failed, counts.refused, counts.judged()), (7, 5, 8));
        assert_eq!(counts.since(&counts).judged(), 0);
        metrics.record_cached();
        metrics.excuse();
        let more = metrics.counts();
        assert_eq!((more.answered(), more.latency.total(), more.refused), (2, 1, 6));
    }

    #[test]
    fn causes_are_their_own_index() {
        for (index, cause) in FallbackCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }

    #[test]
    fn a_variant_goes_on_counting() {
        let traffic = TrafficMetrics::default();
        let route = ModelName::new("reviews").unwrap();
        traffic.variant(&route, "reviews@1").record(Ok(()), Duration::ZERO);
        assert_eq!(traffic.variant(&route, "reviews@1").counts().judged(), 1);
        assert_eq!(traffic.variants().len(), 1);
    }
}
