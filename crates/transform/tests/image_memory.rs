//! What a picture may make the decoders ask for, counted by the allocator.
//!
//! The bound is not what is held at once but the sum of all that was asked for, so that nothing can
//! hide behind an early release.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::num::NonZeroU32;
use std::path::Path;

use outhaul_transform::{Grouping, Transform};
use outhaul_types::{
    BoundInputs, DataType, Dimension, ImageInput, InputTransform, ModelSignature, Resize,
    ShapePattern, Tensor, TensorSpec, TransformSpec,
};
use proptest::prelude::*;
use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A decoder's own tables, texts of errors, the tensor of 8 x 8 pixels.
const BESIDE_PIXELS: u64 = 1 << 20;

/// A lossy WebP says in 24 bits how long a part of its data is, and is believed until it is read.
const ONE_PARTITION: u64 = 1 << 24;

/// Coefficients, planes, alpha, canvas, the pixels themselves, and what lies between two directions.
const BYTES_A_PIXEL: u64 = 40;

fn transform(max_pixels: u64) -> Transform {
    let side = NonZeroU32::new(8).unwrap();
    let resize = Some(Resize::Exact { height: side, width: side });
    let image = ImageInput { resize, max_pixels, ..ImageInput::default() };
    let dimensions = [Dimension::Any, Dimension::Fixed(3), Dimension::Any, Dimension::Any];
    let pixels = TensorSpec {
        name: "pixels".into(),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked(dimensions),
        optional: false,
    };
    let inner = ModelSignature { inputs: vec![pixels], outputs: Vec::new() };
    let spec = TransformSpec { input: Some(InputTransform::Image(image)), output: None };
    Transform::build(&spec, &inner).unwrap().unwrap()
}

/// Returns the bytes that were asked for, and the error if there was one.
fn asked_for(transform: &Transform, file: &[u8]) -> (u64, Option<String>) {
    let image = Tensor::from_strings([1], [file].into_iter().collect()).unwrap();
    let inputs = BoundInputs::from_elem(Some(image), 1);
    let counter: ThreadLocal<u64> = allocatedp::read().unwrap();
    let before = counter.get();
    let prepared = transform.prepare(&inputs, Grouping::Alone);
    let asked = counter.get() - before;
    (asked, prepared.err().map(|error| error.to_string()))
}

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/transform/image");
    std::fs::read(folder.join(name)).unwrap()
}

/// A PNG's header for RGB of 8 bits, and data that is none.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(width.to_be_bytes());
    png.extend(height.to_be_bytes());
    png.extend(b"\x08\x02\0\0\0....\0\0\x03\x84IDAT");
    png.resize(1000, 0x55);
    png
}

/// A JPEG's header for another size, and the data behind it cut to a kilobyte in all.
fn jpeg(name: &str, width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = file(name);
    let frame = jpeg.windows(2).position(|mark| mark == [0xff, 0xc0] || mark == [0xff, 0xc2]);
    let sides = frame.unwrap() + 5;
    jpeg[sides..sides + 2].copy_from_slice(&height.to_be_bytes());
    jpeg[sides + 2..sides + 4].copy_from_slice(&width.to_be_bytes());
    jpeg.truncate(998);
    jpeg.extend([0xff, 0xd9]);
    jpeg
}

/// A lossy WebP's header, and data that is none.
fn webp(width: u16, height: u16) -> Vec<u8> {
    let mut webp = b"RIFF\xe0\x03\0\0WEBPVP8 \xd4\x03\0\0\x10\0\0\x9d\x01\x2a".to_vec();
    webp.extend(width.to_le_bytes());
    webp.extend(height.to_le_bytes());
    webp.resize(1000, 0x55);
    webp
}

#[test]
fn a_header_of_100_megabytes_with_a_kilobyte_of_data_costs_nothing() {
    let transform = transform(ImageInput::DEFAULT_MAX_PIXELS);
    // 6000 x 5800 pixels are 104 MB in RGB, and within the pixels that are allowed.
    let files = [
        ("png", png(6000, 5800)),
        ("jpeg", jpeg("jpeg_420.jpg", 6000, 5800)),
        ("progressive jpeg", jpeg("jpeg_progressive.jpg", 6000, 5800)),
        ("webp", webp(6000, 5800)),
    ];
    for (name, file) in files {
        assert_eq!(file.len(), 1000, "{name}");
        let (asked, error) = asked_for(&transform, &file);
        let error = error.unwrap();
        assert!(error.ends_with("that is cut off"), "{name}: {error}");
        assert!(asked < 64 << 10, "{name}: {asked} bytes were asked for");
    }
}

const FILES: [&str; 16] = [
    "jpeg_tiny.jpg",
    "jpeg_line.jpg",
    "jpeg_grey_progressive.jpg",
    "jpeg_progressive.jpg",
    "jpeg_cmyk.jpg",
    "jpeg_restart.jpg",
    "turned_5_420.jpg",
    "png_16bit_rgba.png",
    "png_interlaced.png",
    "png_animated.png",
    "png_palette_2bit.png",
    "webp_lossy_alpha.webp",
    "webp_lossless.webp",
    "webp_lossless_alpha.webp",
    "webp_animated.webp",
    "turned_8.webp",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_a_decoder_ask_for_more_than_the_pixels_allowed(
        name in prop::sample::select(&FILES[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        reach in prop::sample::select(vec![40_usize, 250, 1 << 20]),
    ) {
        const MAX_PIXELS: u64 = 10_000;
        let mut data = file(name);
        let reach = data.len().min(reach);
        for (place, byte) in changes {
            data[place.index(reach)] = byte;
        }
        let (asked, error) = asked_for(&transform(MAX_PIXELS), &data);
        let partition = if name.contains("webp_lossy") { ONE_PARTITION } else { 0 };
        let most = BESIDE_PIXELS + partition + BYTES_A_PIXEL * MAX_PIXELS;
        prop_assert!(asked <= most, "{} bytes for {}: {:?}", asked, name, error);
        let gave_up = error.is_some_and(|error| error.contains("gave up"));
        prop_assert!(!gave_up, "a decoder panicked on {}", name);
    }
}
