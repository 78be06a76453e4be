//! What became of predictions: outcomes that callers report later, joined by the request's id.

use serde::{Deserialize, Serialize};

use crate::{ModelName, Name};

/// What somebody found out about one prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// The id of the request that the prediction answered.
    pub id: Name,
    /// The route that made it. Default: each route that answered a request of this id.
    pub route: Option<ModelName>,
    /// What was found out.
    pub outcome: Outcome,
}

/// What was found out about a prediction.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// How good it was, from 0 to 1.
    Reward(f64),
    /// What it should have been. The reward is 1 where the prediction was this, else 0.
    Label(Name),
}

/// What became of a call of feedback. Each item is counted in exactly one of the four.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackAnswer {
    /// Outcomes that were joined to predictions that had none.
    pub joined: u64,
    /// Outcomes that took the place of different ones.
    pub replaced: u64,
    /// Ids that had this very outcome already, from an earlier call or from earlier in this one.
    pub duplicate: Vec<Name>,
    /// Ids that no remembered prediction has, or whose prediction has no label to compare with.
    pub unknown: Vec<Name>,
}
