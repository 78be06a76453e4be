//! Operators that compute each element from elements at the same place.

use super::call::{Call, Made, one, uses_row_count};
use super::numbers::{self, Numbers};
use super::size::Size;
use super::value::{Dims, Result, Value};
use crate::element::ElementType;

/// Returns whether an operator of ONNX's own domain maps each element of its only tensor.
pub(super) fn is_unary(operator: &str) -> bool {
    matches!(
        operator,
        "Abs"
            | "Acos"
            | "Acosh"
            | "Asin"
            | "Asinh"
            | "Atan"
            | "Atanh"
            | "BitwiseNot"
            | "BitCast"
            | "Ceil"
            | "Celu"
            | "Cos"
            | "Cosh"
            | "Elu"
            | "Erf"
            | "Exp"
            | "Floor"
            | "Gelu"
            | "HardSigmoid"
            | "HardSwish"
            | "Identity"
            | "IsInf"
            | "IsNaN"
            | "LeakyRelu"
            | "Log"
            | "Mish"
            | "Neg"
            | "Not"
            | "Reciprocal"
            | "RegexFullMatch"
            | "Relu"
            | "Round"
            | "Selu"
            | "Shrink"
            | "Sigmoid"
            | "Sign"
            | "Sin"
            | "Sinh"
            | "Softplus"
            | "Softsign"
            | "Sqrt"
            | "Swish"
            | "Tan"
            | "Tanh"
            | "ThresholdedRelu"
    )
}

/// Returns whether an operator of ONNX's own domain joins elements of several tensors, broadcast to
/// one shape.
pub(super) fn is_broadcast(operator: &str) -> bool {
    matches!(
        operator,
        "Add"
            | "And"
            | "BitShift"
            | "BitwiseAnd"
            | "BitwiseOr"
            | "BitwiseXor"
            | "Div"
            | "Equal"
            | "Greater"
            | "GreaterOrEqual"
            | "Less"
            | "LessOrEqual"
            | "Max"
            | "Mean"
            | "Min"
            | "Mod"
            | "Mul"
            | "Or"
            | "PRelu"
            | "Pow"
            | "StringConcat"
            | "Sub"
            | "Sum"
            | "Where"
            | "Xor"
    )
}

/// One tensor in, one of its shape out.
pub(super) fn unary(call: &mut Call<'_>) -> Result<Made> {
    if call.node.op_type == "Identity" {
        return Ok(vec![call.value(0)?.clone()]);
    }
    // `BitCast` to another width would change the last dimension.
    if call.node.op_type == "BitCast" && call.has_rows() {
        return Err("is not known to keep rows apart".to_owned());
    }
    call.only_constants_from(1)?;
    if let Some(made) = arithmetic(call, &[0])? {
        return Ok(made);
    }
    one(call.dims(0)?)
}

/// Several tensors in, one of their common shape out.
pub(super) fn broadcast(call: &mut Call<'_>) -> Result<Made> {
    // Before opset 7 a node said itself whether and where to broadcast.
    if call.opset < 7 && call.node.int("broadcast").is_some_and(|broadcast| broadcast != 0) {
        return Err("broadcasts in the way of operator sets before 7".to_owned());
    }
    let indices: Vec<usize> = (0..call.inputs.len()).collect();
    if let Some(made) = arithmetic(call, &indices)? {
        return Ok(made);
    }
    one(call.broadcast_inputs(&indices)?)
}

