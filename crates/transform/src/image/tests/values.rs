//! Values, layouts and parts.

use std::num::NonZeroUsize;

use half::{bf16, f16};
use outhaul_types::{Channels, Resize, Shape};

use super::*;

/// A PNG of two pixels side by side.
fn two_pixels(pixels: [[u8; 3]; 2]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 2, 1);
    encoder.set_color(::png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels.as_flattened()).unwrap();
    writer.finish().unwrap();
    file
}

const LEFT: [u8; 3] = [0, 51, 255];
const RIGHT: [u8; 3] = [102, 153, 204];

fn values<T: Element>(spec: &ImageInput, dimensions: &[Option<usize>]) -> (Shape, Vec<T>) {
    let inner = model(T::DATA_TYPE, dimensions);
    let file = two_pixels([LEFT, RIGHT]);
    let parts = prepare(spec, &inner, &[&file], Grouping::Together).unwrap();
    let [(_, tensor)] = parts.as_slice() else { panic!("{} parts", parts.len()) };
    (tensor.shape().clone(), tensor.as_slice::<T>().unwrap().to_vec())
}

const NCHW: [Option<usize>; 4] = [None, Some(3), Some(1), Some(2)];
const NHWC: [Option<usize>; 4] = [None, Some(1), Some(2), Some(3)];

#[test]
fn values_are_scaled_and_lie_as_the_model_takes_them() {
    let usual = ImageInput::default();
    let nchw = [0.0, 0.4, 0.2, 0.6, 1.0, 0.8];
    let (shape, elements) = values::<f32>(&usual, &NCHW);
    assert_eq!((shape, elements.as_slice()), (Shape::from([1, 3, 1, 2]), nchw.as_slice()));
    let (shape, elements) = values::<f32>(&usual, &NHWC);
    assert_eq!(shape, Shape::from([1, 1, 2, 3]));
    assert_eq!(elements, [0.0, 0.2, 1.0, 0.4, 0.6, 0.8]);

    let bgr = ImageInput { channels: Channels::Bgr, ..usual.clone() };
    assert_eq!(values::<f32>(&bgr, &NCHW).1, [1.0, 0.8, 0.2, 0.6, 0.0, 0.4]);
    assert_eq!(values::<f32>(&bgr, &NHWC).1, [1.0, 0.2, 0.0, 0.8, 0.6, 0.4]);

    // Mean and deviation belong to the channels in the model's order.
    let (mean, std) = (vec![0.5, 0.0, 0.25], vec![0.5, 1.0, 0.25]);
    let normalised = ImageInput { mean, std, ..bgr };
    assert_eq!(values::<f32>(&normalised, &NCHW).1, [1.0, 0.6, 0.2, 0.6, -1.0, 0.6]);

    let unscaled = ImageInput { scale: 1.0, ..usual.clone() };
    assert_eq!(values::<f32>(&unscaled, &NCHW).1, [0.0, 102.0, 51.0, 153.0, 255.0, 204.0]);
    assert_eq!(values::<u8>(&unscaled, &NCHW).1, [0, 102, 51, 153, 255, 204]);
    assert_eq!(values::<u8>(&usual, &NHWC).1, [LEFT, RIGHT].as_flattened());
    assert_eq!(values::<f16>(&usual, &NCHW).1, nchw.map(f16::from_f32));
    assert_eq!(values::<bf16>(&usual, &NCHW).1, nchw.map(bf16::from_f32));
}

#[test]
fn grey_is_the_brightness() {
    let grey = ImageInput { channels: Channels::Gray, scale: 1.0, ..ImageInput::default() };
    // 0.587 * 51 + 0.114 * 255; 0.299 * 102 + 0.587 * 153 + 0.114 * 204.
    let (shape, elements) = values::<f32>(&grey, &[None, Some(1), Some(1), Some(2)]);
    assert_eq!((shape, elements), (Shape::from([1, 1, 1, 2]), vec![59.0, 144.0]));
}

