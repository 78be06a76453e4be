//! What has happened, noted in the records. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use outhaul_types::{ModelManifest, ModelName, ModelVersion};

use super::{Event, Keeper};
use crate::handle::Request;
use crate::journal::Refusal;
use crate::loading::{Ended, LoadFailure, Loaded, Loader, Outcome};
use crate::lookout::{Kick, Looked};
use crate::plan::Id;
use crate::record::{Asked, Edition, Failure, FoundModel, FoundVersion, Serving};
use crate::{ModelFolder, Problem, Resident, Scan, Severity, SourceError, VersionArtefact};

impl<L: Loader> Keeper<L> {
    pub(super) fn note(&mut self, event: Event<L::Prepared>, now: Instant) {
        match event {
            Event::Looked(looked) => self.note_look(looked, now),
            Event::Kept(source, kept) => self.note_kept(source, kept),
            Event::Ended(ended) => self.note_end(ended, now),
            Event::Freed(memory) => {
                self.records.leaving = self.records.leaving.saturating_sub(memory);
            }
            Event::Asked(Request::Wake(name, version)) => self.note_demand(&name, version, now),
            Event::Asked(Request::Load { model, version, reply }) => {
                self.ask_to_load(model, version, reply);
            }
            Event::Asked(Request::Unload { model, reply }) => self.unload(&model, reply),
            Event::Asked(Request::Hold(versions)) => self.note_held(&versions),
            Event::Asked(Request::Settle(reply)) => self.settling.push(reply),
            Event::Asked(Request::Stop) => self.stopped = true,
        }
    }

    /// A request waits for a version. Whoever waits says so anew at each change of the model, so only
    /// the first time is news; and one that was said before the load ended is answered by its end.
    fn note_demand(&mut self, name: &ModelName, version: ModelVersion, now: Instant) {
        let Some(record) = self.records.models.get_mut(name) else { return };
        let edition = record.found.as_ref().and_then(|found| found.edition(version));
        let known = record.versions.entry(version).or_default();
        let failure = edition.and_then(|edition| known.failure_of(&edition));
        let is_left_alone =
            failure.is_some_and(|failure| failure.retry_at.is_none_or(|at| at > now));
        if known.demanded.is_none() && known.serving.is_none() && !is_left_alone {
            known.demanded = Some(now);
            self.attention.insert(name.clone());
        }
    }

    /// Routes lead elsewhere now. What no source holds yet is noted all the same: it may come.
    fn note_held(&mut self, versions: &BTreeSet<Id>) {
        let mut held: BTreeMap<&ModelName, BTreeSet<ModelVersion>> = BTreeMap::new();
        for (name, version) in versions {
            held.entry(name).or_default().insert(*version);
        }
        for name in held.keys() {
            self.records.models.entry((*name).clone()).or_default();
        }
        for (name, record) in &mut self.records.models {
            let held = held.remove(name).unwrap_or_default();
            if record.held != held {
                record.held = held;
                self.problems_changed = true;
                self.attention.insert(name.clone());
            }
        }
    }

    fn note_look(&mut self, looked: Looked, now: Instant) {
        let Looked { source, ticket, result } = looked;
        let place = self.sources[source].source.place().to_owned();
        self.metrics.looked(&place, result.is_ok());
        self.problems_changed = true;
        let failure = result.as_ref().err().map(SourceError::to_string);
        let is_first = self.sources[source].seen.replace((ticket, failure)).is_none();
        match result {
            Ok(scan) => self.note_scan(source, scan, now),
            Err(error) => self.note_blindness(source, &error, is_first),
        }
        if is_first {
            self.pipelines_changed = true;
            // Sources named after it have waited to know what it holds.
            let later = self.sources[source + 1..].iter();
            let held = later.flat_map(|known| {
                known.models.keys().chain(known.blocked.keys()).chain(known.pipelines.keys())
            });
            for name in held.cloned().collect::<BTreeSet<_>>() {
                self.note_model(name, now);
            }
        }
        self.read_journal_again(source);
        self.take_up_asks(now);
    }

    /// Nothing is known of what is there: what was known stays.
    fn note_blindness(&mut self, source: usize, error: &SourceError, is_first: bool) {
        let known = &mut self.sources[source];
        let remedy = match is_first {
            true => BLIND_FROM_THE_START,
            false => BLIND_FOR_NOW,
        };
        let problem = Problem::of_place(&error.place, error.reason.clone(), remedy);
        if !known.problems.contains(&problem) {
            // Reasons may hold the number of a request: one outage is one problem.
            let remedies = [BLIND_FROM_THE_START, BLIND_FOR_NOW];
            known.problems.retain(|before| !remedies.contains(&before.remedy.as_str()));
            tracing::error!(place = error.place, reason = error.reason, "cannot look for models");
            known.problems.push(problem);
        }
    }

