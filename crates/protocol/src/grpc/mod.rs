//! The Open Inference Protocol over gRPC: messages to requests, answers to messages.
//!
//! Invariant: a decoded request is as valid as one that came over HTTP, and raw contents are not
//! copied on the way: each tensor shares the buffer of the message that it came in. Answers always
//! travel as raw contents.
//!
//! A request may carry its inputs as raw bytes, as typed contents, or, as KServe's clients do, both.
//! Where `raw_input_contents` has an entry for every input, the raw bytes count and typed contents
//! are not looked at. Where it has as many entries as there are inputs without contents, the entries
//! belong to those inputs, in order. Any other number is an error.
//!
//! The generated messages and stubs are in [`pb`]; sockets, deadlines and streams are the server's.

mod codec;
mod decode;
mod describe;
mod encode;
mod fields;
mod repository;
mod status;
#[cfg(test)]
mod tests;

/// Messages, client and server generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod pb {
    tonic::include_proto!("inference");
}

pub use codec::Codec;
pub use decode::decode_infer;
pub use describe::{
    model_config, model_metadata, model_statistics, repository_index, server_metadata,
};
pub use encode::{encode_error, encode_infer};
pub use fields::{TooManyFields, check_fields};
pub use repository::{decode_load, decode_unload, one_repository};
pub use status::{code, status};

/// The compiled descriptors of `proto/`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("inference");
