//! `outhaul serve`: listeners in front of models, from the start to the end of the process.
//!
//! The listeners are up before the models are loaded, so that a load balancer can ask whether the
//! server is ready. A server that has nothing to serve at all ends with an error.

mod report;
mod traffic;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use outhaul::types::error_chain;
use outhaul::{
    Engines, Keeping, Mode, OpenOptions, Place, Problem, RepositoryConfig, Router, VersionStatus,
};
use outhaul_monitor::logging::{self, LogConfig};
use outhaul_monitor::trace::TraceConfig;
use outhaul_monitor::{Monitor, Tracer};
use outhaul_protocol::DecodeLimits;
use outhaul_router::Standing;
use outhaul_server::grpc::GrpcConfig;
use outhaul_server::http::{HttpConfig, VertexRoutes};
use outhaul_server::{App, AppConfig, CallerHeader};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::Problems;
use super::server_flags::ServerFlags;
use crate::allocator;
use crate::config::{Config, Listen, Origin, Sourced, StateChoice};

/// Serves models over HTTP and gRPC until Ctrl-C or SIGTERM.
///
/// PATH is a folder of models (NAME/VERSION/model.onnx or NAME/model.onnx), one model's folder, an
/// .onnx file, a Triton, MLflow or TensorFlow Serving folder, or the URL of such a folder in an object
/// store. The newest version of each model is served, unless its model.toml says otherwise; what is
/// added or changed is loaded beside the old and takes over when it is ready. A model that cannot be
/// served stops no other.
///
/// Only this machine can reach the server, unless an address says otherwise. On Ctrl-C or SIGTERM
/// requests in flight are finished; a second Ctrl-C ends them.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul serve                                    the models in ./models
  outhaul serve models more/reviews extra.onnx     several places
  outhaul serve models --http 0.0.0.0:8080         for other machines too
  outhaul serve models --grpc off --log-format json
  outhaul serve s3://bucket/models                 a bucket, credentials from the environment
  outhaul serve models --memory-budget 4GiB        hundreds of models, loaded on request
  outhaul serve models --mode explicit --load-model iris

Every flag can also be set in outhaul.toml; see outhaul config show --origin.")]
pub(super) struct Serve {
    #[command(flatten)]
    flags: ServerFlags,
}

impl Serve {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let (config, notes) = self.flags.resolve()?;
        start_logging(&config, &notes)?;
        let engines = Engines::find(config.onnxruntime.value.as_deref())?;
        runtime()?.block_on(async {
            let mut signals = Signals::new()?;
            let mut running = Running::start(&config, engines).await?;
            running.report_addresses(out)?;
            tokio::select! {
                loaded = running.load() => loaded?,
                signal = signals.next() => return running.drain(signal, &mut signals).await,
            }
            running.report_models(out)?;
            running.until_stopped(&mut signals).await
        })
    }
}

pub(super) fn start_logging(config: &Config, notes: &[String]) -> Result<()> {
    let format = config.log_format.value;
    let mut filter = config.log_level.value.clone();
    if filter == "info" {
        // It tells of every attempt that it repeats; what comes of them is told as a problem.
        filter.push_str(",object_store=warn");
    }
    logging::init(&LogConfig { format, filter })?;
    for note in notes {
        tracing::warn!("{note}");
    }
    Ok(())
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the server's threads")
}

/// Ctrl-C and SIGTERM.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals from here on. Must be called inside the runtime.
    #[cfg(unix)]
    pub(super) fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    pub(super) fn new() -> Result<Self> {
        Ok(Signals {})
    }

    /// Waits for the next one and returns its name.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

/// A server whose listeners are up.
pub(super) struct Running {
    /// Where HTTP is served.
    pub(super) http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    /// Answers predictions.
    pub(super) router: Arc<Router>,
    problems: Vec<Problem>,
    loading: Option<oneshot::Receiver<Vec<Problem>>>,
    stop: watch::Sender<bool>,
    servers: JoinSet<Result<()>>,
    tracer: Option<Arc<Tracer>>,
    drain_timeout: std::time::Duration,
    memory_budget: Option<u64>,
    mode: Mode,
    managed: traffic::Managed,
}

