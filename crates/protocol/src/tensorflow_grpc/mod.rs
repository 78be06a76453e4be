//! TensorFlow Serving's gRPC services: messages to requests, answers to messages.
//!
//! Invariant: a decoded request is as valid as one of any other contract, and `tensor_content` is not
//! copied on the way: the tensor shares the buffer of the message.
//!
//! Tensors come in `tensor_content` or in the field of their type; where a field holds fewer elements
//! than the shape calls for, its last one fills the rest, as TensorFlow does (up to a limit: a few bytes
//! must not become gigabytes). Answers travel in the field of their type, as TensorFlow Serving's own
//! do: `tf.make_ndarray` reads both forms, but many clients read `float_val` and nothing else.
//!
//! `Classify` and `Regress` read `tf.Example`s, one a row, whose features are the model's outer inputs;
//! what they answer is found by what the outputs are declared to mean.
//!
//! The generated messages and stubs are in [`pb`]; sockets and deadlines are the server's.

mod describe;
mod error;
mod examples;
mod predict;
mod results;
mod tensor;
#[cfg(test)]
mod tests;

/// Messages, client and servers generated from `proto/`: package `tensorflow`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod pb {
    tonic::include_proto!("tensorflow");

    /// Package `tensorflow.error`.
    pub mod error {
        tonic::include_proto!("tensorflow.error");
    }

    /// Package `tensorflow.serving`.
    pub mod serving {
        tonic::include_proto!("tensorflow.serving");
    }
}

pub use describe::{VersionFact, model_metadata, model_status};
pub use error::TensorFlowError;
pub use examples::decode_examples;
pub use predict::{decode_predict, encode_predict, model_spec, read_spec};
pub use results::{Classes, Form, Tasks, Value};
pub use tensor::{TensorReader, encode_tensor};

/// The one signature that a model has.
pub const SIGNATURE: &str = "serving_default";

/// The compiled descriptors of `proto/`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tensorflow_serving");
