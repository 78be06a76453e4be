//! Attention in one node: each row attends to its own tokens.

use super::call::{Call, Made, one, several};
use super::linear::rows_first;
use super::size::Size;
use super::value::{Dims, Result, Value};

/// Fails unless an input, if it is there, consists of the same rows as the query.
fn belongs_to_rows(call: &Call<'_>, input: usize, rows: &Size) -> Result<()> {
    if call.optional(input).is_none() {
        return Ok(());
    }
    let dims = call.dims(input)?;
    rows_first(call, input)?;
    if dims.first() == Some(rows) {
        Ok(())
    } else {
        Err("pairs rows with what are none".to_owned())
    }
}

/// Fails unless an input, if it is there, is made of the query's rows or is the same for each row.
/// It is of rank `rank` where its first axis is that of the rows.
fn fits_each_row(call: &Call<'_>, input: usize, rank: usize, rows: &Size) -> Result<()> {
    let shared = match call.optional(input) {
        None => return Ok(()),
        Some(Value::Rows(_)) => false,
        Some(value) => value.dims().is_some_and(|dims| {
            value.is_batch_free() && (dims.len() < rank || dims.first().is_some_and(Size::is_one))
        }),
    };
    if shared {
        return Ok(());
    }
    belongs_to_rows(call, input, rows)?;
    if call.dims(input)?.len() == rank {
        Ok(())
    } else {
        Err("takes a mask whose first axis is not that of the rows".to_owned())
    }
}

/// ONNX's own `Attention`: `[rows, token, hidden]` or `[rows, head, token, width]`.
pub(super) fn attention(call: &mut Call<'_>) -> Result<Made> {
    let (query, key, value) = (call.dims(0)?, call.dims(1)?, call.dims(2)?);
    let rows = query.first().cloned().ok_or("attends to a scalar")?;
    // Then a mask, the keys and values of earlier tokens, and how many tokens are no padding.
    for input in [0, 1, 2, 4, 5, 6] {
        belongs_to_rows(call, input, &rows)?;
    }
    fits_each_row(call, 3, 4, &rows)?;
    if query.len() != key.len() || key.len() != value.len() || !matches!(query.len(), 3 | 4) {
        return Err("takes query, key and value of different ranks".to_owned());
    }
    let mut answer = query.clone();
    answer[query.len() - 1] = if query.len() == 4 {
        value[3].clone()
    } else {
        let heads = |name: &str| call.node.int(name).map(Size::known);
        let width = heads("kv_num_heads").and_then(|heads| value[2].divided_by(&heads));
        let hidden = heads("q_num_heads").zip(width).and_then(|(heads, width)| heads.times(&width));
        hidden.unwrap_or_else(|| call.dimension())
    };
    let unknown = |call: &mut Call<'_>| -> Dims {
        std::iter::once(rows.clone()).chain((0..3).map(|_| call.dimension())).collect()
    };
    let rest = [unknown(call), unknown(call), unknown(call)];
    several(std::iter::once(answer).chain(rest).take(call.output_count().max(1)))
}

/// Turns pairs of features by an angle that depends on the token's place.
///
/// `tables` are the inputs with cosine and sine, `places` the one with each token's place. Without
/// it the tables are made for each row.
pub(super) fn rotary(call: &mut Call<'_>, tables: [usize; 2], places: usize) -> Result<Made> {
    let dims = call.dims(0)?;
    rows_first(call, 0)?;
    let rows = dims.first().cloned().ok_or("turns a scalar")?;
    if call.optional(places).is_some() {
        call.only_constants(&tables)?;
        let given = call.dims(places)?;
        if given.iter().all(Size::is_one) {
            return one(dims);
        }
        belongs_to_rows(call, places, &rows)?;
    } else {
        for table in tables {
            belongs_to_rows(call, table, &rows)?;
        }
    }
    one(dims)
}

/// `com.microsoft.MultiHeadAttention` of `[rows, token, hidden]`, without a cache of earlier tokens.
pub(super) fn multi_head(call: &mut Call<'_>) -> Result<Made> {
    // Query, key, value, bias, padding mask, attention bias, then the cache.
    if call.inputs.iter().skip(6).any(Option::is_some) || call.wants(1) {
        return Err("keeps a cache of earlier tokens".to_owned());
    }
    call.only_constants(&[3])?;
    if call.optional(1).is_none() || call.optional(2).is_none() {
        return Err("takes its parts packed, which is not followed".to_owned());
    }
    let query = call.dims(0)?;
    let rows = query.first().cloned().ok_or("attends to a scalar")?;
    for input in 0..3 {
        belongs_to_rows(call, input, &rows)?;
        if call.dims(input)?.len() != 3 {
            return Err("takes query, key and value of different ranks".to_owned());
        }
    }
    belongs_to_rows(call, 4, &rows)?;
    fits_each_row(call, 5, 4, &rows)?;
    let hidden = call.dims(2)?[2].clone();
    one(Dims::from_iter([rows, query[1].clone(), hidden]))
}
