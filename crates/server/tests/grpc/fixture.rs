//! A gRPC server on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use outhaul_engine::RunError;
use outhaul_protocol::grpc::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use outhaul_protocol::grpc::pb::model_infer_request::InferInputTensor;
use outhaul_protocol::grpc::pb::{ModelInferRequest, ModelInferResponse};
use outhaul_server::App;
use outhaul_server::grpc::{DrainError, GrpcConfig, serve};
use outhaul_types::{BoundInputs, DataType, Tensor, Tensors};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::models::{self, Gate, Model, OpenedAtEnd, crash, echo};
pub use crate::models::{PATIENCE, eventually, wait_for_queue};

pub type Client = GrpcInferenceServiceClient<Channel>;

fn doubled(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    let tensor = inputs[0].as_ref().unwrap();
    let elements = tensor.elements_of::<f32>().unwrap();
    let doubled: Vec<f32> = elements.iter().map(|element| element * 2.0).collect();
    Ok(Tensors::from_iter([Tensor::from_vec(tensor.shape().clone(), doubled).unwrap()]))
}

fn failing(_: &BoundInputs) -> Result<Tensors, RunError> {
    Err(RunError::Failed { engine: "scripted", reason: "it broke".into() })
}

fn app(gate: &Arc<Gate>) -> Arc<App> {
    models::app([
        Model::new("double", 2, doubled).batched(),
        Model::new("words", 2, echo).of(DataType::Bytes),
        Model::new("failing", 2, failing),
        Model::new("crashing", 2, crash),
        Model::gated(gate, 2, doubled),
    ])
}

/// A running server with the models `double`, `words`, `failing`, `crashing` and `gated`, and `damaged`
/// that never loads.
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
        Server::over(app, config).await
    }

    /// Starts a server over the application that `app` makes.
    pub async fn over(app: fn(&Arc<Gate>) -> Arc<App>, config: GrpcConfig) -> Self {
        let gate = OpenedAtEnd(Arc::default());
        let app = app(&gate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, ask) = oneshot::channel();
        let shared = Arc::clone(&app);
        let serving = tokio::spawn(serve(listener, shared, config, async {
            let _ = ask.await;
        }));
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
