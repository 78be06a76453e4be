//! Loading and unloading many times: does memory come back?
//!
//! A cycle is what the server does to a version in its life: read the file, load it in an engine, warm
//! it up, start its instances, publish it, answer a request, withdraw it, drop it. Several threads do
//! it at once, as the server loads. What is resident is compared after the first cycles, when pools
//! and caches have their size, and at the end.
//!
//! This program has the allocator and the settings of `outhaul` itself; without that it would say
//! nothing of the server.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use outhaul_engine::embedded::Embedded;
use outhaul_engine::{Engine, LoadOptions};
use outhaul_engine_ort::find_library;
use outhaul_monitor::Monitor;
use outhaul_repository::{Catalog, Resident, VersionState};
use outhaul_router::{Declared, Router, Served, ServedVersion, VersionPlan};
use outhaul_types::{
    DataType, Dimension, InferRequest, ModelManifest, ModelName, ModelSignature, ModelVersion,
    NamedTensor, RequestContext, Shape, ShapePattern, Tensor, TensorSpec,
};

use crate::table::Row;

/// Cycles before the first look.
const FIRST: usize = 100;

/// What may be resident at the end beside what was after the first cycles: the larger of the two.
const MOST_GROWTH: f64 = 0.05;
const MOST_GROWTH_MIB: f64 = 20.0;

/// How long the allocator is given to return what was freed: its own second, and some more.
const SETTLING: Duration = Duration::from_secs(4);

/// The size of dimensions that a model leaves open, but for the first, which is 1.
const OPEN_DIMENSION: usize = 8;

/// What to repeat, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file.
    #[arg(long, default_value = "examples/models/iris/1/model.onnx")]
    model: PathBuf,
    /// Loads and unloads in each engine.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Threads that load at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only this engine: onnxruntime or embedded.
    #[arg(long)]
    engine: Option<String>,
}

/// Returns a row for each engine.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    if arguments.count <= FIRST {
        bail!("--count must be above {FIRST}");
    }
    let onnxruntime = find_library(None).open()?.context("ONNX Runtime was not found")?;
    let engines: [Arc<dyn Engine>; 2] = [onnxruntime, Arc::new(Embedded)];
    let wanted = |engine: &Arc<dyn Engine>| {
        arguments.engine.as_ref().is_none_or(|name| engine.name() == name)
    };
    engines.into_iter().filter(wanted).map(|engine| of_engine(engine, arguments)).collect()
}

fn of_engine(engine: Arc<dyn Engine>, arguments: &Arguments) -> anyhow::Result<Row> {
    let Arguments { model, count, threads, .. } = arguments;
    let name = engine.name();
    let cycler = Cycler::new(engine, model);
    cycler.repeat(FIRST, *threads)?;
    let first = settled_mib()?;
    let start = Instant::now();
    cycler.repeat(count - FIRST, *threads)?;
    let each = start.elapsed().as_secs_f64() * 1000.0 / (count - FIRST) as f64;
    let last = settled_mib()?;
    let growth = last - first;
    Ok(Row {
        what: format!("{count} loads of {} in {name}, {threads} at once", title(model)),
        reference: format!("after {FIRST}: {first:.1} MiB"),
        outhaul: format!("{last:.1} MiB, {each:.2} ms each"),
        worst_ms: None,
        result: format!("{growth:+.1} MiB ({:+.1} %)", growth / first * 100.0),
        goal: format!("at most +{:.0} % or +{MOST_GROWTH_MIB} MiB", MOST_GROWTH * 100.0),
        met: growth <= MOST_GROWTH_MIB.max(first * MOST_GROWTH),
    })
}

/// What a model is called: the folder of `NAME/VERSION/model.onnx`, or the file.
fn title(model: &Path) -> String {
    let folder = model.ancestors().nth(2).and_then(Path::file_name);
    let named = if model.ends_with("model.onnx") { folder } else { model.file_stem() };
    named.unwrap_or_default().to_string_lossy().into_owned()
}

