//! Opening models in this process: sources, state and engines put together into a [`Router`].
//!
//! A router may be used while its models are still being loaded; those it does not know yet are
//! unknown to it, and those on their way are not ready.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outhaul_cache::{SharedStore, StoreUrlError};
use outhaul_monitor::Monitor;
use outhaul_repository::source::{Cache, LocalFolder, Remote, is_url};
use outhaul_repository::{
    Added, Catalog, Journal, Mode, Parts, Problem, RepositoryConfig, Scan, Source, SourceError,
    VersionArtefact, start,
};
use outhaul_router::{Callers, Router};
use outhaul_state::StateError;
use outhaul_types::{CallerSpec, EngineChoice, ModelVersion, Name, VersionPolicy};
use tokio::runtime::Runtime;

use crate::engines::{Engines, NoEngine};
use crate::loader::{Caching, OnnxLoader};
use crate::memory::MemoryMeter;

/// A place that models come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder of models, a model's folder, or an `.onnx` file.
    Path(PathBuf),
    /// A folder in an object store, such as `s3://bucket/models`.
    Url(String),
}

impl Place {
    /// Reads what a user types: a URL where it has the form of one, else a path.
    pub fn of(text: &str) -> Self {
        if is_url(text) { Place::Url(text.to_owned()) } else { Place::Path(text.into()) }
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        match path.to_str().filter(|text| is_url(text)) {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::Path(path),
        }
    }
}

/// Where it is kept what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// Nowhere: it ends with the process.
    #[default]
    Nothing,
    /// In a SQLite file, which is made when there is something to keep.
    File(PathBuf),
    /// In the store at this URL.
    Url(String),
}

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Where the models are.
    pub places: Vec<Place>,
    /// The file of ONNX Runtime's library; looked for in the usual places where not set.
    pub onnxruntime: Option<PathBuf>,
    /// The engine for models whose manifest leaves the choice open.
    pub engine: EngineChoice,
    /// The one version to load of each model; as its policy says where not set.
    pub version: Option<ModelVersion>,
    /// How changes are found out, and what is loaded.
    pub repository: RepositoryConfig,
    /// Where it is kept what was asked for.
    pub keeping: Keeping,
    /// Where files from object stores are kept; the user's cache folder where not set.
    pub cache: Option<PathBuf>,
    /// How the memory of loaded versions is measured: by what this process's allocator can tell.
    pub meter: MemoryMeter,
    /// The most bytes that are kept there beside what is in use; no limit where not set.
    pub cache_capacity: Option<u64>,
    /// The folder below which callers may add models while the server runs
    /// ([`Router::added`]); none where not set.
    pub added_below: Option<PathBuf>,
    /// Whether answers are kept, for models that declare it.
    pub keeps_answers: bool,
    /// The URL of the Redis in which replicas share answers; none where not set.
    pub cache_redis: Option<String>,
    /// What callers may do; all are equal and unlimited where it is empty.
    pub callers: BTreeMap<Name, CallerSpec>,
}

impl Default for OpenOptions {
    /// Looks once, loads everything, keeps nothing.
    fn default() -> Self {
        OpenOptions {
            places: Vec::new(),
            onnxruntime: None,
            engine: EngineChoice::default(),
            version: None,
            // Whoever opens files in a program knows that they are whole.
            repository: RepositoryConfig {
                mode: Mode::Once,
                settle: Duration::ZERO,
                ..RepositoryConfig::default()
            },
            keeping: Keeping::Nothing,
            cache: None,
            cache_capacity: None,
            added_below: None,
            keeps_answers: true,
            cache_redis: None,
            callers: BTreeMap::new(),
            meter: MemoryMeter::default(),
        }
    }
}

impl OpenOptions {
    /// Opens one path with default options.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        OpenOptions { places: vec![Place::from(path.into())], ..OpenOptions::default() }
    }
}

