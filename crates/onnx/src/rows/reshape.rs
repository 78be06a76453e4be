//! Operators that give the same elements another shape or order of axes.
//!
//! Elements lie in row-major order. A shape `[P.., rows * k, Q..]` becomes `[P'.., rows * k', Q'..]`
//! without mixing rows exactly if the product of `P'` is that of `P`: then, at each place of `P`,
//! each row keeps its own run of consecutive elements.

use super::call::{Call, Made, one, uses_row_count};
use super::numbers::{Numbers, Term};
use super::shape::known_axes;
use super::size::{Size, Symbols};
use super::value::{Dims, Result, Rows, Value, over_rows};

/// Checks that rows stay rows under other dimensions.
fn keep_rows(rows: Option<&Rows>, target: Dims) -> Result<Value> {
    let value = Value::of(target)?;
    match (rows, &value) {
        (None, Value::Same(_)) => Ok(value),
        (None, _) => Err("gives the shape of the rows to something else".to_owned()),
        (Some(from), Value::Rows(to)) => {
            let before = |rows: &Rows| Size::product(&rows.dims()[..rows.axis()]);
            match (before(from), before(to)) {
                (Some(from), Some(to)) if from == to => Ok(value),
                _ => Err("moves elements between rows".to_owned()),
            }
        }
        (Some(_), _) => Err("gives the rows a shape that does not follow their number".to_owned()),
    }
}

/// The same elements under the dimensions that the second input tells.
pub(super) fn reshape(call: &mut Call<'_>) -> Result<Made> {
    let attribute = call
        .node
        .ints("shape")
        .map(|dims| dims.iter().map(|&dim| Some(Size::known(dim))).collect::<Vec<Term>>());
    let target = match (call.numbers(1), attribute) {
        (Some(numbers), _) => numbers.terms().to_vec(),
        (None, Some(attribute)) if call.opset < 5 => attribute,
        _ => return Err("takes a shape that is not known".to_owned()),
    };
    let copies_zero = call.node.int("allowzero").unwrap_or(0) == 0;
    if let (Some(numbers), Some(known)) = (call.numbers(0), all_known(&target))
        && let Some(dims) = reshaped_numbers(numbers, &known, copies_zero)
    {
        return Ok(vec![Value::Numbers(dims)]);
    }
    let dims = call.dims(0)?;
    let target = target_dims(&dims, &target, copies_zero, call.symbols)?;
    Ok(vec![keep_rows(call.rows(0)?, target)?])
}

fn all_known(target: &[Term]) -> Option<Vec<i64>> {
    target.iter().map(|term| term.as_ref().and_then(Size::number)).collect()
}

fn reshaped_numbers(numbers: &Numbers, target: &[i64], copies_zero: bool) -> Option<Numbers> {
    let mut dims = Vec::new();
    for (axis, &dim) in target.iter().enumerate() {
        dims.push(match dim {
            0 if copies_zero => *numbers.dims().get(axis)?,
            // Filled in below.
            -1 => 1,
            dim => usize::try_from(dim).ok()?,
        });
    }
    if let Some(open) = target.iter().position(|&dim| dim == -1) {
        let others = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim))?;
        dims[open] = numbers.terms().len().checked_div(others)?;
    }
    numbers.reshaped(&dims)
}

/// Works out the dimensions that a run will see.
fn target_dims(
    dims: &Dims,
    target: &[Term],
    copies_zero: bool,
    symbols: &mut Symbols,
) -> Result<Dims> {
    let mut open = None;
    let mut result = Dims::new();
    for (axis, term) in target.iter().enumerate() {
        let size = term.as_ref().ok_or_else(uses_row_count)?;
        result.push(match size.number() {
            Some(0) if copies_zero => {
                dims.get(axis).cloned().ok_or("copies a dimension that is not there")?
            }
            Some(-1) if open.is_none() => {
                open = Some(axis);
                Size::known(1)
            }
            Some(number) if number < 0 => return Err("takes a negative shape".to_owned()),
            _ => size.clone(),
        });
    }
    if let Some(open) = open {
        let total = Size::product(dims).ok_or("has too many dimensions to follow")?;
        let others = Size::product(&result).ok_or("has too many dimensions to follow")?;
        result[open] = match total.divided_by(&others) {
            Some(quotient) => quotient,
            // As often per row, whatever the number of rows.
            None if total.batch_power() == others.batch_power() => symbols.dimension(),
            None => {
                let reason = "may join parts of rows: their size is not known to be a multiple";
                return Err(reason.to_owned());
            }
        };
    }
    // A number computed from shapes may turn out to be -1 or 0, which mean something else here. In
    // front of the rows it is compared with what is there; behind them any dimension will do.
    let rows_at = result.iter().position(|size| !size.is_batch_free()).unwrap_or(result.len());
    for size in result.iter_mut().skip(rows_at + 1) {
        if !size.is_dimension() {
            *size = symbols.dimension();
        }
    }
    Ok(result)
}

