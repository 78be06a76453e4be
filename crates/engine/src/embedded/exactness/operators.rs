//! What each operator makes of what is known of its inputs.
//!
//! An operator that is not named here was never compared with ONNX Runtime, and is refused.

use outhaul_onnx::{AttributeValue, ElementType, Node, Values};
use outhaul_types::DataType;
use smallvec::{SmallVec, smallvec};

use super::fact::{Fact, Magnitude};
use super::rank::rank;

/// What is known of a node's inputs; `None` is one left out.
pub(super) type Inputs<'a> = [Option<&'a Fact>];

/// What is known of a node's outputs, or why the node is refused.
pub(super) type Conclusion = Result<SmallVec<[Fact; 2]>, Reason>;

/// Why a node is refused; empty where there is nothing to say but the node's own name.
pub(super) type Reason = String;

/// Follows one node that holds no graphs.
pub(super) fn conclude(node: &Node, inputs: &Inputs) -> Conclusion {
    no_saturated(node, inputs)?;
    let ranked = |fact: Fact| fact.ranked(rank(node, inputs));
    let fact = match (node.domain.as_str(), node.op_type.as_str()) {
        ("", operator) => match operator {
            "Cast" | "CastLike" => cast(node, inputs).map(ranked)?,
            "Constant" => constant(node)?,
            "ConstantOfShape" => constant_of_shape(node).map(ranked)?,
            "Clip" => clip(inputs).map(ranked)?,
            "Dropout" => {
                let data = moved(inputs, &[0])?;
                let mask = Fact::of(DataType::Bool).ranked(data.rank);
                return Ok(smallvec![data, mask]);
            }
            "TopK" => {
                strict(inputs)?;
                let data = moved(inputs, &[0])?;
                let indices = extent().ranked(data.rank);
                return Ok(smallvec![data, indices]);
            }
            "DynamicQuantizeLinear" => {
                let scale = Fact::of(DataType::Fp32).ranked(Some(0));
                let zero = Fact::of(DataType::Uint8).ranked(Some(0));
                return Ok(smallvec![ranked(Fact::of(DataType::Uint8)), scale, zero]);
            }
            "Split" | "SplitToSequence" => {
                let part = ranked(moved(inputs, &[0])?);
                return Ok(smallvec![part; node.outputs.len()]);
            }
            _ => ranked(standard(node, inputs)?),
        },
        ("com.microsoft", operator) => contrib(operator)?,
        _ => return Err(Reason::new()),
    };
    let count = node.outputs.len().max(1);
    Ok(smallvec![fact; count])
}

/// Refuses constants beyond 32 bits, but where they mean "to the end" or are only passed on.
fn no_saturated(node: &Node, inputs: &Inputs) -> Result<(), Reason> {
    let tolerated = |index: usize| match node.op_type.as_str() {
        "Slice" if matches!(index, 1 | 2) => true,
        "Clip" => matches!(index, 1 | 2),
        operator => data_inputs(operator, inputs.len()).is_some_and(|data| data.contains(&index)),
    };
    let saturated = |(index, fact): (usize, &Option<&Fact>)| {
        fact.is_some_and(|fact| fact.magnitude == Magnitude::Saturated) && !tolerated(index)
    };
    match inputs.iter().enumerate().find(|&entry| saturated(entry)) {
        Some((index, _)) => Err(format!(
            "on the constant '{}', which does not fit the 32 bits that this engine has",
            node.input(index).unwrap_or_default()
        )),
        None => Ok(()),
    }
}

/// Operators of ONNX whose outputs are all alike.
fn standard(node: &Node, inputs: &Inputs) -> Result<Fact, Reason> {
    let operator = node.op_type.as_str();
    if let Some(data) = data_inputs(operator, inputs.len()) {
        return moved(inputs, &data);
    }
    match operator {
        "And" | "Or" | "Xor" | "Not" => Ok(Fact::of(DataType::Bool)),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "IsInf" | "IsNaN" => {
            strict(inputs)?;
            no_bytes(inputs)?;
            Ok(Fact::of(DataType::Bool))
        }
        "Shape" | "Size" | "NonZero" | "SequenceLength" => Ok(extent()),
        _ => {
            strict(inputs)?;
            numeric(node, inputs)
        }
    }
}

