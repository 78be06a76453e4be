//! Which of the model's inputs are filled from tokens, and with what.

use outhaul_types::{
    BoundInputs, DataType, ModelSignature, ShapePattern, Tensor, TensorError, TensorSpec,
};

use super::{IDS, MASK, TYPES};
use crate::BuildError;

const KEY: &str = "input";

/// The model's inputs of tokens, each INT64 or INT32 `[batch, tokens]`.
#[derive(Debug)]
pub(super) struct TokenInputs {
    /// How many inputs the model has.
    count: usize,
    ids: Slot,
    mask: Option<Slot>,
    types: Option<Slot>,
    /// The tokens of every row, where the model's file fixes them.
    fixed: Option<usize>,
    /// The rows of every run, where the model's file fixes them.
    fixed_rows: Option<usize>,
    /// The id that padding is made of.
    pad: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    index: usize,
    is_int64: bool,
}

impl TokenInputs {
    /// Finds them.
    ///
    /// # Errors
    ///
    /// Fails where there is no input of token ids, where one of them has another type or shape, and
    /// where the model needs an input that texts cannot fill.
    pub(super) fn fit(inner: &ModelSignature, pad: Option<u32>) -> Result<Self, BuildError> {
        let slot = |name| match inner.input_index(name) {
            Some(index) => Slot::of(index, &inner.inputs[index]).map(Some),
            None => Ok(None),
        };
        let Some(ids) = slot(IDS)? else {
            let names: Vec<String> =
                inner.inputs.iter().map(|spec| format!("'{}'", spec.name)).collect();
            let problem =
                format!("needs an input '{IDS}' of the model, which has {}", names.join(", "));
            return Err(BuildError::Declared { key: KEY, problem });
        };
        let (mask, types) = (slot(MASK)?, slot(TYPES)?);
        let known = [IDS, MASK, TYPES];
        let unknown = |spec: &&TensorSpec| !spec.optional && !known.contains(&spec.name.as_str());
        if let Some(spec) = inner.inputs.iter().find(unknown) {
            return Err(unfit(spec, "a tokenizer cannot fill"));
        }
        let fixed = fixed_length(inner, [Some(ids), mask, types])?;
        if fixed.is_some() && mask.is_none() && pad.is_none() {
            let problem = "needs padding, and the tokenizer has no token for it";
            return Err(unfit(&inner.inputs[ids.index], problem));
        }
        // Where a mask tells padding apart, its id is of no consequence.
        let pad = pad.unwrap_or(0);
        let fixed_rows = match &inner.inputs[ids.index].shape {
            ShapePattern::Ranked(dimensions) => dimensions.first().and_then(|rows| rows.size()),
            ShapePattern::AnyRank => None,
        };
        if fixed_rows == Some(0) {
            return Err(unfit(&inner.inputs[ids.index], "has no rows"));
        }
        let count = inner.inputs.len();
        Ok(TokenInputs { count, ids, mask, types, fixed, fixed_rows, pad })
    }

    /// The rows of every run, where the model's file fixes them.
    pub(super) fn fixed_rows(&self) -> Option<usize> {
        self.fixed_rows
    }

    /// Returns the token ids that a caller gave.
    pub(super) fn ids<'i>(&self, inputs: &'i BoundInputs) -> Option<&'i Tensor> {
        inputs.get(self.ids.index)?.as_ref()
    }

    /// The tokens of every row, where the model's file fixes them.
    pub(super) fn fixed_length(&self) -> Option<usize> {
        self.fixed
    }

    /// Whether the model tells the texts of a pair apart.
    pub(super) fn takes_types(&self) -> bool {
        self.types.is_some()
    }

    /// Whether the model can tell padding from tokens.
    pub(super) fn takes_mask(&self) -> bool {
        self.mask.is_some()
    }

    /// Makes the model's inputs of some rows, each given by its ids and its type ids (empty where the
    /// model takes none) and filled up to `length` tokens.
    pub(super) fn fill<'r>(
        &self,
        rows: impl ExactSizeIterator<Item = (&'r [u32], &'r [u32])> + Clone,
        length: usize,
    ) -> BoundInputs {
        let mut inputs: BoundInputs = std::iter::repeat_n(None, self.count).collect();
        let pad = self.pad;
        inputs[self.ids.index] =
            Some(self.ids.tensor(rows.clone().map(|(ids, _)| ids), length, pad));
        if let Some(types) = self.types {
            inputs[types.index] =
                Some(types.tensor(rows.clone().map(|(_, types)| types), length, 0));
        }
        if let Some(mask) = self.mask {
            let shape = [rows.len(), length];
            let ones = rows.map(|(ids, _)| ids.len());
            inputs[mask.index] = Some(mask.mask(ones, shape));
        }
        inputs
    }

    /// Fills in a mask of ones and types of zeros where a caller sent token ids without them.
    pub(super) fn complete(&self, mut inputs: BoundInputs) -> BoundInputs {
        let Some(Some(ids)) = inputs.get(self.ids.index) else {
            return inputs;
        };
        let shape = ids.shape().clone();
        for (slot, value) in [(self.mask, 1), (self.types, 0)] {
            if let Some(slot) = slot
                && let Some(input) = inputs.get_mut(slot.index)
                && input.is_none()
            {
                let count = shape.elements().unwrap_or(0);
                *input = slot.tensor_of(std::iter::repeat_n(value, count), shape.clone()).ok();
            }
        }
        inputs
    }

    /// Whether [`TokenInputs::complete`] fills in this input of the model.
    pub(super) fn completes(&self, index: usize) -> bool {
        [self.mask, self.types].into_iter().flatten().any(|slot| slot.index == index)
    }
}

