//! What somebody asked for: taken up once the sources have been looked at, answered once it is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use outhaul_types::{ModelName, ModelVersion};

use super::{Event, Keeper};
use crate::handle::{AskError, Reply};
use crate::journal::Kept;
use crate::loading::Loader;
use crate::lookout::Kick;
use crate::plan::chosen;
use crate::record::{Asked, ModelRecord};

/// An ask that waits for every source to be looked at.
pub(super) struct Asking {
    ticket: u64,
    model: String,
    version: Option<ModelVersion>,
    reply: Reply,
}

/// An ask that waits for versions to be loaded.
pub(super) struct Waiting {
    model: ModelName,
    /// What this asks for.
    asked: Asked,
    /// What had been asked for before, to go back to where one version is asked for and fails: the
    /// others are not to be lost for it.
    before: Option<Asked>,
    reply: Reply,
}

impl<L: Loader> Keeper<L> {
    pub(super) fn ask_to_load(
        &mut self,
        model: String,
        version: Option<ModelVersion>,
        reply: Reply,
    ) {
        self.tickets += 1;
        let ticket = self.tickets;
        for known in &self.sources {
            let _ = known.kick.send(Kick::Asked(ticket));
        }
        self.asking.push(Asking { ticket, model, version, reply });
    }

    /// Takes up the asks that every source has been looked at for.
    pub(super) fn take_up_asks(&mut self, now: Instant) {
        let seen = self.sources.iter().map(|known| known.seen.as_ref().map_or(0, |seen| seen.0));
        let seen = seen.min().unwrap_or(u64::MAX);
        let (ready, later) = std::mem::take(&mut self.asking)
            .into_iter()
            .partition::<Vec<_>, _>(|asking| asking.ticket <= seen);
        self.asking = later;
        for Asking { model, version, reply, .. } in ready {
            match self.take_up(&model, version, now) {
                Ok((model, before)) => {
                    let asked = Asked::Load { version: version.map(|version| version.0) };
                    self.waiting.push(Waiting { model, asked, before, reply });
                }
                // Whoever asked may be gone.
                Err(error) => drop(reply.send(Err(error))),
            }
        }
    }

    fn take_up(
        &mut self,
        model: &str,
        version: Option<ModelVersion>,
        now: Instant,
    ) -> Result<(ModelName, Option<Asked>), AskError> {
        let (name, source) = self.find(model)?;
        let found = self.records.models.get(&name).and_then(|record| record.found.as_ref());
        let holds = |version: &ModelVersion| {
            found.is_some_and(|found| found.versions.contains_key(version))
        };
        if let Some(version) = version.filter(|version| !holds(version)) {
            return Err(AskError::UnknownVersion { model: name, version });
        }
        let asked = Asked::Load { version: version.map(|version| version.0) };
        let before = self.keep(source, &name, Some(asked))?;
        let record = self.records.models.entry(name.clone()).or_default();
        // Whoever asks knows that the files are whole, and that it is worth another try.
        for version in record.found.iter_mut().flat_map(|found| found.versions.values_mut()) {
            version.whole_at = version.whole_at.min(now);
        }
        for known in record.versions.values_mut() {
            self.problems_changed |= known.failure.take().is_some();
        }
        for version in chosen(record, now) {
            let edition = record.found.as_ref().and_then(|found| found.edition(version));
            let known = record.versions.entry(version).or_default();
            // Only the end of a load takes a demand back.
            if edition.is_some_and(|edition| !known.serves(&edition)) {
                known.demanded.get_or_insert(now);
            }
        }
        self.attention.insert(name.clone());
        Ok((name, before))
    }

