//! From paths to a router: scan, read, choose an engine, start the instances.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use outhaul_engine::LoadOptions;
use outhaul_monitor::Monitor;
use outhaul_repository::{Catalog, Problem, Scan, VersionArtefact, VersionState, scan};
use outhaul_router::{Router, ServedVersion, VersionPlan};
use outhaul_types::{EngineChoice, ModelManifest, ModelName, ModelVersion, error_chain};

use crate::engines::{Engines, NoEngine};

/// What to open, and how.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Folders of models, model folders, or `.onnx` files.
    pub paths: Vec<PathBuf>,
    /// The file of ONNX Runtime's library; looked for in the usual places where not set.
    pub onnxruntime: Option<PathBuf>,
    /// The engine for models whose manifest leaves the choice open.
    pub engine: EngineChoice,
    /// The one version to load of each model; all where not set.
    pub version: Option<ModelVersion>,
}

impl OpenOptions {
    /// Opens one path with default options.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        OpenOptions { paths: vec![path.into()], ..OpenOptions::default() }
    }
}

/// Models that answer, and what was wrong with the others.
pub struct Opened {
    /// Answers predictions.
    pub router: Arc<Router>,
    /// Everything that an operator should mend, in order of place.
    pub problems: Vec<Problem>,
}

/// Finds and loads models; returns when each of them answers or has failed.
///
/// Opening ONNX Runtime sets `ORT_DISABLE_TELEMETRY` in the environment of the process, unless it is
/// set. Call this before you start threads that read the environment from C, or set the variable.
///
/// # Errors
///
/// Fails where a named ONNX Runtime library cannot be used. A model that cannot be served is a
/// problem in the result and stops no other.
pub fn open(options: &OpenOptions) -> Result<Opened, NoEngine> {
    let engines = Engines::find(options.onnxruntime.as_deref())?;
    let (router, loading) = prepare(options, engines, Arc::new(Monitor::new()));
    let problems = loading.run();
    Ok(Opened { router, problems })
}

/// Finds models and returns a router that knows them as loading, and the work of loading them. A
/// server listens with the one while it does the other.
pub fn prepare(
    options: &OpenOptions,
    engines: Engines,
    monitor: Arc<Monitor>,
) -> (Arc<Router>, Loading) {
    let Scan { models, refused, problems } = scan(&options.paths);
    let catalog = Arc::new(Catalog::new());
    let mut versions = Vec::new();
    for folder in models {
        let mut manifest = folder.manifest;
        if manifest.engine == EngineChoice::Auto {
            manifest.engine = options.engine;
        }
        let wanted = |artefact: &VersionArtefact| {
            options.version.is_none_or(|version| artefact.version == version)
        };
        for artefact in folder.versions.into_iter().filter(wanted) {
            let (name, manifest) = (folder.name.clone(), manifest.clone());
            versions.push(Candidate { name, manifest, artefact });
        }
    }
    catalog.publish(versions.iter().map(|candidate| candidate.change(VersionState::Loading)));
    catalog.publish(refused.into_iter().map(|(name, version)| {
        let reason =
            VersionState::Failed("its model.toml has problems; see the server's log".into());
        (name, version, Some(reason))
    }));
    let router = Arc::new(Router::new(Arc::clone(&catalog), Arc::clone(&monitor)));
    (router, Loading { engines, catalog, monitor, versions, problems })
}

/// A version that was found and is to be served.
struct Candidate {
    name: ModelName,
    manifest: ModelManifest,
    artefact: VersionArtefact,
}

type Change = outhaul_repository::Change<ServedVersion>;

impl Candidate {
    fn change(&self, state: VersionState<ServedVersion>) -> Change {
        (self.name.clone(), self.artefact.version, Some(state))
    }
}

/// Models that were found and are to be loaded.
pub struct Loading {
    engines: Engines,
    catalog: Arc<Catalog<ServedVersion>>,
    monitor: Arc<Monitor>,
    versions: Vec<Candidate>,
    problems: Vec<Problem>,
}

