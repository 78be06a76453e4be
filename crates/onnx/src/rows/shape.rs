//! Operators that make shapes and tensors of a shape.

use super::call::{Call, Made, one, uses_row_count};
use super::evaluate::constant as constant_tensor;
use super::numbers::{MAX_TERMS, Numbers};
use super::size::Size;
use super::value::{Dims, Result, Value, broadcast, over_rows};
use crate::graph::{AttributeValue, List, Values};

/// A value that the file holds.
pub(super) fn constant(call: &mut Call<'_>) -> Result<Made> {
    let attribute = call.node.attributes.first().ok_or("has no value")?;
    let numbers = |dims: &[usize], values: &[i64]| {
        let terms = values.iter().map(|&value| Some(Size::known(value))).collect();
        Numbers::new(dims, terms).map(Value::Numbers)
    };
    fn vector<T>(list: &List<T>) -> Value {
        let length = i64::try_from(list.count()).ok();
        Value::Same(length.map(|length| Dims::from_iter([Size::known(length)])))
    }
    let value = match &attribute.value {
        AttributeValue::Tensor(tensor) => constant_tensor(tensor),
        AttributeValue::Int(value) => numbers(&[], &[*value]).ok_or("has no value")?,
        AttributeValue::Ints(list) => list
            .complete()
            .and_then(|values| numbers(&[values.len()], values))
            .unwrap_or_else(|| vector(list)),
        AttributeValue::Float(_) | AttributeValue::String(_) => Value::Same(Some(Dims::new())),
        AttributeValue::Floats(list) => vector(list),
        AttributeValue::Strings(list) => vector(list),
        _ => Value::Same(None),
    };
    Ok(vec![value])
}

/// The dimensions of a value, as numbers.
pub(super) fn shape(call: &mut Call<'_>) -> Result<Made> {
    let Some(dims) = call.value(0)?.dims() else {
        // The same value has the same shape.
        return if call.value(0)?.is_batch_free() {
            Ok(vec![Value::Same(None)])
        } else {
            Err("tells the shape of a value whose shape is not known".to_owned())
        };
    };
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let clamp = |place: i64| {
        let place = if place < 0 { place.saturating_add(rank) } else { place };
        usize::try_from(place.clamp(0, rank)).unwrap_or(0)
    };
    let start = clamp(call.node.int("start").unwrap_or(0));
    let end = clamp(call.node.int("end").unwrap_or(i64::MAX));
    let terms = dims.get(start..end).unwrap_or(&[]).iter().cloned().map(Some).collect();
    Ok(vec![Value::Numbers(Numbers::vector(terms).ok_or_else(uses_row_count)?)])
}

/// The number of elements.
pub(super) fn size(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.value(0)?.dims().ok_or("counts a value whose shape is not known")?;
    let numbers = Numbers::new(&[], vec![Size::product(&dims)]).ok_or_else(uses_row_count)?;
    Ok(vec![Value::Numbers(numbers)])
}

/// Returns numbers as dimensions.
fn as_dims(numbers: &Numbers) -> Result<Dims> {
    numbers.terms().iter().cloned().collect::<Option<Dims>>().ok_or_else(uses_row_count)
}

/// A tensor full of one value: rows of that value where the shape has the number of rows in it.
pub(super) fn constant_of_shape(call: &mut Call<'_>) -> Result<Made> {
    let Some(numbers) = call.numbers(0) else {
        return Err("fills a shape that is not known".to_owned());
    };
    let dims = as_dims(numbers)?;
    let fill = match call.node.attribute("value") {
        Some(AttributeValue::Tensor(tensor)) => match &tensor.values {
            Some(Values::Ints(values)) => values.first().copied(),
            _ => None,
        },
        // The default is the float 0.
        _ => None,
    };
    let known: Option<Vec<usize>> =
        dims.iter().map(|size| size.number().and_then(|n| usize::try_from(n).ok())).collect();
    let filled = fill.zip(known).and_then(|(fill, dims)| {
        let count = dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(dim))?;
        let terms = vec![Some(Size::known(fill)); Some(count).filter(|&c| c <= MAX_TERMS)?];
        Numbers::new(&dims, terms)
    });
    match filled {
        Some(numbers) => Ok(vec![Value::Numbers(numbers)]),
        None => one(dims),
    }
}

