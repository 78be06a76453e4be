//! Requests to models that keep answers, through `Router::infer`: scripted models that count their runs.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::poll;
use outhaul_cache::SharedStore;
use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::CacheMetrics;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{Catalog, Resident, VersionState};
use outhaul_router::{
    CacheSupport, Declared, Router, RouterError, Served, ServedVersion, StartError, VersionPlan,
};
use outhaul_transform::Transform;
use outhaul_types::{
    BoundInputs, CacheSpec, CacheStatus, CacheStore, Classify, DataType, Deadline, Dimension,
    ErrorKind, InferRequest, InferResponse, InputTransform, ModelManifest, ModelName,
    ModelSignature, ModelVersion, NamedTensor, Parameter, RequestContext, ShapePattern, Strings,
    Tensor, TensorSpec, Tensors, TextInput, TransformSpec, Truncation,
};

/// `y = factor * x`, in the type of `y`. It counts its runs, can be told to fail, and where it has a gate
/// each run waits for a word.
#[derive(Clone)]
struct Model(Arc<Script>);

struct Script {
    factor: f32,
    runs: AtomicUsize,
    fails: AtomicBool,
    gate: Option<Mutex<Receiver<()>>>,
}

impl Model {
    fn new(factor: f32) -> Self {
        let script = Script { factor, runs: 0.into(), fails: false.into(), gate: None };
        Model(Arc::new(script))
    }

    fn gated(factor: f32) -> (Self, Sender<()>) {
        let (open, gate) = channel();
        let gate = Some(Mutex::new(gate));
        (Model(Arc::new(Script { factor, runs: 0.into(), fails: false.into(), gate })), open)
    }

    fn runs(&self) -> usize {
        self.0.runs.load(Ordering::SeqCst)
    }
}

impl LoadedModel for Model {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Model {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        self.0.runs.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.0.gate {
            // An end of the test opens it too.
            let _ = gate.lock().unwrap().recv();
        }
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(RunError::Failed {
                engine: "scripted",
                reason: "as the script says".to_owned(),
            });
        }
        let given = inputs[0].as_ref().unwrap();
        let values: Vec<f32> = match given.elements_of::<f32>() {
            Some(values) => values.iter().map(|value| self.0.factor * value).collect(),
            None => given.elements_of::<i64>().unwrap().iter().map(|id| *id as f32).collect(),
        };
        Ok(Tensors::from_iter([Tensor::from_vec(given.shape().clone(), values).unwrap()]))
    }
}

fn spec(name: &str, data_type: DataType, columns: Dimension) -> TensorSpec {
    let shape = ShapePattern::ranked([Dimension::Any, columns]);
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

fn keeping(store: CacheStore) -> ModelManifest {
    let cache = CacheSpec { store, ..CacheSpec::default() };
    ModelManifest { cache: Some(cache), ..ModelManifest::default() }
}

fn plan(version: u64, manifest: ModelManifest, model: &Model) -> VersionPlan {
    let two = Dimension::Fixed(2);
    let (inputs, outputs) = match manifest.transform.input {
        None => (spec("x", DataType::Fp32, two.clone()), spec("y", DataType::Fp32, two)),
        Some(_) => (
            spec("input_ids", DataType::Int64, Dimension::Any),
            spec("y", DataType::Fp32, Dimension::Any),
        ),
    };
    let signature = ModelSignature { inputs: vec![inputs], outputs: vec![outputs] };
    let declared = Declared::apply(&signature, &manifest).unwrap();
    VersionPlan {
        name: ModelName::new("model").unwrap(),
        version: ModelVersion(version),
        transform: Transform::build(&manifest.transform, &declared.outer).unwrap(),
        declared,
        signature,
        rows: RowIndependence::Exact,
        cost_follows_size: false,
        sample: None,
        manifest,
        model: Arc::new(model.clone()),
        engine_reason: String::new(),
        cores: NonZeroUsize::MIN,
        cache: CacheSupport::default(),
    }
}

struct Fixture {
    router: Arc<Router>,
    catalog: Arc<Catalog<Served>>,
    metrics: Arc<CacheMetrics>,
    monitor: Arc<Monitor>,
}

impl Fixture {
    fn new() -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let router = Arc::new(Router::new(Arc::clone(&catalog), Arc::clone(&monitor)));
        let metrics = monitor.traffic().cache(&ModelName::new("model").unwrap());
        Fixture { router, catalog, metrics, monitor }
    }

    fn of(model: &Model) -> Self {
        let fixture = Fixture::new();
        fixture.serve(plan(1, keeping(CacheStore::Memory), model));
        fixture
    }

    fn serve(&self, plan: VersionPlan) {
        let (name, version) = (plan.name.clone(), plan.version);
        let served = ServedVersion::start(plan, &self.monitor).unwrap();
        let state = VersionState::Ready(Arc::new(Resident::unattended(served)));
        self.catalog.publish([(name, version, Some(state))]);
    }

    async fn ask(&self, values: [f32; 2]) -> Result<InferResponse, RouterError> {
        self.router.infer(request(values), &RequestContext::default()).await
    }

    /// Status and first number of the answer.
    async fn told(&self, values: [f32; 2]) -> (CacheStatus, f32) {
        told(&self.ask(values).await.unwrap())
    }
}

