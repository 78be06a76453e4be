//! A pipeline that has met its models: what it takes and gives as a whole, and what each step is asked.

use std::sync::Arc;

use outhaul_types::{DataType, Destination, Interface, ModelSignature, Name};

use crate::{Condition, Outline};

/// What is known of the model that a step asks.
#[derive(Clone, Copy, Debug)]
pub struct StepModel<'m> {
    /// What it takes and gives.
    pub signature: &'m ModelSignature,
    /// What that means.
    pub interface: &'m Interface,
}

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The request: the input of this position.
    Input(usize),
    /// A step's answer.
    Output {
        /// The step.
        step: usize,
        /// The position in [`PlannedStep::asks`].
        output: usize,
    },
}

/// What one input of a step's model is fed with.
#[derive(Clone, Debug, PartialEq)]
pub struct Feed {
    /// The input.
    pub input: Name,
    /// Where it comes from: the first that is there.
    pub from: Vec<Slot>,
    /// Whether the model does without it.
    pub optional: bool,
}

/// A step, and what is known of it once its model is.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// Its name.
    pub name: Name,
    /// Who is asked.
    pub model: Destination,
    /// What is sent.
    pub feeds: Vec<Feed>,
    /// The outputs that somebody looks at, and their type where the model is one of another server.
    pub asks: Vec<(Name, Option<DataType>)>,
    /// What its condition looks at, in the order of [`Condition::looks_at`].
    pub looks_at: Vec<Slot>,
    pub(crate) is_conditional: bool,
    pub(crate) eager: bool,
}

/// A pipeline that can run.
#[derive(Debug)]
pub struct Plan {
    pub(crate) outline: Arc<Outline>,
    pub(crate) signature: ModelSignature,
    pub(crate) interface: Interface,
    pub(crate) steps: Vec<PlannedStep>,
    /// Where each output is taken from.
    pub(crate) outputs: Vec<Vec<Slot>>,
}

impl Plan {
    /// Returns what the pipeline was made from.
    pub fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// Returns what the pipeline takes and gives.
    pub fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    /// Returns what that means.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Returns the steps.
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    /// Returns the condition of a step.
    pub fn condition(&self, step: usize) -> Option<&Condition> {
        self.outline.conditions[step].as_ref()
    }

    /// Finds what is there whatever the conditions decide.
    pub(crate) fn always(&self) -> Always {
        let inputs = self.signature.inputs.iter().map(|input| !input.optional).collect();
        let mut always = Always { inputs, steps: vec![false; self.steps.len()] };
        for &step in &self.outline.order {
            let planned = &self.steps[step];
            let mut feeds = planned.feeds.iter().filter(|feed| !feed.optional);
            let is_fed = feeds.all(|feed| feed.from.iter().any(|slot| always.of(*slot)));
            always.steps[step] = is_fed && !planned.is_conditional;
        }
        always
    }
}

/// What is there whatever the conditions decide.
pub(crate) struct Always {
    inputs: Vec<bool>,
    steps: Vec<bool>,
}

impl Always {
    pub(crate) fn of(&self, slot: Slot) -> bool {
        match slot {
            Slot::Input(index) => self.inputs[index],
            Slot::Output { step, .. } => self.steps[step],
        }
    }
}
