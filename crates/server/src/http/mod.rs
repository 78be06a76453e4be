//! All contracts over HTTP/1.1 and HTTP/2 without TLS, with health, metrics and pages beside them.
//!
//! Invariant: every failure is answered in its contract's own form, with a status that
//! says who has to act, except where HTTP itself is broken: then hyper answers 400 or 431 without a
//! body, or the connection is closed.
//!
//! | Path | |
//! |---|---|
//! | `POST /v2/models/M[/versions/V]/infer` | a prediction |
//! | `GET /v2/models/M[/versions/V]` | metadata; `/ready`, `/config` and `/stats` below it |
//! | `GET /v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/stats` | the server |
//! | `POST /v2/repository/index` | all versions with their state |
//! | `POST /v2/repository/models/M/load`, `/unload` | loads or unloads a model |
//! | `/v1/models/...`, `/v1/models` | TensorFlow Serving and KServe v1, OpenAI's list |
//! | `POST /v1/embeddings`, `/v1/rerank`, `/rerank` | OpenAI, Cohere, Jina, TEI |
//! | `/ping`, `/invocations`, `/models` | SageMaker, one model and many |
//! | `POST /score` | Azure ML; Vertex AI's paths are configured |
//! | `/graphql`, `/openapi.json`, `/docs` | GraphQL, and the document of all this |
//! | `/try/M[/versions/V]`, `/assets/...` | the pages |
//! | `GET /metrics` | Prometheus text |
//! | `GET /` | `{"status":"alive"}`, or a page for browsers |
//!
//! Headers of a prediction beyond the protocol's: `x-request-id` (repeated in the answer, made where it
//! is missing or no token), `traceparent`, `x-request-timeout-ms` (whole milliseconds; the earliest of
//! it, the request's `timeout` parameter, the listener's and the model's limit counts),
//! `Content-Encoding` and `Accept-Encoding` (gzip, zstd; deflate only to read). The body decides what
//! it is, not `Content-Type`.
//!
//! The way of a request: [`serve`] accepts it under the limits of [`HttpConfig`], `service` parts
//! predictions of the Open Inference Protocol from the rest, `infer` answers them; `routes` leads to the
//! rest, whose predictions share one `exchange`.

mod answer;
mod azure;
mod body;
mod coding;
mod config;
mod connection;
mod exchange;
mod graphql;
mod headers;
mod infer;
mod openai;
mod openapi;
mod pages;
mod repository;
mod routes;
mod sagemaker;
mod service;
mod tensorflow;
mod traffic;
mod vertex;
mod watch;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use config::{HttpConfig, InvalidConfig, VertexRoutes};

use crate::App;

/// What all connections of one listener share.
struct Shared {
    app: Arc<App>,
    config: HttpConfig,
    /// Held while SageMaker's models come or go: what one call began, no other takes back.
    adding: tokio::sync::Mutex<()>,
}

impl Shared {
    fn new(app: Arc<App>, config: HttpConfig) -> Self {
        Shared { app, config, adding: tokio::sync::Mutex::default() }
    }
}

/// Why the listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A limit that cannot be kept.
    #[error("the HTTP listener's configuration is not valid")]
    Config(#[from] InvalidConfig),
}

/// Answers HTTP on `listener` until `shutdown` ends, then finishes what is in flight.
///
/// On shutdown the server becomes unready and accepts no more connections; requests in flight have
/// [`HttpConfig::drain_timeout`] to finish, then their connections are closed.
///
/// # Errors
///
/// Fails where the configuration is not valid. Connections that cannot be accepted are logged, and
/// accepting goes on.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    config: HttpConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    config.validate()?;
    connection::serve(listener, Arc::new(Shared::new(app, config)), shutdown).await;
    Ok(())
}

/// Returns all paths as an axum router, for tests and for programs that embed them. The limits of
/// connections are [`serve`]'s and do not hold here; those of bodies do.
pub fn router(app: Arc<App>, config: HttpConfig) -> axum::Router {
    routes::routes(Arc::new(Shared::new(app, config)))
}
