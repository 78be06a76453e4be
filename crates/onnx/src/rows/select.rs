//! Operators that pick, join and part.

use super::call::{Call, Made, one, several, uses_row_count};
use super::numbers::Numbers;
use super::shape::known_axes;
use super::size::Size;
use super::value::{Dims, Result, Value, over_rows};

/// Joins tensors along an axis that is not that of the rows.
pub(super) fn concat(call: &mut Call<'_>) -> Result<Made> {
    if call.inputs.len() == 1 {
        return Ok(vec![call.value(0)?.clone()]);
    }
    if let Some(numbers) = concatenated_numbers(call)? {
        return Ok(vec![Value::Numbers(numbers)]);
    }
    let parts: Vec<Dims> = (0..call.inputs.len()).map(|i| call.dims(i)).collect::<Result<_>>()?;
    let mut joined = parts.first().ok_or("joins nothing")?.clone();
    // Before opset 4 the axis had a default.
    let axis = call.axis_attribute(1, joined.len())?;
    let mut total = Some(0_i64);
    for part in &parts {
        if part.len() != joined.len() {
            return Err("joins tensors of different ranks".to_owned());
        }
        if !part[axis].is_batch_free() {
            return Err(over_rows("joins along", axis));
        }
        total = total.zip(part[axis].number()).and_then(|(total, own)| total.checked_add(own));
        for (other, size) in part.iter().enumerate().filter(|(other, _)| *other != axis) {
            if *size != joined[other] {
                if !size.is_batch_free() || !joined[other].is_batch_free() {
                    return Err("joins rows with what are none".to_owned());
                }
                // Equal at run time, so a number says it for a symbol too.
                if joined[other].number().is_none() {
                    joined[other] = size.clone();
                }
            }
        }
    }
    joined[axis] = total.map_or_else(|| call.dimension(), Size::known);
    one(joined)
}

fn concatenated_numbers(call: &mut Call<'_>) -> Result<Option<Numbers>> {
    let any = (0..call.inputs.len()).any(|index| call.numbers(index).is_some());
    if !any || call.has_rows() {
        return Ok(None);
    }
    let mut parts = Vec::new();
    for index in 0..call.inputs.len() {
        parts.push(match call.value(index)?.clone() {
            Value::Numbers(numbers) => Some(numbers),
            Value::Same(Some(dims)) => Numbers::unknown(&dims, call.symbols),
            _ => None,
        });
    }
    let parts: Option<Vec<Numbers>> = parts.into_iter().collect();
    Ok(match parts {
        Some(parts) => {
            let rank = parts.first().map_or(0, |part| part.dims().len());
            let axis = call.axis_attribute(1, rank)?;
            Numbers::concatenate(&parts, axis)
        }
        None => None,
    })
}

/// Parts a tensor along an axis that is not that of the rows.
pub(super) fn split(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants(&[1])?;
    let dims = call.value(0)?.dims().ok_or("parts a value whose shape is not known")?;
    let axis = call.axis_attribute(0, dims.len())?;
    if !dims[axis].is_batch_free() {
        return Err(over_rows("parts", axis));
    }
    let count = call.output_count();
    let sizes = match (call.optional(1), call.node.ints("split")) {
        (Some(_), _) => call.known(1),
        (None, Some(sizes)) => Some(sizes.to_vec()),
        (None, None) => dims[axis].number().and_then(|total| even_parts(total, count)),
    };
    let sizes = sizes.filter(|sizes| sizes.len() == count);
    if let Some(numbers) = call.numbers(0).cloned() {
        let parts = sizes.as_ref().and_then(|sizes| split_numbers(&numbers, axis, sizes));
        let parts = parts.ok_or_else(uses_row_count)?;
        return Ok(parts.into_iter().map(Value::Numbers).collect());
    }
    let part = |index: usize, call: &mut Call<'_>| {
        let known = sizes.as_ref().map(|sizes| Size::known(sizes[index]));
        let mut part = dims.clone();
        part[axis] = known.unwrap_or_else(|| call.dimension());
        part
    };
    let parts: Vec<Dims> = (0..count).map(|index| part(index, call)).collect();
    several(parts)
}

