//! How messages are read from and written to gRPC's frames.
//!
//! This differs from tonic's own codec in three ways: bytes that are not the message they should be
//! are the caller's mistake (`INVALID_ARGUMENT`, not `INTERNAL`), a message of very many fields is
//! refused before it is decoded, and the size of an answer is reserved at once.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The most fields at the top level of one message. An empty input tensor takes two bytes on the
/// wire and some two hundred in memory, so without a bound a message could grow a hundredfold.
const MAX_FIELDS: usize = 1 << 16;

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

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if fields_exceed(buffer.chunk(), MAX_FIELDS) {
            return Err(Status::invalid_argument(format!(
                "message has more than {MAX_FIELDS} fields"
            )));
        }
        match U::decode(buffer) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        }
    }
}

/// Returns whether a message has more than `limit` fields at its top level. Where the bytes are no
/// message it may say either: decoding them fails at the same place.
fn fields_exceed(mut bytes: &[u8], limit: usize) -> bool {
    let mut fields = 0;
    while !bytes.is_empty() {
        fields += 1;
        if fields > limit {
            return true;
        }
        let Some(tag) = varint(&mut bytes) else { return false };
        let skipped = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut bytes),
            5 => Some(4),
            // The start or end of a group: its fields count like others.
            _ => Some(0),
        };
        let rest = skipped
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| bytes.get(length..));
        let Some(rest) = rest else { return false };
        bytes = rest;
    }
    false
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
    use super::*;
    use crate::grpc::pb::ModelInferRequest;

    #[test]
    fn fields_are_counted_at_the_top_level_only() {
        let request = ModelInferRequest {
            model_name: "iris".into(),
            // A payload that would read as many fields, were it looked into.
            raw_input_contents: vec![vec![8, 1, 8, 1, 8, 1, 8, 1].into(); 3],
            ..Default::default()
        };
        let bytes = request.encode_to_vec();
        assert!(!fields_exceed(&bytes, 4));
        assert!(fields_exceed(&bytes, 3));
        let scalars = [0x08, 0x96, 0x01, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0];
        assert!(!fields_exceed(&scalars, 3), "varint, 64 and 32 bits");
        assert!(fields_exceed(&scalars, 2));
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
            assert!(!fields_exceed(bytes, 4), "{bytes:?}");
            assert!(ModelInferRequest::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
