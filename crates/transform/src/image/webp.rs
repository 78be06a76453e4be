//! WebP: lossy and lossless, with and without alpha; of an animation the first frame.
//!
//! The decoder believes the outer header until it has decoded, while the data has a size of its own.
//! So the first picture's own header is found here, and must agree.

use std::io::Cursor;

use image_webp::WebPDecoder;

use super::decode::{Data, Format, Picture, Refused, Size};
use super::exif::Orientation;

pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<(Picture, Orientation), Refused> {
    let header = Header::read(file)?;
    let (canvas, frame) = (header.canvas, header.frame);
    let bytes = header.data_bytes;
    Format::WebP.measure(canvas, max_pixels, Data { bytes, least_bits: 0 })?;
    Format::WebP.measure(frame, max_pixels, Data { bytes, least_bits: header.least_bits })?;
    let fits = match header.animated {
        true => frame.width <= canvas.width && frame.height <= canvas.height,
        false => frame == canvas,
    };
    if !fits {
        return Err(Format::WebP.damaged("its headers contradict each other"));
    }

    let damaged = |error| Format::WebP.damaged(error);
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(damaged)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let Size { width, height } = canvas;
    let bytes = canvas.pixels() as usize * channels;
    if decoder.dimensions() != (width, height) || decoder.output_buffer_size() != Some(bytes) {
        return Err(Format::WebP.damaged("its headers contradict each other"));
    }
    let mut pixels = vec![0; bytes];
    decoder.read_image(&mut pixels).map_err(damaged)?;
    Ok((Picture { width, height, channels, pixels }, header.orientation))
}

const CUT_OFF: Refused = Refused::CutOff { format: Format::WebP };

/// What the chunks say before anything is decoded.
struct Header {
    /// The size of the whole.
    canvas: Size,
    /// The size of the first picture.
    frame: Size,
    /// Of the first picture's data.
    data_bytes: usize,
    least_bits: u64,
    animated: bool,
    orientation: Orientation,
}

/// The first picture's own header.
struct Frame {
    size: Size,
    data_bytes: usize,
    least_bits: u64,
}

impl Header {
    fn read(file: &[u8]) -> Result<Header, Refused> {
        let (mut extension, mut still, mut moving) = (None, None, None);
        let mut orientation = Orientation::default();
        for chunk in chunks(file.get(12..).unwrap_or_default()) {
            let (kind, data) = chunk.ok_or(CUT_OFF)?;
            match kind {
                b"VP8X" if extension.is_none() => {
                    extension = Some(extended(data).ok_or(CUT_OFF)?);
                }
                b"VP8 " | b"VP8L" if still.is_none() => still = Some(Frame::of(kind, data)?),
                b"ANMF" if moving.is_none() => moving = Some(Frame::of_animation(data)?),
                b"EXIF" => orientation = Orientation::of(data),
                _ => {}
            }
        }
        let animated = matches!(extension, Some((_, true)));
        let Frame { size, data_bytes, least_bits } =
            if animated { moving } else { still }.ok_or(CUT_OFF)?;
        let canvas = extension.map_or(size, |(canvas, _)| canvas);
        Ok(Header { canvas, frame: size, data_bytes, least_bits, animated, orientation })
    }
}

/// Returns the canvas of an extended file, and whether it is animated.
fn extended(data: &[u8]) -> Option<(Size, bool)> {
    const ANIMATION: u8 = 1 << 1;
    let &[flags, _, _, _, w0, w1, w2, h0, h1, h2] = data.first_chunk()?;
    let width = u32::from_le_bytes([w0, w1, w2, 0]) + 1;
    let height = u32::from_le_bytes([h0, h1, h2, 0]) + 1;
    Some((Size { width, height }, flags & ANIMATION != 0))
}

impl Frame {
    /// Reads the frame of an animation: its place, size, duration and flags take 16 bytes, then comes
    /// the picture, or its alpha and the picture. The decoder takes what follows alpha for a picture
    /// whatever it is called.
    fn of_animation(data: &[u8]) -> Result<Frame, Refused> {
        let mut chunks = chunks(data.get(16..).unwrap_or_default());
        let (mut kind, mut data) = chunks.next().flatten().ok_or(CUT_OFF)?;
        if kind == b"ALPH" {
            (kind, data) = chunks.next().flatten().ok_or(CUT_OFF)?;
        }
        match kind {
            b"VP8 " | b"VP8L" => Frame::of(kind, data),
            _ => Err(Format::WebP.damaged("its first frame holds no picture")),
        }
    }

    fn of(kind: &[u8; 4], data: &[u8]) -> Result<Frame, Refused> {
        let size = match kind {
            b"VP8L" => Self::lossless_size(data),
            _ => Self::lossy_size(data),
        };
        let size = size.ok_or_else(|| Format::WebP.damaged("its data has no header"))?;
        let least_bits = match kind {
            // A single colour needs no data at all.
            b"VP8L" => 0,
            // The modes of a square of 16 x 16 pixels take 1.6 bits and more (RFC 6386, 11.2).
            _ => size.squares(16),
        };
        Ok(Frame { size, data_bytes: data.len(), least_bits })
    }

    /// RFC 6386, 9.1: a tag of three bytes, a mark of three, then both sides in 14 bits each.
    fn lossy_size(data: &[u8]) -> Option<Size> {
        let &[_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = data.first_chunk()? else {
            return None;
        };
        let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
        Some(Size { width: side(w0, w1), height: side(h0, h1) })
    }

    /// RFC 9649, 3.4: a mark, then both sides less one in 14 bits each.
    fn lossless_size(data: &[u8]) -> Option<Size> {
        let &[0x2f, b0, b1, b2, b3] = data.first_chunk()? else {
            return None;
        };
        let bits = u32::from_le_bytes([b0, b1, b2, b3]);
        Some(Size { width: (bits & 0x3fff) + 1, height: (bits >> 14 & 0x3fff) + 1 })
    }
}

/// The chunks: kind (4 bytes), length (4), data, a byte of filling after an odd length. `None` is one
/// that is cut off, and the last; fewer than 8 bytes at the end are nothing.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Option<(&[u8; 4], &[u8])>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else {
            rest = &[];
            return Some(None);
        };
        rest = after.get(length & 1..).unwrap_or_default();
        Some(Some((kind, data)))
    })
}
