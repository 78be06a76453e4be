//! What callers see of a model beyond names, types and shapes: what the values mean.
//!
//! Contracts write and read by it (a picture is Base64 in JSON, a list of entities is JSON and no
//! text), and pages choose their widgets by it. It never decides whether a request is valid: that is
//! the signature's business.

use std::sync::Arc;

use crate::{ModelSignature, Name};

/// What a model's inputs and outputs mean, in the order of its outer signature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// What the model does.
    pub task: Task,
    /// One for each input of the outer signature.
    pub inputs: Vec<Field>,
    /// One for each output of the outer signature.
    pub outputs: Vec<Field>,
    /// What the model itself takes and gives, where a transform stands between. Requests may name these
    /// inputs and outputs too.
    pub inner: Option<ModelSignature>,
    /// Rows to try the model with: a JSON list of objects by input name.
    pub sample: Option<Arc<str>>,
}

impl Interface {
    /// Returns what is known of a model without a transform: tensors.
    pub fn of_tensors(signature: &ModelSignature) -> Self {
        Interface {
            inputs: vec![Field::default(); signature.inputs.len()],
            outputs: vec![Field::default(); signature.outputs.len()],
            ..Interface::default()
        }
    }

    /// Returns the classes that the model tells apart, where it does and they have names.
    pub fn labels(&self) -> Option<&Arc<[String]>> {
        self.outputs.iter().find_map(|field| field.choices.as_ref())
    }
}

/// What a model does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Task {
    /// Nothing is known: tensors in, tensors out.
    #[default]
    Tensors,
    Embedding,
    Classification,
    TokenClassification,
    Rerank,
    FillMask,
    Regression,
}

impl Task {
    /// Returns the task as one word with hyphens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Task::Tensors => "tensors",
            Task::Embedding => "embedding",
            Task::Classification => "classification",
            Task::TokenClassification => "token-classification",
            Task::Rerank => "rerank",
            Task::FillMask => "fill-mask",
            Task::Regression => "regression",
        }
    }
}

/// What one input or output means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// What each element is.
    pub content: Content,
    /// The values that it may have: categories of an input; the classes of a label or, in order, of
    /// an output `[batch, classes]`.
    pub choices: Option<Arc<[String]>>,
    /// What numbers are counted in.
    pub unit: Option<Name>,
}

impl Field {
    /// Returns a field of this content and nothing more.
    pub fn of(content: Content) -> Self {
        Field { content, ..Field::default() }
    }
}

/// What each element of an input or output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// A number or string of a tensor.
    #[default]
    Tensor,
    /// A text for people.
    Text,
    /// An encoded picture: JPEG, PNG or WebP. JSON carries it as Base64.
    Image,
    /// A number of a column.
    Number,
    /// `true` or `false` of a column.
    Boolean,
    /// One of the field's choices.
    Category,
    /// A date or point in time as text.
    Date,
    /// The name of a class.
    Label,
    /// A probability or another score of classes.
    Score,
    /// A vector that stands for meaning.
    Embedding,
    /// A JSON value as text. Contracts of JSON write it as JSON.
    Json,
}

impl Content {
    /// Returns the content as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Content::Tensor => "tensor",
            Content::Text => "text",
            Content::Image => "image",
            Content::Number => "number",
            Content::Boolean => "boolean",
            Content::Category => "category",
            Content::Date => "date",
            Content::Label => "label",
            Content::Score => "score",
            Content::Embedding => "embedding",
            Content::Json => "json",
        }
    }

    /// Returns whether this is one value of a table's row.
    pub const fn is_column(self) -> bool {
        matches!(self, Content::Number | Content::Boolean | Content::Category | Content::Date)
    }
}