fn settled_mib() -> anyhow::Result<f64> {
    let until = Instant::now() + SETTLING;
    while Instant::now() < until {
        thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    let status = std::fs::read_to_string("/proc/self/status")
        .context("resident memory is read from /proc, which only Linux has")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS in /proc/self/status")?.trim().parse::<f64>()? / 1024.0)
}

/// What the server is made of, from the catalog down.
struct Cycler {
    engine: Arc<dyn Engine>,
    path: PathBuf,
    catalog: Arc<Catalog<Served>>,
    monitor: Arc<Monitor>,
    router: Router,
}

impl Cycler {
    fn new(engine: Arc<dyn Engine>, path: &Path) -> Self {
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let router = Router::new(Arc::clone(&catalog), Arc::clone(&monitor));
        Cycler { engine, path: path.to_owned(), catalog, monitor, router }
    }

    fn repeat(&self, count: usize, threads: usize) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let loaders: Vec<_> = (0..threads)
                .map(|index| {
                    let next = &next;
                    scope.spawn(move || {
                        self.work(index, || next.fetch_add(1, Ordering::Relaxed) < count)
                    })
                })
                .collect();
            let results = loaders.into_iter().map(|loader| match loader.join() {
                Ok(result) => result,
                Err(_) => bail!("a loading thread panicked"),
            });
            results.collect()
        })
    }

    fn work(&self, index: usize, more: impl Fn() -> bool) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let name = ModelName::new(&format!("model-{index}"))?;
        let mut version = 0;
        while more() {
            version += 1;
            runtime.block_on(self.cycle(&name, ModelVersion(version)))?;
        }
        Ok(())
    }

    /// The whole life of one version.
    async fn cycle(&self, name: &ModelName, version: ModelVersion) -> anyhow::Result<()> {
        let served = self.load(name, version)?;
        let request = request(name, served.signature())?;
        let ready = VersionState::Ready(Arc::new(Resident::unattended(served)));
        self.catalog.publish([(name.clone(), version, Some(ready))]);
        self.router.infer(request, &RequestContext::default()).await?;
        self.catalog.publish([(name.clone(), version, None)]);
        self.monitor.forget(name, version);
        Ok(())
    }

    fn load(&self, name: &ModelName, version: ModelVersion) -> anyhow::Result<ServedVersion> {
        let onnx = outhaul_onnx::read(&self.path)?;
        let model = self.engine.load(&onnx, &LoadOptions::default())?;
        let manifest = ModelManifest::default();
        let plan = VersionPlan {
            cache: outhaul_router::CacheSupport::default(),
            transform: None,
            sample: None,
            name: name.clone(),
            version,
            declared: Declared::apply(&onnx.signature, &manifest)?,
            rows: onnx.row_independence(),
            cost_follows_size: onnx.cost_follows_size(),
            signature: onnx.signature,
            manifest,
            model,
            engine_reason: String::new(),
            cores: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        plan.warm_up()?;
        Ok(ServedVersion::start(plan, &self.monitor)?)
    }
}

/// One row of ones.
fn request(name: &ModelName, signature: &ModelSignature) -> anyhow::Result<InferRequest> {
    let needed = signature.inputs.iter().filter(|spec| !spec.optional);
    let inputs =
        needed.map(|spec| Ok(NamedTensor { name: spec.name.clone(), tensor: ones(spec)? }));
    let inputs: Vec<_> = inputs.collect::<anyhow::Result<_>>()?;
    Ok(InferRequest::new(name.as_str(), inputs))
}

fn ones(spec: &TensorSpec) -> anyhow::Result<Tensor> {
    let ShapePattern::Ranked(dimensions) = &spec.shape else {
        bail!("input '{}' has any rank", spec.name);
    };
    let sizes = dimensions.iter().enumerate().map(|(axis, dimension)| match dimension {
        Dimension::Fixed(size) => *size,
        Dimension::Named(_) | Dimension::Any if axis == 0 => 1,
        Dimension::Named(_) | Dimension::Any => OPEN_DIMENSION,
    });
    let shape = Shape::new(sizes);
    let count = shape.elements().context("an input is too large")?;
    Ok(match spec.data_type {
        DataType::Fp32 => Tensor::from_vec(shape, vec![1_f32; count])?,
        DataType::Int64 => Tensor::from_vec(shape, vec![1_i64; count])?,
        other => bail!("input '{}' is {other}; FP32 and INT64 are known here", spec.name),
    })
}
