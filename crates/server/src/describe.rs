//! From what the router knows of models to what the contracts write.

use outhaul_monitor::{DurationCount, ModelStatistics as Counted};
use outhaul_protocol::describe::{
    BatchStatistics, DurationStatistic, EntryDetails, EntryState, ModelConfig, ModelStatistics,
    RepositoryEntry, ServerMetadata,
};
use outhaul_protocol::oip::Target;
use outhaul_protocol::{Schema, oip};
use outhaul_router::{ModelDescription, Router, RouterError, Standing, VersionStatus};
use outhaul_types::{ModelName, ModelVersion, TensorSpec, VersionChoice};

/// What the server says of itself.
pub(crate) const SERVER: ServerMetadata<'static> = ServerMetadata {
    name: "outhaul",
    version: env!("CARGO_PKG_VERSION"),
    extensions: &oip::EXTENSIONS,
};

/// Returns the protocol's word for kind of file and engine.
pub(crate) fn platform(model: &ModelDescription) -> String {
    match model.engine {
        // Triton's word for a model that asks others.
        "pipeline" => "ensemble".to_owned(),
        engine => format!("{engine}_onnx"),
    }
}

/// Returns what codecs of rows may know of a model.
pub(crate) fn schema(model: &ModelDescription) -> Schema<'_> {
    Schema {
        name: model.name.as_str(),
        version: model.version,
        signature: &model.signature,
        interface: &model.interface,
    }
}

/// Returns the versions that metadata names: all that are ready, or the one that was asked for.
pub(crate) fn versions(
    router: &Router,
    model: &ModelDescription,
    asked: &VersionChoice,
) -> Result<Vec<ModelVersion>, RouterError> {
    match asked {
        VersionChoice::Latest => router.versions(model.name.as_str()),
        VersionChoice::Exact(_) | VersionChoice::Label(_) => Ok(vec![model.version]),
    }
}

/// Returns the versions of a model that are meant, whether they answer or not.
pub(crate) fn versions_of(
    router: &Router,
    target: &Target,
) -> Result<Vec<VersionStatus>, RouterError> {
    let Target { model, version } = target;
    let mut versions = router.models();
    versions.retain(|status| *model == status.name.as_str());
    if versions.is_empty() {
        return Err(RouterError::UnknownModel { model: model.clone() });
    }
    let unknown = match version {
        VersionChoice::Latest => return Ok(versions),
        VersionChoice::Exact(version) => {
            versions.retain(|status| status.version == *version);
            RouterError::UnknownVersion { model: model.clone(), version: *version }
        }
        VersionChoice::Label(label) => {
            versions.retain(|status| status.labels.contains(label));
            RouterError::UnknownLabel { model: model.clone(), label: label.clone() }
        }
    };
    if versions.is_empty() { Err(unknown) } else { Ok(versions) }
}

/// The versions that an index lists.
pub(crate) struct Index(Vec<(VersionStatus, String)>);

impl Index {
    /// Lists all versions, or those that would answer.
    pub(crate) fn of(router: &Router, only_ready: bool) -> Self {
        let wanted = |status: &VersionStatus| {
            !only_ready || entry_state(status.standing) == EntryState::Ready
        };
        let listed = router.models().into_iter().filter(wanted);
        let with_text = |status: VersionStatus| {
            let version = status.version.to_string();
            (status, version)
        };
        Index(listed.map(with_text).collect())
    }

    /// Returns what the contracts write.
    pub(crate) fn entries(&self) -> impl Iterator<Item = RepositoryEntry<'_>> {
        self.0.iter().map(|(status, version)| RepositoryEntry {
            name: status.name.as_str(),
            version,
            state: entry_state(status.standing),
            reason: match status.standing {
                Standing::Dormant if status.reason.is_empty() => "loaded on request",
                _ => &status.reason,
            },
            details: EntryDetails {
                standing: status.standing.as_str(),
                engine: status.ready.as_ref().map(|model| model.engine),
                memory_bytes: status.memory,
                labels: &status.labels,
                last_error: status.last_error.as_deref(),
                source: status.source.as_deref(),
            },
        })
    }
}

/// Says how a version stands for a client: one that is loaded on request answers, too.
pub(crate) const fn entry_state(standing: Standing) -> EntryState {
    match standing {
        Standing::Ready | Standing::Dormant => EntryState::Ready,
        Standing::Loading => EntryState::Loading,
        Standing::Failed | Standing::Unloaded => EntryState::Unavailable,
    }
}

/// Returns the facts that the protocol has no field for, as far as there are any.
pub(crate) fn properties(model: &ModelDescription) -> Vec<(&str, &str)> {
    let is_transformed = model.interface.inner.is_some();
    let facts = [
        ("engine", model.engine),
        ("engine_reason", &model.engine_reason),
        ("batching", model.batching.as_str()),
        ("batching_reason", model.batching.reason()),
        ("task", if is_transformed { model.interface.task.as_str() } else { "" }),
    ];
    facts.into_iter().filter(|(_, fact)| !fact.is_empty()).collect()
}

/// Returns the model's own inputs and outputs as text, where a transform stands between them and
/// callers: gRPC's metadata has no place for them but its configuration's parameters.
pub(crate) fn inner_tensors(model: &ModelDescription) -> Vec<(&'static str, String)> {
    let list = |specs: &[TensorSpec]| {
        let each = |spec: &TensorSpec| format!("{} {} {}", spec.name, spec.data_type, spec.shape);
        specs.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    let inner = model.interface.inner.iter();
    inner
        .flat_map(|inner| {
            [("model_inputs", list(&inner.inputs)), ("model_outputs", list(&inner.outputs))]
        })
        .collect()
}

/// Returns how a model is run, in the words of Triton's configuration.
pub(crate) fn config<'a>(model: &'a ModelDescription, platform: &'a str) -> ModelConfig<'a> {
    ModelConfig {
        name: model.name.as_str(),
        platform,
        backend: model.engine,
        max_rows: (model.max_rows > 1).then_some(model.max_rows),
        max_delay: model.max_delay,
        instances: model.instances,
        signature: &model.signature,
    }
}

/// Returns a version's numbers.
pub(crate) fn statistics(
    name: &ModelName,
    version: ModelVersion,
    counted: &Counted,
) -> ModelStatistics {
    let batches = counted.batches.iter().map(|&(rows, compute)| BatchStatistics {
        rows,
        compute_infer: duration(compute),
        ..BatchStatistics::default()
    });
    ModelStatistics {
        name: name.to_string(),
        version: version.to_string(),
        last_inference: counted.last_inference_ms,
        inference_count: counted.inference_count,
        execution_count: counted.execution_count,
        success: duration(counted.success),
        fail: duration(counted.fail),
        queue: duration(counted.queue),
        compute_input: duration(counted.compute_input),
        compute_infer: duration(counted.compute_infer),
        compute_output: duration(counted.compute_output),
        batches: batches.collect(),
        ..ModelStatistics::default()
    }
}

fn duration(counted: DurationCount) -> DurationStatistic {
    DurationStatistic { count: counted.count, ns: counted.ns }
}
