//! What a user may declare of the way between what callers send and what a model takes, after
//! validation. `repository` reads it from `model.toml`, `transform` carries it out.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use crate::Name;

/// What stands before and behind a model. Either side may be absent: then tensors go straight through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransformSpec {
    /// From what callers send to the model's tensors.
    pub input: Option<InputTransform>,
    /// From the model's tensors to what callers get.
    pub output: Option<OutputTransform>,
}

impl TransformSpec {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }
}

/// From what callers send to the model's tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum InputTransform {
    /// Texts, by a tokenizer.
    Text(TextInput),
    /// Encoded pictures.
    Image(ImageInput),
    /// Named columns.
    Rows(RowsInput),
}

/// Texts to token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct TextInput {
    /// A Hugging Face `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// The most tokens of one text, or of one pair, special tokens included. Default: what the
    /// tokenizer's own truncation says, else 512.
    pub max_tokens: Option<NonZeroUsize>,
    /// What becomes of longer texts. Default: their end is cut off.
    pub truncation: Truncation,
    /// Whether a second text may be sent beside the first, as `text_pair`. Rerankers take `query` and
    /// `text` whatever is declared. Default: no.
    pub pairs: bool,
    /// Put before every text, as some embedding models want (`"query: "`). Default: nothing.
    pub prefix: String,
}

/// What becomes of a text that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// Its end is cut off. Of a pair, the longer text is cut.
    #[default]
    End,
    /// Its beginning is cut off.
    Beginning,
    /// The request is refused.
    Refuse,
}

/// Pictures (JPEG, PNG or WebP) to a tensor `[batch, channels, height, width]` or
/// `[batch, height, width, channels]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// The model's input that is fed. Default: its only one.
    pub input: Option<Name>,
    /// The change of size. Default: to the size that the model's file fixes; an error at load where
    /// it fixes none.
    pub resize: Option<Resize>,
    /// Height and width that are cut out of the middle after resizing. Default: nothing is cut.
    pub crop: Option<(NonZeroU32, NonZeroU32)>,
    /// How pixels are averaged, as Pillow does it. Default: bilinear.
    pub filter: ResizeFilter,
    /// The order of channels. Default: red, green, blue.
    pub channels: Channels,
    /// Each value (0 to 255) is multiplied by this first. Default: 1/255.
    pub scale: f32,
    /// Subtracted then, one for each channel. Default: nothing.
    pub mean: Vec<f32>,
    /// Divided by then, one for each channel. Default: nothing.
    pub std: Vec<f32>,
    /// The order of dimensions. Default: as the model's shape says, where 1 or 3 channels tell.
    pub layout: Option<ImageLayout>,
    /// The most pixels that a picture may have once it is decoded. Default: 50 million. More is
    /// refused before it is decoded.
    pub max_pixels: u64,
}

impl ImageInput {
    /// The pixels that are accepted where nothing is declared.
    pub const DEFAULT_MAX_PIXELS: u64 = 50_000_000;
}

impl Default for ImageInput {
    fn default() -> Self {
        ImageInput {
            input: None,
            resize: None,
            crop: None,
            filter: ResizeFilter::default(),
            channels: Channels::default(),
            scale: 1.0 / 255.0,
            mean: Vec::new(),
            std: Vec::new(),
            layout: None,
            max_pixels: ImageInput::DEFAULT_MAX_PIXELS,
        }
    }
}

/// A change of a picture's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// To exactly this height and width, whatever that does to proportions.
    Exact {
        /// In pixels.
        height: NonZeroU32,
        /// In pixels.
        width: NonZeroU32,
    },
    /// Until the shorter side has so many pixels; proportions are kept.
    Shorter(NonZeroU32),
}

/// How pixels are averaged when a picture is resized, by Pillow's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ResizeFilter {
    Nearest,
    Box,
    #[default]
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

/// The channels of a picture as the model takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of brightness (ITU-R 601-2, as Pillow's mode `L`).
    Gray,
}

