//! Shadows through `Router::infer`: scripted models behind a real router, whose copies run as they do in service.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::ShadowCounts;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{Catalog, Resident, VersionState};
use outhaul_router::{
    Declared, Machine, RouteTable, Router, RouterError, ServedVersion, Shadowing, VersionPlan,
};
use outhaul_types::{
    BoundInputs, Comparison, DataType, Destination, Dimension, InferRequest, InferResponse,
    LevelSpec, ModelManifest, ModelName, ModelSignature, ModelVersion, NamedTensor, RequestContext,
    RouteSpec, ShadowSpec, ShapePattern, TargetSpec, Tensor, TensorSpec, Tensors,
};

/// What a version does with `x`.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    /// `y = x`.
    Echo,
    /// `y = x`, but one more where `x` is a multiple of four.
    OftenRight,
    Fail,
    Panic,
    /// `y = x`, once the gate is open.
    Wait,
    /// `y = x`, of a model that declares two levels of priority.
    Strict,
}

/// Holds whoever passes until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[derive(Clone)]
struct Scripted {
    deed: Deed,
    gate: Arc<Gate>,
    runs: Arc<AtomicUsize>,
}

impl LoadedModel for Scripted {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Scripted {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let x = inputs[0].as_ref().unwrap().elements_of::<f32>().unwrap().to_vec();
        let y = match self.deed {
            Deed::Fail => {
                return Err(RunError::Failed { engine: "scripted", reason: "so it says".into() });
            }
            Deed::Panic => panic!("so the script says"),
            Deed::OftenRight if x[0] % 4.0 == 0.0 => vec![x[0] + 1.0],
            Deed::Wait => {
                self.gate.pass();
                x
            }
            Deed::Echo | Deed::OftenRight | Deed::Strict => x,
        };
        Ok(Tensors::from_iter([Tensor::from_vec([1, 1], y).unwrap()]))
    }
}

/// The router's versions are those of the model `m`, from 1 on; `other` is one more model, which echoes.
struct Fixture {
    router: Arc<Router>,
    gate: Arc<Gate>,
    runs: Vec<Arc<AtomicUsize>>,
}

impl Fixture {
    fn new(deeds: &[Deed], machine: Machine) -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let gate = Arc::new(Gate::default());
        let named = deeds.iter().zip(1..).map(|(deed, version)| ("m", version, *deed));
        let mut runs = Vec::new();
        for (name, version, deed) in named.chain([("other", 1, Deed::Echo)]) {
            let model = Scripted { deed, gate: Arc::clone(&gate), runs: Arc::default() };
            runs.push(Arc::clone(&model.runs));
            let plan = plan(name, version, model);
            let (name, version) = (plan.name.clone(), plan.version);
            let served = ServedVersion::start(plan, &monitor).unwrap();
            let served = Arc::new(Resident::unattended(served));
            catalog.publish([(name, version, Some(VersionState::Ready(served)))]);
        }
        let router = Router::new(catalog, monitor).with_machine(machine).shared();
        Fixture { router, gate, runs }
    }

    /// A machine with cores for everybody.
    fn roomy(deeds: &[Deed]) -> Self {
        Fixture::new(deeds, Machine::alone(NonZeroUsize::new(1000).unwrap()))
    }

    fn route(&self, routes: impl IntoIterator<Item = (&'static str, RouteSpec)>) {
        let name = |name: &str| ModelName::new(name).unwrap();
        let routes: BTreeMap<_, _> =
            routes.into_iter().map(|(route, spec)| (name(route), spec)).collect();
        routes.values().for_each(|route| route.check().unwrap());
        let before = self.router.routes();
        let traffic = self.router.monitor().traffic();
        let table = RouteTable::build(before.generation() + 1, &routes, &before, traffic);
        self.router.set_routes(Arc::new(table));
    }

    async fn ask(&self, x: f32) -> Result<InferResponse, RouterError> {
        let id = format!("request-{x}").as_str().into();
        let context = RequestContext { id, ..RequestContext::default() };
        self.router.infer(request("m", x), &context).await
    }

    fn shadowing(&self) -> Arc<Shadowing> {
        Arc::clone(self.router.routes().route("m").unwrap().shadow().unwrap())
    }

    /// What became of the copies, once all have ended.
    async fn counts(&self) -> ShadowCounts {
        let shadowing = self.shadowing();
        shadowing.settled().await;
        shadowing.metrics().counts()
    }

    fn runs(&self, index: usize) -> usize {
        self.runs[index].load(Ordering::Relaxed)
    }
}

