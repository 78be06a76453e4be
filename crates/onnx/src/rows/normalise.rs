//! Reductions, normalisations and quantisation: what runs over an axis must not run over the rows.

use super::call::{Call, Made, one, several};
use super::linear::rows_first;
use super::numbers::Numbers;
use super::shape::known_axes;
use super::size::Size;
use super::value::{Dims, Result, Value, over_rows};

/// `ReduceSum` and its kin.
pub(super) fn reduce(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    if let Some(product) = product_of_shape(call) {
        return Ok(vec![product]);
    }
    let dims = call.dims(0)?;
    let named = match (call.optional(1), call.node.ints("axes")) {
        (Some(_), _) => known_axes(call, 1, dims.len())?,
        (None, Some(axes)) => {
            axes.iter().map(|&axis| call.axis(axis, dims.len())).collect::<Result<_>>()?
        }
        (None, None) => Vec::new(),
    };
    let keeps = call.node.int("keepdims").unwrap_or(1) != 0;
    if named.is_empty() && call.node.int("noop_with_empty_axes").unwrap_or(0) != 0 {
        return one(dims);
    }
    let axes = if named.is_empty() { (0..dims.len()).collect() } else { named };
    one(reduced(&dims, &axes, keeps)?)
}

/// Shape vectors are multiplied out to flatten.
fn product_of_shape(call: &Call<'_>) -> Option<Value> {
    let numbers = call.numbers(0)?;
    if call.node.op_type != "ReduceProd" || numbers.dims().len() != 1 {
        return None;
    }
    let terms: Option<Vec<Size>> = numbers.terms().iter().cloned().collect();
    let product = Size::product(&terms?)?;
    let keeps = call.node.int("keepdims").unwrap_or(1) != 0;
    let dims: &[usize] = if keeps { &[1] } else { &[] };
    let product = Numbers::new(dims, vec![Some(product)])?;
    Some(Value::Numbers(product.with_float(numbers.is_float())))
}

fn reduced(dims: &Dims, axes: &[usize], keeps: bool) -> Result<Dims> {
    if let Some(&axis) = axes.iter().find(|&&axis| !dims[axis].is_batch_free()) {
        return Err(over_rows("reduces over", axis));
    }
    let all = dims.iter().enumerate();
    Ok(all
        .filter(|(axis, _)| keeps || !axes.contains(axis))
        .map(|(axis, size)| if axes.contains(&axis) { Size::known(1) } else { size.clone() })
        .collect())
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg_reduce(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let axis = call.axis_attribute(0, dims.len())?;
    one(reduced(&dims, &[axis], call.node.int("keepdims").unwrap_or(1) != 0)?)
}

/// Before opset 13 the axes from `axis` on were one.
pub(super) fn softmax(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let joined = call.opset < 13;
    let axis = call.axis_attribute(if joined { 1 } else { -1 }, dims.len())?;
    if let Some(rows) = call.rows(0)? {
        let touched = if joined { rows.axis() >= axis } else { rows.axis() == axis };
        if touched {
            return Err(over_rows("normalises over", rows.axis()));
        }
    }
    one(dims)
}

/// Works along one axis, named by an attribute or an input, and keeps the shape.
pub(super) fn along_axis(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    let dims = call.dims(0)?;
    let axis = if call.node.op_type.starts_with("Cum") {
        let axes = known_axes(call, 1, dims.len())?;
        *axes.first().ok_or("names no axis")?
    } else {
        call.axis_attribute(-1, dims.len())?
    };
    if !dims[axis].is_batch_free() {
        return Err(over_rows("runs along", axis));
    }
    one(dims)
}

/// Normalises by constants, as at inference: `[rows, channel, ..]`.
pub(super) fn batch_normalization(call: &mut Call<'_>) -> Result<Made> {
    let trains = match call.opset {
        ..7 => call.node.int("is_test").unwrap_or(0) == 0,
        7..14 => call.output_count() > 1,
        _ => call.node.int("training_mode").unwrap_or(0) != 0,
    };
    if trains {
        return Err("takes the mean and variance of all rows, as in training".to_owned());
    }
    call.only_constants_from(1)?;
    per_sample(call)
}

/// Normalises each sample by itself: `[rows, channel, ..]`.
pub(super) fn per_sample(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    rows_first(call, 0)?;
    let dims = call.dims(0)?;
    if call.has_rows() && dims.len() < 2 {
        return Err("takes the rows for channels".to_owned());
    }
    one(dims)
}

/// Normalises over the axes from `axis` on, and tells mean and deviation.
pub(super) fn layer_normalization(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let axis = call.axis_attribute(-1, dims.len())?;
    call.only_constants_from(1)?;
    normalised(call, dims, axis)
}

/// Finishes a normalisation over the axes from `axis` on.
pub(super) fn normalised(call: &mut Call<'_>, dims: Dims, axis: usize) -> Result<Made> {
    if let Some(rows_axis) = dims.iter().position(|size| !size.is_batch_free())
        && rows_axis >= axis
    {
        return Err(over_rows("normalises over", rows_axis));
    }
    // Scale and bias are as wide as what is normalised; wider ones would reach the rows.
    for index in 1..call.inputs.len().min(3) {
        let Some(value) = call.optional(index) else { continue };
        let width = value.dims().map(|dims| dims.len());
        if call.has_rows() && width.is_none_or(|width| width > dims.len() - axis) {
            return Err("scales by what is wider than a row".to_owned());
        }
    }
    let mut statistics = dims.clone();
    for size in statistics.iter_mut().skip(axis) {
        *size = Size::known(1);
    }
    let mut made = vec![dims];
    made.resize(call.output_count().max(1), statistics);
    several(made)
}

/// By default over rows and places at once.
pub(super) fn mean_variance(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let axes = call.node.ints("axes").unwrap_or(&[0, 2, 3]);
    for &axis in axes {
        let axis = call.axis(axis, dims.len())?;
        if !dims[axis].is_batch_free() {
            return Err(over_rows("normalises over", axis));
        }
    }
    one(dims)
}

/// `QuantizeLinear` and `DequantizeLinear` with constant scales, none of them along the rows.
pub(super) fn quantise(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    let dims = call.dims(0)?;
    if let Some(rows) = call.rows(0)? {
        let scale = call.dims(1)?;
        let per_tensor = scale.iter().all(Size::is_one) && scale.len() < 2;
        if !per_tensor {
            let axis = call.axis_attribute(1, dims.len())?;
            if scale.len() != 1 || axis == rows.axis() {
                return Err(over_rows("scales by a constant for each place of", rows.axis()));
            }
        }
    }
    one(dims)
}
