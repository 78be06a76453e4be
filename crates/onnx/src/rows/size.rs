//! Integers that are known as products: `3 * batch * sequence`.
//!
//! Invariant: two equal [`Size`]s have the same value in every run, and a size without the batch has
//! the same value whether a request runs alone or joined with others of its shape.

use smallvec::{SmallVec, smallvec};

/// An integer that the file does not fix, the same for all requests that are run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Symbol {
    id: u32,
    /// Whether it is a dimension, and so an integer of at least 0. Other symbols stand for
    /// any number.
    is_dimension: bool,
}

/// Hands out symbols.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    next: u32,
}

impl Symbols {
    /// Returns a new dimension that nothing is known of.
    pub(super) fn dimension(&mut self) -> Size {
        self.fresh(true)
    }

    /// Returns a new number that nothing is known of, not even its sign.
    pub(super) fn number(&mut self) -> Size {
        self.fresh(false)
    }

    fn fresh(&mut self, is_dimension: bool) -> Size {
        self.next += 1;
        let symbol = Symbol { id: self.next, is_dimension };
        Size { factor: 1, batch: 0, symbols: smallvec![symbol] }
    }
}

/// A product of a factor, powers of the number of rows, and symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    factor: i64,
    /// The power of the number of rows.
    batch: u8,
    /// Sorted.
    symbols: SmallVec<[Symbol; 2]>,
}

/// Products of more symbols than this are not followed.
const MAX_SYMBOLS: usize = 8;

impl Size {
    /// Makes a size from a number.
    pub(super) fn known(factor: i64) -> Self {
        Size { factor, batch: 0, symbols: SmallVec::new() }
    }

    /// Makes the number of rows.
    pub(super) fn batch() -> Self {
        Size { factor: 1, batch: 1, symbols: SmallVec::new() }
    }

    /// Returns the number, where there is nothing else in the product.
    pub(super) fn number(&self) -> Option<i64> {
        (self.batch == 0 && self.symbols.is_empty()).then_some(self.factor)
    }

    /// Returns whether this is certainly 1.
    pub(super) fn is_one(&self) -> bool {
        self.number() == Some(1)
    }

    /// Returns the power of the number of rows.
    pub(super) fn batch_power(&self) -> u8 {
        self.batch
    }

    /// Returns whether the number of rows does not matter.
    pub(super) fn is_batch_free(&self) -> bool {
        self.batch == 0
    }

    /// Returns whether this is certainly a dimension's size: an integer of at least 0.
    pub(super) fn is_dimension(&self) -> bool {
        self.factor >= 0 && self.symbols.iter().all(|symbol| symbol.is_dimension)
    }

    /// Multiplies, or returns `None` where the product is too long to follow.
    pub(super) fn times(&self, other: &Size) -> Option<Size> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Size::known(0));
        }
        let mut symbols = self.symbols.clone();
        symbols.extend_from_slice(&other.symbols);
        symbols.sort_unstable();
        let batch = self.batch.checked_add(other.batch)?;
        (symbols.len() <= MAX_SYMBOLS && batch <= 2).then_some(Size { factor, batch, symbols })
    }

    /// Divides, or returns `None` where the quotient is not certainly an exact product.
    pub(super) fn divided_by(&self, other: &Size) -> Option<Size> {
        if other.factor == 0 || self.factor.checked_rem(other.factor)? != 0 {
            return None;
        }
        let factor = self.factor.checked_div(other.factor)?;
        let batch = self.batch.checked_sub(other.batch)?;
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let place = symbols.iter().position(|found| found == symbol)?;
            symbols.remove(place);
        }
        Some(if factor == 0 { Size::known(0) } else { Size { factor, batch, symbols } })
    }

    /// Multiplies several, or returns `None` where the product is too long to follow.
    pub(super) fn product<'a>(sizes: impl IntoIterator<Item = &'a Size>) -> Option<Size> {
        sizes.into_iter().try_fold(Size::known(1), |product, size| product.times(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_compared_and_divided_exactly() {
        let mut symbols = Symbols::default();
        let (s, t) = (symbols.dimension(), symbols.dimension());
        let rows = Size::product([&Size::known(12), &Size::batch(), &s]).unwrap();
        assert_eq!(rows, Size::product([&s, &Size::known(12), &Size::batch()]).unwrap());
        assert_eq!(rows.divided_by(&s), Size::batch().times(&Size::known(12)));
        assert_eq!(rows.divided_by(&Size::known(4)).and_then(|size| size.divided_by(&s)), {
            Size::batch().times(&Size::known(3))
        });
        assert_eq!(rows.divided_by(&Size::known(5)), None, "12 is no multiple of 5");
        assert_eq!(rows.divided_by(&t), None, "another symbol");
        assert_eq!(s.divided_by(&Size::batch()), None);
        assert_eq!(rows.divided_by(&Size::known(0)), None);
        assert_eq!(Size::known(i64::MIN).divided_by(&Size::known(-1)), None);
        assert_eq!(Size::known(i64::MAX).times(&Size::known(2)), None);
        assert_eq!(rows.times(&Size::known(0)), Some(Size::known(0)));
        let long = (0..9).try_fold(Size::known(1), |size, _| size.times(&s));
        assert_eq!(long, None, "products stay short");
    }
}
