//! Fallbacks through `Router::infer`: real queues and instances, and a server of another process's kind on
//! loopback that goes away and comes back.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_protocol::DecodeLimits;
use outhaul_protocol::oip::{Target, decode_infer, encode_infer};
use outhaul_repository::{Catalog, ModelFacts, Resident, VersionState};
use outhaul_router::{
    Declared, RouteTable, Router, RouterError, Served, ServedVersion, VersionPlan,
};
use outhaul_types::{
    BoundInputs, CacheStatus, Classify, DataType, DefaultValue, Dimension, ErrorKind,
    FallbackCause, FallbackSpec, InferRequest, InferResponse, ModelManifest, ModelName,
    ModelSignature, ModelVersion, NamedTensor, Parameter, RequestContext, RequestedOutput,
    RouteSpec, ShapePattern, Strings, TargetSpec, Tensor, TensorSpec, Tensors, Timings,
    VersionChoice,
};

/// Gives `[name]` for each row, unless it is told to fail.
#[derive(Clone)]
struct Labels {
    name: &'static str,
    fails: Arc<AtomicBool>,
}

impl LoadedModel for Labels {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Labels {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(RunError::Failed { engine: "scripted", reason: "told to".to_owned() });
        }
        let rows = inputs[0].as_ref().unwrap().shape()[0];
        let labels: Strings = std::iter::repeat_n(self.name, rows).collect();
        Ok(Tensors::from_iter([Tensor::from_strings([rows, 1], labels).unwrap()]))
    }
}

fn signature() -> ModelSignature {
    let spec = |name: &str, data_type, columns| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(columns)]),
        optional: false,
    };
    let outputs = vec![spec("label", DataType::Bytes, 1)];
    ModelSignature { inputs: vec![spec("x", DataType::Fp32, 2)], outputs }
}

fn labels(name: &'static str) -> Labels {
    Labels { name, fails: Arc::default() }
}

fn plan(name: &str, version: u64, manifest: ModelManifest, model: Labels) -> VersionPlan {
    VersionPlan {
        name: ModelName::new(name).unwrap(),
        version: ModelVersion(version),
        declared: Declared::apply(&signature(), &manifest).unwrap(),
        signature: signature(),
        rows: RowIndependence::Exact,
        cost_follows_size: false,
        transform: None,
        sample: None,
        manifest,
        model: Arc::new(model),
        engine_reason: String::new(),
        cores: NonZeroUsize::MIN,
        cache: Default::default(),
    }
}

struct Fixture {
    router: Router,
    catalog: Arc<Catalog<Served>>,
    monitor: Arc<Monitor>,
}

impl Fixture {
    fn new() -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let router = Router::new(Arc::clone(&catalog), Arc::clone(&monitor));
        Fixture { router, catalog, monitor }
    }

    /// Adds a version whose label is `says`; what is returned makes it fail.
    fn serve(&self, name: &str, version: u64, says: &'static str) -> Arc<AtomicBool> {
        let model = labels(says);
        let fails = Arc::clone(&model.fails);
        let plan = plan(name, version, ModelManifest::default(), model);
        let (name, version) = (plan.name.clone(), plan.version);
        let served = ServedVersion::start(plan, &self.monitor).unwrap();
        let state = VersionState::Ready(Arc::new(Resident::unattended(served)));
        self.catalog.publish([(name, version, Some(state))]);
        fails
    }

    fn unserve(&self, name: &str, version: u64, state: VersionState<Served>) {
        let name = ModelName::new(name).unwrap();
        self.catalog.publish([(name, ModelVersion(version), Some(state))]);
    }

    /// Declares a fallback beside a model that is there.
    fn declare(&self, name: &str, fallback: FallbackSpec) {
        let name = ModelName::new(name).unwrap();
        let fallback = Some(Arc::new(fallback));
        self.catalog.update(|draft| {
            draft.set_facts(&name, ModelFacts { fallback, ..ModelFacts::default() })
        });
    }

    fn route(&self, name: &str, spec: RouteSpec) {
        spec.check().unwrap();
        let routes = BTreeMap::from([(ModelName::new(name).unwrap(), spec)]);
        let earlier = self.router.routes();
        let table = RouteTable::build(1, &routes, &earlier, self.monitor.traffic());
        self.router.set_routes(Arc::new(table));
    }

    async fn ask(&self, model: &str) -> Result<InferResponse, RouterError> {
        self.router.infer(request(model), &RequestContext::default()).await
    }

    /// The label, who gave it in place of the model, and why.
    async fn told(&self, model: &str) -> (String, Option<String>, Option<FallbackCause>) {
        let answer = self.ask(model).await.unwrap();
        let labels = answer.output("label").unwrap();
        assert_eq!(labels.shape()[..], [3, 1], "three rows were asked for");
        let label = labels.as_strings().unwrap().get(2).unwrap().to_vec();
        let via = answer.via.unwrap_or_default();
        let fallback = via.fallback.as_ref().map(ToString::to_string);
        (String::from_utf8(label).unwrap(), fallback, via.cause)
    }
}