fn plan(name: &str, version: u64, model: Scripted) -> VersionPlan {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(1)]),
        optional: false,
    };
    let signature = ModelSignature { inputs: vec![spec("x")], outputs: vec![spec("y")] };
    let mut manifest = ModelManifest::default();
    if model.deed == Deed::Strict {
        manifest.queue.levels = vec![LevelSpec::default(); 2];
    }
    VersionPlan {
        name: ModelName::new(name).unwrap(),
        version: ModelVersion(version),
        declared: Declared::apply(&signature, &manifest).unwrap(),
        signature,
        transform: None,
        sample: None,
        rows: RowIndependence::NoBatch { reason: "it is a script".into() },
        cost_follows_size: false,
        manifest,
        model: Arc::new(model),
        engine_reason: String::new(),
        cores: NonZeroUsize::new(2).unwrap(),
        cache: Default::default(),
    }
}

fn request(model: &str, x: f32) -> InferRequest {
    let tensor = Tensor::from_vec([1, 1], vec![x]).unwrap();
    InferRequest::new(model, [NamedTensor { name: "x".into(), tensor }])
}

fn to(destination: &str) -> Destination {
    destination.parse().unwrap()
}

/// A route to version 1 with a shadow.
fn shadowed(shadow: ShadowSpec) -> RouteSpec {
    RouteSpec { shadow: Some(shadow), ..RouteSpec::to(to("m@1")) }
}

fn all_to(destination: &str) -> ShadowSpec {
    ShadowSpec { max_in_flight: 1000, ..ShadowSpec::to(to(destination)) }
}

fn y(answer: &InferResponse) -> f32 {
    answer.output("y").unwrap().as_slice::<f32>().unwrap()[0]
}

fn counts(compared: u64, disagreed: u64, failed: u64, shed: u64) -> ShadowCounts {
    ShadowCounts { compared, disagreed, failed, shed }
}

#[tokio::test]
async fn answers_are_the_primarys_and_copies_are_compared() {
    let fixture = Fixture::roomy(&[Deed::Echo, Deed::OftenRight]);
    let tolerance = Comparison::Tolerance { absolute: 0.5, relative: 0.0 };
    let shadow = ShadowSpec { compare: Some(tolerance), examples: 2, ..all_to("m@2") };
    fixture.route([("m", shadowed(shadow))]);
    for x in 0..20 {
        let answer = fixture.ask(x as f32).await.unwrap();
        assert_eq!((y(&answer), answer.version), (x as f32, ModelVersion(1)), "request {x}");
        fixture.shadowing().settled().await;
    }
    assert_eq!(fixture.counts().await, counts(20, 5, 0, 0));
    assert_eq!((fixture.runs(0), fixture.runs(1)), (20, 20));
    let report = fixture.shadowing().report();
    assert_eq!((report.disagreement, report.in_flight), (Some(0.25), 0));
    let [first, second] = &report.examples[..] else { panic!("{:?}", report.examples) };
    assert_eq!((first.request.as_str(), second.request.as_str()), ("request-16", "request-12"));
    assert_eq!(
        (first.distance, first.note.as_str()),
        (2.0, "'y': element 0 is 16, the shadow's 17")
    );
    assert_eq!(first.inputs, "x FP32 [1,1]: 16");
    assert_eq!((first.primary_by.as_str(), first.primary.as_str()), ("m@1", "y FP32 [1,1]: 16"));
    assert_eq!((first.shadow_by.as_str(), first.shadow.as_str()), ("m@2", "y FP32 [1,1]: 17"));
}

#[tokio::test]
async fn a_share_is_copied() {
    let fixture = Fixture::roomy(&[Deed::Echo, Deed::Echo]);
    fixture.route([("m", shadowed(ShadowSpec { share: 0.25, ..all_to("m@2") }))]);
    for x in 0..400 {
        fixture.ask(x as f32).await.unwrap();
    }
    let found = fixture.counts().await;
    let copied = found.compared + found.failed + found.shed;
    assert!((95..=105).contains(&copied), "{found:?}");
}

