//! What `outhaul predict` was given, as the model's inputs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use outhaul::ModelDescription;
use outhaul::types::{Content, NamedTensor, Strings, Tensor};
use outhaul_protocol::rows::{self, JsonValue};
use outhaul_protocol::{DecodeLimits, Schema, csv};

use super::values;

/// What was given.
pub(super) enum Given {
    /// JSON: rows, or tensors by name.
    Json(Vec<u8>),
    /// One text a row.
    Texts(Vec<String>),
    /// One file of a picture a row.
    Pictures(Vec<PathBuf>),
    /// Lines of a table.
    Csv(Vec<u8>),
}

impl Given {
    /// Makes the inputs that a model takes of it.
    pub(super) fn inputs(&self, model: &ModelDescription) -> Result<Vec<NamedTensor>> {
        match self {
            Given::Json(json) if is_transformed(model) => of_json(json, model),
            Given::Json(json) => Ok(values::tensors(json, &model.signature)?),
            Given::Texts(texts) => of_strings(Content::Text, texts, model),
            Given::Pictures(paths) => {
                let picture = |path: &PathBuf| fs::read(path).with_context(|| cannot_read(path));
                let pictures = paths.iter().map(picture).collect::<Result<Vec<_>>>()?;
                of_strings(Content::Image, &pictures, model)
            }
            Given::Csv(lines) => {
                let decoded = csv::decode(lines, &schema(model), &DecodeLimits::default());
                Ok(decoded?.into_vec())
            }
        }
    }
}

/// Whether the model is asked in other words than its own tensors.
pub(super) fn is_transformed(model: &ModelDescription) -> bool {
    model.interface.inner.is_some()
}

pub(super) fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

fn schema(model: &ModelDescription) -> Schema<'_> {
    Schema {
        name: model.name.as_str(),
        version: model.version,
        signature: &model.signature,
        interface: &model.interface,
    }
}

/// Reads rows, one row, or, where every value is a list, whole tensors.
fn of_json(json: &[u8], model: &ModelDescription) -> Result<Vec<NamedTensor>> {
    let (schema, limits) = (schema(model), DecodeLimits::default());
    let value = rows::parse_json(json)?;
    let is_list = |(_, value): &(_, JsonValue<'_>)| value.as_list().is_some();
    let inputs = match value {
        JsonValue::Object(members) if members.iter().all(is_list) => {
            rows::decode_columns(&JsonValue::Object(members), &schema, &limits)
        }
        rows @ JsonValue::List(_) => rows::decode_instances(&rows, &schema, &limits),
        row => rows::decode_instances(&JsonValue::List(Box::new([row])), &schema, &limits),
    };
    Ok(inputs?.into_vec())
}

/// Gives texts or pictures to the one input that takes them.
fn of_strings<S: AsRef<[u8]>>(
    content: Content,
    strings: &[S],
    model: &ModelDescription,
) -> Result<Vec<NamedTensor>> {
    let inputs = model.signature.inputs.iter().zip(&model.interface.inputs);
    let mut taking = inputs.filter(|(_, field)| field.content == content).map(|(spec, _)| spec);
    let input = match (taking.next(), taking.find(|spec| !spec.optional)) {
        (Some(input), None) => input,
        (found, _) => {
            let names = model.signature.inputs.iter().map(|spec| format!("'{}'", spec.name));
            let names = names.collect::<Vec<_>>().join(", ");
            let problem = if found.is_some() { "more than one" } else { "no" };
            let what = content.as_str();
            bail!("'{}' takes {problem} {what} in a row; it takes {names}: use --json", model.name);
        }
    };
    let strings: Strings = strings.iter().collect();
    let tensor = Tensor::from_strings([strings.len()], strings)?;
    Ok(vec![NamedTensor { name: input.name.clone(), tensor }])
}
