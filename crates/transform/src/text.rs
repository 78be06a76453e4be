//! Texts to token ids.

use outhaul_types::{BoundInputs, ModelSignature, OutputTransform, TextInput};
use tokenizers::Tokenizer;

use crate::build::Built;
use crate::{BuildError, Grouping, InputSide, Prepared, TransformError};

/// The input side of texts, before it knows the model.
pub(crate) struct TextSide {
    tokenizer: Tokenizer,
}

impl TextSide {
    /// Reads the tokenizer.
    pub(crate) fn read(spec: &TextInput) -> Result<Self, BuildError> {
        let tokenizer = Tokenizer::from_file(&spec.tokenizer).map_err(|error| {
            BuildError::File { path: spec.tokenizer.clone(), problem: error.to_string() }
        })?;
        Ok(TextSide { tokenizer })
    }

    /// Returns the tokenizer, for the output side.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Fits it to the model's inputs.
    pub(crate) fn fit(
        self,
        _inner: &ModelSignature,
        _output: Option<&OutputTransform>,
        _needs_encodings: bool,
    ) -> Result<Built<dyn InputSide>, BuildError> {
        Ok(Built { side: Box::new(self), specs: Vec::new(), fields: Vec::new() })
    }
}

impl InputSide for TextSide {
    fn prepare(
        &self,
        _inputs: &BoundInputs,
        _rows: usize,
        _grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        Err(TransformError::NoRows)
    }

    fn is_heavy(&self) -> bool {
        true
    }
}