impl Loading {
    /// Returns the engines that the models are loaded in.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Loads every version, several at a time, publishing each as it is ready or has failed. Returns
    /// all problems, those of finding the models included.
    pub fn run(self) -> Vec<Problem> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..cores.get().min(self.versions.len()) {
                scope.spawn(|| {
                    while let Some(candidate) =
                        self.versions.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Some(problem) = self.load(candidate, cores) {
                            found.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
                        }
                    }
                });
            }
        });
        let mut problems = self.problems;
        problems.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
        problems.sort_by(|left, right| left.place.cmp(&right.place));
        problems
    }

    fn load(&self, candidate: &Candidate, cores: NonZeroUsize) -> Option<Problem> {
        // A file that trips over a mistake of ours must not take the other models with it.
        let started = catch_unwind(AssertUnwindSafe(|| self.start(candidate, cores)));
        let started = started.unwrap_or_else(|_| Err("loading it panicked".to_owned()));
        let (state, problem) = match started {
            Ok(served) => {
                announce(&served);
                (VersionState::Ready(Arc::new(served)), None)
            }
            Err(reason) => {
                let Candidate { name, artefact, .. } = candidate;
                tracing::error!(model = %name, version = %artefact.version, %reason, "not served");
                let problem = Problem::of_place(
                    artefact.path.display(),
                    reason.clone(),
                    "mend or remove it; `outhaul inspect` tells more",
                );
                (VersionState::Failed(reason.into()), Some(problem.of_model(name)))
            }
        };
        self.catalog.publish([candidate.change(state)]);
        problem
    }

    fn start(&self, candidate: &Candidate, cores: NonZeroUsize) -> Result<ServedVersion, String> {
        let Candidate { name, manifest, artefact } = candidate;
        let onnx = outhaul_onnx::read(&artefact.path).map_err(|error| error_chain(&error))?;
        let (rows, cost_follows_size) = (onnx.row_independence(), onnx.cost_follows_size());
        let options = LoadOptions { threads: manifest.instances.threads };
        let chosen = self.engines.load(&onnx, manifest.engine, &options);
        let chosen = chosen.map_err(|error| error_chain(&error))?;
        let plan = VersionPlan {
            name: name.clone(),
            version: artefact.version,
            signature: onnx.signature,
            rows,
            cost_follows_size,
            manifest: manifest.clone(),
            model: chosen.model,
            engine_reason: chosen.reason,
            cores,
        };
        ServedVersion::start(plan, &self.monitor).map_err(|error| error_chain(&error))
    }
}

/// Says what was chosen for a version, and why.
fn announce(served: &ServedVersion) {
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
        "ready"
    );
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use outhaul_engine::embedded::Embedded;
    use outhaul_engine::{Engine, LoadError, LoadedModel};
    use outhaul_onnx::OnnxModel;
    use outhaul_types::VersionChoice;

    use super::*;

    /// Panics on models called `bad.onnx`.
    struct Panics;

    impl Engine for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn version(&self) -> String {
            "0".to_owned()
        }

        fn load(
            &self,
            model: &OnnxModel,
            options: &LoadOptions,
        ) -> Result<Arc<dyn LoadedModel>, LoadError> {
            assert!(!model.path.ends_with("bad.onnx"), "scripted panic");
            Embedded.load(model, options)
        }
    }

    #[test]
    fn a_model_that_panics_stops_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let model =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/identity_fp32.onnx");
        for name in ["bad.onnx", "good.onnx"] {
            std::fs::copy(&model, folder.path().join(name)).unwrap();
        }
        let (options, engines) = (OpenOptions::path(folder.path()), Engines::of(Arc::new(Panics)));
        let (router, loading) = prepare(&options, engines, Arc::new(Monitor::new()));
        let problems = loading.run();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains("loading it panicked"), "{}", problems[0]);
        assert!(router.describe("good", VersionChoice::Latest).is_ok());
        assert!(router.describe("bad", VersionChoice::Latest).is_err());
    }
}