impl Running {
    /// Opens the listeners and begins to load the models.
    pub(super) async fn start(config: &Config, engines: Engines) -> Result<Self> {
        // Before anything is loaded: a port in use is told at once.
        let http = listen("HTTP", &config.http, "--http").await?;
        let grpc = listen("gRPC", &config.grpc, "--grpc").await?;
        let monitor = Arc::new(Monitor::new());
        let tracer = match &config.otlp_endpoint.value {
            Some(endpoint) => Some(Tracer::start(&TraceConfig::new(endpoint.clone()))?),
            None => None,
        };
        if let Some(tracer) = &tracer {
            monitor.set_tracer(Arc::clone(tracer));
        }
        let options = open_options(config);
        // The state store is opened here, which waits for a disk or a database.
        let router = tokio::task::block_in_place(|| outhaul::prepare(&options, engines, monitor))?;
        let (send, receive) = oneshot::channel();
        let loading = Arc::clone(&router);
        // Not on the runtime: it waits as long as loading takes, and must not hold up the end of the
        // process.
        std::thread::Builder::new()
            .name("until-loaded".to_owned())
            // Nobody waits any more where the server was told to stop meanwhile.
            .spawn(move || drop(send.send(outhaul::loaded(&loading))))
            .context("cannot start a thread")?;
        let managed = traffic::Managed::start(config, &router).await?;
        let app = App::new(Arc::clone(&router), app_config(config));
        app.manage(Arc::clone(&managed.traffic), Arc::clone(&managed.experiments));
        let mut running = Running {
            http: address(http.as_ref())?,
            grpc: address(grpc.as_ref())?,
            router,
            problems: Vec::new(),
            loading: Some(receive),
            stop: watch::Sender::new(false),
            servers: JoinSet::new(),
            tracer,
            drain_timeout: config.drain_timeout.value,
            memory_budget: config.memory_budget.value,
            mode: config.mode.value,
            managed,
        };
        running.spawn_servers(config, &app, http, grpc);
        Ok(running)
    }

    fn spawn_servers(
        &mut self,
        config: &Config,
        app: &Arc<App>,
        http: Option<TcpListener>,
        grpc: Option<TcpListener>,
    ) {
        let stopped = || {
            let mut stop = self.stop.subscribe();
            // The sender is gone only where the server is, too.
            async move { drop(stop.wait_for(|stop| *stop).await) }
        };
        if let Some(listener) = http {
            let limits = http_config(config);
            let (app, stopped) = (Arc::clone(app), stopped());
            self.servers.spawn(async move {
                Ok(outhaul_server::http::serve(listener, app, limits, stopped).await?)
            });
        }
        if let Some(listener) = grpc {
            let limits = grpc_config(config);
            let (app, stopped) = (Arc::clone(app), stopped());
            self.servers.spawn(async move {
                if let Err(error) =
                    outhaul_server::grpc::serve(listener, app, limits, stopped).await
                {
                    // The process ends all the same; this is no failure of the command.
                    tracing::warn!("{error}");
                }
                Ok(())
            });
        }
    }

    /// Waits until every model answers or has failed.
    ///
    /// # Errors
    ///
    /// Fails where none answers.
    pub(super) async fn load(&mut self) -> Result<()> {
        if let Some(loading) = &mut self.loading {
            self.problems = loading.await.map_err(|_| anyhow!("loading the models failed"))?;
            self.loading = None;
        }
        let models = self.router.models();
        // What is loaded on request, or when somebody asks for it, is enough to serve.
        let waits = |version: &VersionStatus| {
            matches!(version.standing, Standing::Dormant | Standing::Unloaded)
        };
        let only_asked = self.mode == Mode::Explicit || self.router.added().is_some();
        match only_asked || models.iter().any(|version| version.ready.is_some() || waits(version)) {
            true => Ok(()),
            false => Err(Problems(std::mem::take(&mut self.problems)).into()),
        }
    }

