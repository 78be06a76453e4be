//! What the records say, published: to the catalog as one snapshot, to the metrics, and as the list of
//! problems.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use outhaul_monitor::VersionStateLabel;
use outhaul_types::{ModelName, ModelVersion, VersionPolicy};

use super::Keeper;
use super::events::log;
use crate::loading::Loader;
use crate::plan::{Standing, standings};
use crate::record::{Asked, ModelRecord};
use crate::{Identity, ModelFacts, Problem, Resident, VersionEntry, VersionState};

type Entry<L> = Option<VersionEntry<Resident<<L as Loader>::Served>>>;

/// The changes of one model.
struct ModelChange<L: Loader> {
    name: ModelName,
    versions: Vec<(ModelVersion, Entry<L>)>,
    facts: Option<ModelFacts>,
}

impl<L: Loader> Keeper<L> {
    /// Publishes how the models in `changed` stand now.
    pub(super) fn publish(&mut self, changed: &BTreeSet<ModelName>, now: Instant) {
        let changes: Vec<_> = changed.iter().map(|name| self.change(name, now)).collect();
        let pipelines = self.changed_pipelines();
        self.catalog.update(|draft| {
            if let Some(pipelines) = pipelines {
                draft.set_pipelines(pipelines);
            }
            for ModelChange { name, versions, facts } in changes {
                for (version, entry) in versions {
                    draft.set(&name, version, entry);
                }
                if let Some(facts) = facts {
                    draft.set_facts(&name, facts);
                }
            }
        });
        if std::mem::take(&mut self.problems_changed) {
            let before = self.shown.problems.load_full();
            let missing = self.missing();
            missing.iter().filter(|problem| !before.contains(problem)).for_each(log);
            self.shown.problems.store(Arc::new(self.all_problems()));
        }
        let serving: u64 = self.residents.values().map(|resident| resident.memory()).sum();
        self.metrics.set_memory_total(serving + self.records.leaving);
    }

    fn change(&mut self, name: &ModelName, now: Instant) -> ModelChange<L> {
        self.forget_what_is_gone(name);
        if let Some(record) = self.records.models.get_mut(name) {
            record.labels = record.lead();
        }
        let empty = ModelRecord::default();
        let record = self.records.models.get(name).unwrap_or(&empty);
        let after = standings(&self.policy, record, now);
        let before = self.published.remove(name).unwrap_or_default();
        let gone = before.keys().filter(|version| !after.contains_key(version));
        let mut versions: Vec<(ModelVersion, Entry<L>)> =
            gone.map(|version| (*version, None)).collect();
        for version in gone_versions(&before, &after) {
            self.metrics.forget_version(name, version);
        }
        for (version, standing) in &after {
            versions.push((*version, Some(self.entry(name, record, *version, standing))));
        }
        let facts = record.found.as_ref().map(|found| ModelFacts {
            labels: record.labels.clone(),
            patience: found.manifest.queue.timeout,
            source: self.sources[found.source].source.place().into(),
            fallback: found.manifest.fallback.clone().map(Arc::new),
        });
        if !after.is_empty() {
            self.published.insert(name.clone(), after);
        }
        ModelChange { name: name.clone(), versions, facts }
    }

    fn entry(
        &self,
        name: &ModelName,
        record: &ModelRecord,
        version: ModelVersion,
        standing: &Standing,
    ) -> VersionEntry<Resident<L::Served>> {
        let resident = self.residents.get(&(name.clone(), version));
        let (state, label) = match (standing, resident) {
            (Standing::Ready, Some(resident)) => {
                (VersionState::Ready(Arc::clone(resident)), VersionStateLabel::Ready)
            }
            (Standing::Dormant, _) => (VersionState::Dormant, VersionStateLabel::Dormant),
            (Standing::Waking, _) => (VersionState::Waking, VersionStateLabel::Loading),
            (Standing::Loading | Standing::Ready, _) => {
                (VersionState::Loading, VersionStateLabel::Loading)
            }
            (Standing::Failed(reason), _) => {
                (VersionState::Failed(Arc::clone(reason)), VersionStateLabel::Failed)
            }
            (Standing::Unloaded, _) => (VersionState::Unloaded, VersionStateLabel::Unloaded),
        };
        let memory = resident.map(|resident| resident.memory());
        self.metrics.set_version(name, version, label, memory);
        let blocked = record.found.as_ref().and_then(|found| found.blocked.as_ref());
        let failure = record.version(version).and_then(|known| known.failure.as_ref());
        let last_error = failure.map(|failure| &failure.reason).or(blocked).map(Arc::clone);
        VersionEntry { version, state, last_error }
    }