/// Counting up: the same for all requests, unless up to the number of rows.
pub(super) fn range(call: &mut Call<'_>) -> Result<Made> {
    if !call.inputs.iter().flatten().all(Value::is_batch_free) {
        return Err("numbers the rows through".to_owned());
    }
    let single = |index: usize| call.numbers(index).and_then(Numbers::single).cloned().flatten();
    let (start, limit, step) = (single(0), single(1), single(2));
    let number = |size: &Option<Size>| size.as_ref().and_then(Size::number);
    let is_float = call.numbers(0).is_some_and(Numbers::is_float);
    if let (Some(start), Some(limit), Some(step)) = (number(&start), number(&limit), number(&step))
        && step != 0
        && !is_float
    {
        let values = counted(start, limit, step);
        if let Some(values) = values {
            let terms = values.into_iter().map(|value| Some(Size::known(value))).collect();
            return Ok(vec![Value::Numbers(Numbers::vector(terms).ok_or_else(uses_row_count)?)]);
        }
    }
    let length = match (number(&start), limit, number(&step)) {
        (Some(0), Some(limit), Some(1)) if limit.is_dimension() => limit,
        _ => call.dimension(),
    };
    one(Dims::from_iter([length]))
}

/// Returns the numbers from `start` to before `limit`, or `None` where there are many.
fn counted(start: i64, limit: i64, step: i64) -> Option<Vec<i64>> {
    let mut values = Vec::new();
    let mut next = Some(start);
    while let Some(value) = next {
        if (step > 0 && value >= limit) || (step < 0 && value <= limit) {
            return Some(values);
        }
        if values.len() == MAX_TERMS {
            return None;
        }
        values.push(value);
        next = value.checked_add(step);
    }
    Some(values)
}

/// Repeats along dimensions of 1.
pub(super) fn expand(call: &mut Call<'_>) -> Result<Made> {
    let Some(shape) = call.numbers(1).cloned() else {
        call.only_constants(&[1])?;
        return Err("expands to a shape that is not known".to_owned());
    };
    let target = as_dims(&shape)?;
    if let (Some(numbers), Some(known)) = (call.numbers(0), shape.known()) {
        let known: Option<Vec<usize>> =
            known.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        // A target of 1 keeps the dimension, so the common shape decides.
        let common = known.and_then(|known| {
            let rank = known.len().max(numbers.dims().len());
            let at = |dims: &[usize], axis: usize| {
                (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis])
            };
            let pick = |axis| match (at(numbers.dims(), axis), at(&known, axis)) {
                (own, 1) => own,
                (_, wanted) => wanted,
            };
            numbers.broadcast_to(&(0..rank).map(pick).collect::<Vec<usize>>())
        });
        if let Some(numbers) = common {
            return Ok(vec![Value::Numbers(numbers)]);
        }
    }
    let dims = call.dims(0)?;
    one(broadcast(&dims, &target, call.symbols)?)
}

/// Repeats a tensor along its axes. A single row repeated for each request is rows; rows repeated
/// would follow each other across requests.
pub(super) fn tile(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let rows_axis = call.rows(0)?.map(super::value::Rows::axis);
    let Some(repeats) = call.numbers(1) else {
        return Err("repeats a number of times that is not known".to_owned());
    };
    let repeats = as_dims(repeats)?;
    if repeats.len() != dims.len() {
        return Err("repeats along the wrong number of axes".to_owned());
    }
    let mut tiled = Dims::new();
    for (axis, (dim, repeat)) in dims.iter().zip(&repeats).enumerate() {
        if Some(axis) == rows_axis && !repeat.is_one() {
            return Err(over_rows("repeats", axis));
        }
        let product = dim.times(repeat);
        let free = dim.is_batch_free() && repeat.is_batch_free();
        tiled.push(match product {
            Some(product) => product,
            None if free => call.dimension(),
            None => return Err(uses_row_count()),
        });
    }
    one(tiled)
}

/// One more axis, as long as there are classes.
pub(super) fn one_hot(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    let mut dims = call.dims(0)?;
    let axis = call.axis_attribute(-1, dims.len() + 1)?;
    let depth = call.numbers(1).and_then(Numbers::single).cloned().flatten();
    let depth = depth.filter(Size::is_dimension).unwrap_or_else(|| call.dimension());
    dims.insert(axis, depth);
    one(dims)
}

/// Keeps a triangle of each matrix in the last two axes.
pub(super) fn trilu(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    let dims = call.dims(0)?;
    if let Some(rows) = call.rows(0)?
        && rows.axis() + 2 >= dims.len()
    {
        return Err(over_rows("keeps a triangle over", rows.axis()));
    }
    one(dims)
}

