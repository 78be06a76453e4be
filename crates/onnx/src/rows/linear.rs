//! Matrix products.

use std::collections::BTreeMap;

use super::call::{Call, Made, one, uses_row_count};
use super::size::Size;
use super::value::{Dims, Result, Value, broadcast, over_rows};

/// `MatMul` and its quantised forms, whose scales and zero points are constants.
pub(super) fn matmul(call: &mut Call<'_>) -> Result<Made> {
    let (left, right) = match call.node.op_type.as_str() {
        "QLinearMatMul" => {
            call.only_constants(&[1, 2, 4, 5, 6, 7])?;
            quantised_per_tensor(call, &[1, 2])?;
            (0, 3)
        }
        "MatMulInteger" => {
            call.only_constants_from(2)?;
            quantised_per_tensor(call, &[2])?;
            (0, 1)
        }
        _ => (0, 1),
    };
    one(product(call, left, right)?)
}

/// Fails where the left operand, if it has rows, has a scale or zero point for each.
pub(super) fn quantised_per_tensor(call: &Call<'_>, inputs: &[usize]) -> Result<()> {
    for &input in inputs {
        let single = match call.optional(input) {
            None => true,
            Some(value) => value.dims().is_some_and(|dims| dims.iter().all(Size::is_one)),
        };
        if !single && call.has_rows() {
            return Err("scales each row by a constant of its own".to_owned());
        }
    }
    Ok(())
}

/// Returns the shape of the matrix product of two inputs.
pub(super) fn product(call: &mut Call<'_>, left: usize, right: usize) -> Result<Dims> {
    let (left, right) = (call.dims(left)?, call.dims(right)?);
    shape_of_product(left, right, call)
}

pub(super) fn shape_of_product(
    mut left: Dims,
    mut right: Dims,
    call: &mut Call<'_>,
) -> Result<Dims> {
    let (left_is_vector, right_is_vector) = (left.len() == 1, right.len() == 1);
    if left.is_empty() || right.is_empty() {
        return Err("multiplies a scalar as a matrix".to_owned());
    }
    if left_is_vector {
        left.insert(0, Size::known(1));
    }
    if right_is_vector {
        right.push(Size::known(1));
    }
    let (left_rank, right_rank) = (left.len(), right.len());
    for summed in [&left[left_rank - 1], &right[right_rank - 2]] {
        if !summed.is_batch_free() {
            return Err("sums over the rows".to_owned());
        }
    }
    let outer_left: Dims = left[..left_rank - 2].iter().cloned().collect();
    let outer_right: Dims = right[..right_rank - 2].iter().cloned().collect();
    let mut dims = broadcast(&outer_left, &outer_right, call.symbols)?;
    if !left_is_vector {
        dims.push(left[left_rank - 2].clone());
    }
    if !right_is_vector {
        dims.push(right[right_rank - 1].clone());
    }
    Ok(dims)
}

/// `alpha * A * B + beta * C`, with `A` and `B` matrices.
pub(super) fn gemm(call: &mut Call<'_>) -> Result<Made> {
    let mut operands = [call.dims(0)?, call.dims(1)?];
    for (dims, flag) in operands.iter_mut().zip(["transA", "transB"]) {
        if dims.len() != 2 {
            return Err("multiplies what are no matrices".to_owned());
        }
        if call.node.int(flag).unwrap_or(0) != 0 {
            dims.reverse();
        }
    }
    let [left, right] = operands;
    let dims = shape_of_product(left, right, call)?;
    one(match call.optional(2) {
        None => dims,
        Some(_) => {
            let added = call.dims(2)?;
            if call.rows(2)?.is_some() && dims.iter().all(Size::is_batch_free) {
                return Err("adds rows to a product that has none".to_owned());
            }
            broadcast(&dims, &added, call.symbols)?
        }
    })
}

/// A sum of products in Einstein's notation. Rows must keep one letter of their own throughout.
pub(super) fn einsum(call: &mut Call<'_>) -> Result<Made> {
    let equation: String =
        call.node.text("equation").unwrap_or_default().split_whitespace().collect();
    let (operands, result) = match equation.split_once("->") {
        Some((operands, result)) => (operands, result),
        None if call.has_rows() => return Err("does not spell its result out".to_owned()),
        None => return Ok(vec![Value::Same(None)]),
    };
    if equation.contains('.') {
        return Err("uses an ellipsis, which is not followed".to_owned());
    }
    let operands: Vec<&str> = operands.split(',').collect();
    if operands.len() != call.inputs.len() {
        return Err("has another number of operands than its equation".to_owned());
    }
    let mut sizes: BTreeMap<char, Size> = BTreeMap::new();
    for (index, letters) in operands.iter().enumerate() {
        let dims = call.dims(index)?;
        if letters.chars().count() != dims.len() {
            return Err("has an operand of another rank than its equation".to_owned());
        }
        let mut seen = Vec::new();
        for (letter, size) in letters.chars().zip(dims) {
            let again = seen.contains(&letter);
            seen.push(letter);
            if again && !size.is_batch_free() {
                return Err("takes a diagonal of the rows".to_owned());
            }
            match sizes.get(&letter) {
                Some(known) if *known == size => {}
                Some(known) if !known.is_batch_free() || !size.is_batch_free() => {
                    return Err("sets the rows against a dimension that is not theirs".to_owned());
                }
                Some(known) if known.number().is_some_and(|number| number != 1) => {}
                _ => {
                    sizes.insert(letter, size);
                }
            }
        }
    }
    if sizes.iter().any(|(letter, size)| !size.is_batch_free() && !result.contains(*letter)) {
        return Err("sums over the rows".to_owned());
    }
    let dims = result.chars().map(|letter| sizes.get(&letter).cloned().ok_or_else(uses_row_count));
    one(dims.collect::<Result<Dims>>()?)
}

/// Fails where rows are along another axis than the first.
pub(super) fn rows_first(call: &Call<'_>, input: usize) -> Result<()> {
    match call.rows(input)? {
        Some(rows) if rows.axis() != 0 => Err(over_rows("works over", rows.axis())),
        _ => Ok(()),
    }
}
