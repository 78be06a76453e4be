//! How messages are read from and written to gRPC's frames.
//!
//! This differs from tonic's own codec in three ways: bytes that are not the message they should be
//! are the caller's mistake (`INVALID_ARGUMENT`, not `INTERNAL`), a message of very many fields is
//! refused before it is decoded, and the size of an answer is reserved at once.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::pb::ModelInferRequest;

/// The most fields at the top level of a request. An empty input tensor takes two bytes on the
/// wire and some two hundred in memory, so without a bound a request could grow a hundredfold.
const MAX_FIELDS: usize = 1 << 16;

/// The most fields inside of all inputs, their contents, and requested outputs together. An empty
/// string of `bytes_contents` takes two bytes on the wire and some fifty in memory; numbers are packed
/// into one field.
const MAX_INNER_FIELDS: usize = 1 << 20;

/// `ModelInferRequest.inputs`.
const INPUTS: u64 = 5;
/// `ModelInferRequest.outputs`.
const OUTPUTS: u64 = 6;
/// `InferInputTensor.contents`.
const CONTENTS: u64 = 5;

/// Writes messages of type `T` and reads messages of type `U`.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).expect("the buffer grows");
        Ok(())
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct MessageDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // No other message that a server reads can be large.
        if TypeId::of::<U>() == TypeId::of::<ModelInferRequest>() {
            let checked = check_fields(buffer.chunk());
            checked.map_err(|too_many| Status::invalid_argument(too_many.to_string()))?;
        }
        match U::decode(buffer) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        }
    }
}

/// How many fields a request may still have.
struct Fields {
    /// At its top level.
    outer: usize,
    /// Below it.
    inner: usize,
}

/// Which message's fields are being counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Request,
    Tensor,
    Contents,
}

/// A request has more fields than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyFields {
    /// At its top level.
    #[error("message has more than {MAX_FIELDS} fields")]
    Outer,
    /// In its inputs, their contents, and the outputs that it names.
    #[error(
        "message has more than {MAX_INNER_FIELDS} fields in its tensors: send large ones in \
         raw_input_contents"
    )]
    Inner,
}

/// Checks that the bytes of a `ModelInferRequest` do not grow out of proportion when decoded.
///
/// # Errors
///
/// Fails where it has too many fields. Bytes that are no message may pass: decoding them fails.
pub fn check_fields(request: &[u8]) -> Result<(), TooManyFields> {
    Fields { outer: MAX_FIELDS, inner: MAX_INNER_FIELDS }.spend(request, Level::Request)
}

impl Fields {
    /// Counts the fields of a message and of those in it that hold tensors. Where the bytes are no
    /// message, counting ends there: decoding them fails at the same place.
    fn spend(&mut self, mut bytes: &[u8], level: Level) -> Result<(), TooManyFields> {
        while !bytes.is_empty() {
            let (left, too_many) = match level {
                Level::Request => (&mut self.outer, TooManyFields::Outer),
                Level::Tensor | Level::Contents => (&mut self.inner, TooManyFields::Inner),
            };
            *left = left.checked_sub(1).ok_or(too_many)?;
            let Some((tag, value, rest)) = field(bytes) else { return Ok(()) };
            match (level, tag >> 3) {
                _ if tag & 7 != LENGTH_DELIMITED => {}
                (Level::Request, INPUTS | OUTPUTS) => self.spend(value, Level::Tensor)?,
                (Level::Tensor, CONTENTS) => self.spend(value, Level::Contents)?,
                _ => {}
            }
            bytes = rest;
        }
        Ok(())
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

    use super::*;
    use crate::grpc::pb::InferTensorContents;
    use crate::grpc::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

    fn fits(bytes: &[u8], outer: usize, inner: usize) -> bool {
        Fields { outer, inner }.spend(bytes, Level::Request).is_ok()
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
