//! From a model file to a version that answers: read, choose an engine, load, warm up, measure.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use outhaul_cache::SharedStore;
use outhaul_engine::LoadOptions;
use outhaul_monitor::Monitor;
use outhaul_repository::{LoadFailure, LoadOrder, Loaded, Loader, ModelFolder};
use outhaul_router::{CacheSupport, ModelDescription, ServedVersion, VersionPlan};
use outhaul_transform::Transform;
use outhaul_types::{EngineChoice, ModelManifest, ModelName, ModelVersion, error_chain};

use crate::digest::digest;
use crate::engines::Engines;
use crate::memory::MemoryMeter;
use crate::model_file::ModelFile;
use crate::private::PrivateCopy;

/// Loads ONNX files in the engines of this process.
pub(crate) struct OnnxLoader {
    pub(crate) engines: Engines,
    /// The engine of models that declare none.
    pub(crate) engine: EngineChoice,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) cores: NonZeroUsize,
    pub(crate) meter: MemoryMeter,
    pub(crate) caching: Caching,
}

/// What becomes of the caches that models declare.
pub(crate) enum Caching {
    /// There are none: nobody asks twice.
    Off,
    /// They are as declared; replicas share answers in this Redis, where there is one.
    On(Option<SharedStore>),
}

/// A version in memory, warm, before it has threads.
pub(crate) struct Prepared {
    plan: VersionPlan,
    memory: u64,
    on_demand: bool,
}

impl Loader for OnnxLoader {
    type Contract = Arc<ModelDescription>;
    type Prepared = Prepared;
    type Served = ServedVersion;

    fn load(
        &self,
        order: &LoadOrder<Arc<ModelDescription>>,
    ) -> Result<Loaded<Prepared>, LoadFailure> {
        // Everything up to the warm-up happens on this thread, so that what it has allocated and not
        // given back is what the version holds.
        let mut mark = self.meter.begin();
        let plan = self.plan(order)?;
        mark.add(plan.model.bytes_elsewhere());
        let memory = mark.held();
        Ok(Loaded { prepared: Prepared { plan, memory, on_demand: order.on_demand }, memory })
    }

    fn start(&self, prepared: Prepared) -> Result<ServedVersion, LoadFailure> {
        let Prepared { plan, memory, on_demand } = prepared;
        let served = ServedVersion::start(plan, &self.monitor);
        let served = served.map_err(|error| LoadFailure::Failed(error_chain(&error)))?;
        let description = served.description();
        match on_demand {
            true => tracing::debug!(
                model = %description.name,
                version = %description.version,
                memory,
                "ready"
            ),
            false => announce(&served, memory),
        }
        Ok(served)
    }

    fn contract(&self, served: &ServedVersion) -> Arc<ModelDescription> {
        Arc::clone(served.description())
    }

    fn forget(&self, model: &ModelName, version: ModelVersion) {
        self.monitor.forget(model, version);
    }
}

