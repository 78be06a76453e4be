//! What a pipeline's inputs and outputs mean: what they mean to the models that take and give them.

use outhaul_types::{Field, Interface, Task};

use crate::plan::{Plan, Slot, StepModel};

pub(crate) fn interface(plan: &Plan, models: &[Option<StepModel<'_>>]) -> Interface {
    let inputs = (0..plan.signature.inputs.len()).map(|input| taken_as(plan, models, input));
    let outputs = plan.outputs.iter().map(|from| given_as(plan, models, from));
    Interface {
        task: task(plan, models),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        inner: None,
        sample: sample(plan, models),
    }
}

/// What the models say of an input that it feeds, where they agree.
fn taken_as(plan: &Plan, models: &[Option<StepModel<'_>>], input: usize) -> Field {
    let fields = plan.steps.iter().zip(models).flat_map(|(step, model)| {
        let fed = step.feeds.iter().filter(|feed| feed.from.contains(&Slot::Input(input)));
        fed.map(move |feed| {
            let model = model.as_ref()?;
            let index = model.signature.input_index(&feed.input)?;
            model.interface.inputs.get(index)
        })
    });
    agreed(fields)
}

fn given_as(plan: &Plan, models: &[Option<StepModel<'_>>], from: &[Slot]) -> Field {
    let fields = from.iter().map(|slot| {
        let Slot::Output { step, output } = *slot else { return None };
        let model = models[step].as_ref()?;
        let index = model.signature.output_index(&plan.steps[step].asks[output].0)?;
        model.interface.outputs.get(index)
    });
    agreed(fields)
}

fn agreed<'f>(fields: impl Iterator<Item = Option<&'f Field>>) -> Field {
    let mut fields = fields.map(|field| field.cloned().unwrap_or_default());
    let first = fields.next().unwrap_or_default();
    if fields.all(|field| field == first) { first } else { Field::default() }
}

/// The task of the models that answer, where they have one task and the pipeline gives just what they give.
fn task(plan: &Plan, models: &[Option<StepModel<'_>>]) -> Task {
    let mut tasks = plan.outputs.iter().enumerate().flat_map(|(position, from)| {
        from.iter().map(move |slot| {
            let Slot::Output { step, output } = *slot else { return None };
            let model = models[step].as_ref()?;
            let index = model.signature.output_index(&plan.steps[step].asks[output].0)?;
            let is_whole = model.signature.outputs.len() == plan.outputs.len();
            (index == position && is_whole).then_some(model.interface.task)
        })
    });
    let Some(Some(first)) = tasks.next() else { return Task::default() };
    if tasks.all(|task| task == Some(first)) { first } else { Task::default() }
}

/// The sample of a model that takes all that the pipeline takes, under the same names.
fn sample(plan: &Plan, models: &[Option<StepModel<'_>>]) -> Option<std::sync::Arc<str>> {
    let names = |step: usize, model: &StepModel<'_>| {
        let inputs = &plan.signature.inputs;
        let feeds = &plan.steps[step].feeds;
        let is_same = |(index, input): (usize, &outhaul_types::TensorSpec)| {
            let same = |feed: &&crate::Feed| feed.input == input.name;
            feeds.iter().find(same).is_some_and(|feed| feed.from == [Slot::Input(index)])
        };
        model.signature.inputs.len() == inputs.len() && inputs.iter().enumerate().all(is_same)
    };
    let models =
        models.iter().enumerate().filter_map(|(step, model)| Some((step, model.as_ref()?)));
    let mut same = models.filter(|(step, model)| names(*step, model));
    same.find_map(|(_, model)| model.interface.sample.clone())
}
