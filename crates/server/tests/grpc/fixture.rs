//! A server on loopback with models that do as told.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_protocol::grpc::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use outhaul_protocol::grpc::pb::model_infer_request::InferInputTensor;
use outhaul_protocol::grpc::pb::{ModelInferRequest, ModelInferResponse};
use outhaul_repository::{Catalog, VersionState};
use outhaul_router::{Router, ServedVersion, VersionPlan};
use outhaul_server::grpc::{DrainError, GrpcConfig, serve};
use outhaul_server::{App, AppConfig};
use outhaul_types::{
    BoundInputs, DataType, Dimension, InstanceCount, ModelManifest, ModelName, ModelSignature,
    ModelVersion, ShapePattern, Tensor, TensorSpec, Tensors,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub type Client = GrpcInferenceServiceClient<Channel>;

/// How long a test waits for something that is to happen before it fails.
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

    pub async fn wait_for_runs(&self, runs: usize) {
        eventually(|| self.runs() >= runs).await;
    }

    fn pass(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

/// Opens the gate when a test ends or fails, since the models wait for their runs.
pub struct OpenedAtEnd(Arc<Gate>);

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

/// Waits until something holds, looking whenever other tasks have had their turn.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it never came to be");
}

type Run = dyn Fn(&BoundInputs) -> Result<Tensors, RunError> + Send + Sync;

/// A model that runs a function.
#[derive(Clone)]
struct Function(Arc<Run>);

impl LoadedModel for Function {
    fn engine(&self) -> &'static str {
        "fake"
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

fn doubled(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    let tensor = inputs[0].as_ref().unwrap();
    let elements = tensor.elements_of::<f32>().unwrap();
    let doubled: Vec<f32> = elements.iter().map(|element| element * 2.0).collect();
    Ok(Tensors::from_iter([Tensor::from_vec(tensor.shape().clone(), doubled).unwrap()]))
}

fn failing(_: &BoundInputs) -> Result<Tensors, RunError> {
    Err(RunError::Failed { engine: "fake", reason: "it broke".into() })
}

fn crashing(_: &BoundInputs) -> Result<Tensors, RunError> {
    panic!("secret of the engine")
}

fn echoed(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    Ok(inputs.iter().flatten().cloned().collect())
}

fn version(name: &str, data_type: DataType, run: Arc<Run>, monitor: &Monitor) -> ServedVersion {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(2)]),
        optional: false,
    };
    let mut manifest = ModelManifest::default();
    if name == "gated" {
        // One runs, one waits, the next is refused.
        manifest.instances.count = InstanceCount::Fixed(NonZeroUsize::MIN);
        manifest.queue.capacity = NonZeroUsize::MIN;
    }
    let batched = name == "double";
    let off = || RowIndependence::NoBatch { reason: "it has no batch".into() };
    let plan = VersionPlan {
        name: ModelName::new(name).unwrap(),
        version: ModelVersion(1),
        signature: ModelSignature { inputs: vec![spec("X")], outputs: vec![spec("Y")] },
        rows: if batched { RowIndependence::Exact } else { off() },
        manifest,
        model: Arc::new(Function(run)),
        engine_reason: "it is the only one".into(),
        cores: NonZeroUsize::new(2).unwrap(),
    };
    ServedVersion::start(plan, monitor).unwrap()
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    /// Held by the model `gated`. Dropped before the models.
    pub gate: OpenedAtEnd,
    pub app: Arc<App>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), DrainError>>,
}

impl Server {
    pub async fn start() -> Self {
        Server::with(GrpcConfig::default()).await
    }

    pub async fn with(config: GrpcConfig) -> Self {
        let monitor = Arc::new(Monitor::new());
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        let gated = move |inputs: &BoundInputs| {
            held.pass();
            doubled(inputs)
        };
        let models: [(&str, DataType, Arc<Run>); 5] = [
            ("double", DataType::Fp32, Arc::new(doubled)),
            ("words", DataType::Bytes, Arc::new(echoed)),
            ("failing", DataType::Fp32, Arc::new(failing)),
            ("crashing", DataType::Fp32, Arc::new(crashing)),
            ("gated", DataType::Fp32, Arc::new(gated)),
        ];
        let catalog = Arc::new(Catalog::new());
        catalog.publish(models.map(|(name, data_type, run)| {
            let served = version(name, data_type, run, &monitor);
            let state = VersionState::Ready(Arc::new(served));
            (ModelName::new(name).unwrap(), ModelVersion(1), Some(state))
        }));
        let broken = VersionState::Failed("its file is damaged".into());
        catalog.publish([(ModelName::new("broken").unwrap(), ModelVersion(3), Some(broken))]);
        let app = App::new(Arc::new(Router::new(catalog, monitor)), AppConfig::default());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, ask) = oneshot::channel();
        let shared = Arc::clone(&app);
        let serving = tokio::spawn(serve(listener, shared, config, async {
            let _ = ask.await;
        }));
        let gate = OpenedAtEnd(gate);
        Server { address, gate, app, shutdown: Some(shutdown), serving }
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// Asks the server to end.
    pub fn shut_down(&mut self) {
        self.shutdown.take().expect("asked once").send(()).unwrap();
    }

    /// Waits for the server to end.
    pub async fn ended(self) -> Result<(), DrainError> {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("it never ended").unwrap()
    }

    /// Returns how many calls the metrics count for gRPC with an outcome.
    pub fn counted(&self, outcome: &str) -> usize {
        let text = self.app.monitor().render();
        let wanted = |line: &&str| {
            line.contains("_count{")
                && line.contains("contract=\"oip_grpc\"")
                && line.contains(&format!("\"{outcome}\""))
        };
        let counts = text.lines().filter(wanted);
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    }
}

/// Two numbers as the input of a model.
pub fn request(model: &str, elements: [f32; 2]) -> ModelInferRequest {
    let raw: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "X".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            ..Default::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

/// The numbers of an answer's first output.
pub fn numbers(response: &ModelInferResponse) -> Vec<f32> {
    let bytes = &response.raw_output_contents[0];
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}
