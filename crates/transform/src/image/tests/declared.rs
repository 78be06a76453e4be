//! Declarations that cannot hold, each named by its key.

use outhaul_types::{Channels, Resize};

use super::*;

fn exact(height: u32, width: u32) -> Option<Resize> {
    Some(Resize::Exact { height: side(height), width: side(width) })
}

#[test]
fn the_size_and_the_layout_follow_from_the_model_where_they_can() {
    let usual = ImageInput::default;
    let crop = Some((side(8), side(9)));
    let cases: [(ImageInput, [Option<usize>; 4], [usize; 4]); 8] = [
        (usual(), [None, Some(3), Some(8), Some(9)], [1, 3, 8, 9]),
        (usual(), [None, Some(8), Some(9), Some(3)], [1, 8, 9, 3]),
        (usual(), [Some(1), Some(3), Some(8), Some(9)], [1, 3, 8, 9]),
        // Three rows of pixels, one channel.
        (
            ImageInput { channels: Channels::Gray, ..usual() },
            [None, Some(3), Some(9), Some(1)],
            [1, 3, 9, 1],
        ),
        (ImageInput { resize: exact(8, 9), ..usual() }, [None, Some(3), None, None], [1, 3, 8, 9]),
        (
            ImageInput { resize: exact(8, 9), layout: Some(ImageLayout::Nhwc), ..usual() },
            [None; 4],
            [1, 8, 9, 3],
        ),
        (
            ImageInput { resize: exact(18, 19), crop, ..usual() },
            [None, Some(3), Some(8), Some(9)],
            [1, 3, 8, 9],
        ),
        (
            ImageInput { resize: Some(Resize::Shorter(side(10))), crop, ..usual() },
            [None, Some(3), None, Some(9)],
            [1, 3, 8, 9],
        ),
    ];
    let picture = file("png_rgb.png");
    for (spec, dimensions, expected) in cases {
        let inner = model(DataType::Fp32, &dimensions);
        let parts = prepare(&spec, &inner, &[&picture], Grouping::Alone).unwrap();
        assert_eq!(parts[0].1.shape().to_vec(), expected, "{dimensions:?}");
    }
}

