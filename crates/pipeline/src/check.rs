//! From the outline of a pipeline and the signatures of its models to a plan, or to everything that does not fit.

use std::sync::Arc;

use outhaul_types::{
    DataType, Dimension, Interface, ModelSignature, Name, Shape, ShapePattern, Strings, Tensor,
    TensorSpec,
};

use crate::outline::step_of;
use crate::plan::{Feed, Plan, PlannedStep, Slot, StepModel};
use crate::spec::{OutputSpec, StepSpec, TensorDecl};
use crate::{Fault, Outline, Reference, elements, meaning};

impl Outline {
    /// Holds the pipeline against the models of its steps, one for each; `None` for those of other servers.
    ///
    /// # Errors
    ///
    /// Fails with everything that does not fit.
    pub fn check(self: &Arc<Self>, models: &[Option<StepModel<'_>>]) -> Result<Plan, Vec<Fault>> {
        debug_assert_eq!(models.len(), self.spec.steps.len());
        let mut checker = Checker::new(self, models);
        checker.inputs();
        checker.feeds();
        let outputs = checker.outputs();
        let plan = checker.plan(outputs);
        checker.presence(&plan);
        checker.trials();
        match checker.faults.is_empty() {
            true => Ok(plan),
            false => Err(checker.faults),
        }
    }
}

/// The element type and the shapes of a tensor.
type Kind = (DataType, ShapePattern);

struct Checker<'c> {
    outline: &'c Arc<Outline>,
    models: &'c [Option<StepModel<'c>>],
    /// Of each input of the pipeline, as far as it is known.
    inputs: Vec<Option<Kind>>,
    faults: Vec<Fault>,
}

