//! One text, or one pair, to an encoding no longer than allowed.
//!
//! This is `Tokenizer::encode` in its own steps. The library's truncation keeps everything that it cuts
//! off, and for a pair every combination of those pieces: two texts of a megabyte without a space would
//! fill the memory. Here what is cut off is dropped at once. Lengths are those of the library, which
//! the tests compare with.

use std::sync::Arc;

use outhaul_types::Truncation;
use tokenizers::{
    Encoding, Model as _, ModelWrapper, OffsetType, PostProcessor as _, PreTokenizer as _,
    Tokenizer, TruncationDirection,
};

use super::plain::{self, BertRules};

/// Turns texts into encodings.
pub(super) struct Encoder {
    pub(super) tokenizer: Arc<Tokenizer>,
    /// The most tokens, special tokens included; more than the tokenizer adds.
    pub(super) max_tokens: usize,
    pub(super) truncation: Truncation,
    /// Whether encodings say where in the text a token stands, in characters, and what it is as text.
    pub(super) keeps_places: bool,
    /// What shortens the way, where the tokenizer is of that family.
    pub(super) bert: Option<BertRules>,
}

/// A first text without special tokens.
pub(super) struct Split {
    /// No longer than a row may be, where longer texts are cut.
    encoding: Encoding,
    /// The tokens that it had before that.
    length: usize,
}

/// Why a text gives no encoding.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EncodeError {
    /// Longer texts are refused, and this is one.
    TooMany { tokens: usize, allowed: usize },
    /// An empty text, and the tokenizer adds no special tokens.
    None,
    /// The tokenizer has no token for a part of the text.
    Tokenizer(String),
}

impl Encoder {
    /// Splits the first text of a row, which may be that of the next row too.
    pub(super) fn split_first(&self, text: &str) -> Result<Split, EncodeError> {
        let mut encoding = self.split(text, 0)?;
        let length = encoding.len();
        // More is never kept; what `kept` decides by is the whole length.
        self.cut(&mut encoding, self.max_tokens);
        Ok(Split { encoding, length })
    }

    /// Encodes one text, or two as a pair.
    #[cfg(test)]
    pub(super) fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoding, EncodeError> {
        self.encode_split(text, &self.split_first(text)?, pair)
    }

    /// Encodes one text, or two as a pair. `split` is what [`Encoder::split_first`] gave for the text.
    pub(super) fn encode_split(
        &self,
        text: &str,
        split: &Split,
        pair: Option<&str>,
    ) -> Result<Encoding, EncodeError> {
        let added = added_tokens(&self.tokenizer, pair.is_some());
        let mut first = split.encoding.clone();
        let mut second = pair.map(|pair| self.split(pair, 1)).transpose()?;
        let lengths = (split.length, second.as_ref().map(Encoding::len));
        match self.truncation {
            Truncation::Refuse => {
                let tokens = lengths.0 + lengths.1.unwrap_or(0) + added;
                if tokens > self.max_tokens {
                    return Err(EncodeError::TooMany { tokens, allowed: self.max_tokens });
                }
            }
            Truncation::End | Truncation::Beginning => {
                let kept = kept(lengths, self.max_tokens - added);
                self.cut(&mut first, kept.0);
                if let Some(second) = &mut second {
                    self.cut(second, kept.1);
                }
            }
        }
        if self.keeps_places {
            bytes_to_characters(text, &mut first);
        }
        let mut encoding =
            self.tokenizer.post_process(first, second, true).map_err(tokenizer_error)?;
        if self.keeps_places {
            encoding = self.with_unknown_words(encoding, text);
        }
        if encoding.is_empty() { Err(EncodeError::None) } else { Ok(encoding) }
    }

