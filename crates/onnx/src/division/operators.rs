//! What each operator makes of what is known of its inputs.
//!
//! An operator that is not named here makes anything of any type. One that is named makes what
//! every version of ONNX says that it makes.

use outhaul_types::DataType;

use super::fact::{Fact, is_integer};
use crate::element::ElementType;
use crate::graph::{AttributeValue, Node};

/// What is known of a node's inputs; `None` is one left out.
type Inputs<'a> = [Option<&'a Fact>];

/// Returns what is known of a node's outputs; of those that are missing, nothing is.
pub(super) fn conclude(node: &Node, inputs: &Inputs) -> Vec<Fact> {
    match node.domain.as_str() {
        "" => standard(node, inputs),
        "ai.onnx.ml" => classic(node, inputs),
        "com.microsoft" => contrib(node, inputs),
        _ => Vec::new(),
    }
}

fn standard(node: &Node, inputs: &Inputs) -> Vec<Fact> {
    let operator = node.op_type.as_str();
    let everywhere = |fact: Fact| vec![fact; node.outputs.len()];
    if let Some(copied) = copied(node, inputs) {
        return everywhere(copied);
    }
    if FLOAT_OUTPUTS.contains(&operator) {
        return everywhere(Fact::harmless());
    }
    match operator {
        "And" | "Or" | "Xor" | "Not" | "Equal" | "Greater" | "GreaterOrEqual" | "Less"
        | "LessOrEqual" | "IsInf" | "IsNaN" => everywhere(Fact::boolean()),
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "SequenceLength"
        | "NonMaxSuppression" => everywhere(Fact::extent()),
        "TopK" => vec![moved(inputs, &[0]), Fact::extent()],
        "Unique" => {
            vec![moved(inputs, &[0]), Fact::extent(), Fact::extent(), Fact::extent()]
        }
        // Of floats and bytes alone.
        "MaxPool" => vec![Fact::harmless(), Fact::extent()],
        "Dropout" => vec![Fact::harmless(), Fact::boolean()],
        "DynamicQuantizeLinear" => {
            vec![Fact::of(DataType::Uint8), Fact::harmless(), Fact::of(DataType::Uint8)]
        }
        "Constant" => everywhere(constant(node)),
        "ConstantOfShape" => everywhere(constant_of_shape(node)),
        "Cast" => everywhere(cast(input(inputs, 0), type_attribute(node, "to").data_type)),
        "CastLike" => everywhere(cast(input(inputs, 0), input(inputs, 1).data_type)),
        "EyeLike" => {
            let data_type = match node.attribute("dtype") {
                Some(_) => type_attribute(node, "dtype").data_type,
                None => input(inputs, 0).data_type,
            };
            everywhere(Fact::computed(data_type, 0, 1))
        }
        "Multinomial" => everywhere(match node.attribute("dtype") {
            Some(_) => type_attribute(node, "dtype"),
            None => Fact::of(DataType::Int32),
        }),
        "MatMulInteger" | "ConvInteger" => everywhere(Fact::of(DataType::Int32)),
        _ => everywhere(arithmetic(node, inputs)),
    }
}

/// Returns what is known of the result of an operator that only copies elements.
fn copied(node: &Node, inputs: &Inputs) -> Option<Fact> {
    let reduces = node.text("reduction").is_some_and(|reduction| reduction != "none");
    Some(match node.op_type.as_str() {
        "Compress" | "ConcatFromSequence" | "DepthToSpace" | "Expand" | "Flatten" | "Gather"
        | "GatherElements" | "GatherND" | "Identity" | "Optional" | "OptionalGetElement"
        | "Reshape" | "ReverseSequence" | "SequenceAt" | "SequenceErase" | "Slice"
        | "SpaceToDepth" | "Split" | "SplitToSequence" | "Squeeze" | "Tile" | "Transpose"
        | "Unsqueeze" => moved(inputs, &[0]),
        "CenterCropPad" | "Trilu" => moved(inputs, &[0]).or_zero(),
        "Pad" => moved(inputs, &[0, 2]).or_zero(),
        "Concat" | "SequenceConstruct" => moved(inputs, &(0..inputs.len()).collect::<Vec<_>>()),
        "SequenceInsert" => moved(inputs, &[0, 1]),
        "Scatter" => moved(inputs, &[0, 2]),
        "ScatterElements" | "ScatterND" if !reduces => moved(inputs, &[0, 2]),
        "ScatterElements" | "ScatterND" => Fact::any(moved(inputs, &[0, 2]).data_type),
        "Where" => moved(inputs, &[1, 2]),
        "OneHot" => moved(inputs, &[2]),
        _ => return None,
    })
}