    fn note_scan(&mut self, source: usize, scan: Scan, now: Instant) {
        let Scan { models, pipelines, refused, problems } = scan;
        let before = std::mem::replace(&mut self.sources[source].problems, problems);
        for problem in &self.sources[source].problems {
            if !before.contains(problem) {
                log(problem);
            }
        }
        let models: BTreeMap<_, _> =
            models.into_iter().map(|folder| (folder.name.clone(), folder)).collect();
        let known = &mut self.sources[source];
        let models = std::mem::replace(&mut known.models, models);
        let blocked = std::mem::replace(&mut known.blocked, by_name(refused));
        let before = models.into_keys().chain(blocked.into_keys());
        let now_there = known.models.keys().chain(known.blocked.keys()).cloned();
        let mut names: BTreeSet<ModelName> = before.chain(now_there).collect();
        names.extend(self.note_pipelines(source, pipelines));
        for name in names {
            self.note_model(name, now);
        }
    }

    /// Notes where a model comes from now: the first of the sources that holds it.
    fn note_model(&mut self, name: ModelName, now: Instant) {
        let mut holders = (0..self.sources.len()).filter(|&index| self.sources[index].holds(&name));
        let (first, others) = (holders.next(), holders.collect::<Vec<_>>());
        for other in others {
            self.note_twice(first.unwrap_or_default(), other, &name);
        }
        let before = first.unwrap_or_default();
        if self.sources[..before].iter().any(|known| known.seen.is_none()) {
            return;
        }
        let Some(source) = first else {
            if let Some(record) = self.records.models.get_mut(&name) {
                record.lose();
            }
            self.attention.insert(name);
            return;
        };
        let known = &self.sources[source];
        let asked = known.asked.get(&name).copied().or_else(|| {
            let is_named = self.config.load_at_start.contains(&name);
            is_named.then_some(Asked::Load { version: None })
        });
        let record = self.records.models.entry(name.clone()).or_default();
        if record.asked != asked {
            record.asked = asked;
            self.attention.insert(name.clone());
        }
        match (known.models.get(&name).cloned(), known.blocked.get(&name).cloned()) {
            (Some(folder), _) => self.note_folder(source, folder, now),
            (None, Some(versions)) => self.note_blocked(source, &name, versions, now),
            // A pipeline has taken its place.
            (None, None) => {
                if let Some(record) = self.records.models.get_mut(&name) {
                    record.give_way();
                }
                self.attention.insert(name);
            }
        }
    }

