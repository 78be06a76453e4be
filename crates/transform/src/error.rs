//! Why a declaration cannot hold, and why a request cannot be taken.

use std::io;
use std::path::PathBuf;

use outhaul_types::{BindError, Classify, DataType, ErrorKind, Name, ShapePattern};

/// Why a transform cannot be built. It is the operator's to mend, so the text says where.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BuildError {
    #[error("transform: {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("transform: {} {problem}", path.display())]
    File { path: PathBuf, problem: String },
    /// The declaration contradicts itself or the model's file.
    #[error("transform.{key} {problem}")]
    Declared { key: &'static str, problem: String },
    #[error("transform.{key} names '{name}', but the model has {expected}")]
    Unknown { key: &'static str, name: Name, expected: String },
    #[error(
        "transform.{key}: '{name}' is {data_type} {shape} in the model's file, which {problem}"
    )]
    Unfit {
        key: &'static str,
        name: Name,
        data_type: DataType,
        shape: ShapePattern,
        problem: String,
    },
}

impl Classify for BuildError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Why a request cannot be transformed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TransformError {
    /// The request's tensors do not agree with each other.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is nothing to do.
    #[error("the request has no rows")]
    NoRows,
    /// One value cannot be taken.
    #[error("row {row}: '{field}' {problem}")]
    Row {
        /// Which row of the request, from 0.
        row: usize,
        /// The input.
        field: Name,
        /// What is wrong with it.
        problem: String,
    },
    /// An input cannot be taken, whatever the row.
    #[error("'{field}' {problem}")]
    Input {
        /// The input.
        field: Name,
        /// What is wrong with it.
        problem: String,
    },
    /// The model gave something else than its file promised.
    #[error("the model's output '{output}' {problem}")]
    Output {
        /// The model's output.
        output: Name,
        /// What is wrong with it.
        problem: String,
    },
}

impl Classify for TransformError {
    fn kind(&self) -> ErrorKind {
        match self {
            TransformError::Bind(error) => error.kind(),
            TransformError::NoRows | TransformError::Row { .. } | TransformError::Input { .. } => {
                ErrorKind::InvalidInput
            }
            TransformError::Output { .. } => ErrorKind::EngineFailed,
        }
    }
}