fn request(model: &str) -> InferRequest {
    let tensor = Tensor::from_vec([3, 2], vec![0_f32; 6]).unwrap();
    InferRequest::new(model, [NamedTensor { name: "x".into(), tensor }])
}

fn fallback(to: &[&str], default: Option<&str>) -> FallbackSpec {
    let value = |text: &str| DefaultValue::One(Parameter::String(text.to_owned()));
    FallbackSpec {
        to: to.iter().map(|to| to.parse().unwrap()).collect(),
        default: default.map(|text| ("label".into(), value(text))).into_iter().collect(),
        ..FallbackSpec::default()
    }
}

fn by(label: &str, fallback: &str) -> (String, Option<String>, Option<FallbackCause>) {
    (label.to_owned(), Some(fallback.to_owned()), Some(FallbackCause::Error))
}

fn plainly(label: &str) -> (String, Option<String>, Option<FallbackCause>) {
    (label.to_owned(), None, None)
}

#[tokio::test]
async fn what_is_declared_beside_a_model_stands_in_for_it() {
    let fixture = Fixture::new();
    let big = fixture.serve("big", 1, "big");
    let small = fixture.serve("small", 1, "small");
    fixture.declare("big", fallback(&["small"], Some("neutral")));
    // It is one list: what stands beside the smaller one is not followed.
    fixture.declare("small", fallback(&["big"], None));
    assert_eq!(fixture.told("big").await, plainly("big"));
    big.store(true, Ordering::SeqCst);
    assert_eq!(fixture.told("big").await, by("small", "small"));
    small.store(true, Ordering::SeqCst);
    assert_eq!(fixture.told("big").await, by("neutral", "default"));
    let error = fixture.ask("small").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed, "each was asked once, and that was all");
    small.store(false, Ordering::SeqCst);
    fixture.unserve("big", 1, VersionState::Failed("its file is damaged".into()));
    assert_eq!(fixture.told("big").await, by("small", "small"), "it could not even be loaded");
}

#[tokio::test]
async fn what_the_caller_did_wrong_is_answered_as_ever() {
    let fixture = Fixture::new();
    fixture.serve("big", 1, "big");
    fixture.declare("big", fallback(&[], Some("neutral")));
    let ask = |request: InferRequest| async {
        let context = RequestContext::default();
        fixture.router.infer(request, &context).await.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(ask(InferRequest::new("big", [])).await, Err(ErrorKind::InvalidInput));
    let version = VersionChoice::Exact(ModelVersion(9));
    let other = InferRequest { version, ..request("big") };
    assert_eq!(ask(other).await, Err(ErrorKind::NotFound), "nobody ever had this version");
    let deep = RequestContext { depth: 9, ..RequestContext::default() };
    let error = fixture.router.infer(request("big"), &deep).await.unwrap_err();
    assert!(matches!(error, RouterError::TooDeep { .. }), "{error}");
}

#[tokio::test]
async fn an_open_circuit_gives_no_default_for_what_the_model_would_refuse() {
    let fixture = Fixture::new();
    let fails = fixture.serve("big", 1, "big");
    fixture.declare("big", fallback(&[], Some("neutral")));
    fails.store(true, Ordering::SeqCst);
    for _ in 0..40 {
        assert_eq!(fixture.told("big").await.0, "neutral");
    }
    let answer = fixture.ask("big").await.unwrap();
    assert_eq!(answer.via.unwrap().cause, Some(FallbackCause::OpenCircuit));
    let good = || Tensor::from_vec([3, 2], vec![0_f32; 6]).unwrap();
    let input =
        |name: &str, tensor| InferRequest::new("big", [NamedTensor { name: name.into(), tensor }]);
    let output = RequestedOutput { name: "nothing".into(), classification: None };
    let mut urgent = request("big");
    urgent.parameters.insert("priority".to_owned(), Parameter::String("at once".to_owned()));
    for (wrong, expected) in [
        (InferRequest::new("big", []), "missing input 'x'"),
        (input("y", good()), "unknown input 'y'"),
        (input("x", Tensor::from_vec([3, 2], vec![0_i32; 6]).unwrap()), "datatype INT32"),
        (input("x", Tensor::from_vec([3, 1], vec![0_f32; 3]).unwrap()), "shape [3,1]"),
        (InferRequest { outputs: vec![output], ..request("big") }, "unknown output 'nothing'"),
        (urgent, "priority"),
    ] {
        let error = fixture.router.infer(wrong, &RequestContext::default()).await;
        let error = error.expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(fixture.told("big").await.0, "neutral", "the right one is answered as before");
}

#[tokio::test]
async fn a_default_that_does_not_fit_is_no_answer() {
    let fixture = Fixture::new();
    let fails = fixture.serve("big", 1, "big");
    fails.store(true, Ordering::SeqCst);
    let number = DefaultValue::One(Parameter::Int(1));
    let default = BTreeMap::from([("label".into(), number)]);
    fixture.declare("big", FallbackSpec { default, ..FallbackSpec::default() });
    let error = fixture.ask("big").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed, "the model's own error, no number");
}

#[tokio::test]
async fn a_default_that_its_model_was_refused_for_is_not_given_in_its_place() {
    let fixture = Fixture::new();
    fixture.serve("big", 1, "big");
    let wrong = FallbackSpec {
        default: [("labels".into(), DefaultValue::One(Parameter::Bool(true)))].into(),
        ..FallbackSpec::default()
    };
    let manifest = ModelManifest { fallback: Some(wrong.clone()), ..ModelManifest::default() };
    let refused = plan("big", 1, manifest, labels("big")).warm_up().unwrap_err().to_string();
    fixture.declare("big", wrong);
    fixture.unserve("big", 1, VersionState::Failed(refused.as_str().into()));
    let error = fixture.ask("big").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady);
    assert!(error.to_string().contains("fallback.default"), "it says what to mend: {error}");

    fixture.unserve("big", 1, VersionState::Failed("its file is damaged".into()));
    assert!(fixture.ask("big").await.is_ok(), "what nobody has refused stands in");
}

