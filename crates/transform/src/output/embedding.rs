//! One vector a text: `embedding`, FP32 `[batch, dimensions]`.
//!
//! The rules are those of sentence-transformers (`models/Pooling.py`, `models/Normalize.py`): the
//! attention mask weighs tokens, so padding counts for nothing, and a vector of zeros stays one.

use std::borrow::Cow;

use outhaul_types::{
    BoundInputs, Content, DataType, Dimension, EmbeddingOutput, Field, Name, Pooling, ShapePattern,
    Tensor, TensorSpec, Tensors,
};
use smallvec::smallvec;

use super::Context;
use super::pick::{dimensions, fixed_size, floats, output_at, pick_ranked};
use crate::build::Built;
use crate::text::MASK;
use crate::{BuildError, OutputSide, Part, TransformError};

/// Below this a length is taken for zero, as by `torch.nn.functional.normalize`.
const SHORTEST: f64 = 1e-12;

struct Embedding {
    /// The model's output.
    index: usize,
    output: Name,
    /// The model's input of the attention mask, where it has one.
    mask: Option<usize>,
    pooling: Pooling,
    normalize: bool,
    /// The numbers of a vector that are kept.
    kept: Option<usize>,
}

pub(super) fn build(
    spec: &EmbeddingOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let first = context.inner.outputs.first().map_or("", |spec| spec.name.as_str());
    let preferred = ["sentence_embedding", "last_hidden_state", first];
    let index = pick_ranked(context, spec.output.as_ref(), &preferred, &[2, 3], "output.output")?;
    let inner = &context.inner.outputs[index];
    let kept = spec.dimensions.map(usize::from);
    let given = fixed_size(inner, 0);
    if let (Some(kept), Some(given)) = (kept, given)
        && kept > given
    {
        let problem = format!("is {kept}, but '{}' has {given}", inner.name);
        return Err(BuildError::Declared { key: "output.dimensions", problem });
    }
    let width = kept.or(given).map_or(Dimension::Any, Dimension::Fixed);
    let outer = TensorSpec {
        name: Name::const_new("embedding"),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([Dimension::Any, width]),
        optional: false,
    };
    let side = Embedding {
        index,
        output: inner.name.clone(),
        mask: context.inner.input_index(MASK),
        pooling: spec.pooling,
        normalize: spec.normalize,
        kept,
    };
    Ok(Built {
        side: Box::new(side),
        specs: vec![outer],
        fields: vec![Field::of(Content::Embedding)],
    })
}

impl OutputSide for Embedding {
    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        let tensor = output_at(outputs, self.index, &self.output)?;
        let numbers = floats(tensor, &self.output)?;
        let rows = part.rows.len();
        let (width, mut vectors) = if tensor.shape().len() == 2 {
            let [_, hidden] = dimensions(tensor, &self.output, rows)?;
            let width = self.width(hidden)?;
            (width, first_of_each(&numbers, hidden, width))
        } else {
            let [_, tokens, hidden] = dimensions(tensor, &self.output, rows)?;
            let width = self.width(hidden)?;
            let weights = self.weights(&part.inputs, rows, tokens)?;
            (width, self.pool(&numbers, weights.as_deref(), [rows, tokens, hidden], width))
        };
        if self.normalize && width > 0 {
            vectors.chunks_exact_mut(width).for_each(normalize);
        }
        let embedding = Tensor::from_vec([rows, width], vectors);
        Ok(smallvec![embedding.expect("every row has one vector of that width")])
    }
}

impl Embedding {
    /// The numbers of a vector that are kept of `hidden`.
    fn width(&self, hidden: usize) -> Result<usize, TransformError> {
        match self.kept {
            Some(kept) if kept > hidden => Err(TransformError::Output {
                output: self.output.clone(),
                problem: format!("has vectors of {hidden}, of which {kept} are to be kept"),
            }),
            kept => Ok(kept.unwrap_or(hidden)),
        }
    }

