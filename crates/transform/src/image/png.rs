//! PNG: every colour type and depth, interlaced or not; of an animation the picture that viewers
//! without animations show. Of 16 bits the upper 8 are kept.

use std::io::Cursor;

use ::png::{ColorType, Decoder, Limits, Transformations};

use super::decode::{Data, Format, Picture, Refused, Size};
use super::exif::Orientation;

/// The most that a run of zlib's data can be worth: 258 bytes for two bits.
const MOST_INFLATION: u64 = 1032;

/// What the decoder may hold beside the pixels: rows being unfiltered, and metadata.
const DECODER_BYTES: usize = 16 << 20;

pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<(Picture, Orientation), Refused> {
    let damaged = |error| Format::Png.damaged(error);
    let header = Header::read(file).ok_or(Refused::CutOff { format: Format::Png })?;
    let size = Size { width: header.width, height: header.height };
    let stored_bits = size.pixels().saturating_mul(header.bits_per_pixel);
    let data = Data { bytes: header.data_bytes, least_bits: stored_bits / MOST_INFLATION };
    Format::Png.measure(size, max_pixels, data)?;

    let limits = Limits { bytes: DECODER_BYTES };
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let channels = match reader.output_color_type().0 {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(Format::Png.damaged("it has no palette")),
    };
    let bytes = size.pixels() as usize * channels;
    if reader.output_buffer_size() != Some(bytes) {
        return Err(Format::Png.damaged("its headers contradict each other"));
    }
    let mut pixels = vec![0; bytes];
    let frame = reader.next_frame(&mut pixels).map_err(damaged)?;
    if (frame.width, frame.height) != (size.width, size.height) {
        return Err(Format::Png.damaged("its first frame does not cover it"));
    }
    let Size { width, height } = size;
    Ok((Picture { width, height, channels, pixels }, header.orientation))
}

/// What the chunks say before anything is decoded.
struct Header {
    width: u32,
    height: u32,
    bits_per_pixel: u64,
    /// Of all `IDAT` chunks.
    data_bytes: usize,
    orientation: Orientation,
}

impl Header {
    /// Walks the chunks, `None` where the first one is no whole header. What follows may be cut off:
    /// the decoder sees that.
    fn read(file: &[u8]) -> Option<Header> {
        let mut chunks = Chunks { rest: file.get(8..)? };
        let (kind, first) = chunks.next()?;
        let (b"IHDR", Some(&[w0, w1, w2, w3, h0, h1, h2, h3, depth, color_type])) =
            (kind, first.first_chunk())
        else {
            return None;
        };
        let samples = match color_type {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        };
        let mut header = Header {
            width: u32::from_be_bytes([w0, w1, w2, w3]),
            height: u32::from_be_bytes([h0, h1, h2, h3]),
            bits_per_pixel: u64::from(depth) * samples,
            data_bytes: 0,
            orientation: Orientation::default(),
        };
        for (kind, data) in chunks {
            match kind {
                b"IDAT" => header.data_bytes += data.len(),
                // Allowed on either side of the data.
                b"eXIf" => header.orientation = Orientation::of(data),
                b"IEND" => break,
                _ => {}
            }
        }
        Some(header)
    }
}

/// The chunks: length (4 bytes), kind (4), data, checksum (4). The last one may be cut off.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (data, rest) = rest.split_at(length.min(rest.len()));
        self.rest = rest.get(4..).unwrap_or_default();
        Some((kind, data))
    }
}
