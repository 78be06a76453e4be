//! The nouns every crate of Outhaul speaks: tensors, signatures, requests, answers, errors.
//!
//! Invariant: a value of one of these types is valid by construction. A [`Tensor`] holds exactly the
//! bytes that its shape and type call for, a [`ModelName`] is safe to use as a path segment, a
//! [`Deadline`] is an instant and not a guess. Code downstream never checks again.
//!
//! There is no async, no I/O and no logging here. Bytes on the wire are `protocol`'s business, files
//! are `repository`'s, and running a model is `engine`'s.
//!
//! Start with [`Tensor`], then [`ModelSignature`] and [`InferRequest`].

mod data_type;
mod destination;
mod error;
mod feedback;
mod interface;
mod manifest;
mod model;
mod request;
mod shape;
mod signature;
mod tensor;
mod traffic;
mod transform;

pub use data_type::{DataType, Element, UnknownDataType};
pub use destination::{Destination, InvalidDestination};
pub use error::{Classify, ErrorKind, error_chain};
pub use feedback::{Feedback, FeedbackAnswer, Outcome};
pub use interface::{Content, Field, Interface, Task};
pub use manifest::{
    BatchingSpec, EngineChoice, Fill, InstanceCount, InstancesSpec, LevelSpec, LimitsSpec,
    LoadingSpec, ModelManifest, TensorDeclaration, VersionPolicy, WarmupInput, WarmupRequest,
};
pub use model::{InvalidModelName, InvalidVersion, Label, ModelName, ModelVersion, VersionChoice};
pub use request::{
    Attribute, CacheStatus, Classification, Deadline, InferRequest, InferResponse, NamedTensor,
    Parameter, Parameters, RequestContext, RequestedOutput, Timings, TraceParent, Via,
};
pub use shape::{Dimension, Shape, ShapePattern};
pub use signature::{BindError, BoundInputs, ModelSignature, TensorSpec};
pub use tensor::{Strings, Tensor, TensorData, TensorError};
pub use traffic::{
    CacheSpec, CacheStore, CallerSpec, Comparison, DefaultValue, FallbackCause, FallbackSpec,
    Priority, RouteSpec, RouteSpecError, ShadowSpec, SplitPolicy, StickyKey, TargetSpec, duration,
};
pub use transform::{
    Activation, Aggregation, CategoryEncoding, Channels, ClassificationOutput, Column, ColumnKind,
    DateUnit, EmbeddingOutput, FillMaskOutput, ImageInput, ImageLayout, InputTransform, Labels,
    Missing, OutputTransform, Pooling, RegressionOutput, RerankOutput, Resize, ResizeFilter,
    RowsInput, TensorsOutput, TextInput, TokenClassificationOutput, TransformSpec, Truncation,
    UnknownCategory,
};

/// A short name of a tensor, kept inline up to 24 bytes.
pub type Name = compact_str::CompactString;

/// Tensors of one call, in the order of the model's signature.
pub type Tensors = smallvec::SmallVec<[Tensor; 2]>;
