//! An HTTP server on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use outhaul_engine::RunError;
use outhaul_server::App;
use outhaul_server::http::{HttpConfig, ServeError, serve};
use outhaul_types::{BoundInputs, Tensor, Tensors};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::models::{self, Model, OpenedAtEnd, crash, echo};
pub use crate::models::{Gate, PATIENCE, eventually, wait_for_queue};

/// Answers each row with a thousand times its first element.
fn wide(inputs: &BoundInputs) -> Result<Tensors, RunError> {
    let first = inputs[0].as_ref().unwrap().elements_of::<f32>().unwrap()[0];
    Ok(Tensors::from_iter([Tensor::from_vec([1, 1000], vec![first; 1000]).unwrap()]))
}

/// Returns an application with the models `echo`, `wide`, `gated` and `crashing`, and `damaged` that
/// never loads.
pub fn app(gate: &Arc<Gate>) -> Arc<App> {
    models::app([
        Model::new("echo", 4, echo),
        Model::new("wide", 4, wide).answering(1000),
        Model::gated(gate, 4, echo),
        Model::new("crashing", 4, crash),
    ])
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    /// Held by the model `gated`. Dropped before the models.
    pub gate: OpenedAtEnd,
    pub app: Arc<App>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start() -> Self {
        Server::with(HttpConfig::default()).await
    }

    pub async fn with(config: HttpConfig) -> Self {
        Server::over(app, config).await
    }

    /// Starts a server over the application that `app` makes.
    pub async fn over(app: impl FnOnce(&Arc<Gate>) -> Arc<App>, config: HttpConfig) -> Self {
        let gate = OpenedAtEnd(Arc::default());
        let app = app(&gate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, Arc::clone(&app), config, async {
            let _ = asked.await;
        }));
        Server { address, gate, app, shutdown: Some(shutdown), serving }
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
