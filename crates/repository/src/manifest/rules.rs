//! Rules that several keys share.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use outhaul_types::EngineChoice;

use crate::{Rule, Value};

pub(super) fn engine(value: &Value) -> Result<EngineChoice, Rule> {
    let choices = [
        ("auto", EngineChoice::Auto),
        ("onnxruntime", EngineChoice::OnnxRuntime),
        ("embedded", EngineChoice::Embedded),
    ];
    let text = value.text().unwrap_or_default();
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let must = "must be \"auto\", \"onnxruntime\" or \"embedded\"";
    Err(match (text, crate::nearest(text, choices.map(|(name, _)| name))) {
        ("python", _) => Rule::new(
            "this version of Outhaul runs no Python models",
            "export the model to ONNX and set \"auto\"",
        ),
        (_, Some(nearest)) => Rule::new(must, format!("did you mean \"{nearest}\"?")),
        (_, None) => Rule::new(must, "leave it out for \"auto\""),
    })
}

pub(super) fn within(
    value: &Value,
    range: RangeInclusive<usize>,
    remedy: &str,
) -> Result<NonZeroUsize, Rule> {
    value.whole().filter(|number| range.contains(number)).and_then(NonZeroUsize::new).ok_or_else(
        || {
            let must = format!("must be a whole number from {} to {}", range.start(), range.end());
            Rule::new(must, remedy)
        },
    )
}

pub(crate) fn boolean(value: &Value) -> Result<bool, Rule> {
    value.boolean().ok_or_else(|| Rule::new("must be true or false", "write it without quotes"))
}

/// Takes a duration above zero. `limit` and `example` are written as people write them.
pub(crate) fn duration_within(
    value: &Value,
    most: Duration,
    limit: &str,
    example: &str,
) -> Result<Duration, Rule> {
    let allowed = |duration: &Duration| !duration.is_zero() && *duration <= most;
    value.duration().filter(allowed).ok_or_else(|| {
        Rule::new(
            format!("must be a duration above zero and of at most {limit}"),
            format!("write a number with a unit, as in \"{example}\""),
        )
    })
}

/// Takes the path of a file in the model's folder.
pub(super) fn below(value: &Value, rule: &str, remedy: &str) -> Result<PathBuf, Rule> {
    let path = value.text().unwrap_or_default();
    let mut inside = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) | Component::RootDir => {
                let remedy = "put the file there and write its path below that folder";
                return Err(Rule::new("must lie in the model's folder", remedy));
            }
        }
    }
    match inside.as_os_str().is_empty() {
        true => Err(Rule::new(rule, remedy)),
        false => Ok(inside),
    }
}
