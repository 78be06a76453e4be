//! The messages of `onnx.proto`, read into [`Graph`] and its parts.
//!
//! Field numbers are those of `onnx.proto3`; fields that are not named here (documentation,
//! training, devices) are skipped. Only the form is checked here; `check` sees to the meaning.

use std::io::{BufRead, Seek};

use outhaul_types::{Dimension, ShapePattern};

use crate::element::ElementType;
use crate::error::Problem;
use crate::graph::{
    Attribute, AttributeValue, Function, Graph, Initializer, List, Node, ValueInfo, ValueType,
};
use crate::model::Opset;
use crate::tensor::{RawTensor, dimensions, product, string_entry};
use crate::wire::{Field, Payload, Result, WireReader};

/// A `ModelProto`.
#[derive(Default)]
pub(crate) struct RawModel {
    pub(crate) ir_version: i64,
    pub(crate) producer_name: String,
    pub(crate) producer_version: String,
    pub(crate) graph: Option<Graph>,
    pub(crate) opsets: Vec<Opset>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) functions: Vec<Function>,
}

/// Reads a whole file.
pub(crate) fn model<R: BufRead + Seek>(wire: &mut WireReader<R>) -> Result<RawModel> {
    let mut model = RawModel::default();
    let mut recognised = false;
    let outcome = wire.top("ModelProto", |wire, field| {
        match (field.number, field.payload) {
            (1, Payload::Varint(_)) => model.ir_version = wire.int(field)?,
            (2, Payload::Bytes { .. }) => model.producer_name = wire.lossy_text(field)?,
            (3, Payload::Bytes { .. }) => model.producer_version = wire.lossy_text(field)?,
            (5, Payload::Varint(_)) | (4 | 6 | 20 | 26, Payload::Bytes { .. }) => {}
            (7, Payload::Bytes { .. }) => {
                graph_into(wire, field, model.graph.get_or_insert_default())?
            }
            (8, Payload::Bytes { .. }) => model.opsets.push(opset(wire, field)?),
            (14, Payload::Bytes { .. }) => model.metadata.push(string_entry(wire, field)?),
            (25, Payload::Bytes { .. }) => model.functions.push(function(wire, field)?),
            // A later ONNX may add fields, but none of another type under these numbers.
            (number, _) if recognised && !matches!(number, 1..=8 | 14 | 20 | 25 | 26) => {}
            (number, _) => {
                let reason = format!("it has field {number} where a model has none such");
                return Err(Problem::NotOnnx { reason });
            }
        }
        recognised = true;
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(model),
        // Foreign bytes fail at once; a damaged model has shown a field or two by then.
        Err(Problem::Malformed { at, reason, .. }) if !recognised => {
            Err(Problem::NotOnnx { reason: format!("{reason} (at byte {at})") })
        }
        Err(Problem::Truncated { at, end, .. }) if !recognised => {
            let reason = format!("a field at byte {at} would go on to byte {end}");
            Err(Problem::NotOnnx { reason })
        }
        Err(problem) => Err(problem),
    }
}

fn opset<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<Opset> {
    let mut opset = Opset { domain: String::new(), version: 0 };
    wire.message(field, "OperatorSetIdProto", |wire, field| {
        match field.number {
            1 => opset.domain = domain(wire, field)?,
            2 => opset.version = wire.int(field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(opset)
}

/// Reads a domain; ONNX's own has two spellings.
fn domain<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<String> {
    let domain = wire.text(field)?;
    Ok(if domain == "ai.onnx" { String::new() } else { domain })
}

fn graph_into<R: BufRead + Seek>(
    wire: &mut WireReader<R>,
    field: Field,
    graph: &mut Graph,
) -> Result<()> {
    wire.message(field, "GraphProto", |wire, field| {
        match field.number {
            1 => graph.nodes.push(node(wire, field)?),
            2 => graph.name = wire.lossy_text(field)?,
            5 => graph.initializers.push(tensor(wire, field, "")?),
            11 => graph.inputs.push(value_info(wire, field)?),
            12 => graph.outputs.push(value_info(wire, field)?),
            13 => graph.value_info.push(value_info(wire, field)?),
            15 => graph.initializers.push(sparse_tensor(wire, field)?),
            _ => {}
        }
        Ok(())
    })
}

fn node<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<Node> {
    let mut node = Node::default();
    wire.message(field, "NodeProto", |wire, field| {
        match field.number {
            1 => node.inputs.push(wire.text(field)?),
            2 => node.outputs.push(wire.text(field)?),
            3 => node.name = wire.lossy_text(field)?,
            4 => node.op_type = wire.text(field)?,
            5 => node.attributes.push(attribute(wire, field)?),
            7 => node.domain = domain(wire, field)?,
            8 => node.overload = wire.text(field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

/// An `AttributeProto`, with one place for each type that its value may have.
#[derive(Default)]
struct RawAttribute {
    name: String,
    kind: i32,
    reference: String,
    float: Option<f32>,
    int: Option<i64>,
    string: Option<String>,
    tensor: Option<Initializer>,
    graph: Option<Graph>,
    floats: List<f32>,
    ints: List<i64>,
    strings: List<String>,
    tensors: Vec<Initializer>,
    graphs: Vec<Graph>,
}

fn attribute<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<Attribute> {
    let mut raw = RawAttribute::default();
    wire.message(field, "AttributeProto", |wire, field| {
        match field.number {
            1 => raw.name = wire.text(field)?,
            2 => raw.float = Some(wire.float(field)?),
            3 => raw.int = Some(wire.int(field)?),
            4 => raw.string = Some(wire.lossy_text(field)?),
            5 => raw.tensor = Some(tensor(wire, field, &raw.name)?),
            6 => graph_into(wire, field, raw.graph.get_or_insert_default())?,
            7 => wire.floats(field, &mut raw.floats)?,
            8 => wire.ints(field, &mut raw.ints)?,
            // Forests have millions of these.
            9 if raw.strings.is_full() => raw.strings.count += 1,
            9 => raw.strings.push(wire.lossy_text(field)?),
            10 => raw.tensors.push(tensor(wire, field, &raw.name)?),
            11 => {
                let mut graph = Graph::default();
                graph_into(wire, field, &mut graph)?;
                raw.graphs.push(graph);
            }
            20 => raw.kind = wire.int32(field)?,
            21 => raw.reference = wire.text(field)?,
            22 => raw.tensor = Some(sparse_tensor(wire, field)?),
            23 => raw.tensors.push(sparse_tensor(wire, field)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(raw.finish())
}

impl RawAttribute {
    fn finish(self) -> Attribute {
        let name = self.name.clone();
        Attribute { name, value: self.value() }
    }

    /// Returns the declared type of the value, or what it must be from what is there. Fields of proto3 are not written when they
    /// are zero or empty, and the type is missing in files of the first ONNX versions.
    fn kind(&self) -> i32 {
        if self.kind != 0 {
            return self.kind;
        }
        let present = [
            (1, self.float.is_some()),
            (2, self.int.is_some()),
            (3, self.string.is_some()),
            (4, self.tensor.is_some()),
            (5, self.graph.is_some()),
            (6, self.floats.count() > 0),
            (7, self.ints.count() > 0),
            (8, self.strings.count() > 0),
            (9, !self.tensors.is_empty()),
            (10, !self.graphs.is_empty()),
        ];
        present.iter().find(|(_, present)| *present).map_or(0, |(kind, _)| *kind)
    }

    fn value(self) -> AttributeValue {
        if !self.reference.is_empty() {
            return AttributeValue::Reference(self.reference);
        }
        match self.kind() {
            1 => AttributeValue::Float(self.float.unwrap_or_default()),
            2 => AttributeValue::Int(self.int.unwrap_or_default()),
            3 => AttributeValue::String(self.string.unwrap_or_default()),
            4 | 11 => self.tensor.map_or(AttributeValue::Other, AttributeValue::Tensor),
            5 => self.graph.map_or(AttributeValue::Other, AttributeValue::Graph),
            6 => AttributeValue::Floats(self.floats),
            7 => AttributeValue::Ints(self.ints),
            8 => AttributeValue::Strings(self.strings),
            9 | 12 => AttributeValue::Tensors(self.tensors),
            10 => AttributeValue::Graphs(self.graphs),
            _ => AttributeValue::Other,
        }
    }
}

fn tensor<R: BufRead + Seek>(
    wire: &mut WireReader<R>,
    field: Field,
    fallback_name: &str,
) -> Result<Initializer> {
    let mut raw = RawTensor::read(wire, field)?;
    raw.set_name_if_empty(fallback_name);
    raw.check().map_err(|(name, reason)| Problem::BadTensor { name, reason })
}

/// Reads a `SparseTensorProto`: the elements that are not zero, where they are, and the dimensions
/// of the whole.
fn sparse_tensor<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<Initializer> {
    let (mut values, mut indices, mut dims) = (None, None, List::default());
    wire.message(field, "SparseTensorProto", |wire, field| {
        match field.number {
            1 => values = Some(tensor(wire, field, "")?),
            2 => indices = Some(tensor(wire, field, "")?),
            3 => wire.ints(field, &mut dims)?,
            _ => {}
        }
        Ok(())
    })?;
    let name = values.as_ref().map(|values| values.name.clone()).unwrap_or_default();
    let broken = |reason: String| Problem::BadTensor { name: name.clone(), reason };
    let (Some(values), Some(indices)) = (values, indices) else {
        return Err(broken("it is sparse and lacks its values or their places".to_owned()));
    };
    let dims = dimensions(&dims).map_err(broken)?;
    product(&dims).map_err(broken)?;
    if values.dims.len() != 1
        || indices.data_type != ElementType::INT64
        || indices.dims.first() != values.dims.first()
    {
        return Err(broken("it is sparse and its places do not match its values".to_owned()));
    }
    if values.external.is_some() || indices.external.is_some() {
        return Err(broken(
            "it is sparse and kept in another file, which no runtime reads".to_owned(),
        ));
    }
    let bytes = values.bytes.saturating_add(indices.bytes);
    Ok(Initializer { dims, bytes, values: None, sparse: true, ..values })
}

fn value_info<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<ValueInfo> {
    let mut info = ValueInfo { name: String::new(), value_type: None };
    wire.message(field, "ValueInfoProto", |wire, field| {
        match field.number {
            1 => info.name = wire.text(field)?,
            2 => info.value_type = value_type(wire, field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(info)
}

/// Reads a `TypeProto`. What a sequence or map holds does not matter: none can be served.
fn value_type<R: BufRead + Seek>(
    wire: &mut WireReader<R>,
    field: Field,
) -> Result<Option<ValueType>> {
    let mut value_type = None;
    wire.message(field, "TypeProto", |wire, field| {
        match field.number {
            1 => value_type = Some(tensor_type(wire, field)?),
            4 => value_type = Some(ValueType::Sequence),
            5 => value_type = Some(ValueType::Map),
            7 => value_type = Some(ValueType::Opaque),
            8 => value_type = Some(ValueType::SparseTensor),
            9 => value_type = Some(ValueType::Optional),
            _ => {}
        }
        Ok(())
    })?;
    Ok(value_type)
}

fn tensor_type<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<ValueType> {
    let mut element = ElementType::UNDEFINED;
    let mut shape = ShapePattern::AnyRank;
    wire.message(field, "TypeProto.Tensor", |wire, field| {
        match field.number {
            1 => element = ElementType::from_number(wire.int32(field)?),
            2 => shape = tensor_shape(wire, field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(ValueType::Tensor { element, shape })
}

fn tensor_shape<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<ShapePattern> {
    let mut dimensions = Vec::new();
    wire.message(field, "TensorShapeProto", |wire, field| {
        if field.number == 1 {
            dimensions.push(dimension(wire, field)?);
        }
        Ok(())
    })?;
    Ok(ShapePattern::ranked(dimensions))
}

fn dimension<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<Dimension> {
    let mut dimension = Dimension::Any;
    wire.message(field, "TensorShapeProto.Dimension", |wire, field| {
        match field.number {
            // Exporters write -1 for a size that varies.
            1 => {
                let size = usize::try_from(wire.int(field)?).ok();
                dimension = size.map_or(Dimension::Any, Dimension::Fixed);
            }
            2 => {
                let name = wire.lossy_text(field)?;
                let named = !name.is_empty();
                dimension = if named { Dimension::Named(name.into()) } else { Dimension::Any };
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(dimension)
}

fn function<R: BufRead + Seek>(wire: &mut WireReader<R>, field: Field) -> Result<Function> {
    let mut function = Function::default();
    wire.message(field, "FunctionProto", |wire, field| {
        match field.number {
            1 => function.name = wire.text(field)?,
            4 => function.inputs.push(wire.text(field)?),
            5 => function.outputs.push(wire.text(field)?),
            7 => function.nodes.push(node(wire, field)?),
            9 => function.opsets.push(opset(wire, field)?),
            10 => function.domain = domain(wire, field)?,
            11 => function.attribute_defaults.push(attribute(wire, field)?),
            13 => function.overload = wire.text(field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(function)
}