/// A matrix: the axes before `axis`, and the others.
pub(super) fn flatten(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let axis = match call.node.int("axis").unwrap_or(1) {
        axis if usize::try_from(axis) == Ok(dims.len()) => dims.len(),
        axis => call.axis(axis, dims.len())?,
    };
    let mut target = Dims::new();
    for part in [&dims[..axis], &dims[axis..]] {
        let free = part.iter().all(Size::is_batch_free);
        target.push(match Size::product(part) {
            Some(product) => product,
            None if free => call.dimension(),
            None => return Err("has too many dimensions to follow".to_owned()),
        });
    }
    Ok(vec![keep_rows(call.rows(0)?, target)?])
}

/// Returns the axes that a node names in an input or, before opset 13, in an attribute.
fn named_axes(call: &Call<'_>, rank: usize) -> Result<Option<Vec<usize>>> {
    if call.optional(1).is_some() {
        return known_axes(call, 1, rank).map(Some);
    }
    let axes = call.node.ints("axes");
    axes.map(|axes| axes.iter().map(|&axis| call.axis(axis, rank)).collect()).transpose()
}

/// Removes axes of 1.
pub(super) fn squeeze(call: &mut Call<'_>) -> Result<Made> {
    let dims = value_dims(call)?;
    let axes = match named_axes(call, dims.len())? {
        Some(axes) => axes,
        None if call.rows(0)?.is_some() => {
            return Err("removes every dimension of 1, for one row that of the rows too".to_owned());
        }
        None => {
            let known: Option<Vec<i64>> = dims.iter().map(Size::number).collect();
            let known = known.ok_or("removes every dimension of 1, and not all are known")?;
            (0..known.len()).filter(|&axis| known[axis] == 1).collect()
        }
    };
    if let Some(&axis) = axes.iter().find(|&&axis| !dims[axis].is_batch_free()) {
        return Err(over_rows("removes", axis));
    }
    let kept = |axis: &usize| !axes.contains(axis);
    let left: Dims = (0..dims.len()).filter(kept).map(|axis| dims[axis].clone()).collect();
    renamed(call, left)
}

/// Adds axes of 1.
pub(super) fn unsqueeze(call: &mut Call<'_>) -> Result<Made> {
    let dims = value_dims(call)?;
    let count = match (call.known(1), call.node.ints("axes")) {
        (Some(axes), _) => axes.len(),
        (None, Some(axes)) => axes.len(),
        _ => return Err("takes axes that are not known".to_owned()),
    };
    let rank = dims.len() + count;
    let axes = named_axes(call, rank)?.unwrap_or_default();
    let mut rest = dims.into_iter();
    let more: Dims = (0..rank)
        .map(|axis| {
            if axes.contains(&axis) {
                Size::known(1)
            } else {
                rest.next().unwrap_or_else(|| Size::known(1))
            }
        })
        .collect();
    renamed(call, more)
}

/// Returns the dimensions of the first input, whatever its elements depend on.
fn value_dims(call: &Call<'_>) -> Result<Dims> {
    call.value(0)?.dims().ok_or_else(|| "takes a value whose shape is not known".to_owned())
}

/// Gives the first input dimensions that differ only by ones.
fn renamed(call: &Call<'_>, dims: Dims) -> Result<Made> {
    if let Some(numbers) = call.numbers(0) {
        let dims: Option<Vec<usize>> =
            dims.iter().map(|size| usize::try_from(size.number()?).ok()).collect();
        if let Some(renamed) = dims.and_then(|dims| numbers.reshaped(&dims)) {
            return Ok(vec![Value::Numbers(renamed)]);
        }
    }
    one(dims)
}

/// Another order of axes. The axis of the rows may move: each value knows where its rows are.
pub(super) fn transpose(call: &mut Call<'_>) -> Result<Made> {
    let dims = value_dims(call)?;
    let order: Vec<usize> = match call.node.ints("perm") {
        Some(order) => {
            order.iter().map(|&axis| call.axis(axis, dims.len())).collect::<Result<_>>()?
        }
        None => (0..dims.len()).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..dims.len()) {
        return Err("names an axis twice".to_owned());
    }
    if let Some(numbers) = call.numbers(0) {
        let transposed = numbers.transposed(&order).ok_or_else(uses_row_count)?;
        return Ok(vec![Value::Numbers(transposed)]);
    }
    one(order.iter().map(|&axis| dims[axis].clone()).collect())
}