impl Slot {
    fn of(index: usize, spec: &TensorSpec) -> Result<Self, BuildError> {
        let is_int64 = match spec.data_type {
            DataType::Int64 => true,
            DataType::Int32 => false,
            _ => return Err(unfit(spec, "must be INT64 or INT32 to take tokens")),
        };
        match &spec.shape {
            ShapePattern::Ranked(dimensions) if dimensions.len() != 2 => {
                Err(unfit(spec, "must be [batch, tokens] to take tokens"))
            }
            _ => Ok(Slot { index, is_int64 }),
        }
    }

    /// Rows of numbers, each filled up to `length` with `filling`.
    fn tensor<'r>(
        self,
        rows: impl ExactSizeIterator<Item = &'r [u32]>,
        length: usize,
        filling: u32,
    ) -> Tensor {
        let shape = [rows.len(), length];
        let filled = rows.flat_map(|row| {
            let missing = length - row.len();
            row.iter().copied().chain(std::iter::repeat_n(filling, missing))
        });
        self.tensor_of(filled, shape.into()).expect("each row is filled up to the length")
    }

    /// Rows of so many ones, each filled up with zeros.
    fn mask(self, ones: impl ExactSizeIterator<Item = usize>, shape: [usize; 2]) -> Tensor {
        let [_, length] = shape;
        let filled = ones.flat_map(|ones| {
            std::iter::repeat_n(1, ones).chain(std::iter::repeat_n(0, length - ones))
        });
        self.tensor_of(filled, shape.into()).expect("each row is filled up to the length")
    }

    fn tensor_of(
        self,
        numbers: impl Iterator<Item = u32>,
        shape: outhaul_types::Shape,
    ) -> Result<Tensor, TensorError> {
        let count = shape.elements().unwrap_or(0);
        if self.is_int64 {
            let mut elements = Vec::with_capacity(count);
            elements.extend(numbers.map(i64::from));
            Tensor::from_vec(shape, elements)
        } else {
            let mut elements = Vec::with_capacity(count);
            // No vocabulary has two thousand million tokens: ids are indices of a list in memory.
            elements.extend(numbers.map(|number| number as i32));
            Tensor::from_vec(shape, elements)
        }
    }
}

/// Returns the length of rows that the model's file fixes, on which all its inputs must agree.
fn fixed_length(
    inner: &ModelSignature,
    slots: [Option<Slot>; 3],
) -> Result<Option<usize>, BuildError> {
    let mut fixed = None;
    for slot in slots.into_iter().flatten() {
        let spec = &inner.inputs[slot.index];
        let own = match &spec.shape {
            ShapePattern::Ranked(dimensions) => dimensions.get(1).and_then(|length| length.size()),
            ShapePattern::AnyRank => None,
        };
        match (fixed, own) {
            (Some(fixed), Some(own)) if fixed != own => {
                return Err(unfit(spec, &format!("must have {fixed} tokens, as '{IDS}'")));
            }
            (None, own) => fixed = own,
            _ => {}
        }
    }
    Ok(fixed)
}

fn unfit(spec: &TensorSpec, problem: &str) -> BuildError {
    BuildError::Unfit {
        key: KEY,
        name: spec.name.clone(),
        data_type: spec.data_type,
        shape: spec.shape.clone(),
        problem: problem.to_owned(),
    }
}
