//! What a user declares of a pipeline, before anything of it is checked.

use std::time::Duration;

use outhaul_types::{DataType, Destination, LimitsSpec, Name, ShapePattern};

/// A pipeline as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineSpec {
    /// The longest that a request may take from arrival to answer. Callers can only shorten it.
    pub timeout: Duration,
    /// What is declared of its inputs. Empty means that its inputs are whatever the steps take from it.
    pub inputs: Vec<TensorDecl>,
    /// The models that it asks.
    pub steps: Vec<StepSpec>,
    /// What it answers.
    pub outputs: Vec<OutputSpec>,
}

impl Default for PipelineSpec {
    fn default() -> Self {
        PipelineSpec {
            timeout: LimitsSpec::default().timeout,
            inputs: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

/// What is declared of a tensor. What is left out follows from the models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDecl {
    /// Its name.
    pub name: Name,
    /// The type of its elements.
    pub data_type: Option<DataType>,
    /// The shapes that it may have.
    pub shape: Option<ShapePattern>,
}

/// One request to one model.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Its name, by which others refer to its outputs.
    pub name: Name,
    /// Who is asked.
    pub model: Destination,
    /// The condition on which it runs, an expression of CEL. Default: always.
    pub when: Option<String>,
    /// Whether it starts while it is still open whether anybody needs it. Default: no.
    pub eager: bool,
    /// What each of the model's inputs is fed with: the first that is there.
    pub inputs: Vec<(Name, Vec<Reference>)>,
    /// What the model answers. Needed where it is one of another server, of which nothing else is known.
    pub outputs: Vec<TensorDecl>,
}

/// One output of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name.
    pub name: Name,
    /// Where it is taken from: the first that is there.
    pub from: Vec<Reference>,
}

/// A tensor that a request brought or a step answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An input of the pipeline.
    Input(Name),
    /// An output of a step.
    Output {
        /// The step.
        step: Name,
        /// The output of its model.
        output: Name,
    },
}

impl Reference {
    /// Reads `INPUT` or `STEP.OUTPUT`. A declared input whose name has a dot comes first.
    pub fn parse(text: &str, declared: &[TensorDecl]) -> Self {
        let is_declared = declared.iter().any(|input| input.name == text);
        match text.split_once('.') {
            Some((step, output)) if !is_declared => {
                Reference::Output { step: step.into(), output: output.into() }
            }
            _ => Reference::Input(text.into()),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reference::Input(name) => f.write_str(name),
            Reference::Output { step, output } => write!(f, "{step}.{output}"),
        }
    }
}

/// Something wrong with a pipeline: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}; {remedy}")]
pub struct Fault {
    /// The place in the declaration, such as `steps.slow.when`.
    pub key: String,
    /// The rule that is broken.
    pub rule: String,
    /// What to do about it.
    pub remedy: String,
}

impl Fault {
    pub(crate) fn new(
        key: impl Into<String>,
        rule: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Fault { key: key.into(), rule: rule.into(), remedy: remedy.into() }
    }
}
