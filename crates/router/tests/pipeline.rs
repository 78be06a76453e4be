//! Pipelines through `Router::infer`, over models that do as the test says.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_pipeline::{Outline, OutputSpec, PipelineSpec, Reference, StepSpec};
use outhaul_repository::{
    Catalog, ModelFacts, PipelineEntries, PipelineEntry, Resident, VersionEntry, VersionState,
};
use outhaul_router::{Declared, Router, RouterError, Served, ServedVersion, Standing, VersionPlan};
use outhaul_types::{
    BoundInputs, Classify, DataType, Deadline, DefaultValue, Dimension, ErrorKind, FallbackCause,
    FallbackSpec, InferRequest, InferResponse, InstanceCount, ModelManifest, ModelName,
    ModelSignature, ModelVersion, NamedTensor, Parameter, RequestContext, RequestedOutput,
    ShapePattern, Tensor, TensorSpec, Tensors, VersionChoice,
};

type Run = Arc<dyn Fn(f32) -> Result<f32, RunError> + Send + Sync>;

/// A model that does something to each element of `x` and gives `y`.
#[derive(Clone)]
struct Scripted(Run);

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
        let x = inputs[0].as_ref().unwrap();
        let elements = x.elements_of::<f32>().unwrap();
        let y: Vec<f32> = elements.iter().map(|x| (self.0)(*x)).collect::<Result<_, _>>()?;
        Ok(Tensors::from_iter([Tensor::from_vec(x.shape().clone(), y).unwrap()]))
    }
}

fn spec(name: &str, columns: Option<usize>) -> TensorSpec {
    let sizes = [Some(Dimension::Any), columns.map(Dimension::Fixed)];
    let shape = ShapePattern::ranked(sizes.into_iter().flatten());
    TensorSpec { name: name.into(), data_type: DataType::Fp32, shape, optional: false }
}

struct Fixture {
    router: Router,
    catalog: Arc<Catalog<Served>>,
    monitor: Arc<Monitor>,
}

fn name(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let router = Router::new(Arc::clone(&catalog), Arc::clone(&monitor));
        Fixture { router, catalog, monitor }
    }

    /// Publishes a model whose tensors are `[-1]`, or `[-1, columns]`.
    fn shaped(
        self,
        model: &str,
        columns: Option<usize>,
        run: impl Fn(f32) -> Result<f32, RunError> + Send + Sync + 'static,
    ) -> Self {
        let signature =
            ModelSignature { inputs: vec![spec("x", columns)], outputs: vec![spec("y", columns)] };
        let mut manifest = ModelManifest::default();
        manifest.instances.count = InstanceCount::Fixed(NonZeroUsize::MIN);
        let plan = VersionPlan {
            name: name(model),
            version: ModelVersion(1),
            declared: Declared::apply(&signature, &manifest).unwrap(),
            signature,
            transform: None,
            sample: None,
            rows: RowIndependence::NoBatch { reason: "it is a script".into() },
            cost_follows_size: false,
            manifest,
            model: Arc::new(Scripted(Arc::new(run))),
            engine_reason: "the test says so".to_owned(),
            cores: NonZeroUsize::MIN,
            cache: Default::default(),
        };
        let served = ServedVersion::start(plan, &self.monitor).unwrap();
        let state = VersionState::Ready(Arc::new(Resident::unattended(served)));
        self.catalog.publish([(name(model), ModelVersion(1), Some(state))]);
        self
    }

    fn model(self, model: &str, run: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Self {
        self.shaped(model, None, move |x| Ok(run(x)))
    }

    /// Publishes a pipeline called `p`.
    fn pipeline(self, steps: &[&str], outputs: &[&str]) -> Self {
        let pipeline = pipeline(steps, outputs);
        let outline = Ok(Arc::new(Outline::of(pipeline).unwrap()));
        let (source, place) = ("test".into(), "p/pipeline.toml".into());
        let entry = PipelineEntry { outline, last_error: None, source, place };
        let entries = PipelineEntries::from([(name("p"), entry)]);
        self.catalog.update(|draft| draft.set_pipelines(Arc::new(entries)));
        self
    }

    async fn ask(&self, x: f32, context: &RequestContext) -> Result<InferResponse, RouterError> {
        self.router.infer(request(x), context).await
    }

    /// Asks `p` and returns its output `o`.
    async fn o(&self, x: f32) -> f32 {
        let answer = self.ask(x, &RequestContext::default()).await.unwrap();
        answer.output("o").unwrap().as_slice::<f32>().unwrap()[0]
    }

    /// How often a model was asked.
    fn asked(&self, model: &str) -> u64 {
        let statistics = self.router.statistics(Some(model), &VersionChoice::Latest).unwrap();
        statistics[0].2.success.count
    }

    fn stands(&self) -> (Standing, String) {
        let models = self.router.models();
        let p = models.iter().find(|status| status.name.as_str() == "p").unwrap();
        (p.standing, p.reason.clone())
    }
}