    /// Two sources hold a model of one name: the first one's is taken.
    fn note_twice(&mut self, first: usize, other: usize, name: &ModelName) {
        let place = match self.sources[other].models.get(name) {
            Some(folder) => folder.path.display().to_string(),
            None => self.sources[other].source.place().to_owned(),
        };
        let first = self.sources[first].source.place();
        let rule = format!("the model '{name}' is taken from {first} already");
        let problem = Problem::of_place(place, rule, "rename one of the two").of_model(name);
        let problems = &mut self.sources[other].problems;
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn note_folder(&mut self, source: usize, folder: ModelFolder, now: Instant) {
        let name = folder.name;
        let record = self.records.models.entry(name.clone()).or_default();
        let known = record.found.take();
        let settle = self.config.settle;
        let version = |artefact: VersionArtefact| {
            let number = artefact.version;
            let before = known.as_ref().and_then(|known| known.versions.get(&number));
            let whole_at = match before {
                Some(before) if before.artefact.identity == artefact.identity => before.whole_at,
                _ => now + left_to_settle(settle, artefact.changed, SystemTime::now()),
            };
            (number, FoundVersion { artefact, whole_at })
        };
        let versions: BTreeMap<_, _> = folder.versions.into_iter().map(version).collect();
        // A manifest that says the same stays the same value: editions are compared by it.
        let manifest = match &known {
            Some(known) if *known.manifest == folder.manifest => Arc::clone(&known.manifest),
            _ => Arc::new(folder.manifest),
        };
        let beside = folder.beside;
        let found = FoundModel { source, manifest, beside, versions, blocked: None };
        for (number, version) in &found.versions {
            let id = (name.clone(), *number);
            let refusal = self.sources[source].refused.get(&id);
            let refusal = refusal.filter(|refusal| refusal.is_of(&version.artefact.identity));
            if let (Some(refusal), Some(edition)) = (refusal, found.edition(*number))
                && !found.manifest.loading.allow_breaking
            {
                let known = record.versions.entry(*number).or_default();
                let is_tried = known.loading.is_some() || known.demanded.is_some();
                if known.failure_of(&edition).is_none() && !known.serves(&edition) && !is_tried {
                    let reason = refusal.reason.as_str().into();
                    known.failure = Some(Failure { edition, attempts: 1, retry_at: None, reason });
                }
            }
        }
        let changed = known.as_ref().is_none_or(|known| differs(known, &found));
        record.found = Some(found);
        if changed {
            self.attention.insert(name);
        }
    }

    /// What is declared is wrong: nothing new is loaded, and what answers goes on.
    fn note_blocked(
        &mut self,
        source: usize,
        name: &ModelName,
        versions: Vec<ModelVersion>,
        now: Instant,
    ) {
        let problems = self.sources[source].problems.iter();
        let mut of_model = problems
            .filter(|problem| problem.model.as_ref() == Some(name))
            .filter(|problem| problem.severity == Severity::Error);
        let reason = of_model
            .next()
            .map_or("what is declared of it is wrong".to_owned(), |first| first.to_string());
        let record = self.records.models.entry(name.clone()).or_default();
        let found = record.found.get_or_insert_with(|| FoundModel {
            source,
            manifest: Arc::new(ModelManifest::default()),
            beside: crate::Identity::default(),
            versions: BTreeMap::new(),
            blocked: None,
        });
        for version in versions {
            found.versions.entry(version).or_insert_with(|| FoundVersion {
                artefact: VersionArtefact {
                    version,
                    path: "".into(),
                    identity: crate::Identity::default(),
                    bytes: 0,
                    changed: None,
                },
                whole_at: now,
            });
        }
        found.blocked = Some(reason.into());
        self.attention.insert(name.clone());
    }

    fn note_end(&mut self, ended: Ended<L::Prepared>, now: Instant) {
        let Ended { id, edition, outcome, took } = ended;
        self.attention.insert(id.0.clone());
        let Some(known) =
            self.records.models.get_mut(&id.0).and_then(|record| record.versions.get_mut(&id.1))
        else {
            return;
        };
        known.loading = None;
        match outcome {
            Outcome::Loaded(loaded) => self.start_loaded(&id, edition, loaded, (took, now)),
            Outcome::Changed => self.note_changed(&id, now),
            Outcome::Failed(LoadFailure::Failed(reason)) => {
                self.metrics.failed(&id.0, took);
                self.note_failure_of(&id, edition, reason, now);
            }
            Outcome::Failed(LoadFailure::Refused(reason)) => {
                self.metrics.refused(&id.0, took);
                self.note_refusal(&id, edition, &reason);
            }
        }
    }

    fn start_loaded(
        &mut self,
        id: &Id,
        edition: Edition,
        loaded: Loaded<L::Prepared>,
        (took, now): (Duration, Instant),
    ) {
        let Loaded { prepared, memory } = loaded;
        // A mistake of ours must not end the loop with it.
        let started = catch_unwind(AssertUnwindSafe(|| self.loader.start(prepared)));
        let reason = match started {
            Ok(Ok(served)) => {
                self.metrics.loaded(&id.0, took);
                let resident = Resident::attended(served, memory, self.reaper.clone());
                self.note_loaded(id, edition, resident, now);
                return;
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "starting it panicked; see the log".to_owned(),
        };
        self.metrics.failed(&id.0, took);
        self.note_failure_of(id, edition, reason, now);
    }

    fn note_loaded(
        &mut self,
        id: &Id,
        edition: Edition,
        resident: Resident<L::Served>,
        now: Instant,
    ) {
        let (identity, memory) = (edition.identity.clone(), resident.memory());
        let resident = Arc::new(resident);
        let Some(record) = self.records.models.get_mut(&id.0) else { return };
        let source = record.found.as_ref().map(|found| found.source);
        let known = record.versions.entry(id.1).or_default();
        self.problems_changed |= known.failure.take().is_some();
        known.demanded = None;
        let before = known.measured.replace((edition.identity.clone(), memory));
        known.serving = Some(Serving { edition, memory, since: now, last_used: now });
        if let Some(replaced) = self.residents.insert(id.clone(), resident) {
            self.records.leaving += replaced.memory();
        }
        self.note_contract(&id.0);
        if let Some((before, _)) = before.filter(|(before, _)| *before != identity) {
            self.release(&before);
        }
        if let Some(source) = source
            && self.sources[source].refused.remove(id).is_some()
        {
            let place = self.sources[source].source.place().to_owned();
            if let Err(reason) = self.journal.accept(&place, id) {
                tracing::warn!(model = %id.0, reason, "the state store did not take a change");
            }
        }
    }

    /// The files are being written: they are looked at anew, and given time.
    fn note_changed(&mut self, id: &Id, now: Instant) {
        tracing::info!(model = %id.0, version = %id.1, "its files changed while they were read; again");
        let settle = self.config.settle;
        let Some(record) = self.records.models.get_mut(&id.0) else { return };
        if let Some(found) = &mut record.found {
            if let Some(version) = found.versions.get_mut(&id.1) {
                version.whole_at = now + settle;
            }
            let _ = self.sources[found.source].kick.send(Kick::Changed);
        }
    }

    /// Notes that the edition that was found cannot be loaded.
    pub(super) fn note_failure(&mut self, id: &Id, reason: String, now: Instant) {
        let record = self.records.models.get(&id.0);
        let found = record.and_then(|record| record.found.as_ref());
        if let Some(edition) = found.and_then(|found| found.edition(id.1)) {
            self.metrics.refused(&id.0, Duration::ZERO);
            self.note_failure_of(id, edition, reason, now);
        }
    }

    fn note_failure_of(&mut self, id: &Id, edition: Edition, reason: String, now: Instant) {
        let (first, most) = self.config.backoff;
        let record = self.records.models.entry(id.0.clone()).or_default();
        let known = record.versions.entry(id.1).or_default();
        let before = known.failure_of(&edition);
        let attempts = before.map_or(1, |failure| failure.attempts.saturating_add(1));
        let is_new = before.is_none_or(|failure| *failure.reason != *reason);
        if is_new {
            tracing::error!(model = %id.0, version = %id.1, reason, "not served");
        }
        let retry_at = Some(now + backoff(first, most, attempts));
        let reason = reason.into();
        known.demanded = None;
        known.failure = Some(Failure { edition, attempts, retry_at, reason });
        self.problems_changed = true;
    }

    fn note_refusal(&mut self, id: &Id, edition: Edition, reason: &str) {
        tracing::error!(model = %id.0, version = %id.1, reason, "refused");
        let record = self.records.models.entry(id.0.clone()).or_default();
        let source = record.found.as_ref().map(|found| found.source);
        let known = record.versions.entry(id.1).or_default();
        let refusal = Refusal::new(&edition.identity, reason);
        known.demanded = None;
        known.failure =
            Some(Failure { edition, attempts: 1, retry_at: None, reason: reason.into() });
        self.problems_changed = true;
        if let Some(source) = source {
            let place = self.sources[source].source.place().to_owned();
            if let Err(reason) = self.journal.refuse(&place, id, &refusal) {
                tracing::warn!(model = %id.0, reason, "the state store did not take a change");
            }
            self.sources[source].refused.insert(id.clone(), refusal);
        }
    }
}

const BLIND_FROM_THE_START: &str = "mend it; it is looked at again";
const BLIND_FOR_NOW: &str = "what was found before is served on; it is looked at again";

pub(super) fn log(problem: &Problem) {
    match problem.severity {
        Severity::Error => tracing::error!("{problem:#}"),
        Severity::Warning => tracing::warn!("{problem:#}"),
    }
}

fn by_name(versions: Vec<(ModelName, ModelVersion)>) -> BTreeMap<ModelName, Vec<ModelVersion>> {
    let mut by_name: BTreeMap<ModelName, Vec<ModelVersion>> = BTreeMap::new();
    for (name, version) in versions {
        by_name.entry(name).or_default().push(version);
    }
    by_name
}

fn differs(known: &FoundModel, found: &FoundModel) -> bool {
    let identities = |model: &FoundModel| {
        let versions = model.versions.iter();
        versions
            .map(|(number, found)| (*number, found.artefact.identity.clone()))
            .collect::<Vec<_>>()
    };
    known.blocked.is_some()
        || known.source != found.source
        || !Arc::ptr_eq(&known.manifest, &found.manifest)
        || known.beside != found.beside
        || identities(known) != identities(found)
}

/// How long files that were changed at `changed` must still be left alone.
fn left_to_settle(settle: Duration, changed: Option<SystemTime>, now: SystemTime) -> Duration {
    // A clock that is ahead of ours tells nothing: the whole time, counted from now.
    let age = changed.and_then(|changed| now.duration_since(changed).ok()).unwrap_or_default();
    settle.saturating_sub(age)
}

/// How long to leave a version alone after this many failures in a row.
fn backoff(first: Duration, most: Duration, attempts: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(doubled).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_left_alone_ever_longer() {
        let seconds = Duration::from_secs;
        let after = |attempts| backoff(seconds(5), seconds(300), attempts).as_secs();
        assert_eq!([1, 2, 3, 7, 40].map(after), [5, 10, 20, 300, 300]);
    }

    #[test]
    fn old_files_are_whole_at_once_and_new_ones_after_a_while() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let settle = Duration::from_secs(1);
        let left = |changed| left_to_settle(settle, changed, now);
        assert_eq!(left(Some(now - Duration::from_secs(3600))), Duration::ZERO);
        assert_eq!(left(Some(now - Duration::from_millis(400))), Duration::from_millis(600));
        assert_eq!(left(Some(now + Duration::from_secs(60))), settle, "a clock that is ahead");
        assert_eq!(left(None), settle);
    }
}
