//! Shapes of tensors, and the patterns that a model's signature asks of them.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

use crate::Name;

/// The dimensions of a tensor, outermost first. A scalar has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[usize; 4]>);

impl Shape {
    /// Makes a shape from its dimensions.
    pub fn new(dimensions: impl IntoIterator<Item = usize>) -> Self {
        Shape(dimensions.into_iter().collect())
    }

    /// Returns the number of elements, or `None` where the product does not fit a `usize`.
    ///
    /// A scalar has one element; a shape with a zero dimension has none, however large the others.
    pub fn elements(&self) -> Option<usize> {
        if self.0.contains(&0) {
            return Some(0);
        }
        self.0.iter().try_fold(1_usize, |product, &dimension| product.checked_mul(dimension))
    }

    /// Returns the size of the outermost dimension, or `None` for a scalar.
    pub fn rows(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// Returns this shape with its outermost dimension replaced; a scalar stays a scalar.
    pub fn with_rows(&self, rows: usize) -> Shape {
        let mut shape = self.clone();
        if let Some(first) = shape.0.first_mut() {
            *first = rows;
        }
        shape
    }

    /// Returns all dimensions but the outermost one.
    pub fn row_shape(&self) -> &[usize] {
        self.0.get(1..).unwrap_or(&[])
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dimensions: [usize; N]) -> Self {
        Shape::new(dimensions)
    }
}

impl From<&[usize]> for Shape {
    fn from(dimensions: &[usize]) -> Self {
        Shape(SmallVec::from_slice(dimensions))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.0.iter())
    }
}

/// One dimension that a model declares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Exactly this many.
    Fixed(usize),
    /// Any number, under a name. The name is for people and for graph analysis: exporters use one
    /// name for sizes that differ, and engines run such requests, so nobody is held to it.
    Named(Name),
    /// Any number.
    Any,
}

impl Dimension {
    /// Returns the size where it is fixed.
    pub fn size(&self) -> Option<usize> {
        match self {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Named(_) | Dimension::Any => None,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dimension::Fixed(size) => write!(f, "{size}"),
            Dimension::Named(name) => f.write_str(name),
            Dimension::Any => f.write_str("-1"),
        }
    }
}

/// The shapes that a model accepts for one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ShapePattern {
    /// The model says nothing of the number of dimensions.
    AnyRank,
    /// These dimensions, outermost first.
    Ranked(SmallVec<[Dimension; 4]>),
}

impl ShapePattern {
    /// Makes a pattern from its dimensions.
    pub fn ranked(dimensions: impl IntoIterator<Item = Dimension>) -> Self {
        ShapePattern::Ranked(dimensions.into_iter().collect())
    }

    /// Returns whether `shape` fits.
    pub fn accepts(&self, shape: &Shape) -> bool {
        match self {
            ShapePattern::AnyRank => true,
            ShapePattern::Ranked(pattern) => {
                pattern.len() == shape.len()
                    && pattern
                        .iter()
                        .zip(shape.iter())
                        .all(|(dimension, &size)| dimension.size().is_none_or(|own| own == size))
            }
        }
    }

    /// Returns whether every shape that fits `other` fits this pattern too.
    pub fn covers(&self, other: &ShapePattern) -> bool {
        match (self, other) {
            (ShapePattern::AnyRank, _) => true,
            (ShapePattern::Ranked(_), ShapePattern::AnyRank) => false,
            (ShapePattern::Ranked(own), ShapePattern::Ranked(others)) => {
                own.len() == others.len()
                    && own.iter().zip(others).all(|(own, other)| match (own.size(), other.size()) {
                        (None, _) => true,
                        (Some(own), other) => other == Some(own),
                    })
            }
        }
    }

