//! Which versions exist and in what state, published as one immutable [`Snapshot`] at a time.
//!
//! Invariant: a reader sees one whole snapshot, never half of a change; a version that a reader has
//! resolved lives on through its `Arc`, whatever is published meanwhile. Resolving is one hash
//! lookup and one reference count: no lock, no allocation.
//!
//! A [`Catalog`] never looks into what it holds (`T` is a served version to the router, a number to
//! the tests), and it decides nothing: what ought to be loaded is the plan's business.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use outhaul_pipeline::Outline;
use outhaul_types::{FallbackSpec, Label, ModelName, ModelVersion, VersionChoice};
use tokio::sync::Notify;

/// Where one version stands.
#[derive(Debug)]
pub enum VersionState<T> {
    /// It is not in memory, and is loaded when a request asks for it. Becomes `Waking`.
    Dormant,
    /// It is on its way because a request asked for it. Becomes `Ready` or `Failed`.
    Waking,
    /// It is on its way. Becomes `Ready` or `Failed`.
    Loading,
    /// It answers. Becomes `Dormant` when it is evicted.
    Ready(Arc<T>),
    /// It does not answer, for this reason. It may be tried again.
    Failed(Arc<str>),
    /// It does not answer since somebody unloaded it, or has not asked for it.
    Unloaded,
}

impl<T> Clone for VersionState<T> {
    fn clone(&self) -> Self {
        match self {
            VersionState::Dormant => VersionState::Dormant,
            VersionState::Waking => VersionState::Waking,
            VersionState::Loading => VersionState::Loading,
            VersionState::Ready(served) => VersionState::Ready(Arc::clone(served)),
            VersionState::Failed(reason) => VersionState::Failed(Arc::clone(reason)),
            VersionState::Unloaded => VersionState::Unloaded,
        }
    }
}

impl<T> VersionState<T> {
    /// Whether a request for the newest version may be meant for this one: it answers, or will for
    /// who waits.
    fn is_in_service(&self) -> bool {
        match self {
            VersionState::Ready(_) | VersionState::Dormant | VersionState::Waking => true,
            VersionState::Loading | VersionState::Failed(_) | VersionState::Unloaded => false,
        }
    }
}

/// One version of a model.
#[derive(Debug)]
pub struct VersionEntry<T> {
    /// Its number.
    pub version: ModelVersion,
    /// Where it stands.
    pub state: VersionState<T>,
    /// Why the last attempt to load it failed, where it did: a version may answer while its newest
    /// content does not load.
    pub last_error: Option<Arc<str>>,
}

impl<T> Clone for VersionEntry<T> {
    fn clone(&self) -> Self {
        let last_error = self.last_error.clone();
        VersionEntry { version: self.version, state: self.state.clone(), last_error }
    }
}

/// What is known of a model beside its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// Names of versions.
    pub labels: BTreeMap<Label, ModelVersion>,
    /// The longest that a request may wait for the model to be loaded.
    pub patience: Duration,
    /// The place that the model comes from.
    pub source: Arc<str>,
    /// What to do when the model gives no answer. It is known even where no version could be loaded.
    pub fallback: Option<Arc<FallbackSpec>>,
}

impl Default for ModelFacts {
    fn default() -> Self {
        let patience = outhaul_types::LimitsSpec::default().timeout;
        ModelFacts { labels: BTreeMap::new(), patience, source: "".into(), fallback: None }
    }
}

/// The versions of one model.
#[derive(Debug)]
pub struct ModelEntry<T> {
    name: ModelName,
    /// Ascending by number.
    versions: Vec<VersionEntry<T>>,
    /// The index of the newest version in service, found once when published.
    latest: Option<usize>,
    facts: Arc<ModelFacts>,
    changed: Arc<Notify>,
}

impl<T> Clone for ModelEntry<T> {
    fn clone(&self) -> Self {
        ModelEntry {
            name: self.name.clone(),
            versions: self.versions.clone(),
            latest: self.latest,
            facts: Arc::clone(&self.facts),
            changed: Arc::clone(&self.changed),
        }
    }
}

