//! What can be known of a pipeline before its models are: which step needs which, in which order, and that no step
//! waits for itself.

use std::collections::BTreeSet;

use outhaul_types::{Destination, Name};

use crate::spec::{OutputSpec, StepSpec, TensorDecl};
use crate::{Condition, Fault, PipelineSpec, Reference};

/// The most steps of one pipeline.
pub const MOST_STEPS: usize = 256;

/// Words that mean something else in an expression.
const RESERVED: &[&str] = &["true", "false", "null", "in"];

/// A pipeline whose steps fit together by their names. See [`Outline::check`] for their tensors.
#[derive(Debug)]
pub struct Outline {
    pub(crate) spec: PipelineSpec,
    /// The names of its inputs: as declared, else in the order in which steps take them.
    pub(crate) inputs: Vec<Name>,
    /// One for each step that has a condition.
    pub(crate) conditions: Vec<Option<Condition>>,
    /// The steps, each after all that it needs.
    pub(crate) order: Vec<usize>,
}

impl Outline {
    /// Checks what is declared.
    ///
    /// # Errors
    ///
    /// Fails with everything that is wrong.
    pub fn of(spec: PipelineSpec) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        counts(&spec, &mut faults);
        names(&spec, &mut faults);
        let conditions = conditions(&spec, &mut faults);
        let inputs = inputs(&spec);
        references(&spec, &conditions, &inputs, &mut faults);
        let order = match order(&spec, &conditions) {
            Ok(order) => order,
            Err(path) => {
                let steps: Vec<&str> = path.iter().map(|&step| &*spec.steps[step].name).collect();
                let key = format!("steps.{}", steps.first().copied().unwrap_or_default());
                let rule = format!("the steps wait for each other: {}", steps.join(" -> "));
                faults.push(Fault::new(key, rule, "let one of them do without the other"));
                Vec::new()
            }
        };
        if faults.is_empty() {
            unused(&spec, &conditions, &order, &mut faults);
        }
        match faults.is_empty() {
            true => Ok(Outline { spec, inputs, conditions, order }),
            false => Err(faults),
        }
    }

    /// Returns what was declared.
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Returns who is asked by each step.
    pub fn models(&self) -> impl Iterator<Item = &Destination> {
        self.spec.steps.iter().map(|step| &step.model)
    }
}

/// Everything that a step looks at: what feeds its inputs, and what its condition is about.
pub(crate) fn needs<'s>(
    step: &'s StepSpec,
    condition: Option<&'s Condition>,
) -> impl Iterator<Item = &'s Reference> {
    let fed = step.inputs.iter().flat_map(|(_, from)| from);
    fed.chain(condition.into_iter().flat_map(Condition::looks_at))
}

/// The index of the step that a reference leads to.
pub(crate) fn step_of(spec: &PipelineSpec, reference: &Reference) -> Option<usize> {
    match reference {
        Reference::Input(_) => None,
        Reference::Output { step, .. } => spec.steps.iter().position(|other| other.name == *step),
    }
}

fn counts(spec: &PipelineSpec, faults: &mut Vec<Fault>) {
    if spec.steps.is_empty() {
        faults.push(Fault::new("steps", "a pipeline needs a step", "write a [[steps]]"));
    }
    if spec.steps.len() > MOST_STEPS {
        let rule = format!("a pipeline has at most {MOST_STEPS} steps");
        faults.push(Fault::new("steps", rule, "let a step ask another pipeline"));
    }
    if spec.outputs.is_empty() {
        let remedy = "write NAME = \"STEP.OUTPUT\" below [outputs]";
        faults.push(Fault::new("outputs", "a pipeline needs an output", remedy));
    }
    let takes = spec.steps.iter().flat_map(|step| {
        step.inputs
            .iter()
            .map(move |(input, from)| (format!("steps.{}.inputs.{input}", step.name), from))
    });
    let gives =
        spec.outputs.iter().map(|output| (format!("outputs.{}", output.name), &output.from));
    for (key, _) in takes.chain(gives).filter(|(_, from)| from.is_empty()) {
        faults.push(Fault::new(key, "must be fed by something", "write INPUT or STEP.OUTPUT"));
    }
}

fn names(spec: &PipelineSpec, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for step in &spec.steps {
        let key = format!("steps.{}", step.name);
        if !is_word(&step.name) {
            let rule = "must be a word of letters, digits and '_' that does not begin with a digit";
            faults.push(Fault::new(&key, rule, "rename the step"));
        }
        if !seen.insert(&step.name) {
            faults.push(Fault::new(&key, "there are two steps of this name", "rename one"));
        }
        twice(&format!("{key}.inputs"), step.inputs.iter().map(|(name, _)| name), faults);
        twice(&format!("{key}.outputs"), step.outputs.iter().map(|output| &output.name), faults);
    }
    twice("inputs", spec.inputs.iter().map(|input| &input.name), faults);
    twice("outputs", spec.outputs.iter().map(|output| &output.name), faults);
}

fn twice<'n>(key: &str, names: impl Iterator<Item = &'n Name>, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) {
            faults.push(Fault::new(
                format!("{key}.{name}"),
                "must be a name of its own",
                "rename it",
            ));
        }
    }
}

fn is_word(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let allowed = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    begins && allowed && !RESERVED.contains(&name)
}