/// Operators that compute numbers of the type of their first input, or of all of them.
fn arithmetic(node: &Node, inputs: &Inputs) -> Fact {
    let first = input(inputs, 0);
    let common = moved(inputs, &(0..inputs.len()).collect::<Vec<_>>()).data_type;
    let folded = |of| folded(inputs, common, of);
    match node.op_type.as_str() {
        // Sums of more than two terms are floats in every version.
        "Add" => folded(|left, right| (left.0 + right.0, left.1 + right.1)),
        "Sub" => folded(|left, right| (left.0 - right.1, left.1 - right.0)),
        "Mul" => folded(|left, right| {
            let ends = [left.0 * right.0, left.0 * right.1, left.1 * right.0, left.1 * right.1];
            let (least, most) = (ends.iter().min(), ends.iter().max());
            (*least.unwrap_or(&i128::MIN), *most.unwrap_or(&i128::MAX))
        }),
        "Max" => folded(|left, right| (left.0.max(right.0), left.1.max(right.1))),
        "Min" => folded(|left, right| (left.0.min(right.0), left.1.min(right.1))),
        "Clip" => clip(inputs, common),
        "Neg" => Fact::computed(first.data_type, -i128::from(first.high), -i128::from(first.low)),
        "Abs" => Fact::computed(first.data_type, 0, largest(&first)),
        "Relu" => {
            let (low, high) = range(&first);
            Fact::computed(first.data_type, low.max(0), high.max(0))
        }
        "Sign" => Fact::computed(first.data_type, -1, 1),
        "Div" if first.low >= 0 && input(inputs, 1).low >= 0 => {
            Fact::computed(common, 0, i128::from(first.high))
        }
        "Div" => Fact::computed(common, -largest(&first), largest(&first)),
        "Mod" if node.int("fmod").unwrap_or(0) == 0 => {
            let divisor = input(inputs, 1);
            let low = if divisor.low >= 0 { 0 } else { -largest(&divisor) };
            Fact::computed(common, low, largest(&divisor))
        }
        "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Einsum" | "Gemm" | "MatMul"
        | "Mean" | "Mod" | "PRelu" | "Range" | "Sum" => Fact::any(common),
        "Bernoulli" if node.attribute("dtype").is_some() => type_attribute(node, "dtype"),
        // Over no elements a maximum is the least number of its type, and a minimum the largest.
        "Bernoulli" | "BitwiseNot" | "CumSum" | "Erf" | "GridSample" | "MaxUnpool" | "Pow"
        | "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare"
        | "Resize" | "Shrink" | "Upsample" => Fact::any(first.data_type),
        _ => Fact::unknown(),
    }
}

/// The least and the largest integer of a value.
type Range = (i128, i128);

/// Combines all inputs, which share a type.
fn folded(inputs: &Inputs, data_type: Option<DataType>, of: fn(Range, Range) -> Range) -> Fact {
    let anything = (i128::MIN, i128::MAX);
    let fits = |(low, high): Range| i64::try_from(low).is_ok() && i64::try_from(high).is_ok();
    let ranges = inputs.iter().flatten().map(|fact| range(&fact.typed(data_type)));
    // What left the type wraps around; what is found of it later must not bring it back.
    let combined = ranges.reduce(|left, right| if fits(left) { of(left, right) } else { anything });
    let (low, high) = combined.unwrap_or(anything);
    Fact::computed(data_type, low, high)
}

/// The largest integer of a value, whatever its sign.
fn largest(fact: &Fact) -> i128 {
    let (low, high) = range(fact);
    low.abs().max(high.abs())
}

/// A value between two bounds, one of which may be missing; where they are the wrong way round it
/// is one of them.
fn clip(inputs: &Inputs, data_type: Option<DataType>) -> Fact {
    let data = range(&input(inputs, 0).typed(data_type));
    let bound = |index: usize| {
        inputs.get(index).copied().flatten().map(|fact| range(&fact.typed(data_type)))
    };
    let (low, high) = match (bound(1), bound(2)) {
        (Some(low), Some(high)) => (low.0.min(high.0), high.1.max(low.1)),
        (Some(low), None) => (low.0.max(data.0), data.1.max(low.1)),
        (None, Some(high)) => (data.0.min(high.0), data.1.min(high.1)),
        (None, None) => data,
    };
    Fact::computed(data_type, low, high)
}

fn range(fact: &Fact) -> Range {
    (i128::from(fact.low), i128::from(fact.high))
}

fn input(inputs: &Inputs, index: usize) -> Fact {
    inputs.get(index).copied().flatten().cloned().unwrap_or_else(Fact::unknown)
}

/// Copies of elements of some inputs.
fn moved(inputs: &Inputs, from: &[usize]) -> Fact {
    let present = from.iter().filter_map(|&index| inputs.get(index).copied().flatten());
    present.cloned().reduce(|one, two| one.or(&two)).unwrap_or_else(Fact::unknown)
}

