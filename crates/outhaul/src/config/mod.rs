//! The server's settings: default < `outhaul.toml` < a managed
//! platform's variables < environment < flag, with the origin of each.
//!
//! Invariant: a [`Config`] is valid as a whole; nothing downstream checks again. Reading is a pure
//! function of the file's text, the environment and the flags, and collects every problem of all
//! three before it fails.
//!
//! What is declared beside a model is not here: see `repository`.

mod convert;
mod platform;
mod settings;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use outhaul_monitor::logging::LogFormat;
use outhaul_repository::{Mode, Problem};
use outhaul_types::{CallerSpec, EngineChoice, ModelName, Name, RouteSpec};
use serde_json::{Value as Json, json};
#[cfg(test)]
pub(crate) use settings::ALL as SETTINGS;
pub(crate) use settings::{CONFIG_VARIABLE, OTHER_VARIABLES};
pub(crate) use sources::{Sources, read_file};

/// The name of the file that is read from the working folder where no other is named.
pub(crate) const CONFIG_FILE: &str = "outhaul.toml";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File {
        /// The file as it was named.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, line } => write!(f, "{}:{line}", file.display()),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    /// The value that holds.
    pub(crate) value: T,
    /// Who set it.
    pub(crate) origin: Origin,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// On this address; port 0 takes a free one.
    On(SocketAddr),
}

impl Listen {
    /// Returns the address, where there is one.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Listen::Off => None,
            Listen::On(address) => Some(address),
        }
    }
}

