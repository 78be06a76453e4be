//! `pipeline.toml`: a pipeline of models, beside which no model lies.
//!
//! Every mistake is told at once: first those of the text, and where there are none, those of what it says
//! ([`Outline::of`]). What the steps' models make of it is not known here: the router checks that.

use std::path::Path;
use std::time::Duration;

use outhaul_pipeline::{Fault, Outline, OutputSpec, PipelineSpec, Reference, StepSpec, TensorDecl};
use outhaul_types::{Destination, Name};

use crate::declared::{Faults, Fields};
use crate::manifest::{
    data_type, duration_text, key, limited, list, pattern, sizes, string, table, truth,
};
use crate::{Declarations, Problem, Rule, Value};

/// The name of the file.
pub const PIPELINE_FILE: &str = "pipeline.toml";

const KEYS: &[&str] = &["timeout", "inputs", "steps", "outputs"];

const STEP_KEYS: &[&str] = &["name", "model", "when", "eager", "inputs", "outputs"];

const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a pipeline.
///
/// # Errors
///
/// Fails with every problem of the file.
pub fn read_pipeline(path: &Path) -> Result<Outline, Vec<Problem>> {
    let spec = spec(Declarations::read(path, KEYS))?;
    Outline::of(spec).map_err(|faults| problems(path, faults))
}

/// Tells what is wrong with a pipeline as problems of its file.
pub(crate) fn problems(path: &Path, faults: Vec<Fault>) -> Vec<Problem> {
    let problem = |Fault { key, rule, remedy }: Fault| Problem {
        key: Some(key),
        ..Problem::of_place(path.display(), rule, remedy)
    };
    faults.into_iter().map(problem).collect()
}

fn spec(mut declared: Declarations) -> Result<PipelineSpec, Vec<Problem>> {
    let mut spec = PipelineSpec::default();
    if let Some(timeout) =
        declared.take("timeout", |value| limited(value, LONGEST_TIMEOUT, "24h", "60s"))
    {
        spec.timeout = timeout;
    }
    spec.inputs = declared.take_nested("inputs", tensors).unwrap_or_default();
    let inputs = spec.inputs.clone();
    let steps = declared.take_nested("steps", |value, faults| {
        let rule = Rule::new("must be a list of steps", "write [[steps]] and its keys below");
        faults.items(value, rule, |_, step, faults| self::step(step, &inputs, faults))
    });
    let outputs = declared.take_nested("outputs", |value, faults| {
        let feeds = feeds(value, &inputs, faults)?;
        Some(feeds.into_iter().map(|(name, from)| OutputSpec { name, from }).collect())
    });
    (spec.steps, spec.outputs) = (steps.unwrap_or_default(), outputs.unwrap_or_default());
    let problems = declared.into_problems();
    if problems.is_empty() { Ok(spec) } else { Err(problems) }
}

fn step(value: &Value, inputs: &[TensorDecl], faults: &mut Faults) -> Option<StepSpec> {
    let fields = Fields::open(value, STEP_KEYS, faults)?;
    let name = fields.take("name", faults, text);
    let model = fields.take("model", faults, |value| {
        let model = text(value)?.parse::<Destination>();
        model.map_err(|error| Rule::new(error.to_string(), "name who is asked"))
    });
    let when = fields.take("when", faults, text);
    let eager = fields.take("eager", faults, truth).unwrap_or_default();
    let fed = fields.nested("inputs", faults, |value, faults| feeds(value, inputs, faults));
    let outputs = fields.nested("outputs", faults, tensors).unwrap_or_default();
    for key in ["name", "model"].into_iter().filter(|key| !fields.has(key)) {
        let remedy = "a step has a name and a model that it asks";
        faults.add(value, Rule::new(format!("'{key}' is missing"), remedy));
    }
    Some(StepSpec {
        name: name?.into(),
        model: model?,
        when,
        eager,
        inputs: fed.unwrap_or_default(),
        outputs,
    })
}

fn text(value: &Value) -> Result<String, Rule> {
    value.text().map(str::to_owned).ok_or_else(|| Rule::new("must be a text", "put it in quotes"))
}

/// Names with what each is fed with: one reference, or several of which the first that is there is taken.
fn feeds(
    value: &Value,
    inputs: &[TensorDecl],
    faults: &mut Faults,
) -> Option<Vec<(Name, Vec<Reference>)>> {
    let rule = || Rule::new("must be INPUT or STEP.OUTPUT, or a list of them", "put it in quotes");
    let table = Rule::new("must be a table", "write as in { NAME = \"STEP.OUTPUT\" }");
    faults.named(value, table, |name, from, faults| {
        let reference = |value: &Value, faults: &mut Faults| {
            let text =
                faults.check(value, |value| value.text().ok_or_else(rule).map(str::to_owned))?;
            Some(Reference::parse(&text, inputs))
        };
        let from = match from {
            Value::List(_) => {
                faults.items(from, rule(), |_, value, faults| reference(value, faults))?
            }
            one => vec![reference(one, faults)?],
        };
        Some((name.into(), from))
    })
}

fn tensors(value: &Value, faults: &mut Faults) -> Option<Vec<TensorDecl>> {
    let rule = Rule::new("must be a table", "write as in { NAME = { datatype = \"FP32\" } }");
    faults.named(value, rule, |name, declared, faults| {
        let fields = Fields::open(declared, &["datatype", "shape"], faults)?;
        let data_type = fields.take("datatype", faults, data_type);
        let shape = fields.take("shape", faults, pattern);
        Some(TensorDecl { name: name.into(), data_type, shape })
    })
}

/// Writes a pipeline as the text of a `pipeline.toml`, with only what differs from the defaults.
pub fn write_pipeline(spec: &PipelineSpec) -> String {
    let mut parts = Vec::new();
    if spec.timeout != PipelineSpec::default().timeout {
        parts.push(format!("timeout = {}\n", duration_text(spec.timeout)));
    }
    if !spec.inputs.is_empty() {
        parts.push(format!("[inputs]\n{}", lines(spec.inputs.iter().map(tensor))));
    }
    parts.extend(spec.steps.iter().map(step_text));
    let outputs = spec.outputs.iter().map(|output| feed(&output.name, &output.from));
    parts.push(format!("[outputs]\n{}", lines(outputs)));
    parts.join("\n")
}

fn step_text(step: &StepSpec) -> String {
    let entry = |key: &str, value: String| Some(format!("{key} = {value}"));
    let fed = step.inputs.iter().map(|(name, from)| Some(feed(name, from)));
    let entries = [
        Some("[[steps]]".to_owned()),
        entry("name", string(&step.name)),
        entry("model", string(&step.model.to_string())),
        step.when.as_ref().and_then(|when| entry("when", string(when))),
        step.eager.then(|| "eager = true".to_owned()),
        entry("inputs", table(fed)),
        (!step.outputs.is_empty())
            .then(|| format!("outputs = {}", table(step.outputs.iter().map(tensor).map(Some)))),
    ];
    lines(entries.into_iter().flatten())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

fn feed(name: &str, from: &[Reference]) -> String {
    let name = key(name);
    match from {
        [one] => format!("{name} = {}", string(&one.to_string())),
        several => {
            format!("{name} = {}", list(several.iter().map(|from| string(&from.to_string()))))
        }
    }
}

fn tensor(declared: &TensorDecl) -> String {
    let data_type = declared.data_type.map(|of| format!("datatype = \"{of}\""));
    let shape = declared.shape.as_ref().and_then(sizes).map(|of| format!("shape = {of}"));
    format!("{} = {}", key(&declared.name), table([data_type, shape]))
}

#[cfg(test)]
mod tests;
