//! Recurrent layers, which keep the rows of a batch apart and run along the sequence.

use super::call::{Call, Made, several};
use super::size::Size;
use super::value::{Dims, Result, over_rows};

/// `LSTM`, `GRU` and `RNN`. With `layout` 0 the sequence comes first and the rows second.
pub(super) fn recurrent(call: &mut Call<'_>) -> Result<Made> {
    let is_lstm = call.node.op_type == "LSTM";
    let rows_axis = if call.node.int("layout").unwrap_or(0) == 0 { 1 } else { 0 };
    let dims = call.dims(0)?;
    if dims.len() != 3 {
        return Err("takes what is no sequence".to_owned());
    }
    match call.rows(0)? {
        Some(rows) if rows.axis() != rows_axis => {
            return Err(over_rows("takes as its sequence or features", rows.axis()));
        }
        Some(_) => {}
        None if call.has_rows() => return Err("pairs rows with what are none".to_owned()),
        None => {}
    }
    // Weights and bias, and the peepholes of an LSTM.
    call.only_constants(&[1, 2, 3])?;
    if is_lstm {
        call.only_constants(&[7])?;
    }
    let states: &[(usize, usize)] =
        if is_lstm { &[(4, 0), (5, rows_axis), (6, rows_axis)] } else { &[(4, 0), (5, rows_axis)] };
    for &(input, axis) in states {
        if call.optional(input).is_some() {
            let state = call.dims(input)?;
            if state.get(axis) != Some(&dims[rows_axis]) {
                return Err("starts from a state that is not made for each row".to_owned());
            }
        }
    }

    let hidden = match call.node.int("hidden_size") {
        Some(size) => Size::known(size),
        None => call.dimension(),
    };
    let both = call.node.text("direction") == Some("bidirectional");
    let directions = Size::known(if both { 2 } else { 1 });
    let rows = dims[rows_axis].clone();
    let sequence = dims[1 - rows_axis].clone();
    let (all, last) = if rows_axis == 1 {
        (
            Dims::from_iter([sequence, directions.clone(), rows.clone(), hidden.clone()]),
            Dims::from_iter([directions, rows, hidden]),
        )
    } else {
        (
            Dims::from_iter([rows.clone(), sequence, directions.clone(), hidden.clone()]),
            Dims::from_iter([rows, directions, hidden]),
        )
    };
    several([all, last.clone(), last].into_iter().take(if is_lstm { 3 } else { 2 }))
}
