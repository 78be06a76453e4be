//! SageMaker's contract of containers: one body a call, whose form its media type tells.
//!
//! | `Content-Type` | body | answered, where `Accept` leaves it open |
//! |---|---|---|
//! | `application/json` | `{"instances": [...]}`, a bare list of rows | `{"predictions": [...]}` |
//! | | `{"inputs": ...}`, whole tensors | `{"outputs": ...}` |
//! | | a request of the Open Inference Protocol | an answer of the same |
//! | `application/jsonlines` and its other names | a row a line | a prediction a line |
//! | `text/csv` | a row a line | a prediction a line, without a header |
//! | `application/x-npy` | one array | an array, or JSON where the model has several outputs |
//! | `image/*`, `application/octet-stream` | the one value of the one row | `{"predictions": [...]}` |
//! | `text/plain` | one text | `{"predictions": [...]}` |
//!
//! Errors are `{"error", "message", "code"}`: the first is ours, the others are where boto3 looks. The
//! bodies of multi-model endpoints are in `models`.

mod array;
mod invocation;
mod media;
mod models;

pub use invocation::{
    DecodedInvocation, Encoded, InvocationFormat, decode_invocation, encode_invocation,
};
pub use media::{Accepted, ContentType, MediaError};
pub use models::{AddModel, ListedModel, decode_add, describe_model, list_models};

use bytes::Bytes;

use crate::oip::encode::write_string;

/// Writes an error. `status` is that of the answer.
pub fn error_body(status: u16, message: &str) -> Bytes {
    let code: &[u8] = match status {
        429 => b"ThrottlingException",
        503 => b"ServiceUnavailable",
        507 => b"InsufficientStorage",
        400..500 => b"ValidationError",
        _ => b"ModelError",
    };
    let mut out = Vec::with_capacity(64 + 2 * message.len());
    for key in [&b"{\"error\":"[..], b",\"message\":"] {
        out.extend_from_slice(key);
        write_string(&mut out, message);
    }
    out.extend_from_slice(b",\"code\":\"");
    out.extend_from_slice(code);
    out.extend_from_slice(b"\"}");
    out.into()
}

#[cfg(test)]
mod tests;
