//! Whether two answers to one request agree, and how far apart they are.
//!
//! Outputs are compared by name, so their order does not matter. What only one side gives, or gives in another
//! type or shape, disagrees: there is nothing to measure. Everything else is measured by the declared
//! [`Comparison`], or output by output by what the output is:
//!
//! | output | rule |
//! |---|---|
//! | strings, integers, booleans | exact |
//! | floats that are scores of two classes or more | top-1 |
//! | other floats | tolerance of `1e-5 + 1e-3 * |primary's|` |
//!
//! Scores are what the model's interface calls so, and tensors whose rows are all distributions of probabilities.
//!
//! A row is one run along the last dimension of a tensor of two dimensions or more, so that each token of a
//! sequence is judged by itself. Elements of other tensors have no neighbours to be ordered among: where a rule
//! needs an order, they must be equal.
//!
//! Not done here: rounding of texts, or weighing one output against another. One output that disagrees is enough.

use half::{bf16, f16};
use outhaul_types::{Comparison, DataType, Element, InferResponse, Name, NamedTensor, Tensor};

/// The distance of answers that cannot be measured: other shapes, a NaN against a number.
pub(super) const FARTHEST: f64 = 1e9;

/// Allowed of floats where nothing is declared.
const NEAR: Comparison = Comparison::Tolerance { absolute: 1e-5, relative: 1e-3 };

/// How far the sum of probabilities may be from 1; the sums of half-precision numbers are that coarse.
const SUM_SLACK: f64 = 1e-2;

/// Rounding of a rank correlation, so that equal orders reach 1.
const RANK_SLACK: f64 = 1e-9;

/// What came of comparing two answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Whether the rule calls them the same.
    pub agrees: bool,
    /// How far apart the worst output is; 0 where all are equal, at most a billion, which stands for what
    /// cannot be measured. Exact: the share of elements
    /// that differ. Tolerance: the largest difference over what is allowed. Top-1: by how much the primary
    /// preferred its class to the shadow's; of strings the share of rows that differ. Rank: 1 less the lowest correlation.
    pub distance: f64,
    /// Where they disagree, for people; empty where they agree.
    pub note: String,
}

/// Compares a shadow's answer with the primary's. `scores` are the outputs that the model itself calls scores;
/// they count only where nothing is declared.
pub fn compare(
    declared: Option<Comparison>,
    scores: &[Name],
    primary: &InferResponse,
    shadow: &InferResponse,
) -> Compared {
    let mut worst = Compared { agrees: true, distance: 0.0, note: String::new() };
    for NamedTensor { name, tensor } in &primary.outputs {
        let measured = match shadow.output(name) {
            None => Measured::incomparable("only the primary gives it".to_owned()),
            Some(other) => {
                let rule = declared.unwrap_or_else(|| rule_of(tensor, scores.contains(name)));
                measure(rule, tensor, other)
            }
        };
        worst.include(name, measured);
    }
    for NamedTensor { name, .. } in &shadow.outputs {
        if primary.output(name).is_none() {
            worst.include(name, Measured::incomparable("only the shadow gives it".to_owned()));
        }
    }
    worst
}

impl Compared {
    /// Takes an output in. One that disagrees outweighs all that agree, whatever their distances.
    fn include(&mut self, name: &Name, measured: Measured) {
        let agrees = measured.disagreement.is_none();
        let is_worse = match (self.agrees, agrees) {
            (true, false) => true,
            (false, true) => false,
            _ => measured.distance > self.distance,
        };
        if is_worse {
            let note = measured.disagreement.map(|note| format!("'{name}': {note}"));
            *self =
                Compared { agrees, distance: measured.distance, note: note.unwrap_or_default() };
        }
    }
}

/// What came of comparing two tensors.
struct Measured {
    distance: f64,
    /// Says where they disagree, if they do.
    disagreement: Option<String>,
}

impl Measured {
    const EQUAL: Measured = Measured { distance: 0.0, disagreement: None };

    fn incomparable(note: String) -> Self {
        Measured { distance: FARTHEST, disagreement: Some(note) }
    }

    fn new(distance: f64, disagreement: Option<String>) -> Self {
        // NaN, as infinity less infinity gives, is far too.
        let distance = if distance <= FARTHEST { distance } else { FARTHEST };
        Measured { distance, disagreement }
    }
}

/// The rule for an output where none is declared.
fn rule_of(tensor: &Tensor, called_scores: bool) -> Comparison {
    if !tensor.data_type().is_float() {
        return Comparison::Exact;
    }
    let has_classes = row_width(tensor) >= 2;
    match has_classes && (called_scores || are_probabilities(tensor)) {
        true => Comparison::Top1,
        false => NEAR,
    }
}

fn are_probabilities(tensor: &Tensor) -> bool {
    let numbers = numbers(tensor).unwrap_or_default();
    let is_distribution = |row: &[f64]| {
        row.iter().all(|element| (0.0..=1.0).contains(element))
            && (row.iter().sum::<f64>() - 1.0).abs() <= SUM_SLACK
    };
    !numbers.is_empty() && numbers.chunks(row_width(tensor)).all(is_distribution)
}