impl<T> ModelEntry<T> {
    fn new(name: ModelName) -> Self {
        let (facts, changed) = (Arc::default(), Arc::default());
        ModelEntry { name, versions: Vec::new(), latest: None, facts, changed }
    }

    /// Returns the model's name.
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// Returns all versions with their states, ascending by number.
    pub fn versions(&self) -> &[VersionEntry<T>] {
        &self.versions
    }

    /// Returns what is known beside the versions.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Returns what is notified after each change to this model.
    pub fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Returns one version.
    pub fn version(&self, version: ModelVersion) -> Option<&VersionEntry<T>> {
        self.position(version).ok().map(|index| &self.versions[index])
    }

    fn position(&self, version: ModelVersion) -> Result<usize, usize> {
        self.versions.binary_search_by_key(&version, |entry| entry.version)
    }

    fn set(&mut self, version: ModelVersion, entry: Option<VersionEntry<T>>) {
        match (self.position(version), entry) {
            (Ok(index), Some(entry)) => self.versions[index] = entry,
            (Ok(index), None) => drop(self.versions.remove(index)),
            (Err(index), Some(entry)) => self.versions.insert(index, entry),
            (Err(_), None) => {}
        }
        self.latest = self.versions.iter().rposition(|entry| entry.state.is_in_service());
    }

    fn resolve(&self, choice: &VersionChoice) -> Result<&Arc<T>, Unresolved> {
        match choice {
            VersionChoice::Latest => match self.latest {
                Some(index) => answering(&self.versions[index]),
                None => Err(self.why_nothing_answers()),
            },
            VersionChoice::Exact(version) => match self.version(*version) {
                Some(entry) => answering(entry),
                None => Err(Unresolved::UnknownVersion(*version)),
            },
            VersionChoice::Label(label) => match self.facts.labels.get(label) {
                Some(version) => self.resolve(&VersionChoice::Exact(*version)),
                None => Err(Unresolved::UnknownLabel(label.clone())),
            },
        }
    }

    fn why_nothing_answers(&self) -> Unresolved {
        let newest_failure = self.versions.iter().rev().find_map(|entry| match &entry.state {
            VersionState::Failed(reason) => Some(Arc::clone(reason)),
            _ => None,
        });
        let mut states = self.versions.iter().map(|entry| &entry.state);
        if states.any(|state| matches!(state, VersionState::Loading)) {
            return Unresolved::Loading;
        }
        newest_failure.map_or(Unresolved::Unloaded, Unresolved::Failed)
    }
}

fn answering<T>(entry: &VersionEntry<T>) -> Result<&Arc<T>, Unresolved> {
    match &entry.state {
        VersionState::Ready(served) => Ok(served),
        VersionState::Dormant | VersionState::Waking => Err(Unresolved::Asleep(entry.version)),
        VersionState::Loading => Err(Unresolved::Loading),
        VersionState::Failed(reason) => Err(Unresolved::Failed(Arc::clone(reason))),
        VersionState::Unloaded => Err(Unresolved::Unloaded),
    }
}

/// A pipeline of models that a source holds.
#[derive(Clone, Debug)]
pub struct PipelineEntry {
    /// What is declared, or why it cannot be served.
    pub outline: Result<Arc<Outline>, Arc<str>>,
    /// Why what was declared since cannot be served, where it can not: the pipeline may go on as it was.
    pub last_error: Option<Arc<str>>,
    /// The place that it comes from.
    pub source: Arc<str>,
    /// The file that declares it, as its owner knows it.
    pub place: Arc<str>,
}

/// The pipelines by their names.
pub type PipelineEntries = BTreeMap<ModelName, PipelineEntry>;

