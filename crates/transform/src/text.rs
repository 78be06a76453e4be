//! Texts to token ids.
//!
//! [`TextSide`] is the tokenizer before it knows the model; [`TextSide::fit`] looks which of the model's
//! inputs it can fill. Each text is encoded by itself ([`encode`]) and keeps its own length: padding is
//! added only where the model's file fixes the length, or where the caller asks for tensors of the
//! whole request ([`Grouping::Together`]).
//!
//! Whatever a `tokenizer.json` says of padding and truncation is taken off when it is read: the first
//! would make a row's length depend on its neighbours, the second builds the part that is cut off, piece
//! by piece and for pairs in all combinations.

mod encode;
mod inner;
mod parts;
mod plain;
mod read;

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::str;
use std::sync::Arc;

use outhaul_types::{
    BindError, BoundInputs, Content, DataType, Dimension, Field, ModelSignature, Name,
    OutputTransform, ShapePattern, Strings, Tensor, TensorSpec, TextInput,
};
use tokenizers::Tokenizer;

use crate::build::Built;
use crate::{BuildError, Grouping, InputSide, Prepared, TransformError};
use encode::{EncodeError, Encoder, Split};
use inner::TokenInputs;
use parts::Rows;
use plain::BertRules;
pub(crate) use read::{MaskToken, mask_token};

/// The model's input of token ids, by the name that every exporter of Hugging Face models uses.
pub(crate) const IDS: &str = "input_ids";
/// Its input that tells tokens from padding.
pub(crate) const MASK: &str = "attention_mask";
/// Its input that tells the second text of a pair from the first.
const TYPES: &str = "token_type_ids";

const TEXT: Name = Name::const_new("text");
const TEXT_PAIR: Name = Name::const_new("text_pair");
const QUERY: Name = Name::const_new("query");

/// The longest text in bytes: a hundred pages. Longer ones are refused whatever is declared of truncation,
/// since splitting a text into words takes a hundred times its size in memory, and three hundred for
/// letters that are normalised to many.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// The rows that are encoded in one go: some milliseconds.
const ROWS_IN_ONE_GO: usize = 256;

/// The tokens of a text where neither the declaration nor the tokenizer says anything.
const DEFAULT_MAX_TOKENS: usize = 512;

/// The input side of texts, before it knows the model.
pub(crate) struct TextSide {
    spec: TextInput,
    tokenizer: Arc<Tokenizer>,
    /// The token that padding is made of, where the tokenizer has one.
    pad: Option<u32>,
    /// The tokens of a text by the tokenizer's own truncation.
    own_max_tokens: Option<usize>,
}

impl TextSide {
    /// Reads the tokenizer.
    pub(crate) fn read(spec: &TextInput) -> Result<Self, BuildError> {
        let read::Read { tokenizer, pad, max_tokens } = read::read(&spec.tokenizer)?;
        Ok(TextSide {
            spec: spec.clone(),
            tokenizer: Arc::new(tokenizer),
            pad,
            own_max_tokens: max_tokens,
        })
    }

    /// Returns the tokenizer, for the output side.
    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Fits it to the model's inputs.
    pub(crate) fn fit(
        self,
        inner: &ModelSignature,
        output: Option<&OutputTransform>,
        needs_encodings: bool,
    ) -> Result<Built<dyn InputSide>, BuildError> {
        let form = Form::of(&self.spec, output);
        if needs_encodings {
            self.check_places_are_plain(form)?;
        }
        let inputs = TokenInputs::fit(inner, self.pad)?;
        let encoder = Encoder {
            max_tokens: self.max_tokens(form, inputs.fixed_length())?,
            truncation: self.spec.truncation,
            keeps_places: needs_encodings,
            bert: BertRules::of(&self.tokenizer),
            tokenizer: self.tokenizer,
        };
        let must_hold = match output {
            Some(OutputTransform::FillMask(_)) => mask_token(&encoder.tokenizer),
            _ => None,
        };
        let side = Texts { form, prefix: self.spec.prefix, encoder, inputs, must_hold };
        let specs = form.specs();
        let fields = vec![Field::of(Content::Text); specs.len()];
        Ok(Built { side: Box::new(side), specs, fields })
    }