fn cast(data: Fact, to: Option<DataType>) -> Fact {
    // A float may be NaN, of which anything is made; an integer that does not fit wraps around.
    if is_integer(data.data_type) && is_integer(to) && to != Some(DataType::Bool) {
        let (low, high) = range(&data);
        let made = Fact::computed(to, low, high);
        let kept = (made.low, made.high) == (data.low, data.high);
        return Fact { minus_one: if kept { data.minus_one } else { made.minus_one }, ..made };
    }
    Fact::any(to)
}

fn type_attribute(node: &Node, name: &str) -> Fact {
    let number = node.int(name).and_then(|number| i32::try_from(number).ok());
    number.map_or_else(Fact::unknown, |number| Fact::element(ElementType::from_number(number)))
}

fn constant(node: &Node) -> Fact {
    let any = Fact::of(DataType::Int64);
    match node.attributes.first().map(|attribute| &attribute.value) {
        Some(AttributeValue::Tensor(tensor)) => Fact::constant(tensor),
        Some(AttributeValue::Int(value)) => Fact::integers(any, &[*value]),
        Some(AttributeValue::Ints(list)) => match list.complete() {
            Some(elements) => Fact::integers(any, elements),
            None => any,
        },
        Some(AttributeValue::Float(_) | AttributeValue::Floats(_)) => Fact::harmless(),
        Some(AttributeValue::String(_) | AttributeValue::Strings(_)) => Fact::of(DataType::Bytes),
        _ => Fact::unknown(),
    }
}

fn constant_of_shape(node: &Node) -> Fact {
    match node.attribute("value") {
        None => Fact::harmless(),
        Some(AttributeValue::Tensor(tensor)) => Fact::constant(tensor),
        Some(_) => Fact::unknown(),
    }
}

/// Operators of `ai.onnx.ml`.
fn classic(node: &Node, inputs: &Inputs) -> Vec<Fact> {
    match node.op_type.as_str() {
        "FeatureVectorizer"
        | "LinearRegressor"
        | "Normalizer"
        | "OneHotEncoder"
        | "SVMRegressor"
        | "Scaler"
        | "TreeEnsemble"
        | "TreeEnsembleRegressor" => {
            vec![Fact::harmless()]
        }
        // A label is a string where it is not this.
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => {
            vec![Fact::of(DataType::Int64), Fact::harmless()]
        }
        "ArrayFeatureExtractor" => vec![moved(inputs, &[0])],
        "Binarizer" | "Imputer" => vec![Fact::any(input(inputs, 0).data_type)],
        "LabelEncoder" => {
            let has = |name: &str| node.attribute(name).is_some();
            if has("values_int64s") {
                vec![Fact::of(DataType::Int64)]
            } else if has("values_floats") {
                vec![Fact::harmless()]
            } else if has("values_strings") {
                vec![Fact::of(DataType::Bytes)]
            } else {
                Vec::new()
            }
        }
        _ => Vec::new(),
    }
}

/// Operators that ONNX Runtime adds.
fn contrib(node: &Node, inputs: &Inputs) -> Vec<Fact> {
    let operator = node.op_type.as_str();
    match operator {
        "EmbedLayerNormalization" => {
            vec![Fact::harmless(), Fact::of(DataType::Int32), Fact::harmless()]
        }
        "FusedGemm" => vec![Fact::any(input(inputs, 0).data_type)],
        _ if CONTRIB_FLOAT_OUTPUTS.contains(&operator) => {
            vec![Fact::harmless(); node.outputs.len()]
        }
        _ => Vec::new(),
    }
}

/// Operators of ONNX that make floats, or integers of at most 16 bits, whatever they take.
const FLOAT_OUTPUTS: &[&str] = &[
    "Acos",
    "Acosh",
    "AffineGrid",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Ceil",
    "Celu",
    "Conv",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "DeformConv",
    "DequantizeLinear",
    "Det",
    "Elu",
    "Exp",
    "Floor",
    "GRU",
    "Gelu",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "InstanceNormalization",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "LpPool",
    "MaxRoiPool",
    "MeanVarianceNormalization",
    "Mish",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RMSNormalization",
    "RNN",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Reciprocal",
    "RoiAlign",
    "RotaryEmbedding",
    "Round",
    "Selu",
    "Sigmoid",
    "SimplifiedLayerNormalization",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "TfIdfVectorizer",
    "ThresholdedRelu",
];

/// Operators of ONNX Runtime of which the same is true.
const CONTRIB_FLOAT_OUTPUTS: &[&str] = &[
    "Attention",
    "BiasAdd",
    "BiasGelu",
    "BiasSoftmax",
    "BiasSplitGelu",
    "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "FastGelu",
    "FusedConv",
    "FusedMatMul",
    "Gelu",
    "GroupNorm",
    "GroupQueryAttention",
    "Inverse",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "NhwcMaxPool",
    "QAttention",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QuantizeLinear",
    "QuickGelu",
    "RelativePositionBias",
    "RotaryEmbedding",
    "SkipGroupNorm",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "SparseAttention",
];