/// Everything that is known of all models at one moment.
#[derive(Debug)]
pub struct Snapshot<T> {
    models: HashMap<ModelName, Arc<ModelEntry<T>>>,
    pipelines: Arc<PipelineEntries>,
    /// Counts the changes.
    generation: u64,
}

impl<T> Snapshot<T> {
    /// Returns one model.
    pub fn model(&self, name: &str) -> Option<&ModelEntry<T>> {
        self.models.get(name).map(Arc::as_ref)
    }

    /// Returns the pipelines. None of them has the name of a model.
    pub fn pipelines(&self) -> &Arc<PipelineEntries> {
        &self.pipelines
    }

    /// Returns which snapshot it is: a later one has a higher number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns all models, in order of their names.
    pub fn models(&self) -> Vec<&ModelEntry<T>> {
        let mut models: Vec<_> = self.models.values().map(Arc::as_ref).collect();
        models.sort_by(|left, right| left.name.cmp(&right.name));
        models
    }

    /// Returns the version that `choice` means.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it does not answer now.
    pub fn resolve(&self, name: &str, choice: &VersionChoice) -> Result<&Arc<T>, Unresolved> {
        self.models.get(name).ok_or(Unresolved::UnknownModel)?.resolve(choice)
    }
}

/// Why a name and a version choice lead to nothing that answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// There is no model of this name.
    #[error("unknown model")]
    UnknownModel,
    /// The model has no such version.
    #[error("unknown version {0}")]
    UnknownVersion(ModelVersion),
    /// None of the model's versions carries this label.
    #[error("unknown label '{0}'")]
    UnknownLabel(Label),
    /// This version will answer who asks for it and waits.
    #[error("not loaded yet")]
    Asleep(ModelVersion),
    /// It is being loaded.
    #[error("still loading")]
    Loading,
    /// It could not be loaded.
    #[error("failed to load: {0}")]
    Failed(Arc<str>),
    /// Nobody has asked for it to be loaded, or somebody has asked for it to be unloaded.
    #[error("unloaded")]
    Unloaded,
}

/// One change to publish: a version's new state, or `None` to forget the version.
pub type Change<T> = (ModelName, ModelVersion, Option<VersionState<T>>);

/// The models of one process. Readers never wait; writers wait for each other.
#[derive(Debug)]
pub struct Catalog<T> {
    snapshot: ArcSwap<Snapshot<T>>,
    /// Held while a snapshot is derived from the last one, so that no change is lost.
    writer: Mutex<()>,
}

impl<T> Default for Catalog<T> {
    fn default() -> Self {
        let empty = Snapshot { models: HashMap::new(), pipelines: Arc::default(), generation: 0 };
        Catalog { snapshot: ArcSwap::from_pointee(empty), writer: Mutex::new(()) }
    }
}

impl<T> Catalog<T> {
    /// Makes an empty catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what is known now. Holding it pins everything in it; for one request use
    /// [`Catalog::resolve`].
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.snapshot.load_full()
    }

    /// Returns the version that `choice` means: the hot path.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it does not answer now.
    pub fn resolve(&self, name: &str, choice: &VersionChoice) -> Result<Arc<T>, Unresolved> {
        self.snapshot.load().resolve(name, choice).map(Arc::clone)
    }

    /// Returns what to do when a model gives no answer, where something is declared beside it.
    pub fn fallback(&self, name: &str) -> Option<Arc<FallbackSpec>> {
        self.snapshot.load().model(name).and_then(|model| model.facts.fallback.clone())
    }

    /// Returns the number of the newest snapshot.
    pub fn generation(&self) -> u64 {
        self.snapshot.load().generation
    }

    /// Publishes several changes as one: readers see all of them or none.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change<T>>) {
        self.update(|draft| {
            for (name, version, state) in changes {
                let entry = state.map(|state| VersionEntry { version, state, last_error: None });
                draft.set(&name, version, entry);
            }
        });
    }

    /// Publishes all that `change` does to the draft as one: readers see all of it or none. Who waits
    /// for a change of a model that was touched is woken.
    pub fn update(&self, change: impl FnOnce(&mut Draft<T>)) {
        // A poisoned lock guards no data: the last snapshot is whole.
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot.load_full();
        let (models, pipelines) = (before.models.clone(), Arc::clone(&before.pipelines));
        let mut draft = Draft { models, pipelines, touched: Vec::new() };
        change(&mut draft);
        let Draft { models, pipelines, touched } = draft;
        let generation = before.generation + 1;
        // Held on, it would keep what is taken out in memory.
        drop(before);
        self.snapshot.store(Arc::new(Snapshot { models, pipelines, generation }));
        for changed in touched {
            changed.notify_waiters();
        }
    }
}

