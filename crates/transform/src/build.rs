//! From a declaration and the model's signature to a transform.

use outhaul_types::{
    Field, InputTransform, Interface, ModelSignature, OutputTransform, Task, TensorSpec,
    TransformSpec,
};

use crate::image::ImageSide;
use crate::output::{self, Context};
use crate::rows::RowsSide;
use crate::text::TextSide;
use crate::{BuildError, InputSide, OutputSide, Transform};

/// A side of a transform and what callers see of it.
pub(crate) struct Built<S: ?Sized> {
    pub(crate) side: Box<S>,
    /// The outer inputs or outputs.
    pub(crate) specs: Vec<TensorSpec>,
    /// What they mean, in the same order.
    pub(crate) fields: Vec<Field>,
}

pub(crate) fn build(spec: &TransformSpec, inner: &ModelSignature) -> Result<Transform, BuildError> {
    // The output side needs to know the tokenizer (mask token) and says what the input side must keep.
    let text = match &spec.input {
        Some(InputTransform::Text(text)) => Some(TextSide::read(text)?),
        Some(InputTransform::Image(_) | InputTransform::Rows(_)) | None => None,
    };
    let tokenizer = text.as_ref().map(TextSide::tokenizer);
    let output = match &spec.output {
        Some(declared) => Some(output::build(declared, &Context { inner, tokenizer })?),
        None => None,
    };
    let needs_encodings = output.as_ref().is_some_and(|output| output.side.needs_encodings());
    let input: Option<Built<dyn InputSide>> = match (&spec.input, text) {
        (Some(InputTransform::Text(_)), Some(text)) => {
            Some(text.fit(inner, spec.output.as_ref(), needs_encodings)?)
        }
        (Some(InputTransform::Image(image)), _) => Some(ImageSide::build(image, inner)?),
        (Some(InputTransform::Rows(rows)), _) => Some(RowsSide::build(rows, inner)?),
        (Some(InputTransform::Text(_)) | None, _) => None,
    };
    Ok(join(inner, task(spec), input, output))
}

fn join(
    inner: &ModelSignature,
    task: Task,
    input: Option<Built<dyn InputSide>>,
    output: Option<Built<dyn OutputSide>>,
) -> Transform {
    let tensors = Interface::of_tensors(inner);
    let (input, inputs, input_fields) = match input {
        Some(built) => (Some(built.side), built.specs, built.fields),
        None => (None, inner.inputs.clone(), tensors.inputs),
    };
    let (output, outputs, output_fields) = match output {
        Some(built) => (Some(built.side), built.specs, built.fields),
        None => (None, inner.outputs.clone(), tensors.outputs),
    };
    let interface = Interface {
        task,
        inputs: input_fields,
        outputs: output_fields,
        inner: Some(inner.clone()),
        sample: None,
    };
    Transform { input, output, outer: ModelSignature { inputs, outputs }, interface }
}

fn task(spec: &TransformSpec) -> Task {
    match &spec.output {
        Some(OutputTransform::Embedding(_)) => Task::Embedding,
        Some(OutputTransform::Classification(_)) => Task::Classification,
        Some(OutputTransform::TokenClassification(_)) => Task::TokenClassification,
        Some(OutputTransform::Rerank(_)) => Task::Rerank,
        Some(OutputTransform::FillMask(_)) => Task::FillMask,
        Some(OutputTransform::Regression(_)) => Task::Regression,
        Some(OutputTransform::Tensors(_)) | None => Task::Tensors,
    }
}