/// Follows arithmetic on shapes. `None` where no operand is followed element by element.
fn arithmetic(call: &mut Call<'_>, indices: &[usize]) -> Result<Option<Made>> {
    let followed = |value: Option<&Value>| matches!(value, Some(Value::Numbers(_)));
    if call.has_rows() || !indices.iter().any(|&index| followed(call.optional(index))) {
        return Ok(None);
    }
    let mut operands = Vec::with_capacity(indices.len());
    for &index in indices {
        operands.push(match call.value(index)?.clone() {
            Value::Numbers(numbers) => Some(numbers),
            Value::Same(Some(dims)) => Numbers::unknown(&dims, call.symbols),
            _ => None,
        });
    }
    match operands.into_iter().collect::<Option<Vec<Numbers>>>() {
        Some(operands) => {
            let made = numbers::elementwise(&call.node.op_type, &operands, call.symbols)?;
            Ok(Some(vec![Value::Numbers(made)]))
        }
        None if call.inputs.iter().flatten().all(Value::is_batch_free) => Ok(None),
        None => Err(uses_row_count()),
    }
}

/// `min` and `max` are scalars of their own and do not broadcast.
pub(super) fn clip(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants_from(1)?;
    one(call.dims(0)?)
}

/// A cast keeps integers, and the truth of numbers.
pub(super) fn cast(call: &mut Call<'_>) -> Result<Made> {
    let to = match (call.node.op_type.as_str(), call.node.int("to")) {
        ("Cast", Some(to)) => i32::try_from(to).map(ElementType::from_number).ok(),
        // The first version named the type.
        _ => None,
    };
    // `CastLike` looks at the type of its second input alone, so rows there do not matter.
    let Some(numbers) = call.numbers(0).cloned() else { return one(call.dims(0)?) };
    let terms = numbers.terms().to_vec();
    let cast: Vec<Option<Size>> = match to {
        Some(ElementType::INT64) => {
            terms.into_iter().map(|term| to_integer(term?, &numbers, i64::MAX, call)).collect()
        }
        Some(ElementType::INT32) => {
            let limit = i64::from(i32::MAX);
            terms.into_iter().map(|term| to_integer(term?, &numbers, limit, call)).collect()
        }
        Some(ElementType::FLOAT | ElementType::DOUBLE) => {
            let limit = 1 << 24;
            terms.into_iter().map(|term| to_integer(term?, &numbers, limit, call)).collect()
        }
        Some(ElementType::BOOL) => terms
            .into_iter()
            .map(|term| {
                let term = term?;
                match term.number() {
                    Some(number) => Some(Size::known(i64::from(number != 0))),
                    None => term.is_batch_free().then(|| call.symbols.number()),
                }
            })
            .collect(),
        _ => {
            let free = |term: Option<Size>| term.filter(Size::is_batch_free).is_some();
            terms.into_iter().map(|term| free(term).then(|| call.symbols.number())).collect()
        }
    };
    let is_float = matches!(to, Some(ElementType::FLOAT | ElementType::DOUBLE));
    let cast = Numbers::new(numbers.dims(), cast).ok_or_else(uses_row_count)?;
    Ok(vec![Value::Numbers(cast.with_float(is_float))])
}

/// Keeps a term that survives the cast. A symbol that is no dimension may be a fraction, which a
/// cast from floats cuts off.
fn to_integer(term: Size, numbers: &Numbers, limit: i64, call: &mut Call<'_>) -> Option<Size> {
    let survives = match term.number() {
        Some(number) => number.unsigned_abs() <= limit.unsigned_abs(),
        None => term.is_dimension() || !numbers.is_float(),
    };
    if survives { Some(term) } else { term.is_batch_free().then(|| call.symbols.number()) }
}

/// Passes values on at inference, with a mask of their shape.
pub(super) fn dropout(call: &mut Call<'_>) -> Result<Made> {
    let is_training = if call.opset >= 12 {
        match call.optional(2) {
            None => false,
            Some(_) => call.known(2) != Some(vec![0]),
        }
    } else {
        call.opset < 7 && call.node.int("is_test").unwrap_or(0) == 0
    };
    if is_training {
        return Err("drops values at random, as in training".to_owned());
    }
    let mask: Option<Dims> = call.wants(1).then(|| call.dims(0)).transpose()?;
    let mut made = vec![call.value(0)?.clone()];
    made.extend(mask.map(Value::of).transpose()?);
    Ok(made)
}
