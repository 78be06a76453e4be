//! `ensemble_scheduling`: models that ask each other by the names of tensors, as a pipeline.
//!
//! An ensemble names its tensors freely: a step takes those that the request or another step gives. Here a step takes
//! another step's output by that step's name, so each step gets one: its model's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outhaul_pipeline::{Outline, OutputSpec, PipelineSpec, Reference, StepSpec, TensorDecl};
use outhaul_types::{Destination, ModelName, ModelVersion, Name, VersionChoice};

use super::super::textproto::Section;
use super::Target;

/// Reads what `config` says of an ensemble, where it is one. Its tensors have been read.
pub(super) fn map(config: &Section<'_>, target: &mut Target) -> Option<Arc<Outline>> {
    let ensemble = config.section("ensemble_scheduling")?;
    let inputs: Vec<TensorDecl> = target.manifest.inputs.iter().map(declared).collect();
    for field in ["input", "output"] {
        for tensor in config.sections(field).iter().filter(|tensor| tensor.is_set("reshape")) {
            let rule = "an ensemble's tensors are handed on as they are";
            target.problems.push(tensor.problem("reshape", rule, "reshape in the step's model"));
        }
    }
    let steps = ensemble.sections("step");
    let names = step_names(&steps, &inputs);
    let given = given(&steps, &names, &inputs, target);
    let read = steps.iter().zip(&names).filter_map(|(of, name)| step(of, name, &given, target));
    let steps = read.collect();
    let outputs = config.sections("output").into_iter().filter_map(|output| {
        let from = vec![take(&output, "name", output.text("name"), &given, target)?];
        Some(OutputSpec { name: output.text("name").into(), from })
    });
    let outputs = outputs.collect();
    let spec = PipelineSpec { inputs, steps, outputs, ..PipelineSpec::default() };
    match Outline::of(spec) {
        Ok(outline) => Some(Arc::new(outline)),
        Err(faults) => {
            for fault in faults {
                let rule = format!("{}: {}", fault.key, fault.rule);
                target.problems.push(ensemble.problem("", &rule, &fault.remedy));
            }
            None
        }
    }
}

fn declared(tensor: &outhaul_types::TensorDeclaration) -> TensorDecl {
    let (data_type, shape) = (tensor.data_type, tensor.shape.clone());
    TensorDecl { name: tensor.name.clone(), data_type, shape }
}

/// A word for each step, made from its model's name.
fn step_names(steps: &[Section<'_>], inputs: &[TensorDecl]) -> Vec<Name> {
    let mut taken: BTreeSet<Name> = inputs.iter().map(|input| input.name.clone()).collect();
    let name = |step: &Section<'_>| {
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let model: String = step.text("model_name").chars().map(word).collect();
        let begins = model.starts_with(|c: char| c.is_ascii_alphabetic());
        let model = if begins { model } else { format!("step_{model}") };
        let mut names = (1..).map(|number| match number {
            1 => Name::from(&model),
            number => compact(&model, number),
        });
        let free = names.find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(free.clone());
        free
    };
    steps.iter().map(name).collect()
}

fn compact(model: &str, number: usize) -> Name {
    format!("{model}_{number}").into()
}

/// Finds who gives each of the ensemble's tensors.
fn given(
    steps: &[Section<'_>],
    names: &[Name],
    inputs: &[TensorDecl],
    target: &mut Target,
) -> BTreeMap<String, Reference> {
    let of_request =
        |input: &TensorDecl| (input.name.to_string(), Reference::Input(input.name.clone()));
    let mut given: BTreeMap<String, Reference> = inputs.iter().map(of_request).collect();
    for (step, name) in steps.iter().zip(names) {
        for (output, tensor) in step.texts_by_key("output_map") {
            let reference = Reference::Output { step: name.clone(), output: output.into() };
            if given.insert(tensor.clone(), reference).is_some() {
                let rule = format!("the tensor '{tensor}' is given twice");
                target.problems.push(step.problem("output_map", &rule, "rename one of the two"));
            }
        }
    }
    given
}

fn step(
    step: &Section<'_>,
    name: &Name,
    given: &BTreeMap<String, Reference>,
    target: &mut Target,
) -> Option<StepSpec> {
    let model = match ModelName::new(step.text("model_name")) {
        Ok(model) => Some(model),
        Err(error) => {
            let remedy = "name the model that the step asks";
            target.problems.push(step.problem("model_name", &error.to_string(), remedy));
            None
        }
    };
    let version = match u64::try_from(step.number("model_version")) {
        Ok(version) if version > 0 => VersionChoice::Exact(ModelVersion(version)),
        // -1 is the newest; 0, where nothing is written, is no version of Triton's either.
        _ => VersionChoice::Latest,
    };
    let fed = step.texts_by_key("input_map").into_iter().filter_map(|(input, tensor)| {
        Some((input.into(), vec![take(step, "input_map", &tensor, given, target)?]))
    });
    let inputs = fed.collect();
    Some(StepSpec {
        name: name.clone(),
        model: Destination::Model { name: model?, version },
        when: None,
        eager: false,
        inputs,
        outputs: Vec::new(),
    })
}

fn take(
    section: &Section<'_>,
    field: &str,
    tensor: &str,
    given: &BTreeMap<String, Reference>,
    target: &mut Target,
) -> Option<Reference> {
    let found = given.get(tensor).cloned();
    if found.is_none() {
        let rule = format!("nobody gives the tensor '{tensor}'");
        let remedy = "name an input of the ensemble, or a tensor of a step's output_map";
        target.problems.push(section.problem(field, &rule, remedy));
    }
    found
}
