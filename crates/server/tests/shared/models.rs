//! Models that do as told, for the tests of both listeners.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{Catalog, Resident, VersionState};
use outhaul_router::{Declared, Router, ServedVersion, VersionPlan};
use outhaul_server::{App, AppConfig};
use outhaul_transform::Transform;
use outhaul_types::{
    BoundInputs, DataType, Dimension, InstanceCount, ModelManifest, ModelName, ModelSignature,
    ModelVersion, ShapePattern, TensorSpec, Tensors, TransformSpec,
};

/// How long a test waits for what is to happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds, looking whenever other tasks have had their turn.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it never came to be");
}

/// Holds runs until it is opened, and remembers them.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    /// The first element of each run.
    runs: Mutex<Vec<f32>>,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// Runs that have begun.
    pub fn runs(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    /// Whether a run began on an input whose first element is this.
    #[allow(dead_code, reason = "one of the two tests needs it")]
    pub fn ran(&self, first: f32) -> bool {
        self.runs.lock().unwrap().contains(&first)
    }

    pub async fn wait_for_runs(&self, runs: usize) {
        eventually(|| self.runs() >= runs).await;
    }

    fn pass(&self, inputs: &BoundInputs) {
        let first = inputs[0].as_ref().unwrap().elements_of::<f32>().unwrap()[0];
        self.runs.lock().unwrap().push(first);
        self.wait();
    }

    /// Waits until it is opened.
    pub fn wait(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

/// Opens the gate when a test ends or fails, since the models wait for their runs.
pub struct OpenedAtEnd(pub Arc<Gate>);

impl std::ops::Deref for OpenedAtEnd {
    type Target = Arc<Gate>;

    fn deref(&self) -> &Arc<Gate> {
        &self.0
    }
}

impl Drop for OpenedAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}

type Run = Arc<dyn Fn(&BoundInputs) -> Result<Tensors, RunError> + Send + Sync>;

/// A model that runs a function on its input `X` and answers `Y`, rows of some columns each.
pub struct Model {
    name: &'static str,
    data_type: DataType,
    columns: [usize; 2],
    rows: RowIndependence,
    capacity: Option<NonZeroUsize>,
    transform: TransformSpec,
    run: Run,
}

impl Model {
    /// Makes a model with as many columns on both sides, whose requests never share a run.
    pub fn new(
        name: &'static str,
        columns: usize,
        run: impl Fn(&BoundInputs) -> Result<Tensors, RunError> + Send + Sync + 'static,
    ) -> Self {
        Model {
            name,
            data_type: DataType::Fp32,
            columns: [columns; 2],
            rows: RowIndependence::NoBatch { reason: "it is a <script>".into() },
            capacity: None,
            transform: TransformSpec::default(),
            run: Arc::new(run),
        }
    }

    /// Makes `gated`, which waits at the gate. One request runs, one waits, the next is refused.
    pub fn gated(
        gate: &Arc<Gate>,
        columns: usize,
        run: fn(&BoundInputs) -> Result<Tensors, RunError>,
    ) -> Self {
        let gate = Arc::clone(gate);
        let gated = move |inputs: &BoundInputs| {
            gate.pass(inputs);
            run(inputs)
        };
        Model { capacity: Some(NonZeroUsize::MIN), ..Model::new("gated", columns, gated) }
    }

    /// Returns the plan of its version 1.
    pub fn plan(self) -> VersionPlan {
        let spec = |name: &str, columns| TensorSpec {
            name: name.into(),
            data_type: self.data_type,
            shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(columns)]),
            optional: false,
        };
        let [given, answered] = self.columns;
        let mut manifest = ModelManifest::default();
        if let Some(capacity) = self.capacity {
            manifest.instances.count = InstanceCount::Fixed(NonZeroUsize::MIN);
            manifest.queue.capacity = capacity;
        }
        let signature =
            ModelSignature { inputs: vec![spec("X", given)], outputs: vec![spec("Y", answered)] };
        manifest.transform = self.transform;
        let declared = Declared::apply(&signature, &manifest).unwrap();
        VersionPlan {
            name: ModelName::new(self.name).unwrap(),
            version: ModelVersion(1),
            transform: Transform::build(&manifest.transform, &declared.outer).unwrap(),
            sample: None,
            declared,
            signature,
            rows: self.rows,
            manifest,
            model: Arc::new(Function(self.run)),
            engine_reason: "it is the only one".into(),
            cost_follows_size: true,
            cores: NonZeroUsize::new(2).unwrap(),
            cache: Default::default(),
        }
    }
}

/// What differs from [`Model::new`], for the tests that need it.
#[allow(dead_code, reason = "each of the two tests needs some of them")]
impl Model {
    pub fn of(self, data_type: DataType) -> Self {
        Model { data_type, ..self }
    }

    pub fn answering(self, columns: usize) -> Self {
        Model { columns: [self.columns[0], columns], ..self }
    }

    pub fn transformed(self, transform: TransformSpec) -> Self {
        Model { transform, ..self }
    }

    pub fn batched(self) -> Self {
        Model { rows: RowIndependence::Exact, ..self }
    }
}

#[derive(Clone)]
struct Function(Run);

impl LoadedModel for Function {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Function {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        (self.0)(inputs)
    }
}

/// Answers what it was asked.
pub fn echo(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    Ok(inputs.iter().flatten().cloned().collect())
}

pub fn crash(_: &BoundInputs) -> Result<Tensors, RunError> {
    panic!("a secret of the engine")
}

/// Returns an application with these models, and `damaged` that never loads.
pub fn app(models: impl IntoIterator<Item = Model>) -> Arc<App> {
    let monitor = Arc::new(Monitor::new());
    let catalog = Arc::new(Catalog::new());
    catalog.publish(models.into_iter().map(|model| {
        let plan = model.plan();
        let (name, version) = (plan.name.clone(), plan.version);
        let served = Resident::unattended(ServedVersion::start(plan, &monitor).unwrap());
        (name, version, Some(VersionState::Ready(Arc::new(served))))
    }));
    let damaged = VersionState::Failed("its file is <damaged>".into());
    catalog.publish([(ModelName::new("damaged").unwrap(), ModelVersion(3), Some(damaged))]);
    App::new(Arc::new(Router::new(catalog, monitor)), AppConfig::default())
}

/// Waits until as many requests wait for the model `gated`.
pub async fn wait_for_queue(app: &App, requests: usize) {
    let line = format!("outhaul_queue_depth{{model=\"gated\",version=\"1\"}} {requests}");
    eventually(|| app.monitor().render().lines().any(|other| other == line)).await;
}
