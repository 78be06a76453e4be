//! A graph while it is being made: nodes and constants as the bytes that a file holds.
//!
//! Invariant: nothing is larger here than the graph itself. Weights are named, and read only when the
//! file is written.

use super::weights::Weight;
use super::wire::{bytes_field, float_field, int_field};

/// FP32, by `TensorProto.DataType`.
pub(super) const FP32: i64 = 1;
/// INT64, by `TensorProto.DataType`.
pub(super) const INT64: i64 = 7;

/// What a node is told beside its inputs.
pub(super) enum Attribute<'a> {
    Int(&'a str, i64),
    Float(&'a str, f32),
    Ints(&'a str, &'a [i64]),
}

/// A constant tensor.
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) data_type: i64,
    pub(super) data: Data,
}

/// The elements of a constant, little-endian.
pub(super) enum Data {
    Here(Vec<u8>),
    /// A matrix may be the transpose of what the weights hold.
    Weight {
        weight: Weight,
        transpose: bool,
    },
}

impl Constant {
    /// Returns how many bytes its elements take.
    pub(super) fn bytes(&self) -> u64 {
        match &self.data {
            Data::Here(bytes) => bytes.len() as u64,
            Data::Weight { .. } => self.dims.iter().product::<usize>() as u64 * 4,
        }
    }
}

/// An input or output of the whole graph: its name, element type and dimensions, each a size or a name.
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) data_type: i64,
    pub(super) dims: Vec<Dim>,
}

pub(super) enum Dim {
    Name(&'static str),
    Size(usize),
}

/// Nodes in the order in which they run. A node is called as the value that it makes.
#[derive(Default)]
pub(super) struct GraphBuilder {
    pub(super) nodes: Vec<Vec<u8>>,
    pub(super) constants: Vec<Constant>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

impl GraphBuilder {
    /// Adds a node that makes `name`, and returns that.
    pub(super) fn node(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let mut node = Vec::new();
        for input in inputs {
            bytes_field(&mut node, 1, input.as_bytes());
        }
        bytes_field(&mut node, 2, name.as_bytes());
        bytes_field(&mut node, 3, name.as_bytes());
        bytes_field(&mut node, 4, operator.as_bytes());
        for attribute in attributes {
            bytes_field(&mut node, 5, &encoded(attribute));
        }
        self.nodes.push(node);
        name.to_owned()
    }

    /// Adds a constant FP32 scalar.
    pub(super) fn scalar(&mut self, name: &str, value: f32) -> String {
        self.here(name, Vec::new(), FP32, value.to_le_bytes().to_vec())
    }

    /// Adds a constant INT64 scalar.
    pub(super) fn integer(&mut self, name: &str, value: i64) -> String {
        self.here(name, Vec::new(), INT64, value.to_le_bytes().to_vec())
    }

    /// Adds a constant INT64 vector.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.here(name, vec![values.len()], INT64, bytes)
    }

    fn here(&mut self, name: &str, dims: Vec<usize>, data_type: i64, bytes: Vec<u8>) -> String {
        let (name, data) = (name.to_owned(), Data::Here(bytes));
        self.constants.push(Constant { name: name.clone(), dims, data_type, data });
        name
    }

    /// Adds a weight as it is.
    pub(super) fn weight(&mut self, weight: Weight) -> String {
        let (name, dims) = (weight.name.clone(), weight.shape.clone());
        let data = Data::Weight { weight, transpose: false };
        self.constants.push(Constant { name: name.clone(), dims, data_type: FP32, data });
        name
    }

    /// Adds the transpose of a matrix.
    pub(super) fn transposed(&mut self, weight: Weight) -> String {
        let name = format!("{}.transposed", weight.name);
        let dims = weight.shape.iter().rev().copied().collect();
        let data = Data::Weight { weight, transpose: true };
        self.constants.push(Constant { name: name.clone(), dims, data_type: FP32, data });
        name
    }
}

/// An `AttributeProto`.
fn encoded(attribute: &Attribute<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (name, kind) = match attribute {
        Attribute::Float(name, value) => {
            float_field(&mut bytes, 2, *value);
            (name, 1)
        }
        Attribute::Int(name, value) => {
            int_field(&mut bytes, 3, *value);
            (name, 2)
        }
        Attribute::Ints(name, values) => {
            values.iter().for_each(|value| int_field(&mut bytes, 8, *value));
            (name, 7)
        }
    };
    bytes_field(&mut bytes, 1, name.as_bytes());
    int_field(&mut bytes, 20, kind);
    bytes
}
