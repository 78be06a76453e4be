//! Bytes to requests and answers to bytes, for every wire contract.
//!
//! Invariant: whatever bytes come in, a decoder either returns a request whose tensors are valid, or
//! a [`ProtocolError`] that says what is wrong and where. No decoder panics, recurses without bound,
//! or allocates more than a small multiple of the bytes it was given: a declared shape or length is
//! only believed once the bytes for it are there.
//!
//! There are no sockets here and no models: headers arrive as values, and whether a tensor fits the
//! model's signature is [`outhaul_types::ModelSignature::bind`]'s business.
//!
//! Start with [`oip`], the Open Inference Protocol over HTTP. What a server can be asked about
//! itself and its models is in [`describe`], shared by the contracts. The bytes of one tensor, alike
//! in HTTP's binary extension and in gRPC's raw contents, are in `raw`.

pub mod azure;
pub mod csv;
pub mod describe;
mod error;
pub mod feedback;
pub mod graphql;
pub mod grpc;
mod limits;
pub mod npy;
pub mod oip;
pub mod openai;
pub mod openapi;
mod raw;
mod repository;
pub mod rerank;
pub mod rows;
pub mod sagemaker;
pub mod tensorflow;
pub mod tensorflow_grpc;
pub mod vertex;

pub use describe::Schema;
pub use error::{FieldProblem, ProtocolError, TensorProblem, http_status};
pub use limits::DecodeLimits;
pub use repository::LoadRequest;
