//! What is known of every model: found, asked for, held in memory, failed. The plan looks at it, the
//! loop changes it.
//!
//! Nothing here decides, and nothing here knows a clock: instants come from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use outhaul_types::{Label, ModelManifest, ModelName, ModelVersion};
use serde::{Deserialize, Serialize};

use crate::{Identity, VersionArtefact};

/// What somebody asked for, over and above what the folders hold. Kept over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Asked {
    /// That the model be loaded: the one version, or those that its policy chooses.
    Load {
        /// The version's number.
        version: Option<u64>,
    },
    /// That it not be loaded.
    Unload,
}

/// One content of a version with what is declared of it: a change of any part is a new edition, which
/// is loaded anew.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edition {
    pub(crate) identity: Identity,
    pub(crate) manifest: Arc<ModelManifest>,
    /// Of the files that the manifest names.
    pub(crate) beside: Identity,
}

/// A version that a source holds.
#[derive(Clone, Debug)]
pub(crate) struct FoundVersion {
    pub(crate) artefact: VersionArtefact,
    /// When its files will have been left alone for long enough to be taken as whole.
    pub(crate) whole_at: Instant,
}

/// A model that a source holds.
#[derive(Clone, Debug)]
pub(crate) struct FoundModel {
    /// The index of the source.
    pub(crate) source: usize,
    pub(crate) manifest: Arc<ModelManifest>,
    /// What changes when one of the files does that the manifest names.
    pub(crate) beside: Identity,
    pub(crate) versions: BTreeMap<ModelVersion, FoundVersion>,
    /// Why nothing new of it can be loaded, where something is wrong with what is declared.
    pub(crate) blocked: Option<Arc<str>>,
}

impl FoundModel {
    pub(crate) fn edition(&self, version: ModelVersion) -> Option<Edition> {
        let identity = self.versions.get(&version)?.artefact.identity.clone();
        let (manifest, beside) = (Arc::clone(&self.manifest), self.beside.clone());
        Some(Edition { identity, manifest, beside })
    }
}

/// A version in memory that answers.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    pub(crate) edition: Edition,
    /// Measured, in bytes.
    pub(crate) memory: u64,
    pub(crate) since: Instant,
    pub(crate) last_used: Instant,
}

/// An attempt to load that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) edition: Edition,
    /// How often in a row.
    pub(crate) attempts: u32,
    /// When to try again; `None` where only another edition, or being asked to, can help.
    pub(crate) retry_at: Option<Instant>,
    pub(crate) reason: Arc<str>,
}

/// One version.
#[derive(Clone, Debug, Default)]
pub(crate) struct VersionRecord {
    pub(crate) serving: Option<Serving>,
    /// The edition that is being loaded, and the bytes that it is expected to take.
    pub(crate) loading: Option<(Edition, u64)>,
    pub(crate) failure: Option<Failure>,
    /// Since when a request waits for it.
    pub(crate) demanded: Option<Instant>,
    /// What an edition took when it was last in memory.
    pub(crate) measured: Option<(Identity, u64)>,
}

impl VersionRecord {
    /// Returns the failure of this edition, where it failed.
    pub(crate) fn failure_of(&self, edition: &Edition) -> Option<&Failure> {
        self.failure.as_ref().filter(|failure| failure.edition == *edition)
    }

    /// Returns whether this edition answers.
    pub(crate) fn serves(&self, edition: &Edition) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.edition == *edition)
    }
}

/// One model.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelRecord {
    /// `None` where no source holds it any more.
    pub(crate) found: Option<FoundModel>,
    /// The source that it was lost from, unless a pipeline has its name since.
    pub(crate) lost_from: Option<usize>,
    pub(crate) asked: Option<Asked>,
    /// What routes and roll-outs lead to.
    pub(crate) held: BTreeSet<ModelVersion>,
    pub(crate) versions: BTreeMap<ModelVersion, VersionRecord>,
    /// Where labels lead now; see [`ModelRecord::lead`].
    pub(crate) labels: BTreeMap<Label, ModelVersion>,
}

impl ModelRecord {
    pub(crate) fn version(&self, version: ModelVersion) -> Option<&VersionRecord> {
        self.versions.get(&version)
    }

    /// Notes that no source holds the model any more.
    pub(crate) fn lose(&mut self) {
        if let Some(found) = self.found.take() {
            self.lost_from = Some(found.source);
        }
    }

    /// Notes that a pipeline has the name now: nothing of the model may answer to it.
    pub(crate) fn give_way(&mut self) {
        (self.found, self.lost_from) = (None, None);
    }

    /// Returns the index of the source that holds it, or held it last.
    pub(crate) fn source(&self) -> Option<usize> {
        self.found.as_ref().map(|found| found.source).or(self.lost_from)
    }

    /// Returns what is held and answers although its files are gone.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = ModelVersion> {
        let is_there = |version: &ModelVersion| {
            self.found.as_ref().is_some_and(|found| found.versions.contains_key(version))
        };
        let held = self.held.iter().copied().filter(|_| self.source().is_some());
        held.filter(move |version| self.is_serving(*version) && !is_there(version))
    }

    pub(crate) fn is_serving(&self, version: ModelVersion) -> bool {
        self.version(version).is_some_and(|known| known.serving.is_some())
    }

    /// Returns where labels lead: to the version that is declared once that answers, until then to
    /// where they led, so that moving a label leaves no gap.
    pub(crate) fn lead(&self) -> BTreeMap<Label, ModelVersion> {
        let declared = self.found.iter().flat_map(|found| &found.manifest.labels);
        let lead = |(label, declared): (&Label, &ModelVersion)| {
            let before = self.labels.get(label).filter(|before| self.is_serving(**before));
            let leads = if self.is_serving(*declared) { None } else { before };
            (label.clone(), *leads.unwrap_or(declared))
        };
        declared.map(lead).collect()
    }

    pub(crate) fn serving(&self) -> impl Iterator<Item = (ModelVersion, &Serving)> {
        self.versions
            .iter()
            .filter_map(|(version, record)| Some((*version, record.serving.as_ref()?)))
    }
}

/// All models.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) models: BTreeMap<ModelName, ModelRecord>,
    /// Bytes of versions that answer no new request and still finish old ones.
    pub(crate) leaving: u64,
}
