//! What a model's rows and answers are in GraphQL's types.

use std::sync::Arc;

use outhaul_types::{
    Content, DataType, Dimension, Field, Interface, ModelSignature, Name, ShapePattern, TensorSpec,
};

use super::names::{unique_names, unique_types};
use crate::Schema;

/// The GraphQL types of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelTypes {
    /// The model's own name.
    pub name: String,
    /// Its field of `predict`.
    pub field: String,
    /// What the names of its types begin with.
    pub(crate) base: String,
    pub(crate) inputs: Vec<FieldTypes>,
    pub(crate) outputs: Vec<FieldTypes>,
    /// What it does, in a sentence.
    pub(crate) description: String,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldTypes {
    /// Its field.
    pub(crate) field: String,
    /// Its name in the signature.
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    /// How a row of it nests: `None` where the row is a JSON value.
    pub(crate) list: bool,
    pub(crate) optional: bool,
    pub(crate) description: String,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    String,
    /// A list of lists, or a value whose nesting is not known before.
    Json,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "Boolean",
            Kind::Int => "Int",
            Kind::Long => "Long",
            Kind::Float => "Float",
            Kind::String => "String",
            Kind::Json => "JSON",
        }
    }

    fn of(data_type: DataType, content: Content) -> Self {
        match (content, data_type) {
            (Content::Json, _) => Kind::Json,
            (Content::Boolean, _) | (_, DataType::Bool) => Kind::Boolean,
            (_, DataType::Bytes) => Kind::String,
            (_, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64) => Kind::Float,
            (_, DataType::Int8 | DataType::Int16 | DataType::Int32) => Kind::Int,
            (_, DataType::Uint8 | DataType::Uint16) => Kind::Int,
            (_, DataType::Uint32 | DataType::Int64 | DataType::Uint64) => Kind::Long,
        }
    }
}

impl FieldTypes {
    /// Returns the type of an input field, or `None` where rows have no part in it.
    pub(crate) fn type_of(&self) -> String {
        match self.list {
            true => format!("[{}!]", self.kind.name()),
            false => self.kind.name().to_owned(),
        }
    }
}

/// Returns the types of the models whose rows can be typed, in the order given. Models with a scalar
/// for the whole request, or with nothing to send, are left to the generic field.
pub(crate) fn types_of(models: &[Schema<'_>]) -> Vec<ModelTypes> {
    let typed: Vec<&Schema<'_>> = models.iter().filter(|model| has_rows(model.signature)).collect();
    let names: Vec<&str> = typed.iter().map(|model| model.name).collect();
    let fields = unique_names(&names);
    let field_names: Vec<&str> = fields.iter().map(String::as_str).collect();
    let bases = unique_types(&field_names);
    let types = typed.iter().zip(&fields).zip(bases).map(|((model, field), base)| ModelTypes {
        name: model.name.to_owned(),
        field: field.clone(),
        base,
        inputs: fields_of(&model.signature.inputs, &model.interface.inputs),
        outputs: fields_of(&model.signature.outputs, &model.interface.outputs),
        description: describe(model.name, model.interface),
    });
    types.collect()
}

fn has_rows(signature: &ModelSignature) -> bool {
    let scalar = |spec: &TensorSpec| match &spec.shape {
        ShapePattern::AnyRank => false,
        ShapePattern::Ranked(dimensions) => dimensions.is_empty(),
    };
    let sides = [&signature.inputs, &signature.outputs];
    sides.into_iter().all(|specs| !specs.is_empty() && !specs.iter().any(scalar))
}

fn fields_of(specs: &[TensorSpec], meanings: &[Field]) -> Vec<FieldTypes> {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let unknown = Field::default();
    let meanings = meanings.iter().chain(std::iter::repeat(&unknown));
    let fields = specs.iter().zip(unique_names(&names)).zip(meanings);
    let of = |((spec, field), meaning): ((&TensorSpec, String), &Field)| {
        let row: Option<&[Dimension]> = match &spec.shape {
            ShapePattern::AnyRank => None,
            ShapePattern::Ranked(dimensions) => Some(dimensions.get(1..).unwrap_or(&[])),
        };
        let element = Kind::of(spec.data_type, meaning.content);
        let (kind, list) = match row {
            Some([]) => (element, false),
            Some([_]) => (element, true),
            Some(_) | None => (Kind::Json, false),
        };
        let description = describe_field(spec, meaning);
        let (name, optional) = (spec.name.clone(), spec.optional);
        FieldTypes { field, name, kind, list, optional, description }
    };
    fields.map(of).collect()
}

fn describe(name: &str, interface: &Interface) -> String {
    match interface.task.as_str() {
        "tensors" => format!("The model {name}."),
        task => format!("The model {name}: {}.", task.replace('-', " ")),
    }
}

/// Says of an input or output what its type does not.
pub(crate) fn describe_field(spec: &TensorSpec, meaning: &Field) -> String {
    let mut text = format!("{} {}", spec.data_type, spec.shape);
    match meaning.content {
        Content::Tensor => {}
        Content::Image => text.push_str(": a JPEG, PNG or WebP file in Base64"),
        Content::Date => text.push_str(": a date or point in time"),
        content => {
            text.push_str(": ");
            text.push_str(content.as_str());
        }
    }
    if let Some(unit) = &meaning.unit {
        text.push_str(" in ");
        text.push_str(unit);
    }
    if let Some(choices) = &meaning.choices {
        text.push_str(", one of ");
        text.push_str(&some_of(choices));
    }
    text
}

/// Choices that a description names.
const SHOWN: usize = 20;

fn some_of(choices: &Arc<[String]>) -> String {
    let shown: Vec<&str> = choices.iter().take(SHOWN).map(String::as_str).collect();
    let more = choices.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