    pub(super) fn report_addresses(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "outhaul {}", env!("CARGO_PKG_VERSION"))?;
        if let Some(http) = self.http {
            writeln!(out, "  HTTP  http://{http}")?;
        }
        if let Some(grpc) = self.grpc {
            writeln!(out, "  gRPC  {grpc}")?;
        }
        out.flush()?;
        Ok(())
    }

    pub(super) fn report_models(&self, out: &mut impl Write) -> Result<()> {
        let budget = self.memory_budget;
        out.write_all(report::models(&self.router.models(), budget).as_bytes())?;
        out.write_all(report::problems(&self.problems).as_bytes())?;
        writeln!(out, "\nReady. Ctrl-C stops.")?;
        out.flush()?;
        Ok(())
    }

    /// Serves until a signal comes, then ends in order.
    pub(super) async fn until_stopped(mut self, signals: &mut Signals) -> Result<()> {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            Some(ended) = self.servers.join_next() => {
                ended.context("a listener failed")??;
                bail!("a listener ended by itself");
            }
        };
        self.drain(signal, signals).await
    }

    /// Accepts no more, and waits for what is in flight.
    async fn drain(mut self, signal: &str, signals: &mut Signals) -> Result<()> {
        let limit = humantime::format_duration(self.drain_timeout);
        tracing::info!("{signal}: requests in flight have {limit} to finish; Ctrl-C ends them");
        let began = std::time::Instant::now();
        self.stop.send_replace(true);
        let finished = async {
            while let Some(ended) = self.servers.join_next().await {
                ended.context("a listener failed")??;
            }
            self.managed.stop().await;
            if let Some(tracer) = &self.tracer
                && let Err(error) = tracer.shutdown().await
            {
                tracing::warn!("{}", error_chain(&error));
            }
            anyhow::Ok(())
        };
        tokio::select! {
            finished = finished => finished?,
            _ = signals.next() => std::process::exit(130),
        }
        if began.elapsed() >= self.drain_timeout {
            // A model may still compute what nobody waits for any more, and cannot be interrupted:
            // the end of the process does not wait for it either.
            tracing::warn!("stopped after {limit} with requests unfinished");
            std::process::exit(0);
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn open_options(config: &Config) -> OpenOptions {
    let keeping = match (&config.state.value, outhaul::state_file()) {
        (StateChoice::Url(url), _) => Keeping::Url(url.clone()),
        (StateChoice::Default, Some(file)) => Keeping::File(file),
        (StateChoice::Off, _) | (StateChoice::Default, None) => Keeping::Nothing,
    };
    let places = config.models.value.iter().cloned().map(Place::from).collect();
    // SageMaker starts a multi-model server with nothing to serve; `models` is then nobody's wish.
    let starts_empty =
        config.sagemaker_models_dir.value.is_some() && config.models.origin == Origin::Default;
    OpenOptions {
        places: if starts_empty { Vec::new() } else { places },
        onnxruntime: config.onnxruntime.value.clone(),
        engine: config.engine.value,
        version: None,
        repository: RepositoryConfig {
            mode: config.mode.value,
            poll_interval: config.poll_interval.value,
            memory_budget: config.memory_budget.value,
            min_residency: config.min_residency.value,
            settle: config.settle.value,
            load_at_start: config.load_models.value.clone(),
            ..RepositoryConfig::default()
        },
        keeping,
        cache: config.cache_dir.value.clone(),
        cache_capacity: config.cache_capacity.value,
        meter: allocator::memory_meter(),
        added_below: config.sagemaker_models_dir.value.clone(),
        keeps_answers: true,
        cache_redis: config.cache_redis.value.clone(),
        callers: config.callers.value.clone(),
    }
}

fn app_config(config: &Config) -> AppConfig {
    let (max_tensor_bytes, max_rows) = (config.max_tensor_bytes.value, config.max_rows.value);
    AppConfig {
        decode_limits: DecodeLimits { max_tensor_bytes, max_rows, ..DecodeLimits::default() },
        log_requests: config.log_requests.value,
        caller_header: caller_header(config),
    }
}

/// The setting has been checked to be the name of a header.
fn caller_header(config: &Config) -> CallerHeader {
    let name = http::HeaderName::from_bytes(config.caller_header.value.as_bytes());
    name.map(CallerHeader).unwrap_or_default()
}

fn http_config(config: &Config) -> HttpConfig {
    HttpConfig {
        max_connections: config.max_connections.value,
        max_head_bytes: config.max_head_bytes.value as usize,
        max_body_bytes: config.max_body_bytes.value,
        head_timeout: config.head_timeout.value,
        body_timeout: config.body_timeout.value,
        idle_timeout: config.idle_timeout.value,
        request_timeout: config.request_timeout.value,
        drain_timeout: config.drain_timeout.value,
        vertex: vertex_routes(config),
        default_model: config.default_model.value.as_ref().map(|name| name.as_str().into()),
        ..HttpConfig::default()
    }
}

/// Where Vertex AI asks; it needs both paths, and one that is not named is as it is for models that
/// bring no container.
fn vertex_routes(config: &Config) -> Option<VertexRoutes> {
    let (predict, health) = (&config.vertex_predict_route, &config.vertex_health_route);
    if predict.value.is_none() && health.value.is_none() {
        return None;
    }
    let or = |route: &Option<String>, default: &str| route.clone().unwrap_or(default.to_owned());
    Some(VertexRoutes {
        predict: or(&predict.value, "/predict"),
        health: or(&health.value, "/health"),
    })
}

fn grpc_config(config: &Config) -> GrpcConfig {
    GrpcConfig {
        max_connections: config.max_connections.value,
        max_head_bytes: config.max_head_bytes.value,
        max_message_bytes: config.max_body_bytes.value,
        head_timeout: config.head_timeout.value,
        body_timeout: config.body_timeout.value,
        request_timeout: config.request_timeout.value,
        drain: config.drain_timeout.value,
        ..GrpcConfig::default()
    }
}

async fn listen(what: &str, setting: &Sourced<Listen>, flag: &str) -> Result<Option<TcpListener>> {
    let Some(address) = setting.value.address() else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => "another program listens there: stop it, or choose",
                io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose",
                _ => "choose",
            };
            let from = &setting.origin;
            Err(error).with_context(|| {
                format!("cannot serve {what} on {address} ({from}); {remedy} another with {flag}")
            })
        }
    }
}

fn address(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>> {
    listener.map(TcpListener::local_addr).transpose().context("cannot tell the port")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Sources;

    #[tokio::test]
    async fn a_port_in_use_is_told_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let flags = BTreeMap::from([("listen.http", vec![address.to_string()])]);
        let config = Config::resolve(Sources::new(None, Vec::new(), flags)).unwrap();
        let error = listen("HTTP", &config.http, "--http").await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "cannot serve HTTP on {address} (flag --http); another program listens there: stop \
                 it, or choose another with --http"
            )
        );
    }
}
