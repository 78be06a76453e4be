//! Why a request has no answer.

use std::time::Duration;

use std::sync::Arc;

use crate::declared::ReshapeError;
use outhaul_repository::{AskError, Unresolved};
use outhaul_scheduler::{BadPriority, QueueError};
use outhaul_transform::TransformError;
use outhaul_types::{BindError, Classify, ErrorKind, Label, ModelVersion, Name, TensorError};

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// There is no such model. Triton's clients match the first words.
    #[error("Request for unknown model: '{model}' is not found")]
    UnknownModel {
        /// The name as asked for.
        model: Name,
    },
    /// The model has no such version.
    #[error("Request for unknown model: '{model}' version {version} is not found")]
    UnknownVersion {
        /// The name as asked for.
        model: Name,
        /// The version as asked for.
        version: ModelVersion,
    },
    /// None of the model's versions carries this label.
    #[error("Request for unknown model: '{model}' has no version labelled '{label}'")]
    UnknownLabel {
        /// The name as asked for.
        model: Name,
        /// The label as asked for.
        label: Label,
    },
    /// The version was being loaded for this request when its time was up.
    #[error("model '{model}' was not loaded before the request's deadline")]
    NotInTime {
        /// The name as asked for.
        model: Name,
    },
    /// The repository did not do what it was asked.
    #[error(transparent)]
    Asked(#[from] AskError),
    /// There is no repository to ask: the models of this process are what they are.
    #[error("this server's models cannot be loaded or unloaded")]
    NoRepository,
    /// The version is being loaded, or failed to load.
    #[error("model '{model}' is not ready: {reason}")]
    NotReady {
        /// The name as asked for.
        model: Name,
        /// What is the matter, as its error says.
        reason: String,
    },
    /// The request does not fit the signature.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The request holds more rows than one may.
    #[error("the request has {rows} rows, and one request may have {most}")]
    TooManyRows {
        /// Rows of the request.
        rows: usize,
        /// The limit.
        most: usize,
    },
    /// The `priority` parameter is no level at all.
    #[error(
        "parameter 'priority' must be a whole number, at least 0, or interactive, normal or background"
    )]
    NoPriority,
    /// The model has no such level of priority.
    #[error(transparent)]
    BadPriority(#[from] BadPriority),
    /// What was sent cannot be turned into the model's tensors.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// Too many requests wait to be turned into tensors.
    #[error("{waiting} requests wait to be prepared")]
    PreparingFull {
        /// How many wait.
        waiting: usize,
    },
    /// A transform has a mistake.
    #[error("preparing the request failed")]
    PreparingPanicked,
    /// An output has no row for each row of the request, which ran in several parts.
    #[error(
        "the model's output '{output}' has no row for each row of the request: send rows apart"
    )]
    NoRowEach {
        /// The output.
        output: Name,
    },
    /// The rows of a request gave tensors that cannot be put together.
    #[error("the model's outputs for the rows of this request do not fit together")]
    Parts(#[source] TensorError),
    /// A tensor cannot take the shape that is declared.
    #[error(transparent)]
    Reshape(#[from] ReshapeError),
    /// The request names a destination that its route does not allow.
    #[error("the route does not let a request choose '{target}'")]
    TargetNotAllowed {
        /// What the request named.
        target: String,
    },
    /// A model elsewhere gave no answer.
    #[error("'{url}' gave no answer: {message}")]
    Remote {
        /// The model's address.
        url: Name,
        /// What is the matter, in our terms.
        kind: ErrorKind,
        /// What the other server said, or what became of the connection.
        message: String,
    },
    /// The destination failed so often lately that it was not asked.
    #[error("'{destination}' is left in peace for a while, since it failed too often")]
    OpenCircuit {
        /// What was not asked.
        destination: String,
    },
    /// The destination was given up, so that another could be asked in time.
    #[error("'{destination}' gave no answer within {limit:?}")]
    GivenUp {
        /// What was given up.
        destination: String,
        /// The time that it had.
        limit: std::time::Duration,
    },
    /// Routes, fallbacks and pipelines lead in a circle, here or over several servers.
    #[error(
        "the request was passed on {depth} times: routes, fallbacks or pipelines lead in a circle"
    )]
    TooDeep {
        /// How often it was passed on.
        depth: u8,
    },
    /// Nothing is known of a model elsewhere that a contract needs to know.
    #[error("what '{url}' takes and gives is not known here: ask it with tensors, over /v2")]
    NotDescribed {
        /// The model's address.
        url: String,
    },
    /// The caller sends more requests than it may.
    #[error("caller '{caller}' is above its rate: try again in {:.3} s", retry_after.as_secs_f64())]
    RateLimited {
        /// Who.
        caller: Name,
        /// When a request will be let in again.
        retry_after: Duration,
    },
    /// The `timeout` parameter is not a number of microseconds.
    #[error("parameter 'timeout' must be a whole number of microseconds, at least 0")]
    BadTimeout,
    /// The classification extension was asked of an output that has no classes.
    #[error("output '{name}' cannot be given as classes: {reason}")]
    NotClassifiable {
        /// The output.
        name: Name,
        /// Why.
        reason: String,
    },
    /// A pipeline gave no answer.
    #[error(transparent)]
    Pipeline(#[from] crate::PipelineError),
    /// The queue or the engine gave no answer.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The computation that this request waited for, with equal ones, failed.
    #[error("{0}")]
    Joined(Arc<RouterError>),
}

