//! Why bytes are not a request, and the HTTP status of every kind of failure.

use std::borrow::Cow;

use outhaul_types::{Classify, DataType, ErrorKind, Name, Shape, TensorError, UnknownDataType};

use crate::rows::RowError;
use crate::tensorflow_grpc::TensorFlowError;

/// Why bytes are not a request, or why an answer cannot be written as asked.
///
/// Every one is the caller's to mend, so the text says what came and what was expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ProtocolError {
    #[error("request is not UTF-8 at byte {offset}")]
    NotUtf8 { offset: usize },
    #[error("malformed JSON: {problem} at line {line} column {column}")]
    Json { problem: String, line: usize, column: usize },
    #[error("'{field}' {problem}")]
    Field { field: Cow<'static, str>, problem: FieldProblem },
    #[error("input '{input}' {problem}")]
    Input { input: Name, problem: TensorProblem },
    #[error("request has more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error(
        "header Inference-Header-Content-Length is {json_length}, but the body has {body_length} \
         bytes"
    )]
    HeaderLength { json_length: usize, body_length: usize },
    #[error("body has {left} bytes left over after the binary data of its inputs")]
    LeftOver { left: usize },
    #[error("{what} asks for shared memory, which is not supported: send the data in the request")]
    SharedMemory { what: String },
    #[error("'{name}' of {request} request is not supported: {reason}")]
    NotTaken { request: &'static str, name: String, reason: &'static str },
    #[error(
        "output '{output}' element {index} is not UTF-8 and cannot be written as JSON: request it \
         with the parameter binary_data set to true"
    )]
    OutputNotUtf8 { output: Name, index: usize },
    #[error("model '{model}' is {is}, and {contract} takes {takes}")]
    WrongTask { model: String, is: &'static str, contract: &'static str, takes: &'static str },
    #[error("output '{output}' of the model is not {expected}")]
    OutputUnfit { output: Name, expected: &'static str },
    #[error(transparent)]
    Row(Box<RowError>),
    #[error("request has no rows")]
    NoRows,
    #[error(transparent)]
    TensorFlow(Box<TensorFlowError>),
    #[error("malformed NPY: {problem}")]
    Npy { problem: String },
    #[error(
        "request has {rows} rows, more than the limit of {limit}: send them in several requests"
    )]
    TooManyRows { rows: usize, limit: usize },
    #[error(
        "output '{output}' has shape {shape} where the answer has {rows} rows, so it cannot be told \
         row by row: ask for whole tensors"
    )]
    OutputRows { output: Name, shape: Shape, rows: usize },
}

/// What is wrong with one field of a message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum FieldProblem {
    #[error("is missing")]
    Missing,
    #[error("is given twice")]
    Duplicate,
    #[error("must be {expected}, got {received} at line {line} column {column}")]
    WrongType { expected: &'static str, received: &'static str, line: usize, column: usize },
    #[error("must be {expected}, got {received}")]
    OutOfRange { expected: Cow<'static, str>, received: String },
    #[error("must not be empty")]
    Empty,
}

