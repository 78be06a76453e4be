//! Resizing and cutting out of the middle.
//!
//! Sizes and places are torchvision's `Resize` and `CenterCrop`, filters are Pillow's `Image.resize`
//! (whose filters widen with the scale when a picture gets smaller; torchvision calls that antialias).
//! Only what is left after the cut is computed: the filter reads the pixels around it all the same, so
//! that the result is the same, and the memory follows what is left.

use std::num::NonZeroU32;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use outhaul_types::{Resize, ResizeFilter};

use super::decode::{Picture, Refused};

/// How pictures get their size. It always ends in the same one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    resize: Resize,
    height: u32,
    width: u32,
}

/// What becomes of one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    /// The whole after resizing.
    whole: [u64; 2],
    /// Where in the whole the part that is kept begins.
    start: [u64; 2],
}

impl Geometry {
    /// `None` where the size depends on the picture.
    pub(super) fn new(resize: Resize, crop: Option<(NonZeroU32, NonZeroU32)>) -> Option<Self> {
        let (height, width) = match (crop, resize) {
            (Some(size), _) => size,
            (None, Resize::Exact { height, width }) => (height, width),
            (None, Resize::Shorter(_)) => return None,
        };
        Some(Geometry { resize, height: height.get(), width: width.get() })
    }

    /// Returns the height and width that every picture ends up with.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.height, self.width)
    }

    /// Places a picture of this size.
    fn frame(&self, picture: &Picture) -> Result<Frame, Refused> {
        let (height, width) = (u64::from(picture.height), u64::from(picture.width));
        let whole = match self.resize {
            Resize::Exact { height, width } => [height.get().into(), width.get().into()],
            Resize::Shorter(shorter) => {
                let shorter = u64::from(shorter.get());
                if width <= height {
                    [shorter * height / width, shorter]
                } else {
                    [shorter, shorter * width / height]
                }
            }
        };
        let kept = [u64::from(self.height), u64::from(self.width)];
        if whole[0] < kept[0] || whole[1] < kept[1] {
            let what = format!(
                "{} x {} cannot be cut out of the {} x {} (height x width) that it is resized to",
                kept[0], kept[1], whole[0], whole[1]
            );
            return Err(Refused::Misfit { width: picture.width, height: picture.height, what });
        }
        let start = [half_to_even(whole[0] - kept[0]), half_to_even(whole[1] - kept[1])];
        Ok(Frame { whole, start })
    }
}

/// Halves as Python's `round(length / 2)` does: what lies between two numbers goes to the even one.
fn half_to_even(length: u64) -> u64 {
    let half = length / 2;
    half + (length & half & 1)
}

/// Resizes one picture after the other.
pub(super) struct Resizing {
    pub(super) geometry: Geometry,
    pub(super) filter: ResizeFilter,
    /// The most pixels that a picture may have between the two directions.
    pub(super) max_pixels: u64,
    /// Keeps the memory it works in.
    pub(super) resizer: Resizer,
}

impl Resizing {
    /// Returns the picture in the geometry's size.
    pub(super) fn apply(&mut self, picture: Picture) -> Result<Picture, Refused> {
        let frame = self.geometry.frame(&picture)?;
        let (height, width) = self.geometry.size();
        let unchanged = [u64::from(height), u64::from(width)];
        if frame.whole == unchanged && (picture.height, picture.width) == (height, width) {
            return Ok(picture);
        }
        // Between the two directions lies a picture as wide as the one and as high as the other.
        let across = u64::from(picture.width) * u64::from(height);
        let down = u64::from(picture.height) * u64::from(width);
        if across.max(down) > self.max_pixels {
            let what = "is too long and narrow to be resized".to_owned();
            return Err(Refused::Misfit { width: picture.width, height: picture.height, what });
        }
        let pixels = match convolution(self.filter) {
            None => nearest(&picture, &frame, self.geometry),
            Some(filter) => self.convolved(&picture, &frame, filter)?,
        };
        Ok(Picture { width, height, channels: picture.channels, pixels })
    }

    fn convolved(
        &mut self,
        picture: &Picture,
        frame: &Frame,
        filter: FilterType,
    ) -> Result<Vec<u8>, Refused> {
        let (height, width) = self.geometry.size();
        let rows = frame.reaches(0, height, picture.height);
        let columns = frame.reaches(1, width, picture.width);
        // What these filters overshoot is cut off after the first direction, so that it matters which
        // one that is: Pillow goes along the rows first. The other filters never overshoot, and for
        // them the faster order differs by rounding alone.
        let overshoots = matches!(filter, FilterType::CatmullRom | FilterType::Lanczos3);
        if !overshoots {
            return self.convolve(picture, [rows, columns], [height, width], filter);
        }
        let all_rows = (0.0, f64::from(picture.height));
        let (tall, channels) = (picture.height, picture.channels);
        let pixels = self.convolve(picture, [all_rows, columns], [tall, width], filter)?;
        let between = Picture { width, height: tall, channels, pixels };
        self.convolve(&between, [rows, (0.0, f64::from(width))], [height, width], filter)
    }

