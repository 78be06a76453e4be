//! Models that are loaded by the first request for them, through `Router::infer`: the real repository
//! over a shelf and a loader that do as the test says.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{
    Catalog, Identity, Journal, LoadFailure, LoadOrder, Loaded, Loader, Mode, ModelFolder, Parts,
    RepositoryConfig, Scan, Source, SourceError, VersionArtefact, start,
};
use outhaul_router::{Declared, Router, RouterError, Served, ServedVersion, Standing, VersionPlan};
use outhaul_types::{
    BoundInputs, Classify, DataType, Deadline, Dimension, ErrorKind, InferRequest, InferResponse,
    ModelManifest, ModelName, ModelSignature, ModelVersion, NamedTensor, RequestContext,
    ShapePattern, Tensor, TensorSpec, Tensors, VersionChoice,
};

/// How long a test waits for what is to happen before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every version takes, as it says.
const MEMORY: u64 = 1 << 20;

/// Room for one version and not for two.
const ROOM_FOR_ONE: u64 = MEMORY * 3 / 2;

/// Holds whoever passes until it is opened, and counts.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(open, _)| !*open).unwrap());
    }

    fn set(&self, open: bool) {
        self.state.lock().unwrap().0 = open;
        self.changed.notify_all();
    }

    /// Everybody who came to it so far.
    fn passes(&self) -> usize {
        self.state.lock().unwrap().1
    }
}

/// What the test says of loading and running.
struct Script {
    /// Every load passes here.
    loading: Gate,
    /// Every run passes here.
    running: Gate,
    loads: Mutex<Vec<String>>,
    monitor: Arc<Monitor>,
}

impl Script {
    fn loads(&self) -> Vec<String> {
        self.loads.lock().unwrap().clone()
    }
}

/// Three models: `bad`, which never loads; `echo` in two versions; `other`.
struct Shelf;

impl Source for Shelf {
    fn place(&self) -> &str {
        "shelf"
    }

    fn look(&self) -> Result<Scan, SourceError> {
        let all = [("bad", &[1][..]), ("echo", &[1, 2]), ("other", &[1])];
        let models = all.map(|(name, versions)| folder(name, versions)).into();
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
        bytes: MEMORY / 2,
        changed: None,
    };
    ModelFolder {
        name: ModelName::new(name).unwrap(),
        path: name.into(),
        manifest: ModelManifest {
            versions: outhaul_types::VersionPolicy::All,
            ..ModelManifest::default()
        },
        beside: Identity::default(),
        versions: versions.iter().map(artefact).collect(),
    }
}

struct AsTold(Arc<Script>);

impl Loader for AsTold {
    type Contract = ();
    type Prepared = VersionPlan;
    type Served = ServedVersion;

    fn load(&self, order: &LoadOrder<()>) -> Result<Loaded<VersionPlan>, LoadFailure> {
        let script = &self.0;
        script.loads.lock().unwrap().push(format!("{}/{}", order.name, order.version));
        script.loading.pass();
        if order.name.as_str() == "bad" {
            return Err(LoadFailure::Failed("its file is damaged".to_owned()));
        }
        Ok(Loaded { prepared: plan(order, Arc::clone(script)), memory: MEMORY })
    }

    fn start(&self, prepared: VersionPlan) -> Result<ServedVersion, LoadFailure> {
        let served = ServedVersion::start(prepared, &self.0.monitor);
        served.map_err(|error| LoadFailure::Failed(error.to_string()))
    }

    fn contract(&self, _: &ServedVersion) {}

    fn forget(&self, _: &ModelName, _: ModelVersion) {}
}

fn plan(order: &LoadOrder<()>, script: Arc<Script>) -> VersionPlan {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(2)]),
        optional: false,
    };
    let signature = ModelSignature { inputs: vec![spec("x")], outputs: vec![spec("y")] };
    let manifest = ModelManifest::clone(&order.manifest);
    VersionPlan {
        name: order.name.clone(),
        version: order.version,
        declared: Declared::apply(&signature, &manifest).unwrap(),
        signature,
        rows: RowIndependence::NoBatch { reason: "it is a script".into() },
        cost_follows_size: false,
        transform: None,
        sample: None,
        manifest,
        model: Arc::new(Echo(script)),
        engine_reason: String::new(),
        cores: NonZeroUsize::MIN,
        cache: Default::default(),
    }
}

#[derive(Clone)]
struct Echo(Arc<Script>);

impl LoadedModel for Echo {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Echo {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        self.0.running.pass();
        Ok(inputs.iter().flatten().cloned().collect())
    }
}

/// A router whose models sleep. Gates are opened when it goes: threads wait at them.
struct Sleeping {
    router: Arc<Router>,
    catalog: Arc<Catalog<Served>>,
    script: Arc<Script>,
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.script.loading.set(true);
        self.script.running.set(true);
    }
}

