//! How many fields a message may have before it is decoded.
//!
//! Two bytes on the wire can be an empty tensor, string or example, which takes some two hundred bytes
//! in memory: without a bound a message could grow a hundredfold. So fields are counted first, in the
//! messages whose fields may be many; payloads are not looked into, and packed numbers are one field.

use std::any::TypeId;

use super::pb::ModelInferRequest;
use crate::tensorflow_grpc::pb::serving;

/// The most fields at the top level of a message.
const MAX_FIELDS: usize = 1 << 16;

/// The most fields below it, all together. An empty string takes two bytes on the wire and some fifty in
/// memory.
const MAX_INNER_FIELDS: usize = 1 << 20;

/// A message whose fields are counted, and by number those of its fields that are such messages too.
struct Level {
    inside: &'static [(u64, &'static Level)],
}

/// A message without messages that could be many.
static PLAIN: Level = Level { inside: &[] };

/// `ModelInferRequest`: inputs with their contents, and requested outputs.
static INFER: Level = Level {
    inside: &[(5, &Level { inside: &[(5, &PLAIN)] }), (6, &Level { inside: &[(5, &PLAIN)] })],
};

/// `PredictRequest`: entries of `inputs`, their tensors, the shapes of those.
static PREDICT: Level =
    Level { inside: &[(2, &Level { inside: &[(2, &Level { inside: &[(2, &PLAIN)] })] })] };

/// `Example`: its features, their entries, the features of those, and their lists.
static EXAMPLE: Level = Level { inside: &[(1, &FEATURES)] };
static FEATURES: Level = Level { inside: &[(1, &Level { inside: &[(2, &FEATURE)] })] };
static FEATURE: Level = Level { inside: &[(1, &PLAIN), (2, &PLAIN), (3, &PLAIN)] };

/// `Input`: a list of examples, or a list with a context.
static INPUT: Level = Level { inside: &[(1, &EXAMPLES), (2, &EXAMPLES)] };
static EXAMPLES: Level = Level { inside: &[(1, &EXAMPLE), (2, &EXAMPLE)] };

/// `ClassificationRequest`, `RegressionRequest` and `MultiInferenceRequest`. The tasks of the last are
/// bounded with the fields of the message.
static OF_EXAMPLES: Level = Level { inside: &[(2, &INPUT)] };

/// A message has more fields than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyFields {
    /// At its top level.
    #[error("message has more than {MAX_FIELDS} fields")]
    Outer,
    /// Below it.
    #[error("message has more than {MAX_INNER_FIELDS} fields in its {part}: {advice}")]
    Inner {
        /// What most of them belong to.
        part: &'static str,
        /// What to send in their place.
        advice: &'static str,
    },
}

/// Checks that the bytes of a message of type `M` do not grow out of proportion when decoded.
///
/// # Errors
///
/// Fails where it has too many fields. Bytes that are no message may pass: decoding them fails.
pub fn check_fields<M: 'static>(message: &[u8]) -> Result<(), TooManyFields> {
    let (level, part, advice) = level_of(TypeId::of::<M>());
    let too_many = TooManyFields::Inner { part, advice };
    Fields { outer: MAX_FIELDS, inner: MAX_INNER_FIELDS, too_many }.spend_message(message, level)
}

/// Returns how to count a type's fields, and what to say of too many.
fn level_of(message: TypeId) -> (&'static Level, &'static str, &'static str) {
    if message == TypeId::of::<ModelInferRequest>() {
        (&INFER, "tensors", "send large ones in raw_input_contents")
    } else if message == TypeId::of::<serving::PredictRequest>() {
        (&PREDICT, "tensors", "send large ones in tensor_content")
    } else if message == TypeId::of::<serving::ClassificationRequest>()
        || message == TypeId::of::<serving::RegressionRequest>()
        || message == TypeId::of::<serving::MultiInferenceRequest>()
    {
        (&OF_EXAMPLES, "examples", "send fewer of them, or tensors with Predict")
    } else {
        (&PLAIN, "messages", "send fewer of them")
    }
}

/// How many fields a message may still have.
struct Fields {
    /// At its top level.
    outer: usize,
    /// Below it.
    inner: usize,
    /// What to say where the inner ones are too many.
    too_many: TooManyFields,
}

impl Fields {
    /// Counts the fields of a message and of those in it that are counted. Where the bytes are no
    /// message, counting ends there: decoding them fails at the same place.
    fn spend_message(mut self, mut bytes: &[u8], level: &Level) -> Result<(), TooManyFields> {
        while !bytes.is_empty() {
            self.outer = self.outer.checked_sub(1).ok_or(TooManyFields::Outer)?;
            let Some(rest) = self.spend_field(bytes, level)? else { return Ok(()) };
            bytes = rest;
        }
        Ok(())
    }

    /// Counts the fields of a message within the message.
    fn spend_inner(&mut self, mut bytes: &[u8], level: &Level) -> Result<(), TooManyFields> {
        while !bytes.is_empty() {
            self.inner = self.inner.checked_sub(1).ok_or(self.too_many)?;
            let Some(rest) = self.spend_field(bytes, level)? else { return Ok(()) };
            bytes = rest;
        }
        Ok(())
    }

    /// Counts what is within the first field, and returns what follows it.
    fn spend_field<'a>(
        &mut self,
        bytes: &'a [u8],
        level: &Level,
    ) -> Result<Option<&'a [u8]>, TooManyFields> {
        let Some((tag, value, rest)) = field(bytes) else { return Ok(None) };
        let inside = level.inside.iter().find(|(number, _)| *number == tag >> 3);
        if let Some((_, inside)) = inside.filter(|_| tag & 7 == LENGTH_DELIMITED) {
            self.spend_inner(value, inside)?;
        }
        Ok(Some(rest))
    }
}