impl Channels {
    /// Returns how many there are.
    pub const fn count(self) -> usize {
        match self {
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Gray => 1,
        }
    }
}

/// The order of a picture's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageLayout {
    /// `[batch, channels, height, width]`
    Nchw,
    /// `[batch, height, width, channels]`
    Nhwc,
}

/// Named columns to the model's inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowsInput {
    /// The columns in order.
    pub columns: Vec<Column>,
}

/// One column: a value of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name, as callers write it.
    pub name: Name,
    /// What it holds.
    pub kind: ColumnKind,
    /// What a missing value becomes.
    pub missing: Missing,
    /// The model's input that it is part of. Default: the input of the column's own name, else the
    /// only input, which takes the columns one beside the other.
    pub input: Option<Name>,
}

/// What a column holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ColumnKind {
    /// A number.
    #[default]
    Number,
    /// `true` or `false`; 1 or 0 for the model.
    Boolean,
    /// Text that the model takes as it is.
    Text,
    /// One of a list of texts.
    Category {
        /// The list, in the model's order.
        values: Vec<String>,
        /// How the model takes it.
        encoding: CategoryEncoding,
        /// What a text that is not in the list becomes.
        unknown: UnknownCategory,
    },
    /// A date or a point in time; the model takes a number.
    Date {
        /// How it is written, in the words of strftime. Default: RFC 3339, or `YYYY-MM-DD`, which is
        /// midnight. A time without an offset is UTC.
        format: Option<String>,
        /// What the model takes.
        unit: DateUnit,
    },
}

/// How a model takes a category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CategoryEncoding {
    /// Its place in the list, from 0.
    #[default]
    Index,
    /// A column for each value, 1 in the one that it is and 0 elsewhere.
    OneHot,
}

/// What a category that is not in the list becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum UnknownCategory {
    /// The request is refused.
    #[default]
    Refuse,
    /// This number, or zeros where the encoding is one-hot.
    Code(f64),
}

/// What a model takes for a date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateUnit {
    /// Seconds since 1970, UTC.
    #[default]
    Seconds,
    /// Days since 1970, UTC, with the fraction of the day.
    Days,
    /// The year.
    Year,
    /// The month, 1 to 12.
    Month,
    /// The day of the month, from 1.
    Day,
    /// The day of the week, Monday is 0.
    Weekday,
    /// The hour, 0 to 23.
    Hour,
}

/// What a missing value becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Missing {
    /// The request is refused.
    #[default]
    Refuse,
    /// Not a number, which tree models take for missing.
    Nan,
    /// This number.
    Number(f64),
    /// This text.
    Text(String),
}

/// From the model's tensors to what callers get.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputTransform {
    /// One vector a text.
    Embedding(EmbeddingOutput),
    /// One of a list of classes, or several of them.
    Classification(ClassificationOutput),
    /// A class for each part of a text.
    TokenClassification(TokenClassificationOutput),
    /// How well a text answers a query.
    Rerank(RerankOutput),
    /// What stands where a text has its mask token.
    FillMask(FillMaskOutput),
    /// A number with a unit.
    Regression(RegressionOutput),
    /// The tensors themselves under other names.
    Tensors(TensorsOutput),
}

/// One vector a text: `embedding`, FP32 `[batch, dimensions]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingOutput {
    /// The model's output, `[batch, tokens, hidden]` or, where it pools itself, `[batch, hidden]`.
    /// Default: `sentence_embedding` or `last_hidden_state` where there is one of that name, else the
    /// first.
    pub output: Option<Name>,
    /// How tokens become one vector. Default: mean.
    pub pooling: Pooling,
    /// Whether vectors get length 1. Default: no.
    pub normalize: bool,
    /// Only the first so many numbers are kept (before normalising). Default: all.
    pub dimensions: Option<NonZeroUsize>,
}

/// How the vectors of tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, padding left out.
    #[default]
    Mean,
    /// That of the first token.
    Cls,
    /// The largest of each dimension, padding left out.
    Max,
}

