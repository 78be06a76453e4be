//! The Open Inference Protocol v2 over HTTP, with the binary tensor data, classification, statistics,
//! model configuration and model repository extensions.
//!
//! Numbers that JSON cannot say: `NaN`, `Infinity` and `-Infinity` are read bare or quoted, and written
//! bare, as Triton and Python's `json` write them. A strict JSON parser refuses such an answer; ask
//! for the output with `binary_data` there. Likewise `BYTES` elements that are not UTF-8 are only
//! answered as binary data, never altered.
//!
//! Floats are written in the shortest form that reads back as the same value of their own type.
//!
//! Start with [`decode_infer`] and [`encode_infer`]; [`encode_request`] and [`decode_answer`] are the other
//! side.

mod client;
mod decode;
pub(crate) mod elements;
pub(crate) mod encode;
mod metadata;
mod parameters;
mod reader;
mod repository;
mod statistics;
#[cfg(test)]
mod tests;

use outhaul_types::Name;
use smallvec::SmallVec;

pub use client::{
    AnswerError, DecodedAnswer, EncodedRequest, decode_answer, encode_request, is_sendable,
};
pub use decode::{DecodedInfer, Target, decode_infer};
pub use encode::{EncodedInfer, encode_infer};
pub use metadata::{
    EXTENSIONS, error_body, live, model_config, model_metadata, model_ready, ready,
    repository_index, server_metadata,
};
pub use repository::{decode_index, decode_load, decode_unload};
pub use statistics::statistics;

/// Which outputs are written as binary data behind the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputFormat {
    /// The form of outputs that are not in `named`: the request's `binary_data_output`.
    pub binary_by_default: bool,
    /// Outputs whose form the request named: their own `binary_data`.
    pub named: SmallVec<[(Name, bool); 2]>,
}

impl OutputFormat {
    /// Returns whether an output is written as binary data.
    pub fn is_binary(&self, output: &str) -> bool {
        let named = self.named.iter().find(|(name, _)| name == output);
        named.map_or(self.binary_by_default, |(_, binary)| *binary)
    }
}