/// Which inputs an operator copies elements from, where that is all it does with them.
fn data_inputs(operator: &str, count: usize) -> Option<SmallVec<[usize; 4]>> {
    Some(match operator {
        "DepthToSpace" | "Expand" | "Flatten" | "Gather" | "GatherElements" | "GatherND"
        | "Identity" | "Reshape" | "ReverseSequence" | "SequenceAt" | "SequenceErase" | "Slice"
        | "Squeeze" | "Tile" | "Transpose" | "Trilu" | "Unsqueeze" | "ConcatFromSequence" => {
            smallvec![0]
        }
        "Concat" | "SequenceConstruct" => (0..count).collect(),
        "SequenceInsert" => smallvec![0, 1],
        "Pad" | "Scatter" | "ScatterElements" | "ScatterND" => smallvec![0, 2],
        "Where" => smallvec![1, 2],
        "OneHot" => smallvec![2],
        _ => return None,
    })
}

/// Operators that compute numbers.
fn numeric(node: &Node, inputs: &Inputs) -> Result<Fact, Reason> {
    use Magnitude::Within;
    let first = || required(inputs, 0);
    let float = |magnitude| Ok(Fact::of(DataType::Fp32).within(magnitude));
    match node.op_type.as_str() {
        "Add" | "Sub" | "Sum" => arithmetic(inputs, Magnitude::plus),
        "Mul" => arithmetic(inputs, Magnitude::times),
        "Neg" | "Abs" => arithmetic(inputs, Magnitude::plus),
        "Div" => quotient(inputs),
        "Mod" => arithmetic(inputs, Magnitude::or),
        "Pow" => power(inputs),
        "Max" | "Min" => {
            no_bytes(inputs)?;
            all_moved(inputs)
        }
        "ArgMax" | "ArgMin" => {
            no_bytes(inputs)?;
            Ok(extent())
        }
        "Range" => arithmetic(inputs, Magnitude::or),
        "CumSum" | "ReduceSum" | "ReduceProd" => {
            let fact = first()?;
            settled(fact.clone(), fact.magnitude.accumulated())
        }
        "ReduceMax" | "ReduceMin" => match first()?.data_type {
            Some(data_type @ (DataType::Int64 | DataType::Bool)) => Err(format!(
                "over no elements it gives the smallest number of 32 bits where {data_type} has \
                 another"
            )),
            _ => moved(inputs, &[0]),
        },
        "Floor" | "Ceil" | "Round" => {
            let fact = first()?;
            not_rough(fact)?;
            Ok(Fact { constant: None, ..fact.clone() }.within(fact.magnitude.plus(Within(1))))
        }
        "Relu" | "MaxPool" | "GlobalMaxPool" | "ReduceMean" | "AveragePool"
        | "GlobalAveragePool" => moved(inputs, &[0]),
        "Mean" => all_moved(inputs),
        "Sqrt" => match first()?.magnitude {
            bounded @ (Within(_) | Magnitude::Extent) => float(bounded.or(Within(1))),
            _ => float(Magnitude::Any),
        },
        "Sigmoid" | "Softmax" | "HardSigmoid" | "Tanh" | "Sin" | "Cos" | "Erf" | "Softsign" => {
            float(Within(1))
        }
        "EyeLike" => match node.int("dtype") {
            Some(number) => Ok(Fact::of(target(number)?).within(Within(1))),
            None => Ok(Fact { constant: None, ..first()?.clone() }.within(Within(1))),
        },
        "Multinomial" => match node.int("dtype") {
            Some(number) => Ok(Fact::of(target(number)?).within(Magnitude::Extent)),
            None => Ok(Fact::of(DataType::Int32)),
        },
        "BitCast" => bit_cast(node, inputs),
        "QuantizeLinear" => match (inputs.get(2), node.int("output_dtype")) {
            (Some(Some(zero)), _) => Ok(Fact::of(zero.data_type.unwrap_or(DataType::Uint8))),
            (_, Some(number)) if number != 0 => Ok(Fact::of(target(number)?)),
            _ => Ok(Fact::of(DataType::Uint8)),
        },
        "MatMulInteger" | "ConvInteger" => Ok(Fact::of(DataType::Int32)),
        "RandomNormalLike" | "RandomUniformLike" => float(Magnitude::Any),
        "DequantizeLinear" => float(Magnitude::Any),
        operator if FLOAT_ONLY.contains(&operator) => {
            no_integers(inputs)?;
            float(Magnitude::Any)
        }
        _ => Err(Reason::new()),
    }
}

