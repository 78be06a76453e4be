//! The list of settings: what each is called in the file, the environment and on the command line.
//!
//! This is the one place that names them. The order is the order of `outhaul config show`.

/// One setting of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its path in `outhaul.toml`.
    pub(crate) key: &'static str,
    /// Its environment variable.
    pub(crate) variable: &'static str,
    /// Its flag.
    pub(crate) flag: &'static str,
    /// Whether the text of a variable or flag is to be read as a number or boolean where it looks
    /// like one. A path may well be called `1`.
    pub(crate) typed: bool,
}

const fn text(key: &'static str, variable: &'static str, flag: &'static str) -> Setting {
    Setting { key, variable, flag, typed: false }
}

const fn typed(key: &'static str, variable: &'static str, flag: &'static str) -> Setting {
    Setting { key, variable, flag, typed: true }
}

/// Folders of models, models' folders and model files.
pub(crate) const MODELS: Setting = text("models", "OUTHAUL_MODELS", "PATH");
/// The engine of models that declare none.
pub(crate) const ENGINE: Setting = text("engine", "OUTHAUL_ENGINE", "--engine");
/// The library of ONNX Runtime.
pub(crate) const ONNXRUNTIME: Setting = text("onnxruntime", "OUTHAUL_ONNXRUNTIME", "--onnxruntime");
/// Where it is kept what was asked for.
pub(crate) const STATE: Setting = text("state", "OUTHAUL_STATE", "--state");
/// The model of calls that name none.
pub(crate) const DEFAULT_MODEL: Setting =
    text("default_model", "OUTHAUL_DEFAULT_MODEL", "--default-model");
/// Where the requests for each name go.
pub(crate) const ROUTES: Setting = text("routes", "OUTHAUL_ROUTES", "--routes");
/// What callers may do.
pub(crate) const CALLERS: Setting = text("callers", "OUTHAUL_CALLERS", "--callers");
/// How changes of the models are found out.
pub(crate) const MODE: Setting = text("repository.mode", "OUTHAUL_MODE", "--mode");
/// Models that explicit mode loads at the start.
pub(crate) const LOAD_MODELS: Setting =
    text("repository.load", "OUTHAUL_LOAD_MODELS", "--load-model");
/// How often models are looked for.
pub(crate) const POLL_INTERVAL: Setting =
    text("repository.poll_interval", "OUTHAUL_POLL_INTERVAL", "--poll-interval");
/// How long files must have been left alone.
pub(crate) const SETTLE: Setting = text("repository.settle", "OUTHAUL_SETTLE", "--settle");
/// The memory that models may take.
pub(crate) const MEMORY_BUDGET: Setting =
    typed("repository.memory_budget", "OUTHAUL_MEMORY_BUDGET", "--memory-budget");
/// How long a version stays in memory at least.
pub(crate) const MIN_RESIDENCY: Setting =
    text("repository.min_residency", "OUTHAUL_MIN_RESIDENCY", "--min-residency");
/// Where files from object stores are kept.
pub(crate) const CACHE_DIR: Setting =
    text("repository.cache_dir", "OUTHAUL_CACHE_DIR", "--cache-dir");
/// How much of that is kept.
pub(crate) const CACHE_CAPACITY: Setting =
    typed("repository.cache_capacity", "OUTHAUL_CACHE_CAPACITY", "--cache-capacity");
/// Where HTTP is served.
pub(crate) const HTTP: Setting = typed("listen.http", "OUTHAUL_HTTP", "--http");
/// Where gRPC is served.
pub(crate) const GRPC: Setting = typed("listen.grpc", "OUTHAUL_GRPC", "--grpc");
/// The largest request.
pub(crate) const MAX_BODY_BYTES: Setting =
    typed("limits.max_body_bytes", "OUTHAUL_MAX_BODY_BYTES", "--max-body-bytes");
/// The longest head of a request.
pub(crate) const MAX_HEAD_BYTES: Setting =
    typed("limits.max_head_bytes", "OUTHAUL_MAX_HEAD_BYTES", "--max-head-bytes");
/// The largest tensor of a request.
pub(crate) const MAX_TENSOR_BYTES: Setting =
    typed("limits.max_tensor_bytes", "OUTHAUL_MAX_TENSOR_BYTES", "--max-tensor-bytes");
/// The most rows of one request.
pub(crate) const MAX_ROWS: Setting = typed("limits.max_rows", "OUTHAUL_MAX_ROWS", "--max-rows");
/// The most connections.
pub(crate) const MAX_CONNECTIONS: Setting =
    typed("limits.max_connections", "OUTHAUL_MAX_CONNECTIONS", "--max-connections");