    /// Drops what is known of versions that no source holds and that are not in memory.
    fn forget_what_is_gone(&mut self, name: &ModelName) {
        let Some(record) = self.records.models.get_mut(name) else { return };
        let found = record.found.as_ref();
        let exists = |version: &ModelVersion| {
            found.is_some_and(|found| found.versions.contains_key(version))
        };
        let mut gone = Vec::new();
        record.versions.retain(|version, known| {
            let is_held = known.serving.is_some() || known.loading.is_some();
            let stays = exists(version) || is_held;
            if !stays {
                gone.push((*version, known.measured.take()));
            }
            stays
        });
        // What was asked for, and what routes lead to, is kept: the model may come back.
        if record.found.is_none() && record.versions.is_empty() {
            self.metrics.forget_model(name);
            if record.asked.is_none() && record.held.is_empty() {
                self.records.models.remove(name);
            }
            self.contracts.remove(name);
        }
        for (version, measured) in gone {
            self.loader.forget(name, version);
            if let Some((identity, _)) = measured {
                self.release(&identity);
            }
        }
    }

    /// Tells the sources that a content is not needed any more. They know it by its identity, so it does
    /// not matter which of them it came from.
    pub(super) fn release(&self, identity: &Identity) {
        for known in &self.sources {
            known.source.release(identity);
        }
    }

    /// Everything that is wrong: with the sources, then with versions.
    fn all_problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.sources.iter().flat_map(|known| known.problems.iter().cloned()).collect();
        for (name, record) in &self.records.models {
            let Some(found) = record.found.as_ref() else { continue };
            for (version, known) in &record.versions {
                let edition = found.edition(*version);
                let failure = edition.as_ref().and_then(|edition| known.failure_of(edition));
                let artefact = found.versions.get(version).map(|found| &found.artefact);
                if let (Some(failure), Some(artefact)) = (failure, artefact) {
                    let source = &self.sources[found.source].source;
                    let place = match source.folder() {
                        Some(_) => artefact.path.display().to_string(),
                        // What lies here is a copy.
                        None => format!("{}/{name}, version {version}", source.place()),
                    };
                    let remedy = match failure.retry_at {
                        Some(_) => "mend or remove it; `outhaul inspect` tells more",
                        None => "mend its files, or allow it",
                    };
                    let reason = failure.reason.to_string();
                    problems.push(Problem::of_place(place, reason, remedy).of_model(name));
                }
            }
        }
        problems.extend(self.missing());
        problems.sort_by(|left, right| left.place.cmp(&right.place));
        problems
    }

    /// What is declared or asked for and not there.
    fn missing(&self) -> Vec<Problem> {
        let mut missing = Vec::new();
        if self.sources.iter().all(|known| known.seen.is_some()) {
            let named = self.config.load_at_start.iter();
            for name in named.filter(|name| !self.sources.iter().any(|known| known.holds(name))) {
                let rule = format!("there is no model '{name}' to load");
                missing.push(Problem::of_place("--load-model", rule, "correct the name"));
            }
        }
        for (name, record) in &self.records.models {
            missing.extend(self.missing_held(name, record));
            let Some(found) = &record.found else { continue };
            let place = format!("{}: {name}", self.sources[found.source].source.place());
            let there = |version: &ModelVersion| found.versions.contains_key(version);
            let mut tell = |what: String, remedy: &str| {
                missing.push(Problem::of_place(&place, what, remedy).of_model(name));
            };
            for (label, version) in &found.manifest.labels {
                if !there(version) {
                    let rule = format!(
                        "the label '{label}' leads to version {version}, which is not there"
                    );
                    tell(rule, "add the version, or move the label");
                }
            }
            if let VersionPolicy::Specific(versions) = &found.manifest.versions {
                for version in versions.iter().filter(|version| !there(version)) {
                    let rule = format!("version {version} is declared and not there");
                    tell(rule, "add it, or correct `versions`");
                }
            }
            if let Some(Asked::Load { version: Some(version) }) = record.asked
                && !there(&ModelVersion(version))
            {
                let rule = format!("version {version} was asked for and is not there");
                tell(rule, "ask for another with `outhaul models load`");
            }
        }
        missing
    }

    /// What routes lead to and no source holds. Before all are looked at nobody knows.
    fn missing_held(&self, name: &ModelName, record: &ModelRecord) -> Vec<Problem> {
        let is_known = self.sources.iter().all(|known| known.seen.is_some());
        if record.found.is_none() && !is_known {
            return Vec::new();
        }
        let place = match record.source() {
            Some(source) => format!("{}: {name}", self.sources[source].source.place()),
            None => name.to_string(),
        };
        let found = record.found.as_ref();
        let there = |version: &ModelVersion| {
            found.is_some_and(|found| found.versions.contains_key(version))
        };
        let orphans: BTreeSet<_> = record.orphans().collect();
        let tell = |version: &ModelVersion| match orphans.contains(version) {
            true => {
                let rule = format!("version {version} is held by a route, and its files are gone");
                let remedy = "put them back before it has to be loaded again, or change the route";
                Problem::of_place(&place, rule, remedy).of_model(name).warning()
            }
            false => {
                let rule = format!("a route leads to version {version}, which is not there");
                Problem::of_place(&place, rule, "add it, or change the route").of_model(name)
            }
        };
        record.held.iter().filter(|version| !there(version)).map(tell).collect()
    }
}

fn gone_versions(
    before: &BTreeMap<ModelVersion, Standing>,
    after: &BTreeMap<ModelVersion, Standing>,
) -> Vec<ModelVersion> {
    before.keys().filter(|version| !after.contains_key(version)).copied().collect()
}