impl<'c> Checker<'c> {
    fn new(outline: &'c Arc<Outline>, models: &'c [Option<StepModel<'c>>]) -> Self {
        Checker { outline, models, inputs: Vec::new(), faults: Vec::new() }
    }

    fn fault(&mut self, key: String, rule: String, remedy: &str) {
        self.faults.push(Fault::new(key, rule, remedy));
    }

    /// Finds what the pipeline's inputs are: as declared, and as all models want them that they feed.
    fn inputs(&mut self) {
        let outline = self.outline;
        for name in &outline.inputs {
            let declared = outline.spec.inputs.iter().find(|input| input.name == *name);
            let mut data_type = declared.and_then(|declared| declared.data_type);
            let mut shape = declared.and_then(|declared| declared.shape.clone());
            for (step, input, wanted) in self.takers(name) {
                let key = format!("steps.{}.inputs.{input}", outline.spec.steps[step].name);
                if *data_type.get_or_insert(wanted.data_type) != wanted.data_type {
                    let (is, wants) = (data_type.unwrap_or(wanted.data_type), wanted.data_type);
                    let rule = format!("takes {wants}, and the input '{name}' is {is}");
                    self.fault(key.clone(), rule, "feed it with a tensor of its type");
                }
                let before = shape.clone().unwrap_or(ShapePattern::AnyRank);
                match before.meet(&wanted.shape) {
                    Some(both) => shape = Some(both),
                    None => {
                        let wants = &wanted.shape;
                        let rule = format!("takes {wants}, and the input '{name}' is {before}");
                        self.fault(key, rule, "feed it with a tensor of its shape");
                    }
                }
            }
            let kind = data_type.zip(shape);
            if kind.is_none() {
                let rule = "nothing tells its type and shape".to_owned();
                let remedy = "declare it as in { type = \"FP32\", shape = [-1, 4] }";
                self.fault(format!("inputs.{name}"), rule, remedy);
            }
            self.inputs.push(kind);
        }
    }

    /// The inputs of models that an input of the pipeline feeds.
    fn takers(&self, name: &Name) -> Vec<(usize, &'c Name, &'c TensorSpec)> {
        let reference = Reference::Input(name.clone());
        let steps = self.outline.spec.steps.iter().zip(self.models).enumerate();
        let takers = steps.flat_map(|(index, (step, model))| {
            let fed = step.inputs.iter().filter(|(_, from)| from.contains(&reference));
            let reference = fed.filter_map(move |(input, _)| {
                let signature = model.as_ref()?.signature;
                let spec = &signature.inputs[signature.input_index(input)?];
                Some((index, input, spec))
            });
            reference.collect::<Vec<_>>()
        });
        takers.collect()
    }

    /// Checks what each model is sent by the steps before it.
    fn feeds(&mut self) {
        let outline = self.outline;
        for (step, model) in outline.spec.steps.iter().zip(self.models) {
            let key = |input: &str| format!("steps.{}.inputs.{input}", step.name);
            for (input, from) in &step.inputs {
                let wanted = model
                    .map(|model| model.signature.inputs.iter().find(|spec| spec.name == *input));
                if let Some(None) = wanted {
                    let rule = format!("'{}' has no such input", step.model);
                    let known = model.map(|model| names(&model.signature.inputs));
                    let remedy = format!("it takes {}", known.unwrap_or_default());
                    self.fault(key(input), rule, &remedy);
                }
                for reference in from.iter().filter(|from| matches!(from, Reference::Output { .. }))
                {
                    let Some(kind) = self.kind_of(reference, &key(input)) else { continue };
                    if let Some(Some(wanted)) = wanted {
                        self.meets(&key(input), reference, &kind, wanted);
                    }
                }
            }
            for declared in model.iter().flat_map(|_| &step.outputs) {
                self.gives(step, declared);
            }
            let needed = model.iter().flat_map(|model| &model.signature.inputs);
            let is_fed =
                |spec: &TensorSpec| step.inputs.iter().any(|(input, _)| *input == spec.name);
            for missing in needed.filter(|spec| !spec.optional && !is_fed(spec)) {
                let rule = format!("'{}' needs this input", step.model);
                self.fault(key(&missing.name), rule, "feed it with INPUT or STEP.OUTPUT");
            }
        }
    }

    /// Checks that a model of this server gives what is declared of it.
    fn gives(&mut self, step: &StepSpec, declared: &TensorDecl) {
        let key = format!("steps.{}.outputs.{}", step.name, declared.name);
        let (step, output) = (step.name.clone(), declared.name.clone());
        let Some((data_type, shape)) = self.kind_of(&Reference::Output { step, output }, &key)
        else {
            return;
        };
        let is_typed = declared.data_type.is_none_or(|declared| declared == data_type);
        let declared = declared.shape.as_ref();
        if !is_typed || declared.is_some_and(|declared| declared.meet(&shape).is_none()) {
            let rule = format!("the model gives {data_type} {shape}");
            self.fault(key, rule, "leave it out: only of models elsewhere nothing is known");
        }
    }

    fn meets(&mut self, key: &str, from: &Reference, kind: &Kind, wanted: &TensorSpec) {
        let (data_type, shape) = kind;
        if *data_type != wanted.data_type {
            let rule = format!("takes {}, and '{from}' is {data_type}", wanted.data_type);
            self.fault(key.to_owned(), rule, "feed it with a tensor of its type");
        }
        if wanted.shape.meet(shape).is_none() {
            let rule = format!("takes {}, and '{from}' is {shape}", wanted.shape);
            self.fault(key.to_owned(), rule, "feed it with a tensor of its shape");
        }
    }

    /// What a reference leads to. Where it leads to nothing, that is a fault at `key`.
    fn kind_of(&mut self, reference: &Reference, key: &str) -> Option<Kind> {
        let spec = &self.outline.spec;
        let output = match reference {
            Reference::Input(name) => {
                let index = self.outline.inputs.iter().position(|input| input == name)?;
                return self.inputs.get(index)?.clone();
            }
            Reference::Output { output, .. } => output,
        };
        let index = step_of(spec, reference)?;
        let step = &spec.steps[index];
        if let Some(model) = self.models[index] {
            if let Some(found) = model.signature.outputs.iter().find(|spec| spec.name == *output) {
                return Some((found.data_type, found.shape.clone()));
            }
            let rule = format!("'{}' has no output '{output}'", step.model);
            let remedy = format!("it gives {}", names(&model.signature.outputs));
            self.fault(key.to_owned(), rule, &remedy);
            return None;
        }
        match step.outputs.iter().find(|declared| declared.name == *output) {
            Some(TensorDecl { data_type: Some(data_type), shape: Some(shape), .. }) => {
                Some((*data_type, shape.clone()))
            }
            _ => {
                let rule = format!("'{}' is a model of another server", step.model);
                let remedy = format!(
                    "declare {output} = {{ type = …, shape = … }} in the outputs of step '{}'",
                    step.name
                );
                self.fault(key.to_owned(), rule, &remedy);
                None
            }
        }
    }

    /// Puts positions in the place of names.
    fn plan(&self, given: Vec<TensorSpec>) -> Plan {
        let spec = &self.outline.spec;
        let mut asks: Vec<Vec<(Name, Option<DataType>)>> = vec![Vec::new(); spec.steps.len()];
        let mut slots = |from: &[Reference]| -> Vec<Slot> {
            let slot = |reference: &Reference| match reference {
                Reference::Input(name) => {
                    self.outline.inputs.iter().position(|input| input == name).map(Slot::Input)
                }
                Reference::Output { output, .. } => {
                    let step = step_of(spec, reference)?;
                    let known = asks[step].iter().position(|(other, _)| other == output);
                    let output = known.unwrap_or_else(|| {
                        let declared = spec.steps[step].outputs.iter();
                        let declared = declared.clone().find(|declared| declared.name == *output);
                        let data_type = declared.and_then(|declared| declared.data_type);
                        asks[step].push((output.clone(), data_type));
                        asks[step].len() - 1
                    });
                    Some(Slot::Output { step, output })
                }
            };
            from.iter().filter_map(slot).collect()
        };
        let outputs: Vec<_> = spec.outputs.iter().map(|output| slots(&output.from)).collect();
        let mut steps = Vec::with_capacity(spec.steps.len());
        for (index, step) in spec.steps.iter().enumerate() {
            let is_optional = |input: &Name| {
                let inputs = self.models[index].map(|model| &model.signature.inputs);
                inputs.into_iter().flatten().any(|spec| spec.name == *input && spec.optional)
            };
            let feeds = step.inputs.iter().map(|(input, from)| Feed {
                input: input.clone(),
                from: slots(from),
                optional: is_optional(input),
            });
            let feeds = feeds.collect();
            let condition = self.outline.conditions[index].as_ref();
            steps.push(PlannedStep {
                name: step.name.clone(),
                model: step.model.clone(),
                feeds,
                asks: Vec::new(),
                looks_at: condition.map(|of| slots(of.looks_at())).unwrap_or_default(),
                is_conditional: condition.is_some(),
                eager: step.eager,
            });
        }
        for (step, asks) in steps.iter_mut().zip(asks) {
            step.asks = asks;
        }
        let mut plan = Plan {
            outline: Arc::clone(self.outline),
            signature: ModelSignature::default(),
            interface: Interface::default(),
            steps,
            outputs,
        };
        let unknown = || (DataType::Fp32, ShapePattern::AnyRank);
        let inputs = self.outline.inputs.iter().zip(&self.inputs).enumerate();
        let inputs = inputs.map(|(index, (name, kind))| {
            let (data_type, shape) = kind.clone().unwrap_or_else(unknown);
            let optional = is_optional(&plan, index);
            TensorSpec { name: name.clone(), data_type, shape, optional }
        });
        plan.signature = ModelSignature { inputs: inputs.collect(), outputs: given };
        plan.interface = meaning::interface(&plan, self.models);
        plan
    }

    /// Finds what the pipeline gives: alternatives of one type, and every shape that one of them may have.
    fn outputs(&mut self) -> Vec<TensorSpec> {
        let mut given = Vec::new();
        for OutputSpec { name, from } in &self.outline.spec.outputs {
            let key = format!("outputs.{name}");
            let mut joined: Option<Kind> = None;
            for reference in from {
                let Some((data_type, shape)) = self.kind_of(reference, &key) else { continue };
                joined = Some(match joined {
                    None => (data_type, shape),
                    Some((first, before)) => {
                        if first != data_type {
                            let rule = format!(
                                "'{reference}' is {data_type}, and '{}' is {first}",
                                from[0]
                            );
                            self.fault(key.clone(), rule, "give tensors of one type");
                        }
                        (first, join(&before, &shape))
                    }
                });
            }
            if let Some((data_type, shape)) = joined {
                given.push(TensorSpec { name: name.clone(), data_type, shape, optional: false });
            }
        }
        given
    }

    /// Checks that what must be there is, whatever the conditions decide.
    fn presence(&mut self, plan: &Plan) {
        let spec = &self.outline.spec;
        let always = plan.always();
        for (output, from) in spec.outputs.iter().zip(&plan.outputs) {
            let key = format!("outputs.{}", output.name);
            match from.iter().position(|slot| always.of(*slot)) {
                None => {
                    let last = output.from.last().map(ToString::to_string).unwrap_or_default();
                    let rule = format!("may be missing: '{last}' is not always there");
                    let remedy = "name a further one that is, whose step has no `when`";
                    self.fault(key, rule, remedy);
                }
                Some(index) if index + 1 < from.len() => {
                    let rule = format!(
                        "'{}' is never taken, since '{}' is always there",
                        output.from[index + 1],
                        output.from[index]
                    );
                    self.fault(key, rule, "put it first and give its step a `when`");
                }
                Some(_) => {}
            }
        }
        for (index, step) in spec.steps.iter().enumerate() {
            let planned = &plan.steps[index];
            let Some(condition) = plan.condition(index) else { continue };
            for (reference, slot) in condition.looks_at().iter().zip(&planned.looks_at) {
                let Reference::Output { step: asked, output } = reference else { continue };
                if !always.of(*slot) && !condition.asks_for(asked, output) {
                    let rule = format!("'{reference}' may be missing");
                    let remedy = format!("ask for it first: has({reference}) && …");
                    self.fault(format!("steps.{}.when", step.name), rule, &remedy);
                }
            }
        }
    }

    /// Tries each condition with tensors of the right types.
    fn trials(&mut self) {
        let outline = self.outline;
        for (step, condition) in outline.spec.steps.iter().zip(&outline.conditions) {
            let Some(condition) = condition else { continue };
            let key = format!("steps.{}.when", step.name);
            let mut samples: Vec<(&Reference, Tensor)> = Vec::new();
            for reference in condition.looks_at() {
                let kind = self.kind_of(reference, &key);
                samples.extend(kind.and_then(|kind| Some((reference, sample(&kind)?))));
            }
            // What is not known at all was told, and what has no known rank cannot be made up.
            if samples.len() < condition.looks_at().len() {
                continue;
            }
            let look = |wanted: &Reference| {
                samples.iter().find(|(reference, _)| *reference == wanted).map(|(_, tensor)| tensor)
            };
            if let Some(rule) = condition.trial(look) {
                let remedy = "tensors are lists by row: write as in \"STEP.OUTPUT[0] < 0.8\"";
                self.fault(key, rule, remedy);
            }
        }
    }
}

/// Whether a request may leave an input out: all that it feeds does without.
fn is_optional(plan: &Plan, input: usize) -> bool {
    let slot = Slot::Input(input);
    let mut feeds = plan.steps.iter().flat_map(|step| &step.feeds);
    let is_needed = feeds.any(|feed| feed.from.contains(&slot) && !feed.optional);
    let looked_at = plan.steps.iter().any(|step| step.looks_at.contains(&slot));
    let given = plan.outputs.iter().any(|from| from.contains(&slot));
    !(is_needed || looked_at || given)
}

/// The pattern of every shape that fits one of the two.
fn join(left: &ShapePattern, right: &ShapePattern) -> ShapePattern {
    let (ShapePattern::Ranked(left), ShapePattern::Ranked(right)) = (left, right) else {
        return ShapePattern::AnyRank;
    };
    if left.len() != right.len() {
        return ShapePattern::AnyRank;
    }
    let both = left.iter().zip(right);
    ShapePattern::ranked(both.map(|(left, right)| match left == right {
        true => left.clone(),
        false => Dimension::Any,
    }))
}

/// A tensor of zeros, with one for each size that may vary.
fn sample((data_type, shape): &Kind) -> Option<Tensor> {
    let ShapePattern::Ranked(dimensions) = shape else { return None };
    let sizes: Vec<usize> = dimensions.iter().map(|size| size.size().unwrap_or(1)).collect();
    let shape = Shape::from(sizes.as_slice());
    // One element more than may be looked at says as much as all of them.
    let elements = shape.elements().filter(|&elements| elements <= elements::MOST_ELEMENTS);
    let Some(elements) = elements else {
        return Tensor::from_vec(
            [elements::MOST_ELEMENTS + 1],
            vec![0_u8; elements::MOST_ELEMENTS + 1],
        )
        .ok();
    };
    match data_type.size() {
        Some(size) => Tensor::from_bytes(*data_type, shape, vec![0; elements * size].into()).ok(),
        None => {
            let spans = vec![0..0; elements];
            let strings = Strings::from_spans(Vec::new().into(), spans)?;
            Tensor::from_strings(shape, strings).ok()
        }
    }
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