/// Returns equal parts, of which the last may be smaller.
fn even_parts(total: i64, count: usize) -> Option<Vec<i64>> {
    let parts = i64::try_from(count).ok().filter(|&parts| parts > 0 && total >= 0)?;
    let each = total.checked_add(parts - 1)? / parts;
    let last = total.checked_sub(each.checked_mul(parts - 1)?)?;
    let mut sizes = vec![each; count];
    *sizes.last_mut()? = last;
    (last >= 0).then_some(sizes)
}

fn split_numbers(numbers: &Numbers, axis: usize, sizes: &[i64]) -> Option<Vec<Numbers>> {
    let mut start = 0_usize;
    let length = *numbers.dims().get(axis)?;
    let part = |&size: &i64| {
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        // A size is whatever the file says: no list is made of one that is past the end.
        if end > length {
            return None;
        }
        let part = numbers.select(axis, &(start..end).collect::<Vec<usize>>());
        start = end;
        part
    };
    sizes.iter().map(part).collect()
}

/// A range of indices along some axes, not that of the rows unless all of it.
pub(super) fn slice(call: &mut Call<'_>) -> Result<Made> {
    call.only_slices_of_shapes()?;
    let dims = call.value(0)?.dims().ok_or("cuts a value whose shape is not known")?;
    let ranges = slice_ranges(call, dims.len())?;
    if let Some(numbers) = call.numbers(0).cloned() {
        let mut cut = Some(numbers);
        for (axis, range) in &ranges {
            cut = cut.and_then(|numbers| {
                let indices = range.indices(numbers.dims()[*axis])?;
                numbers.select(*axis, &indices)
            });
        }
        if let Some(cut) = cut {
            return Ok(vec![Value::Numbers(cut)]);
        }
    }
    // Numbers that are not cut at known places are a tensor like others.
    call.dims(0)?;
    let mut cut = dims.clone();
    for (axis, range) in ranges {
        let dim = &dims[axis];
        if range.is_everything(dim) {
            continue;
        }
        if !dim.is_batch_free() {
            return Err(over_rows("cuts", axis));
        }
        if !range.is_batch_free() {
            return Err(uses_row_count());
        }
        let length = dim.number().and_then(|dim| {
            let count = range.indices(usize::try_from(dim).ok()?)?.len();
            i64::try_from(count).ok().map(Size::known)
        });
        cut[axis] = length.unwrap_or_else(|| call.dimension());
    }
    one(cut)
}

impl Call<'_> {
    /// Fails where a cut depends on what is in the rows.
    fn only_slices_of_shapes(&self) -> Result<()> {
        if self.inputs.iter().skip(1).flatten().any(|value| value.rows().is_some()) {
            return Err("cuts where the rows say".to_owned());
        }
        Ok(())
    }
}

/// Start, end and step along one axis; a part that is not known is `None`.
struct Range {
    start: Bound,
    end: Bound,
    step: Bound,
}

#[derive(Clone)]
enum Bound {
    /// Known as a product.
    Size(Size),
    /// The same for all requests, and no more is known.
    Free,
    /// Depends on the number of rows.
    RowCount,
}

impl Bound {
    fn number(&self) -> Option<i64> {
        match self {
            Bound::Size(size) => size.number(),
            _ => None,
        }
    }

    fn is_batch_free(&self) -> bool {
        match self {
            Bound::Size(size) => size.is_batch_free(),
            Bound::Free => true,
            Bound::RowCount => false,
        }
    }
}

impl Range {
    fn is_batch_free(&self) -> bool {
        [&self.start, &self.end, &self.step].iter().all(|bound| bound.is_batch_free())
    }

    /// Returns whether the range is the whole axis, whose size is `dim`.
    fn is_everything(&self, dim: &Size) -> bool {
        let to_end = match &self.end {
            // Exporters write the largest number of 32 or 64 bits for "to the end".
            Bound::Size(end) => end == dim || end.number() >= Some(i64::from(i32::MAX)),
            _ => false,
        };
        self.start.number() == Some(0) && self.step.number() == Some(1) && to_end
    }

