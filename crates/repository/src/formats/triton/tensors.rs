//! `input` and `output`: names, types and shapes.

use std::collections::BTreeSet;

use outhaul_types::{DataType, Dimension, ShapePattern, TensorDeclaration};

use super::super::textproto::Section;
use super::Target;

pub(super) fn map(config: &Section<'_>, target: &mut Target) {
    let has_rows = config.number("max_batch_size") > 0;
    target.manifest.inputs = tensors(config, "input", has_rows, target);
    target.manifest.outputs = tensors(config, "output", has_rows, target);
}

fn tensors(
    config: &Section<'_>,
    field: &str,
    has_rows: bool,
    target: &mut Target,
) -> Vec<TensorDeclaration> {
    let mut names = BTreeSet::new();
    let mut declarations = Vec::new();
    for tensor in config.sections(field) {
        let name = tensor.text("name");
        if name.is_empty() {
            let rule = "must have a name";
            target.problems.push(tensor.problem("", rule, "write the name in the model's file"));
        } else if !names.insert(name) {
            target.problems.push(tensor.problem("name", "is there twice", "remove one of the two"));
        }
        let data_type = data_type(tensor.number("data_type"));
        let dims = sizes(&tensor, "dims", target);
        let reshape = tensor.section("reshape");
        let reshape =
            reshape.and_then(|reshape| Some((sizes(&reshape, "shape", target)?, reshape)));
        if let (Some(dims), Some((shape, reshape))) = (&dims, &reshape)
            && parts(dims) != parts(shape)
        {
            let dims = pattern(dims, false);
            let rule = format!(
                "does not hold the elements of dims {dims}; the sizes between two -1 must multiply \
                 to the same"
            );
            target.problems.push(reshape.problem("shape", &rule, "correct one of the two"));
        }
        let has_dims = dims.as_ref().is_some_and(|dims| !dims.is_empty());
        if reshape.is_some() && dims.as_ref().is_some_and(Vec::is_empty) {
            let remedy = "write the shape that callers send or get as dims";
            target.problems.push(tensor.problem("reshape", "there are no dims to reshape", remedy));
        }
        declarations.push(TensorDeclaration {
            name: name.into(),
            data_type,
            // Without dims Triton takes the file's shape.
            shape: dims.filter(|_| has_dims).map(|dims| pattern(&dims, has_rows)),
            reshape: reshape.map(|(shape, _)| pattern(&shape, has_rows)),
        });
    }
    declarations
}

/// A size that is fixed, or -1.
pub(super) type Size = Option<usize>;

/// Reads sizes of at least 1, or -1.
fn sizes(section: &Section<'_>, field: &str, target: &mut Target) -> Option<Vec<Size>> {
    let numbers = section.numbers(field);
    let size = |number: &i128| match *number {
        -1 => Some(None),
        number => usize::try_from(number).ok().filter(|size| *size > 0).map(Some),
    };
    let sizes: Option<Vec<Size>> = numbers.iter().map(size).collect();
    if sizes.is_none() {
        let rule = "a size is at least 1, or -1 where it may vary";
        target.problems.push(section.problem(field, rule, "correct the shape"));
    }
    sizes
}

/// The products of the sizes between those that vary.
fn parts(sizes: &[Size]) -> Vec<usize> {
    let parts = sizes.split(Option::is_none);
    parts
        .map(|part| part.iter().flatten().fold(1_usize, |all, size| all.saturating_mul(*size)))
        .collect()
}

fn pattern(sizes: &[Size], has_rows: bool) -> ShapePattern {
    let rows = has_rows.then_some(None);
    let sizes = rows.into_iter().chain(sizes.iter().copied());
    ShapePattern::ranked(sizes.map(|size| size.map_or(Dimension::Any, Dimension::Fixed)))
}

/// The type of Triton's number for it. `None` for 0, which stands for what the file says.
pub(super) fn data_type(number: i128) -> Option<DataType> {
    Some(match number {
        1 => DataType::Bool,
        2 => DataType::Uint8,
        3 => DataType::Uint16,
        4 => DataType::Uint32,
        5 => DataType::Uint64,
        6 => DataType::Int8,
        7 => DataType::Int16,
        8 => DataType::Int32,
        9 => DataType::Int64,
        10 => DataType::Fp16,
        11 => DataType::Fp32,
        12 => DataType::Fp64,
        13 => DataType::Bytes,
        14 => DataType::Bf16,
        _ => return None,
    })
}
