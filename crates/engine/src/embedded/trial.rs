//! A run on zeros when a model is loaded, to find what this engine refuses only while running: an
//! operator that lacks an element type, an output that it does not make.
//!
//! A failure that other shapes or values could avoid proves nothing, and is left to the requests.

use outhaul_onnx::{Graph, Node, OnnxModel};
use outhaul_types::{
    BoundInputs, DataType, Dimension, ModelSignature, Shape, ShapePattern, Tensor,
};

use super::lowering;

/// Inputs larger than this are not made up.
const MOST_ELEMENTS: usize = 1 << 24;

/// Returns zeros of the smallest shapes that the signature declares, with 1 for every dimension
/// that may vary; `None` where they are too large.
pub(super) fn zeros(signature: &ModelSignature) -> Option<BoundInputs> {
    signature
        .inputs
        .iter()
        .map(|spec| {
            let shape = match &spec.shape {
                ShapePattern::AnyRank => Shape::from([1]),
                ShapePattern::Ranked(dimensions) => {
                    Shape::new(dimensions.iter().map(|dimension| match dimension {
                        Dimension::Fixed(size) => *size,
                        Dimension::Named(_) | Dimension::Any => 1,
                    }))
                }
            };
            let count = shape.elements().filter(|&count| count <= MOST_ELEMENTS)?;
            let tensor = match spec.data_type {
                DataType::Bool => Tensor::from_bools(shape, vec![false; count]),
                data_type => {
                    let size = data_type.size()?;
                    Tensor::from_bytes(data_type, shape, vec![0; count * size].into())
                }
            };
            tensor.ok().map(Some)
        })
        .collect()
}

/// What `rten` says where no other shape or value would help. Its errors carry no kind for this.
const FINAL: &[&str] = &[
    "unsupported input type",
    "unsupported input or attribute value",
    "unsupported output",
    "expected tensor with type",
    "does not match spatial dims",
    "must have 4 dims",
    "output mismatch",
    "subgraph error",
];

/// What a failed trial proves.
pub(super) struct Verdict {
    /// What to refuse.
    pub(super) what: String,
    /// Whether the node is not known, for want of a name.
    pub(super) is_nameless: bool,
}

/// Returns what to refuse the model for, where a failed trial says that no request can succeed.
pub(super) fn verdict(model: &OnnxModel, error: &rten::RunError) -> Option<Verdict> {
    let said = error.to_string();
    let patterns = || model.signature.inputs.iter().map(|spec| &spec.shape);
    let ranks_are_declared = patterns().all(|shape| *shape != ShapePattern::AnyRank);
    let shapes_are_fixed = patterns().all(|shape| match shape {
        ShapePattern::AnyRank => false,
        ShapePattern::Ranked(dimensions) => {
            dimensions.iter().all(|dimension| matches!(dimension, Dimension::Fixed(_)))
        }
    });
    let is_final = FINAL.iter().any(|words| said.contains(words))
        || (ranks_are_declared && said.contains("dims but has"))
        || (shapes_are_fixed && said.contains("incompatible input shapes"));
    if !is_final {
        return None;
    }
    let path = error.node_path();
    let node = path.iter().rev().flatten().find_map(|name| find(&model.graph, name));
    // The node is named by us; what follows it is the reason.
    let reason = said.split_once("failed: ").map_or(said.as_str(), |(_, reason)| reason);
    let described = node.map_or_else(|| "a nameless node".to_owned(), Node::describe);
    Some(Verdict { what: format!("{described}: {reason}"), is_nameless: node.is_none() })
}

/// Finds a node by the name that `rten` knows it under, those in subgraphs included. The reader
/// bounds how deep they nest.
pub(super) fn find<'a>(graph: &'a Graph, name: &str) -> Option<&'a Node> {
    if name.is_empty() {
        return None;
    }
    graph.nodes.iter().find_map(|node| {
        let is_it = if node.name.is_empty() {
            node.outputs.first().is_some_and(|output| lowering::given_name(output) == name)
        } else {
            node.name == name
        };
        if is_it { Some(node) } else { node.subgraphs().find_map(|inner| find(inner, name)) }
    })
}