/// The next snapshot, while it is being made.
pub struct Draft<T> {
    models: HashMap<ModelName, Arc<ModelEntry<T>>>,
    pipelines: Arc<PipelineEntries>,
    touched: Vec<Arc<Notify>>,
}

impl<T> Draft<T> {
    /// Sets a version, or forgets it where `entry` is `None`. A model whose last version is forgotten
    /// is forgotten too.
    pub fn set(&mut self, name: &ModelName, version: ModelVersion, entry: Option<VersionEntry<T>>) {
        let model = self.model(name);
        model.set(version, entry);
        if model.versions.is_empty() {
            self.models.remove(name);
        }
    }

    /// Sets what is known of a model beside its versions, of which it must have one.
    pub fn set_facts(&mut self, name: &ModelName, facts: ModelFacts) {
        if self.models.contains_key(name) {
            self.model(name).facts = Arc::new(facts);
        }
    }

    /// Sets the pipelines, in place of all that there were.
    pub fn set_pipelines(&mut self, pipelines: Arc<PipelineEntries>) {
        self.pipelines = pipelines;
    }

    fn model(&mut self, name: &ModelName) -> &mut ModelEntry<T> {
        let new = || Arc::new(ModelEntry::new(name.clone()));
        let model = Arc::make_mut(self.models.entry(name.clone()).or_insert_with(new));
        self.touched.push(Arc::clone(&model.changed));
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    fn ready(number: u64, served: u32) -> (ModelName, ModelVersion, Option<VersionState<u32>>) {
        (name("iris"), ModelVersion(number), Some(VersionState::Ready(Arc::new(served))))
    }

    fn state(number: u64, state: VersionState<u32>) -> Change<u32> {
        (name("iris"), ModelVersion(number), Some(state))
    }

    fn resolve(catalog: &Catalog<u32>, choice: VersionChoice) -> Result<u32, Unresolved> {
        catalog.resolve("iris", &choice).map(|served| *served)
    }

    #[test]
    fn the_latest_is_the_newest_that_is_ready() {
        let catalog = Catalog::new();
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Err(Unresolved::UnknownModel));
        catalog.publish([ready(10, 110), ready(9, 109)]);
        catalog.publish([state(11, VersionState::Loading)]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Ok(110));
        catalog.publish([state(11, VersionState::Failed("bad".into()))]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Ok(110));
        catalog.publish([ready(11, 111)]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Ok(111));
        catalog.publish([(name("iris"), ModelVersion(11), None)]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Ok(110));
    }