fn request(x: f32) -> InferRequest {
    let tensor = Tensor::from_vec([1], vec![x]).unwrap();
    InferRequest::new("p", [NamedTensor { name: "x".into(), tensor }])
}

/// Steps as `NAME MODEL FROM [eager] [when CONDITION]`, each of which feeds `x`; outputs as `NAME=FROM|FROM`.
fn pipeline(steps: &[&str], outputs: &[&str]) -> PipelineSpec {
    let from = |text: &str| text.split('|').map(|from| Reference::parse(from, &[])).collect();
    let step = |text: &&str| {
        let (text, when) = match text.split_once(" when ") {
            Some((text, when)) => (text, Some(when.to_owned())),
            None => (*text, None),
        };
        let words: Vec<&str> = text.split(' ').collect();
        StepSpec {
            name: words[0].into(),
            model: words[1].parse().unwrap(),
            when,
            eager: words.contains(&"eager"),
            inputs: vec![("x".into(), from(words[2]))],
            outputs: Vec::new(),
        }
    };
    let output = |text: &&str| {
        let (name, taken) = text.split_once('=').unwrap();
        OutputSpec { name: name.into(), from: from(taken) }
    };
    PipelineSpec {
        steps: steps.iter().map(step).collect(),
        outputs: outputs.iter().map(output).collect(),
        ..PipelineSpec::default()
    }
}

#[tokio::test]
async fn steps_follow_each_other_and_are_counted() {
    let fixture = Fixture::new()
        .model("double", |x| 2.0 * x)
        .model("increment", |x| x + 1.0)
        .pipeline(&["first double x", "second increment first.y"], &["o=second.y"]);
    let mut request = request(3.0);
    request.id = Some("mine".into());
    let context = RequestContext { id: "of the server".into(), ..RequestContext::default() };
    let answer = fixture.router.infer(request, &context).await.unwrap();
    assert_eq!(answer.output("o").unwrap().as_slice::<f32>(), Some(&[7.0][..]));
    assert_eq!((answer.model.as_str(), answer.version), ("p", ModelVersion(1)));
    assert_eq!((answer.id.as_deref(), answer.timings.batch_rows), (Some("mine"), 1));
    let described = fixture.router.describe("p", &VersionChoice::Latest, None).await.unwrap();
    assert_eq!((described.engine, described.signature.outputs.len()), ("pipeline", 1));
    assert_eq!(["p", "double", "increment"].map(|model| fixture.asked(model)), [1, 1, 1]);
    assert_eq!(fixture.router.versions("p").unwrap(), [ModelVersion(1)]);
    let two = VersionChoice::Exact(ModelVersion(2));
    assert!(matches!(fixture.router.readiness("p", &two), Err(RouterError::UnknownVersion { .. })));
}

#[tokio::test]
async fn a_condition_decides_and_only_what_is_wanted_runs() {
    let fixture = Fixture::new()
        .model("small", |x| x)
        .model("large", |x| 100.0 * x)
        .model("other", |x| x)
        .pipeline(
            &["fast small x", "slow large x when fast.y[0] < 0.5", "third other x"],
            &["o=slow.y|fast.y", "other=third.y"],
        );
    assert_eq!((fixture.o(0.75).await, fixture.asked("large")), (0.75, 0));
    assert_eq!((fixture.o(0.25).await, fixture.asked("large")), (25.0, 1));
    assert_eq!(fixture.asked("other"), 2);
    let mut request = request(0.75);
    request.outputs = vec![RequestedOutput { name: "o".into(), classification: None }];
    let answer = fixture.router.infer(request, &RequestContext::default()).await.unwrap();
    assert_eq!((answer.outputs.len(), fixture.asked("other")), (1, 2), "nobody wants it");
}