#[test]
fn a_default_that_does_not_fit_is_found_before_it_is_needed() {
    let wrong = FallbackSpec {
        default: [("labels".into(), DefaultValue::One(Parameter::Bool(true)))].into(),
        ..FallbackSpec::default()
    };
    for (fallback, expected) in [
        (fallback(&[], Some("neutral")), None),
        (wrong, Some("fallback.default: the model gives no output 'labels'; it gives label")),
    ] {
        let manifest = ModelManifest { fallback: Some(fallback), ..ModelManifest::default() };
        let warmed = plan("big", 1, manifest, labels("big")).warm_up();
        assert_eq!(warmed.err().map(|error| error.to_string()).as_deref(), expected);
    }
}

#[tokio::test]
async fn a_routes_fallback_comes_before_that_of_its_model() {
    let fixture = Fixture::new();
    let one = fixture.serve("big", 1, "one");
    fixture.serve("small", 1, "small");
    fixture.declare("big", fallback(&[], Some("beside the model")));
    let to = |text: &str| RouteSpec::to(text.parse().unwrap());
    fixture.route("big", to("big@1"));
    one.store(true, Ordering::SeqCst);
    assert_eq!(fixture.told("big").await, by("beside the model", "default"));
    fixture.route("big", RouteSpec { fallback: Some(fallback(&["small"], None)), ..to("big@1") });
    assert_eq!(fixture.told("big").await, by("small", "small"));
    let answer = fixture.ask("big").await.unwrap();
    let via = answer.via.unwrap();
    assert_eq!((via.route.as_deref(), via.variant.as_deref()), (Some("big"), Some("big@1")));
    let routes = fixture.router.routes();
    let counts = routes.route("big").unwrap().variants()[0].metrics.counts();
    assert_eq!((counts.judged(), counts.failed), (3, 3), "a fallback makes no variant look well");
    let counted = fixture.monitor.traffic().fallback("big@1").count(FallbackCause::Error);
    assert_eq!(counted, 3);
}

#[tokio::test]
async fn a_candidate_that_is_not_loaded_here_fails_nobody() {
    let fixture = Fixture::new();
    fixture.serve("big", 1, "one");
    let targets = [("big@1", 10.0), ("big@2", 90.0)];
    let target = |(to, weight): (&str, f64)| TargetSpec { to: to.parse().unwrap(), weight };
    let spec =
        RouteSpec { targets: targets.map(target).into(), ..RouteSpec::to("big".parse().unwrap()) };
    fixture.route("big", spec);
    let mut replaced = 0;
    for _ in 0..100 {
        let (label, fallback, cause) = fixture.told("big").await;
        assert_eq!(label, "one");
        replaced += usize::from(
            (fallback.as_deref(), cause) == (Some("big@1"), Some(FallbackCause::Error)),
        );
    }
    assert!((88..=92).contains(&replaced), "{replaced}");
    let routes = fixture.router.routes();
    let counts = |index: usize| {
        let counts = routes.route("big").unwrap().variants()[index].metrics.counts();
        (counts.judged(), counts.failed)
    };
    assert_eq!((counts(0), counts(1)), ((100, 0), (0, 0)), "absence is not held against it");
    fixture.serve("big", 2, "two");
    let labels = [fixture.told("big").await.0, fixture.told("big").await.0];
    assert!(labels.contains(&"two".to_owned()), "{labels:?}");
}