    /// Returns the indices along an axis of `length`, where all is known and small.
    fn indices(&self, length: usize) -> Option<Vec<usize>> {
        let (start, end) = (self.start.number()?, self.end.number()?);
        let step = self.step.number().filter(|&step| step != 0)?;
        let length = i64::try_from(length).ok()?;
        let from_front = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
        let (mut at, end) = if step > 0 {
            (from_front(start).clamp(0, length), from_front(end).clamp(0, length))
        } else {
            (from_front(start).clamp(-1, length - 1), from_front(end).clamp(-1, length - 1))
        };
        // At most a few thousand are worth listing: rows are as long as the file says.
        if (end - at).unsigned_abs() > 1 << 20 {
            return None;
        }
        let mut indices = Vec::new();
        while (step > 0 && at < end) || (step < 0 && at > end) {
            indices.push(usize::try_from(at).ok()?);
            at = at.saturating_add(step);
        }
        Some(indices)
    }
}

fn slice_ranges(call: &Call<'_>, rank: usize) -> Result<Vec<(usize, Range)>> {
    let known = |value: i64| Bound::Size(Size::known(value));
    if let (true, Some(starts), Some(ends)) =
        (call.opset < 10, call.node.ints("starts"), call.node.ints("ends"))
    {
        let axes: Vec<usize> = match call.node.ints("axes") {
            Some(axes) => axes.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<_>>()?,
            None => (0..starts.len()).collect(),
        };
        if axes.len() != starts.len() || starts.len() != ends.len() || starts.len() > rank {
            return Err("cuts along the wrong number of axes".to_owned());
        }
        let range = |(&start, &end)| Range { start: known(start), end: known(end), step: known(1) };
        return Ok(axes.into_iter().zip(starts.iter().zip(ends).map(range)).collect());
    }
    let starts = call.value(1)?.dims().and_then(|dims| dims.first().and_then(Size::number));
    let axes: Vec<usize> = match (call.optional(3), starts) {
        (Some(_), _) => known_axes(call, 3, rank)?,
        (None, Some(count)) => {
            (0..usize::try_from(count).unwrap_or(0)).filter(|&axis| axis < rank).collect()
        }
        (None, None) => return Err("cuts along axes that are not known".to_owned()),
    };
    let bound = |input: usize, place: usize| match call.optional(input) {
        None => known(1),
        Some(Value::Numbers(numbers)) => match numbers.terms().get(place) {
            Some(Some(size)) => Bound::Size(size.clone()),
            _ => Bound::RowCount,
        },
        Some(value) if value.is_batch_free() => Bound::Free,
        Some(_) => Bound::RowCount,
    };
    let range =
        |place| Range { start: bound(1, place), end: bound(2, place), step: bound(4, place) };
    Ok(axes.into_iter().enumerate().map(|(place, axis)| (axis, range(place))).collect())
}

/// Picks entries of one axis by index.
pub(super) fn gather(call: &mut Call<'_>) -> Result<Made> {
    let data_dims = call.value(0)?.dims().ok_or("picks from a value whose shape is not known")?;
    let axis = call.axis_attribute(0, data_dims.len())?;
    if let (Some(numbers), Some(indices)) = (call.numbers(0), call.numbers(1))
        && let Some(picked) = picked_numbers(numbers, indices, axis)
    {
        return Ok(vec![Value::Numbers(picked)]);
    }
    let data_dims = call.dims(0)?;
    let index_dims = call.dims(1)?;
    if !data_dims[axis].is_batch_free() {
        return Err(over_rows("picks entries of", axis));
    }
    if call.rows(0)?.is_some() && call.rows(1)?.is_some() {
        return Err("picks from all rows for each row".to_owned());
    }
    let mut dims: Dims = data_dims[..axis].iter().cloned().collect();
    dims.extend(index_dims);
    dims.extend(data_dims[axis + 1..].iter().cloned());
    one(dims)
}

