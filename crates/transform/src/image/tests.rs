//! The whole way of a picture against Pillow, and everything that is refused.
//!
//! How far a value may be from Pillow's, in steps of 255, before it is scaled:
//! - PNG and lossless WebP decode exactly; a resize may differ by 1, since Pillow rounds between its
//!   two directions, which it takes in the other order, and weighs with 22 bits in place of 15;
//! - JPEG may differ by a few steps, since the standard leaves the inverse transform's rounding and the
//!   widening of halved colours open: see [`tolerance`];
//! - lossy WebP decodes as libwebp does.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use outhaul_types::{Resize, ResizeFilter, Shape};
use serde_json::Value;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/transform/image")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn side(size: u64) -> NonZeroU32 {
    NonZeroU32::new(size.try_into().unwrap()).unwrap()
}

fn signature(data_type: DataType, dimensions: &[Option<usize>]) -> ModelSignature {
    let dimension = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
    let input = TensorSpec {
        name: "pixels".into(),
        data_type,
        shape: ShapePattern::ranked(dimensions.iter().map(dimension)),
        optional: false,
    };
    ModelSignature { inputs: vec![input], outputs: Vec::new() }
}

/// Sends files through a transform and returns the tensors of its parts.
fn prepare(
    spec: &ImageInput,
    inner: &ModelSignature,
    files: &[Vec<u8>],
    grouping: Grouping,
) -> Result<Vec<(Vec<usize>, Tensor)>, TransformError> {
    let side = ImageSide::build(spec, inner).unwrap().side;
    let strings: Strings = files.iter().collect();
    let image = Tensor::from_strings([files.len()], strings).unwrap();
    let prepared = side.prepare(&BoundInputs::from_elem(Some(image), 1), files.len(), grouping)?;
    assert_eq!((prepared.rows, prepared.tokens), (files.len(), None));
    Ok(prepared
        .parts
        .into_iter()
        .map(|mut part| (part.rows, part.inputs.pop().flatten().unwrap()))
        .collect())
}

/// One comparison with Pillow, from `cases.json`.
struct Case {
    file: String,
    spec: ImageInput,
    answer: String,
}

impl Case {
    fn all() -> Vec<Case> {
        let cases: Value = serde_json::from_slice(&file("cases.json")).unwrap();
        cases["cases"].as_array().unwrap().iter().map(Case::read).collect()
    }

    fn read(case: &Value) -> Case {
        let text = |key: &str| case[key].as_str().unwrap().to_owned();
        let sides = |value: &Value| {
            let sides: Vec<u64> =
                value.as_array()?.iter().map(|side| side.as_u64().unwrap()).collect();
            Some((side(sides[0]), side(sides[1])))
        };
        let resize = match sides(&case["resize"]) {
            Some((height, width)) => Resize::Exact { height, width },
            None => Resize::Shorter(side(case["resize"].as_u64().unwrap())),
        };
        let filter = match text("filter").as_str() {
            "nearest" => ResizeFilter::Nearest,
            "box" => ResizeFilter::Box,
            "bilinear" => ResizeFilter::Bilinear,
            "hamming" => ResizeFilter::Hamming,
            "bicubic" => ResizeFilter::Bicubic,
            "lanczos" => ResizeFilter::Lanczos,
            other => panic!("{other}"),
        };
        let channels = match text("mode").as_str() {
            "RGB" => outhaul_types::Channels::Rgb,
            "L" => outhaul_types::Channels::Gray,
            other => panic!("{other}"),
        };
        let spec = ImageInput {
            resize: Some(resize),
            crop: sides(&case["crop"]),
            filter,
            channels,
            layout: Some(ImageLayout::Nhwc),
            ..ImageInput::default()
        };
        Case { file: text("file"), spec, answer: text("answer") }
    }

    /// Returns ours and Pillow's.
    fn run(&self) -> (Vec<u8>, Vec<u8>) {
        let answer = file(&format!("answers/{}", self.answer));
        let decoder = ::png::Decoder::new(std::io::Cursor::new(answer));
        let mut reader = decoder.read_info().unwrap();
        let mut expected = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut expected).unwrap();
        let inner = signature(DataType::Uint8, &[None, None, None, None]);
        let parts =
            prepare(&self.spec, &inner, &[file(&self.file)], Grouping::Together).unwrap();
        let [(rows, tensor)] = parts.as_slice() else { panic!("{} parts", parts.len()) };
        assert_eq!(rows, &[0]);
        let (height, width) = (frame.height as usize, frame.width as usize);
        let shape = Shape::from([1, height, width, self.spec.channels.count()]);
        assert_eq!(tensor.shape(), &shape, "{} {:?}", self.file, self.spec);
        (tensor.as_bytes().unwrap().to_vec(), expected)
    }
}

#[test]
fn measure() {
    for case in Case::all() {
        let (ours, pillows) = case.run();
        let differences = ours.iter().zip(&pillows).map(|(a, b)| a.abs_diff(*b));
        let max = differences.clone().max().unwrap();
        let mean = differences.map(f64::from).sum::<f64>() / ours.len() as f64;
        println!("{:28} {:?} {:?} {:?} {:?}: max {max} mean {mean:.3}", case.file, case.spec.channels, case.spec.filter, case.spec.resize.unwrap(), case.spec.crop);
    }
}

#[test]
fn adhoc() {
    let mut names: Vec<_> = std::fs::read_dir("/tmp/jj").unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().unwrap()=="jpg").collect();
    names.sort();
    for path in names {
        let data = std::fs::read(&path).unwrap();
        let want = std::fs::read(path.with_extension("bin")).unwrap();
        match decode(&data, 50_000_000) {
            Err(e) => println!("{path:?} {e}"),
            Ok(p) => {
                let got: Vec<u8> = if p.channels == 1 { p.pixels.iter().flat_map(|&v| [v,v,v]).collect() } else { p.pixels };
                let max = got.iter().zip(&want).map(|(a,b)| a.abs_diff(*b)).max().unwrap();
                let mean = got.iter().zip(&want).map(|(a,b)| f64::from(a.abs_diff(*b))).sum::<f64>() / want.len() as f64;
                println!("{max:3} {mean:.2} {:?}", path.file_stem().unwrap());
            }
        }
    }
}