impl OnnxLoader {
    fn plan(&self, order: &LoadOrder<Arc<ModelDescription>>) -> Result<VersionPlan, LoadFailure> {
        let failed = |error: &dyn std::error::Error| LoadFailure::Failed(error_chain(error));
        let LoadOrder { name, version, manifest, path, in_service, .. } = order;
        let (cache, store) = match &self.caching {
            Caching::Off => (None, None),
            Caching::On(store) => (manifest.cache.as_ref(), store.as_ref()),
        };
        let shares = CacheSupport::needs_store(cache, store).map_err(|error| failed(&error))?;
        // Read to the end of the load, and no longer.
        let file = ModelFile::of(path).map_err(|error| failed(&error))?;
        if let Some(how) = file.how() {
            tracing::info!(model = %name, version = %version, how, "made");
        }
        let mut onnx = outhaul_onnx::read(file.path()).map_err(|error| failed(&error))?;
        let external = onnx.external_files();
        let mut copy = None;
        if order.is_shared && !file.is_made() && !external.is_empty() {
            let copied = PrivateCopy::of(path, &external).map_err(|error| {
                LoadFailure::Failed(format!("its weights could not be copied: {error}"))
            })?;
            onnx = outhaul_onnx::read(copied.model()).map_err(|error| failed(&error))?;
            copy = Some(copied);
        }
        let declared = outhaul_router::Declared::apply(&onnx.signature, manifest);
        let declared = declared.map_err(|error| failed(&error))?;
        let transform = Transform::build(&manifest.transform, &declared.outer);
        let transform = transform.map_err(|error| failed(&error))?;
        let outer = transform.as_ref().map_or(&declared.outer, Transform::outer);
        if let Some(in_service) = in_service.as_ref().filter(|_| !manifest.loading.allow_breaking) {
            let breaks = in_service.signature.breaks(outer);
            if !breaks.is_empty() {
                return Err(LoadFailure::Refused(would_break(in_service, &breaks)));
            }
        }
        let sample = sample(manifest).map_err(LoadFailure::Failed)?;
        let (rows, cost_follows_size) = (onnx.row_independence(), onnx.cost_follows_size());
        let threads = manifest.instances.threads;
        let options = LoadOptions { threads, thread_bytes: self.meter.thread_bytes() };
        let choice = match manifest.engine {
            EngineChoice::Auto => self.engine,
            declared => declared,
        };
        let chosen = self.engines.load(&onnx, choice, &options).map_err(|error| failed(&error))?;
        let engine = chosen.model.engine();
        let read = copy.as_ref().map_or(file.path(), PrivateCopy::model);
        let digest = shares.then(|| digest(read, &external, manifest, engine)).transpose();
        let digest = digest.map_err(|error| failed(&error))?;
        // What is mapped stays; its name is of no more use.
        drop(copy);
        let plan = VersionPlan {
            name: name.clone(),
            version: *version,
            signature: onnx.signature,
            declared,
            transform,
            sample,
            rows,
            cost_follows_size,
            manifest: ModelManifest { cache: cache.cloned(), ..ModelManifest::clone(manifest) },
            model: chosen.model,
            engine_reason: chosen.reason,
            cores: self.cores,
            cache: CacheSupport { store: store.cloned(), digest },
        };
        plan.warm_up().map_err(|error| failed(&error))?;
        Ok(plan)
    }
}

/// Loads a version as a server would, warm-up included, and lets go of it. Returns the engine that ran it.
///
/// # Errors
///
/// Fails where a server could not load it.
pub fn try_to_load(
    engines: Engines,
    model: &ModelFolder,
    version: ModelVersion,
    path: &Path,
) -> Result<&'static str, LoadFailure> {
    let loader = OnnxLoader {
        engines,
        engine: EngineChoice::default(),
        monitor: Arc::new(Monitor::new()),
        cores: NonZeroUsize::MIN,
        meter: MemoryMeter::default(),
        caching: Caching::Off,
    };
    let order = LoadOrder {
        name: model.name.clone(),
        version,
        manifest: Arc::new(model.manifest.clone()),
        path: path.to_owned(),
        in_service: None,
        is_shared: false,
        on_demand: true,
    };
    loader.plan(&order).map(|plan| plan.model.engine())
}

/// Reads the rows to try a model with, where there are any.
fn sample(manifest: &ModelManifest) -> Result<Option<Arc<str>>, String> {
    let Some(path) = &manifest.sample else { return Ok(None) };
    let place = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("the sample {place} cannot be read: {error}"))?;
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Array(rows)) if !rows.is_empty() => Ok(Some(text.into())),
        Ok(_) => Err(format!("the sample {place} is no JSON list of rows")),
        Err(error) => Err(format!("the sample {place} is no JSON: {error}")),
    }
}

fn would_break(in_service: &ModelDescription, breaks: &[String]) -> String {
    format!(
        "it would break callers of version {}, which is in service: {}; set loading.allow_breaking \
         in model.toml where that is meant",
        in_service.version,
        breaks.join(", "),
    )
}

/// Says what was chosen for a version, and why.
fn announce(served: &ServedVersion, memory: u64) {
    let description = served.description();
    tracing::info!(
        model = %description.name,
        version = %description.version,
        engine = description.engine,
        engine_reason = description.engine_reason,
        instances = description.instances,
        threads = description.threads,
        batching = description.batching.as_str(),
        batching_reason = description.batching.reason(),
        max_rows = description.max_rows,
        memory_bytes = memory,
        "ready"
    );
}
