//! Pictures through a whole input side.

mod declared;
mod pillow;
mod refused;
mod values;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/transform/image")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn side(size: u32) -> NonZeroU32 {
    NonZeroU32::new(size).unwrap()
}

fn input(name: &str, data_type: DataType, dimensions: &[Option<usize>]) -> TensorSpec {
    let dimension = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
    TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked(dimensions.iter().map(dimension)),
        optional: false,
    }
}

/// A model with one input, `pixels`.
fn model(data_type: DataType, dimensions: &[Option<usize>]) -> ModelSignature {
    ModelSignature { inputs: vec![input("pixels", data_type, dimensions)], outputs: Vec::new() }
}

/// Sends files through an input side, and returns the rows and the tensor of each part.
fn prepare(
    spec: &ImageInput,
    inner: &ModelSignature,
    files: &[&[u8]],
    grouping: Grouping,
) -> Result<Vec<(Vec<usize>, Tensor)>, TransformError> {
    let side = ImageSide::build(spec, inner).unwrap().side;
    let image = Tensor::from_strings([files.len()], files.iter().collect()).unwrap();
    let prepared = side.prepare(&BoundInputs::from_elem(Some(image), 1), files.len(), grouping)?;
    assert_eq!((prepared.rows, prepared.tokens), (files.len(), None));
    let one = |mut part: Part| (part.rows, part.inputs.pop().flatten().unwrap());
    Ok(prepared.parts.into_iter().map(one).collect())
}