/// All settings of the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Folders of models, models' folders and model files. Default: `models`.
    pub(crate) models: Sourced<Vec<PathBuf>>,
    /// The engine of models that declare none. Default: auto.
    pub(crate) engine: Sourced<EngineChoice>,
    /// The library of ONNX Runtime. Default: searched for.
    pub(crate) onnxruntime: Sourced<Option<PathBuf>>,
    /// How changes of the models are found out. Default: watch.
    pub(crate) mode: Sourced<Mode>,
    /// Models that explicit mode loads at the start. Default: those that were asked for before.
    pub(crate) load_models: Sourced<BTreeSet<ModelName>>,
    /// How often models are looked for without any sign of a change. Default: 30 s.
    pub(crate) poll_interval: Sourced<Duration>,
    /// How long files must have been left alone before they count as whole. Default: 1 s.
    pub(crate) settle: Sourced<Duration>,
    /// Bytes that models may take in memory; set, they are loaded on request. Default: no limit.
    pub(crate) memory_budget: Sourced<Option<u64>>,
    /// How long a version stays in memory at least before it is evicted. Default: 100 ms.
    pub(crate) min_residency: Sourced<Duration>,
    /// Where files from object stores are kept. Default: the user's cache folder.
    pub(crate) cache_dir: Sourced<Option<PathBuf>>,
    /// How many bytes of files are kept there that are not in use. Default: no limit.
    pub(crate) cache_capacity: Sourced<Option<u64>>,
    /// Where it is kept what was asked for. Default: a SQLite file in the user's data folder.
    pub(crate) state: Sourced<StateChoice>,
    /// The model of calls that name none. Default: the only one.
    pub(crate) default_model: Sourced<Option<ModelName>>,
    /// Where the requests for each name go. Default: to the model of that name.
    pub(crate) routes: Sourced<BTreeMap<ModelName, RouteSpec>>,
    /// What callers may do. Default: all are equal and unlimited.
    pub(crate) callers: Sourced<BTreeMap<Name, CallerSpec>>,
    /// Where HTTP is served. Default: `127.0.0.1:8080`.
    pub(crate) http: Sourced<Listen>,
    /// Where gRPC is served. Default: `127.0.0.1:8081`.
    pub(crate) grpc: Sourced<Listen>,
    /// The largest request, in bytes, before and after decompression. Default: 64 MiB.
    pub(crate) max_body_bytes: Sourced<usize>,
    /// The longest head of a request, in bytes. Default: 64 KiB.
    pub(crate) max_head_bytes: Sourced<u32>,
    /// The most memory that the elements of one tensor may take, in bytes. Default: 1 GiB.
    pub(crate) max_tensor_bytes: Sourced<usize>,
    /// The most rows of one request of the contracts of rows. Default: 65536.
    pub(crate) max_rows: Sourced<usize>,
    /// The most connections at a time, of each listener. Default: 4096.
    pub(crate) max_connections: Sourced<usize>,
    /// How long the head of a request may take to come. Default: 10 s.
    pub(crate) head_timeout: Sourced<Duration>,
    /// How long the body of a request may take to come; a client that keeps the pace has longer.
    /// Default: 30 s.
    pub(crate) body_timeout: Sourced<Duration>,
    /// How long an HTTP connection may be open without a request. Default: 75 s.
    pub(crate) idle_timeout: Sourced<Duration>,
    /// How long a request may take from its head to its answer. Default: as its model says.
    pub(crate) request_timeout: Sourced<Option<Duration>>,
    /// How long requests may take to finish after the server was told to stop. Default: 30 s.
    pub(crate) drain_timeout: Sourced<Duration>,
    /// The header that says who asks. Default: `x-outhaul-caller`.
    pub(crate) caller_header: Sourced<String>,
    /// The Redis that answers are kept in, for models that say so. Default: none.
    pub(crate) cache_redis: Sourced<Option<String>>,
    /// Where Vertex AI sends predictions. Default: nowhere.
    pub(crate) vertex_predict_route: Sourced<Option<String>>,
    /// Where Vertex AI asks whether the server is well. Default: nowhere.
    pub(crate) vertex_health_route: Sourced<Option<String>>,
    /// Where SageMaker puts models that it then asks to be loaded. Default: it does not.
    pub(crate) sagemaker_models_dir: Sourced<Option<PathBuf>>,
    /// How log lines look. Default: text.
    pub(crate) log_format: Sourced<LogFormat>,
    /// What is logged: a level or `target=level` pairs. Default: info.
    pub(crate) log_level: Sourced<String>,
    /// Whether every request is logged. Default: no.
    pub(crate) log_requests: Sourced<bool>,
    /// Where traces are sent, as OTLP over gRPC. Default: nowhere.
    pub(crate) otlp_endpoint: Sourced<Option<String>>,
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    ///
    /// Fails with every problem of every source.
    pub(crate) fn resolve(mut sources: Sources) -> Result<Config, Vec<Problem>> {
        use settings as of;
        let loopback = |port| Listen::On(SocketAddr::from(([127, 0, 0, 1], port)));
        let seconds = Duration::from_secs;
        let config = Config {
            models: sources.take(&of::MODELS, vec![PathBuf::from("models")], convert::paths),
            engine: sources.take(&of::ENGINE, EngineChoice::Auto, convert::engine),
            onnxruntime: sources.take(&of::ONNXRUNTIME, None, convert::path),
            mode: sources.take(&of::MODE, Mode::Watch, convert::mode),
            load_models: sources.take(&of::LOAD_MODELS, BTreeSet::new(), convert::models),
            poll_interval: sources.take(&of::POLL_INTERVAL, seconds(30), convert::interval),
            settle: sources.take(&of::SETTLE, seconds(1), convert::residency),
            memory_budget: sources.take(&of::MEMORY_BUDGET, None, convert::budget),
            min_residency: sources.take(
                &of::MIN_RESIDENCY,
                Duration::from_millis(100),
                convert::residency,
            ),
            cache_dir: sources.take(&of::CACHE_DIR, None, convert::folder),
            cache_capacity: sources.take(&of::CACHE_CAPACITY, None, convert::budget),
            state: sources.take(&of::STATE, StateChoice::Default, convert::state),
            default_model: sources.take(&of::DEFAULT_MODEL, None, convert::model),
            routes: sources.take(&of::ROUTES, BTreeMap::new(), convert::routes),
            callers: sources.take(&of::CALLERS, BTreeMap::new(), convert::callers),
            http: sources.take(&of::HTTP, loopback(8080), convert::listen),
            grpc: sources.take(&of::GRPC, loopback(8081), convert::listen),
            max_body_bytes: sources.take(&of::MAX_BODY_BYTES, 64 << 20, convert::body_size),
            max_head_bytes: sources.take(&of::MAX_HEAD_BYTES, 64 << 10, convert::head_size),
            max_tensor_bytes: sources.take(&of::MAX_TENSOR_BYTES, 1 << 30, convert::body_size),
            max_rows: sources.take(&of::MAX_ROWS, 65_536, convert::rows),
            max_connections: sources.take(&of::MAX_CONNECTIONS, 4096, convert::connections),
            head_timeout: sources.take(&of::HEAD_TIMEOUT, seconds(10), convert::timeout),
            body_timeout: sources.take(&of::BODY_TIMEOUT, seconds(30), convert::timeout),
            idle_timeout: sources.take(&of::IDLE_TIMEOUT, seconds(75), convert::timeout),
            request_timeout: sources.take(&of::REQUEST_TIMEOUT, None, convert::optional_timeout),
            drain_timeout: sources.take(&of::DRAIN_TIMEOUT, seconds(30), convert::drain_timeout),
            caller_header: sources.take(
                &of::CALLER_HEADER,
                "x-outhaul-caller".to_owned(),
                convert::header,
            ),
            cache_redis: sources.take(&of::CACHE_REDIS, None, convert::redis),
            vertex_predict_route: sources.take(&of::VERTEX_PREDICT_ROUTE, None, convert::route),
            vertex_health_route: sources.take(&of::VERTEX_HEALTH_ROUTE, None, convert::route),
            sagemaker_models_dir: sources.take(
                &of::SAGEMAKER_MODELS_DIR,
                None,
                convert::models_dir,
            ),
            log_format: sources.take(&of::LOG_FORMAT, LogFormat::Text, convert::log_format),
            log_level: sources.take(&of::LOG_LEVEL, "info".to_owned(), convert::log_level),
            log_requests: sources.take(&of::LOG_REQUESTS, false, convert::truth),
            otlp_endpoint: sources.take(&of::OTLP_ENDPOINT, None, convert::endpoint),
        };
        let mut problems = sources.into_problems();
        problems.extend(config.contradictions());
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Rules that span settings.
    fn contradictions(&self) -> Option<Problem> {
        let problem = |rule: String, remedy: &str| {
            let place = format!("{} ({})", settings::GRPC.key, self.grpc.origin);
            Problem::of_place(place, rule, remedy)
        };
        match (self.http.value, self.grpc.value) {
            (Listen::Off, Listen::Off) => {
                let rule =
                    format!("{} is off too, so there is nothing to serve", settings::HTTP.key);
                Some(problem(rule, "turn one of them on"))
            }
            (Listen::On(http), Listen::On(grpc)) if http == grpc && http.port() != 0 => {
                let rule = format!("{} is {http} too", settings::HTTP.key);
                Some(problem(rule, "give each its own port"))
            }
            _ => None,
        }
    }

    /// Returns every setting as key, value as TOML would write it (`None` where it is unset), and
    /// origin.
    pub(crate) fn rows(&self) -> Vec<(&'static str, Option<Json>, &Origin)> {
        fn row<'c, T>(
            setting: &settings::Setting,
            sourced: &'c Sourced<T>,
            value: impl FnOnce(&T) -> Option<Json>,
        ) -> (&'static str, Option<Json>, &'c Origin) {
            (setting.key, value(&sourced.value), &sourced.origin)
        }
        let listen = |listen: &Listen| {
            Some(match listen {
                Listen::Off => json!("off"),
                Listen::On(address) => json!(address.to_string()),
            })
        };
        let bytes = |bytes: &usize| Some(json!(bytes));
        let duration =
            |duration: &Duration| Some(json!(humantime::format_duration(*duration).to_string()));
        vec![
            row(&settings::MODELS, &self.models, |paths| Some(json!(paths))),
            row(&settings::ENGINE, &self.engine, |engine| Some(json!(engine_name(*engine)))),
            row(&settings::ONNXRUNTIME, &self.onnxruntime, |path| path.as_ref().map(|p| json!(p))),
            row(&settings::STATE, &self.state, |state| match state {
                StateChoice::Default => None,
                StateChoice::Off => Some(json!("off")),
                StateChoice::Url(url) => Some(json!(without_password(url))),
            }),
            row(&settings::DEFAULT_MODEL, &self.default_model, |name| {
                name.as_ref().map(|name| json!(name.as_str()))
            }),
            row(&settings::ROUTES, &self.routes, |routes| {
                (!routes.is_empty()).then(|| json!(routes))
            }),
            row(&settings::CALLERS, &self.callers, |callers| {
                (!callers.is_empty()).then(|| json!(callers))
            }),
            row(&settings::MODE, &self.mode, |mode| Some(json!(mode_name(*mode)))),
            row(&settings::LOAD_MODELS, &self.load_models, |names| {
                let names: Vec<&str> = names.iter().map(ModelName::as_str).collect();
                (!names.is_empty()).then(|| json!(names))
            }),
            row(&settings::POLL_INTERVAL, &self.poll_interval, duration),
            row(&settings::SETTLE, &self.settle, duration),
            row(&settings::MEMORY_BUDGET, &self.memory_budget, |bytes| bytes.map(|b| json!(b))),
            row(&settings::MIN_RESIDENCY, &self.min_residency, duration),
            row(&settings::CACHE_DIR, &self.cache_dir, |path| path.as_ref().map(|p| json!(p))),
            row(&settings::CACHE_CAPACITY, &self.cache_capacity, |bytes| bytes.map(|b| json!(b))),
            row(&settings::HTTP, &self.http, listen),
            row(&settings::GRPC, &self.grpc, listen),
            row(&settings::MAX_BODY_BYTES, &self.max_body_bytes, bytes),
            row(&settings::MAX_HEAD_BYTES, &self.max_head_bytes, |bytes| Some(json!(bytes))),
            row(&settings::MAX_TENSOR_BYTES, &self.max_tensor_bytes, bytes),
            row(&settings::MAX_ROWS, &self.max_rows, |most| Some(json!(most))),
            row(&settings::MAX_CONNECTIONS, &self.max_connections, |most| Some(json!(most))),
            row(&settings::HEAD_TIMEOUT, &self.head_timeout, duration),
            row(&settings::BODY_TIMEOUT, &self.body_timeout, duration),
            row(&settings::IDLE_TIMEOUT, &self.idle_timeout, duration),
            row(&settings::REQUEST_TIMEOUT, &self.request_timeout, |timeout| {
                timeout.as_ref().and_then(duration)
            }),
            row(&settings::DRAIN_TIMEOUT, &self.drain_timeout, duration),
            row(&settings::CALLER_HEADER, &self.caller_header, |name| Some(json!(name))),
            row(&settings::CACHE_REDIS, &self.cache_redis, |url| {
                url.as_ref().map(|url| json!(without_password(url)))
            }),
            row(&settings::VERTEX_PREDICT_ROUTE, &self.vertex_predict_route, |r| {
                r.as_ref().map(|route| json!(route))
            }),
            row(&settings::VERTEX_HEALTH_ROUTE, &self.vertex_health_route, |r| {
                r.as_ref().map(|route| json!(route))
            }),
            row(&settings::SAGEMAKER_MODELS_DIR, &self.sagemaker_models_dir, |path| {
                path.as_ref().map(|path| json!(path))
            }),
            row(&settings::LOG_FORMAT, &self.log_format, |format| Some(json!(format.to_string()))),
            row(&settings::LOG_LEVEL, &self.log_level, |level| Some(json!(level))),
            row(&settings::LOG_REQUESTS, &self.log_requests, |truth| Some(json!(truth))),
            row(&settings::OTLP_ENDPOINT, &self.otlp_endpoint, |url| {
                url.as_ref().map(|u| json!(u))
            }),
        ]
    }
}

/// Where it is kept what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateChoice {
    /// In a SQLite file in the user's data folder, made when there is something to keep.
    Default,
    /// Nowhere.
    Off,
    /// In the store at this URL.
    Url(String),
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.split_once('@') {
        Some((account, rest)) => {
            let user = account.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{rest}")
        }
        None => url.to_owned(),
    }
}

/// Returns the name of a mode, as settings write it.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Watch => "watch",
        Mode::Poll => "poll",
        Mode::Explicit => "explicit",
        Mode::Once => "once",
    }
}

/// Returns the name of a choice, as manifests write it.
pub(crate) fn engine_name(engine: EngineChoice) -> &'static str {
    match engine {
        EngineChoice::Auto => "auto",
        EngineChoice::OnnxRuntime => "onnxruntime",
        EngineChoice::Embedded => "embedded",
    }
}

#[cfg(test)]
mod tests;
