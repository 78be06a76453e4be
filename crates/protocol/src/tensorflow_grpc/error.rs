//! Why a message of TensorFlow Serving is not a request, or its answer cannot be written.

use outhaul_types::{Classify, DataType, ErrorKind, InvalidVersion, Name, ShapePattern};

use super::SIGNATURE;
use crate::ProtocolError;

/// Why a message is not a request, or why an answer cannot be given in the form that was asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TensorFlowError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("'model_spec' names no model")]
    NoModel,
    #[error("'model_spec.version' is {0}: it must be a version, or 0 for the latest")]
    NegativeVersion(i64),
    #[error("'model_spec.version_label': {0}")]
    BadLabel(InvalidVersion),
    #[error(
        "'model_spec.signature_name' is '{0}': every model has the signature '{SIGNATURE}' alone"
    )]
    UnknownSignature(String),
    #[error(
        "input '{input}' has the dtype {number}, which no model here takes: use DT_FLOAT, DT_DOUBLE, \
         DT_HALF, DT_BFLOAT16, DT_BOOL, DT_STRING or an integer type"
    )]
    UnknownType { input: Name, number: i32 },
    #[error("input '{input}' has an unknown rank: a tensor says all of its dimensions")]
    UnknownRank { input: Name },
    #[error("input '{input}' has both 'tensor_content' and '{field}'")]
    ContentTwice { input: Name, field: &'static str },
    #[error("input '{input}' has no elements: give them in 'tensor_content' or in '{field}'")]
    NoElements { input: Name, field: &'static str },
    #[error(
        "input '{input}' has fewer elements than the {elements} of its shape: the last one is repeated, \
         but for no more than {limit} bytes in all inputs"
    )]
    FilledTooFar { input: Name, elements: usize, limit: usize },
    #[error("'input' holds no examples")]
    NoExamples,
    #[error("example {row}: {problem}")]
    Example { row: usize, problem: ExampleProblem },
    #[error(
        "input '{input}' has the shape {shape}: examples can give it only where the first dimension is \
         the rows and at most one other is open; use Predict"
    )]
    NotOfRows { input: Name, shape: ShapePattern },
    #[error("context: {0}")]
    Context(ExampleProblem),
    #[error("'tasks' is empty")]
    NoTasks,
    #[error(
        "'tasks[{index}].method_name' must be tensorflow/serving/classify or \
         tensorflow/serving/regress, got '{received}'"
    )]
    UnknownMethod { index: usize, received: String },
    #[error("'tasks[{index}]' asks for another model or version than the first task")]
    ModelsDiffer { index: usize },
    #[error(
        "model '{model}' is no classifier (its task is {task}), so it has no classes to answer with: \
         use Predict, or declare [transform.output] with kind = \"classification\""
    )]
    NotAClassifier { model: String, task: &'static str },
    #[error(
        "model '{model}' is no regression (its task is {task}), so it has no value to answer with: \
         use Predict, or declare [transform.output] with kind = \"regression\""
    )]
    NotARegression { model: String, task: &'static str },
    #[error("the model's answer has {received} rows where the request has {expected}")]
    WrongRows { expected: usize, received: usize },
    #[error("'metadata_field' must be 'signature_def', got {0}")]
    UnknownMetadata(String),
    #[error(
        "the configuration cannot be replaced over gRPC: models come from the places that the server \
         was started with; load and unload them with RepositoryModelLoad and RepositoryModelUnload"
    )]
    NoReload,
}

/// What is wrong with one example. Each message continues "example 3: ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ExampleProblem {
    #[error("there is no feature '{feature}' ({data_type})")]
    Missing { feature: Name, data_type: DataType },
    #[error("unknown feature '{feature}'; the model takes {expected}")]
    Unknown { feature: String, expected: String },
    #[error("feature '{feature}' must be given as {expected}, got {received}")]
    WrongKind { feature: Name, expected: &'static str, received: &'static str },
    #[error("feature '{feature}' has {received} values, expected {expected}")]
    WrongCount { feature: Name, expected: String, received: usize },
    #[error("feature '{feature}' has {received} values where earlier examples have {expected}")]
    Ragged { feature: Name, expected: usize, received: usize },
    #[error("feature '{feature}' is {value}, which is out of range for {data_type}")]
    OutOfRange { feature: Name, value: i64, data_type: DataType },
}

impl Classify for TensorFlowError {
    fn kind(&self) -> ErrorKind {
        match self {
            TensorFlowError::Protocol(error) => error.kind(),
            TensorFlowError::NotAClassifier { .. } | TensorFlowError::NotARegression { .. } => {
                ErrorKind::Conflict
            }
            TensorFlowError::NoReload => ErrorKind::Unsupported,
            TensorFlowError::WrongRows { .. } => ErrorKind::EngineFailed,
            TensorFlowError::NoModel
            | TensorFlowError::NegativeVersion(_)
            | TensorFlowError::BadLabel(_)
            | TensorFlowError::UnknownSignature(_)
            | TensorFlowError::UnknownType { .. }
            | TensorFlowError::UnknownRank { .. }
            | TensorFlowError::ContentTwice { .. }
            | TensorFlowError::NoElements { .. }
            | TensorFlowError::FilledTooFar { .. }
            | TensorFlowError::NoExamples
            | TensorFlowError::Example { .. }
            | TensorFlowError::NotOfRows { .. }
            | TensorFlowError::Context(_)
            | TensorFlowError::NoTasks
            | TensorFlowError::UnknownMethod { .. }
            | TensorFlowError::ModelsDiffer { .. }
            | TensorFlowError::UnknownMetadata(_) => ErrorKind::InvalidInput,
        }
    }
}