fn told(response: &InferResponse) -> (CacheStatus, f32) {
    (response.cache, response.output("y").unwrap().as_slice::<f32>().unwrap()[0])
}

fn request(values: [f32; 2]) -> InferRequest {
    let tensor = Tensor::from_vec([1, 2], values.to_vec()).unwrap();
    InferRequest::new("model", [NamedTensor { name: "x".into(), tensor }])
}

#[tokio::test]
async fn a_request_that_came_before_needs_no_model() {
    let model = Model::new(2.0);
    let fixture = Fixture::of(&model);
    let first = fixture.ask([1.0, 2.0]).await.unwrap();
    assert_eq!(told(&first), (CacheStatus::Miss, 2.0));
    assert!(!first.timings.compute.is_zero());
    let again = InferRequest { id: Some("7".into()), ..request([1.0, 2.0]) };
    let again = fixture.router.infer(again, &RequestContext::default()).await.unwrap();
    assert_eq!(told(&again), (CacheStatus::Hit, 2.0));
    assert_eq!(again.outputs, first.outputs);
    assert_eq!((again.id.as_deref(), first.id), (Some("7"), None), "each has its own id");
    assert_eq!((again.version, again.timings.compute), (ModelVersion(1), Duration::ZERO));
    assert_eq!(fixture.told([1.0, 3.0]).await, (CacheStatus::Miss, 2.0));
    assert_eq!(model.runs(), 2);
    let CacheMetrics { hits, misses, saved_ns, .. } = &*fixture.metrics;
    assert_eq!((hits.get(), misses.get()), (1, 2));
    let saved = Duration::from_nanos(saved_ns.get());
    assert_eq!(saved, first.timings.compute, "what the first one cost");
}

#[tokio::test]
async fn a_model_that_declares_no_cache_keeps_nothing() {
    let (model, fixture) = (Model::new(2.0), Fixture::new());
    fixture.serve(plan(1, ModelManifest::default(), &model));
    for _ in 0..2 {
        assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Off, 2.0));
    }
    assert_eq!(model.runs(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_equal_requests_run_the_model_once() {
    let (model, open) = Model::gated(2.0);
    let fixture = Fixture::of(&model);
    let begun = Arc::new(AtomicUsize::new(0));
    let one = |_| {
        let (router, begun) = (Arc::clone(&fixture.router), Arc::clone(&begun));
        tokio::spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            router.infer(request([1.0, 2.0]), &RequestContext::default()).await
        })
    };
    let all: Vec<_> = (0..1000).map(one).collect();
    while begun.load(Ordering::SeqCst) < 1000 {
        tokio::task::yield_now().await;
    }
    open.send(()).unwrap();
    let answers = join_all(all).await;
    let answers: Vec<_> =
        answers.into_iter().map(|answer| told(&answer.unwrap().unwrap())).collect();
    assert_eq!(model.runs(), 1);
    assert!(answers.iter().all(|(_, value)| *value == 2.0));
    let count = |of| answers.iter().filter(|(status, _)| *status == of).count();
    assert_eq!(count(CacheStatus::Miss), 1);
    assert_eq!(count(CacheStatus::Hit) + count(CacheStatus::Joined), 999);
    assert_eq!(fixture.metrics.misses.get(), 1);
    assert_eq!(fixture.metrics.hits.get() + fixture.metrics.joined.get(), 999);
}

