//! OpenAI's embeddings: one or many texts, or their tokens, to vectors.
//!
//! A body is `{"input", "model", "encoding_format", "dimensions"}`; `user` and fields that are not known
//! are ignored, as OpenAI's own server does. Texts become the outer input of an embedding model, `BYTES
//! [batch]`; tokens become the model's own `input_ids`, `[batch, tokens]`, one request for inputs of
//! equal length, so that nothing is padded. What belongs to token ids besides (masks, segments) is
//! filled in by the model's transform.
//!
//! Errors are `{"error": {"message", "type", "param", "code"}}`, see [`error_body`]; [`crate::rerank`]
//! writes them so too.

mod embeddings;
mod error;
mod input;
mod outline;

pub use embeddings::{
    DecodedEmbeddings, EmbeddingsFormat, Encoding, decode_embeddings, encode_embeddings,
};
pub use error::error_body;
pub use outline::{Outline, outline};

pub(crate) use embeddings::write_usage;

use outhaul_types::Task;

use crate::rows::JsonValue;
use crate::{FieldProblem, ProtocolError, Schema};

/// The most inputs of one call, as OpenAI has it.
pub const MAX_INPUTS: usize = 2048;

/// Returns a member that is there and not null.
pub(crate) fn given<'v, 'j>(body: &'v JsonValue<'j>, key: &str) -> Option<&'v JsonValue<'j>> {
    body.get(key).filter(|value| !value.is_null())
}

pub(crate) fn wrong_type(
    field: impl Into<std::borrow::Cow<'static, str>>,
    expected: &'static str,
    received: &JsonValue<'_>,
) -> ProtocolError {
    let (expected, received) = (expected.into(), received.kind().to_owned());
    ProtocolError::field(field, FieldProblem::OutOfRange { expected, received })
}

/// Returns a whole number of at least 1, where it is given.
pub(crate) fn positive(
    body: &JsonValue<'_>,
    key: &'static str,
) -> Result<Option<usize>, ProtocolError> {
    const EXPECTED: &str = "a whole number, at least 1";
    match given(body, key) {
        None => Ok(None),
        Some(JsonValue::Number(digits)) => match digits.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => {
                let received = crate::error::excerpt(digits);
                let problem = FieldProblem::OutOfRange { expected: EXPECTED.into(), received };
                Err(ProtocolError::field(key, problem))
            }
        },
        Some(other) => Err(wrong_type(key, EXPECTED, other)),
    }
}

/// Checks that a model does what a contract is for.
pub(crate) fn check_task(
    model: &Schema<'_>,
    wanted: Task,
    contract: &'static str,
) -> Result<(), ProtocolError> {
    let task = model.interface.task;
    if task == wanted {
        return Ok(());
    }
    let name = crate::error::excerpt(model.name);
    Err(ProtocolError::WrongTask { model: name, is: phrase(task), contract, takes: phrase(wanted) })
}

const fn phrase(task: Task) -> &'static str {
    match task {
        Task::Tensors => "a model of tensors",
        Task::Embedding => "an embedding model",
        Task::Classification => "a classification model",
        Task::TokenClassification => "a token classification model",
        Task::Rerank => "a reranking model",
        Task::FillMask => "a fill-mask model",
        Task::Regression => "a regression model",
    }
}

#[cfg(test)]
mod tests;
