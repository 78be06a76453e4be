//! Which versions exist and in what state, published as one immutable [`Snapshot`] at a time.
//!
//! Invariant: a reader sees one whole snapshot, never half of a change; a version that a reader has
//! resolved lives on through its `Arc`, whatever is published meanwhile. Resolving is one hash
//! lookup and one reference count: no lock, no allocation.
//!
//! A [`Catalog`] never looks into what it holds (`T` is a served version to the router, a number to
//! the tests), and it decides nothing: what ought to be loaded is somebody else's plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use outhaul_types::{ModelName, ModelVersion, VersionChoice};

/// Where one version stands.
///
/// `Loading` becomes `Ready` or `Failed`; either may go back to `Loading` when the version is loaded
/// anew.
#[derive(Debug)]
pub enum VersionState<T> {
    /// It is on its way.
    Loading,
    /// It answers.
    Ready(Arc<T>),
    /// It does not answer, for this reason.
    Failed(Arc<str>),
}

impl<T> Clone for VersionState<T> {
    fn clone(&self) -> Self {
        match self {
            VersionState::Loading => VersionState::Loading,
            VersionState::Ready(served) => VersionState::Ready(Arc::clone(served)),
            VersionState::Failed(reason) => VersionState::Failed(Arc::clone(reason)),
        }
    }
}

/// The versions of one model.
#[derive(Debug)]
pub struct ModelEntry<T> {
    name: ModelName,
    /// Ascending by number.
    versions: Vec<(ModelVersion, VersionState<T>)>,
    /// The newest version that is ready, found once when published.
    latest_ready: Option<(ModelVersion, Arc<T>)>,
}

impl<T> Clone for ModelEntry<T> {
    fn clone(&self) -> Self {
        ModelEntry {
            name: self.name.clone(),
            versions: self.versions.clone(),
            latest_ready: self.latest_ready.clone(),
        }
    }
}

impl<T> ModelEntry<T> {
    /// Returns the model's name.
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// Returns all versions with their states, ascending by number.
    pub fn versions(&self) -> &[(ModelVersion, VersionState<T>)] {
        &self.versions
    }

    /// Returns the newest version that is ready.
    pub fn latest_ready(&self) -> Option<&Arc<T>> {
        self.latest_ready.as_ref().map(|(_, served)| served)
    }

    /// Returns the state of one version.
    pub fn version(&self, version: ModelVersion) -> Option<&VersionState<T>> {
        self.versions
            .binary_search_by_key(&version, |(number, _)| *number)
            .ok()
            .map(|index| &self.versions[index].1)
    }

    fn set(&mut self, version: ModelVersion, state: Option<VersionState<T>>) {
        match (self.versions.binary_search_by_key(&version, |(number, _)| *number), state) {
            (Ok(index), Some(state)) => self.versions[index].1 = state,
            (Ok(index), None) => drop(self.versions.remove(index)),
            (Err(index), Some(state)) => self.versions.insert(index, (version, state)),
            (Err(_), None) => {}
        }
        self.latest_ready = self.versions.iter().rev().find_map(|(number, state)| match state {
            VersionState::Ready(served) => Some((*number, Arc::clone(served))),
            VersionState::Loading | VersionState::Failed(_) => None,
        });
    }
}

/// Everything that is known of all models at one moment.
#[derive(Debug)]
pub struct Snapshot<T> {
    models: HashMap<ModelName, ModelEntry<T>>,
}

impl<T> Snapshot<T> {
    /// Returns one model.
    pub fn model(&self, name: &str) -> Option<&ModelEntry<T>> {
        self.models.get(name)
    }

    /// Returns all models, in order of their names.
    pub fn models(&self) -> Vec<&ModelEntry<T>> {
        let mut models: Vec<_> = self.models.values().collect();
        models.sort_by(|left, right| left.name.cmp(&right.name));
        models
    }

    /// Returns the version that `choice` means.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it is not ready.
    pub fn resolve(&self, name: &str, choice: VersionChoice) -> Result<&Arc<T>, Unresolved> {
        let model = self.models.get(name).ok_or(Unresolved::UnknownModel)?;
        match choice {
            VersionChoice::Latest => model.latest_ready().ok_or_else(|| {
                let newest_failure =
                    model.versions.iter().rev().find_map(|(_, state)| match state {
                        VersionState::Failed(reason) => Some(Arc::clone(reason)),
                        VersionState::Loading | VersionState::Ready(_) => None,
                    });
                let loading =
                    |(_, state): &(_, VersionState<T>)| matches!(state, VersionState::Loading);
                match newest_failure {
                    Some(reason) if !model.versions.iter().any(loading) => {
                        Unresolved::Failed(reason)
                    }
                    _ => Unresolved::Loading,
                }
            }),
            VersionChoice::Exact(version) => match model.version(version) {
                Some(VersionState::Ready(served)) => Ok(served),
                Some(VersionState::Loading) => Err(Unresolved::Loading),
                Some(VersionState::Failed(reason)) => Err(Unresolved::Failed(Arc::clone(reason))),
                None => Err(Unresolved::UnknownVersion(version)),
            },
        }
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
    /// It is being loaded.
    #[error("still loading")]
    Loading,
    /// It could not be loaded.
    #[error("failed to load: {0}")]
    Failed(Arc<str>),
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
        let empty = Snapshot { models: HashMap::new() };
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
    /// Fails where there is no such model or version, or it is not ready.
    pub fn resolve(&self, name: &str, choice: VersionChoice) -> Result<Arc<T>, Unresolved> {
        self.snapshot.load().resolve(name, choice).map(Arc::clone)
    }

    /// Publishes several changes as one: readers see all of them or none. A model whose last version
    /// is forgotten is forgotten too.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change<T>>) {
        // A poisoned lock guards no data: the last snapshot is whole.
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = self.snapshot.load().models.clone();
        for (name, version, state) in changes {
            let model = models.entry(name.clone()).or_insert_with(|| ModelEntry {
                name: name.clone(),
                versions: Vec::new(),
                latest_ready: None,
            });
            model.set(version, state);
            if model.versions.is_empty() {
                models.remove(&name);
            }
        }
        self.snapshot.store(Arc::new(Snapshot { models }));
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
        catalog.resolve("iris", choice).map(|served| *served)
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
            (catalog.snapshot(), catalog.resolve("iris", VersionChoice::Latest).unwrap());
        catalog.publish([(name("iris"), ModelVersion(1), None)]);
        assert!(before.resolve("iris", VersionChoice::Latest).is_ok());
        assert_eq!((before.models().len(), *served), (1, 101));
        assert!(catalog.snapshot().models().is_empty(), "a model without versions is forgotten");
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
            snapshot.model("b").unwrap().versions().iter().map(|(number, _)| number.0).collect();
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
