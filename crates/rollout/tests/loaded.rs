//! Routes and roll-outs over a real repository: versions are in memory before requests are led to them, and
//! as long as they may be.

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
    RepositoryConfig, Scan, Source, SourceError, VersionArtefact,
};
use outhaul_rollout::plan::Command;
use outhaul_rollout::traffic::{Traffic, TrafficConfig, TrafficError};
use outhaul_rollout::world::{Phase, RolloutSpec};
use outhaul_router::{CacheSupport, Declared, Router, ServedVersion, Standing, VersionPlan};
use outhaul_state::Store;
use outhaul_types::{
    BoundInputs, DataType, Destination, Dimension, InferRequest, ModelManifest, ModelName,
    ModelSignature, ModelVersion, NamedTensor, RequestContext, RouteSpec, ShapePattern, Tensor,
    TensorSpec, Tensors,
};

/// How long a test waits for what is to happen before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a version stays that no route leads to.
const LINGER: Duration = Duration::from_millis(50);

/// One model in four versions, of which only the newest is served by itself; the fourth does not load.
struct Shelf;

impl Source for Shelf {
    fn place(&self) -> &str {
        "shelf"
    }

    fn look(&self) -> Result<Scan, SourceError> {
        let artefact = |version: u64| VersionArtefact {
            version: ModelVersion(version),
            path: PathBuf::from(format!("reviews/{version}/model.onnx")),
            identity: Identity::new(&version.to_string()),
            bytes: 1,
            changed: None,
        };
        let model = ModelFolder {
            name: name(),
            path: "reviews".into(),
            manifest: ModelManifest::default(),
            beside: Identity::default(),
            versions: [1, 2, 3, 4].map(artefact).into(),
        };
        Ok(Scan { models: vec![model], ..Scan::default() })
    }

    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        Ok(artefact.path.clone())
    }

    fn folder(&self) -> Option<&Path> {
        None
    }
}

/// Holds the loads of version 2 until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

struct Loading {
    gate: Arc<Gate>,
    monitor: Arc<Monitor>,
}

impl Loader for Loading {
    type Contract = ();
    type Prepared = VersionPlan;
    type Served = ServedVersion;

    fn load(&self, order: &LoadOrder<()>) -> Result<Loaded<VersionPlan>, LoadFailure> {
        match order.version {
            ModelVersion(2) => self.gate.pass(),
            ModelVersion(4) => return Err(LoadFailure::Failed("its file is damaged".to_owned())),
            _ => {}
        }
        Ok(Loaded { prepared: plan(order), memory: 1 })
    }

    fn start(&self, prepared: VersionPlan) -> Result<ServedVersion, LoadFailure> {
        let served = ServedVersion::start(prepared, &self.monitor);
        served.map_err(|error| LoadFailure::Failed(error.to_string()))
    }

    fn contract(&self, _: &ServedVersion) {}

    fn forget(&self, _: &ModelName, _: ModelVersion) {}
}

fn plan(order: &LoadOrder<()>) -> VersionPlan {
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
        model: Arc::new(Echo),
        cache: CacheSupport::default(),
        engine_reason: String::new(),
        cores: NonZeroUsize::MIN,
    }
}

#[derive(Clone)]
struct Echo;

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
        Ok(inputs.iter().flatten().cloned().collect())
    }
}

struct Running {
    router: Arc<Router>,
    traffic: Arc<Traffic>,
    gate: Arc<Gate>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gate.open();
    }
}

fn name() -> ModelName {
    ModelName::new("reviews").unwrap()
}

fn to(version: u64) -> Destination {
    format!("reviews@{version}").parse().unwrap()
}

impl Running {
    async fn start() -> Self {
        Running::start_on(None, PATIENCE).await
    }

