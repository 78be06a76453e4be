//! The embedded engine: `rten`, which is Rust throughout and needs no library on the machine.
//!
//! Invariant: it answers as ONNX Runtime does, but for the last digits of floats, or it refuses and
//! says what and who can instead. `rten` alone does not promise that: it narrows INT64 to INT32 and
//! FP64 to FP32, ignores some inputs, and has its own ideas of some operators. So three checks stand
//! around it: `exactness` on the model's description before loading, a trial run on zeros after
//! it, and a look at the INT64 values of every request. What `rten` gets right when told in other
//! words, `lowering` tells it so.
//!
//! The loaded graph is shared by all sessions; a session owns a pool of threads and nothing else.
//! `rten` runs a model only inside such a pool, so even with one thread a run from outside costs
//! two hand-overs between threads (measured: 6 microseconds).

mod exactness;
mod lowering;
mod trial;
mod values;

use std::fmt::Display;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use lowering::Wording;
use outhaul_onnx::{Node, OnnxModel};
use outhaul_types::{BoundInputs, ModelSignature, Tensor, Tensors};
use rten::{
    LoadErrorKind, Model, ModelOptions, NodeId, RunOptions, ShapeInferenceMode, ThreadPool,
};
use rten_gemm::GemmExecutor;
use rten_tensor::prelude::*;

use crate::{Engine, LoadError, LoadOptions, LoadedModel, RunError, Session, ThreadBytes};

/// What manifests and logs call this engine.
const NAME: &str = "embedded";

/// The engine that does what this one refuses.
const OTHER: &str = "onnxruntime";

/// The library's version. A test compares it with `Cargo.lock`.
const VERSION: &str = "0.27.0";

/// The stack under loading and the first run, whose planner recurses along chains of nodes. Only
/// what is used of it becomes memory.
const LOADING_STACK: usize = 256 << 20;

/// The embedded engine. It has no state of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Embedded;

