//! Keys that say what stands between callers and the model's tensors: `transform`, and `sample`.
//!
//! Which keys there are follows from the `kind` of each side, so a key of another kind is unknown
//! here. Only what a declaration says of itself is checked: whether it fits the model is known once
//! the model's file is read, and is `transform`'s business.

mod input;
mod output;
mod write;

use outhaul_types::{ModelManifest, Name};

use super::rules::below;
use crate::declared::Faults;
use crate::{Declarations, Rule, Value};
pub(super) use write::{write, write_sample};

pub(super) fn take(declared: &mut Declarations, manifest: &mut ModelManifest) {
    manifest.sample = declared.take("sample", |value| {
        let rule = "must be the path of a file of JSON";
        below(value, rule, "leave it out for the sample.json beside the model")
    });
    manifest.transform.input = declared.take_nested("transform.input", input::take);
    manifest.transform.output = declared.take_nested("transform.output", output::take);
}

/// Returns the kind of a side, one of `kinds`.
fn kind<'k>(value: &Value, kinds: &[&'k str], faults: &mut Faults) -> Option<&'k str> {
    let quoted = |kinds: &[&str]| kinds.iter().map(|of| format!("\"{of}\"")).collect::<Vec<_>>();
    let Value::Table(entries) = value else {
        let remedy = format!("write as in {{ kind = \"{}\" }}", kinds[0]);
        faults.add(value, Rule::new("must be a table", remedy));
        return None;
    };
    let Some((_, declared)) = entries.iter().find(|(name, _)| name == "kind") else {
        let remedy = format!("set kind to one of {}", quoted(kinds).join(", "));
        faults.add(value, Rule::new("needs a kind", remedy));
        return None;
    };
    let names: Vec<(&str, &str)> = kinds.iter().map(|&of| (of, of)).collect();
    faults.within(".kind", |faults| faults.check(declared, |value| one_of(value, &names)))
}

/// Takes one of several words.
fn one_of<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, Rule> {
    let text = value.text().unwrap_or_default();
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let quoted: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let must = format!("must be one of {}", quoted.join(", "));
    let remedy = match crate::nearest(text, choices.iter().map(|(name, _)| *name)) {
        Some(nearest) => format!("did you mean \"{nearest}\"?"),
        None => "write one of these words".to_owned(),
    };
    Err(Rule::new(must, remedy))
}

/// Takes the name of a tensor or column.
fn name(value: &Value) -> Result<Name, Rule> {
    let text = value.text().filter(|text| !text.is_empty());
    text.map(Name::from).ok_or_else(|| Rule::new("must be a name", "write it in quotes"))
}

fn text(value: &Value) -> Result<String, Rule> {
    let text = value.text().map(str::to_owned);
    text.ok_or_else(|| Rule::new("must be a text", "write it in quotes"))
}

/// Takes a finite number.
fn number(value: &Value) -> Result<f64, Rule> {
    let number = match value {
        Value::Whole(number) => Some(*number as f64),
        Value::Fraction(number) => Some(*number),
        _ => None,
    };
    number
        .filter(|number| number.is_finite())
        .ok_or_else(|| Rule::new("must be a finite number", "write it without quotes, as in 0.5"))
}

/// Takes a finite number that FP32 holds.
fn single(value: &Value) -> Result<f32, Rule> {
    let number = number(value)? as f32;
    match number.is_finite() {
        true => Ok(number),
        false => Err(Rule::new("must be a number that FP32 holds", "write a smaller number")),
    }
}

#[cfg(test)]
pub(super) mod strategies;
#[cfg(test)]
mod tests;
