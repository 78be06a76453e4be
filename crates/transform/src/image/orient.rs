//! Turns pixels as EXIF data says.

use super::decode::Picture;
use super::exif::Orientation;

/// The side of the squares in which pixels are moved, so that both the rows read and the rows written
/// stay in the processor's cache.
const TILE: usize = 32;

/// Returns the picture upright.
pub(super) fn upright(picture: Picture, orientation: Orientation) -> Picture {
    match (orientation, picture.channels) {
        (Orientation::Upright, _) => picture,
        (_, 1) => turned::<1>(&picture, orientation),
        (_, 2) => turned::<2>(&picture, orientation),
        (_, 3) => turned::<3>(&picture, orientation),
        (_, _) => turned::<4>(&picture, orientation),
    }
}

fn turned<const CHANNELS: usize>(picture: &Picture, orientation: Orientation) -> Picture {
    debug_assert_eq!(picture.channels, CHANNELS);
    let (width, height) = (picture.width as usize, picture.height as usize);
    let (right, low) = (width - 1, height - 1);
    let from = |x: usize, y: usize| match orientation {
        Orientation::Upright => (x, y),
        Orientation::FlipHorizontally => (right - x, y),
        Orientation::HalfTurn => (right - x, low - y),
        Orientation::FlipVertically => (x, low - y),
        Orientation::Transpose => (y, x),
        Orientation::QuarterTurnClockwise => (y, low - x),
        Orientation::Transverse => (right - y, low - x),
        Orientation::QuarterTurnCounterclockwise => (right - y, x),
    };
    let lies = matches!(
        orientation,
        Orientation::Transpose
            | Orientation::QuarterTurnClockwise
            | Orientation::Transverse
            | Orientation::QuarterTurnCounterclockwise
    );
    let (new_width, new_height) = if lies { (height, width) } else { (width, height) };
    let source = picture.pixels.as_chunks::<CHANNELS>().0;
    let mut pixels = vec![0; picture.pixels.len()];
    let target = pixels.as_chunks_mut::<CHANNELS>().0;
    for top in (0..new_height).step_by(TILE) {
        for left in (0..new_width).step_by(TILE) {
            for y in top..new_height.min(top + TILE) {
                for x in left..new_width.min(left + TILE) {
                    let (from_x, from_y) = from(x, y);
                    target[y * new_width + x] = source[from_y * width + from_x];
                }
            }
        }
    }
    let (width, height) =
        if lies { (picture.height, picture.width) } else { (picture.width, picture.height) };
    Picture { width, height, channels: CHANNELS, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_is_turned_upright() {
        // Two rows of three pixels: 1 2 3 / 4 5 6.
        let cases = [
            (Orientation::Upright, 3, [1, 2, 3, 4, 5, 6]),
            (Orientation::FlipHorizontally, 3, [3, 2, 1, 6, 5, 4]),
            (Orientation::HalfTurn, 3, [6, 5, 4, 3, 2, 1]),
            (Orientation::FlipVertically, 3, [4, 5, 6, 1, 2, 3]),
            (Orientation::Transpose, 2, [1, 4, 2, 5, 3, 6]),
            (Orientation::QuarterTurnClockwise, 2, [4, 1, 5, 2, 6, 3]),
            (Orientation::Transverse, 2, [6, 3, 5, 2, 4, 1]),
            (Orientation::QuarterTurnCounterclockwise, 2, [3, 6, 2, 5, 1, 4]),
        ];
        for (orientation, width, expected) in cases {
            for channels in 1..=4 {
                let widen = |pixels: &[u8]| -> Vec<u8> {
                    pixels.iter().flat_map(|&pixel| vec![pixel; channels]).collect()
                };
                let pixels = widen(&[1, 2, 3, 4, 5, 6]);
                let picture = Picture { width: 3, height: 2, channels, pixels };
                let turned = upright(picture, orientation);
                assert_eq!((turned.width, turned.height), (width, 6 / width), "{orientation:?}");
                assert_eq!(turned.pixels, widen(&expected), "{orientation:?}");
            }
        }
    }
}
