//! Pixels to the values that the model takes, in its layout.
//!
//! A pixel has one of 256 values, so every value that a channel can become is computed once, when
//! the version is loaded, in FP64 and rounded once.

use half::{bf16, f16};
use outhaul_types::{Channels, DataType, Element, ImageInput, ImageLayout, TensorSpec};

use super::decode::Picture;
use crate::BuildError;

/// What each of the 256 values becomes, for each channel in the model's order.
pub(super) type Table<T> = Vec<[T; 256]>;

/// The tables in the type of the model's input.
pub(super) enum Tables {
    Fp32(Table<f32>),
    Fp16(Table<f16>),
    Bf16(Table<bf16>),
    /// The pixels as they are.
    Uint8(Table<u8>),
}

impl Tables {
    pub(super) fn new(
        spec: &ImageInput,
        data_type: DataType,
        input: &TensorSpec,
    ) -> Result<Self, BuildError> {
        let values = values(spec)?;
        Ok(match data_type {
            DataType::Fp32 => Tables::Fp32(table(&values, |value| value as f32)),
            DataType::Fp16 => Tables::Fp16(table(&values, f16::from_f64)),
            DataType::Bf16 => Tables::Bf16(table(&values, bf16::from_f64)),
            DataType::Uint8 => Tables::Uint8(bytes(spec, input)?),
            _ => {
                return Err(BuildError::Unfit {
                    key: "input.input",
                    name: input.name.clone(),
                    data_type,
                    shape: input.shape.clone(),
                    problem: "a picture cannot fill: FP32, FP16, BF16 and UINT8 can be".to_owned(),
                });
            }
        })
    }

    /// Returns the bytes of an element.
    pub(super) fn element_size(&self) -> usize {
        match self {
            Tables::Fp32(_) => 4,
            Tables::Fp16(_) | Tables::Bf16(_) => 2,
            Tables::Uint8(_) => 1,
        }
    }
}

/// `(value * scale - mean) / std` for each channel.
fn values(spec: &ImageInput) -> Result<Vec<[f64; 256]>, BuildError> {
    let declared = |key, problem: String| Err(BuildError::Declared { key, problem });
    if !spec.scale.is_finite() || spec.scale == 0.0 {
        return declared(
            "input.scale",
            format!("must be a number other than 0, is {}", spec.scale),
        );
    }
    let count = spec.channels.count();
    for (key, numbers) in [("input.mean", &spec.mean), ("input.std", &spec.std)] {
        if !numbers.is_empty() && numbers.len() != count {
            let given = numbers.len();
            return declared(key, format!("has {given} numbers, and there are {count} channels"));
        }
        if numbers.iter().any(|number| !number.is_finite()) {
            return declared(key, "must be finite".to_owned());
        }
    }
    if spec.std.contains(&0.0) {
        return declared("input.std", "must not be 0".to_owned());
    }
    // The default stands for the fraction, not for the FP32 number next to it.
    let usual = spec.scale == ImageInput::default().scale;
    let scale = if usual { 1.0 / 255.0 } else { f64::from(spec.scale) };
    let of_channel = |channel: usize| {
        let mean = spec.mean.get(channel).copied().map_or(0.0, f64::from);
        let std = spec.std.get(channel).copied().map_or(1.0, f64::from);
        std::array::from_fn(|value| (value as f64 * scale - mean) / std)
    };
    Ok((0..count).map(of_channel).collect())
}

fn table<T>(values: &[[f64; 256]], round: impl Fn(f64) -> T) -> Table<T> {
    values.iter().map(|channel| channel.map(&round)).collect()
}

/// Bytes are not normalised: nothing between 0 and 1 fits.
fn bytes(spec: &ImageInput, input: &TensorSpec) -> Result<Table<u8>, BuildError> {
    let name = &input.name;
    let declared = [
        ("input.mean", spec.mean.is_empty()),
        ("input.std", spec.std.is_empty()),
        // The default cannot be told from 1/255 that somebody wrote, and neither can be meant.
        ("input.scale", spec.scale == 1.0 || spec.scale == ImageInput::default().scale),
    ];
    for (key, absent) in declared {
        if !absent {
            let problem = format!("cannot be: '{name}' is UINT8 and takes pixels as they are");
            return Err(BuildError::Declared { key, problem });
        }
    }
    Ok(vec![std::array::from_fn(|value| value as u8); spec.channels.count()])
}

/// Writes pictures one after the other.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a, T> {
    pub(super) channels: Channels,
    pub(super) layout: ImageLayout,
    pub(super) table: &'a Table<T>,
}

impl<T: Element> Writer<'_, T> {
    /// Makes a picture grey where the model wants that: before it is resized, as Pillow users do.
    pub(super) fn prepare(&self, picture: Picture) -> Picture {
        match (self.channels, picture.channels) {
            (Channels::Gray, 3) => grey::<3>(&picture),
            (Channels::Gray, 4) => grey::<4>(&picture),
            _ => picture,
        }
    }

    /// Appends one row of the tensor.
    pub(super) fn write(&self, picture: &Picture, elements: &mut Vec<T>) {
        match picture.channels {
            1 => self.write_from::<1>(picture, elements),
            2 => self.write_from::<2>(picture, elements),
            3 => self.write_from::<3>(picture, elements),
            _ => self.write_from::<4>(picture, elements),
        }
    }

    fn write_from<const STORED: usize>(&self, picture: &Picture, elements: &mut Vec<T>) {
        let pixels = picture.pixels.as_chunks::<STORED>().0;
        match (self.layout, self.table.as_slice()) {
            (ImageLayout::Nhwc, [first, second, third]) => {
                let [one, two, three] = self.stored::<STORED>();
                elements.extend(pixels.iter().flat_map(|pixel| {
                    [
                        first[usize::from(pixel[one])],
                        second[usize::from(pixel[two])],
                        third[usize::from(pixel[three])],
                    ]
                }));
            }
            (_, planes) => {
                for (plane, channel) in planes.iter().zip(self.stored::<STORED>()) {
                    // A channel that is known while compiling halves the time.
                    match channel {
                        0 => extend::<STORED, 0, T>(elements, pixels, plane),
                        1 => extend::<STORED, 1, T>(elements, pixels, plane),
                        _ => extend::<STORED, 2, T>(elements, pixels, plane),
                    }
                }
            }
        }
    }

    /// Returns which stored channel each of the model's is.
    fn stored<const STORED: usize>(&self) -> [usize; 3] {
        match (STORED, self.channels) {
            (1 | 2, _) | (_, Channels::Gray) => [0, 0, 0],
            (_, Channels::Rgb) => [0, 1, 2],
            (_, Channels::Bgr) => [2, 1, 0],
        }
    }
}

fn extend<const STORED: usize, const CHANNEL: usize, T: Element>(
    elements: &mut Vec<T>,
    pixels: &[[u8; STORED]],
    plane: &[T; 256],
) {
    elements.extend(pixels.iter().map(|pixel| plane[usize::from(pixel[CHANNEL.min(STORED - 1)])]));
}

/// ITU-R 601-2 in Pillow's integers (`Image.convert("L")`, `L24` in `src/libImaging/Convert.c`).
fn grey<const STORED: usize>(picture: &Picture) -> Picture {
    let (colours, _) = picture.pixels.as_chunks::<STORED>();
    let luma = |pixel: &[u8; STORED]| {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
    };
    let pixels = colours.iter().map(luma).collect();
    Picture { width: picture.width, height: picture.height, channels: 1, pixels }
}