#[tokio::test]
async fn errors_name_the_step() {
    let fixture = Fixture::new()
        .model("fine", |x| x)
        .shaped("bad", None, |_| {
            Err(RunError::Failed { engine: "scripted", reason: "it broke".into() })
        })
        .pipeline(&["one fine x", "two bad one.y when one.y[0] < 9.0"], &["o=two.y|one.y"]);
    let error = fixture.ask(1.0, &RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed);
    assert!(error.to_string().starts_with("step 'two': "), "{error}");
    assert_eq!(fixture.o(10.0).await, 10.0);

    let fixture =
        fixture.pipeline(&["one fine x", "two fine x when one.y[3] < 9.0"], &["o=two.y|x"]);
    let error = fixture.ask(1.0, &RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        error.client_message(),
        "step 'two': its condition: there is no element 3: the list is shorter"
    );
    let statistics = fixture.router.statistics(Some("p"), &VersionChoice::Latest).unwrap();
    assert_eq!((statistics[0].2.success.count, statistics[0].2.fail.count), (1, 2));
}

#[tokio::test]
async fn a_steps_fallback_is_told() {
    let broken = |_: f32| Err(RunError::Failed { engine: "scripted", reason: "it broke".into() });
    let fixture = Fixture::new()
        .model("fine", |x| x)
        .shaped("bad", None, broken)
        .model("older", |x| 10.0 * x)
        .shaped("worse", None, broken)
        .pipeline(
            &["one fine x", "two bad one.y when one.y[0] < 9.0", "three worse x"],
            &["o=two.y|one.y", "last=three.y"],
        );
    let older = FallbackSpec { to: vec!["older".parse().unwrap()], ..FallbackSpec::default() };
    let values = [("y".into(), DefaultValue::One(Parameter::Float(0.5)))];
    let default = FallbackSpec { default: values.into(), ..FallbackSpec::default() };
    for (model, fallback) in [("bad", older), ("worse", default)] {
        let facts = ModelFacts { fallback: Some(Arc::new(fallback)), ..ModelFacts::default() };
        fixture.catalog.update(|draft| draft.set_facts(&name(model), facts));
    }
    let output = |name: &str| RequestedOutput { name: name.into(), classification: None };
    for (x, wanted, values, fallback) in [
        (1.0, vec!["o"], vec![10.0], Some("two: older")),
        (9.0, vec!["o"], vec![9.0], None),
        (9.0, vec!["o", "last"], vec![9.0, 0.5], Some("three: default")),
        (1.0, vec!["last", "o"], vec![0.5, 10.0], Some("two: older")),
    ] {
        let outputs = wanted.iter().map(|name| output(name)).collect();
        let request = InferRequest { outputs, ..request(x) };
        let answer = fixture.router.infer(request, &RequestContext::default()).await.unwrap();
        let given = answer.outputs.iter().map(|of| of.tensor.as_slice::<f32>().unwrap()[0]);
        assert_eq!(given.collect::<Vec<_>>(), values, "{x}: {wanted:?}");
        let via = answer.via.map(|via| (via.fallback.unwrap().to_string(), via.cause));
        let expected = fallback.map(|told| (told.to_owned(), Some(FallbackCause::Error)));
        assert_eq!(via, expected, "{x}: {wanted:?}");
    }
}

/// Holds runs until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        drop(self.changed.wait_while(state, |(open, _)| !*open).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    fn passes(&self) -> usize {
        self.state.lock().unwrap().1
    }
}

/// Opens its gate when a test ends, since models wait for their runs.
struct Opened(Arc<Gate>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn held(gate: &Arc<Gate>) -> impl Fn(f32) -> f32 + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |x| {
        gate.pass();
        x
    }
}

