//! Operators of `com.microsoft`, which ONNX Runtime's tools write in place of groups of others. Only
//! those whose documentation leaves no doubt are followed.

use super::attention;
use super::call::{Call, Made, one, several};
use super::linear::{self, quantised_per_tensor, rows_first};
use super::normalise;
use super::size::Size;
use super::table::ONE_SCALE;
use super::value::{Dims, Result, over_rows};
use super::window;

pub(super) fn transfer(call: &mut Call<'_>) -> Result<Made> {
    match call.node.op_type.as_str() {
        "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" | "DynamicQuantizeLinear" => {
            Err(ONE_SCALE.to_owned())
        }
        "Gelu" | "QuickGelu" | "FastGelu" | "BiasGelu" => {
            let inputs: Vec<usize> = (0..call.inputs.len().min(2)).collect();
            call.only_constants_from(1)?;
            one(call.broadcast_inputs(&inputs)?)
        }
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_norm(call),
        "SimplifiedLayerNormalization" | "LayerNormalization" => {
            normalise::layer_normalization(call)
        }
        "EmbedLayerNormalization" => embed_norm(call),
        "FusedMatMul" | "TransposeMatMul" => fused_matmul(call),
        "FusedGemm" => linear::gemm(call),
        "FusedConv" if call.optional(3).is_none() => window::conv(call),
        "MatMulNBits" | "MatMulBnb4" | "MatMulFpQ4" => matmul_of_blocks(call),
        "MatMulIntegerToFloat" => {
            call.only_constants_from(2)?;
            quantised_per_tensor(call, &[2, 4])?;
            one(linear::product(call, 0, 1)?)
        }
        "QLinearAdd" | "QLinearMul" => {
            call.only_constants(&[1, 2, 4, 5, 6, 7])?;
            quantised_per_tensor(call, &[1, 2, 4, 5, 6, 7])?;
            one(call.broadcast_inputs(&[0, 3])?)
        }
        "QLinearSigmoid" | "QLinearLeakyRelu" => {
            call.only_constants_from(1)?;
            quantised_per_tensor(call, &[1, 2, 3, 4])?;
            one(call.dims(0)?)
        }
        "QuantizeLinear" | "DequantizeLinear" => normalise::quantise(call),
        "MultiHeadAttention" => attention::multi_head(call),
        "RotaryEmbedding" => attention::rotary(call, [2, 3], 1),
        _ => Err("is not known to keep rows apart".to_owned()),
    }
}

/// The sum of two tensors, normalised over the last axis.
fn skip_norm(call: &mut Call<'_>) -> Result<Made> {
    let dims = call.broadcast_inputs(&[0, 1])?;
    call.only_constants_from(2)?;
    let axis = dims.len().checked_sub(1).ok_or("normalises a scalar")?;
    for index in 2..call.inputs.len() {
        let Some(value) = call.optional(index) else { continue };
        if value.dims().is_none_or(|dims| dims.len() > 1) {
            return Err("scales by what is wider than a row".to_owned());
        }
    }
    if !dims[axis].is_batch_free() {
        return Err(over_rows("normalises over", axis));
    }
    let mut statistics = dims.clone();
    statistics[axis] = Size::known(1);
    several([dims.clone(), statistics.clone(), statistics, dims])
}

/// Word, position and segment embeddings of `[rows, token]`, summed and normalised.
fn embed_norm(call: &mut Call<'_>) -> Result<Made> {
    // Ids, segments, three tables, scale, bias, mask, positions.
    call.only_constants(&[2, 3, 4, 5, 6])?;
    let ids = call.dims(0)?;
    rows_first(call, 0)?;
    if ids.len() != 2 {
        return Err("takes what are no rows of tokens".to_owned());
    }
    for index in [1, 7, 8] {
        if call.optional(index).is_some() {
            let dims = call.dims(index)?;
            let own_positions = index == 8 && dims.first().is_some_and(Size::is_one);
            if dims.first() != ids.first() && !own_positions {
                return Err("pairs rows with what are none".to_owned());
            }
        }
    }
    let table = call.dims(2)?;
    let hidden = table.last().cloned().ok_or("takes a table that is a scalar")?;
    let embedded = Dims::from_iter([ids[0].clone(), ids[1].clone(), hidden]);
    several([embedded.clone(), Dims::from_iter([ids[0].clone()]), embedded])
}

fn fused_matmul(call: &mut Call<'_>) -> Result<Made> {
    let flag = |name: &str| call.node.int(name).unwrap_or(0) != 0;
    if flag("transBatchA") || flag("transBatchB") {
        return Err("moves the axes of its operands in a way that is not followed".to_owned());
    }
    let (swap_left, swap_right) = (flag("transA"), flag("transB"));
    let swapped = |mut dims: Dims, swap: bool| {
        let rank = dims.len();
        if swap && rank >= 2 {
            dims.swap(rank - 1, rank - 2);
        }
        dims
    };
    let left = swapped(call.dims(0)?, swap_left);
    let right = swapped(call.dims(1)?, swap_right);
    one(linear::shape_of_product(left, right, call)?)
}

/// A product with weights in blocks of few bits; activations stay floats, or are rounded within
/// blocks of one row.
fn matmul_of_blocks(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    let mut dims = call.dims(0)?;
    let last = dims.len().checked_sub(1).ok_or("multiplies a scalar as a matrix")?;
    if !dims[last].is_batch_free() {
        return Err("sums over the rows".to_owned());
    }
    dims[last] = call.node.int("N").map_or_else(|| call.dimension(), Size::known);
    one(dims)
}
