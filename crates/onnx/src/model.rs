//! A whole model and what can be said about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use outhaul_types::ModelSignature;

use crate::division;
use crate::graph::{Attribute, AttributeValue, Function, Graph, Initializer, Node};
use crate::rows::{self, RowIndependence};

/// A set of operators at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opset {
    /// The domain; empty for `ai.onnx`.
    pub domain: String,
    /// The version.
    pub version: i64,
}

/// A model's description: everything in its file but the weights.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    /// The file.
    pub path: PathBuf,
    /// What it takes and gives.
    pub signature: ModelSignature,
    /// The version of the file format.
    pub ir_version: i64,
    /// The operator sets that it uses.
    pub opsets: Vec<Opset>,
    /// The tool that wrote it, with its version; may be empty.
    pub producer: String,
    /// What the tool wrote beside it, such as class names.
    pub metadata: Vec<(String, String)>,
    /// The size of the file; external data is not counted.
    pub file_bytes: u64,
    /// The graph.
    pub graph: Graph,
    /// The operators that the file defines itself.
    pub functions: Vec<Function>,
}

impl OnnxModel {
    /// Counts the operators by domain (empty for `ai.onnx`) and name, those in subgraphs and in
    /// functions included. A call of one of the file's own functions is not an operator.
    pub fn operators(&self) -> BTreeMap<(String, String), usize> {
        let mut operators = BTreeMap::new();
        self.each_node(|node| {
            if self.function_of(node).is_none() {
                let key = (node.domain.clone(), node.op_type.clone());
                *operators.entry(key).or_insert(0) += 1;
            }
        });
        operators
    }

    /// Returns the number of weights: the elements of all constant tensors, and the lists of floats
    /// in which `ai.onnx.ml` operators keep theirs. Of a sparse tensor the stored ones count.
    pub fn parameters(&self) -> u64 {
        let mut parameters = 0_u64;
        self.each_tensor(|tensor| parameters = parameters.saturating_add(tensor.elements));
        parameters.saturating_add(self.listed_floats())
    }

    /// Returns the bytes of the weights, in the file and outside it.
    pub fn weight_bytes(&self) -> u64 {
        let mut bytes = 0_u64;
        self.each_tensor(|tensor| bytes = bytes.saturating_add(tensor.bytes));
        bytes.saturating_add(self.listed_floats().saturating_mul(4))
    }

    /// Returns the files of external data, relative to the model's folder.
    pub fn external_files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        self.each_tensor(|tensor| {
            files
                .extend(tensor.external.as_ref().map(|external| PathBuf::from(&external.location)));
        });
        files
    }

    /// Decides whether requests can be joined along their first dimension, run together, and the
    /// answers parted again, so that each request gets the answer that it would get alone.
    pub fn row_independence(&self) -> RowIndependence {
        rows::row_independence(self)
    }

    /// Checks that no request can make a node divide the least integer of its type by -1, which ends
    /// the process in an engine that leaves that to the processor.
    ///
    /// The types that the file declares between nodes are taken for true: the engine must refuse a
    /// model in which they are not.
    ///
    /// # Errors
    ///
    /// Fails with the node and its operator, and with why it may happen.
    pub fn divides_safely(&self) -> Result<(), String> {
        division::check(self)
    }

    /// Returns whether the cost of a run follows from the size of its inputs. It does not where
    /// values decide how often something is done, what is done, or how large a tensor becomes.
    pub fn cost_follows_size(&self) -> bool {
        let mut follows = true;
        self.each_node(|node| {
            let by_value = matches!(
                &*node.op_type,
                "If" | "Loop"
                    | "Scan"
                    | "ConstantOfShape"
                    | "Expand"
                    | "OneHot"
                    | "Pad"
                    | "Range"
                    | "Resize"
                    | "Tile"
                    | "Upsample"
                    | "BlackmanWindow"
                    | "HammingWindow"
                    | "HannWindow"
                    | "MelWeightMatrix"
            );
            follows &= !by_value;
        });
        follows
    }

    /// Returns the version of an operator set, or `None` where the model does not use it.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.iter().find(|opset| opset.domain == domain).map(|opset| opset.version)
    }

    /// Returns the function that a node calls, or `None` for an operator.
    pub fn function_of(&self, node: &Node) -> Option<&Function> {
        self.functions.iter().find(|function| {
            function.name == node.op_type
                && function.domain == node.domain
                && function.overload == node.overload
        })
    }

    fn listed_floats(&self) -> u64 {
        let mut floats = 0_u64;
        self.each_node(|node| {
            if node.domain == "ai.onnx.ml" {
                for attribute in &node.attributes {
                    if let AttributeValue::Floats(list) = &attribute.value {
                        floats = floats.saturating_add(list.count());
                    }
                }
            }
        });
        floats
    }

    /// Calls `visit` for every node, those in subgraphs and functions included.
    pub fn each_node<'a>(&'a self, mut visit: impl FnMut(&'a Node)) {
        nodes_within(&self.graph.nodes, &mut visit);
        for function in &self.functions {
            nodes_within(&function.nodes, &mut visit);
        }
    }

    pub(crate) fn each_tensor<'a>(&'a self, mut visit: impl FnMut(&'a Initializer)) {
        tensors_within(&self.graph, &mut visit);
        for function in &self.functions {
            tensors_of(&function.attribute_defaults, &mut visit);
            function.nodes.iter().for_each(|node| tensors_of(&node.attributes, &mut visit));
        }
    }
}

/// Bounded like [`nodes_within`].
fn tensors_within<'a>(graph: &'a Graph, visit: &mut impl FnMut(&'a Initializer)) {
    graph.initializers.iter().for_each(&mut *visit);
    graph.nodes.iter().for_each(|node| tensors_of(&node.attributes, visit));
}

fn tensors_of<'a>(attributes: &'a [Attribute], visit: &mut impl FnMut(&'a Initializer)) {
    for attribute in attributes {
        attribute.value.tensors().iter().for_each(&mut *visit);
        attribute.value.graphs().iter().for_each(|graph| tensors_within(graph, visit));
    }
}

/// The reader bounds how deep graphs nest, so this recursion is bounded too.
fn nodes_within<'a>(nodes: &'a [Node], visit: &mut impl FnMut(&'a Node)) {
    for node in nodes {
        visit(node);
        for graph in node.subgraphs() {
            nodes_within(&graph.nodes, visit);
        }
    }
}