/// Why nothing can be opened. A model that cannot be served is no such error, but a problem.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A named ONNX Runtime library cannot be used.
    #[error(transparent)]
    Engine(#[from] NoEngine),
    /// A place cannot be one of models.
    #[error("cannot open a source of models")]
    Source(#[from] SourceError),
    /// The URL of the shared cache names no Redis.
    #[error("cannot use the Redis of the cache")]
    Cache(#[from] StoreUrlError),
    /// The state store cannot be used.
    #[error("cannot open the state store")]
    State(#[from] StateError),
    /// The operating system refused a thread, or the state store cannot be read.
    #[error("cannot start")]
    Start(#[from] io::Error),
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
/// Do not call it from within an event loop: it waits.
///
/// # Errors
///
/// See [`OpenError`]. A model that cannot be served is a problem in the result and stops no other.
pub fn open(options: &OpenOptions) -> Result<Opened, OpenError> {
    let engines = Engines::find(options.onnxruntime.as_deref())?;
    let router = prepare(options, engines, Arc::new(Monitor::new()))?;
    let problems = loaded(&router);
    Ok(Opened { router, problems })
}

/// Waits until nothing is on its way any more and returns all problems.
pub fn loaded(router: &Router) -> Vec<Problem> {
    let Some(repository) = router.repository() else { return Vec::new() };
    // Loading has no limit of its own, so only the end of the repository ends this.
    repository.settle(Duration::MAX);
    let mut problems = repository.problems().to_vec();
    problems.extend(router.pipeline_problems());
    problems
}

/// Begins to find and load models, and returns the router that will know them. A server listens with
/// it meanwhile.
///
/// # Errors
///
/// See [`OpenError`].
pub fn prepare(
    options: &OpenOptions,
    engines: Engines,
    monitor: Arc<Monitor>,
) -> Result<Arc<Router>, OpenError> {
    let cache = options.cache_redis.as_deref().map(SharedStore::new).transpose()?;
    let runtime = runtime(options)?;
    let catalog = Arc::new(Catalog::new());
    let callers = Callers::new(options.callers.clone(), &monitor);
    let router = Router::new(Arc::clone(&catalog), Arc::clone(&monitor)).with_callers(callers);
    let loader = OnnxLoader {
        engines,
        engine: options.engine,
        monitor: Arc::clone(&monitor),
        cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        meter: options.meter,
        caching: if options.keeps_answers { Caching::On(cache) } else { Caching::Off },
    };
    let added = options.added_below.as_ref().map(|base| Arc::new(Added::below(base)));
    let mut sources = sources(options, runtime.as_ref())?;
    sources.extend(added.iter().map(|added| Arc::clone(added) as Arc<dyn Source>));
    let parts = Parts {
        sources,
        loader: Arc::new(loader),
        catalog,
        journal: journal(options, runtime.as_ref())?,
        metrics: monitor.loading(),
        runtime,
    };
    let repository = start(options.repository.clone(), parts)?;
    let router = router.with_repository(repository);
    let router = match added {
        Some(added) => router.with_added(added),
        None => router,
    };
    Ok(router.shared())
}

/// What object stores and the state store do their I/O on; nothing else needs it.
fn runtime(options: &OpenOptions) -> io::Result<Option<Runtime>> {
    let is_remote = options.places.iter().any(|place| matches!(place, Place::Url(_)));
    if !is_remote && options.keeping == Keeping::Nothing {
        return Ok(None);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("repository-io").enable_all().build().map(Some)
}

fn journal(options: &OpenOptions, runtime: Option<&Runtime>) -> Result<Journal, StateError> {
    let Some(runtime) = runtime.map(|runtime| runtime.handle().clone()) else {
        return Ok(Journal::forgetful());
    };
    match &options.keeping {
        Keeping::Nothing => Ok(Journal::forgetful()),
        Keeping::File(file) => Journal::in_file(file.clone(), runtime),
        Keeping::Url(url) => Journal::open(url, runtime),
    }
}

fn sources(
    options: &OpenOptions,
    runtime: Option<&Runtime>,
) -> Result<Vec<Arc<dyn Source>>, SourceError> {
    let mut cache = None;
    let mut sources = Vec::new();
    for place in &options.places {
        let source: Arc<dyn Source> = match (place, runtime) {
            (Place::Url(url), Some(runtime)) => {
                let cache = match &cache {
                    Some(cache) => Arc::clone(cache),
                    None => Arc::clone(cache.insert(Arc::new(open_cache(options)?))),
                };
                Arc::new(Remote::open(url, cache, runtime.handle().clone())?)
            }
            (Place::Url(url), None) => Arc::new(LocalFolder::new(url)),
            (Place::Path(path), _) => Arc::new(LocalFolder::new(path)),
        };
        sources.push(match options.version {
            None => source,
            Some(version) => Arc::new(OneVersion { source, version }),
        });
    }
    Ok(sources)
}

fn open_cache(options: &OpenOptions) -> Result<Cache, SourceError> {
    let folder = options.cache.clone().or_else(cache_folder).ok_or_else(|| SourceError {
        place: "the cache of fetched models".to_owned(),
        reason: "neither XDG_CACHE_HOME nor HOME says where it may be; name a folder with \
                 --cache-dir"
            .to_owned(),
        passing: false,
    })?;
    Cache::open(folder, options.cache_capacity)
}

/// Returns where files from object stores are kept, unless somebody says otherwise.
pub fn cache_folder() -> Option<PathBuf> {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// Returns the file that keeps what was asked for, unless somebody says otherwise.
pub fn state_file() -> Option<PathBuf> {
    Some(user_folder("XDG_DATA_HOME", ".local/share")?.join("state.db"))
}

/// The user's folder of a kind, by the XDG Base Directory Specification.
fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|path| Path::is_absolute(path))
    };
    let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    Some(folder.join("outhaul"))
}

/// A source of which only one version of each model is of interest.
struct OneVersion {
    source: Arc<dyn Source>,
    version: ModelVersion,
}

impl Source for OneVersion {
    fn place(&self) -> &str {
        self.source.place()
    }

    fn look(&self) -> Result<Scan, SourceError> {
        let mut scan = self.source.look()?;
        for model in &mut scan.models {
            model.versions.retain(|artefact| artefact.version == self.version);
            model.manifest.versions = VersionPolicy::All;
            model.manifest.labels.clear();
        }
        scan.models.retain(|model| !model.versions.is_empty());
        Ok(scan)
    }

    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        self.source.fetch(artefact)
    }

    fn is_unchanged(&self, artefact: &VersionArtefact) -> bool {
        self.source.is_unchanged(artefact)
    }

    fn folder(&self) -> Option<&Path> {
        self.source.folder()
    }
}

#[cfg(test)]
mod tests {
    use outhaul_engine::embedded::Embedded;
    use outhaul_engine::{Engine, LoadError, LoadOptions, LoadedModel};
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
        let router = prepare(&options, engines, Arc::new(Monitor::new())).unwrap();
        let problems = loaded(&router);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains("loading it panicked"), "{}", problems[0]);
        let latest = VersionChoice::Latest;
        assert!(router.readiness("good", &latest).is_ok());
        assert!(router.readiness("bad", &latest).is_err());
    }

    #[test]
    fn what_looks_like_a_url_is_one() {
        assert_eq!(Place::of("s3://bucket/models"), Place::Url("s3://bucket/models".to_owned()));
        assert_eq!(Place::of("./models"), Place::Path("./models".into()));
    }
}