    /// Fails where a place in what is encoded would not be a place in what the caller sent.
    fn check_places_are_plain(&self, form: Form) -> Result<(), BuildError> {
        let problem = "cannot be combined with an output that gives places in a text";
        let key = if !self.spec.prefix.is_empty() {
            "input.prefix"
        } else if form != Form::Single {
            "input.pairs"
        } else {
            return Ok(());
        };
        Err(BuildError::Declared { key, problem: problem.to_owned() })
    }

    /// The most tokens of a row: what is declared, but no more than the model's file allows.
    fn max_tokens(&self, form: Form, fixed: Option<usize>) -> Result<usize, BuildError> {
        let wanted = self.spec.max_tokens.map(usize::from).or(self.own_max_tokens);
        let wanted = wanted.unwrap_or(DEFAULT_MAX_TOKENS);
        let most = fixed.map_or(wanted, |fixed| fixed.min(wanted));
        let added = encode::added_tokens(&self.tokenizer, form != Form::Single);
        if most > added {
            return Ok(most);
        }
        let problem = format!(
            "leaves {most} tokens, of which the tokenizer's special tokens take {added}: none are \
             left for the text"
        );
        Err(BuildError::Declared { key: "input.max_tokens", problem })
    }
}

/// What a row is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One text.
    Single,
    /// A text and, if the caller likes, a second one.
    MaybePair,
    /// A query and a text.
    QueryAndText,
}

impl Form {
    fn of(spec: &TextInput, output: Option<&OutputTransform>) -> Self {
        match output {
            Some(OutputTransform::Rerank(_)) => Form::QueryAndText,
            _ if spec.pairs => Form::MaybePair,
            _ => Form::Single,
        }
    }

    /// The outer inputs: `BYTES [batch]`.
    fn specs(self) -> Vec<TensorSpec> {
        let spec = |name, optional| TensorSpec {
            name,
            data_type: DataType::Bytes,
            shape: ShapePattern::ranked([Dimension::Any]),
            optional,
        };
        match self {
            Form::Single => vec![spec(TEXT, false)],
            Form::MaybePair => vec![spec(TEXT, false), spec(TEXT_PAIR, true)],
            Form::QueryAndText => vec![spec(QUERY, false), spec(TEXT, false)],
        }
    }

    /// The names of a row's first and second text.
    fn names(self) -> (Name, Name) {
        match self {
            Form::Single | Form::MaybePair => (TEXT, TEXT_PAIR),
            Form::QueryAndText => (QUERY, TEXT),
        }
    }
}

/// The input side of texts, fitted to a model.
struct Texts {
    form: Form,
    prefix: String,
    encoder: Encoder,
    inputs: TokenInputs,
    /// A token that every row must have, since there is nothing to answer without it.
    must_hold: Option<MaskToken>,
}