/// The elements of a row; 1 where the elements stand alone.
fn row_width(tensor: &Tensor) -> usize {
    match &tensor.shape()[..] {
        [_, .., last] => *last,
        _ => 1,
    }
}

fn measure(rule: Comparison, primary: &Tensor, shadow: &Tensor) -> Measured {
    if primary.data_type() != shadow.data_type() || primary.shape() != shadow.shape() {
        let form = |tensor: &Tensor| format!("{} {}", tensor.data_type(), tensor.shape());
        let note = format!("{}, the shadow's is {}", form(primary), form(shadow));
        return Measured::incomparable(note);
    }
    // Most answers of equal models; NaNs of other bits and the zeros of two signs are looked at below.
    if primary == shadow {
        return Measured::EQUAL;
    }
    let has_order = row_width(primary) >= 2;
    match (rule, numbers(primary), numbers(shadow)) {
        (Comparison::Tolerance { absolute, relative }, Some(left), Some(right)) => {
            tolerance(absolute, relative, (&left, &right))
        }
        (Comparison::Top1, Some(left), Some(right)) if has_order => {
            top_1(row_width(primary), (&left, &right))
        }
        (Comparison::Rank { at_least }, Some(left), Some(right)) if has_order => {
            rank(at_least, row_width(primary), (&left, &right))
        }
        (Comparison::Top1, None, None) if has_order => first_strings(primary, shadow),
        _ => exact(primary, shadow),
    }
}

/// The elements as numbers, or `None` of strings. Whole numbers beyond 2^53 are rounded.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    fn each<T: Element>(tensor: &Tensor, number: impl Fn(T) -> f64) -> Option<Vec<f64>> {
        Some(tensor.elements_of::<T>()?.iter().copied().map(number).collect())
    }
    match tensor.data_type() {
        DataType::Bytes => None,
        DataType::Bool => Some(tensor.as_bytes()?.iter().map(|&byte| f64::from(byte)).collect()),
        DataType::Uint8 => each::<u8>(tensor, f64::from),
        DataType::Uint16 => each::<u16>(tensor, f64::from),
        DataType::Uint32 => each::<u32>(tensor, f64::from),
        DataType::Uint64 => each::<u64>(tensor, |whole| whole as f64),
        DataType::Int8 => each::<i8>(tensor, f64::from),
        DataType::Int16 => each::<i16>(tensor, f64::from),
        DataType::Int32 => each::<i32>(tensor, f64::from),
        DataType::Int64 => each::<i64>(tensor, |whole| whole as f64),
        DataType::Fp16 => each::<f16>(tensor, f64::from),
        DataType::Bf16 => each::<bf16>(tensor, f64::from),
        DataType::Fp32 => each::<f32>(tensor, f64::from),
        DataType::Fp64 => each::<f64>(tensor, |number| number),
    }
}

fn exact(primary: &Tensor, shadow: &Tensor) -> Measured {
    let differ: Vec<bool> = match (primary.as_strings(), shadow.as_strings()) {
        (Some(left), Some(right)) => left.iter().zip(right.iter()).map(|(l, r)| l != r).collect(),
        _ => bits_differ(primary, shadow),
    };
    let Some(first) = differ.iter().position(|differs| *differs) else { return Measured::EQUAL };
    let count = differ.iter().filter(|differs| **differs).count();
    let note = format!("{count} of {} elements differ, first element {first}", differ.len());
    Measured::new(count as f64 / differ.len() as f64, Some(note))
}

/// Which elements of fixed size have other bits. NaNs of any bits are the same.
fn bits_differ(primary: &Tensor, shadow: &Tensor) -> Vec<bool> {
    let size = primary.data_type().size().unwrap_or(1);
    let (Some(left), Some(right)) = (primary.as_bytes(), shadow.as_bytes()) else {
        return Vec::new();
    };
    let pairs = left.chunks(size).zip(right.chunks(size));
    let differ = pairs.map(|(left, right)| left != right);
    if !primary.data_type().is_float() {
        return differ.collect();
    }
    let numbers = [primary, shadow].map(|tensor| numbers(tensor).unwrap_or_default());
    let both_nan = numbers[0].iter().zip(&numbers[1]).map(|(l, r)| l.is_nan() && r.is_nan());
    differ.zip(both_nan).map(|(differs, both_nan)| differs && !both_nan).collect()
}

