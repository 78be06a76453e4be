//! Weights as Hugging Face keeps them (`config.json` and `model.safetensors`) into an ONNX file.
//!
//! Encoders of the BERT, RoBERTa and DistilBERT families are built, plain or with a head for
//! classification, token classification or masked words: they differ in names (`family`) and in
//! how positions are counted. All numbers are FP32, so weights of F16 and BF16 are widened, which changes
//! none of them.
//!
//! Invariant: the graph computes what transformers would with the same files, or there is an error
//! that names the key or the tensor ([`HuggingFaceError`]). Every tensor is used, or is one that
//! transformers leaves aside too.
//!
//! Not here: tokenizers, pooling and what else lies in such a folder; that is `repository`'s business.

mod config;
mod encoder;
mod error;
mod family;
mod graph;
#[cfg(test)]
mod tests;
mod weights;
mod wire;
mod write;

use std::path::{Path, PathBuf};

pub use error::HuggingFaceError;

use weights::Weights;

/// What became of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The family's name, such as `BERT`.
    pub family: &'static str,
    /// The files that were written: the model's, and that of its weights where they do not fit in.
    pub files: Vec<PathBuf>,
    /// The element types of weights that were widened to FP32, such as `BF16`.
    pub widened: Vec<&'static str>,
}

/// Builds the graph for `weights` (`model.safetensors`, or `model.safetensors.index.json`, with the
/// `config.json` beside it) and writes it to `target`.
///
/// # Errors
///
/// Fails where the configuration asks for what is not built, where a tensor is missing, left over or of
/// another shape, and where a file cannot be read or written.
pub fn convert(weights: &Path, target: &Path) -> Result<Converted, HuggingFaceError> {
    convert_within(weights, target, None)
}

/// As [`convert`], with the most bytes of weights that the model's own file may hold.
fn convert_within(
    path: &Path,
    target: &Path,
    most_inline: Option<u64>,
) -> Result<Converted, HuggingFaceError> {
    let config = config::read(&path.with_file_name(config::FILE))?;
    let mut weights = Weights::open(path, config.family)?;
    let graph = encoder::build(&config, &mut weights)?;
    let files = write::write(&graph, &weights, target, most_inline)?;
    Ok(Converted { family: config.family.name, files, widened: weights.narrow_elements() })
}
