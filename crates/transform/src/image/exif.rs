//! The one thing of EXIF data that changes what a picture shows: how it is turned.
//!
//! Read as `ImageOps.exif_transpose` of Pillow reads it: the tag 0x0112 of the first directory; what
//! cannot be read turns nothing. XMP is not read.

/// How the stored pixels have to be turned to be upright, by EXIF's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Orientation {
    /// 1: not at all.
    #[default]
    Upright,
    /// 2
    FlipHorizontally,
    /// 3
    HalfTurn,
    /// 4
    FlipVertically,
    /// 5: along the diagonal from the upper left.
    Transpose,
    /// 6
    QuarterTurnClockwise,
    /// 7: along the diagonal from the upper right.
    Transverse,
    /// 8
    QuarterTurnCounterclockwise,
}

const ORIENTATION: u16 = 0x0112;

impl Orientation {
    /// Reads EXIF data, with or without the `Exif\0\0` that JPEG puts in front.
    pub(super) fn of(exif: &[u8]) -> Self {
        Self::number(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
            .and_then(Self::from_number)
            .unwrap_or_default()
    }

    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Orientation::Upright,
            2 => Orientation::FlipHorizontally,
            3 => Orientation::HalfTurn,
            4 => Orientation::FlipVertically,
            5 => Orientation::Transpose,
            6 => Orientation::QuarterTurnClockwise,
            7 => Orientation::Transverse,
            8 => Orientation::QuarterTurnCounterclockwise,
            _ => return None,
        })
    }

    fn number(tiff: &[u8]) -> Option<u32> {
        let order = match tiff.get(..4)? {
            b"II*\0" => Order::Little,
            b"MM\0*" => Order::Big,
            _ => return None,
        };
        let directory = usize::try_from(order.u32(tiff, 4)?).ok()?;
        let entries = usize::from(order.u16(tiff, directory)?);
        // An entry: tag (2 bytes), type (2), count (4), value (4, from the left).
        let entry = (0..entries)
            .map_while(|entry| directory.checked_add(2 + entry * 12))
            .take_while(|&at| at < tiff.len())
            .find(|&at| order.u16(tiff, at) == Some(ORIENTATION))?;
        let value = entry + 8;
        match order.u16(tiff, entry + 2)? {
            1 => tiff.get(value).map(|&byte| u32::from(byte)),
            3 => order.u16(tiff, value).map(u32::from),
            4 => order.u32(tiff, value),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Little => u16::from_le_bytes(bytes),
            Order::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn little(kind: u16, value: [u8; 4]) -> Vec<u8> {
        let mut exif = b"II*\0\x08\0\0\0\x02\0".to_vec();
        exif.extend([0x0f, 0x01, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        exif.extend([0x12, 0x01]);
        exif.extend(kind.to_le_bytes());
        exif.extend([1, 0, 0, 0]);
        exif.extend(value);
        exif
    }

    #[test]
    fn the_orientation_is_found_in_either_byte_order() {
        let cases = [
            (little(3, [6, 0, 0, 0]), Orientation::QuarterTurnClockwise),
            (little(4, [3, 0, 0, 0]), Orientation::HalfTurn),
            (little(1, [2, 0, 0, 0]), Orientation::FlipHorizontally),
            (little(3, [9, 0, 0, 0]), Orientation::Upright),
            (little(2, [6, 0, 0, 0]), Orientation::Upright),
            (
                b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0".to_vec(),
                Orientation::QuarterTurnCounterclockwise,
            ),
        ];
        for (exif, expected) in cases {
            assert_eq!(Orientation::of(&exif), expected, "{exif:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_points_nowhere_turns_nothing() {
        let whole = little(3, [6, 0, 0, 0]);
        for length in 0..whole.len() - 2 {
            assert_eq!(Orientation::of(&whole[..length]), Orientation::Upright, "{length} bytes");
        }
        assert_eq!(Orientation::of(b"II*\0\xff\xff\xff\xff"), Orientation::Upright);
        assert_eq!(Orientation::of(b"II*\0\x08\0\0\0\xff\xff"), Orientation::Upright);
    }
}