fn conditions(spec: &PipelineSpec, faults: &mut Vec<Fault>) -> Vec<Option<Condition>> {
    let steps: Vec<&str> = spec.steps.iter().map(|step| &*step.name).collect();
    let mut read = |step: &StepSpec| match Condition::parse(step.when.as_deref()?, &steps) {
        Ok(condition) => Some(condition),
        Err(mistakes) => {
            let key = format!("steps.{}.when", step.name);
            let remedy = "write as in \"STEP.OUTPUT[0] < 0.8\"";
            faults.extend(mistakes.into_iter().map(|rule| Fault::new(&key, rule, remedy)));
            None
        }
    };
    spec.steps.iter().map(&mut read).collect()
}

/// The names of the inputs, in order. What a condition alone looks at must be declared: nobody else tells its
/// type.
fn inputs(spec: &PipelineSpec) -> Vec<Name> {
    let mut inputs: Vec<Name> = spec.inputs.iter().map(|input| input.name.clone()).collect();
    if !inputs.is_empty() {
        return inputs;
    }
    let fed = spec.steps.iter().flat_map(|step| needs(step, None));
    let given = spec.outputs.iter().flat_map(|output| &output.from);
    for reference in fed.chain(given) {
        if let Reference::Input(name) = reference
            && !inputs.contains(name)
        {
            inputs.push(name.clone());
        }
    }
    inputs
}

fn references(
    spec: &PipelineSpec,
    conditions: &[Option<Condition>],
    inputs: &[Name],
    faults: &mut Vec<Fault>,
) {
    let check = |key: String, reference: &Reference, faults: &mut Vec<Fault>| match reference {
        Reference::Input(name) if !inputs.contains(name) => {
            let rule = format!("'{name}' is no input of the pipeline");
            faults.push(Fault::new(key, rule, known("the inputs are", inputs)));
        }
        Reference::Output { step, .. } if step_of(spec, reference).is_none() => {
            let steps: Vec<Name> = spec.steps.iter().map(|step| step.name.clone()).collect();
            let rule = format!("there is no step '{step}'");
            faults.push(Fault::new(key, rule, known("the steps are", &steps)));
        }
        _ => {}
    };
    for (step, condition) in spec.steps.iter().zip(conditions) {
        for (input, from) in &step.inputs {
            let key = || format!("steps.{}.inputs.{input}", step.name);
            from.iter().for_each(|reference| check(key(), reference, faults));
        }
        for reference in condition.iter().flat_map(Condition::looks_at) {
            check(format!("steps.{}.when", step.name), reference, faults);
        }
    }
    for OutputSpec { name, from } in &spec.outputs {
        from.iter().for_each(|reference| check(format!("outputs.{name}"), reference, faults));
    }
    for TensorDecl { name, .. } in &spec.inputs {
        if spec.steps.iter().any(|step| step.name == *name) {
            let rule = "an input and a step have one name";
            faults.push(Fault::new(format!("inputs.{name}"), rule, "rename one of the two"));
        }
    }
}

fn known(what: &str, names: &[Name]) -> String {
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    format!("{what} {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
}

/// Puts each step behind all that it needs, else returns steps that wait for each other in a circle.
fn order(spec: &PipelineSpec, conditions: &[Option<Condition>]) -> Result<Vec<usize>, Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    fn visit(
        step: usize,
        needed: &[Vec<usize>],
        marks: &mut [Mark],
        (path, order): (&mut Vec<usize>, &mut Vec<usize>),
    ) -> Result<(), Vec<usize>> {
        match marks[step] {
            Mark::Done => return Ok(()),
            Mark::OnPath => {
                let begin = path.iter().position(|&other| other == step).unwrap_or_default();
                return Err([&path[begin..], &[step]].concat());
            }
            Mark::New => {}
        }
        marks[step] = Mark::OnPath;
        path.push(step);
        for &other in &needed[step] {
            visit(other, needed, marks, (path, order))?;
        }
        path.pop();
        marks[step] = Mark::Done;
        order.push(step);
        Ok(())
    }
    let needed = |(step, condition): (&StepSpec, &Option<Condition>)| {
        needs(step, condition.as_ref()).filter_map(|other| step_of(spec, other)).collect()
    };
    let needed: Vec<Vec<usize>> = spec.steps.iter().zip(conditions).map(needed).collect();
    let mut marks = vec![Mark::New; spec.steps.len()];
    let (mut path, mut order) = (Vec::new(), Vec::new());
    // The number of steps is bounded, and so is the depth of this.
    for step in 0..spec.steps.len().min(MOST_STEPS) {
        visit(step, &needed, &mut marks, (&mut path, &mut order))?;
    }
    Ok(order)
}

/// A step that nobody looks at never runs: somebody has forgotten something.
fn unused(
    spec: &PipelineSpec,
    conditions: &[Option<Condition>],
    order: &[usize],
    faults: &mut Vec<Fault>,
) {
    let given = spec.outputs.iter().flat_map(|output| &output.from);
    let mut used: BTreeSet<usize> = given.filter_map(|from| step_of(spec, from)).collect();
    for &step in order.iter().rev() {
        if used.contains(&step) {
            let needed = needs(&spec.steps[step], conditions[step].as_ref());
            used.extend(needed.filter_map(|other| step_of(spec, other)));
        }
    }
    for (_, step) in spec.steps.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
        let rule = "nobody takes what this step gives";
        let remedy = "name it in [outputs] or in another step, or remove it";
        faults.push(Fault::new(format!("steps.{}", step.name), rule, remedy));
    }
}

#[cfg(test)]
mod tests;
