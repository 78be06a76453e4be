//! Why a request has no answer.

use outhaul_repository::Unresolved;
use outhaul_scheduler::QueueError;
use outhaul_types::{BindError, Classify, ErrorKind, ModelVersion, Name, VersionChoice};

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
    /// The queue or the engine gave no answer.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl RouterError {
    pub(crate) fn unresolved(model: &str, choice: VersionChoice, reason: Unresolved) -> Self {
        let model = Name::from(model);
        match (reason, choice) {
            (Unresolved::UnknownModel, _) => RouterError::UnknownModel { model },
            (Unresolved::UnknownVersion(version), _) => {
                RouterError::UnknownVersion { model, version }
            }
            (reason @ (Unresolved::Loading | Unresolved::Failed(_)), _) => {
                RouterError::NotReady { model, reason: reason.to_string() }
            }
        }
    }
}

impl Classify for RouterError {
    fn kind(&self) -> ErrorKind {
        match self {
            RouterError::UnknownModel { .. } | RouterError::UnknownVersion { .. } => {
                ErrorKind::NotFound
            }
            RouterError::NotReady { .. } => ErrorKind::NotReady,
            RouterError::Bind(_)
            | RouterError::BadTimeout
            | RouterError::NotClassifiable { .. } => ErrorKind::InvalidInput,
            RouterError::Queue(error) => error.kind(),
        }
    }

    fn client_message(&self) -> String {
        match self {
            RouterError::Queue(error) => error.client_message(),
            _ => self.to_string(),
        }
    }
}
