//! Where `rten` 0.27 is known to differ from ONNX, found by running the tests of the ONNX project
//! with their own and with hostile values under every operator set, against ONNX Runtime.
//!
//! What is left differs in the last digits, and where an input is NaN or infinite: there engines
//! differ among each other.

use outhaul_onnx::Node;
use outhaul_types::DataType;

use super::operators::Inputs;

/// What a node is judged by beside its inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// The version of ONNX's own operators.
    pub(super) opset: i64,
    /// Whether this processor's 8-bit products saturate.
    pub(super) bytes_saturate: bool,
    /// Whether an unknown rank is a reason to refuse, since all that could tell it has been asked.
    pub(super) ranks_are_final: bool,
}

/// Returns what this engine would do otherwise than ONNX, if anything.
pub(super) fn oddity(node: &Node, inputs: &Inputs, around: Surroundings) -> Option<String> {
    let operator = node.op_type.as_str();
    unmade_output(node).or_else(|| of_attributes(node)).or_else(|| match operator {
        // Of equal elements `rten` takes the last; `lowering` makes it take the first.
        "ArgMax" | "ArgMin" if node.int("select_last_index").unwrap_or(0) != 0 => {
            Some("with select_last_index = 1".to_owned())
        }
        "Sign" => Some("of 0 it makes 1".to_owned()),
        "Softplus" => Some("it overflows where the result is above 88".to_owned()),
        "NonMaxSuppression" => {
            Some("it counts boxes over all classes where ONNX counts them per class".to_owned())
        }
        "GRU" | "LSTM" if node.input(4).is_some() => {
            Some("it does not read sequence_lens".to_owned())
        }
        "MultiHeadAttention" if node.input(4).is_some() => {
            Some("with a key_padding_mask, rows masked out as a whole differ".to_owned())
        }
        "Softmax" | "LogSoftmax" if around.opset < 13 => old_softmax(node, inputs, around),
        "SequenceInsert" if node.input(2).is_some() => {
            let position = inputs.get(2).copied().flatten().and_then(|fact| fact.int());
            position
                .is_none_or(|position| position < 0)
                .then(|| "at a position that may count from the end".to_owned())
        }
        "MatMul" => vector(inputs, around),
        "MatMulInteger" => vector(inputs, around).or_else(|| saturation(around)),
        "ConvInteger" => saturation(around),
        _ => None,
    })
}

/// Outputs that the engine knows of and cannot make.
fn unmade_output(node: &Node) -> Option<String> {
    let unmade: &[usize] = match node.op_type.as_str() {
        "MaxPool" => &[1],
        "LayerNormalization" | "SkipLayerNormalization" => &[1, 2],
        "SkipSimplifiedLayerNormalization" => &[1, 2],
        "BatchNormalization" => &[1, 2, 3, 4],
        "Attention" => &[3],
        _ => &[],
    };
    let made = |index: usize| node.outputs.get(index).is_some_and(|name| !name.is_empty());
    let index = unmade.iter().copied().find(|&index| made(index))?;
    Some(format!("it does not make output '{}'", node.outputs[index]))
}

fn of_attributes(node: &Node) -> Option<String> {
    let operator = node.op_type.as_str();
    let has = |name: &str| node.attribute(name).is_some();
    let text = |name: &str, value: &str| {
        (node.text(name) == Some(value)).then(|| format!("with {name} = {value}"))
    };
    match operator {
        "Resize" => text("mode", "cubic"),
        "AveragePool" | "MaxPool" => text("auto_pad", "SAME_LOWER")
            .or_else(|| (!has("strides")).then(|| "without strides".to_owned())),
        "Conv" | "ConvInteger" => text("auto_pad", "SAME_LOWER")
            .or_else(|| (!has("kernel_shape")).then(|| "without kernel_shape".to_owned())),
        "ConvTranspose" => text("auto_pad", "SAME_LOWER")
            .or_else(|| text("auto_pad", "SAME_UPPER"))
            .or_else(|| (!has("kernel_shape")).then(|| "without kernel_shape".to_owned())),
        "GRU" if node.int("linear_before_reset").unwrap_or(0) == 0 => {
            Some("with linear_before_reset = 0".to_owned())
        }
        "Multinomial" | "RandomNormal" | "RandomNormalLike" | "RandomUniform"
        | "RandomUniformLike"
            if has("seed") =>
        {
            Some("with a seed, from which every engine draws other numbers".to_owned())
        }
        "Dropout" if node.input(2).is_some() && has("seed") => {
            Some("with a seed, from which every engine draws other numbers".to_owned())
        }
        "Scatter" | "ScatterElements" | "ScatterND" => match node.text("reduction") {
            None | Some("none" | "min" | "max") => None,
            Some(reduction) => Some(format!("with reduction = {reduction}")),
        },
        "MatMulNBits" if node.int("accuracy_level").unwrap_or(0) >= 4 => {
            Some("with accuracy_level = 4".to_owned())
        }
        _ => None,
    }
}

/// Before opset 13 `axis` split the dimensions into two groups; the engine knows only the later
/// meaning, which is the same for the last axis. Where there is no attribute the axis was 1, and the
/// engine takes the last.
fn old_softmax(node: &Node, inputs: &Inputs, around: Surroundings) -> Option<String> {
    let axis = node.int("axis").unwrap_or(1);
    let rank = inputs.first().copied().flatten().and_then(|fact| fact.rank);
    let is_last = match rank.and_then(|rank| i64::try_from(rank).ok()) {
        Some(rank) => axis == rank - 1 || axis == -1,
        None => axis == -1 || !around.ranks_are_final,
    };
    (!is_last).then(|| {
        format!("before opset 13, on axis {axis} of a tensor that may have further dimensions")
    })
}

/// A stack of matrices times a vector keeps a dimension that it should lose.
fn vector(inputs: &Inputs, around: Surroundings) -> Option<String> {
    let rank = |index: usize| inputs.get(index).copied().flatten().and_then(|fact| fact.rank);
    if rank(0).is_some_and(|rank| rank <= 2) {
        return None;
    }
    match rank(1) {
        Some(1) => Some("of a stack of matrices and a vector".to_owned()),
        None if around.ranks_are_final => {
            Some("whose second input may be a vector, as far as the file tells".to_owned())
        }
        _ => None,
    }
}

fn saturation(around: Surroundings) -> Option<String> {
    around.bytes_saturate.then(|| {
        "on this processor, which has no VNNI instructions, so that products of 8 bits saturate"
            .to_owned()
    })
}

/// Returns whether a type can be an input or output of a model in this engine.
pub(super) fn carried(data_type: DataType) -> bool {
    matches!(
        data_type,
        DataType::Bool
            | DataType::Uint8
            | DataType::Int8
            | DataType::Int32
            | DataType::Int64
            | DataType::Fp32
    )
}
