//! What a user may declare beside a model, after validation. `repository` reads it from `model.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::{
    CacheSpec, DataType, FallbackSpec, Label, ModelVersion, Name, Shape, ShapePattern,
    TransformSpec,
};

/// The declarations of one model. Every field has a default, so no file at all is a valid manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelManifest {
    /// The library that runs the model.
    pub engine: EngineChoice,
    /// How requests are run together.
    pub batching: BatchingSpec,
    /// How many threads run the model.
    pub instances: InstancesSpec,
    /// How much may wait, and how long.
    pub queue: LimitsSpec,
    /// Which of the versions found are served.
    pub versions: VersionPolicy,
    /// Names that requests may use in place of a version's number. A labelled version is served
    /// whatever the policy says.
    pub labels: BTreeMap<Label, ModelVersion>,
    /// When versions are loaded and let go.
    pub loading: LoadingSpec,
    /// Requests that a version answers before it gets traffic. Default: one generated request of one
    /// row.
    pub warmup: Option<Vec<WarmupRequest>>,
    /// What is declared of inputs, by name. What is not declared is as the model's file says.
    pub inputs: Vec<TensorDeclaration>,
    /// What is declared of outputs, by name.
    pub outputs: Vec<TensorDeclaration>,
    /// What stands between callers and the model's tensors.
    pub transform: TransformSpec,
    /// A file with rows to try the model with: a JSON list of objects by input name. Default: the
    /// `sample.json` beside the model, where there is one.
    pub sample: Option<PathBuf>,
    /// How answers are kept. Default: not at all.
    pub cache: Option<CacheSpec>,
    /// What to do when the model gives no answer.
    pub fallback: Option<FallbackSpec>,
}

/// Which of the versions found are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many. Default: 1.
    Latest(NonZeroUsize),
    /// All of them.
    All,
    /// These and no other.
    Specific(BTreeSet<ModelVersion>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        VersionPolicy::Latest(NonZeroUsize::MIN)
    }
}

/// When a model's versions are loaded and let go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadingSpec {
    /// Whether the model is loaded at start and never evicted, whatever the memory budget. Default:
    /// no.
    pub pin: bool,
    /// How long a version stays in memory at least, once it is loaded. Default: as the server says.
    pub min_residency: Option<Duration>,
    /// Whether a new version may break callers of the one in service: take away an output, ask for
    /// a new input, change a type. Default: no, such a version is refused.
    pub allow_breaking: bool,
}

/// A request that a version answers before it gets traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupRequest {
    /// What logs call it.
    pub name: String,
    /// The rows of generated inputs. Default: 1.
    pub rows: NonZeroUsize,
    /// How often it is run. Default: 1.
    pub count: NonZeroUsize,
    /// Inputs that are declared; the others are generated: zeros, with 1 for sizes that may vary.
    pub inputs: Vec<WarmupInput>,
}

impl Default for WarmupRequest {
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        WarmupRequest { name: "generated".to_owned(), rows: one, count: one, inputs: Vec::new() }
    }
}

/// One input of a warm-up request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupInput {
    /// The input's name.
    pub name: Name,
    /// The whole shape, rows included; as generated where not declared.
    pub shape: Option<Shape>,
    /// What it holds.
    pub fill: Fill,
}

/// What a warm-up input holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Zeros, or empty strings.
    #[default]
    Zeros,
    /// Numbers from a fixed seed: 0 to 1 for floats, small whole numbers else.
    Random,
    /// The elements as they lie in memory, little-endian, read from this file; strings each with
    /// four bytes of length before it.
    File(PathBuf),
}

/// What is declared of one input or output: the tensor as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDeclaration {
    /// Its name in the model's file.
    pub name: Name,
    /// Its element type, which must be the file's.
    pub data_type: Option<DataType>,
    /// The shape that callers send or get, rows included. It must fit the file's, or the model's
    /// declared `reshape`.
    pub shape: Option<ShapePattern>,
    /// The shape that the model is given, or gives, where it differs from `shape`: the same elements
    /// in the same order. At most one size is open where `shape` has open ones.
    pub reshape: Option<ShapePattern>,
}

/// The library that runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime where its library is found, else the embedded engine. The choice is logged.
    #[default]
    Auto,
    /// ONNX Runtime or an error.
    OnnxRuntime,
    /// The embedded engine or an error.
    Embedded,
}

/// How requests are run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchingSpec {
    /// The most rows that one batch may hold. Default: 32. Raising it raises throughput of models
    /// that gain from batches, and the time that a request may wait for the batch it is in.
    /// 1 turns batching off.
    pub max_rows: NonZeroUsize,
    /// The most rows that one request may hold; more are refused. Default: no limit beyond that of the
    /// body. A request with more rows than `max_rows` runs alone.
    pub max_request_rows: Option<NonZeroUsize>,
    /// The longest that an idle instance holds a batch open for requests that are already being
    /// read. Default: 2 ms. It never waits where nothing is on its way.
    pub max_delay: Duration,
    /// Whether a request must get the answer that it would get alone. Default: true. Set to false
    /// to batch a model whose operators mix rows.
    pub exact: bool,
}

impl Default for BatchingSpec {
    fn default() -> Self {
        BatchingSpec {
            max_rows: NonZeroUsize::new(32).expect("32 is not zero"),
            max_request_rows: None,
            max_delay: Duration::from_millis(2),
            exact: true,
        }
    }
}

/// How many threads run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancesSpec {
    /// Threads that each run one batch at a time, sharing the weights. Default: auto.
    pub count: InstanceCount,
    /// Threads that one batch is spread over inside the engine. Default: 1, which gives the most
    /// requests per second; raise it where a single request is too slow.
    pub threads: NonZeroUsize,
}

impl Default for InstancesSpec {
    fn default() -> Self {
        InstancesSpec { count: InstanceCount::Auto, threads: NonZeroUsize::MIN }
    }
}

/// A number of instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InstanceCount {
    /// The cores of this machine (or its control group), divided by the threads of an instance.
    #[default]
    Auto,
    /// Exactly this many.
    Fixed(NonZeroUsize),
}

/// How much may wait, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsSpec {
    /// Requests that may wait for an instance. Default: 1024. A request beyond it is refused at
    /// once, with the status that asks the caller to come back.
    pub capacity: NonZeroUsize,
    /// The longest that a request may take from arrival to answer. Default: 60 s. Callers can only
    /// shorten it.
    pub timeout: Duration,
    /// Levels of priority; 1 is the most urgent, and a level's requests run before those of all
    /// levels below. Empty means the three of [`Priority`](crate::Priority), which share the capacity.
    pub levels: Vec<LevelSpec>,
    /// The level of requests that name none, counted from 1. Meaningless without levels.
    pub default_level: NonZeroUsize,
}

/// One level of priority. What is not set is as for the whole queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelSpec {
    /// Requests of this level that may wait.
    pub capacity: Option<NonZeroUsize>,
    /// The longest that a request of this level may wait before it runs.
    pub timeout: Option<Duration>,
    /// Whether a request's own `timeout` holds where it is shorter. Default (`None`): yes.
    pub allow_override: Option<bool>,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        LimitsSpec {
            capacity: NonZeroUsize::new(1024).expect("1024 is not zero"),
            timeout: Duration::from_secs(60),
            levels: Vec::new(),
            default_level: NonZeroUsize::MIN,
        }
    }
}
