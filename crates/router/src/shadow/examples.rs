//! The worst disagreements, kept for people to look at.
//!
//! Only copies touch the lock, never a request. What is kept is bounded: so many examples, and of each the beginnings
//! of its inputs and of both answers.

use std::fmt::{Display, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use half::{bf16, f16};
use outhaul_types::{DataType, Element, InferResponse, Name, NamedTensor, Tensor};
use serde::Serialize;

/// The longest text that is kept of inputs or of an answer, in bytes.
const LONGEST_TEXT: usize = 2048;

/// The longest text that is kept of one string, in characters.
const LONGEST_STRING: usize = 256;

/// The most elements of a tensor that are looked at: more than the text can hold.
const MOST_ELEMENTS: usize = LONGEST_TEXT / 2;

/// A request whose answers disagreed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShadowExample {
    /// The request's id.
    pub request: Name,
    /// When the answers were compared, in milliseconds since 1970.
    pub at_ms: u64,
    /// How far apart the answers are; see [`Compared::distance`](super::compare::Compared).
    pub distance: f64,
    /// Where they disagree.
    pub note: String,
    /// What was asked: the beginning of each input.
    pub inputs: String,
    /// The model and version that answered the caller.
    pub primary_by: String,
    /// Its answer.
    pub primary: String,
    /// The model and version that answered the copy.
    pub shadow_by: String,
    /// Its answer.
    pub shadow: String,
}

/// The worst of all, up to a number.
pub(super) struct Examples {
    most: usize,
    /// Worst first; of equals the newest first.
    worst: Mutex<Vec<ShadowExample>>,
}

impl Examples {
    pub(super) fn new(most: usize) -> Self {
        Examples { most, worst: Mutex::default() }
    }

    /// Keeps an example if it is among the worst. It is made only then.
    pub(super) fn offer(&self, distance: f64, example: impl FnOnce() -> ShadowExample) {
        let is_full = |worst: &[ShadowExample]| worst.len() >= self.most;
        let mut worst = self.lock();
        if is_full(&worst) && worst.last().is_none_or(|least| least.distance > distance) {
            return;
        }
        if is_full(&worst) {
            worst.pop();
        }
        let place = worst.partition_point(|other| other.distance > distance);
        worst.insert(place, example());
    }

    pub(super) fn all(&self) -> Vec<ShadowExample> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ShadowExample>> {
        self.worst.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes who answered, as in `reviews@3`.
pub(super) fn by(response: &InferResponse) -> String {
    format!("{}@{}", response.model, response.version)
}

/// Writes tensors for people, one a line and each with its beginning: `y FP32 [1,2]: 0.1, 0.9`.
pub(super) fn text<'a>(tensors: impl IntoIterator<Item = &'a NamedTensor>) -> String {
    let mut text = String::new();
    for NamedTensor { name, tensor } in tensors {
        let line = if text.is_empty() { "" } else { "\n" };
        // Writing to a string does not fail.
        let _ = write!(text, "{line}{name} {} {}:", tensor.data_type(), tensor.shape());
        for (index, element) in elements(tensor).iter().enumerate() {
            let _ = write!(text, "{} {element}", if index > 0 { "," } else { "" });
            if text.len() > LONGEST_TEXT {
                break;
            }
        }
        if tensor.len() > MOST_ELEMENTS {
            text.push_str(", ...");
        }
        if text.len() > LONGEST_TEXT {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT - 3));
            text.push_str("...");
            break;
        }
    }
    text
}

/// The first elements of a tensor as texts.
fn elements(tensor: &Tensor) -> Vec<String> {
    let count = tensor.len().min(MOST_ELEMENTS);
    let Some(bytes) = tensor.as_bytes() else {
        let strings = tensor.as_strings().into_iter().flat_map(|strings| strings.iter());
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * LONGEST_STRING)]);
            format!("{:?}", text.chars().take(LONGEST_STRING).collect::<String>())
        };
        return strings.take(count).map(text).collect();
    };
    let size = tensor.data_type().size().unwrap_or(1);
    let first = Tensor::from_bytes(tensor.data_type(), [count], bytes.slice(..count * size));
    first.map(|first| fixed(&first)).unwrap_or_default()
}

