//! What an answer said, in a word, so that a label that somebody tells later can be compared with it.
//!
//! Invariant: the cost is bounded and small against any inference, since this runs on the request's path: one row
//! of at most [`LONGEST_ROW`] numbers is looked at, and nothing of the answer's buffers is kept.

use half::{bf16, f16};
use outhaul_types::{DataType, InferResponse, Name, Tensor};

/// The numbers of a row beyond which its largest is not looked for.
const LONGEST_ROW: usize = 1 << 16;

/// The most bytes of a label. Longer ones are cut.
const LONGEST_LABEL: usize = 256;

/// Returns what the first row of an answer predicts: the output `label` (of classifications here and of models
/// from scikit-learn, where it is also called `output_label`); else the place of the largest number in the row of the first
/// output of scores, as in `2`; else the first element of the first output. `None` where that says nothing in a
/// word.
pub(super) fn predicted(answer: &InferResponse) -> Option<Name> {
    let label = answer.output("label").or_else(|| answer.output("output_label"));
    if let Some(label) = label {
        return first_element(label);
    }
    let mut outputs = answer.outputs.iter().map(|output| &output.tensor);
    match outputs.clone().find(|tensor| is_float(tensor.data_type())) {
        Some(scores) => best_of_row(scores),
        None => outputs.next().and_then(first_element),
    }
}

