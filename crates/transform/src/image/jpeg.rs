//! JPEG: baseline and progressive, 8 bits, grey, YCbCr, RGB, CMYK and YCCK (the last two inverted, as
//! Adobe writes them and Pillow assumes).

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::decode::{Data, Format, MAX_SIDE, Picture, Refused, Size};
use super::exif::Orientation;

/// Scans of a progressive file; usual ones have 10. Each is a walk over the whole picture, whatever
/// its length.
const MAX_SCANS: usize = 64;

pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<(Picture, Orientation), Refused> {
    // Four bytes a pixel are faster to write and to resize than three. The decoder gives the fourth
    // for the usual colours alone, and chooses its ways when it reads the headers.
    let mut decoder = headers(file, ColorSpace::RGBA)?;
    let (colors, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::YCbCr) => (ColorSpace::RGBA, 4),
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => {
            decoder = headers(file, ColorSpace::RGB)?;
            (ColorSpace::RGB, 3)
        }
    };
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let sides = (u32::try_from(width), u32::try_from(height));
    let (Ok(width), Ok(height)) = sides else {
        return Err(Format::Jpeg.damaged("it has no size"));
    };
    let size = Size { width, height };
    let data = entropy_coded(file).ok_or(Refused::CutOff { format: Format::Jpeg })?;
    // One bit a block: the shortest code of a Huffman table, for the block's mean alone.
    let data = Data { bytes: data.len(), least_bits: size.squares(8) };
    Format::Jpeg.measure(size, max_pixels, data)?;

    let orientation = decoder.exif().map(|exif| Orientation::of(exif)).unwrap_or_default();
    // In the data nothing is forgiven, or what is missing would come out grey.
    let options = decoder.options().set_strict_mode(true).jpeg_set_out_colorspace(colors);
    decoder.set_options(options);
    let mut pixels = vec![0; size.pixels() as usize * channels];
    decoder.decode_into(&mut pixels).map_err(|error| Format::Jpeg.damaged(error))?;
    Ok((Picture { width, height, channels, pixels }, orientation))
}

/// Reads everything before the data. Cameras leave filling between headers, which is skipped.
fn headers(file: &[u8], colors: ColorSpace) -> Result<JpegDecoder<ZCursor<&[u8]>>, Refused> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(colors);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(|error| Format::Jpeg.damaged(error))?;
    Ok(decoder)
}

/// Returns what lies between the first start of a scan and the last end of an image; `None` where one
/// is missing. Inside the data an 0xff is followed by 0, so that the mark can be nothing else.
fn entropy_coded(file: &[u8]) -> Option<&[u8]> {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut at = 2;
    loop {
        at += file.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += file.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        let marker = file[at];
        // Filling, and marks that stand by themselves.
        if marker == 0 || marker == 1 || (0xd0..=0xd8).contains(&marker) {
            continue;
        }
        let length = u16::from_be_bytes(*file.get(at + 1..)?.first_chunk()?);
        at += 1 + usize::from(length);
        if marker == START_OF_SCAN {
            break;
        }
    }
    let data = file.get(at..)?;
    let end = data.windows(2).rposition(|pair| pair == END_OF_IMAGE)?;
    Some(&data[..end])
}
