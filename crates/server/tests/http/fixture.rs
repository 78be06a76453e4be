//! A server on loopback whose models do as told.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{Catalog, VersionState};
use outhaul_router::{Router, ServedVersion, VersionPlan};
use outhaul_server::http::{HttpConfig, ServeError, serve};
use outhaul_server::{App, AppConfig};
use outhaul_types::{
    BoundInputs, DataType, Dimension, InstanceCount, ModelManifest, ModelName, ModelSignature,
    ModelVersion, ShapePattern, Tensor, TensorSpec, Tensors,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::Client;

/// How long a test waits for what is to happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Holds runs until it is opened, and counts them.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    runs: AtomicUsize,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// Runs that have begun.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

/// Waits until something holds, looking whenever other tasks have had their turn.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it never came to be");
}

type Run = Arc<dyn Fn(&BoundInputs) -> Result<Tensors, RunError> + Send + Sync>;

/// A model that runs a function.
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

fn echo(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    Ok(inputs.iter().flatten().cloned().collect())
}

/// Answers each row with a thousand times its first element.
fn wide(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    let first = inputs[0].as_ref().unwrap().elements_of::<f32>().unwrap()[0];
    Ok(Tensors::from_iter([Tensor::from_vec([1, 1000], vec![first; 1000]).unwrap()]))
}

fn crash(_: &BoundInputs) -> Result<Tensors, RunError> {
    panic!("a secret of the engine")
}

fn plan(name: &str, columns: usize, run: Run) -> VersionPlan {
    let spec = |name: &str, columns| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(columns)]),
        optional: false,
    };
    let mut manifest = ModelManifest::default();
    if name == "gated" {
        // One runs, one waits, the next is refused.
        manifest.instances.count = InstanceCount::Fixed(NonZeroUsize::MIN);
        manifest.queue.capacity = NonZeroUsize::MIN;
    }
    let inputs = vec![spec("X", 4)];
    VersionPlan {
        name: ModelName::new(name).unwrap(),
        version: ModelVersion(1),
        signature: ModelSignature { inputs, outputs: vec![spec("Y", columns)] },
        rows: RowIndependence::NoBatch { reason: "it is a <script>".into() },
        manifest,
        model: Arc::new(Function(run)),
        engine_reason: "it is the only one".into(),
        cores: NonZeroUsize::new(2).unwrap(),
    }
}

/// A running server with the models `echo`, `wide`, `gated` and `crashing`, `loading` that is not
/// there yet, and `damaged` that never will be.
pub struct Server {
    pub address: SocketAddr,
    pub app: Arc<App>,
    /// Held by the model `gated`.
    pub gate: Arc<Gate>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start() -> Self {
        Server::with(HttpConfig::default()).await
    }

    pub async fn with(config: HttpConfig) -> Self {
        let gate = Arc::new(Gate::default());
        let app = app(&gate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, Arc::clone(&app), config, async {
            let _ = asked.await;
        }));
        Server { address, app, gate, shutdown: Some(shutdown), serving }
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    pub fn shut_down(&mut self) {
        self.shutdown.take().expect("once").send(()).expect("the server runs");
    }

    /// Waits for the server to end.
    pub async fn ended(&mut self) -> Result<(), ServeError> {
        let ended = tokio::time::timeout(PATIENCE, &mut self.serving);
        ended.await.expect("it ends in time").unwrap()
    }

    pub async fn connections(&self, expected: usize) {
        let line = format!("outhaul_connections_open {expected}");
        eventually(|| self.app.monitor().render().lines().any(|other| other == line)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A run that is still held would keep the model's threads from ending.
        self.gate.open();
    }
}

pub fn app(gate: &Arc<Gate>) -> Arc<App> {
    let monitor = Arc::new(Monitor::new());
    let held = Arc::clone(gate);
    let gated = move |inputs: &BoundInputs| {
        held.pass();
        echo(inputs)
    };
    let plans = [
        plan("echo", 4, Arc::new(echo)),
        plan("wide", 1000, Arc::new(wide)),
        plan("gated", 4, Arc::new(gated)),
        plan("crashing", 4, Arc::new(crash)),
    ];
    let catalog = Arc::new(Catalog::new());
    catalog.publish(plans.map(|plan| {
        let (name, version) = (plan.name.clone(), plan.version);
        let served = Arc::new(ServedVersion::start(plan, &monitor).unwrap());
        (name, version, Some(VersionState::Ready(served)))
    }));
    let absent = |name: &str, state| (ModelName::new(name).unwrap(), ModelVersion(1), Some(state));
    catalog.publish([absent("damaged", VersionState::Failed("its file is <damaged>".into()))]);
    App::new(Arc::new(Router::new(catalog, monitor)), AppConfig::default())
}