fn is_float(data_type: DataType) -> bool {
    matches!(data_type, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

/// The place of the first row's largest number; a row of one number is that number.
fn best_of_row(scores: &Tensor) -> Option<Name> {
    let row = match scores.shape().row_shape() {
        [] => 1,
        [width] => *width,
        _ => return None,
    };
    if row <= 1 {
        return first_element(scores);
    }
    if row > LONGEST_ROW || row > scores.len() {
        return None;
    }
    let place = match scores.data_type() {
        DataType::Fp32 => largest(&scores.elements_of::<f32>()?[..row]),
        DataType::Fp64 => largest(&scores.elements_of::<f64>()?[..row]),
        DataType::Fp16 => largest(&scores.elements_of::<f16>()?[..row]),
        DataType::Bf16 => largest(&scores.elements_of::<bf16>()?[..row]),
        _ => None,
    };
    place.map(text)
}

/// The place of the largest number, the first of equals; `None` where all are NaN.
fn largest<T: PartialOrd + Copy>(row: &[T]) -> Option<usize> {
    let numbers = row.iter().enumerate().filter(|(_, value)| value.partial_cmp(value).is_some());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(place, _)| place)
}

/// The first element as text.
fn first_element(tensor: &Tensor) -> Option<Name> {
    if let Some(strings) = tensor.as_strings() {
        let bytes = strings.get(0)?;
        let bytes = &bytes[..bytes.len().min(LONGEST_LABEL)];
        let whole = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        return Some(whole.into());
    }
    if tensor.is_empty() {
        return None;
    }
    let bytes = tensor.as_bytes()?;
    let width = tensor.data_type().size()?;
    let first = bytes.get(..width)?;
    macro_rules! number {
        ($type:ty) => {
            text(<$type>::from_le_bytes(first.try_into().ok()?))
        };
    }
    Some(match tensor.data_type() {
        DataType::Bool => text(first[0] != 0),
        DataType::Uint8 => number!(u8),
        DataType::Uint16 => number!(u16),
        DataType::Uint32 => number!(u32),
        DataType::Uint64 => number!(u64),
        DataType::Int8 => number!(i8),
        DataType::Int16 => number!(i16),
        DataType::Int32 => number!(i32),
        DataType::Int64 => number!(i64),
        DataType::Fp16 => number!(f16),
        DataType::Bf16 => number!(bf16),
        DataType::Fp32 => number!(f32),
        DataType::Fp64 => number!(f64),
        DataType::Bytes => return None,
    })
}

fn text(value: impl ToString) -> Name {
    value.to_string().into()
}

/// Returns whether a label that somebody told is what was predicted: the same text, or the same number.
pub(super) fn agree(predicted: &str, told: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    predicted == told || number(predicted).is_some_and(|value| number(told) == Some(value))
}

#[cfg(test)]
pub(super) mod tests {
    use outhaul_types::{CacheStatus, ModelName, ModelVersion, NamedTensor, Strings, Timings};

    use super::*;

    pub(in crate::experiment) fn answer(
        outputs: impl IntoIterator<Item = (&'static str, Tensor)>,
    ) -> InferResponse {
        let named = |(name, tensor): (&str, Tensor)| NamedTensor { name: name.into(), tensor };
        InferResponse {
            id: None,
            model: ModelName::new("m").unwrap(),
            version: ModelVersion(1),
            outputs: outputs.into_iter().map(named).collect(),
            timings: Timings::default(),
            tokens: None,
            cache: CacheStatus::Off,
            via: None,
        }
    }

    pub(in crate::experiment) fn strings(texts: &[&str]) -> Tensor {
        let bytes: Vec<u8> = texts.concat().into_bytes();
        let mut end = 0;
        let spans = texts.iter().map(|text| {
            end += text.len();
            end - text.len()..end
        });
        let strings = Strings::from_spans(bytes.clone().into(), spans.collect()).unwrap();
        Tensor::from_strings([texts.len()], strings).unwrap()
    }

    #[test]
    fn an_answer_is_told_in_a_word() {
        let scores = |row: &[f32]| Tensor::from_vec([1, row.len()], row.to_vec()).unwrap();
        let long = "é".repeat(200);
        struct Case {
            outputs: Vec<(&'static str, Tensor)>,
            expected: Option<String>,
            what: &'static str,
        }
        let some = |text: &str| Some(text.to_owned());
        let case = |what, outputs: Vec<_>, expected| Case { outputs, expected, what };
        let two_rows = Tensor::from_vec([2, 2], vec![0.1_f32, 0.9, 0.8, 0.2]).unwrap();
        let half = Tensor::from_vec([1, 2], vec![f16::ONE, f16::ZERO]).unwrap();
        let ids = Tensor::from_vec([2], vec![7_i64, 8]).unwrap();
        let cube = Tensor::from_vec([1, 2, 2], vec![1.0_f32; 4]).unwrap();
        for Case { outputs, expected, what } in [
            case(
                "labels",
                vec![("score", scores(&[0.9])), ("label", strings(&["b", "a"]))],
                some("b"),
            ),
            case("of scikit-learn", vec![("output_label", ids.clone())], some("7")),
            case("scores", vec![("logits", scores(&[0.1, 3.0, -1.0]))], some("1")),
            case("the first row", vec![("logits", two_rows)], some("1")),
            case("half precision", vec![("logits", half)], some("0")),
            case("NaN is no largest", vec![("y", scores(&[f32::NAN, 1.0, 2.0]))], some("2")),
            case("all NaN", vec![("y", scores(&[f32::NAN, f32::NAN]))], None),
            case("one number", vec![("y", scores(&[0.25]))], some("0.25")),
            case(
                "ids and scores",
                vec![("ids", ids.clone()), ("y", scores(&[0.0, 1.0]))],
                some("1"),
            ),
            case("ids alone", vec![("ids", ids)], some("7")),
            case("a row of rows", vec![("hidden", cube)], None),
            case("nothing", vec![], None),
            case("truth", vec![("y", Tensor::from_bools([1], [true]).unwrap())], some("true")),
            case("long", vec![("label", strings(&[&long]))], Some("é".repeat(128))),
        ] {
            assert_eq!(predicted(&answer(outputs)).map(String::from), expected, "{what}");
        }
    }

    #[test]
    fn labels_agree_as_texts_or_numbers() {
        for (predicted, told, expected) in [
            ("positive", "positive", true),
            ("positive", "Positive", false),
            ("1", "1.0", true),
            ("1", "2", false),
            ("true", "true", true),
            ("1", "true", false),
            ("", "", true),
        ] {
            assert_eq!(agree(predicted, told), expected, "{predicted} {told}");
        }
    }
}