    /// `warm` is how long a route waits for what it names.
    async fn start_on(store: Option<Store>, warm: Duration) -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let gate = Arc::new(Gate::default());
        let config = RepositoryConfig {
            mode: Mode::Once,
            settle: Duration::ZERO,
            // Nothing is tried again while a test lasts.
            backoff: (Duration::from_secs(3600), Duration::from_secs(3600)),
            ..RepositoryConfig::default()
        };
        let parts = Parts {
            sources: vec![Arc::new(Shelf) as Arc<dyn Source>],
            loader: Arc::new(Loading { gate: Arc::clone(&gate), monitor: Arc::clone(&monitor) }),
            catalog: Arc::clone(&catalog),
            journal: Journal::forgetful(),
            metrics: monitor.loading(),
            runtime: None,
        };
        let repository = outhaul_repository::start(config, parts).unwrap();
        let router = Router::new(catalog, monitor).with_repository(repository).shared();
        let ms = Duration::from_millis;
        let config = TrafficConfig {
            interval: ms(2),
            observe: ms(5),
            linger: LINGER,
            warm,
            // One process has one number, and there are several replicas in it.
            ..TrafficConfig::new(format!("{:p}", Arc::as_ptr(&gate)))
        };
        let traffic = Traffic::start(config, Arc::clone(&router), store).await.unwrap();
        let running = Running { router, traffic, gate };
        // The fourth fails, and the third stands in for it.
        running.eventually("the third answers", |running| running.is_ready(3)).await;
        running
    }

    fn is_ready(&self, version: u64) -> bool {
        let is_it = |status: &outhaul_router::VersionStatus| {
            status.version == ModelVersion(version) && status.standing == Standing::Ready
        };
        self.router.models().iter().any(is_it)
    }

    async fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// The version that answers a request.
    async fn answer(&self) -> u64 {
        let tensor = Tensor::from_vec([1, 2], vec![1_f32, 2.0]).unwrap();
        let input = NamedTensor { name: "x".into(), tensor };
        let request = InferRequest::new("reviews", [input]);
        let answer = self.router.infer(request, &RequestContext::default()).await;
        answer.unwrap().version.0
    }

    async fn command(&self, command: Command) -> Result<(), TrafficError> {
        self.traffic.command(command, "ann").await.map(drop)
    }

    fn phase(&self) -> Phase {
        self.traffic.world().rollouts[&name()].phase
    }

    /// Whether the world's route leads there, and whether requests are led there.
    fn leads_to(&self, version: u64) -> (bool, bool) {
        let (world, table) = (self.traffic.world(), self.router.routes());
        let is_it = |spec: &RouteSpec| spec.targets[0].to == to(version);
        let asked = world.routes.get(&name()).is_some_and(|record| is_it(&record.spec));
        (asked, table.route("reviews").is_some_and(|route| is_it(route.spec())))
    }
}