    #[test]
    fn every_way_to_miss_is_told_apart() {
        let catalog = Catalog::new();
        catalog.publish([
            state(1, VersionState::Failed("no such operator".into())),
            state(2, VersionState::Loading),
        ]);
        let exact = |number| resolve(&catalog, VersionChoice::Exact(ModelVersion(number)));
        assert_eq!(exact(1), Err(Unresolved::Failed("no such operator".into())));
        assert_eq!(exact(2), Err(Unresolved::Loading));
        assert_eq!(exact(3), Err(Unresolved::UnknownVersion(ModelVersion(3))));
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Err(Unresolved::Loading));
        catalog.publish([state(2, VersionState::Failed("too large".into()))]);
        assert_eq!(
            resolve(&catalog, VersionChoice::Latest),
            Err(Unresolved::Failed("too large".into())),
            "the newest failure is the one to tell"
        );
    }

    #[test]
    fn a_snapshot_and_a_resolved_version_outlive_what_is_published_later() {
        let catalog = Catalog::new();
        catalog.publish([ready(1, 101)]);
        let (before, served) =
            (catalog.snapshot(), catalog.resolve("iris", &VersionChoice::Latest).unwrap());
        catalog.publish([(name("iris"), ModelVersion(1), None)]);
        assert!(before.resolve("iris", &VersionChoice::Latest).is_ok());
        assert_eq!((before.models().len(), *served), (1, 101));
        assert!(catalog.snapshot().models().is_empty(), "a model without versions is forgotten");
    }

    #[test]
    fn the_newest_is_meant_even_while_it_sleeps() {
        let catalog = Catalog::new();
        catalog.publish([ready(1, 101), state(2, VersionState::Dormant)]);
        let asleep = Err(Unresolved::Asleep(ModelVersion(2)));
        assert_eq!(resolve(&catalog, VersionChoice::Latest), asleep);
        catalog.publish([state(2, VersionState::Waking)]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), asleep, "others wait for it too");
        catalog.publish([state(2, VersionState::Failed("bad".into()))]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Ok(101), "an older one answers");
        catalog.publish([state(1, VersionState::Unloaded), state(2, VersionState::Unloaded)]);
        assert_eq!(resolve(&catalog, VersionChoice::Latest), Err(Unresolved::Unloaded));
    }

    #[test]
    fn labels_lead_to_versions() {
        let catalog = Catalog::new();
        catalog.publish([ready(1, 101), ready(2, 102)]);
        let label = |text: &str| Label::new(text).unwrap();
        let labels =
            BTreeMap::from([(label("stable"), ModelVersion(1)), (label("gone"), ModelVersion(7))]);
        catalog.update(|draft| {
            draft.set_facts(&name("iris"), ModelFacts { labels, ..ModelFacts::default() });
        });
        let labelled = |text: &str| resolve(&catalog, VersionChoice::Label(label(text)));
        assert_eq!(labelled("stable"), Ok(101));
        assert_eq!(labelled("gone"), Err(Unresolved::UnknownVersion(ModelVersion(7))));
        assert_eq!(labelled("canary"), Err(Unresolved::UnknownLabel(label("canary"))));
    }

    #[tokio::test]
    async fn who_waits_for_a_model_is_woken_by_its_changes() {
        let catalog = Catalog::new();
        catalog.publish([state(1, VersionState::Dormant)]);
        let changed = Arc::clone(catalog.snapshot().model("iris").unwrap().changed());
        let waiting = changed.notified();
        catalog.publish([ready(1, 101)]);
        waiting.await;
        let same = Arc::clone(catalog.snapshot().model("iris").unwrap().changed());
        assert!(Arc::ptr_eq(&changed, &same), "it stays the same over changes");
    }

    #[test]
    fn models_and_versions_are_listed_in_order() {
        let catalog = Catalog::new();
        for text in ["b", "a", "c"] {
            let state = || Some(VersionState::Ready(Arc::new(0)));
            catalog.publish([3, 1, 2].map(|number| (name(text), ModelVersion(number), state())));
        }
        let snapshot = catalog.snapshot();
        let names: Vec<_> = snapshot.models().iter().map(|model| model.name().as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let numbers: Vec<_> =
            snapshot.model("b").unwrap().versions().iter().map(|entry| entry.version.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }

    #[test]
    fn concurrent_writers_lose_no_change() {
        let catalog = Catalog::new();
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let catalog = &catalog;
                scope.spawn(move || {
                    for number in 0..25 {
                        catalog.publish([ready(writer * 25 + number + 1, 0)]);
                    }
                });
            }
        });
        assert_eq!(catalog.snapshot().model("iris").unwrap().versions().len(), 100);
    }
}