#[tokio::test]
async fn copies_beyond_the_limit_are_shed_and_nobody_waits_for_a_slow_shadow() {
    let fixture = Fixture::roomy(&[Deed::Echo, Deed::Wait]);
    fixture.route([("m", shadowed(ShadowSpec::to(to("m@2"))))]);
    for x in 0..10 {
        assert_eq!(y(&fixture.ask(x as f32).await.unwrap()), x as f32, "while two copies wait");
    }
    assert_eq!(fixture.shadowing().report().in_flight, 2);
    assert_eq!(fixture.shadowing().metrics().counts(), counts(0, 0, 0, 8));
    fixture.gate.open();
    assert_eq!(fixture.counts().await, counts(2, 0, 0, 8));
    fixture.ask(10.0).await.unwrap();
    assert_eq!(fixture.counts().await, counts(3, 0, 0, 8), "the places are free again");
}

#[tokio::test]
async fn without_a_free_core_copies_only_trickle() {
    let fixture =
        Fixture::new(&[Deed::Echo, Deed::Echo, Deed::Wait], Machine::alone(NonZeroUsize::MIN));
    fixture.route([("m", shadowed(ShadowSpec::to(to("m@2"))))]);
    let slow = InferRequest {
        version: outhaul_types::VersionChoice::Exact(ModelVersion(3)),
        ..request("m", 0.0)
    };
    let context = RequestContext::default();
    let mut slow = std::pin::pin!(fixture.router.infer(slow, &context));
    let answered = async {
        for x in 0..5 {
            fixture.ask(x as f32).await.unwrap();
        }
        // The first has its turn; the next waits a tenth of a second for its own and keeps its place meanwhile.
        let trickled = fixture.counts().await;
        assert!((1..=3).contains(&trickled.compared), "{trickled:?}");
        assert_eq!(trickled.compared + trickled.shed, 5, "{trickled:?}");
        trickled
    };
    let trickled = tokio::select! {
        biased;
        _ = &mut slow => panic!("the gate is closed"),
        trickled = answered => trickled,
    };
    assert_eq!(fixture.runs(1) as u64, trickled.compared, "the others were not run");
    fixture.gate.open();
    slow.await.unwrap();
    // The one request that is under way has a core; a moment after it, so has its copy.
    fixture.ask(5.0).await.unwrap();
    assert_eq!(fixture.counts().await.compared, trickled.compared + 1);
}

#[tokio::test]
async fn a_shadow_that_gives_no_answer_hurts_nobody() {
    for (deed, reason) in
        [(Deed::Fail, "so it says"), (Deed::Panic, "crashed"), (Deed::Wait, "deadline")]
    {
        let fixture = Fixture::roomy(&[Deed::Echo, deed]);
        fixture.route([("m", shadowed(all_to("m@2")))]);
        for x in 0..3 {
            assert_eq!(y(&fixture.ask(x as f32).await.unwrap()), x as f32, "{reason}");
        }
        assert_eq!(fixture.counts().await, counts(0, 0, 3, 0), "{reason}");
        let last = fixture.shadowing().report().last_failure.unwrap();
        assert!(last.contains(reason) || last.contains("no answer within"), "{last}");
        assert_eq!(fixture.shadowing().report().examples, [], "{reason}");
        fixture.gate.open();
    }
}

#[tokio::test]
async fn what_is_not_there_to_compare_is_not_copied() {
    let fixture = Fixture::roomy(&[Deed::Fail, Deed::Echo]);
    let target = |to, weight| TargetSpec { to, weight };
    let only_to = |version: &str| RouteSpec {
        targets: vec![target(to("m@1"), 0.0), target(to(version), 1.0)],
        ..shadowed(all_to("m@2"))
    };
    fixture.route([("m", shadowed(all_to("m@2")))]);
    fixture.ask(1.0).await.unwrap_err();
    assert_eq!(fixture.counts().await, counts(0, 0, 0, 0), "the primary failed");
    fixture.route([("m", only_to("m@2"))]);
    fixture.ask(1.0).await.unwrap();
    assert_eq!(fixture.counts().await, counts(0, 0, 0, 0), "it would agree with itself");
    fixture.route([("m", only_to("other"))]);
    fixture.ask(1.0).await.unwrap();
    assert_eq!(fixture.counts().await, counts(1, 0, 0, 0));
}