    /// Pools `[rows, tokens, hidden]` to `[rows, width]`.
    fn pool(
        &self,
        numbers: &[f32],
        weights: Option<&[f32]>,
        [rows, tokens, hidden]: [usize; 3],
        width: usize,
    ) -> Vec<f32> {
        let mut vectors = vec![0.0; rows * width];
        if width == 0 || tokens == 0 {
            return vectors;
        }
        let each_row = vectors.chunks_exact_mut(width).zip(numbers.chunks_exact(tokens * hidden));
        for (row, (vector, row_numbers)) in each_row.enumerate() {
            let weights = weights.map(|weights| &weights[row * tokens..(row + 1) * tokens]);
            let tokens = row_numbers.chunks_exact(hidden).map(|token| &token[..width]);
            match self.pooling {
                Pooling::Cls => vector.copy_from_slice(&row_numbers[..width]),
                Pooling::Mean => mean(vector, tokens, weights),
                Pooling::Max => max(vector, tokens, weights),
            }
        }
        vectors
    }

    /// Returns the weight of each token, `[rows, tokens]`; `None` where all count the same.
    fn weights<'p>(
        &self,
        inputs: &'p BoundInputs,
        rows: usize,
        tokens: usize,
    ) -> Result<Option<Cow<'p, [f32]>>, TransformError> {
        if self.pooling == Pooling::Cls {
            return Ok(None);
        }
        let mask = self.mask.and_then(|mask| inputs.get(mask)).and_then(Option::as_ref);
        let Some(mask) = mask else {
            return Ok(None);
        };
        let refuse = |problem| TransformError::Input { field: Name::const_new(MASK), problem };
        if mask.shape().as_ref() != [rows, tokens] {
            let (own, given) = (&self.output, mask.shape());
            return Err(refuse(format!(
                "has shape {given}, where '{own}' has {rows} rows of {tokens} tokens"
            )));
        }
        let weights = match mask.data_type() {
            DataType::Int64 => mask
                .elements_of::<i64>()
                .map(|mask| mask.iter().map(|&weight| weight as f32).collect()),
            DataType::Int32 => mask
                .elements_of::<i32>()
                .map(|mask| mask.iter().map(|&weight| weight as f32).collect()),
            DataType::Bool => {
                mask.as_bytes().map(|mask| mask.iter().map(|&weight| f32::from(weight)).collect())
            }
            other if other.is_float() => return floats(mask, &Name::const_new(MASK)).map(Some),
            _ => None,
        };
        let weights = weights.ok_or_else(|| refuse(format!("is {}", mask.data_type())))?;
        Ok(Some(Cow::Owned(weights)))
    }
}

/// Returns the first `width` of each `hidden` numbers.
fn first_of_each(numbers: &[f32], hidden: usize, width: usize) -> Vec<f32> {
    if width == hidden || hidden == 0 {
        return numbers.to_vec();
    }
    numbers.chunks_exact(hidden).flat_map(|vector| &vector[..width]).copied().collect()
}

/// The weighted mean of the tokens; zeros where no token counts.
fn mean<'t>(
    vector: &mut [f32],
    tokens: impl ExactSizeIterator<Item = &'t [f32]>,
    weights: Option<&[f32]>,
) {
    let mut total = 0.0;
    for (index, token) in tokens.enumerate() {
        let weight = weights.map_or(1.0, |weights| weights[index]);
        if weight == 0.0 {
            continue;
        }
        total += weight;
        for (sum, number) in vector.iter_mut().zip(token) {
            *sum += weight * number;
        }
    }
    let scale = 1.0 / f32::max(total, 1e-9);
    vector.iter_mut().for_each(|sum| *sum *= scale);
}

/// The largest of each dimension; zeros where no token counts.
fn max<'t>(
    vector: &mut [f32],
    tokens: impl ExactSizeIterator<Item = &'t [f32]>,
    weights: Option<&[f32]>,
) {
    let mut is_first = true;
    for (index, token) in tokens.enumerate() {
        if weights.is_some_and(|weights| weights[index] == 0.0) {
            continue;
        }
        if is_first {
            vector.copy_from_slice(token);
            is_first = false;
            continue;
        }
        for (largest, &number) in vector.iter_mut().zip(token) {
            // Unlike `f32::max`, what is not a number stays to be seen.
            *largest = if number > *largest || number.is_nan() { number } else { *largest };
        }
    }
}

/// Gives a vector the length 1.
fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    let scale = (1.0 / square.sqrt().max(SHORTEST)) as f32;
    vector.iter_mut().for_each(|number| *number *= scale);
}

#[cfg(test)]
mod tests;