/// Operators that take and give FP32, and nothing else that counts, under which size says nothing.
const FLOAT_ONLY: &[&str] = &[
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Attention",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Cosh",
    "DFT",
    "Einsum",
    "Elu",
    "Exp",
    "GRU",
    "Gelu",
    "Gemm",
    "GridSample",
    "HardSwish",
    "InstanceNormalization",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "PRelu",
    "RMSNormalization",
    "RandomNormal",
    "RandomUniform",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
    "Resize",
    "RotaryEmbedding",
    "STFT",
    "SimplifiedLayerNormalization",
    "Sinh",
    "Swish",
    "Tan",
    "Upsample",
];

/// Operators that ONNX Runtime adds, compared with it.
fn contrib(operator: &str) -> Result<Fact, Reason> {
    match operator {
        "BiasGelu"
        | "FastGelu"
        | "Gelu"
        | "MatMulNBits"
        | "MultiHeadAttention"
        | "QuickGelu"
        | "RotaryEmbedding"
        | "SkipLayerNormalization"
        | "SkipSimplifiedLayerNormalization" => Ok(Fact::of(DataType::Fp32)),
        _ => Err(Reason::new()),
    }
}

fn extent() -> Fact {
    Fact::of(DataType::Int64).within(Magnitude::Extent)
}

fn required<'a>(inputs: &Inputs<'a>, index: usize) -> Result<&'a Fact, Reason> {
    inputs.get(index).copied().flatten().ok_or_else(|| format!("its input {index} is missing"))
}

/// Copies of elements of some inputs.
fn moved(inputs: &Inputs, data: &[usize]) -> Result<Fact, Reason> {
    let selected: SmallVec<[Option<&Fact>; 4]> =
        data.iter().map(|&index| inputs.get(index).copied().flatten()).collect();
    all_moved(&selected)
}

fn all_moved(inputs: &Inputs) -> Result<Fact, Reason> {
    let mut present = inputs.iter().flatten();
    let first = present.next().ok_or("it has no input")?;
    let copied = Fact { constant: None, ..(*first).clone() };
    Ok(present.fold(copied, |fact, other| fact.or(other)))
}

/// Refuses loose booleans where only 0 and 1 give the right answer.
fn strict(inputs: &Inputs) -> Result<(), Reason> {
    if inputs.iter().flatten().any(|fact| fact.loose) {
        return Err("it takes a BOOL that was cast from numbers, and this engine casts without \
                    making them 0 and 1"
            .to_owned());
    }
    Ok(())
}

/// Refuses INT8 and UINT8 where the engine computes with FP32 and INT32 alone.
fn no_bytes(inputs: &Inputs) -> Result<(), Reason> {
    let byte = |data_type: &DataType| matches!(data_type, DataType::Int8 | DataType::Uint8);
    match inputs.iter().flatten().filter_map(|fact| fact.data_type).find(byte) {
        Some(data_type) => Err(format!("of {data_type}")),
        None => Ok(()),
    }
}

/// Refuses integers as the first input of operators that compute with FP32 alone. Other inputs may
/// be indices and lengths.
fn no_integers(inputs: &Inputs) -> Result<(), Reason> {
    match inputs.first().copied().flatten().and_then(|fact| fact.data_type) {
        Some(data_type @ (DataType::Int32 | DataType::Int64)) => Err(format!("of {data_type}")),
        _ => Ok(()),
    }
}

/// Arithmetic on all inputs of one type. A lone input is combined with itself, which no operator
/// here exceeds.
fn arithmetic(inputs: &Inputs, of: fn(Magnitude, Magnitude) -> Magnitude) -> Result<Fact, Reason> {
    no_bytes(inputs)?;
    let fact = all_moved(inputs)?;
    let mut magnitudes = inputs.iter().flatten().map(|fact| fact.magnitude);
    let first = magnitudes.next().unwrap_or(Magnitude::Any);
    let magnitude = magnitudes.fold(first, of);
    settled(Fact { rough: false, ..fact }, magnitude)
}

/// Refuses INT64 that may leave 32 bits; INT32 wraps around in every engine.
fn settled(fact: Fact, magnitude: Magnitude) -> Result<Fact, Reason> {
    let fact = Fact { constant: None, ..fact };
    match fact.data_type {
        Some(DataType::Int64) if !magnitude.is_safe() => {
            Err("on INT64 whose results may not fit the 32 bits that this engine has".to_owned())
        }
        None if !magnitude.is_safe() => {
            Err("on values whose type the file does not declare".to_owned())
        }
        Some(data_type @ DataType::Int32) if !magnitude.is_safe() => {
            let widest = Fact::of(data_type).magnitude;
            Ok(fact.within(widest))
        }
        _ => Ok(fact.within(magnitude)),
    }
}

