//! `preprocessor_config.json`: from a picture to the model's pixels, as transformers' image processors
//! do it.

use std::num::NonZeroU32;

use outhaul_types::{Channels, ImageInput, Resize, ResizeFilter};
use serde_json::Value;

use super::keys::{At, Document, Reading};

const FILE: &str = "preprocessor_config.json";
const REMEDY: &str = "declare transform.input in a model.toml, or change the file";

/// Processors that do nothing beyond what is read here.
const PROCESSORS: [&str; 12] = [
    "BeitFeatureExtractor",
    "BeitImageProcessor",
    "BitImageProcessor",
    "CLIPFeatureExtractor",
    "CLIPImageProcessor",
    "ConvNextFeatureExtractor",
    "ConvNextImageProcessor",
    "DeiTFeatureExtractor",
    "DeiTImageProcessor",
    "SiglipImageProcessor",
    "ViTFeatureExtractor",
    "ViTImageProcessor",
];

/// Steps that change pixels and are not carried out.
const NOT_CARRIED_OUT: [&str; 5] =
    ["do_pad", "do_thumbnail", "do_align_long_axis", "rescale_offset", "include_top"];

/// Reads the file.
pub(super) fn input(reading: &mut Reading) -> Option<ImageInput> {
    let config = reading.document(FILE)?;
    let processor = config.text("image_processor_type").or(config.text("feature_extractor_type"));
    let processor = processor.unwrap_or("ViTImageProcessor").trim_end_matches("Fast").to_owned();
    if !PROCESSORS.contains(&processor.as_str()) {
        let value = Value::from(processor);
        let rule = format!("of image processors {} are carried out", PROCESSORS.join(", "));
        reading.error(At(FILE, "image_processor_type", Some(&value)), rule, REMEDY);
        return None;
    }
    for key in NOT_CARRIED_OUT {
        if config.is_true(key, false) {
            let rule = "this step is not carried out";
            reading.error(At(FILE, key, config.get(key)), rule, REMEDY);
        }
    }
    let (resize, crop) = sizes(&config, &processor, reading)?;
    let (mean, std) = match config.is_true("do_normalize", true) {
        true => (numbers(&config, "image_mean", reading)?, numbers(&config, "image_std", reading)?),
        false => (Vec::new(), Vec::new()),
    };
    let scale = match (config.is_true("do_rescale", true), config.get("rescale_factor")) {
        (false, _) => 1.0,
        (true, None) => 1.0 / 255.0,
        (true, Some(factor)) => factor.as_f64().or_else(|| {
            let rule = "must be a number";
            reading.error(At(FILE, "rescale_factor", Some(factor)), rule, REMEDY);
            None
        })? as f32,
    };
    let channels = if mean.len() == 1 { Channels::Gray } else { Channels::Rgb };
    let filter = filter(&config, reading)?;
    Some(ImageInput { resize, crop, filter, channels, scale, mean, std, ..ImageInput::default() })
}

type Crop = Option<(NonZeroU32, NonZeroU32)>;

fn sizes(
    config: &Document,
    processor: &str,
    reading: &mut Reading,
) -> Option<(Option<Resize>, Crop)> {
    let resize = match config.is_true("do_resize", true) {
        false => None,
        true => Some(size(config, "size", !processor.starts_with("CLIP"), reading)?),
    };
    // ConvNext resizes small pictures beyond their size and cuts the middle out of them.
    if let (true, Some(Resize::Shorter(side))) = (processor.starts_with("ConvNext"), resize) {
        let part = config.get("crop_pct").and_then(Value::as_f64).unwrap_or(224.0 / 256.0);
        if side.get() >= 384 {
            return Some((Some(Resize::Exact { height: side, width: side }), None));
        }
        let larger = NonZeroU32::new((f64::from(side.get()) / part) as u32)?;
        return Some((Some(Resize::Shorter(larger)), Some((side, side))));
    }
    if !config.is_true("do_center_crop", false) {
        return Some((resize, None));
    }
    match size(config, "crop_size", true, reading)? {
        Resize::Exact { height, width } => Some((resize, Some((height, width)))),
        Resize::Shorter(side) => Some((resize, Some((side, side)))),
    }
}

/// Reads a size: one number, a height and a width, or the shortest edge. Older files give one number, which for some
/// processors is a square.
fn size(
    config: &Document,
    key: &str,
    number_is_square: bool,
    reading: &mut Reading,
) -> Option<Resize> {
    let value = config.get(key);
    let pixels = |value: Option<&Value>| {
        NonZeroU32::new(u32::try_from(value?.as_u64()?).ok()?).filter(|side| side.get() <= 16_384)
    };
    let read = match value {
        Some(Value::Object(sides)) => {
            match (pixels(sides.get("height")), pixels(sides.get("width"))) {
                (Some(height), Some(width)) => Some(Resize::Exact { height, width }),
                _ => pixels(sides.get("shortest_edge")).map(Resize::Shorter),
            }
        }
        number => pixels(number).map(|side| match number_is_square {
            true => Resize::Exact { height: side, width: side },
            false => Resize::Shorter(side),
        }),
    };
    if read.is_none() {
        let rule = "must be a height and a width, a shortest_edge, or a number of pixels";
        reading.error(At(FILE, key, value), rule, REMEDY);
    }
    read
}

/// Reads a number for each channel.
fn numbers(config: &Document, key: &str, reading: &mut Reading) -> Option<Vec<f32>> {
    let items = config.get(key).and_then(Value::as_array);
    let numbers: Option<Vec<f32>> =
        items.and_then(|items| items.iter().map(|item| Some(item.as_f64()? as f32)).collect());
    let numbers = numbers.filter(|numbers| matches!(numbers.len(), 1 | 3));
    if numbers.is_none() {
        let rule = "must be a number for each of one or three channels";
        reading.error(At(FILE, key, config.get(key)), rule, REMEDY);
    }
    numbers
}

/// Reads Pillow's number of a filter.
fn filter(config: &Document, reading: &mut Reading) -> Option<ResizeFilter> {
    let Some(value) = config.get("resample") else { return Some(ResizeFilter::Bilinear) };
    let filters = [
        ResizeFilter::Nearest,
        ResizeFilter::Lanczos,
        ResizeFilter::Bilinear,
        ResizeFilter::Bicubic,
        ResizeFilter::Box,
        ResizeFilter::Hamming,
    ];
    let index = value.as_u64().and_then(|number| usize::try_from(number).ok());
    let filter = index.and_then(|index| filters.get(index)).copied();
    if filter.is_none() {
        let rule = "must be the number of one of Pillow's filters, 0 to 5";
        reading.error(At(FILE, "resample", Some(value)), rule, REMEDY);
    }
    filter
}