    /// Returns the pattern of the shapes that fit both patterns, or `None` where no shape does. A
    /// size that both leave open keeps this pattern's name.
    pub fn meet(&self, other: &ShapePattern) -> Option<ShapePattern> {
        let (own, others) = match (self, other) {
            (ShapePattern::AnyRank, pattern) | (pattern, ShapePattern::AnyRank) => {
                return Some(pattern.clone());
            }
            (ShapePattern::Ranked(own), ShapePattern::Ranked(others)) => (own, others),
        };
        let both = own.iter().zip(others).map(|(own, other)| match (own.size(), other.size()) {
            (Some(own), Some(other)) => (own == other).then_some(Dimension::Fixed(own)),
            (Some(size), None) | (None, Some(size)) => Some(Dimension::Fixed(size)),
            (None, None) => Some(if *own == Dimension::Any { other.clone() } else { own.clone() }),
        });
        let both = both.collect::<Option<SmallVec<_>>>().map(ShapePattern::Ranked);
        both.filter(|_| own.len() == others.len())
    }

    /// Returns the pattern as the protocol writes it: `-1` where the size may vary. A pattern
    /// without a known rank is written as `[-1]`, which is the closest the protocol has.
    pub fn protocol_dimensions(&self) -> Vec<i64> {
        match self {
            ShapePattern::AnyRank => vec![-1],
            ShapePattern::Ranked(dimensions) => dimensions
                .iter()
                .map(|dimension| match dimension {
                    Dimension::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
                    Dimension::Named(_) | Dimension::Any => -1,
                })
                .collect(),
        }
    }
}

impl fmt::Display for ShapePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapePattern::AnyRank => f.write_str("[...]"),
            ShapePattern::Ranked(dimensions) => write_list(f, dimensions.iter()),
        }
    }
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    f.write_str("[")?;
    for (index, item) in items.enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write!(f, "{item}")?;
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_multiply_without_overflow() {
        assert_eq!(Shape::new([]).elements(), Some(1), "a scalar is one element");
        assert_eq!(Shape::from([2, 3]).elements(), Some(6));
        assert_eq!(Shape::from([usize::MAX, 2]).elements(), None);
        assert_eq!(Shape::from([usize::MAX, 0, 2]).elements(), Some(0));
    }

    #[test]
    fn patterns_accept_what_they_declare() {
        let pattern = ShapePattern::ranked([Dimension::Named("batch".into()), Dimension::Fixed(4)]);
        assert!(pattern.accepts(&Shape::from([7, 4])));
        assert!(!pattern.accepts(&Shape::from([7, 5])));
        assert!(!pattern.accepts(&Shape::from([4])));
        assert_eq!(pattern.to_string(), "[batch,4]");
        assert_eq!(pattern.protocol_dimensions(), [-1, 4]);
    }

    #[test]
    fn patterns_are_compared() {
        struct Case {
            left: ShapePattern,
            right: ShapePattern,
            covers: bool,
            meet: Option<&'static str>,
        }
        let (any, four, five) = (Dimension::Any, Dimension::Fixed(4), Dimension::Fixed(5));
        let batch = Dimension::Named("batch".into());
        let ranked = |dimensions: &[&Dimension]| {
            ShapePattern::ranked(dimensions.iter().map(|&dimension| dimension.clone()))
        };
        let case = |left, right, covers, meet| Case { left, right, covers, meet };
        let cases = [
            case(ShapePattern::AnyRank, ranked(&[&four]), true, Some("[4]")),
            case(ranked(&[&four]), ShapePattern::AnyRank, false, Some("[4]")),
            case(ranked(&[&any, &four]), ranked(&[&five, &four]), true, Some("[5,4]")),
            case(ranked(&[&five, &four]), ranked(&[&any, &four]), false, Some("[5,4]")),
            case(ranked(&[&any, &four]), ranked(&[&five, &any]), false, Some("[5,4]")),
            case(ranked(&[&any, &four]), ranked(&[&batch, &four]), true, Some("[batch,4]")),
            case(ranked(&[&four]), ranked(&[&five]), false, None),
            case(ranked(&[&four]), ranked(&[&four, &four]), false, None),
            case(ranked(&[]), ranked(&[]), true, Some("[]")),
        ];
        for Case { left, right, covers, meet } in cases {
            assert_eq!(left.covers(&right), covers, "{left} covers {right}");
            let both = left.meet(&right).map(|both| both.to_string());
            assert_eq!(both.as_deref(), meet, "{left} and {right}");
        }
    }
}
