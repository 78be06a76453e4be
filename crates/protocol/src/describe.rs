//! What a server tells of itself and its models, before any contract writes it down. The server
//! fills these; [`crate::oip`] and the gRPC contract write them.

use std::time::Duration;

use outhaul_types::{Interface, Label, ModelSignature, ModelVersion};

/// What the server is.
#[derive(Clone, Copy, Debug)]
pub struct ServerMetadata<'a> {
    /// The server's name.
    pub name: &'a str,
    /// The server's version.
    pub version: &'a str,
    /// The protocol's extensions that are served.
    pub extensions: &'a [&'a str],
}

/// What codecs of rows may know of a model version.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version that answers.
    pub version: ModelVersion,
    /// What callers send and get.
    pub signature: &'a ModelSignature,
    /// What that means.
    pub interface: &'a Interface,
}

/// What a model is.
#[derive(Clone, Copy, Debug)]
pub struct ModelMetadata<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The versions that are ready.
    pub versions: &'a [ModelVersion],
    /// The protocol's word for kind of file and engine, such as `onnxruntime_onnx`.
    pub platform: &'a str,
    /// Inputs and outputs.
    pub signature: &'a ModelSignature,
    /// Facts beyond the protocol: engine, batching mode and its reason.
    pub properties: &'a [(&'a str, &'a str)],
    /// What inputs and outputs mean, and the model's own tensors behind a transform.
    pub interface: &'a Interface,
}

/// How a model is run, in the words of Triton's model configuration.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The protocol's word for kind of file and engine.
    pub platform: &'a str,
    /// The engine.
    pub backend: &'a str,
    /// The most rows that are run together; `None` where requests are never joined. Inputs and
    /// outputs of a model with batches are described without their first dimension.
    pub max_rows: Option<usize>,
    /// The longest that a batch is held open.
    pub max_delay: Duration,
    /// Threads that run the model.
    pub instances: usize,
    /// Inputs and outputs.
    pub signature: &'a ModelSignature,
}

/// How often something happened and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationStatistic {
    /// How often.
    pub count: u64,
    /// The sum of the durations, in nanoseconds.
    pub ns: u64,
}

/// What happened to a model since it was loaded.
#[derive(Clone, Debug, Default)]
pub struct ModelStatistics {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The time of the last request, in milliseconds since 1970; 0 where there was none.
    pub last_inference: u64,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Times that the model ran.
    pub execution_count: u64,
    /// Requests that succeeded, from arrival to answer.
    pub success: DurationStatistic,
    /// Requests that failed, from arrival to answer.
    pub fail: DurationStatistic,
    /// Waiting for an instance.
    pub queue: DurationStatistic,
    /// Joining the requests of a batch.
    pub compute_input: DurationStatistic,
    /// In the engine.
    pub compute_infer: DurationStatistic,
    /// Parting the outputs of a batch.
    pub compute_output: DurationStatistic,
    /// Requests answered from the cache.
    pub cache_hit: DurationStatistic,
    /// Requests that the cache did not hold.
    pub cache_miss: DurationStatistic,
    /// The same by the number of rows that ran together.
    pub batches: Vec<BatchStatistics>,
}

/// What happened to batches of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows of such a batch.
    pub rows: u64,
    /// Joining the requests.
    pub compute_input: DurationStatistic,
    /// In the engine.
    pub compute_infer: DurationStatistic,
    /// Parting the outputs.
    pub compute_output: DurationStatistic,
}

/// One version of a model in the repository's index.
#[derive(Clone, Copy, Debug)]
pub struct RepositoryEntry<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version, or empty where the model has none that could be read.
    pub version: &'a str,
    /// How it stands.
    pub state: EntryState,
    /// Why it stands so; empty where there is nothing to tell.
    pub reason: &'a str,
    /// What only our own index tells.
    pub details: EntryDetails<'a>,
}

/// How a version stands, in the words of Triton's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It answers requests.
    Ready,
    /// It is on its way.
    Loading,
    /// It answers nothing.
    Unavailable,
}

impl EntryState {
    /// Returns the extension's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryState::Ready => "READY",
            EntryState::Loading => "LOADING",
            EntryState::Unavailable => "UNAVAILABLE",
        }
    }
}

/// What the index tells of a version beyond the extension. Only JSON has a place for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryDetails<'a> {
    /// How it stands, in our own words, which tell more apart.
    pub standing: &'a str,
    /// The engine that runs it, once it is loaded.
    pub engine: Option<&'a str>,
    /// The memory that it takes, measured.
    pub memory_bytes: Option<u64>,
    /// The labels that lead to it.
    pub labels: &'a [Label],
    /// Why it could not be loaded the last time, also where it answers by now.
    pub last_error: Option<&'a str>,
    /// Where it was found.
    pub source: Option<&'a str>,
}