/// The wire type of strings, bytes, messages and packed numbers.
const LENGTH_DELIMITED: u64 = 2;

/// Parts the first field off a message: its tag, its value without its length, and what follows.
fn field(mut bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let tag = varint(&mut bytes)?;
    let length = match tag & 7 {
        0 => varint(&mut bytes).map(|_| 0)?,
        1 => 8,
        LENGTH_DELIMITED => usize::try_from(varint(&mut bytes)?).ok()?,
        5 => 4,
        // The start or end of a group: its fields count like others.
        _ => 0,
    };
    let (value, rest) = bytes.split_at_checked(length)?;
    Some((tag, value, rest))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::grpc::pb::InferTensorContents;
    use crate::grpc::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use crate::tensorflow_grpc::pb;

    fn fits_in<M: 'static>(bytes: &[u8], outer: usize, inner: usize) -> bool {
        let (level, part, advice) = level_of(TypeId::of::<M>());
        let too_many = TooManyFields::Inner { part, advice };
        Fields { outer, inner, too_many }.spend_message(bytes, level).is_ok()
    }

    fn fits(bytes: &[u8], outer: usize, inner: usize) -> bool {
        fits_in::<ModelInferRequest>(bytes, outer, inner)
    }

    #[test]
    fn fields_are_counted_where_they_take_memory() {
        let request = ModelInferRequest {
            model_name: "iris".into(),
            // A payload that would read as many fields, were it looked into.
            raw_input_contents: vec![vec![8, 1, 8, 1, 8, 1, 8, 1].into(); 3],
            ..Default::default()
        };
        let bytes = request.encode_to_vec();
        assert!(fits(&bytes, 4, 0));
        assert!(!fits(&bytes, 3, 0));
        let scalars = [0x08, 0x96, 0x01, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0];
        assert!(fits(&scalars, 3, 0), "varint, 64 and 32 bits");
        assert!(!fits(&scalars, 2, 0));
    }

    #[test]
    fn fields_of_tensors_and_their_contents_count() {
        let strings = InferTensorContents {
            bytes_contents: vec![Bytes::new(); 5],
            ..InferTensorContents::default()
        };
        let numbers =
            InferTensorContents { fp32_contents: vec![1.0; 100], ..InferTensorContents::default() };
        let of = |contents| ModelInferRequest {
            inputs: vec![InferInputTensor { contents: Some(contents), ..Default::default() }],
            ..Default::default()
        };
        let strings = of(strings).encode_to_vec();
        assert!(fits(&strings, 1, 6), "the contents and five strings");
        assert!(!fits(&strings, 1, 5));
        assert!(fits(&of(numbers).encode_to_vec(), 1, 2), "packed numbers are one field");
        let named = InferRequestedOutputTensor { name: "y".into(), ..Default::default() };
        let outputs = ModelInferRequest { outputs: vec![named; 3], ..Default::default() };
        assert!(fits(&outputs.encode_to_vec(), 3, 3));
        assert!(!fits(&outputs.encode_to_vec(), 3, 2));
    }

    #[test]
    fn fields_of_tensorflows_tensors_and_examples_count() {
        let dimension = pb::tensor_shape_proto::Dim::default();
        let tensor = pb::TensorProto {
            tensor_shape: Some(pb::TensorShapeProto {
                dim: vec![dimension; 3],
                unknown_rank: false,
            }),
            string_val: vec![Bytes::new(); 2],
            float_val: vec![1.0; 50],
            ..Default::default()
        };
        let inputs = [("x".to_owned(), tensor)].into();
        let request = serving::PredictRequest { inputs, ..Default::default() }.encode_to_vec();
        // The entry's key and value; the tensor's shape, numbers and strings; three dimensions.
        assert!(fits_in::<serving::PredictRequest>(&request, 1, 2 + 4 + 3));
        assert!(!fits_in::<serving::PredictRequest>(&request, 1, 8));

        let list = pb::BytesList { value: vec![Bytes::new(); 4] };
        let feature = pb::Feature { kind: Some(pb::feature::Kind::BytesList(list)) };
        let features = pb::Features { feature: [("x".to_owned(), feature)].into() };
        let example = pb::Example { features: Some(features) };
        let list = serving::ExampleList { examples: vec![example; 2] };
        let input = serving::Input { kind: Some(serving::input::Kind::ExampleList(list)) };
        let request = serving::ClassificationRequest { input: Some(input), ..Default::default() };
        let request = request.encode_to_vec();
        // The list; for each example itself, its features, an entry of two, a list, and four strings.
        let inner = 1 + 2 * (1 + 1 + 1 + 2 + 1 + 4);
        assert!(fits_in::<serving::ClassificationRequest>(&request, 1, inner));
        assert!(fits_in::<serving::MultiInferenceRequest>(&request, 1, inner));
        assert!(!fits_in::<serving::RegressionRequest>(&request, 1, inner - 1));
    }

    #[test]
    fn bytes_that_are_no_message_end_the_count() {
        let cut: [&[u8]; 5] = [
            &[0x80],
            &[0x0a, 0x05, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x09, 0, 0],
            &[0xff; 16],
        ];
        for bytes in cut {
            assert!(fits(bytes, 4, 4), "{bytes:?}");
            assert!(ModelInferRequest::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