#[test]
fn rows_share_parts_as_they_may() {
    let colors = [[1; 3], [2; 3], [3; 3], [4; 3], [5; 3]];
    let files = colors.map(|color| two_pixels([color; 2]));
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let most = |most| Grouping::Equal(NonZeroUsize::new(most).unwrap());
    type Case = (Option<usize>, Grouping, &'static [&'static [usize]]);
    let cases: [Case; 6] = [
        (None, Grouping::Alone, &[&[0], &[1], &[2], &[3], &[4]]),
        (None, most(2), &[&[0, 1], &[2, 3], &[4]]),
        (None, most(5), &[&[0, 1, 2, 3, 4]]),
        (None, Grouping::Together, &[&[0, 1, 2, 3, 4]]),
        // What the model's file fixes is stronger than any wish.
        (Some(1), Grouping::Together, &[&[0], &[1], &[2], &[3], &[4]]),
        (Some(5), Grouping::Alone, &[&[0, 1, 2, 3, 4]]),
    ];
    for (batch, grouping, expected) in cases {
        let inner = model(DataType::Uint8, &[batch, Some(1), Some(2), Some(3)]);
        let parts = prepare(&ImageInput::default(), &inner, &files, grouping).unwrap();
        let rows: Vec<_> = parts.iter().map(|(rows, _)| rows.as_slice()).collect();
        assert_eq!(rows, expected, "{batch:?} {grouping:?}");
        for (rows, tensor) in &parts {
            let pixels: Vec<u8> = rows.iter().flat_map(|&row| [row as u8 + 1; 6]).collect();
            assert_eq!(tensor.as_slice::<u8>(), Some(pixels.as_slice()), "{rows:?}");
        }
    }
    let inner = model(DataType::Uint8, &[Some(2), Some(1), Some(2), Some(3)]);
    let error = prepare(&ImageInput::default(), &inner, &files, Grouping::Alone).unwrap_err();
    assert_eq!(error.to_string(), "'image' has 5 pictures where the model takes 2 at once");
}

#[test]
fn a_row_is_what_it_is_alone() {
    let files = [file("jpeg_420.jpg"), file("png_rgba.png"), file("webp_lossy.webp")];
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let spec = ImageInput {
        resize: Some(Resize::Shorter(side(24))),
        crop: Some((side(24), side(20))),
        ..ImageInput::default()
    };
    let inner = model(DataType::Fp32, &[None, Some(3), None, None]);
    let together = prepare(&spec, &inner, &files, Grouping::Together).unwrap();
    let alone = prepare(&spec, &inner, &files, Grouping::Alone).unwrap();
    let rows: Vec<&Tensor> = alone.iter().map(|(_, tensor)| tensor).collect();
    assert_eq!(together[0].1, Tensor::concatenate_rows(&rows).unwrap());
}

#[test]
fn other_inputs_of_the_model_are_left_to_their_defaults() {
    let mut inner = model(DataType::Fp32, &NCHW);
    let threshold = TensorSpec { optional: true, ..input("threshold", DataType::Fp32, &[None]) };
    inner.inputs.insert(0, threshold);
    let built = ImageSide::build(&ImageInput::default(), &inner).unwrap();
    assert_eq!((built.specs[0].name.as_str(), built.specs.len()), ("image", 1));
    assert_eq!(built.fields, [Field::of(Content::Image)]);
    let file = two_pixels([LEFT, RIGHT]);
    let image = Tensor::from_strings([1], [file].iter().collect()).unwrap();
    let bound = BoundInputs::from_elem(Some(image), 1);
    let prepared = built.side.prepare(&bound, 1, Grouping::Alone).unwrap();
    assert_eq!(prepared.parts[0].inputs.len(), 2);
    assert_eq!(prepared.parts[0].inputs[0], None);
    assert!(prepared.parts[0].inputs[1].is_some());
}
