//! ONNX files: signature, summary, and what a graph does to its rows.
//!
//! Invariant: an [`OnnxModel`] is a sound graph. Every value is made exactly once, nothing needs its
//! own result, nodes are in an order in which they can run, every weight has the bytes that its
//! dimensions call for, and no path leads out of the model's folder. What is not so is an
//! [`OnnxError`] that names the place.
//!
//! Weights are not kept and, beyond the first kilobytes of each, not even read: [`read`] seeks over
//! them. So a file of 250 MB costs milliseconds and leaves a few kilobytes. Running a model is
//! `engine`'s business, finding files is `repository`'s.
//!
//! Start with [`read`], then [`OnnxModel::row_independence`]. [`huggingface`] makes such files out of weights.

mod check;
mod division;
mod element;
mod error;
mod external;
mod graph;
pub mod huggingface;
mod model;
mod proto;
mod read;
mod rows;
mod tensor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

pub use element::ElementType;
pub use error::{OnnxError, Problem, Side};
pub use external::ExternalData;
pub use graph::{
    Attribute, AttributeValue, Function, Graph, Initializer, List, Node, ValueInfo, ValueType,
    Values,
};
pub use model::{OnnxModel, Opset};
pub use read::{parse, read};
pub use rows::RowIndependence;
