//! Pipelines of models as data: what is declared, whether it fits, and what to do next for a request.
//!
//! ```text
//! PipelineSpec --Outline::of--> Outline --check, with the models--> Plan --begin--> Run --advance--> Action
//!  (as declared)  names, cycles,          types, shapes, what may           decide, start,
//!                 conditions              be missing                        give up a step
//! ```
//!
//! Invariant: a [`Plan`] always comes to an end: every request that its signature takes is answered with every output
//! that it names, or fails with a step that failed. What a user declared wrong is a [`Fault`] before the first
//! request, and all faults are told at once.
//!
//! Pure: no model, no file and no clock is known here. `repository` reads `pipeline.toml`, `router` asks the models.

mod check;
mod condition;
mod elements;
mod meaning;
mod outline;
mod plan;
mod run;
mod spec;

pub use condition::{Condition, ConditionError, LONGEST};
pub use elements::{MOST_BYTES, MOST_ELEMENTS, TooMuch};
pub use outline::{MOST_STEPS, Outline};
pub use plan::{Feed, Plan, PlannedStep, Slot, StepModel};
pub use run::{Action, Outcome, Run};
pub use spec::{Fault, OutputSpec, PipelineSpec, Reference, StepSpec, TensorDecl};