    /// Keeps what is asked for from now on, and returns what was before.
    fn keep(
        &mut self,
        source: usize,
        name: &ModelName,
        asked: Option<Asked>,
    ) -> Result<Option<Asked>, AskError> {
        let known = &mut self.sources[source];
        let place = known.source.place();
        let kept = match asked {
            Some(asked) => self.journal.ask(place, name, asked),
            None => self.journal.ask_nothing(place, name),
        };
        kept.map_err(|reason| not_kept(name, reason))?;
        match asked {
            Some(asked) => drop(known.asked.insert(name.clone(), asked)),
            None => drop(known.asked.remove(name)),
        }
        let record = self.records.models.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut record.asked, asked);
        self.attention.insert(name.clone());
        Ok(before)
    }

    /// Goes back to what had been asked for before, unless somebody has asked for something else since.
    fn take_back(&mut self, name: &ModelName, asked: Asked, before: Option<Asked>) {
        let is_latest =
            self.records.models.get(name).is_some_and(|record| record.asked == Some(asked));
        if let (true, Ok((_, source))) = (is_latest, self.find(name.as_str())) {
            // What was not kept has been told in the log; what is asked for stays as it is.
            let _ = self.keep(source, name, before);
            self.decide_again = true;
        }
    }

    pub(super) fn unload(&mut self, model: &str, reply: Reply) {
        let asked = Asked::Unload;
        let unloaded = self.find_to_unload(model).and_then(|(name, source)| {
            self.keep(source, &name, Some(asked))?;
            // A version that had outlived its files is not there any more.
            self.problems_changed = true;
            Ok(name)
        });
        match unloaded {
            // Answered when it is published.
            Ok(model) => self.waiting.push(Waiting { model, asked, before: None, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Returns a model that a source holds, and which source.
    fn find(&self, model: &str) -> Result<(ModelName, usize), AskError> {
        let found = self.records.models.get_key_value(model);
        let source = found.and_then(|(_, record)| record.found.as_ref()).map(|found| found.source);
        if let (Some((name, _)), Some(source)) = (found, source) {
            return Ok((name.clone(), source));
        }
        // It may well be there, only that nobody can tell.
        let mut failures = self.sources.iter().filter_map(|known| known.seen.as_ref()?.1.as_ref());
        match failures.next() {
            Some(failure) => Err(AskError::Unreadable(failure.clone())),
            None => Err(AskError::UnknownModel(model.to_owned())),
        }
    }

    /// As [`Keeper::find`], or a model that outlives its files, and the source that held it.
    fn find_to_unload(&self, model: &str) -> Result<(ModelName, usize), AskError> {
        let known = self.records.models.get_key_value(model);
        let answering = known.filter(|(_, record)| record.serving().next().is_some());
        match answering.and_then(|(name, record)| Some((name.clone(), record.source()?))) {
            Some(known) => Ok(known),
            None => self.find(model),
        }
    }

    /// Others may have asked through a shared store.
    pub(super) fn read_journal_again(&mut self, source: usize) {
        let known = &mut self.sources[source];
        if !self.journal.is_shared() || std::mem::replace(&mut known.is_read, true) {
            return;
        }
        let events = self.events.clone();
        self.journal.read_later(known.source.place().to_owned(), move |kept| {
            let _ = events.send(Event::Kept(source, kept));
        });
    }

    /// Notes what the journal holds of a source now.
    pub(super) fn note_kept(&mut self, source: usize, kept: Result<Kept, String>) {
        self.sources[source].is_read = false;
        match kept {
            Ok(kept) => {
                let before = std::mem::replace(&mut self.sources[source].asked, kept.asked);
                let names = before.into_keys().chain(self.sources[source].asked.keys().cloned());
                for name in names.collect::<BTreeSet<_>>() {
                    let Some(record) = self.records.models.get_mut(&name) else { continue };
                    let asked = self.sources[source].asked.get(&name).copied();
                    if record.source() == Some(source) && record.asked != asked {
                        record.asked = asked;
                        self.attention.insert(name);
                        // Who asked saw it there.
                        let _ = self.sources[source].kick.send(Kick::Changed);
                    }
                }
            }
            Err(reason) => {
                tracing::warn!(reason, "the state store cannot be read; asked again later")
            }
        }
    }

    /// Answers whoever waited for what has come to rest.
    pub(super) fn answer(&mut self, now: Instant) {
        for Waiting { model, asked, before, reply } in std::mem::take(&mut self.waiting) {
            let record = self.records.models.get(&model);
            match record.map_or(Some(Ok(())), |record| self.outcome((&model, record), asked, now)) {
                Some(outcome) => {
                    let is_of_one_version = matches!(asked, Asked::Load { version: Some(_) });
                    if outcome.is_err() && is_of_one_version {
                        self.take_back(&model, asked, before);
                    }
                    let _ = reply.send(outcome);
                }
                None => self.waiting.push(Waiting { model, asked, before, reply }),
            }
        }
        if !self.settling.is_empty() && self.is_settled(now) {
            for settling in self.settling.drain(..) {
                let _ = settling.send(());
            }
        }
    }

    /// How an ask for a model ended; `None` while something is on its way.
    fn outcome(
        &self,
        (name, record): (&ModelName, &ModelRecord),
        asked: Asked,
        now: Instant,
    ) -> Option<Result<(), AskError>> {
        let Asked::Load { version } = asked else { return Some(Ok(())) };
        // It went away since it was asked for.
        let Some(found) = &record.found else {
            return Some(Err(AskError::UnknownModel(name.as_str().to_owned())));
        };
        if let Some(reason) = &found.blocked {
            return Some(Err(failed(name, reason)));
        }
        let versions = match version {
            Some(version) => [ModelVersion(version)].into(),
            None => chosen(record, now),
        };
        if versions.is_empty() {
            let is_being_written = found.versions.values().any(|version| version.whole_at > now);
            let nothing = "its policy chooses none of the versions that are there";
            return (!is_being_written).then(|| Err(failed(name, &nothing.into())));
        }
        // Ascending, so what stays is the newest version's: it is the one that was asked for.
        let mut newest = Some(Ok(()));
        for version in versions {
            newest = self.outcome_of(name, record, version, asked);
            newest.as_ref()?;
        }
        newest
    }

    fn outcome_of(
        &self,
        name: &ModelName,
        record: &ModelRecord,
        version: ModelVersion,
        asked: Asked,
    ) -> Option<Result<(), AskError>> {
        let Some(edition) = record.found.as_ref().and_then(|found| found.edition(version)) else {
            return Some(Err(AskError::UnknownVersion { model: name.clone(), version }));
        };
        let known = record.version(version)?;
        if known.loading.is_some() {
            return None;
        }
        if let Some(failure) = known.failure_of(&edition) {
            return Some(Err(failed(name, &failure.reason)));
        }
        if known.serves(&edition) {
            return Some(Ok(()));
        }
        if record.asked != Some(asked) {
            let reason = "somebody asked for something else meanwhile";
            return Some(Err(failed(name, &reason.into())));
        }
        // With a budget it may have been loaded, and had to make room for another since.
        let was_loaded = self.policy.memory_budget.is_some() && known.demanded.is_none();
        was_loaded.then_some(Ok(()))
    }

    /// Returns whether every source has been looked at and nothing is being loaded or about to be, nor
    /// written.
    fn is_settled(&self, now: Instant) -> bool {
        let seen = self.sources.iter().all(|known| known.seen.is_some());
        let at_rest = |record: &ModelRecord| {
            let standings = crate::plan::standings(&self.policy, record, now);
            let waits = |standing: &crate::plan::Standing| {
                use crate::plan::Standing::{Loading, Waking};
                matches!(standing, Loading | Waking)
            };
            let versions = record.found.iter().flat_map(|found| found.versions.values());
            let mut settling = versions.filter(|version| version.whole_at > now);
            settling.next().is_none() && !standings.values().any(waits)
        };
        let mut records = self.records.models.values();
        let mut versions = records.clone().flat_map(|record| record.versions.values());
        // The cheap question first: it is asked after each of a thousand loads.
        let is_loading = versions.any(|known| known.loading.is_some());
        seen && !is_loading && records.all(at_rest)
    }
}

fn failed(name: &ModelName, reason: &Arc<str>) -> AskError {
    AskError::Failed { model: name.clone(), reason: Arc::clone(reason) }
}

fn not_kept(name: &ModelName, reason: String) -> AskError {
    tracing::error!(model = %name, reason, "what was asked for could not be kept");
    AskError::NotKept { reason }
}