/// Scores of classes: `label` BYTES `[batch]`, `score` FP32 `[batch]` and `probabilities` FP32
/// `[batch, classes]`; with `top_k`, `labels` and `scores` `[batch, k]` in place of the first two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassificationOutput {
    /// The model's output, `[batch, classes]`. Default: `logits` where there is one of that name,
    /// else the only output of floats with two dimensions.
    pub output: Option<Name>,
    /// The classes in the model's order. Default: their numbers.
    pub labels: Labels,
    /// From the model's numbers to probabilities.
    pub activation: Activation,
    /// The best so many in place of the best.
    pub top_k: Option<NonZeroUsize>,
    /// The score that a class must reach. With sigmoid, each class that reaches it is marked in
    /// `selected`, BOOL `[batch, classes]`; else a row whose best class does not reach it gets the
    /// label `below`.
    pub threshold: Option<f32>,
    /// The label of rows below the threshold. Default: empty.
    pub below: String,
}

/// Names of classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Labels {
    /// Their numbers, from 0.
    #[default]
    Numbers,
    /// These.
    List(Vec<String>),
    /// The lines of this file.
    File(PathBuf),
}

/// From a model's numbers to probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// They are probabilities already.
    None,
    /// The classes share 1.
    #[default]
    Softmax,
    /// Each class has its own.
    Sigmoid,
}

/// Classes of parts of a text: `entities`, BYTES `[batch]`, each a JSON list of `{"entity", "score",
/// "start", "end", "word"}` with `start` and `end` in characters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenClassificationOutput {
    /// The model's output, `[batch, tokens, classes]`. Default: `logits`, else the only output.
    pub output: Option<Name>,
    /// The classes in the model's order. `O` is no entity.
    pub labels: Labels,
    /// How tokens become entities.
    pub aggregation: Aggregation,
}

/// How tokens become entities, in the words of transformers' token classification pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Each token is one.
    None,
    /// Neighbours of one class (`B-`, `I-`) are one.
    #[default]
    Simple,
}

/// How well a text answers a query: `score`, FP32 `[batch]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RerankOutput {
    /// The model's output, `[batch, 1]` or `[batch]`. Default: `logits`, else the only output.
    pub output: Option<Name>,
    /// From the model's number to the score. Default: sigmoid.
    pub activation: Activation,
}

impl Default for RerankOutput {
    fn default() -> Self {
        RerankOutput { output: None, activation: Activation::Sigmoid }
    }
}

/// What stands where a text has its mask token: `predictions`, BYTES `[batch]`, each a JSON list, one
/// entry a mask, of lists of `{"token", "token_str", "score"}`.
#[derive(Clone, Debug, PartialEq)]
pub struct FillMaskOutput {
    /// The model's output, `[batch, tokens, vocabulary]`. Default: `logits`, else the only output.
    pub output: Option<Name>,
    /// How many candidates. Default: 5.
    pub top_k: NonZeroUsize,
}

impl Default for FillMaskOutput {
    fn default() -> Self {
        FillMaskOutput { output: None, top_k: NonZeroUsize::new(5).expect("5 is not zero") }
    }
}

/// A number with a unit: FP32 or FP64 `[batch]`, as the model's output.
#[derive(Clone, Debug, PartialEq)]
pub struct RegressionOutput {
    /// The model's output, `[batch]` or `[batch, 1]`. Default: its only one.
    pub output: Option<Name>,
    /// What callers call it. Default: `value`.
    pub name: Name,
    /// What it is counted in, such as `EUR`; told in the metadata.
    pub unit: Option<String>,
    /// The model's number is multiplied by this. Default: 1.
    pub scale: f64,
    /// Added then. Default: 0.
    pub offset: f64,
}

impl Default for RegressionOutput {
    fn default() -> Self {
        RegressionOutput {
            output: None,
            name: Name::const_new("value"),
            unit: None,
            scale: 1.0,
            offset: 0.0,
        }
    }
}

/// The model's tensors under other names; those not named keep theirs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorsOutput {
    /// The model's name and the callers', in order.
    pub rename: Vec<(Name, Name)>,
}
