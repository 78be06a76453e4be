//! Reads a `tokenizer.json` and takes off what must not depend on the file: padding, truncation, chance.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use tokenizers::{ModelWrapper, Tokenizer};

use crate::BuildError;

/// The largest file that is read: four times that of the largest vocabularies known (256,000 tokens).
const MAX_FILE_BYTES: u64 = 128 << 20;

/// A tokenizer, and what its file says beside.
pub(super) struct Read {
    /// Without padding and truncation of its own.
    pub(super) tokenizer: Tokenizer,
    /// The token that padding is made of.
    pub(super) pad: Option<u32>,
    /// The tokens of a text by the file's truncation.
    pub(super) max_tokens: Option<usize>,
}

pub(super) fn read(path: &Path) -> Result<Read, BuildError> {
    let wrong = |problem| BuildError::File { path: path.to_owned(), problem };
    let unreadable = |source| BuildError::Unreadable { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(format!("has more than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    let mut tokenizer = Tokenizer::from_bytes(&content)
        .map_err(|error| wrong(format!("is not a tokenizer.json of Hugging Face: {error}")))?;
    let pad = match tokenizer.get_padding() {
        Some(padding) => Some(padding.pad_id),
        None => ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token)),
    };
    let max_tokens = tokenizer.get_truncation().map(|truncation| truncation.max_length);
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
    take_off_chance(&mut tokenizer);
    Ok(Read { tokenizer, pad, max_tokens })
}

/// Dropout skips merges at random. It is for training; here one text must always give the same tokens.
fn take_off_chance(tokenizer: &mut Tokenizer) {
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
}

/// The token that stands for what a model is to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaskToken {
    pub(crate) id: u32,
    /// As people write it in a text, such as `[MASK]`.
    pub(crate) text: String,
}

/// Returns a tokenizer's mask token: `[MASK]` or `<mask>`, else the only special token that has `mask`
/// in its name. The file does not say which one it is.
pub(crate) fn mask_token(tokenizer: &Tokenizer) -> Option<MaskToken> {
    let named = ["[MASK]", "<mask>"].into_iter().find_map(|text| {
        let id = tokenizer.token_to_id(text)?;
        Some(MaskToken { id, text: text.to_owned() })
    });
    named.or_else(|| {
        let added = tokenizer.get_added_tokens_decoder();
        let mut similar = added.into_iter().filter(|(_, token)| {
            token.special && token.content.to_ascii_lowercase().contains("mask")
        });
        let (id, token) = similar.next()?;
        similar.next().is_none().then_some(MaskToken { id, text: token.content })
    })
}