impl Engine for Embedded {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn load(
        &self,
        model: &OnnxModel,
        options: &LoadOptions,
    ) -> Result<Arc<dyn LoadedModel>, LoadError> {
        exactness::check(model, bytes_saturate(), None).map_err(unsupported)?;
        let load = |wording: Wording| {
            // A panic on a file that passed our reader is a mistake in `rten`, and no more than that.
            catch_unwind(AssertUnwindSafe(|| load(model, options, wording)))
                .unwrap_or_else(|_| Err(failed("it panicked".to_owned()).into()))
        };
        let loading = || {
            let before = options.thread_bytes.map(|read| read());
            let outcome = match load(Wording::AsNeeded) {
                Err(Rejection { is_nameless: true, .. }) => load(Wording::AllNamed),
                outcome => outcome,
            };
            outcome.map(|mut loaded| {
                if let (Some(read), Some(before)) = (options.thread_bytes, before) {
                    loaded.bytes_elsewhere += read() - before;
                }
                loaded
            })
        };
        let loaded = thread::scope(|scope| {
            thread::Builder::new()
                .name("outhaul-load".to_owned())
                .stack_size(LOADING_STACK)
                .spawn_scoped(scope, loading)
                .map_err(|error| failed(format!("no thread to load in: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(failed("it panicked".to_owned()).into()))
                .map_err(|rejection| rejection.error)
        })?;
        Ok(Arc::new(loaded))
    }
}

/// Why a model is not loaded.
struct Rejection {
    error: LoadError,
    /// Whether it should name a node and `rten` did not know which, for want of a name.
    is_nameless: bool,
}

impl From<LoadError> for Rejection {
    fn from(error: LoadError) -> Self {
        Rejection { error, is_nameless: false }
    }
}

fn unsupported(what: String) -> LoadError {
    LoadError::Unsupported { engine: NAME, what, instead: Some(OTHER) }
}

fn failed(reason: String) -> LoadError {
    LoadError::Failed { engine: NAME, reason }
}

/// Returns whether products of 8 bits are summed with saturation, as processors without VNNI do.
fn bytes_saturate() -> bool {
    GemmExecutor::<u8, i8, i32>::default().may_saturate()
}

fn load(model: &OnnxModel, options: &LoadOptions, wording: Wording) -> Result<Loaded, Rejection> {
    let (graph, packed) = counting_packers(options.thread_bytes, || {
        let graph = read(model, wording)?;
        check_constants(model).map(|()| graph)
    });
    let graph = graph?;
    let rank = |name: &str| Some(graph.node_info(graph.find_node(name)?)?.shape()?.len());
    exactness::check(model, bytes_saturate(), Some(&rank)).map_err(unsupported)?;
    let mut loaded = Loaded::new(graph, model, options)?;
    loaded.bytes_elsewhere = packed;
    loaded.try_out(model)?;
    Ok(loaded)
}

/// Calls `load` and returns with its result what it left allocated by the threads that re-pack
/// weights. Those are `rten`'s own and serve all loads, so that what they allocate tells of one load
/// only while no other is under way: where it is counted, loads take turns here.
fn counting_packers<T>(read: Option<ThreadBytes>, load: impl FnOnce() -> T) -> (T, i64) {
    static TURN: Mutex<()> = Mutex::new(());
    let Some(read) = read else {
        return (load(), 0);
    };
    // A load that panicked has left nothing half-done here.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let total =
        || rten::thread_pool().run(|| rayon_core::broadcast(|_| read()).into_iter().sum::<i64>());
    let before = total();
    let loaded = load();
    (loaded, total() - before)
}

/// Reads the file into `rten`.
fn read(model: &OnnxModel, wording: Wording) -> Result<Model, Rejection> {
    let mut options = ModelOptions::with_all_ops();
    options.prepack_weights(exactness::may_prepack(model));
    // Shape inference is there for speed, and it panics on some sound models.
    catch_unwind(AssertUnwindSafe(|| read_with(model, &options, wording))).unwrap_or_else(|_| {
        options.shape_inference(ShapeInferenceMode::Off);
        read_with(model, &options, wording)
    })
}

fn read_with(
    model: &OnnxModel,
    options: &ModelOptions,
    wording: Wording,
) -> Result<Model, Rejection> {
    let reword = lowering::is_needed(model, wording);
    if !reword && model.path.extension().is_some_and(|extension| extension == "onnx") {
        return options.load_file(&model.path).map_err(|error| explain(model, &error));
    }
    let bytes = |path: &Path| {
        fs::read(path).map_err(|error| LoadError::BadFile {
            reason: format!("'{}': {error}", path.display()),
        })
    };
    let folder = model.path.parent().unwrap_or(Path::new(""));
    let mut options = options.clone();
    for file in model.external_files() {
        options.external_data(&file.to_string_lossy(), bytes(&folder.join(&file))?);
    }
    let file = if reword { lowering::lowered(model, wording)? } else { bytes(&model.path)? };
    options.load(file).map_err(|error| explain(model, &error))
}

fn explain(model: &OnnxModel, error: &rten::LoadError) -> Rejection {
    match error.kind() {
        LoadErrorKind::IoError | LoadErrorKind::ParseError => {
            LoadError::BadFile { reason: error.to_string() }.into()
        }
        LoadErrorKind::OperatorInvalid => {
            let named = error.node().and_then(|name| trial::find(&model.graph, name));
            let said = error.to_string();
            let reason = said.split_once("\": ").map_or(said.as_str(), |(_, reason)| reason);
            let node = named.map_or_else(|| "a nameless node".to_owned(), Node::describe);
            Rejection {
                error: unsupported(format!("{node}: {reason}")),
                is_nameless: named.is_none(),
            }
        }
        LoadErrorKind::ExternalDataError => {
            let files: Vec<String> =
                model.external_files().iter().map(|file| file.display().to_string()).collect();
            unsupported(format!(
                "weights in '{}'; it takes them from a file beside the model whose extension begins \
                 with 'data' or 'onnx_data'",
                files.join("', '")
            ))
            .into()
        }
        _ => unsupported(format!("the model: {error}")).into(),
    }
}

/// Refuses INT64 constants beyond 32 bits that were too long for the reader to keep. `rten` bounds
/// them, so one that lies at a bound may have been beyond it.
fn check_constants(model: &OnnxModel) -> Result<(), Rejection> {
    let names = exactness::unseen_constants(model);
    if names.is_empty() {
        return Ok(());
    }
    // Optimisation would fold constants into others.
    let mut options = ModelOptions::with_all_ops();
    options.enable_optimization(false);
    let plain = read_with(model, &options, Wording::AsNeeded)?;
    for name in names {
        let elements = plain
            .node_id(name)
            .and_then(|id| plain.run(Vec::new(), &[id], None))
            .map_err(|error| failed(format!("constant '{name}' cannot be read: {error}")))?;
        let [rten::Value::Int32Tensor(elements)] = &elements[..] else {
            return Err(failed(format!("constant '{name}' is not INT64")).into());
        };
        if elements.iter().any(|&element| element == i32::MAX || element == i32::MIN) {
            return Err(unsupported(format!(
                "constant '{name}', whose elements may not fit the 32 bits that this engine has"
            ))
            .into());
        }
    }
    Ok(())
}

/// A graph in `rten`.
struct Loaded {
    shared: Arc<Shared>,
    threads: usize,
    bytes_elsewhere: i64,
}

/// What all sessions of a model use.
struct Shared {
    graph: Model,
    signature: ModelSignature,
    inputs: Vec<NodeId>,
    /// What stands in for the inputs that a request may leave out.
    defaults: Vec<Option<Tensor>>,
    outputs: Vec<NodeId>,
}

impl Loaded {
    fn new(graph: Model, model: &OnnxModel, options: &LoadOptions) -> Result<Self, LoadError> {
        let signature = model.signature.clone();
        let find = |name: &str| {
            graph.find_node(name).ok_or_else(|| failed(format!("it has lost value '{name}'")))
        };
        let inputs = signature.inputs.iter().map(|spec| find(&spec.name)).collect::<Result<_, _>>();
        let outputs =
            signature.outputs.iter().map(|spec| find(&spec.name)).collect::<Result<_, _>>();
        let (inputs, outputs) = (inputs?, outputs?);
        let defaults =
            signature
                .inputs
                .iter()
                .map(|spec| {
                    if spec.optional {
                        lowering::default_of(model, spec).map(Some)
                    } else {
                        Ok(None)
                    }
                })
                .collect::<Result<_, _>>()?;
        let shared = Shared { graph, signature, inputs, defaults, outputs };
        let (shared, threads) = (Arc::new(shared), options.threads.get());
        Ok(Loaded { shared, threads, bytes_elsewhere: 0 })
    }

    fn open(&self) -> EmbeddedSession {
        let pool = Arc::new(ThreadPool::with_num_threads(self.threads));
        let options = RunOptions::default().with_thread_pool(Some(pool));
        EmbeddedSession { shared: Arc::clone(&self.shared), options }
    }

    /// Runs once on zeros. That also makes the plan that later runs use.
    fn try_out(&self, model: &OnnxModel) -> Result<(), Rejection> {
        let Some(zeros) = trial::zeros(&self.shared.signature) else {
            // The first request would plan, on a stack that is not made for it.
            return if model.graph.nodes.len() > exactness::MOST_NODES_OF_SUBGRAPH {
                Err(unsupported("a long graph on inputs too large to try out".to_owned()).into())
            } else {
                Ok(())
            };
        };
        let session = self.open();
        let inconclusive = |reason: &dyn Display| {
            tracing::debug!(path = %model.path.display(), reason = %reason, "no answer to zeros");
            Ok(())
        };
        match session.compute(&zeros) {
            Ok(outputs) => match session.collect(outputs) {
                Ok(_) => Ok(()),
                Err(error) => Err(unsupported(format!("the model: {error}")).into()),
            },
            Err(Trouble::Ours(error)) => Err(unsupported(format!("the model: {error}")).into()),
            Err(Trouble::Engine(error)) => match trial::verdict(model, &error) {
                Some(verdict) => Err(Rejection {
                    error: unsupported(verdict.what),
                    is_nameless: verdict.is_nameless,
                }),
                None => inconclusive(&error),
            },
            Err(Trouble::Panic) => inconclusive(&"it panicked"),
        }
    }
}

impl LoadedModel for Loaded {
    fn engine(&self) -> &'static str {
        NAME
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.open()))
    }

