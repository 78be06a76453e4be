//! What the analysis knows of a value.

use std::rc::Rc;

use smallvec::SmallVec;

use super::numbers::Numbers;
use super::size::{Size, Symbols};

/// Dimensions, outermost first.
pub(super) type Dims = SmallVec<[Size; 4]>;

/// Why an operator cannot be followed, in words that continue "node 'n' (Op) …".
pub(super) type Reason = String;

pub(super) type Result<T> = std::result::Result<T, Reason>;

/// What is known of a value, comparing a request that runs alone with the same request joined with
/// others that agree in all dimensions but the rows.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// The same in both runs, with its dimensions where they are known.
    Same(Option<Dims>),
    /// A small tensor of integers that do not depend on what is in the rows, each known by itself;
    /// some may depend on the number of rows.
    Numbers(Numbers),
    /// The joined run holds the requests' own values one after the other along one axis.
    Rows(Rows),
    /// None of these, because of some node.
    Mixed(Rc<Cause>),
}

/// A value made of rows. Exactly one dimension contains the number of rows, to the first power;
/// along it each row has the same number of consecutive places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    dims: Dims,
    axis: usize,
}

/// The node that mixed rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) node: String,
    pub(super) operator: String,
    pub(super) reason: Reason,
}

impl Rows {
    pub(super) fn dims(&self) -> &Dims {
        &self.dims
    }

    /// Returns the axis of the rows.
    pub(super) fn axis(&self) -> usize {
        self.axis
    }

    /// Returns the size along the axis of the rows.
    pub(super) fn size(&self) -> &Size {
        &self.dims[self.axis]
    }
}

impl Value {
    /// Makes a value of these dimensions: rows where one of them contains the number of rows.
    pub(super) fn of(dims: Dims) -> Result<Value> {
        let powers: u32 = dims.iter().map(|size| u32::from(size.batch_power())).sum();
        match powers {
            0 => Ok(Value::Same(Some(dims))),
            1 => {
                let axis = dims.iter().position(|size| size.batch_power() == 1).unwrap_or(0);
                Ok(Value::Rows(Rows { dims, axis }))
            }
            _ => Err("pairs rows with other rows".to_owned()),
        }
    }

    /// Returns the dimensions, where they are known.
    pub(super) fn dims(&self) -> Option<Dims> {
        match self {
            Value::Same(dims) => dims.clone(),
            Value::Numbers(numbers) => Some(numbers.sizes()),
            Value::Rows(rows) => Some(rows.dims.clone()),
            Value::Mixed(_) => None,
        }
    }

    /// Returns whether the value is the same whatever the number of rows.
    pub(super) fn is_batch_free(&self) -> bool {
        match self {
            Value::Same(_) => true,
            Value::Numbers(numbers) => numbers.is_batch_free(),
            Value::Rows(_) | Value::Mixed(_) => false,
        }
    }

    pub(super) fn rows(&self) -> Option<&Rows> {
        match self {
            Value::Rows(rows) => Some(rows),
            _ => None,
        }
    }
}

/// Gives two shapes their common shape, as NumPy does.
///
/// The number of rows meets only itself and 1. Any other size could equal it by chance in one run
/// and not in another.
pub(super) fn broadcast(left: &Dims, right: &Dims, symbols: &mut Symbols) -> Result<Dims> {
    let rank = left.len().max(right.len());
    let one = Size::known(1);
    (0..rank)
        .map(|axis| {
            let at = |dims: &Dims| {
                (axis + dims.len()).checked_sub(rank).map_or(one.clone(), |axis| dims[axis].clone())
            };
            broadcast_size(at(left), at(right), symbols)
        })
        .collect()
}

fn broadcast_size(left: Size, right: Size, symbols: &mut Symbols) -> Result<Size> {
    if left == right || right.is_one() {
        return Ok(left);
    }
    if left.is_one() {
        return Ok(right);
    }
    if !left.is_batch_free() || !right.is_batch_free() {
        return Err("sets the rows against a dimension that is not theirs".to_owned());
    }
    match (left.number(), right.number()) {
        (Some(left), Some(right)) => Err(format!("sets a dimension of {left} against {right}")),
        // One of them is 1, or both are this number.
        (Some(_), None) => Ok(left),
        (None, Some(_)) => Ok(right),
        (None, None) => Ok(symbols.dimension()),
    }
}

/// Makes `reason` of the axis of the rows.
pub(super) fn over_rows(what: &str, axis: usize) -> Reason {
    format!("{what} axis {axis}, which holds the rows")
}
