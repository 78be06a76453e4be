//! An answer as it is kept.

use std::time::Duration;

use bytes::Bytes;
use outhaul_types::{NamedTensor, Strings, Tensor, TensorData};
use smallvec::SmallVec;

/// What an entry takes beside its elements: the key, the names, the places in the cache's tables.
const OVERHEAD: usize = 256;

/// What each string of a tensor takes beside its bytes.
const SPAN: usize = size_of::<std::ops::Range<usize>>();

/// An answer, and what it would cost to compute it again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The tensors, in the order in which they were asked for.
    pub outputs: SmallVec<[NamedTensor; 2]>,
    /// The rows that were answered.
    pub rows: usize,
    /// The tokens that texts were turned into; `None` where there were none.
    pub tokens: Option<usize>,
    /// The engine's time that went into it.
    pub cost: Duration,
}

impl Kept {
    /// Returns the memory that it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let of = |output: &NamedTensor| {
            let strings = output.tensor.as_strings().map_or(0, Strings::len);
            output.tensor.byte_size()
                + strings * SPAN
                + output.name.len()
                + size_of::<NamedTensor>()
        };
        OVERHEAD + self.outputs.iter().map(of).sum::<usize>()
    }

    /// Returns it in buffers of its own, which hold nothing else and are aligned.
    pub(crate) fn compact(&self) -> Kept {
        let own = |output: &NamedTensor| NamedTensor {
            name: output.name.clone(),
            tensor: compact(&output.tensor),
        };
        Kept { outputs: self.outputs.iter().map(own).collect(), ..*self }
    }
}

fn compact(tensor: &Tensor) -> Tensor {
    let shape = tensor.shape().clone();
    let copy = match tensor.data() {
        TensorData::Fixed(bytes) => {
            Tensor::from_bytes(tensor.data_type(), shape, Bytes::copy_from_slice(bytes))
        }
        TensorData::Strings(strings) => {
            Tensor::from_strings(shape, strings.iter().collect::<Strings>())
        }
    };
    // As many elements of the same type: it cannot fail.
    copy.unwrap_or_else(|_| tensor.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_holds_no_larger_buffer() {
        let batch = Tensor::from_vec([1000, 2], vec![1.5_f32; 2000]).unwrap();
        let texts: Strings = (0..100).map(|index| format!("text {index}")).collect();
        let texts = Tensor::from_strings([100], texts).unwrap();
        let named = |name: &str, tensor: Tensor| NamedTensor { name: name.into(), tensor };
        let kept = Kept {
            outputs: [named("y", batch.slice_rows(7..8)), named("t", texts.slice_rows(3..5))]
                .into_iter()
                .collect(),
            ..Kept::default()
        };
        let compact = kept.compact();
        assert_eq!(compact, kept);
        let start = |kept: &Kept| kept.outputs[0].tensor.as_bytes().unwrap().as_ptr();
        assert_ne!(start(&compact), start(&kept));
        assert!(compact.size() < 600, "{} bytes for 8 and 12", compact.size());
    }
}