#[test]
fn a_contradiction_is_named_by_its_key() {
    struct Case(ImageInput, ModelSignature, &'static str);
    let usual = ImageInput::default;
    let shorter = |size| Some(Resize::Shorter(side(size)));
    let fixed = || model(DataType::Fp32, &[None, Some(3), Some(8), Some(9)]);
    let open = || model(DataType::Fp32, &[None, Some(3), None, None]);
    let bytes = || model(DataType::Uint8, &[None, Some(3), Some(8), Some(9)]);
    let inputs =
        |inputs: &[TensorSpec]| ModelSignature { inputs: inputs.to_vec(), outputs: Vec::new() };
    let pictures = |name: &str| input(name, DataType::Fp32, &[None, Some(3), Some(8), Some(9)]);
    let numbers = input("numbers", DataType::Fp32, &[None, Some(4)]);
    let cases = [
        Case(
            ImageInput { input: Some("image".into()), ..usual() },
            fixed(),
            "transform.input.input names 'image', but the model has 'pixels'",
        ),
        Case(
            usual(),
            inputs(&[pictures("left"), pictures("right")]),
            "transform.input.input must name the one that takes pictures: the model has several \
             inputs of four dimensions among 'left', 'right'",
        ),
        Case(
            usual(),
            inputs(&[]),
            "transform.input.input must name the one that takes pictures: the model has no input of \
             four dimensions among no inputs",
        ),
        Case(
            ImageInput { input: Some("left".into()), ..usual() },
            inputs(&[pictures("left"), numbers.clone()]),
            "transform.input.input: 'numbers' is FP32 [-1,4] in the model's file, which is needed \
             too, and a picture cannot fill it",
        ),
        Case(
            usual(),
            inputs(&[numbers]),
            "transform.input.input: 'numbers' is FP32 [-1,4] in the model's file, which is neither \
             [batch, channels, height, width] nor [batch, height, width, channels]",
        ),
        Case(
            usual(),
            model(DataType::Fp32, &[Some(3), Some(8), Some(9)]),
            "transform.input.input: 'pixels' is FP32 [3,8,9] in the model's file, which has no \
             dimension for the batch: export it as [batch, channels, height, width] or [batch, \
             height, width, channels]",
        ),
        Case(
            usual(),
            model(DataType::Int64, &[None, Some(3), Some(8), Some(9)]),
            "transform.input.input: 'pixels' is INT64 [-1,3,8,9] in the model's file, which a \
             picture cannot fill: FP32, FP16, BF16 and UINT8 can be",
        ),
        Case(
            usual(),
            model(DataType::Fp32, &[None, Some(3), Some(9), Some(3)]),
            "transform.input.layout must be declared, 'nchw' or 'nhwc': the shape of 'pixels', \
             [-1,3,9,3], does not tell which dimension is the channels",
        ),
        Case(
            ImageInput { channels: Channels::Gray, ..usual() },
            fixed(),
            "transform.input.channels give 1 where 'pixels' takes 3: [-1,3,8,9]",
        ),
        Case(
            ImageInput { layout: Some(ImageLayout::Nhwc), ..usual() },
            fixed(),
            "transform.input.channels give 3 where 'pixels' takes 9: [-1,3,8,9]",
        ),
        Case(
            usual(),
            open(),
            "transform.input.resize must be declared: the model's file does not fix height and \
             width of 'pixels', [-1,3,-1,-1]",
        ),
        Case(
            ImageInput { crop: Some((side(8), side(9))), ..usual() },
            fixed(),
            "transform.input.resize must be declared where input.crop is: without it pictures are \
             resized to the model's own size, and nothing is left to cut",
        ),
        Case(
            ImageInput { resize: exact(9, 8), ..usual() },
            fixed(),
            "transform.input.resize gives 9 x 8 pixels (height x width), which does not fit \
             'pixels', [-1,3,8,9]",
        ),
        Case(
            ImageInput { resize: shorter(10), ..usual() },
            open(),
            "transform.input.crop must be declared where input.resize gives the shorter side alone: \
             all rows of a model have one size",
        ),
        Case(
            ImageInput { resize: shorter(10), crop: Some((side(9), side(8))), ..usual() },
            fixed(),
            "transform.input.crop gives 9 x 8 pixels (height x width), which does not fit 'pixels', \
             [-1,3,8,9]",
        ),
        Case(
            ImageInput { resize: shorter(7), crop: Some((side(8), side(9))), ..usual() },
            open(),
            "transform.input.crop 8 x 9 cannot be cut out of what input.resize leaves",
        ),
        Case(
            ImageInput { resize: exact(8, 8), crop: Some((side(8), side(9))), ..usual() },
            open(),
            "transform.input.crop 8 x 9 cannot be cut out of what input.resize leaves",
        ),
        Case(
            ImageInput { resize: exact(65_536, 65_536), ..usual() },
            open(),
            "transform.input.resize gives 65536 x 65536 pixels, of which 1 would be a tensor of more \
             than 268435456 bytes",
        ),
        Case(
            ImageInput { scale: 0.0, ..usual() },
            fixed(),
            "transform.input.scale must be a number other than 0, is 0",
        ),
        Case(
            ImageInput { mean: vec![0.5], ..usual() },
            fixed(),
            "transform.input.mean has 1 numbers, and there are 3 channels",
        ),
        Case(
            ImageInput { mean: vec![0.5, f32::NAN, 0.5], ..usual() },
            fixed(),
            "transform.input.mean must be finite",
        ),
        Case(
            ImageInput { std: vec![0.5, 0.0, 0.5], ..usual() },
            fixed(),
            "transform.input.std must not be 0",
        ),
        Case(
            ImageInput { scale: 0.5, ..usual() },
            bytes(),
            "transform.input.scale cannot be: 'pixels' is UINT8 and takes pixels as they are",
        ),
        Case(
            ImageInput { mean: vec![0.5; 3], ..usual() },
            bytes(),
            "transform.input.mean cannot be: 'pixels' is UINT8 and takes pixels as they are",
        ),
        Case(
            ImageInput { max_pixels: 0, ..usual() },
            fixed(),
            "transform.input.max_pixels must be 1 to 1000000000, is 0",
        ),
    ];
    for Case(spec, inner, expected) in cases {
        let error = ImageSide::build(&spec, &inner).err().expect(expected);
        assert_eq!(error.to_string(), expected);
    }
}
