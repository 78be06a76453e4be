//! What no picture is made of, each with its row.

use std::ops::Range;

use outhaul_types::Resize;
use proptest::prelude::*;

use super::*;
use crate::image::decode::{Format, decode_as};

/// Sends a good picture and a bad one, and returns the error.
fn refusal(spec: &ImageInput, bad: &[u8]) -> String {
    let inner = model(DataType::Fp32, &[None, Some(3), Some(8), Some(8)]);
    let good = file("png_grey.png");
    let files: [&[u8]; 2] = [&good, bad];
    match prepare(spec, &inner, &files, Grouping::Together) {
        Ok(_) => format!("{} bytes were accepted", bad.len()),
        Err(error) => error.to_string(),
    }
}

/// Returns the file with other bytes in one place.
fn with(name: &str, at: Range<usize>, bytes: &[u8]) -> Vec<u8> {
    let mut data = file(name);
    data.splice(at, bytes.iter().copied());
    data
}

/// Returns where these bytes are first.
fn place(name: &str, bytes: &[u8]) -> usize {
    file(name).windows(bytes.len()).position(|window| window == bytes).unwrap()
}

/// Returns a WebP of these chunks.
fn webp(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, data) in chunks {
        body.extend_from_slice(*kind);
        body.extend((data.len() as u32).to_le_bytes());
        body.extend_from_slice(data);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    let mut file = b"RIFF".to_vec();
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    file
}

/// A header of lossy data for 16383 x 16383 pixels, and a kilobyte that is none.
fn huge_lossy() -> Vec<u8> {
    let mut data = vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f];
    data.resize(1000, 0x55);
    data
}

/// A canvas of 8 x 8 pixels, animated or not.
fn canvas(animated: bool) -> [u8; 10] {
    [u8::from(animated) << 1, 0, 0, 0, 7, 0, 0, 7, 0, 0]
}

#[test]
fn what_is_no_picture_names_its_row() {
    let sof = place("jpeg_420.jpg", &[0xff, 0xc0]);
    let jpeg_sides = sof + 5..sof + 9;
    let png_sides = 16..24;
    let (huge, eight) = (huge_lossy(), canvas(false));
    let frame: Vec<u8> = [&[0; 6], &[7, 0, 0, 7, 0, 0, 0, 0, 0, 0][..], b"ALPH\0\0\0\0", b"XXXX"]
        .concat()
        .into_iter()
        .chain((huge.len() as u32).to_le_bytes())
        .chain(huge.clone())
        .collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "is empty"),
        (b"GIF89a\x01\0\x01\0".to_vec(), "is neither JPEG, PNG nor WebP"),
        (b"cat.jpg".to_vec(), "is neither JPEG, PNG nor WebP"),
        (b"RIFF\x24\0\0\0WAVEfmt ".to_vec(), "is neither JPEG, PNG nor WebP"),
        (
            with("jpeg_420.jpg", jpeg_sides.clone(), &[0x17, 0x70, 0x1f, 0x40]),
            "is a JPEG that is cut off",
        ),
        (
            with("jpeg_420.jpg", jpeg_sides.clone(), &[0xff, 0xff, 0xff, 0xff]),
            "is a JPEG of 65535 x 65535 pixels, more than the 50000000 allowed",
        ),
        (
            with("jpeg_420.jpg", jpeg_sides, &[0, 0, 0, 0]),
            "is a damaged JPEG: Image width or height is set to zero, cannot continue",
        ),
        (
            with("png_rgb.png", png_sides.clone(), &[0, 0, 0x17, 0x70, 0, 0, 0x17, 0x70]),
            "is a PNG that is cut off",
        ),
        (
            with("png_rgb.png", png_sides.clone(), &[0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10]),
            "is a PNG of 10000 x 10000 pixels, more than the 50000000 allowed",
        ),
        (
            with("png_rgb.png", png_sides.clone(), &[0, 1, 0, 0, 0, 0, 0, 1]),
            "is a PNG of 65536 x 1 pixels; no side may be longer than 65535",
        ),
        (
            with("png_rgb.png", png_sides, &[0, 0, 0, 0, 0, 0, 0, 1]),
            "is a damaged PNG: it has no pixels",
        ),
        (
            webp(&[(b"VP8 ", &huge)]),
            "is a WebP of 16383 x 16383 pixels, more than the 50000000 allowed",
        ),
        (
            webp(&[(b"VP8X", &eight), (b"VP8 ", &huge)]),
            "is a WebP of 16383 x 16383 pixels, more than the 50000000 allowed",
        ),
        (
            webp(&[(b"VP8X", &eight), (b"VP8L", &[0x2f, 0xff, 0xff, 0xff, 0x0f])]),
            "is a WebP of 16384 x 16384 pixels, more than the 50000000 allowed",
        ),
        (
            webp(&[(b"VP8X", &eight), (b"VP8L", &[0x2f, 8, 0x80, 0, 0])]),
            "is a damaged WebP: its headers contradict each other",
        ),
        (
            webp(&[(b"VP8X", &canvas(true)), (b"ANIM", &[0; 6]), (b"ANMF", &frame)]),
            "is a damaged WebP: its first frame holds no picture",
        ),
        (
            webp(&[(b"VP8X", &canvas(true)), (b"ANIM", &[0; 6]), (b"VP8 ", &huge)]),
            "is a WebP that is cut off",
        ),
        (webp(&[(b"VP8X", &eight)]), "is a WebP that is cut off"),
        (webp(&[(b"VP8L", b"")]), "is a damaged WebP: its data has no header"),
    ];
    for (bad, expected) in cases {
        assert_eq!(refusal(&ImageInput::default(), &bad), format!("row 1: 'image' {expected}"));
    }
}

