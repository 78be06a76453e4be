//! Which transfer function an operator has.

use super::call::{Call, Made};
use super::value::Result;
use super::{
    attention, classic, elementwise, fused, linear, normalise, recurrent, reshape, select, shape,
    window,
};
use crate::graph::Node;

/// Applies the transfer function of the call's operator. The error says how rows may mix.
pub(super) fn transfer(call: &mut Call<'_>) -> Result<Made> {
    match call.node.domain.as_str() {
        "" => standard(call),
        "ai.onnx.ml" => classic::transfer(call),
        "com.microsoft" => fused::transfer(call),
        domain => Err(format!("is of domain '{domain}', which we know nothing of")),
    }
}

fn standard(call: &mut Call<'_>) -> Result<Made> {
    let operator = call.node.op_type.as_str();
    if let Some(reason) = mixing(operator) {
        return Err(reason.to_owned());
    }
    match operator {
        "Constant" => shape::constant(call),
        "Shape" => shape::shape(call),
        "Size" => shape::size(call),
        "ConstantOfShape" => shape::constant_of_shape(call),
        "Range" => shape::range(call),
        "Expand" => shape::expand(call),
        "Tile" => shape::tile(call),
        "OneHot" => shape::one_hot(call),
        "Trilu" => shape::trilu(call),
        "Pad" => shape::pad(call),
        "DepthToSpace" | "SpaceToDepth" => shape::depth_and_space(call),
        "Resize" | "Upsample" => shape::resize(call),
        "Reshape" => reshape::reshape(call),
        "Flatten" => reshape::flatten(call),
        "Squeeze" => reshape::squeeze(call),
        "Unsqueeze" => reshape::unsqueeze(call),
        "Transpose" => reshape::transpose(call),
        "Concat" => select::concat(call),
        "Split" => select::split(call),
        "Slice" => select::slice(call),
        "Gather" => select::gather(call),
        "GatherElements" | "ScatterElements" | "Scatter" => select::by_element(call),
        "GatherND" => select::gather_nd(call),
        "ReverseSequence" => select::reverse_sequence(call),
        "TopK" => select::top_k(call),
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => linear::matmul(call),
        "Gemm" => linear::gemm(call),
        "Einsum" => linear::einsum(call),
        "Conv" | "ConvInteger" | "QLinearConv" | "ConvTranspose" => window::conv(call),
        "MaxPool" | "AveragePool" | "LpPool" => window::pool(call),
        "GlobalMaxPool" | "GlobalAveragePool" | "GlobalLpPool" => window::global_pool(call),
        "GridSample" => window::grid_sample(call),
        "LSTM" | "GRU" | "RNN" => recurrent::recurrent(call),
        _ if operator.starts_with("Reduce") => normalise::reduce(call),
        "ArgMax" | "ArgMin" => normalise::arg_reduce(call),
        "Softmax" | "LogSoftmax" | "Hardmax" => normalise::softmax(call),
        "CumSum" | "CumProd" | "LpNormalization" => normalise::along_axis(call),
        "BatchNormalization" => normalise::batch_normalization(call),
        "InstanceNormalization" | "GroupNormalization" | "LRN" => normalise::per_sample(call),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
            normalise::layer_normalization(call)
        }
        "MeanVarianceNormalization" => normalise::mean_variance(call),
        "Attention" => attention::attention(call),
        "RotaryEmbedding" => attention::rotary(call, [1, 2], 3),
        "QuantizeLinear" | "DequantizeLinear" => normalise::quantise(call),
        "Dropout" => elementwise::dropout(call),
        "Cast" | "CastLike" => elementwise::cast(call),
        "Clip" => elementwise::clip(call),
        "TfIdfVectorizer" => classic::tf_idf(call),
        _ if elementwise::is_unary(operator) => elementwise::unary(call),
        _ if elementwise::is_broadcast(operator) => elementwise::broadcast(call),
        _ => Err("is not known to keep rows apart".to_owned()),
    }
}

/// Operators that mix rows whatever they are told, and how.
fn mixing(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "DynamicQuantizeLinear" => ONE_SCALE,
        "NonZero" => "lists places in all rows together",
        "Unique" => "looks for the same values in all rows together",
        "Compress" => "keeps a number of values that depends on the rows",
        "NonMaxSuppression" => "gives a number of boxes that depends on the rows",
        "Loop" | "Scan" => "runs its body over all rows together, as often as their values say",
        "SequenceMap" | "SplitToSequence" | "SequenceConstruct" | "SequenceInsert"
        | "SequenceErase" | "SequenceAt" | "SequenceLength" | "ConcatFromSequence" => {
            "works with sequences of tensors, which are not followed"
        }
        "StringNormalizer" => "takes its words from one dimension, and may drop some",
        "StringSplit" => "makes as many columns as the longest of all rows needs",
        _ => return None,
    })
}

/// Why dynamically quantised models are not batched.
pub(super) const ONE_SCALE: &str =
    "takes one scale over the whole batch, so each row is rounded by what is in the others";

/// Returns whether a node's own operator draws random numbers.
pub(super) fn draws_random_numbers(node: &Node) -> bool {
    node.op_type.starts_with("Random")
        || matches!(&*node.op_type, "Bernoulli" | "Multinomial" | "Sampling")
}

/// Returns whether an operator gives the same result for the same inputs, as far as it is known.
/// `Dropout` does so only when its transfer function says it.
pub(super) fn is_repeatable(node: &Node) -> bool {
    matches!(&*node.domain, "" | "ai.onnx.ml" | "com.microsoft")
        && !node.op_type.contains("Dropout")
        && !draws_random_numbers(node)
}
