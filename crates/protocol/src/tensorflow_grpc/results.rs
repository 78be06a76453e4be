//! Answers in the forms of `Classify` and `Regress`: where in a model's outputs they lie, and their
//! messages.

use std::sync::Arc;

use outhaul_types::{
    Content, DataType, Dimension, InferResponse, Name, ShapePattern, Task as Does, Tensor,
    TensorSpec,
};

use super::TensorFlowError;
use super::pb::serving::inference_result::Result as Written;
use super::pb::serving::{
    Class, ClassificationResult, Classifications, InferenceResult, InferenceTask, Regression,
    RegressionResult,
};
use super::predict::{model_spec, read_spec};
use crate::Schema;
use crate::error::excerpt;
use crate::oip::Target;

/// A form that examples are answered in.
pub trait Form {
    /// The message of the answer.
    type Written;

    /// Returns the outputs that it needs.
    fn outputs(&self) -> Vec<&Name>;

    /// Writes the answer to a request of so many rows.
    ///
    /// # Errors
    ///
    /// Fails where the answer does not have as many rows as the request.
    fn write(
        &self,
        response: &InferResponse,
        rows: usize,
    ) -> Result<Self::Written, TensorFlowError>;
}

/// Where a classifier's classes lie.
#[derive(Clone, Debug)]
pub struct Classes {
    scores: Name,
    labels: ClassLabels,
}

#[derive(Clone, Debug)]
enum ClassLabels {
    /// In another output of the same shape as the scores.
    Output(Name),
    /// In the order of the scores' columns; `None` where classes are called by their numbers.
    Columns(Option<Arc<[String]>>),
}

impl Classes {
    /// Finds them: the best few with their labels where the model is declared to give those, else the
    /// scores of all classes, else the best one.
    ///
    /// # Errors
    ///
    /// Fails where the model is no classifier.
    pub fn find(model: &Schema<'_>) -> Result<Self, TensorFlowError> {
        let task = model.interface.task;
        let outputs = || model.signature.outputs.iter().zip(&model.interface.outputs);
        let label = outputs().find(|(_, field)| field.content == Content::Label);
        let beside_label = label.and_then(|(label, _)| {
            let beside = |spec: &TensorSpec| rank(spec) == rank(label);
            let mut scores = outputs().filter(|(_, field)| field.content == Content::Score);
            let (scores, _) = scores.find(|(spec, _)| beside(spec))?;
            let labels = ClassLabels::Output(label.name.clone());
            Some((rank(label), Classes { scores: scores.name.clone(), labels }))
        });
        let of_all = outputs().find_map(|(spec, field)| {
            let labels = ClassLabels::Columns(field.choices.clone());
            let is_scores = field.content == Content::Score && rank(spec) == Some(2);
            is_scores.then(|| Classes { scores: spec.name.clone(), labels })
        });
        let found = match beside_label {
            Some((Some(2), best)) => Some(best),
            one => of_all.or(one.map(|(_, best)| best)),
        };
        found.filter(|_| task == Does::Classification).ok_or_else(|| {
            TensorFlowError::NotAClassifier { model: model.name.to_owned(), task: task.as_str() }
        })
    }
}

impl Form for Classes {
    type Written = ClassificationResult;

    fn outputs(&self) -> Vec<&Name> {
        match &self.labels {
            ClassLabels::Output(labels) => vec![&self.scores, labels],
            ClassLabels::Columns(_) => vec![&self.scores],
        }
    }

    fn write(
        &self,
        response: &InferResponse,
        rows: usize,
    ) -> Result<ClassificationResult, TensorFlowError> {
        let scores = output(response, &self.scores)?;
        let numbers = numbers(scores, rows)?;
        let columns = scores.len().checked_div(rows).unwrap_or(0);
        let labels =
            match &self.labels {
                ClassLabels::Columns(_) => None,
                ClassLabels::Output(name) => {
                    let strings = output(response, name)?.as_strings();
                    Some(strings.filter(|strings| strings.len() == numbers.len()).ok_or_else(
                        || TensorFlowError::WrongRows { expected: rows, received: 0 },
                    )?)
                }
            };
        let label = |index: usize| match (&self.labels, labels) {
            (_, Some(labels)) => {
                String::from_utf8_lossy(labels.get(index).unwrap_or_default()).into_owned()
            }
            (ClassLabels::Columns(choices), None) => {
                let column = index.checked_rem(columns).unwrap_or(0);
                let choice = choices.as_ref().and_then(|choices| choices.get(column));
                choice.cloned().unwrap_or_else(|| column.to_string())
            }
            (ClassLabels::Output(_), None) => String::new(),
        };
        let class = |index: usize| Class { label: label(index), score: numbers[index] };
        let row = |row: usize| Classifications {
            classes: (row * columns..(row + 1) * columns).map(class).collect(),
        };
        Ok(ClassificationResult { classifications: (0..rows).map(row).collect() })
    }
}

/// Where a regression's value lies.
#[derive(Clone, Debug)]
pub struct Value {
    output: Name,
}