/// How long the head of a request may take to come.
pub(crate) const HEAD_TIMEOUT: Setting =
    text("limits.head_timeout", "OUTHAUL_HEAD_TIMEOUT", "--head-timeout");
/// How long the body of a request may take to come.
pub(crate) const BODY_TIMEOUT: Setting =
    text("limits.body_timeout", "OUTHAUL_BODY_TIMEOUT", "--body-timeout");
/// How long a connection may be open without a request.
pub(crate) const IDLE_TIMEOUT: Setting =
    text("limits.idle_timeout", "OUTHAUL_IDLE_TIMEOUT", "--idle-timeout");
/// How long a request may take.
pub(crate) const REQUEST_TIMEOUT: Setting =
    text("limits.request_timeout", "OUTHAUL_REQUEST_TIMEOUT", "--request-timeout");
/// How long requests may take to finish after the server was told to stop.
pub(crate) const DRAIN_TIMEOUT: Setting =
    text("limits.drain_timeout", "OUTHAUL_DRAIN_TIMEOUT", "--drain-timeout");
/// The header that says who asks.
pub(crate) const CALLER_HEADER: Setting =
    text("limits.caller_header", "OUTHAUL_CALLER_HEADER", "--caller-header");
/// The Redis that answers are kept in.
pub(crate) const CACHE_REDIS: Setting = text("cache.redis", "OUTHAUL_CACHE_REDIS", "--cache-redis");
/// Where Vertex AI sends predictions.
pub(crate) const VERTEX_PREDICT_ROUTE: Setting =
    text("vertex.predict_route", "OUTHAUL_VERTEX_PREDICT_ROUTE", "--vertex-predict-route");
/// Where Vertex AI asks whether the server is well.
pub(crate) const VERTEX_HEALTH_ROUTE: Setting =
    text("vertex.health_route", "OUTHAUL_VERTEX_HEALTH_ROUTE", "--vertex-health-route");
/// Where SageMaker puts models that it then asks to be loaded.
pub(crate) const SAGEMAKER_MODELS_DIR: Setting =
    text("sagemaker.models_dir", "OUTHAUL_SAGEMAKER_MODELS_DIR", "--sagemaker-models-dir");
/// How log lines look.
pub(crate) const LOG_FORMAT: Setting = text("log.format", "OUTHAUL_LOG_FORMAT", "--log-format");
/// What is logged.
pub(crate) const LOG_LEVEL: Setting = text("log.level", "OUTHAUL_LOG_LEVEL", "--log-level");
/// Whether every request is logged.
pub(crate) const LOG_REQUESTS: Setting =
    typed("log.requests", "OUTHAUL_LOG_REQUESTS", "--log-requests");
/// Where traces are sent.
pub(crate) const OTLP_ENDPOINT: Setting =
    text("trace.otlp_endpoint", "OUTHAUL_OTLP_ENDPOINT", "--otlp-endpoint");

/// Every setting.
pub(crate) const ALL: [&Setting; 36] = [
    &MODELS,
    &ENGINE,
    &ONNXRUNTIME,
    &STATE,
    &DEFAULT_MODEL,
    &ROUTES,
    &CALLERS,
    &MODE,
    &LOAD_MODELS,
    &POLL_INTERVAL,
    &SETTLE,
    &MEMORY_BUDGET,
    &MIN_RESIDENCY,
    &CACHE_DIR,
    &CACHE_CAPACITY,
    &HTTP,
    &GRPC,
    &MAX_BODY_BYTES,
    &MAX_HEAD_BYTES,
    &MAX_TENSOR_BYTES,
    &MAX_ROWS,
    &MAX_CONNECTIONS,
    &HEAD_TIMEOUT,
    &BODY_TIMEOUT,
    &IDLE_TIMEOUT,
    &REQUEST_TIMEOUT,
    &DRAIN_TIMEOUT,
    &CALLER_HEADER,
    &CACHE_REDIS,
    &VERTEX_PREDICT_ROUTE,
    &VERTEX_HEALTH_ROUTE,
    &SAGEMAKER_MODELS_DIR,
    &LOG_FORMAT,
    &LOG_LEVEL,
    &LOG_REQUESTS,
    &OTLP_ENDPOINT,
];

/// Where the settings' file is named. It is no setting: a file cannot say where it is.
pub(crate) const CONFIG_VARIABLE: &str = "OUTHAUL_CONFIG";

/// Variables that are read and set no setting of the server.
pub(crate) const OTHER_VARIABLES: [&str; 3] = [CONFIG_VARIABLE, "OUTHAUL_PYTHON", "OUTHAUL_URL"];