impl Sleeping {
    fn new(config: RepositoryConfig) -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let script = Arc::new(Script {
            loading: Gate::default(),
            running: Gate::default(),
            loads: Mutex::default(),
            monitor: Arc::clone(&monitor),
        });
        script.running.set(true);
        let parts = Parts {
            sources: vec![Arc::new(Shelf) as Arc<dyn Source>],
            loader: Arc::new(AsTold(Arc::clone(&script))),
            catalog: Arc::clone(&catalog),
            journal: Journal::forgetful(),
            metrics: monitor.loading(),
            runtime: None,
        };
        let repository = start(config, parts).unwrap();
        let router = Router::new(Arc::clone(&catalog), monitor).with_repository(repository);
        let router = Arc::new(router);
        assert!(router.repository().unwrap().settle(PATIENCE));
        assert!(router.models().iter().all(|version| version.standing == Standing::Dormant));
        Sleeping { router, catalog, script }
    }

    /// Asks in a task of its own, so that it goes on while the test does.
    fn ask(&self, model: &str, limit: Duration) -> tokio::task::JoinHandle<Answer> {
        self.ask_version(model, VersionChoice::Latest, limit)
    }

    fn ask_version(
        &self,
        model: &str,
        version: VersionChoice,
        limit: Duration,
    ) -> tokio::task::JoinHandle<Answer> {
        let router = Arc::clone(&self.router);
        let tensor = Tensor::from_vec([1, 2], vec![1_f32, 2.0]).unwrap();
        let input = NamedTensor { name: "x".into(), tensor };
        let request = InferRequest { version, ..InferRequest::new(model, [input]) };
        let deadline = Deadline::after(Instant::now(), limit);
        tokio::spawn(async move {
            let context = RequestContext { deadline, ..RequestContext::default() };
            router.infer(request, &context).await
        })
    }

    fn standing(&self, model: &str, version: u64) -> Standing {
        let versions = self.router.models();
        let mut of_model = versions.into_iter().filter(|status| status.name.as_str() == model);
        of_model.find(|status| status.version.0 == version).unwrap().standing
    }
}

type Answer = Result<InferResponse, RouterError>;