fn tolerance(absolute: f64, relative: f64, (primary, shadow): (&[f64], &[f64])) -> Measured {
    let over = |(&left, &right): (&f64, &f64)| {
        if left == right || left.is_nan() && right.is_nan() {
            return 0.0;
        }
        // Infinity has no neighbours.
        match left.is_finite() && right.is_finite() {
            true => ((left - right).abs() / (absolute + relative * left.abs())).min(FARTHEST),
            false => FARTHEST,
        }
    };
    let each = primary.iter().zip(shadow).map(over).enumerate();
    let Some((element, distance)) = each.max_by(|left, right| left.1.total_cmp(&right.1)) else {
        return Measured::EQUAL;
    };
    let disagreement = (distance > 1.0).then(|| {
        let (left, right) = (primary[element], shadow[element]);
        format!("element {element} is {left}, the shadow's {right}")
    });
    Measured::new(distance, disagreement)
}

fn top_1(width: usize, (primary, shadow): (&[f64], &[f64])) -> Measured {
    let mut distance = 0.0_f64;
    let mut disagreement = None;
    for (row, (left, right)) in primary.chunks(width).zip(shadow.chunks(width)).enumerate() {
        let (own, other) = match (first_place(left), first_place(right)) {
            (Some(own), Some(other)) => (own, other),
            (None, None) => continue,
            _ => return Measured::incomparable(format!("row {row}: one of the two has a NaN")),
        };
        // Classes that share the first place may be named in any order.
        if left[own] == left[other] || right[own] == right[other] {
            continue;
        }
        let margin = left[own] - left[other];
        if disagreement.is_none() || margin > distance {
            distance = margin;
            disagreement = Some(format!("row {row}: {own} comes first, of the shadow's {other}"));
        }
    }
    Measured::new(distance, disagreement)
}

/// The place of the largest element; `None` where a NaN is among them.
fn first_place(row: &[f64]) -> Option<usize> {
    if row.iter().any(|element| element.is_nan()) {
        return None;
    }
    let places = row.iter().enumerate().rev();
    places.max_by(|left, right| left.1.total_cmp(right.1)).map(|(place, _)| place)
}

/// Compares the first string of each row: labels come best first.
fn first_strings(primary: &Tensor, shadow: &Tensor) -> Measured {
    let (Some(left), Some(right)) = (primary.as_strings(), shadow.as_strings()) else {
        return Measured::EQUAL;
    };
    let width = row_width(primary);
    let pairs = left.iter().zip(right.iter()).step_by(width);
    let differ: Vec<bool> = pairs.map(|(left, right)| left != right).collect();
    let Some(row) = differ.iter().position(|differs| *differs) else { return Measured::EQUAL };
    let text = |strings: &outhaul_types::Strings| {
        let text = String::from_utf8_lossy(strings.get(row * width).unwrap_or_default());
        text.chars().take(80).collect::<String>()
    };
    let note =
        format!("row {row}: '{}' comes first, of the shadow's '{}'", text(left), text(right));
    let count = differ.iter().filter(|differs| **differs).count();
    Measured::new(count as f64 / differ.len() as f64, Some(note))
}

fn rank(at_least: f64, width: usize, (primary, shadow): (&[f64], &[f64])) -> Measured {
    let rows = primary.chunks(width).zip(shadow.chunks(width));
    let each = rows.map(|(left, right)| spearman(left, right)).enumerate();
    let Some((row, lowest)) = each.min_by(|left, right| left.1.total_cmp(&right.1)) else {
        return Measured::EQUAL;
    };
    let disagreement = (lowest + RANK_SLACK < at_least)
        .then(|| format!("row {row}: rank correlation {lowest:.3}, at least {at_least} is asked"));
    Measured::new((1.0 - lowest).max(0.0), disagreement)
}

/// Spearman's rank correlation: Pearson's, of the ranks, where equal elements share the mean of theirs. Of two rows
/// without any order it is 1, of one with and one without 0.
fn spearman(left: &[f64], right: &[f64]) -> f64 {
    let (left, right) = (ranks(left), ranks(right));
    let mean = (left.len() as f64 - 1.0) / 2.0;
    let product = |one: &[f64], other: &[f64]| -> f64 {
        one.iter().zip(other).map(|(one, other)| (one - mean) * (other - mean)).sum()
    };
    let (own, others) = (product(&left, &left), product(&right, &right));
    match (own > 0.0, others > 0.0) {
        (true, true) => product(&left, &right) / (own * others).sqrt(),
        (false, false) => 1.0,
        _ => 0.0,
    }
}

/// The rank of each element, from 0; NaNs come last and are equal.
fn ranks(row: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    let key = |index: usize| if row[index].is_nan() { f64::NAN.abs() } else { row[index] };
    order.sort_by(|&left, &right| key(left).total_cmp(&key(right)));
    let are_equal = |left: &usize, right: &usize| {
        row[*left] == row[*right] || row[*left].is_nan() && row[*right].is_nan()
    };
    let mut ranks = vec![0.0; row.len()];
    let mut first = 0;
    for ties in order.chunk_by(are_equal) {
        let mean = first as f64 + (ties.len() as f64 - 1.0) / 2.0;
        ties.iter().for_each(|&index| ranks[index] = mean);
        first += ties.len();
    }
    ranks
}

#[cfg(test)]
mod tests;