#[tokio::test]
async fn a_caller_who_leaves_and_one_who_is_late_fail_nobody_else() {
    let (model, open) = Model::gated(2.0);
    let fixture = Fixture::of(&model);
    let context = RequestContext::default();
    let soon = Deadline::after(Instant::now(), Duration::from_millis(30));
    let hurried = RequestContext { deadline: soon, ..RequestContext::default() };
    let ask = |context| Box::pin(fixture.router.infer(request([1.0, 2.0]), context));
    let (mut leaves, mut late) = (ask(&context), ask(&hurried));
    let mut stays = ask(&context);
    for waits in [&mut leaves, &mut late, &mut stays] {
        assert!(poll!(waits).is_pending());
    }
    drop(leaves);
    assert_eq!(late.await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    // The parameter that Triton's clients send counts too.
    let mut asked = request([1.0, 2.0]);
    asked.parameters.insert("timeout".to_owned(), Parameter::Int(1000));
    let late = fixture.router.infer(asked, &context).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    open.send(()).unwrap();
    assert_eq!(told(&stays.await.unwrap()), (CacheStatus::Joined, 2.0));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Hit, 2.0));
    assert_eq!(model.runs(), 1, "the deadline of the first to come was not the run's");
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_not_kept() {
    let (model, open) = Model::gated(2.0);
    let fixture = Fixture::of(&model);
    model.0.fails.store(true, Ordering::SeqCst);
    let context = RequestContext::default();
    let ask = || Box::pin(fixture.router.infer(request([1.0, 2.0]), &context));
    let (mut first, mut second) = (ask(), ask());
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    open.send(()).unwrap();
    for answer in [first.await, second.await] {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EngineFailed);
        assert!(error.to_string().contains("as the script says"), "{error}");
    }
    assert_eq!(model.runs(), 1);
    model.0.fails.store(false, Ordering::SeqCst);
    open.send(()).unwrap();
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Miss, 2.0));
    // The caller's mistakes are no answers either.
    let context = RequestContext::default();
    for _ in 0..2 {
        let wrong = InferRequest::new("model", []);
        let error = fixture.router.infer(wrong, &context).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn a_fresh_answer_and_a_copy_for_a_shadow_use_no_kept_one() {
    let model = Model::new(2.0);
    let fixture = Fixture::of(&model);
    let ask = |context: RequestContext| {
        let fixture = &fixture;
        async move { told(&fixture.router.infer(request([1.0, 2.0]), &context).await.unwrap()) }
    };
    let shadow = RequestContext { shadow: true, ..RequestContext::default() };
    let fresh = RequestContext { no_cache: true, ..RequestContext::default() };
    assert_eq!(ask(shadow.clone()).await, (CacheStatus::Off, 2.0));
    assert_eq!(ask(fresh.clone()).await, (CacheStatus::Bypassed, 2.0));
    assert_eq!(model.runs(), 2);
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Hit, 2.0), "a fresh one is kept");
    assert_eq!(ask(shadow).await, (CacheStatus::Off, 2.0));
    assert_eq!(ask(fresh).await, (CacheStatus::Bypassed, 2.0));
    assert_eq!(model.runs(), 4);
    assert_eq!(fixture.metrics.bypassed.get(), 2);
}

#[tokio::test]
async fn another_version_never_answers_for_the_old_one() {
    let fixture = Fixture::of(&Model::new(2.0));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Miss, 2.0));
    // A newer version takes over.
    fixture.serve(plan(2, keeping(CacheStore::Memory), &Model::new(3.0)));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Miss, 3.0));
    assert_eq!(fixture.metrics.entries.load(Ordering::Relaxed), 2);
    // The same version has other content.
    fixture.serve(plan(2, keeping(CacheStore::Memory), &Model::new(4.0)));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Miss, 4.0));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Hit, 4.0));
    assert_eq!(fixture.metrics.entries.load(Ordering::Relaxed), 2, "what was kept went with it");
    let old = InferRequest {
        version: outhaul_types::VersionChoice::Exact(ModelVersion(1)),
        ..request([1.0, 2.0])
    };
    let old = fixture.router.infer(old, &RequestContext::default()).await.unwrap();
    assert_eq!(told(&old), (CacheStatus::Hit, 2.0), "versions side by side have their own");
}

#[tokio::test]
async fn a_version_replaced_while_it_computes_leaves_nothing_behind() {
    let (old, open) = Model::gated(2.0);
    let fixture = Fixture::of(&old);
    let context = RequestContext::default();
    let mut under_way = Box::pin(fixture.router.infer(request([1.0, 2.0]), &context));
    assert!(poll!(&mut under_way).is_pending());
    fixture.serve(plan(1, keeping(CacheStore::Memory), &Model::new(3.0)));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Miss, 3.0));
    open.send(()).unwrap();
    assert_eq!(told(&under_way.await.unwrap()), (CacheStatus::Miss, 2.0));
    assert_eq!(fixture.told([1.0, 2.0]).await, (CacheStatus::Hit, 3.0));
}

fn texts(texts: &[&str]) -> InferRequest {
    let tensor = Tensor::from_strings([texts.len()], texts.iter().collect::<Strings>()).unwrap();
    InferRequest::new("model", [NamedTensor { name: "text".into(), tensor }])
}

