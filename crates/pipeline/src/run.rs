//! One request on its way through a pipeline: which step is decided, started and given up, and when it is over.
//!
//! Pure: whoever carries it out tells what has happened and asks what to do next. The rules:
//!
//! - A step runs when its condition holds and everything that its model needs is there. If its condition does not
//!   hold, or something that its model needs will never be there, it does not run, and what it would give is
//!   missing.
//! - Where several tensors are named, the first that is there is taken. The next one is looked at once the one
//!   before is known to be missing.
//! - A step does not start while it may turn out not to be needed: what only feeds a step with a condition waits for
//!   the condition. A step that is declared `eager` starts as soon as it can. Either is given up once nobody can need
//!   it any more.
//! - A step that fails ends the request, but not before it is sure that the step is needed.
//!
//! Invariant: a step is started at most once, after everything that it looks at is known; and as long as the request
//! is not over, a step is running or there is something to do.

use crate::plan::{Plan, Slot};

/// What is known of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It has not started. Whether its condition holds, where that is known or it has none.
    Waiting {
        holds: Option<bool>,
    },
    Running,
    Answered,
    /// What it would give is missing.
    NotRun,
    Failed,
    /// It ran, and nobody needs it any more.
    GivenUp,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out whether a step's condition holds, and tell [`Run::decided`].
    Decide(usize),
    /// Ask a step's model, and tell [`Run::answered`] or [`Run::failed`].
    Start(usize),
    /// Give a step up that was started.
    GiveUp(usize),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With these outputs, in the order in which they were wanted.
    Answered(Vec<Slot>),
    /// This step failed, and was needed.
    Failed(usize),
}

/// How much somebody needs a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    #[default]
    Not,
    /// It depends on what is not known yet.
    Maybe,
    Sure,
}

/// What is known of a tensor.
enum Presence {
    There,
    Missing,
    /// It follows from what becomes of this step.
    Open(usize),
}

/// One request on its way.
#[derive(Clone, Debug)]
pub struct Run<'p> {
    plan: &'p Plan,
    /// Which inputs the request has.
    inputs: Vec<bool>,
    /// Positions of the outputs that are wanted.
    wanted: Vec<usize>,
    known: Vec<Known>,
}

impl Plan {
    /// Begins a request. `inputs` tells which of the inputs it has, `wanted` which outputs it wants.
    pub fn begin(&self, inputs: Vec<bool>, wanted: Vec<usize>) -> Run<'_> {
        let holds = |conditional: bool| if conditional { None } else { Some(true) };
        let waiting =
            self.steps.iter().map(|step| Known::Waiting { holds: holds(step.is_conditional) });
        let known = waiting.collect();
        Run { plan: self, inputs, wanted, known }
    }
}

