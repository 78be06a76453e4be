//! What keeps a folder of weights from becoming a graph.

use std::io;
use std::path::PathBuf;

use outhaul_types::{Classify, ErrorKind};

/// Why weights cannot be turned into an ONNX graph. Each names the file and the place in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub enum HuggingFaceError {
    #[error("'{}' cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("'{}' cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("'{}' is no JSON object of a model's configuration: {reason}", path.display())]
    NotAConfig { path: PathBuf, reason: String },
    #[error("'{}': {field} = {value}: {rule}", path.display())]
    Field { path: PathBuf, field: &'static str, value: String, rule: String },
    #[error("'{}' does not say {field}", path.display())]
    MissingField { path: PathBuf, field: &'static str },
    #[error("'{}' is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("'{}' has no tensor '{name}', which the configuration calls for", path.display())]
    MissingTensor { path: PathBuf, name: String },
    #[error(
        "'{}': tensor '{name}' has shape {found:?}, and the configuration calls for {expected:?}",
        path.display()
    )]
    WrongShape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error(
        "'{}': tensor '{name}' holds {element}; weights of F32, F16 and BF16 can be used",
        path.display()
    )]
    WrongElement { path: PathBuf, name: String, element: String },
    #[error(
        "'{}' holds {count} tensors that no part of the model takes: {names}", path.display()
    )]
    UnexpectedTensors { path: PathBuf, count: usize, names: String },
}

impl Classify for HuggingFaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            HuggingFaceError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            HuggingFaceError::Read { .. } | HuggingFaceError::Write { .. } => {
                ErrorKind::Unavailable
            }
            HuggingFaceError::Field { .. } | HuggingFaceError::WrongElement { .. } => {
                ErrorKind::Unsupported
            }
            HuggingFaceError::NotAConfig { .. }
            | HuggingFaceError::MissingField { .. }
            | HuggingFaceError::Damaged { .. }
            | HuggingFaceError::MissingTensor { .. }
            | HuggingFaceError::WrongShape { .. }
            | HuggingFaceError::UnexpectedTensors { .. } => ErrorKind::InvalidInput,
        }
    }
}
