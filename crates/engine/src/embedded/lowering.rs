//! Puts a model into words that `rten` understands as ONNX means them.
//!
//! Two things are reworded, and the model means the same afterwards:
//!
//! - `ArgMax` and `ArgMin` become `TopK`, because of equal elements `rten` takes the last where ONNX
//!   takes the first. Its `TopK` takes the first.
//! - A default for an input (an initializer of the same name) is taken out, because `rten` would
//!   not let a request replace it. The engine passes it in where a request does not.
//!
//! Nodes without a name get one where an error of `rten` has to be traced to its node.
//!
//! This costs a copy of the file in memory while the model loads, so other models are not touched.

use std::fs::File;

use outhaul_onnx::{Initializer, OnnxModel, Values};
use outhaul_types::{DataType, Shape, Tensor, TensorSpec};
use rten_onnx::onnx::{AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto};

use super::{failed, unsupported};
use crate::LoadError;

/// How much to reword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wording {
    /// What must be.
    AsNeeded,
    /// That, and names for all nodes.
    AllNamed,
}

/// Returns whether there is anything to reword.
pub(super) fn is_needed(model: &OnnxModel, wording: Wording) -> bool {
    let mut needed = wording == Wording::AllNamed;
    needed |= model.signature.inputs.iter().any(|spec| spec.optional);
    model.each_node(|node| needed |= node.domain.is_empty() && is_extreme(&node.op_type));
    needed
}

/// Returns the name of a nameless node that makes `output`. No value of a model ends in a control
/// character.
pub(super) fn given_name(output: &str) -> String {
    format!("{output}\u{2}")
}

fn is_extreme(operator: &str) -> bool {
    matches!(operator, "ArgMax" | "ArgMin")
}

/// Reads the file and returns the reworded one.
pub(super) fn lowered(model: &OnnxModel, wording: Wording) -> Result<Vec<u8>, LoadError> {
    let unreadable = |reason: String| LoadError::BadFile { reason };
    let file = File::open(&model.path).map_err(|error| unreadable(error.to_string()))?;
    let mut proto = ModelProto::parse_file(file).map_err(|error| unreadable(error.to_string()))?;
    if let Some(graph) = &mut proto.graph {
        let is_default = |name: &str| {
            model.signature.inputs.iter().any(|spec| spec.optional && spec.name == name)
        };
        graph.initializer.retain(|tensor| !is_default(tensor.name.as_deref().unwrap_or_default()));
        lower(graph, wording);
    }
    proto.write_buf().map_err(|error| failed(format!("the reworded model: {error}")))
}

/// The reader bounds how deep graphs nest, so this recursion is bounded too.
fn lower(graph: &mut GraphProto, wording: Wording) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in graph.node.drain(..) {
        for attribute in &mut node.attribute {
            if let Some(inner) = &mut attribute.g {
                lower(inner, wording);
            }
        }
        if wording == Wording::AllNamed && node.name.as_deref().unwrap_or_default().is_empty() {
            node.name = node.output.first().map(|output| given_name(output));
        }
        let is_standard = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
        if is_standard && is_extreme(node.op_type.as_deref().unwrap_or_default()) {
            nodes.extend(first_extreme(node));
        } else {
            nodes.push(node);
        }
    }
    graph.node = nodes;
}

/// `TopK` with k = 1, and a `Squeeze` where the dimension is to go. Both are in the form of old
/// operator sets, with lists in attributes, which `rten` reads under every set.
fn first_extreme(node: NodeProto) -> Vec<NodeProto> {
    let int = |name: &str, default: i64| {
        let named = |attribute: &&AttributeProto| attribute.name.as_deref() == Some(name);
        node.attribute.iter().find(named).and_then(|attribute| attribute.i).unwrap_or(default)
    };
    let (axis, keep) = (int("axis", 0), int("keepdims", 1) != 0);
    let largest = i64::from(node.op_type.as_deref() == Some("ArgMax"));
    let output = node.output.first().cloned().unwrap_or_default();
    let indices = if keep { output.clone() } else { format!("{output}\u{1}") };
    let top = NodeProto {
        op_type: Some("TopK".to_owned()),
        attribute: vec![
            int_attribute("axis", axis),
            int_attribute("k", 1),
            int_attribute("largest", largest),
        ],
        output: vec![String::new(), indices.clone()],
        ..node
    };
    if keep {
        return vec![top];
    }
    let squeeze = NodeProto {
        op_type: Some("Squeeze".to_owned()),
        attribute: vec![AttributeProto {
            name: Some("axes".to_owned()),
            ints: vec![axis],
            r#type: Some(AttributeType::INTS),
            ..AttributeProto::default()
        }],
        input: vec![indices],
        output: vec![output],
        ..NodeProto::default()
    };
    vec![top, squeeze]
}

fn int_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::INT),
        ..AttributeProto::default()
    }
}

/// Returns the default of an optional input.
pub(super) fn default_of(model: &OnnxModel, spec: &TensorSpec) -> Result<Tensor, LoadError> {
    let stored = model.graph.initializers.iter().find(|tensor| tensor.name == spec.name);
    stored
        .and_then(|stored| tensor(stored, spec.data_type))
        .ok_or_else(|| unsupported(format!("input '{}', whose default is too large", spec.name)))
}

fn tensor(stored: &Initializer, data_type: DataType) -> Option<Tensor> {
    let dimensions: Option<Vec<usize>> =
        stored.dims.iter().map(|&dimension| usize::try_from(dimension).ok()).collect();
    let shape = Shape::new(dimensions?);
    match (stored.values.clone()?, data_type) {
        (Values::Floats(elements), DataType::Fp32) => Tensor::from_vec(shape, elements).ok(),
        (Values::Ints(elements), DataType::Int64) => Tensor::from_vec(shape, elements).ok(),
        (Values::Ints(elements), DataType::Bool) => {
            Tensor::from_bools(shape, elements.into_iter().map(|element| element != 0)).ok()
        }
        (Values::Ints(elements), DataType::Int32) => narrow::<i32>(shape, &elements),
        (Values::Ints(elements), DataType::Int8) => narrow::<i8>(shape, &elements),
        (Values::Ints(elements), DataType::Uint8) => narrow::<u8>(shape, &elements),
        _ => None,
    }
}

fn narrow<T>(shape: Shape, elements: &[i64]) -> Option<Tensor>
where
    T: TryFrom<i64> + outhaul_types::Element + Send,
{
    let narrow: Option<Vec<T>> =
        elements.iter().map(|&element| T::try_from(element).ok()).collect();
    Tensor::from_vec(shape, narrow?).ok()
}