fn start(candidate: u64) -> Command {
    let spec = serde_json::json!({
        "to": to(candidate), "from": to(3), "steps": [100.0], "every": "1h", "guards": [],
    });
    let spec: RolloutSpec = serde_json::from_value(spec).unwrap();
    Command::Start { route: name(), spec, in_service: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_loaded_before_a_request_gets_it_and_the_one_before_stays() {
    let running = Running::start().await;
    running.command(start(2)).await.unwrap();
    for _ in 0..200 {
        assert_eq!(running.answer().await, 3, "the candidate is still being loaded");
        tokio::task::yield_now().await;
    }
    assert_eq!(running.phase(), Phase::Preparing);
    running.gate.open();
    running.eventually("it steps", |running| running.phase() == Phase::Stepping).await;
    assert_eq!(running.answer().await, 2);
    running.command(Command::Promote { route: name() }).await.unwrap();
    let promoted = Instant::now();
    running.eventually("it would have gone", |_| promoted.elapsed() > LINGER * 3).await;
    assert!(running.is_ready(3), "to go back takes no load");
    running.command(Command::Rollback { route: name() }).await.unwrap();
    assert_eq!(running.answer().await, 3);
    running.eventually("the candidate is let go", |running| !running.is_ready(2)).await;
    assert_eq!(running.answer().await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_does_not_load_changes_nothing() {
    let running = Running::start().await;
    running.command(start(4)).await.unwrap();
    running.eventually("it is taken back", |running| running.phase() == Phase::RolledBack).await;
    let told = running.traffic.journal(None, 1).await.unwrap();
    assert!(told[0].text.contains("its file is damaged"), "{told:?}");
    assert_eq!(running.answer().await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_set_once_what_it_leads_to_answers_and_not_otherwise() {
    let running = Running::start().await;
    let set = |version| Command::SetRoute { route: name(), spec: RouteSpec::to(to(version)) };
    running.command(set(1)).await.unwrap();
    assert_eq!(running.answer().await, 1, "it was loaded first");
    assert!(running.is_ready(3), "the newest stays for who asks for it");
    let refused = running.command(set(4)).await.unwrap_err();
    assert!(matches!(refused, TrafficError::NotReady { .. }), "{refused:?}");
    assert!(refused.to_string().contains("its file is damaged"), "{refused}");
    assert_eq!(running.answer().await, 1);
    running.command(Command::RemoveRoute { route: name() }).await.unwrap();
    assert_eq!(running.answer().await, 3);
    running.eventually("the first is let go", |running| !running.is_ready(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_routes_swing() {
    let running = Arc::new(Running::start().await);
    running.gate.open();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (asking, stopping) = (Arc::clone(&running), Arc::clone(&stop));
    let client = tokio::spawn(async move {
        let mut answered = 0_u64;
        while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
            asking.answer().await;
            answered += 1;
        }
        answered
    });
    for _ in 0..20 {
        running.command(start(2)).await.unwrap();
        running.eventually("it steps", |running| running.phase() == Phase::Stepping).await;
        running.command(Command::Promote { route: name() }).await.unwrap();
        running.command(Command::Rollback { route: name() }).await.unwrap();
        assert_eq!(running.answer().await, 3);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(client.await.unwrap() > 0);
}

fn set(version: u64) -> Command {
    Command::SetRoute { route: name(), spec: RouteSpec::to(to(version)) }
}

/// Two replicas on one store whose route leads to version 1, which both have in memory. The first one loads
/// version 2 at once; the second one waits for `warm` for what others name.
async fn two(folder: &Path, warm: Duration) -> [Running; 2] {
    let url = folder.join("state.db").display().to_string();
    let first = Running::start_on(Some(Store::open(&url).await.unwrap()), PATIENCE).await;
    let second = Running::start_on(Some(Store::open(&url).await.unwrap()), warm).await;
    first.gate.open();
    first.command(set(1)).await.unwrap();
    let is_led = |running: &Running| running.leads_to(1).1 && running.is_ready(1);
    second.eventually("the other replica is led to the first version", is_led).await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_another_replica_go_by_the_route_before_until_the_new_version_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(folder.path(), PATIENCE).await;
    first.command(set(2)).await.unwrap();
    assert_eq!(first.answer().await, 2);
    second.eventually("it knows of it", |running| running.leads_to(2).0).await;
    let (known, mut asked) = (Instant::now(), 0);
    while asked < 100 || known.elapsed() < LINGER * 3 {
        assert_eq!(second.answer().await, 1, "the second is still being loaded here");
        asked += 1;
        tokio::task::yield_now().await;
    }
    second.gate.open();
    while second.answer().await == 1 {
        assert!(known.elapsed() < PATIENCE, "never: it is led to the second");
        tokio::task::yield_now().await;
    }
    assert_eq!(second.leads_to(2), (true, true));
    second.eventually("the first is let go", |running| !running.is_ready(1)).await;
    assert_eq!(second.answer().await, 2);
    [first, second].iter().for_each(|running| running.gate.open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_does_not_come_is_waited_for_no_longer_than_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let warm = Duration::from_millis(300);
    let [first, second] = two(folder.path(), warm).await;
    let began = Instant::now();
    first.command(set(2)).await.unwrap();
    second.eventually("it goes by the new route", |running| running.leads_to(2).1).await;
    assert!(began.elapsed() >= warm, "{:?}", began.elapsed());
    assert!(!second.is_ready(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_waits_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(folder.path(), Duration::from_secs(3600)).await;
    first.command(set(2)).await.unwrap();
    second.eventually("it knows of it", |running| running.leads_to(2) == (true, false)).await;
    let spec = serde_json::json!({ "to": to(3), "steps": [100.0], "every": "1h", "guards": [] });
    let spec: RolloutSpec = serde_json::from_value(spec).unwrap();
    let start = Command::Start { route: name(), spec, in_service: None };
    first.command(start).await.unwrap();
    second.eventually("it goes by the step", |running| running.leads_to(3).1).await;
    first.command(Command::Rollback { route: name() }).await.unwrap();
    second.eventually("the candidate is gone", |running| running.leads_to(2) == (true, true)).await;
    assert!(!second.is_ready(2), "though what was before is not in memory here");
}
