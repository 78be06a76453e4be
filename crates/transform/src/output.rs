//! The model's tensors to what callers get: one module a task.

mod classification;
mod embedding;
mod fill_mask;
mod labels;
mod pick;
mod regression;
mod rerank;
mod scores;
mod tensors;
mod token_classification;

use std::sync::Arc;

use outhaul_types::{ModelSignature, OutputTransform};
use tokenizers::Tokenizer;

use crate::build::Built;
use crate::{BuildError, OutputSide};

/// What an output side is fitted to.
pub(crate) struct Context<'a> {
    /// The model's own signature.
    pub(crate) inner: &'a ModelSignature,
    /// The tokenizer, where the model takes texts.
    pub(crate) tokenizer: Option<&'a Arc<Tokenizer>>,
}

pub(crate) fn build(
    spec: &OutputTransform,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    match spec {
        OutputTransform::Embedding(spec) => embedding::build(spec, context),
        OutputTransform::Classification(spec) => classification::build(spec, context),
        OutputTransform::TokenClassification(spec) => token_classification::build(spec, context),
        OutputTransform::Rerank(spec) => rerank::build(spec, context),
        OutputTransform::FillMask(spec) => fill_mask::build(spec, context),
        OutputTransform::Regression(spec) => regression::build(spec, context),
        OutputTransform::Tensors(spec) => tensors::build(spec, context),
    }
}
