//! What a user may declare beside a model, after validation. `repository` reads it from `model.toml`.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The declarations of one model. Every field has a default, so no file at all is a valid manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelManifest {
    /// The library that runs the model.
    pub engine: EngineChoice,
    /// How requests are run together.
    pub batching: BatchingSpec,
    /// How many threads run the model.
    pub instances: InstancesSpec,
    /// How much may wait, and how long.
    pub queue: LimitsSpec,
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
}

impl Default for LimitsSpec {
    fn default() -> Self {
        LimitsSpec {
            capacity: NonZeroUsize::new(1024).expect("1024 is not zero"),
            timeout: Duration::from_secs(60),
        }
    }
}
