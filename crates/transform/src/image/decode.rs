//! Files to pixels, and what is refused before it costs anything.
//!
//! Three things are measured before a picture's memory is asked for: its sides, its pixels, and
//! whether the file is long enough to hold that many pixels at all (the least that the format's own
//! coding can take for them). What is left to a decoder is damage inside the data.

use std::panic;

use super::exif::Orientation;
use super::{jpeg, orient, png, webp};

/// The longest side of a picture, which is JPEG's own limit. PNG's is 2^31, and what a resize needs
/// grows with a side, not with the pixels.
pub(super) const MAX_SIDE: u32 = 65_535;

/// Pixels of 8 bits a channel, row by row from the top, without gaps.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 1 is grey, 2 grey and alpha, 3 red, green and blue, 4 those and alpha.
    pub(super) channels: usize,
    /// `height * width * channels` bytes.
    pub(super) pixels: Vec<u8>,
}

/// Why a file is no picture that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("is empty")]
    Empty,
    #[error("is neither JPEG, PNG nor WebP")]
    Unknown,
    #[error("is a {format} of {width} x {height} pixels, more than the {max_pixels} allowed")]
    TooManyPixels { format: Format, width: u32, height: u32, max_pixels: u64 },
    #[error("is a {format} of {width} x {height} pixels; no side may be longer than {MAX_SIDE}")]
    TooLong { format: Format, width: u32, height: u32 },
    #[error("is a {format} that is cut off")]
    CutOff { format: Format },
    #[error("is a damaged {format}: {problem}")]
    Damaged { format: Format, problem: String },
    #[error("has {width} x {height} pixels, and {what}")]
    Misfit { width: u32, height: u32, what: String },
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
}

impl std::fmt::Display for Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
        })
    }
}

impl Format {
    /// Tells a file by its first bytes.
    pub(super) fn of(file: &[u8]) -> Result<Self, Refused> {
        match file {
            [] => Err(Refused::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Format::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
            _ => Err(Refused::Unknown),
        }
    }

    /// Says that a file of this format is damaged. A decoder's text may be of any length and form.
    pub(super) fn damaged(self, problem: impl std::fmt::Display) -> Refused {
        let problem = problem.to_string();
        let line =
            problem.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        Refused::Damaged { format: self, problem: line.trim().chars().take(160).collect() }
    }

    /// Checks a picture's size, and that `bits` bits of data can hold what takes at least
    /// `least_bits` of them.
    pub(super) fn measure(self, size: Size, max_pixels: u64, data: Data) -> Result<(), Refused> {
        let Size { width, height } = size;
        if width == 0 || height == 0 {
            return Err(self.damaged("it has no pixels"));
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(Refused::TooLong { format: self, width, height });
        }
        if size.pixels() > max_pixels {
            return Err(Refused::TooManyPixels { format: self, width, height, max_pixels });
        }
        if data.least_bits > (data.bytes as u64).saturating_mul(8) {
            return Err(Refused::CutOff { format: self });
        }
        Ok(())
    }
}

/// A picture's size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Size {
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Returns how many squares of this side cover the picture.
    pub(super) fn squares(self, side: u32) -> u64 {
        u64::from(self.width.div_ceil(side)) * u64::from(self.height.div_ceil(side))
    }
}

/// What a file has of compressed pixels, and what it must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) bytes: usize,
    /// No coder of the format can do with less.
    pub(super) least_bits: u64,
}

/// Decodes a file and turns it upright.
///
/// # Errors
///
/// Fails where it is none of the formats, too large, cut off or damaged.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Picture, Refused> {
    let format = Format::of(file)?;
    // The decoders are fuzzed by their authors and by our tests; should one panic all the same, it is
    // this row that gets an error and nobody else.
    let decoded = panic::catch_unwind(|| decode_as(format, file, max_pixels));
    let (picture, orientation) =
        decoded.unwrap_or_else(|_| Err(format.damaged("its decoder gave up")))?;
    Ok(orient::upright(picture, orientation))
}

pub(super) fn decode_as(
    format: Format,
    file: &[u8],
    max_pixels: u64,
) -> Result<(Picture, Orientation), Refused> {
    match format {
        Format::Jpeg => jpeg::decode(file, max_pixels),
        Format::Png => png::decode(file, max_pixels),
        Format::WebP => webp::decode(file, max_pixels),
    }
}