impl RouterError {
    pub(crate) fn unresolved(model: &str, reason: Unresolved) -> Self {
        let model = Name::from(model);
        match reason {
            Unresolved::UnknownModel => RouterError::UnknownModel { model },
            Unresolved::UnknownVersion(version) => RouterError::UnknownVersion { model, version },
            Unresolved::UnknownLabel(label) => RouterError::UnknownLabel { model, label },
            reason @ (Unresolved::Asleep(_)
            | Unresolved::Loading
            | Unresolved::Failed(_)
            | Unresolved::Unloaded) => RouterError::NotReady { model, reason: reason.to_string() },
        }
    }
}

impl Classify for RouterError {
    fn kind(&self) -> ErrorKind {
        match self {
            RouterError::UnknownModel { .. }
            | RouterError::UnknownVersion { .. }
            | RouterError::UnknownLabel { .. } => ErrorKind::NotFound,
            RouterError::NotInTime { .. } => ErrorKind::DeadlineExceeded,
            RouterError::Asked(error) => error.kind(),
            RouterError::NoRepository | RouterError::NotDescribed { .. } => ErrorKind::Unsupported,
            RouterError::NotReady { .. } => ErrorKind::NotReady,
            RouterError::Remote { kind, .. } => *kind,
            RouterError::OpenCircuit { .. } => ErrorKind::Unavailable,
            RouterError::GivenUp { .. } => ErrorKind::DeadlineExceeded,
            RouterError::Bind(_)
            | RouterError::BadTimeout
            | RouterError::NoPriority
            | RouterError::TooManyRows { .. }
            | RouterError::BadPriority(_)
            | RouterError::TargetNotAllowed { .. }
            | RouterError::TooDeep { .. }
            | RouterError::NotClassifiable { .. } => ErrorKind::InvalidInput,
            RouterError::Transform(error) => error.kind(),
            RouterError::PreparingFull { .. } | RouterError::RateLimited { .. } => {
                ErrorKind::Overloaded
            }
            RouterError::PreparingPanicked => ErrorKind::Internal,
            RouterError::NoRowEach { .. } => ErrorKind::InvalidInput,
            RouterError::Parts(_) => ErrorKind::EngineFailed,
            RouterError::Reshape(error) => error.kind(),
            RouterError::Pipeline(error) => error.kind(),
            RouterError::Queue(error) => error.kind(),
            RouterError::Joined(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            RouterError::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    fn client_message(&self) -> String {
        match self {
            RouterError::Pipeline(error) => error.client_message(),
            RouterError::Queue(error) => error.client_message(),
            RouterError::Joined(error) => error.client_message(),
            RouterError::Asked(error) => error.client_message(),
            RouterError::OpenCircuit { .. } => {
                "the model failed too often lately and is left in peace for a while".to_owned()
            }
            RouterError::GivenUp { .. } => "the model gave no answer in time".to_owned(),
            // Where it lies, and what it tells of itself, is for the operator.
            RouterError::Remote { kind, message, .. } => match kind.is_ours() {
                true => "the server that this model lies on gave no answer".to_owned(),
                false => message.clone(),
            },
            _ => self.to_string(),
        }
    }
}
