//! The answer to a call to rerank.

use bytes::Bytes;
use outhaul_types::{InferResponse, Strings};

use super::{Form, RerankFormat};
use crate::oip::encode::{write_float, write_integer, write_string};
use crate::openai::write_usage;
use crate::{ProtocolError, Schema};

/// Writes the answer to the one request that was made of a call, best first; of texts with the same score, the one that came first.
///
/// # Errors
///
/// Fails where the answer is not what the signature promises.
pub fn encode_rerank(
    format: &RerankFormat,
    responses: &[InferResponse],
    model: &Schema<'_>,
) -> Result<Bytes, ProtocolError> {
    let output = responses.first().and_then(|response| response.output(&format.output));
    let scores = output.and_then(|tensor| {
        // `[batch]`, or the model's own `[batch, 1]`.
        let is_one_each = tensor.shape().rows() == Some(tensor.len());
        tensor.elements_of::<f32>().filter(|_| is_one_each)
    });
    let scores = scores.ok_or_else(|| ProtocolError::OutputUnfit {
        output: format.output.clone(),
        expected: "FP32 [batch]",
    })?;
    let order = best_first(&scores);
    let order = &order[..format.most.unwrap_or(order.len()).min(order.len())];
    let texts: usize = format.texts.as_ref().map_or(0, Strings::byte_size);
    let mut out = Vec::with_capacity(64 * order.len() + texts + texts / 8 + 256);
    match format.form {
        Form::Texts => write_results(&mut out, format, &scores, order),
        Form::Documents => {
            out.extend_from_slice(b"{\"id\":");
            write_string(&mut out, &format.id);
            out.extend_from_slice(b",\"model\":");
            write_string(&mut out, model.name);
            write_usage(&mut out, responses.iter().filter_map(|response| response.tokens).sum());
            out.extend_from_slice(b",\"results\":");
            write_results(&mut out, format, &scores, order);
            out.push(b'}');
        }
    }
    Ok(out.into())
}

/// Returns the places of the scores, the highest first. What is not a number comes last.
fn best_first(scores: &[f32]) -> Vec<usize> {
    let worth = |index: usize| match scores[index] {
        score if score.is_nan() => f32::NEG_INFINITY,
        score => score,
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&left, &right| worth(right).total_cmp(&worth(left)));
    order
}

fn write_results(out: &mut Vec<u8>, format: &RerankFormat, scores: &[f32], order: &[usize]) {
    let score_key: &[u8] = match format.form {
        Form::Documents => b",\"relevance_score\":",
        Form::Texts => b",\"score\":",
    };
    out.push(b'[');
    for (place, &index) in order.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"index\":");
        write_integer(out, index);
        out.extend_from_slice(score_key);
        let score = scores[index];
        write_float(out, score, score.is_finite());
        if let Some(text) = format.texts.as_ref().and_then(|texts| texts.get(index)) {
            // It came as JSON, so it is UTF-8.
            let text = std::str::from_utf8(text).unwrap_or_default();
            match format.form {
                Form::Documents => {
                    out.extend_from_slice(b",\"document\":{\"text\":");
                    write_string(out, text);
                    out.push(b'}');
                }
                Form::Texts => {
                    out.extend_from_slice(b",\"text\":");
                    write_string(out, text);
                }
            }
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// Writes an error as text-embeddings-inference does. `status` is that of the answer.
pub fn error_body(status: u16, message: &str) -> Bytes {
    let kind: &[u8] = match status {
        429 => b"Overloaded",
        503 => b"Unhealthy",
        400..500 => b"Validation",
        _ => b"Backend",
    };
    let mut out = Vec::with_capacity(64 + message.len());
    out.extend_from_slice(b"{\"error\":");
    write_string(&mut out, message);
    out.extend_from_slice(b",\"error_type\":\"");
    out.extend_from_slice(kind);
    out.extend_from_slice(b"\"}");
    out.into()
}
