//! A picture to the tensor that a model takes, against the library calls that it cannot do without.
//!
//! The reference decodes and resizes, nothing else: no check of what a file may cost, no EXIF, no
//! normalising, no planes. Two such chains are measured, with and without a fourth channel that widens
//! pixels to a register's step, and the faster one counts. The turns alternate in one process.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use outhaul_transform::{Grouping, Transform};
use outhaul_types::{
    BoundInputs, DataType, Dimension, ImageInput, InputTransform, ModelSignature, NamedTensor,
    Resize, ShapePattern, Strings, Tensor, TensorSpec, TransformSpec,
};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::table::{Row, median};

/// Height and width of the tensor.
const SIDE: u32 = 224;

/// What the transform may take of the reference's time.
const MOST: f64 = 1.1;

/// What to decode, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A JPEG.
    #[arg(long, default_value = "testdata/transform/image/photo_640x480.jpg")]
    picture: PathBuf,
    /// Turns of each chain; medians are reported.
    #[arg(long, default_value_t = 31)]
    turns: usize,
    /// Pictures of one turn.
    #[arg(long, default_value_t = 40)]
    count: usize,
}

/// Returns the row.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let Arguments { picture, turns, count } = arguments;
    let file = std::fs::read(picture).with_context(|| format!("reading {}", picture.display()))?;
    let mut chains = [
        Chain::new("RGB", ColorSpace::RGB, PixelType::U8x3),
        Chain::new("RGBA", ColorSpace::RGBA, PixelType::U8x4),
    ];
    let transform = Prepare::new(&file)?;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..=*turns {
        for (chain, times) in chains.iter_mut().zip(&mut times) {
            times.push(each_ms(*count, || chain.run(&file))?);
        }
        times[2].push(each_ms(*count, || transform.run())?);
    }
    // The first turn warms up.
    let [rgb, rgba, ours] = times.map(|times| median(times.into_iter().skip(1)));
    let (reference, name) =
        if rgb <= rgba { (rgb, chains[0].name) } else { (rgba, chains[1].name) };
    let ratio = ours / reference;
    Ok(vec![Row {
        what: format!("{} to FP32 [3,{SIDE},{SIDE}], one thread", title(picture)),
        reference: format!("zune-jpeg and fast_image_resize ({name}): {reference:.3} ms"),
        outhaul: format!("{ours:.3} ms"),
        worst_ms: None,
        result: format!("{ratio:.3} of it"),
        goal: format!("at most {MOST}"),
        met: ratio <= MOST,
    }])
}

fn title(picture: &std::path::Path) -> String {
    picture.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the milliseconds of one of `count` runs.
fn each_ms(count: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        run()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0 / count as f64)
}

/// Decoding and resizing, the buffers of the resize kept from picture to picture.
struct Chain {
    name: &'static str,
    colors: ColorSpace,
    pixel_type: PixelType,
    resizer: Resizer,
}

impl Chain {
    fn new(name: &'static str, colors: ColorSpace, pixel_type: PixelType) -> Self {
        Chain { name, colors, pixel_type, resizer: Resizer::new() }
    }

    fn run(&mut self, file: &[u8]) -> anyhow::Result<()> {
        let options = DecoderOptions::default().jpeg_set_out_colorspace(self.colors);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(black_box(file)), options);
        let pixels = decoder.decode()?;
        let (width, height) = decoder.dimensions().context("no header was decoded")?;
        let source = ImageRef::new(width as u32, height as u32, &pixels, self.pixel_type)?;
        let mut target = Image::new(SIDE, SIDE, self.pixel_type);
        let algorithm = ResizeAlg::Convolution(FilterType::Bilinear);
        let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        self.resizer.resize(&source, &mut target, &options)?;
        black_box(target.buffer());
        Ok(())
    }
}

/// The whole of it, as a request goes through it.
struct Prepare {
    transform: Transform,
    inputs: BoundInputs,
}

impl Prepare {
    fn new(file: &[u8]) -> anyhow::Result<Self> {
        let side = NonZeroU32::new(SIDE).context("a side of 0")?;
        let image = ImageInput {
            resize: Some(Resize::Exact { height: side, width: side }),
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            ..ImageInput::default()
        };
        let spec = TransformSpec { input: Some(InputTransform::Image(image)), output: None };
        let size = Dimension::Fixed(SIDE as usize);
        let pixels = TensorSpec {
            name: "pixels".into(),
            data_type: DataType::Fp32,
            shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(3), size.clone(), size]),
            optional: false,
        };
        let inner = ModelSignature { inputs: vec![pixels], outputs: Vec::new() };
        let transform = Transform::build(&spec, &inner)?.context("nothing was declared")?;
        let strings: Strings = [file].into_iter().collect();
        let image =
            NamedTensor { name: "image".into(), tensor: Tensor::from_strings([1], strings)? };
        let inputs = transform.outer().bind([image])?;
        Ok(Prepare { transform, inputs })
    }

    fn run(&self) -> anyhow::Result<()> {
        let prepared = self.transform.prepare(black_box(&self.inputs), Grouping::Alone)?;
        ensure!(prepared.parts.len() == 1, "one picture is one part");
        black_box(prepared);
        Ok(())
    }
}
