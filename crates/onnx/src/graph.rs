//! What a file says, without its weights.

use outhaul_types::ShapePattern;

use crate::element::ElementType;
use crate::external::ExternalData;

/// A graph: of the model itself, or of a branch or loop body inside a node.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Its name, which nothing refers to.
    pub name: String,
    /// The nodes in an order in which they can run: the file's own order where that is one.
    pub nodes: Vec<Node>,
    /// The weights and other constants.
    pub initializers: Vec<Initializer>,
    /// The inputs, with those that an initializer gives a default.
    pub inputs: Vec<ValueInfo>,
    /// The outputs.
    pub outputs: Vec<ValueInfo>,
    /// Types of values between nodes, as far as the file tells.
    pub value_info: Vec<ValueInfo>,
}

/// One operation.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name, often empty and not always unique.
    pub name: String,
    /// The operator, such as `Conv`.
    pub op_type: String,
    /// The operator's domain; empty for `ai.onnx`.
    pub domain: String,
    /// Which function of that name it calls, where the file defines several.
    pub overload: String,
    /// Names of the values it takes; an empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// Names of the values it makes; an empty name is an optional output left out.
    pub outputs: Vec<String>,
    /// What the operator is told.
    pub attributes: Vec<Attribute>,
    /// Values from outside that its subgraphs use.
    pub captures: Vec<String>,
}

impl Node {
    /// Returns an attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|attribute| attribute.name == name).map(|found| &found.value)
    }

    /// Returns an integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(AttributeValue::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// Returns a text attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name) {
            Some(AttributeValue::String(value)) => Some(value),
            _ => None,
        }
    }

    /// Returns an attribute that is a list of integers, where all of them were kept.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name) {
            Some(AttributeValue::Ints(list)) => list.complete(),
            _ => None,
        }
    }

    /// Returns the name of an input, or `None` where it is left out.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Returns the graphs that the node holds.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|attribute| attribute.value.graphs())
    }

    /// Returns the node as people write of it: `node 'name' (Conv)`, with the domain where it is
    /// not ONNX's own.
    pub fn describe(&self) -> String {
        let operator = self.operator();
        if self.name.is_empty() {
            let made = self.outputs.iter().find(|name| !name.is_empty());
            match made {
                Some(made) => format!("the node that makes '{made}' ({operator})"),
                None => format!("a nameless node ({operator})"),
            }
        } else {
            format!("node '{}' ({operator})", self.name)
        }
    }

    /// Returns the operator, with the domain where it is not ONNX's own: `com.microsoft.Gelu`.
    pub fn operator(&self) -> String {
        if self.domain.is_empty() {
            self.op_type.clone()
        } else {
            format!("{}.{}", self.domain, self.op_type)
        }
    }
}

/// A named setting of a node.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The name.
    pub name: String,
    /// The value.
    pub value: AttributeValue,
}

/// The value of an attribute.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum AttributeValue {
    Int(i64),
    Float(f32),
    /// Bytes that are not UTF-8 are replaced.
    String(String),
    Tensor(Initializer),
    Graph(Graph),
    Ints(List<i64>),
    Floats(List<f32>),
    Strings(List<String>),
    Tensors(Vec<Initializer>),
    Graphs(Vec<Graph>),
    /// Inside a function: whatever the caller passes under this name.
    Reference(String),
    /// A type, or nothing at all.
    Other,
}

impl AttributeValue {
    /// Returns the graphs in this value.
    pub fn graphs(&self) -> &[Graph] {
        match self {
            AttributeValue::Graph(graph) => std::slice::from_ref(graph),
            AttributeValue::Graphs(graphs) => graphs,
            _ => &[],
        }
    }

    /// Returns the graphs in this value, to change them.
    pub(crate) fn graphs_mut(&mut self) -> &mut [Graph] {
        match self {
            AttributeValue::Graph(graph) => std::slice::from_mut(graph),
            AttributeValue::Graphs(graphs) => graphs,
            _ => &mut [],
        }
    }

    /// Returns the tensors in this value, those in graphs not among them.
    pub fn tensors(&self) -> &[Initializer] {
        match self {
            AttributeValue::Tensor(tensor) => std::slice::from_ref(tensor),
            AttributeValue::Tensors(tensors) => tensors,
            _ => &[],
        }
    }
}

/// A list of which only short ones are kept: [`List::LIMIT`] elements.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T> {
    pub(crate) values: Vec<T>,
    pub(crate) count: u64,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List { values: Vec::new(), count: 0 }
    }
}

impl<T> List<T> {
    /// How many elements are kept.
    pub const LIMIT: usize = 1024;

    /// Returns how many there are in the file.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns all elements, or `None` where there were too many to keep.
    pub fn complete(&self) -> Option<&[T]> {
        (self.values.len() as u64 == self.count).then_some(&*self.values)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.values.len() >= Self::LIMIT
    }

    pub(crate) fn push(&mut self, value: T) {
        self.count += 1;
        if !self.is_full() {
            self.values.push(value);
        }
    }
}

/// A constant tensor. Only small ones keep their values.
#[derive(Clone, Debug)]
pub struct Initializer {
    /// The name of the value; may be empty where the tensor is an attribute.
    pub name: String,
    /// The type of its elements.
    pub data_type: ElementType,
    /// The dimensions, outermost first.
    pub dims: Vec<u64>,
    /// The number of elements: the product of the dimensions.
    pub elements: u64,
    /// The bytes that the elements take in the file or outside it.
    pub bytes: u64,
    /// The elements, where there are at most [`List::LIMIT`] integers, booleans or floats.
    pub values: Option<Values>,
    /// Where the elements are, if not in this file.
    pub external: Option<ExternalData>,
    /// Whether most elements are zero and only the others stored.
    pub sparse: bool,
}

/// The elements of a small tensor, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Integers of any size up to 64 bits, and booleans as 0 and 1.
    Ints(Vec<i64>),
    /// Floats of 32 bits.
    Floats(Vec<f32>),
}

/// A value's name and type.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// The name.
    pub name: String,
    /// The type, where the file declares one.
    pub value_type: Option<ValueType>,
}

/// What kind of value it is.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ValueType {
    Tensor { element: ElementType, shape: ShapePattern },
    SparseTensor,
    Sequence,
    Map,
    Optional,
    Opaque,
}

/// An operator that the file itself defines.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its domain; empty for `ai.onnx`.
    pub domain: String,
    /// Its name, which nodes use as their operator.
    pub name: String,
    /// Tells functions of one name apart.
    pub overload: String,
    /// Names of its parameters.
    pub inputs: Vec<String>,
    /// Names of its results.
    pub outputs: Vec<String>,
    /// The nodes in an order in which they can run.
    pub nodes: Vec<Node>,
    /// Values that attributes have where the caller passes none.
    pub attribute_defaults: Vec<Attribute>,
    /// The operator sets that its nodes use.
    pub opsets: Vec<crate::model::Opset>,
}