/// Adds a border, never to the rows.
pub(super) fn pad(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants(&[2, 3])?;
    let dims = call.dims(0)?;
    let pads: Vec<Option<Size>> = match (call.node.ints("pads"), call.numbers(1)) {
        (_, Some(numbers)) if call.opset >= 11 => numbers.terms().to_vec(),
        (Some(pads), _) => pads.iter().map(|&pad| Some(Size::known(pad))).collect(),
        _ => return Err("adds a border whose width is not known".to_owned()),
    };
    let axes: Vec<usize> = match call.optional(3) {
        None => (0..dims.len()).collect(),
        Some(_) => known_axes(call, 3, dims.len())?,
    };
    if pads.len() != 2 * axes.len() {
        return Err("adds a border along the wrong number of axes".to_owned());
    }
    let mut padded = dims.clone();
    for (place, &axis) in axes.iter().enumerate() {
        let ends = [&pads[place], &pads[place + axes.len()]];
        if ends.iter().all(|end| end.as_ref().and_then(Size::number) == Some(0)) {
            continue;
        }
        if !dims[axis].is_batch_free() {
            return Err(over_rows("adds a border to", axis));
        }
        let mut total = dims[axis].number();
        for end in ends {
            let end = end.as_ref().ok_or_else(uses_row_count)?;
            if !end.is_batch_free() {
                return Err(uses_row_count());
            }
            total = total.zip(end.number()).and_then(|(total, end)| total.checked_add(end));
        }
        padded[axis] = total.map_or_else(|| call.dimension(), Size::known);
    }
    one(padded)
}

/// Reads axes from an input that must be known.
pub(super) fn known_axes(call: &Call<'_>, input: usize, rank: usize) -> Result<Vec<usize>> {
    let axes = call.known(input).ok_or("takes axes that are not known")?;
    axes.into_iter().map(|axis| call.axis(axis, rank)).collect()
}

/// Moves blocks between channels and places: `[rows, channel, row, column]`.
pub(super) fn depth_and_space(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let block = Size::known(call.node.int("blocksize").ok_or("lacks its block size")?);
    if call.rows(0)?.is_some_and(|rows| rows.axis() != 0) || dims.len() != 4 {
        return Err("moves blocks where the rows are".to_owned());
    }
    let square = block.times(&block).ok_or("has a block size that is too large")?;
    let to_space = call.node.op_type == "DepthToSpace";
    let mut moved = dims.clone();
    for (axis, by) in [(1, &square), (2, &block), (3, &block)] {
        let grows = (axis == 1) != to_space;
        let size = if grows { dims[axis].times(by) } else { dims[axis].divided_by(by) };
        moved[axis] = size.unwrap_or_else(|| call.dimension());
    }
    one(moved)
}

/// Scales axes, never that of the rows.
pub(super) fn resize(call: &mut Call<'_>) -> Result<Made> {
    let (scales_input, sizes_input) = match (call.node.op_type.as_str(), call.opset) {
        ("Resize", 11..) => (2, 3),
        _ => (1, usize::MAX),
    };
    call.only_constants(&[1, 2])?;
    let dims = call.dims(0)?;
    let mode = call.node.text("coordinate_transformation_mode").unwrap_or_default();
    if mode == "tf_crop_and_resize" {
        return Err("cuts regions out while it scales".to_owned());
    }
    let axes: Vec<usize> = match call.node.ints("axes") {
        None => (0..dims.len()).collect(),
        Some(axes) => {
            axes.iter().map(|&axis| call.axis(axis, dims.len())).collect::<Result<_>>()?
        }
    };
    let wrong_count = || "scales the wrong number of axes".to_owned();
    let mut resized = dims.clone();
    if let Some(sizes) = call.numbers(sizes_input).cloned() {
        let policy = call.node.text("keep_aspect_ratio_policy").unwrap_or("stretch");
        if sizes.terms().len() != axes.len() {
            return Err(wrong_count());
        }
        for (&axis, size) in axes.iter().zip(sizes.terms()) {
            let same = size.as_ref() == Some(&dims[axis]);
            let rows = !dims[axis].is_batch_free();
            if rows && !(same && policy == "stretch") {
                return Err(over_rows("scales", axis));
            }
            if !rows {
                let size = size.as_ref().filter(|size| size.is_batch_free());
                let size = size.ok_or_else(uses_row_count)?;
                let exact = policy == "stretch" && size.is_dimension();
                resized[axis] = if exact { size.clone() } else { call.dimension() };
            }
        }
        return one(resized);
    }
    if call.optional(sizes_input).is_some() {
        return Err("scales to a size that is not known".to_owned());
    }
    let listed = match call.node.attribute("scales") {
        Some(AttributeValue::Floats(list)) => list.complete(),
        _ => None,
    };
    let scales = call.known_floats(scales_input).or(listed);
    let scales = scales.ok_or("scales by factors that are not known")?.to_vec();
    if scales.len() != axes.len() {
        return Err(wrong_count());
    }
    for (&axis, &scale) in axes.iter().zip(&scales) {
        #[allow(clippy::float_cmp, reason = "a scale of exactly 1 leaves the axis as it is")]
        if scale == 1.0 {
            continue;
        }
        if !dims[axis].is_batch_free() {
            return Err(over_rows("scales", axis));
        }
        resized[axis] = call.dimension();
    }
    one(resized)
}
