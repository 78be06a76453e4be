//! What becomes of models and of the places they come from: loads, evictions, memory, looks.
//!
//! Invariant: what is kept has a row for each model and version that exists and for each configured
//! source, and no other; what exists no more is forgotten by [`LoadMetrics::forget_version`] and
//! [`LoadMetrics::forget_model`]. Nothing here grows with the number of loads or swaps.
//!
//! All of it happens seldom (a model is loaded in milliseconds at best), so one lock guards it. No request
//! takes that lock, and a reader of the metrics holds it only while it copies the rows.

use std::array;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use outhaul_types::{ModelName, ModelVersion};

use crate::histogram::{Histogram, LOADS};

/// Where a version stands, as the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionStateLabel {
    /// It is being opened or warmed up.
    Loading,
    /// It answers.
    Ready,
    /// It is known and not loaded; a request would load it.
    Dormant,
    /// Its last load failed.
    Failed,
    /// It is known and not loaded, and stays so until somebody asks.
    Unloaded,
}

impl VersionStateLabel {
    /// Every state, for exhaustive tests.
    pub const ALL: [VersionStateLabel; 5] = [
        VersionStateLabel::Loading,
        VersionStateLabel::Ready,
        VersionStateLabel::Dormant,
        VersionStateLabel::Failed,
        VersionStateLabel::Unloaded,
    ];

    /// Returns the label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            VersionStateLabel::Loading => "loading",
            VersionStateLabel::Ready => "ready",
            VersionStateLabel::Dormant => "dormant",
            VersionStateLabel::Failed => "failed",
            VersionStateLabel::Unloaded => "unloaded",
        }
    }
}

/// How a load ended.
#[derive(Clone, Copy)]
pub(crate) enum LoadOutcome {
    Loaded,
    Failed,
    Refused,
}

impl LoadOutcome {
    pub(crate) const ALL: [LoadOutcome; 3] =
        [LoadOutcome::Loaded, LoadOutcome::Failed, LoadOutcome::Refused];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            LoadOutcome::Loaded => "loaded",
            LoadOutcome::Failed => "failed",
            LoadOutcome::Refused => "refused",
        }
    }
}

/// Counters and gauges of everything that is loaded and let go, one for a process. Cheap enough for each
/// event, not for each request.
pub struct LoadMetrics {
    /// In the order of [`LoadOutcome::ALL`]. Of all models together: a histogram for each of a thousand
    /// models that load a few times a day would be most of the text and say little.
    seconds: [Histogram; LoadOutcome::ALL.len()],
    rows: Mutex<Rows>,
}

/// Everything but the histogram, as a reader copies it.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    pub(crate) versions: BTreeMap<(ModelName, ModelVersion), VersionRow>,
    pub(crate) models: BTreeMap<ModelName, ModelRow>,
    pub(crate) sources: BTreeMap<String, SourceRow>,
    pub(crate) budget: Option<u64>,
    pub(crate) memory: u64,
    pub(crate) fetched: u64,
}

/// One version that exists.
#[derive(Clone, Copy)]
pub(crate) struct VersionRow {
    pub(crate) state: VersionStateLabel,
    pub(crate) memory: Option<u64>,
}

/// What was done with one model so far, all its versions together.
#[derive(Clone, Copy, Default)]
pub(crate) struct ModelRow {
    /// In the order of [`LoadOutcome::ALL`].
    pub(crate) loads: [u64; LoadOutcome::ALL.len()],
    pub(crate) evicted: u64,
    pub(crate) unloaded: u64,
}

/// How looking at one source went so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct SourceRow {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) last_success: Option<SystemTime>,
}

impl Default for LoadMetrics {
    fn default() -> Self {
        let seconds = array::from_fn(|_| Histogram::cold(LOADS));
        LoadMetrics { seconds, rows: Mutex::default() }
    }
}

impl LoadMetrics {
    /// Counts a load that succeeded and what it took, from its first byte read to being warm.
    pub fn loaded(&self, model: &ModelName, took: Duration) {
        self.ended(LoadOutcome::Loaded, model, took);
    }

    /// Counts a load that failed, and what it took until then: the file or the engine is to blame.
    pub fn failed(&self, model: &ModelName, took: Duration) {
        self.ended(LoadOutcome::Failed, model, took);
    }

    /// Counts a load that a rule refused, and what it took until then (nothing where it was not begun):
    /// no room in the budget, or a signature that would break callers.
    pub fn refused(&self, model: &ModelName, took: Duration) {
        self.ended(LoadOutcome::Refused, model, took);
    }

    /// Counts a version that had to make room for another model.
    pub fn evicted(&self, model: &ModelName) {
        self.change(model, |row| row.evicted += 1);
    }

    /// Counts a version that was let go for any other reason: replaced, removed or asked for.
    pub fn unloaded(&self, model: &ModelName) {
        self.change(model, |row| row.unloaded += 1);
    }

    /// Counts one look at a source. `place` becomes a label: the source as it was configured and may be
    /// shown, without password, never what was found there.
    pub fn looked(&self, place: &str, ok: bool) {
        self.looked_at(place, ok, SystemTime::now());
    }

