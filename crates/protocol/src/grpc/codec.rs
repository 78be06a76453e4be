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

use super::fields::check_fields;

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
        let checked = check_fields::<U>(buffer.chunk());
        checked.map_err(|too_many| Status::invalid_argument(too_many.to_string()))?;
        match U::decode(buffer) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        }
    }
}