impl Value {
    /// Finds it: the first output of floats with one number a row.
    ///
    /// # Errors
    ///
    /// Fails where the model is no regression (a reranker's score counts as one).
    pub fn find(model: &Schema<'_>) -> Result<Self, TensorFlowError> {
        let task = model.interface.task;
        let one_a_row = |spec: &&TensorSpec| {
            spec.data_type.is_float()
                && match &spec.shape {
                    ShapePattern::AnyRank => false,
                    ShapePattern::Ranked(dimensions) => {
                        matches!(&dimensions[..], [_] | [_, Dimension::Fixed(1)])
                    }
                }
        };
        let found = model.signature.outputs.iter().find(one_a_row);
        let found = found.filter(|_| matches!(task, Does::Regression | Does::Rerank));
        let found = found.map(|spec| Value { output: spec.name.clone() });
        found.ok_or_else(|| TensorFlowError::NotARegression {
            model: model.name.to_owned(),
            task: task.as_str(),
        })
    }
}

impl Form for Value {
    type Written = RegressionResult;

    fn outputs(&self) -> Vec<&Name> {
        vec![&self.output]
    }

    fn write(
        &self,
        response: &InferResponse,
        rows: usize,
    ) -> Result<RegressionResult, TensorFlowError> {
        let values = numbers(output(response, &self.output)?, rows)?;
        let regressions = values.into_iter().map(|value| Regression { value }).collect();
        Ok(RegressionResult { regressions })
    }
}

/// The forms of the tasks of `MultiInference`.
#[derive(Clone, Debug)]
pub struct Tasks(Vec<Task>);

#[derive(Clone, Debug)]
enum Task {
    Classify(Classes),
    Regress(Value),
}

impl Tasks {
    /// Returns the model that all tasks ask.
    ///
    /// # Errors
    ///
    /// Fails where there are no tasks, or they ask different models.
    pub fn target(tasks: &[InferenceTask]) -> Result<Target, TensorFlowError> {
        let mut targets = tasks.iter().map(|task| read_spec(task.model_spec.clone()));
        let first = targets.next().ok_or(TensorFlowError::NoTasks)??;
        for (index, target) in targets.enumerate() {
            if target? != first {
                return Err(TensorFlowError::ModelsDiffer { index: index + 1 });
            }
        }
        Ok(first)
    }

    /// Finds the form of each task.
    ///
    /// # Errors
    ///
    /// Fails where there is no such form, or the model has no answer in it.
    pub fn find(tasks: &[InferenceTask], model: &Schema<'_>) -> Result<Self, TensorFlowError> {
        let form = |(index, task): (usize, &InferenceTask)| match task.method_name.as_str() {
            "tensorflow/serving/classify" => Classes::find(model).map(Task::Classify),
            "tensorflow/serving/regress" => Value::find(model).map(Task::Regress),
            other => {
                let received = excerpt(other);
                Err(TensorFlowError::UnknownMethod { index, received })
            }
        };
        tasks.iter().enumerate().map(form).collect::<Result<_, _>>().map(Tasks)
    }
}

impl Form for Tasks {
    type Written = Vec<InferenceResult>;

    fn outputs(&self) -> Vec<&Name> {
        let mut outputs = Vec::new();
        for task in &self.0 {
            let needed = match task {
                Task::Classify(classes) => classes.outputs(),
                Task::Regress(value) => value.outputs(),
            };
            let new = needed.into_iter().filter(|name| !outputs.contains(name));
            let new: Vec<&Name> = new.collect();
            outputs.extend(new);
        }
        outputs
    }

    fn write(
        &self,
        response: &InferResponse,
        rows: usize,
    ) -> Result<Vec<InferenceResult>, TensorFlowError> {
        let result = |task: &Task| {
            let written = match task {
                Task::Classify(form) => Written::ClassificationResult(form.write(response, rows)?),
                Task::Regress(form) => Written::RegressionResult(form.write(response, rows)?),
            };
            let spec = model_spec(response.model.as_str(), response.version);
            Ok(InferenceResult { model_spec: Some(spec), result: Some(written) })
        };
        self.0.iter().map(result).collect()
    }
}

fn rank(spec: &TensorSpec) -> Option<usize> {
    match &spec.shape {
        ShapePattern::AnyRank => None,
        ShapePattern::Ranked(dimensions) => Some(dimensions.len()),
    }
}

fn output<'a>(response: &'a InferResponse, name: &str) -> Result<&'a Tensor, TensorFlowError> {
    response.output(name).ok_or(TensorFlowError::WrongRows { expected: 1, received: 0 })
}

/// Returns an output's numbers, after checking that they are `rows` rows.
fn numbers(tensor: &Tensor, rows: usize) -> Result<Vec<f32>, TensorFlowError> {
    let received = tensor.shape().rows().unwrap_or(0);
    if received != rows {
        return Err(TensorFlowError::WrongRows { expected: rows, received });
    }
    let numbers = match tensor.data_type() {
        DataType::Fp32 => tensor.elements_of::<f32>().map(|numbers| numbers.into_owned()),
        DataType::Fp64 => {
            let numbers = tensor.elements_of::<f64>();
            numbers.map(|numbers| numbers.iter().map(|&number| number as f32).collect())
        }
        DataType::Fp16 => {
            let numbers = tensor.elements_of::<half::f16>();
            numbers.map(|numbers| numbers.iter().map(|number| number.to_f32()).collect())
        }
        DataType::Bf16 => {
            let numbers = tensor.elements_of::<half::bf16>();
            numbers.map(|numbers| numbers.iter().map(|number| number.to_f32()).collect())
        }
        _ => None,
    };
    Ok(numbers.unwrap_or_default())
}