    fn bytes_elsewhere(&self) -> i64 {
        self.bytes_elsewhere
    }
}

struct EmbeddedSession {
    shared: Arc<Shared>,
    options: RunOptions,
}

enum Trouble {
    /// Found here, on the way in.
    Ours(RunError),
    /// What `rten` says.
    Engine(rten::RunError),
    /// `rten` panicked, as some operators do on shapes that don't go together.
    Panic,
}

impl EmbeddedSession {
    fn compute(&self, inputs: &BoundInputs) -> Result<Vec<rten::Value>, Trouble> {
        let shared = &*self.shared;
        let mut given = Vec::with_capacity(inputs.len());
        for (index, (spec, tensor)) in shared.signature.inputs.iter().zip(inputs).enumerate() {
            let tensor = tensor.as_ref().or(shared.defaults[index].as_ref()).ok_or_else(|| {
                let reason = format!("missing input '{}'", spec.name);
                Trouble::Ours(RunError::BadInput { reason })
            })?;
            let value = values::lend(spec, tensor)
                .and_then(|elements| elements.into_value(tensor.shape()))
                .map_err(Trouble::Ours)?;
            given.push((shared.inputs[index], value));
        }
        let options = Some(self.options.clone());
        // What it holds between runs is a plan, which is whole or absent.
        catch_unwind(AssertUnwindSafe(|| shared.graph.run(given, &shared.outputs, options)))
            .map_err(|_| Trouble::Panic)?
            .map_err(Trouble::Engine)
    }

    fn collect(&self, outputs: Vec<rten::Value>) -> Result<Tensors, RunError> {
        let specs = &self.shared.signature.outputs;
        specs.iter().zip(outputs).map(|(spec, value)| values::returned(spec, value)).collect()
    }
}

impl Session for EmbeddedSession {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        match self.compute(inputs) {
            Ok(outputs) => self.collect(outputs),
            Err(Trouble::Ours(error)) => Err(error),
            Err(Trouble::Engine(error)) => Err(blame(&error)),
            Err(Trouble::Panic) => Err(values::failed("an operator panicked".to_owned())),
        }
    }
}

/// Whose fault a failed run is. Shapes that don't go together and indices that lead nowhere come
/// with the request; `rten` tells them from the rest in words alone.
fn blame(error: &rten::RunError) -> RunError {
    const CALLER: &[&str] =
        &["incompatible input shapes", "has invalid value", "is invalid: expected"];
    let reason = error.to_string();
    if CALLER.iter().any(|words| reason.contains(words)) {
        RunError::BadInput { reason }
    } else {
        values::failed(reason)
    }
}