    /// Resizes a part of a picture, rows first, to a height and width.
    fn convolve(
        &mut self,
        picture: &Picture,
        [(top, tall), (left, wide)]: [(f64, f64); 2],
        [height, width]: [u32; 2],
        filter: FilterType,
    ) -> Result<Vec<u8>, Refused> {
        let pixel_type = match picture.channels {
            1 => PixelType::U8,
            2 => PixelType::U8x2,
            3 => PixelType::U8x3,
            _ => PixelType::U8x4,
        };
        let misfit = |error: &dyn std::fmt::Display| Refused::Misfit {
            width: picture.width,
            height: picture.height,
            what: format!("cannot be resized: {error}"),
        };
        let source = ImageRef::new(picture.width, picture.height, &picture.pixels, pixel_type)
            .map_err(|error| misfit(&error))?;
        let mut target = Image::new(width, height, pixel_type);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .crop(left, top, wide, tall)
            // Colours are averaged as they are stored; alpha is dropped afterwards.
            .use_alpha(false);
        self.resizer.resize(&source, &mut target, &options).map_err(|error| misfit(&error))?;
        Ok(target.into_vec())
    }
}

impl Frame {
    /// Returns where the kept part begins and how far it reaches, along an axis and in pixels of the
    /// picture as it was.
    fn reaches(&self, axis: usize, kept: u32, size: u32) -> (f64, f64) {
        let size = f64::from(size);
        if self.whole[axis] == u64::from(kept) {
            return (0.0, size);
        }
        let scale = size / self.whole[axis] as f64;
        let start = self.start[axis] as f64 * scale;
        (start, (f64::from(kept) * scale).min(size - start))
    }

    /// Returns the pixel that each kept one is taken from, along an axis: the one under its middle.
    /// Pillow adds the steps up one by one, and so do we, since the sums round.
    fn taken(&self, axis: usize, kept: u32, size: u32) -> Vec<usize> {
        let step = f64::from(size) / self.whole[axis] as f64;
        let mut place = step * 0.5;
        let mut taken = Vec::with_capacity(kept as usize);
        for index in 0..self.start[axis] + u64::from(kept) {
            if index >= self.start[axis] {
                taken.push((place as usize).min(size as usize - 1));
            }
            place += step;
        }
        taken
    }
}

/// Returns what weighs the pixels, `None` where one is taken as it is.
fn convolution(filter: ResizeFilter) -> Option<FilterType> {
    match filter {
        ResizeFilter::Nearest => None,
        ResizeFilter::Box => Some(FilterType::Box),
        ResizeFilter::Bilinear => Some(FilterType::Bilinear),
        ResizeFilter::Hamming => Some(FilterType::Hamming),
        ResizeFilter::Bicubic => Some(FilterType::CatmullRom),
        ResizeFilter::Lanczos => Some(FilterType::Lanczos3),
    }
}

fn nearest(picture: &Picture, frame: &Frame, geometry: Geometry) -> Vec<u8> {
    let (height, width) = geometry.size();
    let (channels, stride) = (picture.channels, picture.width as usize * picture.channels);
    let columns = frame.taken(1, width, picture.width);
    let mut pixels = Vec::with_capacity(height as usize * width as usize * channels);
    for row in frame.taken(0, height, picture.height) {
        let line = &picture.pixels[row * stride..][..stride];
        for &column in &columns {
            pixels.extend_from_slice(&line[column * channels..][..channels]);
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(size: u32) -> NonZeroU32 {
        NonZeroU32::new(size).unwrap()
    }

    fn picture(width: u32, height: u32) -> Picture {
        Picture { width, height, channels: 1, pixels: vec![0; width as usize * height as usize] }
    }

    #[test]
    fn sizes_and_places_are_those_of_torchvision() {
        // The whole after resizing and where the cut begins, height first.
        struct Case(u32, (u32, u32), (u32, u32), [u64; 2], [u64; 2]);
        let cases = [
            Case(256, (640, 480), (224, 224), [256, 341], [16, 58]),
            Case(256, (480, 640), (224, 224), [341, 256], [58, 16]),
            Case(256, (1000, 999), (224, 224), [256, 256], [16, 16]),
            Case(10, (31, 10), (7, 8), [10, 31], [2, 12]),
            Case(10, (10, 10), (9, 5), [10, 10], [0, 2]),
            Case(5, (1, 65535), (5, 5), [327_675, 5], [163_835, 0]),
        ];
        for Case(shorter, (width, height), (tall, wide), whole, start) in cases {
            let resize = Resize::Shorter(side(shorter));
            let geometry = Geometry::new(resize, Some((side(tall), side(wide)))).unwrap();
            let frame = geometry.frame(&picture(width, height)).unwrap();
            assert_eq!(frame, Frame { whole, start }, "{width} x {height} to {shorter}");
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_its_sizes() {
        let geometry =
            Geometry::new(Resize::Shorter(side(10)), Some((side(20), side(10)))).unwrap();
        assert!(geometry.frame(&picture(10, 20)).is_ok());
        assert_eq!(
            geometry.frame(&picture(20, 10)).unwrap_err().to_string(),
            "has 20 x 10 pixels, and 20 x 10 cannot be cut out of the 10 x 20 (height x width) that it \
             is resized to"
        );
        assert!(Geometry::new(Resize::Shorter(side(10)), None).is_none());
    }

    #[test]
    fn a_line_cannot_grow_beyond_the_pixels_allowed() {
        let exact = Resize::Exact { height: side(64), width: side(64) };
        let geometry = Geometry::new(exact, None).unwrap();
        for filter in [ResizeFilter::Lanczos, ResizeFilter::Nearest] {
            let resizer = Resizer::new();
            let mut resizing = Resizing { geometry, filter, max_pixels: 10_000, resizer };
            for (width, height) in [(1000, 1), (1, 1000)] {
                let error = resizing.apply(picture(width, height)).unwrap_err();
                let expected = format!(
                    "has {width} x {height} pixels, and is too long and narrow to be resized"
                );
                assert_eq!(error.to_string(), expected);
            }
            assert!(resizing.apply(picture(1, 100)).is_ok());
        }
    }
}