#[test]
fn a_file_that_is_cut_off_is_never_taken_for_whole() {
    let names = [
        "jpeg_420.jpg",
        "jpeg_progressive.jpg",
        "jpeg_restart.jpg",
        "jpeg_grey.jpg",
        "png_rgb.png",
        "png_interlaced.png",
        "webp_lossy.webp",
        "webp_lossless.webp",
        "webp_animated.webp",
    ];
    for name in names {
        let whole = file(name);
        // Behind a PNG's pixels come a checksum and 12 bytes that say so; behind the first frame of an
        // animation comes another as large.
        let needed = match name {
            _ if name.ends_with(".png") => whole.len() - 16,
            "webp_animated.webp" => whole.len() / 2,
            _ => whole.len(),
        };
        for length in (0..needed).rev().step_by(needed.div_ceil(60)) {
            let refused = refusal(&ImageInput::default(), &whole[..length]);
            assert!(refused.starts_with("row 1: 'image' "), "{name}, {length} bytes: {refused}");
        }
    }
}

#[test]
fn the_limits_are_the_operators() {
    let spec = ImageInput { max_pixels: 45 * 35, ..ImageInput::default() };
    let inner = model(DataType::Fp32, &[None, Some(3), Some(8), Some(8)]);
    let picture = file("jpeg_420.jpg");
    assert!(prepare(&spec, &inner, &[&picture], Grouping::Alone).is_ok());
    let spec = ImageInput { max_pixels: 45 * 35 - 1, ..spec };
    let error = prepare(&spec, &inner, &[&picture], Grouping::Alone).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 0: 'image' is a JPEG of 45 x 35 pixels, more than the 1574 allowed"
    );
}

#[test]
fn what_cannot_be_cut_out_names_its_row() {
    let spec = ImageInput {
        resize: Some(Resize::Shorter(side(10))),
        crop: Some((side(12), side(10))),
        ..ImageInput::default()
    };
    let inner = model(DataType::Fp32, &[None, Some(3), None, None]);
    // Both are 24 pixels wide and 14 high, the second one once it is upright.
    let files = [file("turned_6.png"), file("turned_1.png")];
    let files: [&[u8]; 2] = [&files[0], &files[1]];
    let error = prepare(&spec, &inner, &files, Grouping::Together).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 1: 'image' has 24 x 14 pixels, and 12 x 10 cannot be cut out of the 10 x 17 (height x \
         width) that it is resized to"
    );
}

#[test]
fn small_files_do_not_become_gigabytes_of_tensors_at_once() {
    // The rows that the model's file fixes, the side of its pictures, and what is prepared in one go.
    let cases = [
        (None, 224, 16),
        (Some(1), 224, 16),
        (Some(3), 224, 15),
        (Some(20), 224, 20),
        (None, 2048, 5),
        (Some(2), 2048, 4),
        (None, 4096, 1),
    ];
    for (batch, pixels, expected) in cases {
        let inner = model(DataType::Fp32, &[batch, Some(3), Some(pixels), Some(pixels)]);
        let side = ImageSide::build(&ImageInput::default(), &inner).unwrap().side;
        assert_eq!(side.rows_in_one_go(), expected, "{batch:?} of {pixels} x {pixels}");
    }
}

/// Pictures small enough to be decoded thousands of times.
const SMALL: [&str; 14] = [
    "jpeg_tiny.jpg",
    "jpeg_line.jpg",
    "jpeg_grey_progressive.jpg",
    "jpeg_cmyk.jpg",
    "jpeg_restart.jpg",
    "turned_5_420.jpg",
    "png_16bit_rgba.png",
    "png_interlaced.png",
    "png_animated.png",
    "png_palette_2bit.png",
    "webp_lossy_alpha.webp",
    "webp_lossless.webp",
    "webp_animated.webp",
    "turned_8.webp",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The decoders are called without the net that catches their panics.
    #[test]
    fn no_file_makes_a_decoder_panic_or_give_too_much(
        name in prop::sample::select(&SMALL[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut data = file(name);
        let reach = if in_header { data.len().min(64) } else { data.len() };
        for (place, byte) in changes {
            data[place.index(reach)] = byte;
        }
        if let Some(length) = length {
            data.truncate(length.index(data.len()));
        }
        if let Ok(format) = Format::of(&data)
            && let Ok((picture, _)) = decode_as(format, &data, 10_000)
        {
            let pixels = picture.width as usize * picture.height as usize;
            prop_assert!(pixels <= 10_000);
            prop_assert_eq!(picture.pixels.len(), pixels * picture.channels);
        }
    }

    #[test]
    fn no_bytes_behind_a_mark_make_a_decoder_panic(
        mark in prop::sample::select(vec![
            &b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08",
            b"RIFF\xff\0\0\0WEBPVP8 ", b"RIFF\xff\0\0\0WEBPVP8L", b"RIFF\xff\0\0\0WEBPVP8X",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let data = [mark, &bytes].concat();
        if let Ok(format) = Format::of(&data) {
            let _refused = decode_as(format, &data, 10_000);
        }
    }
}
