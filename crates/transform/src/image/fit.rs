//! A declaration against the model's signature: which input is fed, and what it is fed.

use outhaul_types::{
    Channels, DataType, Dimension, ImageInput, ImageLayout, ModelSignature, Resize, ResizeFilter,
    ShapePattern, TensorSpec,
};

use super::resize::Geometry;
use crate::BuildError;

/// The most pixels that may be allowed. Decoders count the bytes of an animation's canvas in 32 bits.
const MOST_MAX_PIXELS: u64 = 1_000_000_000;

/// What is known of every request before it comes.
pub(super) struct Fit {
    /// How many inputs the model has.
    pub(super) inputs: usize,
    /// Which of them is fed.
    pub(super) index: usize,
    /// The rows of a run, where the model's file fixes them.
    pub(super) fixed_batch: Option<usize>,
    pub(super) geometry: Geometry,
    pub(super) filter: ResizeFilter,
    pub(super) channels: Channels,
    pub(super) layout: ImageLayout,
    pub(super) max_pixels: u64,
}

/// The sizes that a model's file fixes.
#[derive(Clone, Copy)]
struct Fixed {
    channels: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
}

impl Fit {
    /// Returns the fit, and the type of the input that is fed.
    pub(super) fn new(
        spec: &ImageInput,
        inner: &ModelSignature,
    ) -> Result<(Fit, DataType), BuildError> {
        if spec.max_pixels == 0 || spec.max_pixels > MOST_MAX_PIXELS {
            let problem = format!("must be 1 to {MOST_MAX_PIXELS}, is {}", spec.max_pixels);
            return Err(BuildError::Declared { key: "input.max_pixels", problem });
        }
        let index = fed(spec, inner)?;
        let input = &inner.inputs[index];
        for (other, tensor) in inner.inputs.iter().enumerate() {
            if other != index && !tensor.optional {
                return Err(unfit(tensor, "is needed too, and a picture cannot fill it"));
            }
        }
        let dimensions = dimensions(input)?;
        let layout = layout(spec, input, dimensions)?;
        let size = |axis: usize| dimensions.and_then(|dimensions| dimensions[axis].size());
        let fixed = match layout {
            ImageLayout::Nchw => Fixed { channels: size(1), height: size(2), width: size(3) },
            ImageLayout::Nhwc => Fixed { channels: size(3), height: size(1), width: size(2) },
        };
        if let Some(channels) = fixed.channels.filter(|&size| size != spec.channels.count()) {
            let count = spec.channels.count();
            let problem =
                format!("give {count} where '{}' takes {channels}: {}", input.name, input.shape);
            return Err(BuildError::Declared { key: "input.channels", problem });
        }
        let fit = Fit {
            inputs: inner.inputs.len(),
            index,
            fixed_batch: size(0),
            geometry: geometry(spec, input, fixed)?,
            filter: spec.filter,
            channels: spec.channels,
            layout,
            max_pixels: spec.max_pixels,
        };
        Ok((fit, input.data_type))
    }
}

fn unfit(input: &TensorSpec, problem: &str) -> BuildError {
    BuildError::Unfit {
        key: "input.input",
        name: input.name.clone(),
        data_type: input.data_type,
        shape: input.shape.clone(),
        problem: problem.to_owned(),
    }
}

/// Returns which input is fed: the one that is named, else the only one that may have four dimensions.
fn fed(spec: &ImageInput, inner: &ModelSignature) -> Result<usize, BuildError> {
    let names = || {
        let names: Vec<String> =
            inner.inputs.iter().map(|input| format!("'{}'", input.name)).collect();
        if names.is_empty() { "no inputs".to_owned() } else { names.join(", ") }
    };
    if let Some(name) = &spec.input {
        return inner.input_index(name).ok_or_else(|| BuildError::Unknown {
            key: "input.input",
            name: name.clone(),
            expected: names(),
        });
    }
    let may_be_fed = |input: &TensorSpec| match &input.shape {
        ShapePattern::AnyRank => true,
        ShapePattern::Ranked(dimensions) => dimensions.len() == 4,
    };
    let mut candidates = (0..inner.inputs.len()).filter(|&at| may_be_fed(&inner.inputs[at]));
    match (candidates.next(), candidates.next(), inner.inputs.as_slice()) {
        (Some(only), None, _) => Ok(only),
        // The error of a single input says more than that it is none of those sought.
        (None, _, [_]) => Ok(0),
        (first, ..) => {
            let which = if first.is_some() { "several inputs" } else { "no input" };
            let problem = format!(
                "must name the one that takes pictures: the model has {which} of four dimensions \
                 among {}",
                names()
            );
            Err(BuildError::Declared { key: "input.input", problem })
        }
    }
}