/// Another server with one model, `far`, that can go away.
async fn another_server() -> (String, Arc<AtomicBool>) {
    let away = Arc::new(AtomicBool::new(false));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v2/models/far", listener.local_addr().unwrap());
    let app =
        axum::Router::new().route("/v2/models/far/infer", post(far)).with_state(Arc::clone(&away));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, away)
}

async fn far(
    State(away): State<Arc<AtomicBool>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if away.load(Ordering::SeqCst) {
        return Response::builder().status(502).body(Body::empty()).unwrap();
    }
    let length = headers["inference-header-content-length"].to_str().unwrap().parse().ok();
    let target = Target { model: "far".into(), version: VersionChoice::Latest };
    let decoded = decode_infer(body, length, target, &DecodeLimits::default()).unwrap();
    let rows = decoded.request.inputs[0].tensor.shape()[0];
    let labels: Strings = std::iter::repeat_n("far", rows).collect();
    let tensor = Tensor::from_strings([rows, 1], labels).unwrap();
    let response = InferResponse {
        id: None,
        model: ModelName::new("far").unwrap(),
        version: ModelVersion(1),
        outputs: smallvec::smallvec![NamedTensor { name: "label".into(), tensor }],
        timings: Timings::default(),
        tokens: None,
        cache: CacheStatus::Off,
        via: None,
    };
    let encoded = encode_infer(&response, &decoded.format).unwrap();
    let length = encoded.json_length.unwrap();
    let answer = Response::builder().header("inference-header-content-length", length);
    answer.body(Body::from(encoded.body)).unwrap()
}

#[tokio::test]
async fn a_remote_fallback_goes_away_and_comes_back_and_nobody_notices() {
    let fixture = Fixture::new();
    let fails = fixture.serve("big", 1, "big");
    let (url, away) = another_server().await;
    fixture.declare("big", fallback(&[&url], Some("neutral")));
    assert_eq!(fixture.told("big").await, plainly("big"));
    away.store(true, Ordering::SeqCst);
    for _ in 0..50 {
        assert_eq!(fixture.told("big").await, plainly("big"), "the model itself needs nobody");
    }
    assert_eq!(fixture.monitor.traffic().remote(&url).sent.get(), 0);

    away.store(false, Ordering::SeqCst);
    fails.store(true, Ordering::SeqCst);
    assert_eq!(fixture.told("big").await, by("far", &url));
    away.store(true, Ordering::SeqCst);
    for _ in 0..60 {
        // Whether the remote is asked in vain, or its circuit and the model's are open by now.
        let (label, fallback, cause) = fixture.told("big").await;
        assert_eq!((label.as_str(), fallback.as_deref()), ("neutral", Some("default")));
        assert!(cause.is_some());
    }
    let sent = fixture.monitor.traffic().remote(&url).sent.get();
    assert!(sent < 30, "it is left in peace: {sent}");

    away.store(false, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    tokio::time::resume();
    let (label, answered, _) = fixture.told("big").await;
    assert_eq!((label.as_str(), answered), ("far", Some(url)));
    fails.store(false, Ordering::SeqCst);
    tokio::time::pause();
    // The second pause is 10 s. Further than a model's own time limit no queue would follow Tokio's clock.
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    tokio::time::resume();
    assert_eq!(fixture.told("big").await, plainly("big"), "back to what was meant");
}

#[tokio::test]
async fn a_route_may_lead_to_another_server() {
    let fixture = Fixture::new();
    let (url, away) = another_server().await;
    let spec = RouteSpec::to(url.parse().unwrap());
    fixture.route("near", spec.clone());
    assert_eq!(fixture.told("near").await, plainly("far"));
    away.store(true, Ordering::SeqCst);
    let error = fixture.ask("near").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fixture.serve("near", 1, "near");
    fixture.route("near", RouteSpec { fallback: Some(fallback(&["near@1"], None)), ..spec });
    assert_eq!(fixture.told("near").await, by("near", "near@1"));
}
