//! The flags that set settings, shared by the commands that start a server or show its settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::Problems;
use crate::config::{CONFIG_VARIABLE, Config, Sources, read_file};

/// Each flag wins over its variable, which wins over its key in `outhaul.toml`.
#[derive(Debug, Default, Args)]
pub(super) struct ServerFlags {
    /// Folders of models, models' folders, .onnx files, and URLs such as s3://bucket/models [default:
    /// models] [variable: OUTHAUL_MODELS]
    #[arg(value_name = "PATH")]
    paths: Vec<String>,

    /// The file of settings [default: outhaul.toml, where there is one] [variable: OUTHAUL_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to serve HTTP: an address, a port alone for this machine only, or off [default:
    /// 127.0.0.1:8080] [variable: OUTHAUL_HTTP]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,

    /// Where to serve gRPC, likewise [default: 127.0.0.1:8081] [variable: OUTHAUL_GRPC]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<String>,

    /// The engine of models that declare none: auto, onnxruntime or embedded [default: auto]
    /// [variable: OUTHAUL_ENGINE]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,

    /// ONNX Runtime's library, or its folder [default: searched for] [variable:
    /// OUTHAUL_ONNXRUNTIME]
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<String>,

    /// How changes of the models are found out: watch (events and polling), poll, explicit (only what
    /// is asked for is loaded) or once [default: watch] [variable: OUTHAUL_MODE]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// A model that explicit mode loads at the start; may be given several times [variable:
    /// OUTHAUL_LOAD_MODELS]
    #[arg(long, value_name = "NAME")]
    load_model: Vec<String>,

    /// How often models are looked for [default: 30s] [variable: OUTHAUL_POLL_INTERVAL]
    #[arg(long, value_name = "TIME")]
    poll_interval: Option<String>,

    /// How long a version's files must have been left alone before it is loaded [default: 1s]
    /// [variable: OUTHAUL_SETTLE]
    #[arg(long, value_name = "TIME")]
    settle: Option<String>,

    /// The memory that models may take; with it they are loaded on request, and those used longest
    /// ago go [default: no limit, everything is loaded] [variable: OUTHAUL_MEMORY_BUDGET]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<String>,

    /// How long a model stays in memory at least before it makes room for others [default: 100ms]
    /// [variable: OUTHAUL_MIN_RESIDENCY]
    #[arg(long, value_name = "TIME")]
    min_residency: Option<String>,

    /// Where files from object stores are kept [default: the user's cache folder] [variable:
    /// OUTHAUL_CACHE_DIR]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<String>,

    /// How much is kept there; files that were used longest ago and are not in use go [default: no
    /// limit] [variable: OUTHAUL_CACHE_CAPACITY]
    #[arg(long, value_name = "SIZE")]
    cache_capacity: Option<String>,

    /// Where it is kept what was asked for: sqlite:FILE, postgres://..., or off [default: a file in
    /// the user's data folder] [variable: OUTHAUL_STATE]
    #[arg(long, value_name = "URL")]
    state: Option<String>,

    /// The model of calls that name none, such as POST /invocations [default: the only one]
    /// [variable: OUTHAUL_DEFAULT_MODEL]
    #[arg(long, value_name = "NAME")]
    default_model: Option<String>,

    /// Where the requests for each name go, as JSON; usually [routes.NAME] in the file [default: to the
    /// model of that name] [variable: OUTHAUL_ROUTES]
    #[arg(long, value_name = "JSON")]
    routes: Option<String>,

    /// What callers may do, as JSON; usually [callers.NAME] in the file [default: all are equal]
    /// [variable: OUTHAUL_CALLERS]
    #[arg(long, value_name = "JSON")]
    callers: Option<String>,

    /// The header that says who asks [default: x-outhaul-caller] [variable: OUTHAUL_CALLER_HEADER]
    #[arg(long, value_name = "NAME")]
    caller_header: Option<String>,

    /// The Redis that answers are kept in, for models whose cache says so [variable: OUTHAUL_CACHE_REDIS]
    #[arg(long, value_name = "URL")]
    cache_redis: Option<String>,

    /// The largest request, also after decompression [default: 64MiB] [variable:
    /// OUTHAUL_MAX_BODY_BYTES]
    #[arg(long, value_name = "SIZE")]
    max_body_bytes: Option<String>,

    /// The longest head of a request [default: 64KiB] [variable: OUTHAUL_MAX_HEAD_BYTES]
    #[arg(long, value_name = "SIZE")]
    max_head_bytes: Option<String>,

    /// The most memory that one tensor of a request may take [default: 1GiB] [variable:
    /// OUTHAUL_MAX_TENSOR_BYTES]
    #[arg(long, value_name = "SIZE")]
    max_tensor_bytes: Option<String>,

    /// The most rows of one request, where a contract speaks of rows [default: 65536] [variable:
    /// OUTHAUL_MAX_ROWS]
    #[arg(long, value_name = "NUMBER")]
    max_rows: Option<String>,

    /// The most connections of each listener at a time [default: 4096] [variable:
    /// OUTHAUL_MAX_CONNECTIONS]
    #[arg(long, value_name = "NUMBER")]
    max_connections: Option<String>,

    /// How long the head of a request may take to come [default: 10s] [variable:
    /// OUTHAUL_HEAD_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    head_timeout: Option<String>,

    /// How long the body of a request may take to come, with a second more for every 64KiB that came
    /// [default: 30s] [variable: OUTHAUL_BODY_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    body_timeout: Option<String>,