/// What is wrong with one tensor. Each message continues "input 'NAME' ...".
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TensorProblem {
    #[error("has an {0}")]
    UnknownDataType(UnknownDataType),
    #[error("has the negative size {size} as dimension {dimension} of its shape")]
    NegativeDimension { dimension: usize, size: i64 },
    #[error("has more than {limit} dimensions")]
    TooManyDimensions { limit: usize },
    #[error("has shape {shape}, which has more elements than can be addressed")]
    TooLarge { shape: Shape },
    #[error("takes more than the limit of {limit} bytes")]
    OverLimit { limit: usize },
    #[error("has shape {shape} which needs {expected} elements, got {received}")]
    WrongCount { shape: Shape, expected: usize, received: usize },
    #[error("has shape {shape} of {data_type} which needs {expected} bytes, got {received}")]
    WrongSize { data_type: DataType, shape: Shape, expected: usize, received: usize },
    #[error(
        "has shape {shape}, but a list at depth {depth} of its data has {received} items where \
         the shape says {expected}"
    )]
    Ragged { shape: Shape, depth: usize, expected: usize, received: usize },
    #[error(
        "has shape {shape}, but its data holds {received} at depth {depth}: give one flat list, or \
         lists nested as the shape says"
    )]
    WrongNesting { shape: Shape, depth: usize, received: &'static str },
    #[error("has shape {shape}, but its data is {received}, not a list")]
    NotAList { shape: Shape, received: &'static str },
    #[error("element {index} is {value}, expected {expected}")]
    WrongElement { index: usize, value: String, expected: &'static str },
    #[error("element {index} is {value}, which is out of range for {data_type}")]
    OutOfRange { index: usize, value: String, data_type: DataType },
    #[error("element {index} says it has {length} bytes, but {left} are left")]
    StringTooLong { index: usize, length: usize, left: usize },
    #[error("ends within the four length bytes of element {index}")]
    StringCut { index: usize },
    #[error("has {left} bytes left over after its {elements} elements")]
    StringsLeftOver { left: usize, elements: usize },
    #[error("is not a tensor: {0}")]
    NotATensor(TensorError),
    #[error("has no data: give 'data', or the parameter 'binary_data_size'")]
    NoData,
    #[error("has both 'data' and the parameter 'binary_data_size'")]
    DataTwice,
    #[error("has {size} bytes of binary data by its 'binary_data_size', but {left} are left")]
    BinaryTooLong { size: usize, left: usize },
    #[error("has the negative 'binary_data_size' {size}")]
    NegativeBinarySize { size: i64 },
    #[error(
        "has a 'binary_data_size', but the request has no header Inference-Header-Content-Length"
    )]
    NoBinaryData,
    #[error("has no data: give it in raw_input_contents, or in contents")]
    NoContents,
    #[error("has datatype {data_type}, whose contents belong in {expected}, but has {received}")]
    WrongContents { data_type: DataType, expected: &'static str, received: &'static str },
    #[error("has datatype {data_type}, which contents cannot hold: send it in raw_input_contents")]
    RawOnly { data_type: DataType },
}

impl ProtocolError {
    pub(crate) fn field(field: impl Into<Cow<'static, str>>, problem: FieldProblem) -> Self {
        ProtocolError::Field { field: field.into(), problem }
    }

    pub(crate) fn missing(field: impl Into<Cow<'static, str>>) -> Self {
        ProtocolError::field(field, FieldProblem::Missing)
    }
}

impl From<RowError> for ProtocolError {
    fn from(error: RowError) -> Self {
        ProtocolError::Row(Box::new(error))
    }
}

impl Classify for ProtocolError {
    fn kind(&self) -> ErrorKind {
        match self {
            ProtocolError::SharedMemory { .. }
            | ProtocolError::NotTaken { .. }
            | ProtocolError::OutputNotUtf8 { .. }
            | ProtocolError::OutputRows { .. } => ErrorKind::Unsupported,
            ProtocolError::OutputUnfit { .. } => ErrorKind::EngineFailed,
            ProtocolError::TensorFlow(error) => match error.kind() {
                // A verb that the model has no answer for: FAILED_PRECONDITION over gRPC, 400 here.
                ErrorKind::Conflict => ErrorKind::Unsupported,
                kind => kind,
            },
            ProtocolError::WrongTask { .. }
            | ProtocolError::NotUtf8 { .. }
            | ProtocolError::Json { .. }
            | ProtocolError::Field { .. }
            | ProtocolError::Input { .. }
            | ProtocolError::TooMany { .. }
            | ProtocolError::HeaderLength { .. }
            | ProtocolError::LeftOver { .. }
            | ProtocolError::Row(_)
            | ProtocolError::NoRows
            | ProtocolError::Npy { .. }
            | ProtocolError::TooManyRows { .. } => ErrorKind::InvalidInput,
        }
    }
}

/// The longest part of a foreign text that an error repeats, in characters.
const LONGEST_EXCERPT: usize = 48;

/// Returns the beginning of a text, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(LONGEST_EXCERPT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the HTTP status of a kind of failure.
///
/// What a caller did wrong is a 4xx, [`ErrorKind::Unsupported`] too: 501 would count against the
/// server in every dashboard, and the same request will fail again.
pub const fn http_status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => 400,
        ErrorKind::Unauthenticated => 401,
        ErrorKind::Forbidden => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::Conflict => 409,
        ErrorKind::Overloaded => 429,
        ErrorKind::EngineFailed | ErrorKind::Internal => 500,
        ErrorKind::NotReady | ErrorKind::Unavailable => 503,
        ErrorKind::DeadlineExceeded => 504,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_did_wrong_is_never_a_5xx() {
        use ErrorKind::{DeadlineExceeded, NotReady};
        for kind in ErrorKind::ALL {
            let blames_us = http_status(kind) >= 500;
            let expected = kind.is_ours() || matches!(kind, NotReady | DeadlineExceeded);
            assert_eq!(blames_us, expected, "{kind}");
        }
    }
}