    /// Counts bytes that came from a source that is not on this machine.
    pub fn fetched_bytes(&self, bytes: u64) {
        let mut rows = self.rows();
        // Prometheus takes a fall for a restart, which is what an overflow is as well.
        rows.fetched = rows.fetched.wrapping_add(bytes);
    }

    /// Sets the memory that models may take together, `None` for no limit.
    pub fn set_budget(&self, bytes: Option<u64>) {
        self.rows().budget = bytes;
    }

    /// Sets the memory that models take together now, those that drain included.
    pub fn set_memory_total(&self, bytes: u64) {
        self.rows().memory = bytes;
    }

    /// Sets where a version stands, and what it was measured to take while it is loaded.
    pub fn set_version(
        &self,
        model: &ModelName,
        version: ModelVersion,
        state: VersionStateLabel,
        memory: Option<u64>,
    ) {
        self.rows().versions.insert((model.clone(), version), VersionRow { state, memory });
    }

    /// Forgets a version that exists no more. What was counted for its model stays.
    pub fn forget_version(&self, model: &ModelName, version: ModelVersion) {
        self.rows().versions.remove(&(model.clone(), version));
    }

    /// Forgets a model that exists no more, with its versions and what was counted for it. Whatever is
    /// counted for it later makes it known again.
    pub fn forget_model(&self, model: &ModelName) {
        let mut rows = self.rows();
        rows.models.remove(model);
        remove_model(&mut rows.versions, model);
    }

    /// Returns how long loads that ended so took.
    pub(crate) fn seconds(&self, outcome: LoadOutcome) -> &Histogram {
        &self.seconds[outcome as usize]
    }

    /// Returns a copy of all rows.
    pub(crate) fn copy(&self) -> Rows {
        self.rows().clone()
    }

    fn ended(&self, outcome: LoadOutcome, model: &ModelName, took: Duration) {
        self.seconds(outcome).observe_duration(took);
        self.change(model, |row| row.loads[outcome as usize] += 1);
    }

    fn looked_at(&self, place: &str, ok: bool, now: SystemTime) {
        let mut rows = self.rows();
        let row = rows.sources.entry(place.to_owned()).or_default();
        if ok {
            row.ok += 1;
            row.last_success = Some(now);
        } else {
            row.failed += 1;
        }
    }

    fn change(&self, model: &ModelName, change: impl FnOnce(&mut ModelRow)) {
        let mut rows = self.rows();
        // No clone of the name where it is known.
        match rows.models.get_mut(model) {
            Some(row) => change(row),
            None => change(rows.models.entry(model.clone()).or_default()),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes all versions of one model, at the cost of those alone.
pub(crate) fn remove_model<T>(
    versions: &mut BTreeMap<(ModelName, ModelVersion), T>,
    model: &ModelName,
) {
    let all = (model.clone(), ModelVersion(u64::MIN))..=(model.clone(), ModelVersion(u64::MAX));
    versions.extract_if(all, |_, _| true).for_each(drop);
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::new(name).unwrap()
    }

    #[test]
    fn nothing_grows_with_the_number_of_swaps() {
        let metrics = LoadMetrics::default();
        let iris = model("iris");
        for number in 1..=1_000 {
            let version = ModelVersion(number);
            metrics.set_version(&iris, version, VersionStateLabel::Loading, None);
            metrics.loaded(&iris, Duration::from_millis(1));
            metrics.set_version(&iris, version, VersionStateLabel::Ready, Some(7));
            if number > 1 {
                metrics.unloaded(&iris);
                metrics.forget_version(&iris, ModelVersion(number - 1));
            }
        }
        let rows = metrics.copy();
        assert_eq!((rows.versions.len(), rows.models.len()), (1, 1));
        let row = rows.models[&iris];
        assert_eq!((row.loads, row.unloaded), ([1_000, 0, 0], 999));
        assert_eq!(metrics.seconds(LoadOutcome::Loaded).count(), 1_000);
    }

    #[test]
    fn a_model_is_forgotten_with_its_versions_and_no_other() {
        let metrics = LoadMetrics::default();
        for name in ["a", "a-b", "b"] {
            for number in [0, 1, u64::MAX] {
                let state = VersionStateLabel::Dormant;
                metrics.set_version(&model(name), ModelVersion(number), state, None);
            }
            metrics.failed(&model(name), Duration::ZERO);
        }
        metrics.forget_model(&model("a"));
        metrics.forget_model(&model("nobody"));
        let rows = metrics.copy();
        assert_eq!(rows.models.keys().map(ModelName::as_str).collect::<Vec<_>>(), ["a-b", "b"]);
        assert_eq!(rows.versions.len(), 6);
        assert!(rows.versions.keys().all(|(name, _)| name.as_str() != "a"));
    }

    #[test]
    fn a_look_that_fails_leaves_the_last_success() {
        let metrics = LoadMetrics::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        metrics.looked_at("s3://models", true, at(5));
        metrics.looked_at("s3://models", false, at(9));
        metrics.looked_at("/models", false, at(9));
        let rows = metrics.copy();
        let bucket = rows.sources["s3://models"];
        assert_eq!((bucket.ok, bucket.failed, bucket.last_success), (1, 1, Some(at(5))));
        assert_eq!(rows.sources["/models"].last_success, None);
    }
}
