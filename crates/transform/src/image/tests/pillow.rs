//! The whole way of a picture against Pillow (`testdata/make_image_answers.py`).
//!
//! How far a value may be from Pillow's, in steps of 255 and before it is scaled, at most and in the
//! mean over a picture:
//!
//! | file | decoded | resized |
//! |---|---|---|
//! | PNG, WebP | 0 | 1, 0.15: weights have 15 bits in place of 22, and one step is the other way round |
//! | JPEG, colours in full | 2, 0.25: the standard leaves the rounding of the transform open | the same |
//! | JPEG, colours halved | 8, 0.5: and how they are widened | the same |
//!
//! The last column and row of a JPEG with halved colours may differ by 45, where the width or height
//! is not a multiple of 16: what an encoder put into the rest of the block is averaged in, and libjpeg
//! leaves it out. Pictures of 1 to 4 pixels are nothing but such edges.
//!
//! The box filter has an edge itself: where it falls exactly on the middle of a pixel, the rounding of
//! either library decides whether that pixel counts. No case here is such.

use outhaul_types::{Channels, Resize, ResizeFilter, Shape};
use serde_json::Value;

use super::*;
use crate::image::decode::decode;

/// One comparison, from `cases.json`.
struct Case {
    file: String,
    spec: ImageInput,
    answer: String,
}

impl Case {
    fn all() -> Vec<Case> {
        let cases: Value = serde_json::from_slice(&file("cases.json")).unwrap();
        cases["cases"].as_array().unwrap().iter().map(Case::read).collect()
    }

    fn read(case: &Value) -> Case {
        let text = |key: &str| case[key].as_str().unwrap();
        let number = |value: &Value| side(value.as_u64().unwrap().try_into().unwrap());
        let sides = |value: &Value| Some((number(value.get(0)?), number(value.get(1)?)));
        let resize = match sides(&case["resize"]) {
            Some((height, width)) => Resize::Exact { height, width },
            None => Resize::Shorter(number(&case["resize"])),
        };
        let filter = match text("filter") {
            "nearest" => ResizeFilter::Nearest,
            "box" => ResizeFilter::Box,
            "bilinear" => ResizeFilter::Bilinear,
            "hamming" => ResizeFilter::Hamming,
            "bicubic" => ResizeFilter::Bicubic,
            "lanczos" => ResizeFilter::Lanczos,
            other => panic!("{other}"),
        };
        let channels = match text("mode") {
            "RGB" => Channels::Rgb,
            "L" => Channels::Gray,
            other => panic!("{other}"),
        };
        let spec = ImageInput {
            resize: Some(resize),
            crop: sides(&case["crop"]),
            filter,
            channels,
            layout: Some(ImageLayout::Nhwc),
            ..ImageInput::default()
        };
        Case { file: text("file").to_owned(), spec, answer: text("answer").to_owned() }
    }

    /// Returns the largest and the mean difference.
    fn differences(&self) -> (u8, f64) {
        let answer = file(&format!("answers/{}", self.answer));
        let decoder = ::png::Decoder::new(std::io::Cursor::new(answer));
        let mut reader = decoder.read_info().unwrap();
        let mut pillows = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pillows).unwrap();

        let inner = model(DataType::Uint8, &[None; 4]);
        let parts = prepare(&self.spec, &inner, &[&file(&self.file)], Grouping::Together).unwrap();
        let [(rows, tensor)] = parts.as_slice() else { panic!("{} parts", parts.len()) };
        assert_eq!(rows, &[0]);
        let (height, width) = (frame.height as usize, frame.width as usize);
        let shape = Shape::from([1, height, width, self.spec.channels.count()]);
        assert_eq!(tensor.shape(), &shape, "{} {:?}", self.file, self.spec);
        let ours = tensor.as_bytes().unwrap();
        assert_eq!(ours.len(), pillows.len());
        let differences = ours.iter().zip(&pillows).map(|(ours, pillows)| ours.abs_diff(*pillows));
        let largest = differences.clone().max().unwrap();
        (largest, differences.map(f64::from).sum::<f64>() / ours.len() as f64)
    }

    /// Whether the size stays what it was.
    fn is_only_decoded(&self) -> bool {
        let picture = decode(&file(&self.file), 1_000_000).unwrap();
        let (height, width) = (side(picture.height), side(picture.width));
        self.spec.resize == Some(Resize::Exact { height, width })
    }

    fn tolerance(&self) -> (u8, f64) {
        match self.file.as_str() {
            "jpeg_edge.jpg" | "jpeg_tiny.jpg" => (45, 1.0),
            "jpeg_444.jpg"
            | "jpeg_grey.jpg"
            | "jpeg_grey_progressive.jpg"
            | "jpeg_rgb.jpg"
            | "jpeg_cmyk.jpg"
            | "turned_6.jpg" => (2, 0.25),
            name if name.ends_with(".jpg") => (8, 0.5),
            _ if self.is_only_decoded() || self.spec.filter == ResizeFilter::Nearest => (0, 0.0),
            _ => (1, 0.15),
        }
    }
}

#[test]
fn pictures_become_what_pillow_makes_of_them() {
    let cases = Case::all();
    assert!(cases.len() > 90, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let ((largest, mean), (most, most_mean)) = (case.differences(), case.tolerance());
        if largest > most || mean > most_mean {
            let Case { file, spec: ImageInput { resize, crop, filter, channels, .. }, .. } = case;
            failures.push(format!(
                "{file} {channels:?} {resize:?} {crop:?} {filter:?}: {largest} (most {most}), mean \
                 {mean:.3} (most {most_mean})"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
