//! What can be wrong with an ONNX file.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use outhaul_types::{Classify, ErrorKind};

use crate::element::ElementType;

/// A file that is not a model we can serve, and why.
#[derive(Debug)]
pub struct OnnxError {
    path: PathBuf,
    problem: Problem,
}

impl OnnxError {
    pub(crate) fn new(path: &Path, problem: Problem) -> Self {
        OnnxError { path: path.to_owned(), problem }
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is wrong with it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.path.display(), self.problem)
    }
}

impl Error for OnnxError {
    // `Display` already speaks for the problem; what caused that comes next in the chain.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

impl Classify for OnnxError {
    fn kind(&self) -> ErrorKind {
        self.problem.kind()
    }
}

/// An end of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Side {
    Input,
    Output,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Input => "input",
            Side::Output => "output",
        })
    }
}

/// What is wrong with a file. The texts follow the name of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("cannot be read")]
    CannotRead(#[source] io::Error),
    #[error("is not a file")]
    NotAFile,
    #[error("is empty")]
    Empty,
    #[error(
        "has {bytes} bytes, and an ONNX file holds at most {limit}; larger weights belong into \
         external data"
    )]
    TooLarge { bytes: u64, limit: u64 },
    #[error("is not an ONNX file: {reason}")]
    NotOnnx { reason: String },
    #[error("is cut off: {message} at byte {at} goes on to byte {end}, the file ends at {length}")]
    Truncated { message: &'static str, at: u64, end: u64, length: u64 },
    #[error("is damaged at byte {at} in {message}: {reason}")]
    Malformed { message: &'static str, at: u64, reason: String },
    #[error("nests deeper than {limit} messages (at byte {at} in {message})")]
    TooDeep { message: &'static str, at: u64, limit: usize },
    #[error("has more than {limit} parts (at byte {at} in {message})")]
    TooManyParts { message: &'static str, at: u64, limit: usize },
    #[error("holds no graph")]
    NoGraph,
    #[error("has {what} '{name}' twice")]
    DuplicateName { what: &'static str, name: String },
    #[error("has a broken tensor '{name}': {reason}")]
    BadTensor { name: String, reason: String },
    #[error("keeps tensor '{name}' in '{location}', {reason}")]
    ExternalData {
        name: String,
        location: String,
        reason: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error("has {user} that needs '{value}', which nothing makes")]
    UndefinedValue { user: String, value: String },
    #[error("has {node} that needs its own result '{value}'")]
    Cycle { node: String, value: String },
    #[error("has an {side} without a name")]
    Unnamed { side: Side },
    #[error("does not declare the type of {side} '{name}'")]
    Untyped { side: Side, name: String },
    #[error("has {side} '{name}', which is {what}; only dense tensors can be served")]
    NotATensor { side: Side, name: String, what: &'static str },
    #[error("has {side} '{name}' of {element}, which no wire contract carries")]
    UnsupportedElement { side: Side, name: String, element: ElementType },
    #[error("has {side} '{name}' of {element}, which ONNX does not define")]
    UnknownElement { side: Side, name: String, element: ElementType },
}

impl Problem {
    fn kind(&self) -> ErrorKind {
        match self {
            Problem::CannotRead(error) if error.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Problem::CannotRead(_) => ErrorKind::Unavailable,
            Problem::TooLarge { .. }
            | Problem::TooDeep { .. }
            | Problem::TooManyParts { .. }
            | Problem::NotATensor { .. }
            | Problem::UnsupportedElement { .. } => ErrorKind::Unsupported,
            Problem::NotAFile
            | Problem::Empty
            | Problem::NotOnnx { .. }
            | Problem::Truncated { .. }
            | Problem::Malformed { .. }
            | Problem::NoGraph
            | Problem::DuplicateName { .. }
            | Problem::BadTensor { .. }
            | Problem::ExternalData { .. }
            | Problem::UndefinedValue { .. }
            | Problem::Cycle { .. }
            | Problem::Unnamed { .. }
            | Problem::Untyped { .. }
            | Problem::UnknownElement { .. } => ErrorKind::InvalidInput,
        }
    }
}