#[tokio::test]
async fn a_copy_is_neither_copied_nor_counted_for_a_variant_nor_remembered() {
    let fixture = Fixture::roomy(&[Deed::Echo, Deed::Echo]);
    let told = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    fixture.router.on_predicted(Box::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let feedback = |shadow: &str, destination: &str| RouteSpec {
        feedback: true,
        shadow: Some(all_to(shadow)),
        ..RouteSpec::to(to(destination))
    };
    // The shadow's name is a route too, with a shadow of its own.
    fixture.route([("m", feedback("other", "m@1")), ("other", feedback("m@2", "other@1"))]);
    fixture.ask(1.0).await.unwrap();
    assert_eq!(fixture.counts().await, counts(1, 0, 0, 0));
    let table = fixture.router.routes();
    let other = table.route("other").unwrap();
    let judged = |route: &str| table.route(route).unwrap().variants()[0].metrics.counts().judged();
    assert_eq!(other.shadow().unwrap().metrics().counts(), counts(0, 0, 0, 0));
    assert_eq!((judged("m"), judged("other")), (1, 0));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    // So it is where a copy comes to a route by way of a pipeline.
    let context = RequestContext { shadow: true, depth: 1, ..RequestContext::default() };
    fixture.router.infer(request("other", 1.0), &context).await.unwrap();
    other.shadow().unwrap().settled().await;
    assert_eq!(other.shadow().unwrap().metrics().counts(), counts(0, 0, 0, 0));
    assert_eq!((judged("other"), told.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(fixture.runs(1), 0, "version 2 was never asked");
}

#[tokio::test]
async fn what_a_request_asks_of_its_queue_does_not_bind_its_copy() {
    let fixture = Fixture::roomy(&[Deed::Echo, Deed::Strict]);
    fixture.route([("m", shadowed(all_to("m@2")))]);
    let mut third = request("m", 1.0);
    third.parameters.insert("priority".into(), outhaul_types::Parameter::Int(3));
    let strict = InferRequest {
        version: outhaul_types::VersionChoice::Exact(ModelVersion(2)),
        ..third.clone()
    };
    let context = RequestContext::default();
    fixture.router.infer(strict, &context).await.expect_err("it has no such level");
    fixture.router.infer(third, &context).await.unwrap();
    assert_eq!(fixture.counts().await, counts(1, 0, 0, 0));
}

#[tokio::test]
async fn a_change_of_the_split_keeps_what_was_found() {
    let fixture = Fixture::roomy(&[Deed::Echo, Deed::OftenRight]);
    let split = |weight, shadow| RouteSpec {
        targets: vec![
            TargetSpec { to: to("m@1"), weight: 1.0 },
            TargetSpec { to: to("m@2"), weight },
        ],
        ..shadowed(shadow)
    };
    fixture.route([("m", split(0.0, all_to("m@2")))]);
    fixture.ask(4.0).await.unwrap();
    assert_eq!(fixture.counts().await, counts(1, 1, 0, 0));
    fixture.route([("m", split(0.1, all_to("m@2")))]);
    assert_eq!(fixture.shadowing().report().examples.len(), 1);
    let other = ShadowSpec { examples: 0, ..all_to("m@2") };
    fixture.route([("m", split(0.1, other))]);
    assert_eq!(fixture.shadowing().report().examples, []);
    assert_eq!(fixture.counts().await, counts(1, 1, 0, 0), "counts go on");
}

#[tokio::test]
async fn a_router_that_nobody_shared_sheds_its_copies() {
    let monitor = Arc::new(Monitor::new());
    let catalog = Arc::new(Catalog::new());
    let model = Scripted { deed: Deed::Echo, gate: Arc::default(), runs: Arc::default() };
    let served = ServedVersion::start(plan("m", 1, model), &monitor).unwrap();
    let served = VersionState::Ready(Arc::new(Resident::unattended(served)));
    catalog.publish([(ModelName::new("m").unwrap(), ModelVersion(1), Some(served))]);
    let router = Router::new(catalog, Arc::clone(&monitor));
    let routes = [(ModelName::new("m").unwrap(), shadowed(all_to("m@2")))].into();
    let table = RouteTable::build(1, &routes, &RouteTable::default(), monitor.traffic());
    router.set_routes(Arc::new(table));
    router.infer(request("m", 1.0), &RequestContext::default()).await.unwrap();
    let table = router.routes();
    let shadowing = table.route("m").unwrap().shadow().unwrap();
    shadowing.settled().await;
    assert_eq!(shadowing.metrics().counts(), counts(0, 0, 0, 1));
}
