//! What callers and operators may know of a model version.

use std::sync::Arc;
use std::time::Duration;

use outhaul_onnx::RowIndependence;
use outhaul_repository::{ModelEntry, VersionEntry, VersionState};
use outhaul_types::{BatchingSpec, Interface, Label, ModelName, ModelSignature, ModelVersion};

use crate::Served;

/// What callers may know of one model version.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Its name.
    pub name: ModelName,
    /// Its number.
    pub version: ModelVersion,
    /// What it takes and gives, as callers see it.
    pub signature: ModelSignature,
    /// What that means, and the model's own tensors where a transform stands between.
    pub interface: Interface,
    /// The engine that runs it, such as `onnxruntime`.
    pub engine: &'static str,
    /// Why this engine was chosen.
    pub engine_reason: String,
    /// Whether requests are run together.
    pub batching: BatchMode,
    /// The most rows of one batch; 1 where batching is off.
    pub max_rows: usize,
    /// The longest that a batch is held open for requests that are on their way.
    pub max_delay: Duration,
    /// Threads that run it.
    pub instances: usize,
    /// Threads that one run is spread over inside the engine.
    pub threads: usize,
}

/// Whether a version's requests are run together, and what that does to the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchMode {
    /// Each request gets the answer that it would get alone.
    Exact,
    /// The manifest allows batches although rows influence each other, for this reason.
    Inexact(String),
    /// Each request runs alone, for this reason.
    Off(String),
}

impl BatchMode {
    /// Decides the mode from what the graph does to its rows and what the user declared.
    pub fn decide(rows: &RowIndependence, spec: &BatchingSpec) -> Self {
        match rows {
            _ if spec.max_rows.get() == 1 => BatchMode::Off("batching.max_rows is 1".to_owned()),
            RowIndependence::Exact => BatchMode::Exact,
            RowIndependence::Mixed { node, operator, reason } => {
                let reason = format!("operator '{operator}' of node '{node}' {reason}");
                if spec.exact { BatchMode::Off(reason) } else { BatchMode::Inexact(reason) }
            }
            RowIndependence::NoBatch { reason } => BatchMode::Off(reason.clone()),
        }
    }

    /// Returns the mode as one word: `exact`, `inexact` or `off`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            BatchMode::Exact => "exact",
            BatchMode::Inexact(_) => "inexact",
            BatchMode::Off(_) => "off",
        }
    }

    /// Returns why the mode is not `exact`; empty where it is.
    pub fn reason(&self) -> &str {
        match self {
            BatchMode::Exact => "",
            BatchMode::Inexact(reason) | BatchMode::Off(reason) => reason,
        }
    }
}

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers.
    Ready,
    /// It is on its way.
    Loading,
    /// It is not in memory; a request for it waits until it is.
    Dormant,
    /// It could not be loaded.
    Failed,
    /// Somebody unloaded it, or nobody has asked for it.
    Unloaded,
}

impl Standing {
    /// Returns the standing as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Ready => "ready",
            Standing::Loading => "loading",
            Standing::Dormant => "dormant",
            Standing::Failed => "failed",
            Standing::Unloaded => "unloaded",
        }
    }
}

/// The state of one model version.
#[derive(Clone, Debug)]
pub struct VersionStatus {
    /// Its name.
    pub name: ModelName,
    /// Its number.
    pub version: ModelVersion,
    /// Where it stands.
    pub standing: Standing,
    /// The labels that it carries.
    pub labels: Vec<Label>,
    /// Set while it answers.
    pub ready: Option<Arc<ModelDescription>>,
    /// Why it does not answer; empty where it does.
    pub reason: String,
    /// The bytes that it was measured to take, while it is in memory.
    pub memory: Option<u64>,
    /// Why the newest attempt to load it failed, where it did. A version may answer while its newest
    /// files do not load.
    pub last_error: Option<Arc<str>>,
    /// The place that it comes from.
    pub source: Option<Arc<str>>,
}

impl VersionStatus {
    pub(crate) fn of(model: &ModelEntry<Served>, entry: &VersionEntry<Served>) -> Self {
        let (standing, ready, memory) = match &entry.state {
            VersionState::Ready(served) => {
                let description = Arc::clone(served.description());
                (Standing::Ready, Some(description), Some(served.memory()))
            }
            VersionState::Loading | VersionState::Waking => (Standing::Loading, None, None),
            VersionState::Dormant => (Standing::Dormant, None, None),
            VersionState::Failed(_) => (Standing::Failed, None, None),
            VersionState::Unloaded => (Standing::Unloaded, None, None),
        };
        let reason = match &entry.state {
            VersionState::Ready(_) => String::new(),
            VersionState::Failed(reason) => reason.to_string(),
            VersionState::Loading | VersionState::Waking => "loading".to_owned(),
            VersionState::Dormant => "loaded on request".to_owned(),
            VersionState::Unloaded => "unloaded".to_owned(),
        };
        let labels = model.facts().labels.iter();
        let labels = labels.filter(|(_, version)| **version == entry.version);
        let source = &model.facts().source;
        VersionStatus {
            name: model.name().clone(),
            version: entry.version,
            standing,
            labels: labels.map(|(label, _)| label.clone()).collect(),
            ready,
            reason,
            memory,
            last_error: entry.last_error.clone(),
            source: (!source.is_empty()).then(|| Arc::clone(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    #[test]
    fn rows_that_mix_are_batched_only_when_declared() {
        let mixed = RowIndependence::Mixed {
            node: "q".into(),
            operator: "DynamicQuantizeLinear".into(),
            reason: "takes one scale over all rows".into(),
        };
        let mut spec = BatchingSpec::default();
        let reason =
            "operator 'DynamicQuantizeLinear' of node 'q' takes one scale over all rows".to_owned();
        assert_eq!(BatchMode::decide(&mixed, &spec), BatchMode::Off(reason.clone()));
        assert_eq!(BatchMode::decide(&RowIndependence::Exact, &spec), BatchMode::Exact);
        spec.exact = false;
        assert_eq!(BatchMode::decide(&mixed, &spec), BatchMode::Inexact(reason));
        spec.max_rows = NonZeroUsize::MIN;
        assert_eq!(BatchMode::decide(&RowIndependence::Exact, &spec).as_str(), "off");
    }
}
