//! Connections: accepting them, speaking HTTP/2 on them, and ending them.

use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::GrpcConfig;
use super::dispatch::{GrpcService, service};
use crate::App;
use crate::app::OpenConnection;
use crate::workers::Workers;

/// What a client may send on one call before it is read, and on all calls of a connection: enough
/// that a large tensor is not held up by the round trip.
const CALL_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The bytes that every client of HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;

/// The largest frame: large tensors come in fewer pieces.
const MAX_FRAME: u32 = 256 << 10;

/// How long to wait where the operating system has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Calls that did not finish in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "gRPC calls did not finish within {limit:?} of the shutdown; connections closed: {connections}"
)]
pub struct DrainError {
    /// The connections that were closed.
    pub connections: usize,
    /// [`GrpcConfig::drain`].
    pub limit: Duration,
}

/// Serves gRPC on a listener until `shutdown` completes; then accepts no more, lets calls in flight
/// finish, and returns.
///
/// # Errors
///
/// Fails where calls did not finish within [`GrpcConfig::drain`]. Their connections are closed.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    config: GrpcConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DrainError> {
    let drain = CancellationToken::new();
    let connector = Connector {
        service: service(Arc::clone(&app), &config, drain.clone()),
        http: http(&config),
        app: Arc::clone(&app),
        drain: drain.clone(),
        head_timeout: config.head_timeout,
    };
    let workers = Workers::start("grpc");
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, place) = accept(&listener, &places) => {
                // Off this runtime, to be registered with the one of its thread.
                let Ok(stream) = stream.into_std() else { continue };
                let (seat, connector) = (workers.seat(), connector.clone());
                let handle = seat.handle().clone();
                let serve = async move {
                    let _held = (place, seat);
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        connector.connection(stream).await;
                    }
                };
                connections.spawn_on(serve, &handle);
            }
            // Ended connections are forgotten as they end.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    app.start_draining();
    drain.cancel();
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(config.drain, finished).await.is_ok() {
        return Ok(());
    }
    let error = DrainError { connections: connections.len(), limit: config.drain };
    connections.shutdown().await;
    Err(error)
}

/// Waits for a place, then for a connection to take it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "gRPC connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn http(config: &GrpcConfig) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(config.max_head_bytes)
        .max_concurrent_streams(config.max_calls.max(1))
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    http
}

/// What every connection needs.
#[derive(Clone)]
struct Connector {
    service: GrpcService,
    http: http2::Builder<TokioExecutor>,
    app: Arc<App>,
    drain: CancellationToken,
    head_timeout: Duration,
}

impl Connector {
    async fn connection(self, mut stream: TcpStream) {
        let _open = OpenConnection::new(self.app);
        // Answers are small and somebody waits for each.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "gRPC connection keeps its delay");
        }
        // Read here, since hyper waits for it without a limit. From then on it asks for signs of life.
        let mut preface = [0; PREFACE_LENGTH];
        let opened = tokio::select! {
            () = self.drain.cancelled() => return,
            opened = timeout(self.head_timeout, stream.read_exact(&mut preface)) => opened,
        };
        if !matches!(opened, Ok(Ok(_))) {
            return;
        }
        let (reader, writer) = stream.into_split();
        let stream = tokio::io::join(Cursor::new(preface).chain(reader), writer);
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), self.service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(error = outhaul_types::error_chain(&error), "gRPC connection failed");
        }
    }
}