fn fixed(tensor: &Tensor) -> Vec<String> {
    fn each<T: Element + Display>(tensor: &Tensor) -> Vec<String> {
        let elements = tensor.elements_of::<T>().unwrap_or_default();
        elements.iter().map(ToString::to_string).collect()
    }
    match tensor.data_type() {
        DataType::Bytes => Vec::new(),
        DataType::Bool => {
            let bytes = tensor.as_bytes().into_iter().flatten();
            bytes.map(|&byte| (byte != 0).to_string()).collect()
        }
        DataType::Uint8 => each::<u8>(tensor),
        DataType::Uint16 => each::<u16>(tensor),
        DataType::Uint32 => each::<u32>(tensor),
        DataType::Uint64 => each::<u64>(tensor),
        DataType::Int8 => each::<i8>(tensor),
        DataType::Int16 => each::<i16>(tensor),
        DataType::Int32 => each::<i32>(tensor),
        DataType::Int64 => each::<i64>(tensor),
        DataType::Fp16 => each::<f16>(tensor),
        DataType::Bf16 => each::<bf16>(tensor),
        DataType::Fp32 => each::<f32>(tensor),
        DataType::Fp64 => each::<f64>(tensor),
    }
}

#[cfg(test)]
mod tests {
    use outhaul_types::Strings;

    use super::*;

    fn example(request: &str, distance: f64) -> ShadowExample {
        ShadowExample {
            request: request.into(),
            at_ms: 0,
            distance,
            note: String::new(),
            inputs: String::new(),
            primary_by: String::new(),
            primary: String::new(),
            shadow_by: String::new(),
            shadow: String::new(),
        }
    }

    #[test]
    fn the_worst_are_kept_and_of_equals_the_newest() {
        let examples = Examples::new(3);
        let offer = |request: &str, distance| {
            examples.offer(distance, || example(request, distance));
        };
        for (request, distance) in
            [("a", 1.0), ("b", 5.0), ("c", 1.0), ("d", 0.5), ("e", 2.0), ("f", 1.0)]
        {
            offer(request, distance);
        }
        let kept: Vec<_> = examples.all().into_iter().map(|example| example.request).collect();
        assert_eq!(kept, ["b", "e", "f"]);
        examples.offer(0.1, || panic!("it is not made"));
        Examples::new(0).offer(9.0, || panic!("none is kept"));
    }

    #[test]
    fn tensors_are_written_as_people_read_them() {
        let named = |name: &str, tensor| NamedTensor { name: name.into(), tensor };
        let strings: Strings = ["it's \"fine\"", ""].iter().collect();
        let tensors = [
            named("y", Tensor::from_vec([1, 2], vec![0.1_f32, f32::NAN]).unwrap()),
            named("h", Tensor::from_vec([1], vec![f16::from_f32(0.5)]).unwrap()),
            named("id", Tensor::from_vec([1], vec![9_007_199_254_740_993_i64]).unwrap()),
            named("ok", Tensor::from_bools([2], [true, false]).unwrap()),
            named("text", Tensor::from_strings([2], strings).unwrap()),
            named("none", Tensor::from_vec([0], Vec::<f64>::new()).unwrap()),
        ];
        let expected = "y FP32 [1,2]: 0.1, NaN\nh FP16 [1]: 0.5\nid INT64 [1]: 9007199254740993\n\
                        ok BOOL [2]: true, false\ntext BYTES [2]: \"it's \\\"fine\\\"\", \"\"\nnone FP64 [0]:";
        assert_eq!(text(&tensors), expected);
    }

    #[test]
    fn texts_are_bounded() {
        let long = "\u{e9}".repeat(100_000);
        let strings: Strings = std::iter::repeat_n(long.as_str(), 100).collect();
        for tensor in [
            Tensor::from_vec([1_000_000], vec![0_u8; 1_000_000]).unwrap(),
            Tensor::from_strings([100], strings).unwrap(),
        ] {
            let text = text(&[NamedTensor { name: "x".into(), tensor }]);
            assert!(text.len() <= LONGEST_TEXT && text.ends_with("..."), "{}", text.len());
        }
    }
}
