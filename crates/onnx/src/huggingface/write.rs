//! A graph as an ONNX file, weights last and one at a time.
//!
//! Where the weights would take the file beyond what Protocol Buffers can hold, they go into a second
//! file beside it, `model.onnx.data`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::HuggingFaceError;
use super::graph::{Constant, Data, Dim, GraphBuilder, Port};
use super::weights::Weights;
use super::wire::{bytes_field, int_field, length_field};

/// The version of the file format and of the operators: `LayerNormalization` came with it.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// Protocol Buffers hold less than 2 GiB; the graph itself takes some of it.
const MOST_INLINE: u64 = 2_000_000_000;

/// Weights in a file of their own begin at multiples of this, so that they can be mapped.
const ALIGNMENT: u64 = 4096;

/// Writes the file, and the file of weights where one is needed; returns what was written.
pub(super) fn write(
    graph: &GraphBuilder,
    weights: &Weights,
    target: &Path,
    most_inline: Option<u64>,
) -> Result<Vec<PathBuf>, HuggingFaceError> {
    let inline: u64 = graph.constants.iter().map(Constant::bytes).sum();
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| HuggingFaceError::Write { path, source }
    };
    let is_external = inline > most_inline.unwrap_or(MOST_INLINE);
    let mut beside = None;
    if is_external {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".data");
        beside = Some(target.with_file_name(name));
    }
    let layout = Layout::of(graph, beside.as_deref());
    model_file(graph, weights, &layout, target).map_err(failed(target))?;
    if let Some(beside) = &beside {
        data_file(graph, weights, &layout, beside).map_err(failed(beside))?;
    }
    Ok([Some(target.to_owned()), beside].into_iter().flatten().collect())
}

/// Each constant's head, and where in the file of weights its elements begin (`None`: in the model's
/// file, behind the head).
struct Layout {
    tensors: Vec<(Vec<u8>, Option<u64>)>,
}

impl Layout {
    fn of(graph: &GraphBuilder, beside: Option<&Path>) -> Self {
        let location = beside.and_then(Path::file_name).map(|name| name.to_string_lossy());
        let mut next = 0_u64;
        let tensors = graph.constants.iter().map(|constant| {
            let mut head = Vec::new();
            constant.dims.iter().for_each(|size| int_field(&mut head, 1, *size as i64));
            int_field(&mut head, 2, constant.data_type);
            bytes_field(&mut head, 8, constant.name.as_bytes());
            match (&location, &constant.data) {
                (Some(location), Data::Weight { .. }) => {
                    let (offset, length) = (next, constant.bytes());
                    next = (offset + length).next_multiple_of(ALIGNMENT);
                    for (key, value) in [
                        ("location", location.to_string()),
                        ("offset", offset.to_string()),
                        ("length", length.to_string()),
                    ] {
                        let mut entry = Vec::new();
                        bytes_field(&mut entry, 1, key.as_bytes());
                        bytes_field(&mut entry, 2, value.as_bytes());
                        bytes_field(&mut head, 13, &entry);
                    }
                    int_field(&mut head, 14, 1);
                    (head, Some(offset))
                }
                _ => {
                    length_field(&mut head, 9, constant.bytes());
                    (head, None)
                }
            }
        });
        Layout { tensors: tensors.collect() }
    }
}

fn model_file(
    graph: &GraphBuilder,
    weights: &Weights,
    layout: &Layout,
    path: &Path,
) -> io::Result<()> {
    let mut head = Vec::new();
    for node in &graph.nodes {
        bytes_field(&mut head, 1, node);
    }
    bytes_field(&mut head, 2, b"encoder");
    graph.inputs.iter().for_each(|input| bytes_field(&mut head, 11, &port(input)));
    graph.outputs.iter().for_each(|output| bytes_field(&mut head, 12, &port(output)));

    let mut length = head.len() as u64;
    let constants = || graph.constants.iter().zip(&layout.tensors);
    let mut heads = Vec::with_capacity(graph.constants.len());
    for (constant, (tensor, external)) in constants() {
        let inline = if external.is_some() { 0 } else { constant.bytes() };
        let mut field = Vec::new();
        length_field(&mut field, 5, tensor.len() as u64 + inline);
        field.extend_from_slice(tensor);
        length += field.len() as u64 + inline;
        heads.push(field);
    }
    let mut model = Vec::new();
    int_field(&mut model, 1, IR_VERSION);
    bytes_field(&mut model, 2, b"outhaul");
    bytes_field(&mut model, 3, env!("CARGO_PKG_VERSION").as_bytes());
    let mut opset = Vec::new();
    bytes_field(&mut opset, 1, b"");
    int_field(&mut opset, 2, OPSET);
    bytes_field(&mut model, 8, &opset);
    length_field(&mut model, 7, length);

    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&model)?;
    out.write_all(&head)?;
    for ((constant, (_, external)), head) in constants().zip(&heads) {
        out.write_all(head)?;
        if external.is_none() {
            elements(constant, weights, &mut out)?;
        }
    }
    out.flush()
}

fn data_file(
    graph: &GraphBuilder,
    weights: &Weights,
    layout: &Layout,
    path: &Path,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut at = 0_u64;
    for (constant, (_, external)) in graph.constants.iter().zip(&layout.tensors) {
        let Some(offset) = *external else { continue };
        io::copy(&mut io::Read::take(io::repeat(0), offset - at), &mut out)?;
        elements(constant, weights, &mut out)?;
        at = offset + constant.bytes();
    }
    out.flush()
}

fn elements(constant: &Constant, weights: &Weights, out: &mut dyn Write) -> io::Result<()> {
    match &constant.data {
        Data::Here(bytes) => out.write_all(bytes),
        Data::Weight { weight, transpose } => weights.write(weight, *transpose, out),
    }
}

/// A `ValueInfoProto`.
fn port(port: &Port) -> Vec<u8> {
    let mut shape = Vec::new();
    for dim in &port.dims {
        let mut dimension = Vec::new();
        match dim {
            Dim::Size(size) => int_field(&mut dimension, 1, *size as i64),
            Dim::Name(name) => bytes_field(&mut dimension, 2, name.as_bytes()),
        }
        bytes_field(&mut shape, 1, &dimension);
    }
    let (mut tensor, mut kind, mut info) = (Vec::new(), Vec::new(), Vec::new());
    int_field(&mut tensor, 1, port.data_type);
    bytes_field(&mut tensor, 2, &shape);
    bytes_field(&mut kind, 1, &tensor);
    bytes_field(&mut info, 1, port.name.as_bytes());
    bytes_field(&mut info, 2, &kind);
    info
}
