//! What becomes of a failure in GraphQL's form.

use apollo_compiler::response::serde_json_bytes::Value as JsonValue;
use apollo_compiler::response::{GraphQLError, JsonMap};
use outhaul_types::{Classify, ErrorKind};

/// Why a request is not executed at all.
#[derive(Debug)]
pub struct Refusal {
    /// Whether it is no GraphQL request at all. Else it is one that cannot be answered, which
    /// clients that only know `application/json` want to hear with status 200.
    pub malformed: bool,
    /// Whether it asks to change something.
    pub mutates: bool,
    errors: Vec<GraphQLError>,
}

/// The code of a document that is no GraphQL.
const PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
/// The code of a document that does not fit the schema.
const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";
/// The code of a request that asks for too much.
pub const QUERY_LIMIT: &str = "QUERY_LIMIT";

impl Refusal {
    /// Refuses what is no GraphQL request.
    pub fn malformed(message: impl Into<String>) -> Self {
        Refusal::of(true, message, code(ErrorKind::InvalidInput))
    }

    /// Refuses a request that asks for too much.
    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Refusal::of(false, message, QUERY_LIMIT)
    }

    /// Refuses to change anything.
    pub(crate) fn mutation() -> Self {
        let message = "models are loaded and unloaded by /v2/repository: only queries are answered";
        let refusal = Refusal::of(false, message, code(ErrorKind::Unsupported));
        Refusal { mutates: true, ..refusal }
    }

    /// Refuses a request whose failure is known by kind.
    pub(crate) fn of(malformed: bool, message: impl Into<String>, code: &str) -> Self {
        Refusal { malformed, mutates: false, errors: vec![error(message, code)] }
    }

    pub(crate) fn parse(errors: Vec<GraphQLError>) -> Self {
        Refusal { malformed: false, mutates: false, errors: with_code(errors, PARSE_FAILED) }
    }

    pub(crate) fn validation(errors: Vec<GraphQLError>) -> Self {
        Refusal { malformed: false, mutates: false, errors: with_code(errors, VALIDATION_FAILED) }
    }

    /// Returns the body that tells of it.
    pub fn body(&self) -> Vec<u8> {
        let mut body = b"{\"errors\":".to_vec();
        serde_json::to_writer(&mut body, &self.errors).expect("errors can be written to memory");
        body.push(b'}');
        body
    }
}

/// Returns the body of a failure that belongs to no request.
pub fn error_body(message: &str, kind: ErrorKind) -> Vec<u8> {
    Refusal::of(false, message, code(kind)).body()
}

fn error(message: impl Into<String>, code: &str) -> GraphQLError {
    let mut extensions = JsonMap::new();
    extensions.insert("code", JsonValue::from(code));
    GraphQLError { message: message.into(), locations: vec![], path: vec![], extensions }
}

/// The most errors of one request that are told.
const TOLD: usize = 20;

fn with_code(mut errors: Vec<GraphQLError>, code: &str) -> Vec<GraphQLError> {
    errors.truncate(TOLD);
    for error in &mut errors {
        error.extensions = JsonMap::new();
        error.extensions.insert("code", JsonValue::from(code));
    }
    errors
}

/// Why one field has no value.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldFailure {
    message: String,
    code: &'static str,
}

impl FieldFailure {
    /// Returns the failure that an error tells of, without its causes.
    pub fn of(error: &impl Classify) -> Self {
        FieldFailure::new(error.kind(), error.client_message())
    }

    /// Returns a failure of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        FieldFailure { message: message.into(), code: code(kind) }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        FieldFailure::new(ErrorKind::Unsupported, message)
    }

    /// Returns the text that [`unpack`] takes apart again: the executor carries nothing but a text.
    pub(crate) fn packed(&self) -> String {
        format!("{MARK}{}{MARK}{}", self.code, self.message)
    }
}

/// Stands before the code and behind it; no message holds it.
const MARK: char = '\u{1}';

/// Gives errors of fields their own text and code.
pub(crate) fn unpack(errors: &mut [GraphQLError]) {
    for error in errors {
        let packed = error.message.strip_prefix("resolver error: ");
        let packed = packed.and_then(|text| text.strip_prefix(MARK));
        match packed.and_then(|text| text.split_once(MARK)) {
            Some((code, message)) => {
                error.extensions.insert("code", JsonValue::from(code));
                error.message = message.to_owned();
            }
            None => {
                // The executor's own: a version whose types are not those of the schema.
                let code = code(ErrorKind::Unsupported);
                error.extensions.insert("code", JsonValue::from(code));
            }
        }
    }
}

/// Returns a kind as `extensions.code` tells it.
pub const fn code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => "INVALID_INPUT",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::NotReady => "NOT_READY",
        ErrorKind::Overloaded => "OVERLOADED",
        ErrorKind::DeadlineExceeded => "DEADLINE_EXCEEDED",
        ErrorKind::Unauthenticated => "UNAUTHENTICATED",
        ErrorKind::Forbidden => "FORBIDDEN",
        ErrorKind::Conflict => "CONFLICT",
        ErrorKind::Unsupported => "UNSUPPORTED",
        ErrorKind::EngineFailed => "ENGINE_FAILED",
        ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::Internal => "INTERNAL",
    }
}