    /// How long an HTTP connection may be open without a request [default: 75s] [variable:
    /// OUTHAUL_IDLE_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,

    /// How long a request may take; callers and models can only shorten it [default: as the model
    /// says] [variable: OUTHAUL_REQUEST_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    request_timeout: Option<String>,

    /// How long requests may take to finish after Ctrl-C or SIGTERM [default: 30s] [variable:
    /// OUTHAUL_DRAIN_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    drain_timeout: Option<String>,

    /// The path that Vertex AI sends predictions to [default: none] [variables: AIP_PREDICT_ROUTE,
    /// OUTHAUL_VERTEX_PREDICT_ROUTE]
    #[arg(long, value_name = "PATH")]
    vertex_predict_route: Option<String>,

    /// The path that Vertex AI asks for the server's health [default: none] [variables:
    /// AIP_HEALTH_ROUTE, OUTHAUL_VERTEX_HEALTH_ROUTE]
    #[arg(long, value_name = "PATH")]
    vertex_health_route: Option<String>,

    /// The folder in which SageMaker puts models before it asks for them with POST /models [default:
    /// none] [variables: SAGEMAKER_MULTI_MODEL, OUTHAUL_SAGEMAKER_MODELS_DIR]
    #[arg(long, value_name = "FOLDER")]
    sagemaker_models_dir: Option<String>,

    /// How log lines look: text or json [default: text] [variable: OUTHAUL_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// What is logged: off, error, warn, info, debug or trace [default: info] [variable:
    /// OUTHAUL_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Whether every request is logged: true or false, true where neither is given [default: false]
    /// [variable: OUTHAUL_LOG_REQUESTS]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    log_requests: Option<String>,

    /// Where to send traces, as OTLP over gRPC [default: nowhere] [variable:
    /// OUTHAUL_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

impl ServerFlags {
    /// Reads the settings from everywhere, and notes what looks like a mistake but is none.
    pub(super) fn resolve(&self) -> Result<(Config, Vec<String>)> {
        let named = self.config.clone().or_else(|| {
            std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
        });
        let file = read_file(named.as_deref());
        let sources = Sources::new(file, std::env::vars_os(), self.given());
        let notes = sources.suspicious_variables();
        let config = Config::resolve(sources).map_err(Problems)?;
        Ok((config, notes))
    }

    /// Returns the flags that were given, by the key that each sets.
    fn given(&self) -> BTreeMap<&'static str, Vec<String>> {
        let flags = [
            ("listen.http", &self.http),
            ("listen.grpc", &self.grpc),
            ("engine", &self.engine),
            ("onnxruntime", &self.onnxruntime),
            ("repository.mode", &self.mode),
            ("repository.poll_interval", &self.poll_interval),
            ("repository.settle", &self.settle),
            ("repository.memory_budget", &self.memory_budget),
            ("repository.min_residency", &self.min_residency),
            ("repository.cache_dir", &self.cache_dir),
            ("repository.cache_capacity", &self.cache_capacity),
            ("state", &self.state),
            ("default_model", &self.default_model),
            ("routes", &self.routes),
            ("callers", &self.callers),
            ("limits.caller_header", &self.caller_header),
            ("cache.redis", &self.cache_redis),
            ("limits.max_body_bytes", &self.max_body_bytes),
            ("limits.max_head_bytes", &self.max_head_bytes),
            ("limits.max_tensor_bytes", &self.max_tensor_bytes),
            ("limits.max_rows", &self.max_rows),
            ("limits.max_connections", &self.max_connections),
            ("limits.head_timeout", &self.head_timeout),
            ("limits.body_timeout", &self.body_timeout),
            ("limits.idle_timeout", &self.idle_timeout),
            ("limits.request_timeout", &self.request_timeout),
            ("limits.drain_timeout", &self.drain_timeout),
            ("vertex.predict_route", &self.vertex_predict_route),
            ("vertex.health_route", &self.vertex_health_route),
            ("sagemaker.models_dir", &self.sagemaker_models_dir),
            ("log.format", &self.log_format),
            ("log.level", &self.log_level),
            ("log.requests", &self.log_requests),
            ("trace.otlp_endpoint", &self.otlp_endpoint),
        ];
        let mut given: BTreeMap<_, _> = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key, vec![value.clone()?])))
            .collect();
        if !self.load_model.is_empty() {
            given.insert("repository.load", self.load_model.clone());
        }
        if !self.paths.is_empty() {
            given.insert("models", self.paths.clone());
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::SETTINGS;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        flags: ServerFlags,
    }

    #[test]
    fn every_setting_has_its_flag() {
        let mut line = vec!["test".to_owned(), "PATH".to_owned()];
        for setting in SETTINGS.iter().filter(|setting| setting.flag.starts_with("--")) {
            line.push(format!("{}={}", setting.flag, setting.key));
        }
        let flags = Flags::try_parse_from(line).unwrap().flags;
        let mut expected: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        expected.sort_unstable();
        let given = flags.given();
        assert_eq!(given.keys().copied().collect::<Vec<_>>(), expected);
        for (key, values) in given.iter().filter(|(key, _)| **key != "models") {
            assert_eq!(values, &[*key], "the flag sets its own key");
        }
    }

    #[test]
    fn requests_are_logged_without_saying_true() {
        let flags = Flags::try_parse_from(["test", "--log-requests", "PATH"]).unwrap().flags;
        assert_eq!(flags.given()["log.requests"], ["true"]);
        assert_eq!(flags.given()["models"], ["PATH"]);
    }
}