#[tokio::test]
async fn texts_of_the_same_tokens_share_a_run() {
    let tokenizer = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/text_models/tiny-embedder/tokenizer.json");
    let text = TextInput {
        tokenizer,
        max_tokens: None,
        truncation: Truncation::End,
        pairs: false,
        prefix: String::new(),
    };
    let transform = TransformSpec { input: Some(InputTransform::Text(text)), output: None };
    let manifest = ModelManifest { transform, ..keeping(CacheStore::Memory) };
    let (model, fixture) = (Model::new(1.0), Fixture::new());
    fixture.serve(plan(1, manifest, &model));
    let ask = |request, no_cache| {
        let context = RequestContext { no_cache, ..RequestContext::default() };
        let router = Arc::clone(&fixture.router);
        async move { router.infer(request, &context).await.unwrap() }
    };
    let first = ask(texts(&["a good film"]), false).await;
    assert_eq!(first.cache, CacheStatus::Miss);
    let again = ask(texts(&["a good film"]), false).await;
    assert_eq!((again.cache, again.timings.transform), (CacheStatus::Hit, Duration::ZERO));
    assert_eq!((again.tokens, &again.outputs), (first.tokens, &first.outputs));
    let spelled = ask(texts(&["  a   good  film "]), false).await;
    assert_eq!(spelled.cache, CacheStatus::Hit, "other bytes, the same tokens");
    assert_eq!((spelled.timings.compute, &spelled.outputs), (Duration::ZERO, &first.outputs));
    assert_eq!(model.runs(), 1);
    assert_eq!((fixture.metrics.hits.get(), fixture.metrics.misses.get()), (2, 1));
    // Its own tokens, sent as they are, are the same run too.
    let ids = first.output("y").unwrap().as_slice::<f32>().unwrap();
    let ids: Vec<i64> = ids.iter().map(|id| *id as i64).collect();
    let tensor = Tensor::from_vec([1, ids.len()], ids).unwrap();
    let inner = InferRequest::new("model", [NamedTensor { name: "input_ids".into(), tensor }]);
    assert_eq!(ask(inner, false).await.cache, CacheStatus::Hit);
    let fresh = ask(texts(&[" a good film"]), true).await;
    assert_eq!((fresh.cache, model.runs()), (CacheStatus::Bypassed, 2));
}

#[test]
fn a_cache_in_redis_needs_one() {
    for store in [CacheStore::Redis, CacheStore::Both] {
        let plan = plan(1, keeping(store), &Model::new(1.0));
        let error = ServedVersion::start(plan, &Monitor::new()).err().unwrap();
        assert!(matches!(error, StartError::NoCacheStore));
        assert!(error.to_string().contains("cache.redis (OUTHAUL_CACHE_REDIS"), "{error}");
    }
}

#[tokio::test]
async fn replicas_of_equal_content_share_answers() {
    let store = SharedStore::new("redis://127.0.0.1:6379").unwrap();
    if !store.connect().await {
        assert!(
            std::env::var_os("OUTHAUL_REQUIRE_CLIENTS").is_none(),
            "no Redis at 127.0.0.1:6379"
        );
        println!("skipped: no Redis at 127.0.0.1:6379");
        return;
    }
    // What this run leaves in Redis is its own.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_le_bytes();
    let content = |last: u8| {
        let mut digest = [last; 32];
        digest[..16].copy_from_slice(&now);
        Some(digest)
    };
    let manifest = || {
        let ttl = Some(Duration::from_secs(5));
        let cache = CacheSpec { ttl, store: CacheStore::Redis, ..CacheSpec::default() };
        ModelManifest { cache: Some(cache), ..ModelManifest::default() }
    };
    let replica = |factor: f32, digest| {
        let (model, fixture) = (Model::new(factor), Fixture::new());
        let plan = plan(1, manifest(), &model);
        let cache = CacheSupport { store: Some(store.clone()), digest };
        fixture.serve(VersionPlan { cache, ..plan });
        fixture
    };
    let one = replica(2.0, content(1));
    assert_eq!(one.told([1.0, 2.0]).await, (CacheStatus::Miss, 2.0));
    let begun = Instant::now();
    // It is stored beside the answer.
    while one.told([1.0, 2.0]).await.0 != CacheStatus::Hit {
        assert!(begun.elapsed() < Duration::from_secs(4), "it was never stored");
    }
    let equal = replica(3.0, content(1));
    assert_eq!(equal.told([1.0, 2.0]).await, (CacheStatus::Hit, 2.0));
    assert_eq!(equal.metrics.shared_hits.get(), 1);
    for digest in [content(2), None] {
        let other = replica(3.0, digest);
        assert_eq!(other.told([1.0, 2.0]).await, (CacheStatus::Miss, 3.0), "{digest:?}");
    }
}