fn config() -> RepositoryConfig {
    RepositoryConfig {
        mode: Mode::Poll,
        settle: Duration::ZERO,
        memory_budget: Some(MEMORY * 8),
        min_residency: Duration::ZERO,
        // Nothing is tried again while a test lasts, unless it says so.
        backoff: (Duration::from_secs(3600), Duration::from_secs(3600)),
        ..RepositoryConfig::default()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn one_load_serves_all_who_wait_and_each_has_its_own_deadline() {
    let sleeping = Sleeping::new(config());
    let patient: Vec<_> = (0..16).map(|_| sleeping.ask("other", PATIENCE)).collect();
    eventually("it is being loaded", || sleeping.script.loading.passes() == 1).await;
    let hasty = sleeping.ask("other", Duration::from_millis(20)).await.unwrap().unwrap_err();
    assert_eq!(hasty.kind(), ErrorKind::DeadlineExceeded, "{hasty}");
    assert!(hasty.client_message().contains("was not loaded before"), "{hasty}");
    let late = sleeping.ask("other", Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
    sleeping.script.loading.set(true);
    for asked in patient {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!(answer.output("y").unwrap().as_slice::<f32>(), Some(&[1.0, 2.0][..]));
    }
    assert_eq!(sleeping.script.loads(), ["other/1"], "once for all of them");
    assert_eq!(sleeping.standing("echo", 1), Standing::Dormant, "nobody asked for it");
}

#[tokio::test]
async fn waiting_changes_nothing() {
    let sleeping = Sleeping::new(config());
    let waiting: Vec<_> = (0..4).map(|_| sleeping.ask("other", PATIENCE)).collect();
    eventually("it is being loaded", || sleeping.script.loading.passes() == 1).await;
    let mut last = sleeping.catalog.snapshot();
    eventually("nothing is published any more", || {
        let before = std::mem::replace(&mut last, sleeping.catalog.snapshot());
        // Long enough for who waits to be woken by a change and to ask anew.
        std::thread::park_timeout(Duration::from_millis(10));
        Arc::ptr_eq(&before, &last)
    })
    .await;
    sleeping.script.loading.set(true);
    for asked in waiting {
        assert!(asked.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn who_leaves_does_not_end_the_load_for_others() {
    let sleeping = Sleeping::new(config());
    let leaving = sleeping.ask("other", PATIENCE);
    eventually("it is being loaded", || sleeping.script.loading.passes() == 1).await;
    let staying = sleeping.ask("other", PATIENCE);
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    sleeping.script.loading.set(true);
    assert!(staying.await.unwrap().is_ok());
    assert_eq!(sleeping.script.loads(), ["other/1"]);
}

#[tokio::test]
async fn a_load_that_fails_is_told_to_all_who_wait_and_not_tried_at_once() {
    let sleeping = Sleeping::new(config());
    let waiting: Vec<_> = (0..8).map(|_| sleeping.ask("bad", PATIENCE)).collect();
    eventually("it is being loaded", || sleeping.script.loading.passes() == 1).await;
    sleeping.script.loading.set(true);
    for asked in waiting {
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
        assert!(error.client_message().contains("its file is damaged"), "{error}");
    }
    for _ in 0..20 {
        let error = sleeping.ask("bad", PATIENCE).await.unwrap().unwrap_err();
        assert!(error.client_message().contains("its file is damaged"), "{error}");
    }
    assert_eq!(sleeping.script.loads(), ["bad/1"], "it is left alone for a while");
    assert_eq!(sleeping.standing("bad", 1), Standing::Failed);
}

#[tokio::test]
async fn a_load_that_failed_is_tried_again_when_its_time_has_come_and_somebody_asks() {
    let backoff = (Duration::from_millis(30), Duration::from_millis(30));
    let sleeping = Sleeping::new(RepositoryConfig { backoff, ..config() });
    sleeping.script.loading.set(true);
    let error = sleeping.ask("bad", PATIENCE).await.unwrap().unwrap_err();
    assert!(error.client_message().contains("its file is damaged"), "{error}");
    eventually("it may be tried again", || sleeping.standing("bad", 1) == Standing::Dormant).await;
    assert_eq!(sleeping.script.loads().len(), 1, "nobody asked");
    let error = sleeping.ask("bad", PATIENCE).await.unwrap().unwrap_err();
    assert!(error.client_message().contains("its file is damaged"), "{error}");
    assert_eq!(sleeping.script.loads(), ["bad/1"; 2]);
}

#[tokio::test]
async fn a_description_loads_what_it_describes() {
    let sleeping = Sleeping::new(config());
    let latest = VersionChoice::Latest;
    assert!(sleeping.router.readiness("other", &latest).is_ok(), "it would answer");
    assert!(sleeping.script.loads().is_empty(), "to ask that loads nothing");
    let soon = Deadline::after(Instant::now(), Duration::from_millis(20));
    let late = sleeping.router.describe("other", &latest, soon).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
    sleeping.script.loading.set(true);
    let described = sleeping.router.describe("other", &latest, None).await.unwrap();
    assert_eq!(described.signature.inputs[0].name, "x");
    let bad = sleeping.router.describe("bad", &latest, None).await.unwrap_err();
    assert!(bad.client_message().contains("its file is damaged"), "{bad}");
    assert_eq!(sleeping.script.loads(), ["other/1", "bad/1"]);
}

#[tokio::test]
async fn the_version_that_is_asked_for_is_loaded_and_no_other() {
    let sleeping = Sleeping::new(config());
    sleeping.script.loading.set(true);
    let exact = |number| VersionChoice::Exact(ModelVersion(number));
    let answer = sleeping.ask_version("echo", exact(1), PATIENCE).await.unwrap().unwrap();
    assert_eq!(answer.version, ModelVersion(1));
    assert_eq!(sleeping.script.loads(), ["echo/1"]);
    let answer = sleeping.ask("echo", PATIENCE).await.unwrap().unwrap();
    assert_eq!(answer.version, ModelVersion(2), "the newest is meant, although an older answers");
    let unknown = sleeping.ask_version("echo", exact(3), PATIENCE).await.unwrap().unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
    assert_eq!(sleeping.script.loads(), ["echo/1", "echo/2"]);
}

#[tokio::test]
async fn a_request_in_flight_is_finished_though_its_model_is_evicted() {
    let memory_budget = Some(ROOM_FOR_ONE);
    let sleeping = Sleeping::new(RepositoryConfig { memory_budget, ..config() });
    sleeping.script.loading.set(true);
    sleeping.script.running.set(false);
    let slow = sleeping.ask("other", PATIENCE);
    eventually("it runs", || sleeping.script.running.passes() == 1).await;
    let next = sleeping.ask("echo", PATIENCE);
    eventually("it is evicted", || sleeping.standing("other", 1) == Standing::Dormant).await;
    eventually("the next runs", || sleeping.script.running.passes() == 2).await;
    assert!(!slow.is_finished());
    sleeping.script.running.set(true);
    assert_eq!(slow.await.unwrap().unwrap().model.as_str(), "other");
    assert_eq!(next.await.unwrap().unwrap().model.as_str(), "echo");
    // Whoever comes back is loaded anew.
    assert!(sleeping.ask("other", PATIENCE).await.unwrap().is_ok());
    assert_eq!(sleeping.script.loads(), ["other/1", "echo/2", "other/1"]);
}

#[tokio::test]
async fn models_that_take_turns_are_all_answered() {
    let memory_budget = Some(ROOM_FOR_ONE);
    let sleeping = Sleeping::new(RepositoryConfig { memory_budget, ..config() });
    sleeping.script.loading.set(true);
    let asked: Vec<_> = (0..60)
        .map(|number| sleeping.ask(if number % 2 == 0 { "echo" } else { "other" }, PATIENCE))
        .collect();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    let ready = |status: &outhaul_router::VersionStatus| status.standing == Standing::Ready;
    eventually("one of them is left", || {
        sleeping.router.models().into_iter().filter(ready).count() == 1
    })
    .await;
}
