//! An answer as Redis holds it.
//!
//! ```text
//! 1 byte     the form: 1
//! 16 bytes   the beginning of BLAKE3(key, message)
//! the rest   a ModelInferResponse of the Open Inference Protocol, raw contents
//! ```
//!
//! Invariant: what decodes is the whole answer to this very key, as it was kept; anything else is `None`. An
//! entry that was cut off, copied to another key or written by somebody else is a miss and no answer.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outhaul_protocol::DecodeLimits;
use outhaul_protocol::grpc::pb::infer_parameter::ParameterChoice;
use outhaul_protocol::grpc::pb::model_infer_request::InferInputTensor;
use outhaul_protocol::grpc::pb::model_infer_response::InferOutputTensor;
use outhaul_protocol::grpc::pb::{InferParameter, ModelInferRequest, ModelInferResponse};
use outhaul_protocol::grpc::{decode_infer, encode_infer};
use outhaul_types::{
    CacheStatus, InferResponse, ModelName, ModelVersion, Parameter, Parameters, Timings,
};
use prost::Message;

use crate::{CacheKey, Kept};

/// The form of what follows. Another form gets another number.
const FORM: u8 = 1;

const CHECK: usize = 16;

const ROWS: &str = "rows";
const TOKENS: &str = "tokens";
const COST: &str = "cost_ns";

/// Writes an answer of a model.
pub(crate) fn encode(key: &CacheKey, model: &ModelName, kept: &Kept) -> Vec<u8> {
    let mut message = encode_infer(InferResponse {
        id: None,
        model: model.clone(),
        version: ModelVersion(0),
        outputs: kept.outputs.clone(),
        timings: Timings::default(),
        tokens: None,
        cache: CacheStatus::Off,
        via: None,
    });
    message.parameters = parameters(kept);
    let mut bytes = Vec::with_capacity(1 + CHECK + message.encoded_len());
    bytes.push(FORM);
    bytes.extend_from_slice(&[0; CHECK]);
    message.encode_raw(&mut bytes);
    let check = check(key, &bytes[1 + CHECK..]);
    bytes[1..=CHECK].copy_from_slice(&check);
    bytes
}

/// Reads an answer. Its tensors share the bytes.
pub(crate) fn decode(key: &CacheKey, bytes: Bytes) -> Option<Kept> {
    let (head, body) = bytes.split_at_checked(1 + CHECK)?;
    if head[0] != FORM || head[1..] != check(key, body) {
        return None;
    }
    let message = ModelInferResponse::decode(bytes.slice(1 + CHECK..)).ok()?;
    let limits = DecodeLimits { max_rank: usize::MAX, ..DecodeLimits::default() };
    // What a model is given and what it gives have one form; the decoder checks the former.
    let read = decode_infer(as_request(message), &limits).ok()?;
    Some(Kept {
        outputs: read.inputs,
        rows: number(&read.parameters, ROWS)?,
        tokens: match read.parameters.contains_key(TOKENS) {
            true => Some(number(&read.parameters, TOKENS)?),
            false => None,
        },
        cost: Duration::from_nanos(number(&read.parameters, COST)? as u64),
    })
}

fn check(key: &CacheKey, body: &[u8]) -> [u8; CHECK] {
    let digest = blake3::Hasher::new().update(key.as_bytes()).update(body).finalize();
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest.as_bytes()[..CHECK]);
    check
}

fn parameters(kept: &Kept) -> BTreeMap<String, InferParameter> {
    let cost = i64::try_from(kept.cost.as_nanos()).unwrap_or(i64::MAX);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let all =
        [(ROWS, Some(count(kept.rows))), (TOKENS, kept.tokens.map(count)), (COST, Some(cost))];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given
        .map(|(name, value)| {
            let parameter_choice = Some(ParameterChoice::Int64Param(value));
            (name.to_owned(), InferParameter { parameter_choice })
        })
        .collect()
}

fn number(parameters: &Parameters, name: &str) -> Option<usize> {
    match parameters.get(name) {
        Some(Parameter::Int(value)) => usize::try_from(*value).ok(),
        _ => None,
    }
}

fn as_request(message: ModelInferResponse) -> ModelInferRequest {
    let input = |output: InferOutputTensor| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        parameters: output.parameters,
        contents: output.contents,
    };
    ModelInferRequest {
        model_name: message.model_name,
        parameters: message.parameters,
        inputs: message.outputs.into_iter().map(input).collect(),
        raw_input_contents: message.raw_output_contents,
        ..ModelInferRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use outhaul_types::{DataType, NamedTensor, Shape, Strings, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::KeyBuilder;

    fn key(text: &str) -> CacheKey {
        KeyBuilder::new().text(text).finish()
    }

    fn model() -> ModelName {
        ModelName::new("iris").unwrap()
    }

    fn answer() -> Kept {
        let strings: Strings = ["a", "", "\u{e9}\0"].iter().collect();
        let named = |name: &str, tensor| NamedTensor { name: name.into(), tensor };
        let of_each = DataType::ALL.into_iter().filter_map(|data_type| {
            let bytes = Bytes::from(vec![1_u8; 3 * data_type.size()?]);
            let tensor = Tensor::from_bytes(data_type, [3, 1], bytes).unwrap();
            Some(named(data_type.name(), tensor))
        });
        let others = [
            named("strings", Tensor::from_strings([3], strings).unwrap()),
            named("scalar", Tensor::from_vec(Shape::new([]), vec![f64::NAN]).unwrap()),
            named("empty", Tensor::from_vec([0, 4], Vec::<f32>::new()).unwrap()),
        ];
        Kept {
            outputs: of_each.chain(others).collect(),
            rows: 3,
            tokens: Some(0),
            cost: Duration::from_nanos(1_234_567),
        }
    }

    #[test]
    fn an_answer_reads_back_as_it_was() {
        for kept in [answer(), Kept { tokens: None, ..answer() }, Kept::default()] {
            let bytes = encode(&key("k"), &model(), &kept);
            assert_eq!(decode(&key("k"), bytes.into()), Some(kept));
        }
    }

    #[test]
    fn what_is_not_the_answer_to_this_key_is_a_miss() {
        let bytes = encode(&key("k"), &model(), &answer());
        assert_eq!(decode(&key("another"), bytes.clone().into()), None);
        for end in 0..bytes.len() {
            assert_eq!(decode(&key("k"), Bytes::copy_from_slice(&bytes[..end])), None, "{end}");
        }
        for place in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[place] ^= 1;
            assert_eq!(decode(&key("k"), wrong.into()), None, "byte {place}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            // Behind a right check, so that the message itself is read.
            let mut bytes = vec![FORM];
            bytes.extend_from_slice(&check(&key("k"), &body));
            bytes.extend_from_slice(&body);
            let _ = decode(&key("k"), bytes.into());
        }
    }
}
