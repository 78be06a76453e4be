//! The number of dimensions that nodes make, as far as it can be told without running them.

use outhaul_onnx::Node;

use super::operators::Inputs;

/// Returns the rank of a node's first output, or `None` where it is not known.
pub(super) fn rank(node: &Node, inputs: &Inputs) -> Option<usize> {
    let of = |index: usize| inputs.get(index).copied().flatten().and_then(|fact| fact.rank);
    let length =
        |index: usize| inputs.get(index).copied().flatten().and_then(|fact| fact.constant_len());
    // A list that was an attribute in old operator sets and is an input in new ones.
    let listed = |name: &str| node.ints(name).map(<[i64]>::len).or_else(|| length(1));
    match node.op_type.as_str() {
        "Shape" => Some(1),
        "Size" | "SequenceLength" => Some(0),
        "NonZero" | "Flatten" | "Gemm" => Some(2),
        "Range" => Some(1),
        "Reshape" => listed("shape"),
        "ConstantOfShape" => length(0),
        "Unsqueeze" => Some(of(0)? + listed("axes")?),
        "Squeeze" => of(0)?.checked_sub(listed("axes")?),
        "Gather" => (of(0)? + of(1)?).checked_sub(1),
        "OneHot" => Some(of(0)? + 1),
        "Expand" => Some(of(0)?.max(length(1)?)),
        "MatMul" | "MatMulInteger" => product(of(0)?, of(1)?),
        operator if operator.starts_with("Reduce") => {
            if node.int("keepdims").unwrap_or(1) == 1 {
                of(0)
            } else {
                of(0)?.checked_sub(listed("axes")?)
            }
        }
        "ArgMax" | "ArgMin" => {
            if node.int("keepdims").unwrap_or(1) == 1 {
                of(0)
            } else {
                of(0)?.checked_sub(1)
            }
        }
        "Add" | "And" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"
        | "Max" | "Mean" | "Min" | "Mod" | "Mul" | "Or" | "Pow" | "Sub" | "Sum" | "Where"
        | "Xor" => {
            let ranks: Option<Vec<usize>> = (0..inputs.len()).map(of).collect();
            ranks?.into_iter().max()
        }
        "ConcatFromSequence" | "Einsum" | "GatherND" | "LSTM" | "GRU" | "SequenceAt"
        | "SequenceConstruct" | "STFT" | "DFT" | "SplitToSequence" | "SequenceInsert"
        | "SequenceErase" => None,
        _ => of(0),
    }
}

/// As `numpy.matmul` has it.
fn product(left: usize, right: usize) -> Option<usize> {
    match (left, right) {
        (1, 1) => Some(0),
        (1, rank) | (rank, 1) => rank.checked_sub(1),
        (left, right) => Some(left.max(right)),
    }
}
