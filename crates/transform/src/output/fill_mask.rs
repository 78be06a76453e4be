//! What stands where a text has its mask token: `predictions`, BYTES `[batch]`, each a JSON list with an
//! entry for each mask: a list of `{"token", "token_str", "score"}`, the likeliest first.
//!
//! The scores are those of transformers' `FillMaskPipeline`: softmax over the whole vocabulary. Unlike
//! there, one mask gives a list in a list too.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;

use outhaul_types::{
    Content, DataType, Dimension, Field, FillMaskOutput, Name, ShapePattern, Strings, Tensor,
    TensorSpec, Tensors,
};
use smallvec::smallvec;
use tokenizers::Tokenizer;

use super::Context;
use super::pick::{dimensions, floats, output_at, pick_ranked};
use super::scores::{Softmax, largest, push_json_number, push_json_string};
use crate::build::Built;
use crate::text::{IDS, MaskToken, mask_token};
use crate::{BuildError, OutputSide, Part, TransformError};

struct FillMask {
    /// The model's output.
    index: usize,
    output: Name,
    /// The model's input of token ids.
    ids: usize,
    tokenizer: Arc<Tokenizer>,
    mask: MaskToken,
    top_k: NonZeroUsize,
}

pub(super) fn build(
    spec: &FillMaskOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let declared = |key, problem: &str| BuildError::Declared { key, problem: problem.to_owned() };
    let Some(tokenizer) = context.tokenizer else {
        return Err(declared("output.kind", "is fill-mask, which needs an input of kind text"));
    };
    let Some(mask) = mask_token(tokenizer) else {
        return Err(declared("output.kind", "is fill-mask, but the tokenizer has no mask token"));
    };
    let Some(ids) = context.inner.input_index(IDS) else {
        return Err(declared("output.kind", "is fill-mask, which needs the model's 'input_ids'"));
    };
    let key = "output.output";
    let index = pick_ranked(context, spec.output.as_ref(), &["logits"], &[3], key)?;
    let side = FillMask {
        index,
        output: context.inner.outputs[index].name.clone(),
        ids,
        tokenizer: Arc::clone(tokenizer),
        mask,
        top_k: spec.top_k,
    };
    let outer = TensorSpec {
        name: Name::const_new("predictions"),
        data_type: DataType::Bytes,
        shape: ShapePattern::ranked([Dimension::Any]),
        optional: false,
    };
    Ok(Built { side: Box::new(side), specs: vec![outer], fields: vec![Field::of(Content::Json)] })
}

impl OutputSide for FillMask {
    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        let tensor = output_at(outputs, self.index, &self.output)?;
        let numbers = floats(tensor, &self.output)?;
        let rows = part.rows.len();
        let [_, tokens, vocabulary] = dimensions(tensor, &self.output, rows)?;
        let ids = self.ids(part, tokens)?;
        let mut predictions = Vec::with_capacity(rows);
        for (index, &row) in part.rows.iter().enumerate() {
            let row_ids = &ids[index * tokens..(index + 1) * tokens];
            let masks = (0..tokens).filter(|&token| row_ids[token] == i64::from(self.mask.id));
            let mut json = String::from("[");
            for token in masks {
                let start = (index * tokens + token) * vocabulary;
                let separator = if json.len() > 1 { "," } else { "" };
                json.push_str(separator);
                self.push_candidates(&mut json, &numbers[start..start + vocabulary]);
            }
            if json.len() == 1 {
                // Texts were looked at before the model ran; these are ids that the caller sent.
                let problem =
                    format!("has no mask token ({} for {})", self.mask.id, self.mask.text);
                return Err(TransformError::Row { row, field: Name::const_new(IDS), problem });
            }
            json.push(']');
            predictions.push(json);
        }
        let strings: Strings = predictions.iter().collect();
        let predictions = Tensor::from_strings([rows], strings);
        Ok(smallvec![predictions.expect("every row has one text")])
    }
}

impl FillMask {
    /// The ids that the model was given, `[rows, tokens]`.
    fn ids<'p>(&self, part: &'p Part, tokens: usize) -> Result<Cow<'p, [i64]>, TransformError> {
        let refuse = |problem| TransformError::Input { field: Name::const_new(IDS), problem };
        let ids = part.inputs.get(self.ids).and_then(Option::as_ref);
        let ids = ids.ok_or_else(|| refuse("is missing".to_owned()))?;
        let rows = part.rows.len();
        if ids.shape().as_ref() != [rows, tokens] {
            let (own, given) = (&self.output, ids.shape());
            return Err(refuse(format!(
                "has shape {given}, where '{own}' has {rows} rows of {tokens} tokens"
            )));
        }
        let wide = || {
            let narrow = ids.elements_of::<i32>()?;
            Some(Cow::Owned(narrow.iter().map(|&id| i64::from(id)).collect()))
        };
        ids.elements_of::<i64>()
            .or_else(wide)
            .ok_or_else(|| refuse(format!("is {}, expected INT64 or INT32", ids.data_type())))
    }

    /// Adds the list of what may stand at one mask.
    fn push_candidates(&self, json: &mut String, numbers: &[f32]) {
        let softmax = Softmax::of(numbers);
        json.push('[');
        for (place, id) in largest(numbers, self.top_k.get()).into_iter().enumerate() {
            json.push_str(if place > 0 { ",{\"token\":" } else { "{\"token\":" });
            json.push_str(&id.to_string());
            json.push_str(",\"token_str\":");
            push_json_string(json, &self.text_of(id));
            json.push_str(",\"score\":");
            push_json_number(json, softmax.share(numbers[id]));
            json.push('}');
        }
        json.push(']');
    }

    /// A token as text. Models have more ids than tokenizers where the vocabulary was filled up to a
    /// round number; such an id has no text.
    fn text_of(&self, id: usize) -> String {
        let text = u32::try_from(id).ok().and_then(|id| self.tokenizer.decode(&[id], false).ok());
        text.unwrap_or_default()
    }
}