/// A division: of integers exact, of floats by one divisor a product with its reciprocal.
fn quotient(inputs: &Inputs) -> Result<Fact, Reason> {
    no_bytes(inputs)?;
    let (dividend, divisor) = (required(inputs, 0)?, required(inputs, 1)?);
    if dividend.data_type != Some(DataType::Fp32) {
        return settled(dividend.clone(), dividend.magnitude);
    }
    let exact = |&value: &f32| {
        // A power of two whose reciprocal is one too.
        value.is_normal() && value.recip().is_normal() && value.to_bits() & 0x007F_FFFF == 0
    };
    let magnitude = match divisor.floats() {
        Some(elements) if elements.iter().all(|element| element.abs() >= 1.0) => dividend.magnitude,
        _ => Magnitude::Any,
    };
    if let Some([value]) = divisor.floats() {
        let (tiny, huge) = (f32::MIN_POSITIVE, f32::MIN_POSITIVE.recip());
        if !(tiny..=huge).contains(&value.abs()) && *value != 0.0 && value.is_finite() {
            return Err(format!("by {value:e}, whose reciprocal FP32 does not hold"));
        }
    }
    // Several divisors are divided by one by one.
    let several = divisor.constant_len().is_some_and(|count| count > 1);
    let rough = !several && !divisor.floats().is_some_and(|elements| elements.iter().all(exact));
    let rank = dividend.rank;
    Ok(Fact { rough, rank, ..Fact::of(DataType::Fp32).within(magnitude) })
}

fn not_rough(fact: &Fact) -> Result<(), Reason> {
    if fact.rough {
        return Err("of a quotient that this engine computes as a product with the reciprocal, \
                    which may fall on the other side of a whole number"
            .to_owned());
    }
    Ok(())
}

/// A power: of floats as anywhere; of integers there are two rules for what overflows.
fn power(inputs: &Inputs) -> Result<Fact, Reason> {
    let (base, exponent) = (required(inputs, 0)?, required(inputs, 1)?);
    match (base.data_type, exponent.data_type) {
        (Some(DataType::Fp32), Some(DataType::Fp32)) => Ok(Fact::of(DataType::Fp32)),
        (Some(DataType::Int32 | DataType::Int64), Some(DataType::Int32 | DataType::Int64)) => {
            let square = base.magnitude.times(base.magnitude);
            match exponent.int() {
                Some(2) => settled(base.clone(), square),
                Some(3) => settled(base.clone(), square.times(base.magnitude)),
                _ => Err("of integers, with another exponent than a constant 2 or 3".to_owned()),
            }
        }
        (Some(base), Some(exponent)) => Err(format!("of {base} to {exponent}")),
        _ => Err("of types that the file does not declare".to_owned()),
    }
}

fn clip(inputs: &Inputs) -> Result<Fact, Reason> {
    strict(inputs)?;
    no_bytes(inputs)?;
    let data = required(inputs, 0)?;
    let bound = |index: usize| inputs.get(index).copied().flatten();
    let result = Fact { constant: None, rough: false, ..data.clone() };
    // A bound beyond the 32 bits bounds nothing where it lies on the far side.
    let harmless = |fact: &Fact, far: fn(i64) -> bool| {
        fact.magnitude != Magnitude::Saturated || fact.int().is_some_and(far)
    };
    if bound(1).is_some_and(|low| !harmless(low, i64::is_negative))
        || bound(2).is_some_and(|high| !harmless(high, i64::is_positive))
    {
        return Err("to a bound that does not fit the 32 bits that this engine has".to_owned());
    }
    let (Some(low), Some(high)) = (bound(1), bound(2)) else {
        let given = bound(1).or(bound(2));
        let magnitude = given.map_or(data.magnitude, |fact| match fact.magnitude {
            Magnitude::Saturated => data.magnitude,
            other => data.magnitude.or(other),
        });
        return Ok(result.within(magnitude));
    };
    let between = low.magnitude.or(high.magnitude);
    Ok(result.within(if between.fits() { between } else { data.magnitude }))
}