/// Returns the four dimensions, `None` where the model's file says nothing of them.
fn dimensions(input: &TensorSpec) -> Result<Option<&[Dimension; 4]>, BuildError> {
    let ShapePattern::Ranked(dimensions) = &input.shape else {
        return Ok(None);
    };
    if let Ok(dimensions) = dimensions.as_slice().try_into() {
        return Ok(Some(dimensions));
    }
    Err(unfit(
        input,
        match dimensions.len() {
            3 => {
                "has no dimension for the batch: export it as [batch, channels, height, width] or \
                 [batch, height, width, channels]"
            }
            _ => "is neither [batch, channels, height, width] nor [batch, height, width, channels]",
        },
    ))
}

/// Returns the declared layout, else the one whose channels are 1 or 3 in the model's file.
fn layout(
    spec: &ImageInput,
    input: &TensorSpec,
    dimensions: Option<&[Dimension; 4]>,
) -> Result<ImageLayout, BuildError> {
    if let Some(layout) = spec.layout {
        return Ok(layout);
    }
    let size = |axis: usize| dimensions.and_then(|dimensions| dimensions[axis].size());
    let own = |size: Option<usize>| size == Some(spec.channels.count());
    let usual = |size: Option<usize>| matches!(size, Some(1 | 3));
    let (first, last) = (size(1), size(3));
    match (own(first), own(last), usual(first), usual(last)) {
        (true, false, ..) | (false, false, true, false) => Ok(ImageLayout::Nchw),
        (false, true, ..) | (false, false, false, true) => Ok(ImageLayout::Nhwc),
        _ => {
            let problem = format!(
                "must be declared, 'nchw' or 'nhwc': the shape of '{}', {}, does not tell which \
                 dimension is the channels",
                input.name, input.shape
            );
            Err(BuildError::Declared { key: "input.layout", problem })
        }
    }
}

/// Returns how pictures get the size that the model takes, having checked that it is one.
fn geometry(spec: &ImageInput, input: &TensorSpec, fixed: Fixed) -> Result<Geometry, BuildError> {
    let declared = |key, problem| Err(BuildError::Declared { key, problem });
    let side = |size: usize| u32::try_from(size).ok().and_then(std::num::NonZeroU32::new);
    let resize = match (spec.resize, fixed.height.and_then(side), fixed.width.and_then(side)) {
        (Some(resize), ..) => resize,
        (None, Some(height), Some(width)) if spec.crop.is_none() => Resize::Exact { height, width },
        (None, Some(_), Some(_)) => {
            let problem = "must be declared where input.crop is: without it pictures are resized to \
                           the model's own size, and nothing is left to cut";
            return declared("input.resize", problem.to_owned());
        }
        (None, ..) => {
            let problem = format!(
                "must be declared: the model's file does not fix height and width of '{}', {}",
                input.name, input.shape
            );
            return declared("input.resize", problem);
        }
    };
    if let Some((height, width)) = spec.crop {
        let impossible = match resize {
            Resize::Exact { height: from_height, width: from_width } => {
                height > from_height || width > from_width
            }
            Resize::Shorter(shorter) => height.min(width) > shorter,
        };
        if impossible {
            let problem =
                format!("{height} x {width} cannot be cut out of what input.resize leaves");
            return declared("input.crop", problem);
        }
    }
    let Some(geometry) = Geometry::new(resize, spec.crop) else {
        let problem = "must be declared where input.resize gives the shorter side alone: all rows of a \
                       model have one size";
        return declared("input.crop", problem.to_owned());
    };
    let (height, width) = geometry.size();
    let agrees = |fixed: Option<usize>, size: u32| fixed.is_none_or(|fixed| fixed == size as usize);
    if !agrees(fixed.height, height) || !agrees(fixed.width, width) {
        let key = if spec.crop.is_some() { "input.crop" } else { "input.resize" };
        let problem = format!(
            "gives {height} x {width} pixels (height x width), which does not fit '{}', {}",
            input.name, input.shape
        );
        return declared(key, problem);
    }
    Ok(geometry)
}