    /// Encodes one text without special tokens; at most little more than the tokens that are allowed
    /// where the rest will be cut off.
    fn split(&self, text: &str, type_id: u32) -> Result<Encoding, EncodeError> {
        let tokenizer = &self.tokenizer;
        let mut text = text;
        if self.bert.is_some() && self.truncation == Truncation::End {
            text = plain::enough(text, self.max_tokens);
        }
        let (text, normalizer) = match self.bert.as_ref().and_then(|bert| bert.normalized(text)) {
            Some(normalized) => (normalized, None),
            None => (text.into(), tokenizer.get_normalizer()),
        };
        let mut words = tokenizer.get_added_vocabulary().extract_and_normalize(normalizer, &text);
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words).map_err(tokenizer_error)?;
        }
        let limit = self.direction().map(|direction| (self.max_tokens, direction));
        tokenizer
            .get_model()
            .tokenize_in_pretokenized(&mut words, limit)
            .map_err(tokenizer_error)?;
        let offsets = if self.keeps_places { OffsetType::Byte } else { OffsetType::None };
        let mut encoding = words.into_encoding(None, type_id, offsets).map_err(tokenizer_error)?;
        if type_id != 0 {
            // Without offsets, the library forgets it.
            encoding.set_type_ids(vec![type_id; encoding.len()]);
        }
        Ok(encoding)
    }

    fn cut(&self, encoding: &mut Encoding, kept: usize) {
        if let Some(direction) = self.direction() {
            encoding.truncate(kept, 0, direction);
            drop(encoding.take_overflowing());
        }
    }

    /// The side that is cut off, or `None` where longer texts are refused.
    fn direction(&self) -> Option<TruncationDirection> {
        match self.truncation {
            Truncation::End => Some(TruncationDirection::Right),
            Truncation::Beginning => Some(TruncationDirection::Left),
            Truncation::Refuse => None,
        }
    }

    /// Puts the text that stands there in place of the name of the unknown token, as transformers'
    /// pipelines do.
    fn with_unknown_words(&self, encoding: Encoding, text: &str) -> Encoding {
        let added = encoding.get_special_tokens_mask();
        let unknown: Vec<usize> = (0..encoding.len())
            .filter(|&index| added[index] == 0 && self.is_unknown(&encoding, index))
            .collect();
        if unknown.is_empty() {
            return encoding;
        }
        let starts: Vec<usize> =
            text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
        let mut tokens = encoding.get_tokens().to_vec();
        for index in unknown {
            let (start, end) = encoding.get_offsets()[index];
            let bytes = starts.get(start).zip(starts.get(end));
            tokens[index] = bytes
                .and_then(|(&start, &end)| text.get(start..end))
                .unwrap_or_default()
                .to_owned();
        }
        Encoding::new(
            encoding.get_ids().to_vec(),
            encoding.get_type_ids().to_vec(),
            tokens,
            encoding.get_word_ids().to_vec(),
            encoding.get_offsets().to_vec(),
            encoding.get_special_tokens_mask().to_vec(),
            encoding.get_attention_mask().to_vec(),
            Vec::new(),
            Default::default(),
        )
    }

    fn is_unknown(&self, encoding: &Encoding, index: usize) -> bool {
        let (token, id) = (&encoding.get_tokens()[index], encoding.get_ids()[index]);
        match self.tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => *token == model.unk_token,
            ModelWrapper::WordLevel(model) => *token == model.unk_token,
            ModelWrapper::BPE(model) => model.unk_token.as_ref() == Some(token),
            // It keeps the text itself under the id of the unknown token.
            ModelWrapper::Unigram(_) => {
                self.tokenizer.id_to_token(id).is_some_and(|name| name != *token)
            }
        }
    }
}

/// Returns the special tokens that a tokenizer adds to a text, or to a pair.
pub(super) fn added_tokens(tokenizer: &Tokenizer, is_pair: bool) -> usize {
    tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(is_pair))
}

/// Returns how many tokens of each text are kept where `allowed` are in all: of a pair, the longer text
/// is cut first (`longest_first` of the library, `tokenizers/src/utils/truncation.rs`).
fn kept((first, second): (usize, Option<usize>), allowed: usize) -> (usize, usize) {
    let Some(second) = second else {
        return (first.min(allowed), 0);
    };
    if first + second <= allowed {
        return (first, second);
    }
    let shorter = first.min(second);
    // Where even the shorter one has more than half, both are cut to a half; the longer gets the odd one.
    let shorter = if shorter > allowed - shorter.min(allowed) { allowed / 2 } else { shorter };
    let longer = allowed - shorter;
    if first > second { (longer, shorter) } else { (shorter, longer) }
}

/// Turns places in bytes into places in characters. The library's own way takes a hash map with an entry
/// a byte.
fn bytes_to_characters(text: &str, encoding: &mut Encoding) {
    if text.is_ascii() {
        return;
    }
    // The character that each byte is part of; at the text's end, their number.
    let mut character_of = Vec::with_capacity(text.len() + 1);
    let mut characters = 0;
    for character in text.chars() {
        character_of.extend(std::iter::repeat_n(characters, character.len_utf8()));
        characters += 1;
    }
    character_of.push(characters);
    for (start, end) in encoding.get_offsets_mut() {
        *start = character_of[(*start).min(text.len())];
        *end = character_of[(*end).min(text.len())];
    }
}

fn tokenizer_error(error: tokenizers::Error) -> EncodeError {
    EncodeError::Tokenizer(error.to_string())
}