fn constant(node: &Node) -> Result<Fact, Reason> {
    let attribute = node.attributes.first().ok_or("without a value")?;
    let of_ints = |elements: &[i64]| {
        let magnitude = |&element: &i64| match i32::try_from(element) {
            Ok(_) => Magnitude::Within(element.unsigned_abs()),
            Err(_) => Magnitude::Saturated,
        };
        let largest = elements.iter().map(magnitude).fold(Magnitude::Within(0), Magnitude::or);
        let constant = Some(Values::Ints(elements.to_vec()));
        Fact { constant, ..Fact::of(DataType::Int64).within(largest) }
    };
    Ok(match &attribute.value {
        AttributeValue::Tensor(tensor) => {
            held(tensor.data_type)?;
            Fact::constant(tensor)
        }
        AttributeValue::Int(value) => of_ints(&[*value]).ranked(Some(0)),
        AttributeValue::Ints(list) => {
            of_ints(list.complete().ok_or("of a list too long to check")?).ranked(Some(1))
        }
        AttributeValue::Float(value) => {
            let constant = Some(Values::Floats(vec![*value]));
            Fact { constant, ..Fact::of(DataType::Fp32).ranked(Some(0)) }
        }
        AttributeValue::Floats(_) => Fact::of(DataType::Fp32).ranked(Some(1)),
        _ => return Err(format!("with attribute '{}'", attribute.name)),
    })
}

fn constant_of_shape(node: &Node) -> Result<Fact, Reason> {
    let Some(value) = node.attribute("value") else {
        return Ok(Fact::of(DataType::Fp32).within(Magnitude::Within(0)));
    };
    let [tensor] = value.tensors() else {
        return Err("whose value is not one tensor".to_owned());
    };
    held(tensor.data_type)?;
    let fact = Fact::constant(tensor);
    if fact.magnitude == Magnitude::Saturated {
        return Err("of a number that does not fit the 32 bits that this engine has".to_owned());
    }
    Ok(Fact { constant: None, ..fact })
}

/// Refuses element types that the engine has no counterpart for.
pub(super) fn held(element: ElementType) -> Result<DataType, Reason> {
    match element.data_type() {
        Some(
            data_type @ (DataType::Bool
            | DataType::Fp32
            | DataType::Int8
            | DataType::Int32
            | DataType::Int64
            | DataType::Uint8),
        ) => Ok(data_type),
        Some(data_type) => Err(format!("of {data_type}")),
        None => Err(format!("of {element}")),
    }
}

fn target(number: i64) -> Result<DataType, Reason> {
    let number = i32::try_from(number).map_err(|_| format!("to type {number}"))?;
    held(ElementType::from_number(number))
        .map_err(|_| format!("to {}", ElementType::from_number(number)))
}

fn cast(node: &Node, inputs: &Inputs) -> Result<Fact, Reason> {
    let data = required(inputs, 0)?;
    let to = if node.op_type == "Cast" {
        target(node.int("to").unwrap_or(0))?
    } else {
        required(inputs, 1)?.data_type.ok_or("to a type that the file does not declare")?
    };
    let from = data.data_type.ok_or("of a type that the file does not declare")?;
    let result = Fact { constant: None, ..Fact::of(to) };
    if from == to {
        return Ok(data.clone());
    }
    if to == DataType::Bool {
        if from == DataType::Fp32 {
            return Err("of FP32 to BOOL, which this engine rounds towards zero first".to_owned());
        }
        return Ok(Fact { loose: true, ..result });
    }
    strict(inputs)?;
    if to != DataType::Fp32 {
        not_rough(data)?;
    }
    match (from, to) {
        (DataType::Fp32, DataType::Int64) if !data.magnitude.is_safe() => Err(format!(
            "of {from} to {to}, where this engine has 32 bits and cannot tell that they suffice"
        )),
        // Outside the range of its target the cast of a float is undefined; inside it is exact.
        (DataType::Fp32, DataType::Int8 | DataType::Uint8) => {
            Err(format!("of {from} to {to}, which this engine bounds where others wrap around"))
        }
        (_, DataType::Int64 | DataType::Fp32) => Ok(result.within(data.magnitude)),
        (_, DataType::Int32) if data.magnitude.fits() => Ok(result.within(data.magnitude)),
        _ => Ok(result),
    }
}

fn bit_cast(node: &Node, inputs: &Inputs) -> Result<Fact, Reason> {
    let from = required(inputs, 0)?.data_type;
    let to = target(node.int("to").unwrap_or(0))?;
    let plain = |data_type: DataType| !matches!(data_type, DataType::Int64 | DataType::Bool);
    match from {
        Some(from) if plain(from) && plain(to) => Ok(Fact::of(to)),
        Some(from) => Err(format!("of {from} to {to}")),
        None => Err(format!("to {to} of a type that the file does not declare")),
    }
}