fn picked_numbers(numbers: &Numbers, indices: &Numbers, axis: usize) -> Option<Numbers> {
    let length = i64::try_from(*numbers.dims().get(axis)?).ok()?;
    let places: Option<Vec<usize>> = indices
        .known()?
        .into_iter()
        .map(|index| usize::try_from(if index < 0 { index + length } else { index }).ok())
        .collect();
    let picked = numbers.select(axis, &places?)?;
    let mut dims = numbers.dims()[..axis].to_vec();
    dims.extend_from_slice(indices.dims());
    dims.extend_from_slice(&numbers.dims()[axis + 1..]);
    picked.reshaped(&dims)
}

/// Picks or puts one element for each index, at the same place but along one axis.
pub(super) fn by_element(call: &mut Call<'_>) -> Result<Made> {
    let operands: Vec<Dims> =
        (0..call.inputs.len()).map(|index| call.dims(index)).collect::<Result<_>>()?;
    let axis = call.axis_attribute(0, operands[0].len())?;
    for dims in &operands {
        if dims.len() != operands[0].len() {
            return Err("takes tensors of different ranks".to_owned());
        }
        for (other, size) in dims.iter().enumerate() {
            let rows = !size.is_batch_free() || !operands[0][other].is_batch_free();
            if rows && other == axis {
                return Err(over_rows("picks entries of", axis));
            }
            if rows && *size != operands[0][other] {
                return Err("pairs rows with what are none".to_owned());
            }
        }
    }
    // Picking gives what the indices are many of; putting gives the data back.
    let shape = if call.node.op_type == "GatherElements" { 1 } else { 0 };
    one(operands[shape].clone())
}

/// Picks slices by coordinates; rows stay apart where they are a leading axis of both.
pub(super) fn gather_nd(call: &mut Call<'_>) -> Result<Made> {
    let (data, indices) = (call.dims(0)?, call.dims(1)?);
    let shared = usize::try_from(call.node.int("batch_dims").unwrap_or(0)).unwrap_or(usize::MAX);
    let coordinates = indices.last().and_then(Size::number).and_then(|n| usize::try_from(n).ok());
    let coordinates = coordinates.ok_or("takes coordinates of unknown length")?;
    let used = shared.saturating_add(coordinates);
    if used > data.len() || shared >= indices.len() {
        return Err("takes more coordinates than there are axes".to_owned());
    }
    match (call.rows(0)?, call.rows(1)?) {
        (Some(rows), Some(picks))
            if rows.axis() != picks.axis()
                || rows.axis() >= shared
                || rows.size() != picks.size() =>
        {
            return Err("picks from all rows for each row".to_owned());
        }
        (Some(rows), None) if rows.axis() < used => {
            return Err(over_rows("picks entries of", rows.axis()));
        }
        (None, Some(picks)) if picks.axis() < shared || picks.axis() + 1 == indices.len() => {
            return Err("pairs rows with what are none".to_owned());
        }
        _ => {}
    }
    let mut dims: Dims = indices[..indices.len() - 1].iter().cloned().collect();
    dims.extend(data[used..].iter().cloned());
    one(dims)
}

/// Reverses the first entries of each row's sequence.
pub(super) fn reverse_sequence(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.dims(0)?;
    let attribute = |name, default| call.axis(call.node.int(name).unwrap_or(default), dims.len());
    let batch_axis = attribute("batch_axis", 1)?;
    let lengths = call.rows(1)?;
    let fits = match (call.rows(0)?, lengths) {
        (Some(rows), Some(lengths)) => {
            rows.axis() == batch_axis && lengths.dims().len() == 1 && lengths.size() == rows.size()
        }
        (None, None) => true,
        _ => false,
    };
    if fits { one(dims) } else { Err("reverses along the rows".to_owned()) }
}

/// The largest entries along an axis, and where they are.
pub(super) fn top_k(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants(&[1])?;
    let mut dims = call.dims(0)?;
    let axis = call.axis_attribute(-1, dims.len())?;
    if !dims[axis].is_batch_free() {
        return Err(over_rows("sorts along", axis));
    }
    let single = call.numbers(1).and_then(Numbers::single).cloned().flatten();
    let count = single.or_else(|| call.node.int("k").map(Size::known));
    dims[axis] = count.filter(Size::is_dimension).unwrap_or_else(|| call.dimension());
    several([dims.clone(), dims])
}
