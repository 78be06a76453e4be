//! A repository that finds what it is told and loads as it is told: the real loop, no files, no
//! engine.
//!
//! It has `echo` in the versions 1 and 2, of which 1 is `stable` and 2 has the newest content; `slow`,
//! which loads while the gate is open; and `damaged`, which never loads. All are unloaded at first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_monitor::Monitor;
use outhaul_repository::{
    Catalog, Identity, Journal, LoadFailure, LoadOrder, Loaded, Loader, Mode, ModelFolder, Parts,
    RepositoryConfig, Scan, Source, SourceError, VersionArtefact, start,
};
use outhaul_router::{Router, ServedVersion, VersionPlan};
use outhaul_server::{App, AppConfig};
use outhaul_types::{Label, ModelManifest, ModelName, ModelVersion};

use crate::models::{Gate, Model, echo};

/// Bytes that every version takes, as it says.
pub const MEMORY: u64 = 4096;

struct Shelf;

impl Source for Shelf {
    fn place(&self) -> &str {
        "shelf"
    }

    fn look(&self) -> Result<Scan, SourceError> {
        let mut echo = folder("echo", &[1, 2]);
        echo.manifest.labels = [(Label::new("stable").unwrap(), ModelVersion(1))].into();
        let models = vec![folder("damaged", &[3]), echo, folder("slow", &[1])];
        Ok(Scan { models, ..Scan::default() })
    }

    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        Ok(artefact.path.clone())
    }

    fn folder(&self) -> Option<&Path> {
        None
    }
}

fn folder(name: &str, versions: &[u64]) -> ModelFolder {
    let artefact = |version: &u64| VersionArtefact {
        version: ModelVersion(*version),
        path: PathBuf::from(format!("{name}/{version}/model.onnx")),
        identity: Identity::new(&format!("{name}-{version}")),
        bytes: MEMORY,
        changed: None,
    };
    ModelFolder {
        name: ModelName::new(name).unwrap(),
        path: PathBuf::from(name),
        manifest: ModelManifest::default(),
        beside: Identity::default(),
        versions: versions.iter().map(artefact).collect(),
    }
}

struct AsTold {
    gate: Arc<Gate>,
    monitor: Arc<Monitor>,
}

impl Loader for AsTold {
    type Contract = ();
    type Prepared = VersionPlan;
    type Served = ServedVersion;

    fn load(&self, order: &LoadOrder<()>) -> Result<Loaded<VersionPlan>, LoadFailure> {
        match order.name.as_str() {
            "damaged" => return Err(LoadFailure::Failed("its file is <damaged>".to_owned())),
            "slow" => self.gate.wait(),
            _ => {}
        }
        let (name, version) = (order.name.clone(), order.version);
        let prepared = VersionPlan { name, version, ..Model::new("echo", 4, echo).plan() };
        Ok(Loaded { prepared, memory: MEMORY })
    }

    fn start(&self, plan: VersionPlan) -> Result<ServedVersion, LoadFailure> {
        let served = ServedVersion::start(plan, &self.monitor);
        served.map_err(|error| LoadFailure::Failed(error.to_string()))
    }

    fn contract(&self, _: &ServedVersion) {}

    fn forget(&self, _: &ModelName, _: ModelVersion) {}
}

/// Returns an application over such a repository.
pub fn app(gate: &Arc<Gate>) -> Arc<App> {
    let monitor = Arc::new(Monitor::new());
    let catalog = Arc::new(Catalog::new());
    let config = RepositoryConfig { mode: Mode::Explicit, ..RepositoryConfig::default() };
    let parts = Parts {
        sources: vec![Arc::new(Shelf) as Arc<dyn Source>],
        loader: Arc::new(AsTold { gate: Arc::clone(gate), monitor: Arc::clone(&monitor) }),
        catalog: Arc::clone(&catalog),
        journal: Journal::forgetful(),
        metrics: monitor.loading(),
        runtime: None,
    };
    let repository = start(config, parts).unwrap();
    let router = Router::new(catalog, monitor).with_repository(repository);
    App::new(Arc::new(router), AppConfig::default())
}
