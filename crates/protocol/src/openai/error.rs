//! Errors in OpenAI's form.

use bytes::Bytes;

use crate::oip::encode::write_string;

/// Writes an error as OpenAI's clients read it. `status` is that of the answer.
///
/// `type` and `code` follow from the status; `param` is always null, the text names the field.
pub fn error_body(status: u16, message: &str) -> Bytes {
    let (kind, code) = kind(status);
    let mut out = Vec::with_capacity(96 + message.len());
    out.extend_from_slice(b"{\"error\":{\"message\":");
    write_string(&mut out, message);
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"param\":null,\"code\":");
    match code {
        Some(code) => write_string(&mut out, code),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}}");
    out.into()
}

/// OpenAI's words for a status.
const fn kind(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("rate_limit_exceeded", Some("rate_limit_exceeded")),
        400..500 => ("invalid_request_error", None),
        _ => ("server_error", None),
    }
}