impl InputSide for Texts {
    fn prepare(
        &self,
        inputs: &BoundInputs,
        rows: usize,
        grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        let (first_name, second_name) = self.form.names();
        let first = self.column(inputs.first(), &first_name, rows)?;
        let second = self.column(inputs.get(1), &second_name, rows)?;
        let mut encoded = Rows::new(rows, self.inputs.takes_types());
        // A query that stands beside many texts is split into tokens once.
        let mut last: Option<(Cow<'_, str>, Split)> = None;
        for row in 0..rows {
            let text = self.text(first, row, &first_name)?;
            let second = self.second(second, row, &second_name)?;
            let told = |error| self.refusal(row, &first_name, second.is_some(), error);
            if last.as_ref().is_none_or(|(last, _)| *last != text) {
                let split = self.encoder.split_first(&text).map_err(told)?;
                last = Some((text, split));
            }
            let Some((text, split)) = &last else { continue };
            let encoding =
                self.encoder.encode_split(text, split, second.as_deref()).map_err(told)?;
            self.check_holds(row, encoding.get_ids())?;
            encoded.push(encoding, self.encoder.keeps_places);
        }
        let tokens = encoded.tokens();
        let parts = parts::parts(encoded, &self.inputs, grouping)?;
        Ok(Prepared { parts, rows, tokens: Some(tokens) })
    }

    fn is_heavy(&self, _rows: usize) -> bool {
        true
    }

    fn rows_in_one_go(&self) -> usize {
        self.inputs.fixed_rows().map_or(ROWS_IN_ONE_GO, |fixed| {
            fixed.saturating_mul(ROWS_IN_ONE_GO.div_ceil(fixed.max(1)))
        })
    }

    fn shapes_vary(&self) -> bool {
        true
    }

    fn complete(&self, inputs: BoundInputs) -> Result<BoundInputs, TransformError> {
        let ids = self.inputs.ids(&inputs);
        let tokens = ids.and_then(|ids| ids.shape().get(1).copied()).unwrap_or(0);
        if tokens > self.encoder.max_tokens {
            let allowed = self.encoder.max_tokens;
            let problem = format!("has rows of {tokens} tokens, and {allowed} are allowed");
            return Err(TransformError::Input { field: Name::const_new(IDS), problem });
        }
        Ok(self.inputs.complete(inputs))
    }

    fn completes(&self, index: usize) -> bool {
        self.inputs.completes(index)
    }
}

impl Texts {
    /// Returns the texts of one outer input, `None` where the caller left it out.
    fn column<'t>(
        &self,
        tensor: Option<&'t Option<Tensor>>,
        name: &Name,
        rows: usize,
    ) -> Result<Option<&'t Strings>, TransformError> {
        let strings = tensor.and_then(Option::as_ref).and_then(Tensor::as_strings);
        // The signature's own check leaves optional inputs out.
        match strings {
            Some(strings) if strings.len() != rows => Err(BindError::RowsDiffer {
                name: name.clone(),
                received: strings.len(),
                first: self.form.names().0,
                expected: rows,
            }
            .into()),
            strings => Ok(strings),
        }
    }

    /// Returns one text with the prefix before it.
    fn text<'t>(
        &self,
        strings: Option<&'t Strings>,
        row: usize,
        name: &Name,
    ) -> Result<Cow<'t, str>, TransformError> {
        let refuse = |problem| TransformError::Row { row, field: name.clone(), problem };
        let bytes = strings.and_then(|strings| strings.get(row)).unwrap_or_default();
        if bytes.len() > MAX_TEXT_BYTES {
            let size = bytes.len();
            return Err(refuse(format!("has {size} bytes, and {MAX_TEXT_BYTES} are allowed")));
        }
        let text = str::from_utf8(bytes).map_err(|error| {
            refuse(format!("is not valid UTF-8: byte {} is wrong", error.valid_up_to()))
        })?;
        Ok(if self.prefix.is_empty() {
            text.into()
        } else {
            [self.prefix.as_str(), text].concat().into()
        })
    }

    /// Returns a row's second text. An empty one beside `text` is none: rows that have one and rows that
    /// do not come in one tensor.
    fn second<'t>(
        &self,
        strings: Option<&'t Strings>,
        row: usize,
        name: &Name,
    ) -> Result<Option<Cow<'t, str>>, TransformError> {
        let is_empty = |strings: &Strings| strings.get(row).is_none_or(<[u8]>::is_empty);
        match strings {
            None => Ok(None),
            Some(strings) if self.form == Form::MaybePair && is_empty(strings) => Ok(None),
            strings => self.text(strings, row, name).map(Some),
        }
    }

    fn refusal(
        &self,
        row: usize,
        field: &Name,
        is_pair: bool,
        error: EncodeError,
    ) -> TransformError {
        let problem = match error {
            EncodeError::TooMany { tokens, allowed } if is_pair => {
                let (_, second) = self.form.names();
                format!("has {tokens} tokens together with '{second}', and {allowed} are allowed")
            }
            EncodeError::TooMany { tokens, allowed } => {
                format!("has {tokens} tokens, and {allowed} are allowed")
            }
            EncodeError::None => "has no tokens".to_owned(),
            EncodeError::Tokenizer(text) => format!("cannot be split into tokens: {text}"),
        };
        TransformError::Row { row, field: field.clone(), problem }
    }

    fn check_holds(&self, row: usize, ids: &[u32]) -> Result<(), TransformError> {
        match &self.must_hold {
            Some(mask) if !ids.contains(&mask.id) => Err(TransformError::Row {
                row,
                field: TEXT,
                problem: format!("has no mask token {}", mask.text),
            }),
            _ => Ok(()),
        }
    }
}