impl Run<'_> {
    /// Notes whether a step's condition holds.
    pub fn decided(&mut self, step: usize, holds: bool) {
        debug_assert_eq!(self.known[step], Known::Waiting { holds: None }, "it was asked for");
        self.known[step] = Known::Waiting { holds: Some(holds) };
    }

    /// Notes that a step has answered.
    pub fn answered(&mut self, step: usize) {
        self.ended(step, Known::Answered);
    }

    /// Notes that a step has failed, or its condition has.
    pub fn failed(&mut self, step: usize) {
        self.ended(step, Known::Failed);
    }

    fn ended(&mut self, step: usize, known: Known) {
        if self.known[step] != Known::GivenUp {
            self.known[step] = known;
        }
    }

    /// Returns what is to be done now. What is to be started is noted as started.
    pub fn advance(&mut self) -> Vec<Action> {
        self.skip();
        let needs = self.needs();
        let mut actions = Vec::new();
        for (step, need) in needs.into_iter().enumerate() {
            match self.known[step] {
                Known::Running if need == Need::Not => {
                    self.known[step] = Known::GivenUp;
                    actions.push(Action::GiveUp(step));
                }
                Known::Waiting { holds } if self.may_begin(step, need) => match holds {
                    None if self.is_known(&self.plan.steps[step].looks_at) => {
                        actions.push(Action::Decide(step));
                    }
                    Some(true) if self.is_fed(step) => {
                        self.known[step] = Known::Running;
                        actions.push(Action::Start(step));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        actions
    }

    fn may_begin(&self, step: usize, need: Need) -> bool {
        need == Need::Sure || need == Need::Maybe && self.plan.steps[step].eager
    }

    /// Returns how the request ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        let needs = self.needs();
        let is_fatal =
            |&step: &usize| self.known[step] == Known::Failed && needs[step] == Need::Sure;
        if let Some(step) = (0..self.known.len()).find(is_fatal) {
            return Some(Outcome::Failed(step));
        }
        let outputs = self.wanted.iter().map(|&output| self.take(&self.plan.outputs[output]));
        outputs.collect::<Option<Vec<Slot>>>().map(Outcome::Answered)
    }

    /// Returns what is taken of several tensors, once that is known and there is one.
    pub fn take(&self, from: &[Slot]) -> Option<Slot> {
        for slot in from {
            match self.presence(*slot) {
                Presence::There => return Some(*slot),
                Presence::Missing => {}
                Presence::Open(_) => return None,
            }
        }
        None
    }

    fn presence(&self, slot: Slot) -> Presence {
        match slot {
            Slot::Input(index) if self.inputs[index] => Presence::There,
            Slot::Input(_) => Presence::Missing,
            Slot::Output { step, .. } => match self.known[step] {
                Known::Answered => Presence::There,
                Known::NotRun => Presence::Missing,
                // A step that failed has no answer and never will: who needs it fails with it.
                _ => Presence::Open(step),
            },
        }
    }

    /// Whether it is known of each tensor whether it is there.
    fn is_known(&self, slots: &[Slot]) -> bool {
        !slots.iter().any(|slot| matches!(self.presence(*slot), Presence::Open(_)))
    }

    /// Whether it is known what feeds each input of a step.
    fn is_fed(&self, step: usize) -> bool {
        let mut feeds = self.plan.steps[step].feeds.iter();
        feeds.all(|feed| self.take(&feed.from).is_some() || self.is_known(&feed.from))
    }

    /// Finds the steps that will not run.
    fn skip(&mut self) {
        for index in 0..self.plan.outline.order.len() {
            let step = self.plan.outline.order[index];
            let Known::Waiting { holds } = self.known[step] else { continue };
            let is_missing = |from: &[Slot]| {
                from.iter().all(|slot| matches!(self.presence(*slot), Presence::Missing))
            };
            let mut needed = self.plan.steps[step].feeds.iter().filter(|feed| !feed.optional);
            if holds == Some(false) || needed.any(|feed| is_missing(&feed.from)) {
                self.known[step] = Known::NotRun;
            }
        }
    }

    /// Finds which steps are sure to run, or have run.
    fn sure(&self) -> Vec<bool> {
        let mut sure = vec![false; self.known.len()];
        for &step in &self.plan.outline.order {
            sure[step] = match self.known[step] {
                Known::Running | Known::Answered | Known::Failed => true,
                Known::NotRun | Known::GivenUp => false,
                Known::Waiting { holds } => {
                    let mut needed =
                        self.plan.steps[step].feeds.iter().filter(|feed| !feed.optional);
                    holds == Some(true) && needed.all(|feed| self.is_sure(&feed.from, &sure))
                }
            };
        }
        sure
    }

    /// Whether one of several tensors is sure to be there.
    fn is_sure(&self, from: &[Slot], sure: &[bool]) -> bool {
        from.iter().any(|slot| match self.presence(*slot) {
            Presence::There => true,
            Presence::Missing => false,
            Presence::Open(step) => sure[step],
        })
    }

    /// Finds how much each step is needed.
    fn needs(&self) -> Vec<Need> {
        let sure = self.sure();
        let mut needs = vec![Need::Not; self.known.len()];
        for &output in &self.wanted {
            self.demand(&self.plan.outputs[output], Need::Sure, &sure, &mut needs);
        }
        for &step in self.plan.outline.order.iter().rev() {
            let Known::Waiting { holds } = self.known[step] else { continue };
            let (need, planned) = (needs[step], &self.plan.steps[step]);
            if need == Need::Not {
                continue;
            }
            if holds.is_none() {
                for slot in &planned.looks_at {
                    self.demand(&[*slot], need, &sure, &mut needs);
                }
            }
            let is_open = |from: &[Slot]| !self.is_sure(from, &sure);
            let mut needed = planned.feeds.iter().filter(|feed| !feed.optional);
            let may_be_missing = needed.any(|feed| is_open(&feed.from));
            for feed in &planned.feeds {
                // What may still turn out not to be needed waits for what tells.
                let waits =
                    holds.is_none() || may_be_missing && (feed.optional || !is_open(&feed.from));
                let need = if waits { need.min(Need::Maybe) } else { need };
                self.demand(&feed.from, need, &sure, &mut needs);
            }
        }
        needs
    }

    /// Notes that the first of several tensors that is there is needed.
    fn demand(&self, from: &[Slot], need: Need, sure: &[bool], needs: &mut [Need]) {
        let mut need = need;
        for slot in from {
            match self.presence(*slot) {
                Presence::There => return,
                Presence::Missing => {}
                Presence::Open(step) => {
                    needs[step] = needs[step].max(need);
                    if sure[step] {
                        return;
                    }
                    // Those behind are needed only if this one will be missing.
                    need = need.min(Need::Maybe);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