#[tokio::test]
async fn steps_that_need_nothing_of_each_other_run_side_by_side() {
    let gate = Arc::new(Gate::default());
    let fixture = Fixture::new().model("left", held(&gate)).model("right", held(&gate));
    let fixture = fixture.pipeline(&["a left x", "b right x"], &["o=a.y", "p=b.y"]);
    let _opened = Opened(Arc::clone(&gate));
    let both = async {
        while gate.passes() < 2 {
            tokio::task::yield_now().await;
        }
        gate.open();
    };
    let answer = async { fixture.ask(1.0, &RequestContext::default()).await };
    let patience = Duration::from_secs(20);
    let (_, answer) =
        tokio::time::timeout(patience, async { tokio::join!(both, answer) }).await.unwrap();
    assert_eq!(answer.unwrap().outputs.len(), 2);
}

#[tokio::test]
async fn one_deadline_holds_for_all_steps() {
    let gate = Arc::new(Gate::default());
    let fixture = Fixture::new()
        .model("quick", |x| x)
        .model("held", held(&gate))
        .pipeline(&["a quick x", "b held a.y"], &["o=b.y"]);
    let _opened = Opened(Arc::clone(&gate));
    let soon = Deadline::after(Instant::now(), Duration::from_millis(30));
    let context = RequestContext { deadline: soon, ..RequestContext::default() };
    let error = fixture.ask(1.0, &context).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    let mut request = request(1.0);
    request.parameters.insert("timeout".to_owned(), Parameter::Int(30_000));
    let error = fixture.router.infer(request, &RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
}

#[tokio::test]
async fn an_eager_step_that_nobody_needs_holds_up_nothing() {
    let gate = Arc::new(Gate::default());
    let fixture = Fixture::new().model("quick", |x| x).model("held", held(&gate)).pipeline(
        &["fast quick x", "part held x eager", "slow quick part.y when fast.y[0] < 0.5"],
        &["o=slow.y|fast.y"],
    );
    let _opened = Opened(Arc::clone(&gate));
    let patience = Duration::from_secs(20);
    let o = tokio::time::timeout(patience, fixture.o(1.0)).await.expect("it is given up");
    assert_eq!(o, 1.0);
}

#[tokio::test]
async fn a_pipeline_is_held_against_its_models_anew_when_they_change() {
    let fixture = Fixture::new().pipeline(&["a one x", "b two a.y"], &["o=b.y"]);
    assert_eq!(fixture.stands().0, Standing::Failed);
    assert_eq!(fixture.router.pipeline_problems().len(), 2, "two models are missing");
    let fixture = fixture.model("one", |x| x).model("two", |x| x + 1.0);
    assert_eq!(fixture.stands(), (Standing::Ready, String::new()));
    assert_eq!(fixture.o(1.0).await, 2.0);
    // The new version takes another shape.
    let fixture = fixture.shaped("two", Some(4), Ok);
    let (standing, reason) = fixture.stands();
    assert_eq!(standing, Standing::Failed);
    assert!(reason.contains("steps.b.inputs.x: takes [-1,4], and 'a.y' is [-1]"), "{reason}");
    let error = fixture.ask(1.0, &RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady);
    let loading =
        VersionEntry { version: ModelVersion(1), state: VersionState::Loading, last_error: None };
    fixture.catalog.update(|draft| draft.set(&name("two"), ModelVersion(1), Some(loading)));
    assert_eq!(fixture.stands().0, Standing::Loading);
    let fixture = fixture.model("two", |x| x);
    assert_eq!(fixture.o(1.0).await, 1.0);
    fixture.catalog.update(|draft| draft.set_pipelines(Arc::default()));
    let error = fixture.ask(1.0, &RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "it is gone");
}

#[tokio::test]
async fn a_pipeline_that_reaches_itself_ends() {
    let fixture = Fixture::new().model("one", |x| x).pipeline(&["a p x"], &["o=a.y"]);
    let (standing, reason) = fixture.stands();
    assert_eq!(standing, Standing::Failed);
    assert!(reason.contains("the pipelines ask each other: p -> p"), "{reason}");
    let deep = RequestContext { depth: 8, ..RequestContext::default() };
    let fixture = fixture.pipeline(&["a one x"], &["o=a.y"]);
    let error = fixture.ask(1.0, &deep).await.unwrap_err();
    assert!(error.to_string().contains("passed on 9 times"), "{error}");
}
