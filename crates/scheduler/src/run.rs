//! One batch: join the inputs, run the session, part the outputs, answer every caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use outhaul_engine::{LoadedModel, Session};
use outhaul_types::{BoundInputs, Tensor, Tensors, Timings};

use crate::QueueError;

/// A model's answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// All outputs, in the signature's order.
    pub outputs: Tensors,
    /// How the time was spent.
    pub timings: Timings,
}

/// Runs a session, opened first where `slot` is empty, turning a panic into an error. After a panic
/// the session is dropped and `slot` left empty; the next run opens a new one.
pub(crate) fn run_guarded(
    model: &dyn LoadedModel,
    slot: &mut Option<Box<dyn Session>>,
    inputs: &BoundInputs,
) -> Result<Tensors, QueueError> {
    let run = || -> Result<Tensors, QueueError> {
        let session = match slot {
            Some(session) => session,
            None => slot.insert(model.session().map_err(|error| QueueError::NoSession {
                reason: outhaul_types::error_chain(&error),
            })?),
        };
        Ok(session.run(inputs)?)
    };
    // Nothing that the closure may leave half-changed is used again: the session is thrown away.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            *slot = None;
            Err(QueueError::Panicked { message: panic_message(panic.as_ref()) })
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The outcome of one engine run, before it is parted.
pub(crate) struct BatchRun {
    pub(crate) outputs: Tensors,
    pub(crate) assemble: Duration,
    pub(crate) compute: Duration,
}

/// Joins the inputs of several requests and runs them as one. The requests fit each other: same
/// inputs present, same shapes but for the rows.
pub(crate) fn run_together(
    model: &dyn LoadedModel,
    slot: &mut Option<Box<dyn Session>>,
    requests: &[&BoundInputs],
) -> Result<BatchRun, QueueError> {
    let started = Instant::now();
    let mut joined = BoundInputs::new();
    for index in 0..requests[0].len() {
        let parts: Vec<&Tensor> =
            requests.iter().filter_map(|inputs| inputs[index].as_ref()).collect();
        let tensor = match parts.is_empty() {
            true => None,
            false => Some(Tensor::concatenate_rows(&parts).map_err(|error| {
                QueueError::BadAnswer { reason: format!("inputs that cannot be joined: {error}") }
            })?),
        };
        joined.push(tensor);
    }
    let assembled = Instant::now();
    let outputs = run_guarded(model, slot, &joined)?;
    Ok(BatchRun { outputs, assemble: assembled - started, compute: assembled.elapsed() })
}

/// Parts the outputs of a batch by the rows of its requests.
///
/// # Errors
///
/// Fails where an output does not have one row for each row that went in.
pub(crate) fn part(outputs: &Tensors, rows: &[usize]) -> Result<Vec<Tensors>, QueueError> {
    let total: usize = rows.iter().sum();
    if let Some(odd) = outputs.iter().find(|output| output.shape().rows() != Some(total)) {
        let reason = format!("shape {} for a batch of {total} rows", odd.shape());
        return Err(QueueError::BadAnswer { reason });
    }
    let mut start = 0;
    Ok(rows
        .iter()
        .map(|&count| {
            let range = start..start + count;
            start = range.end;
            outputs.iter().map(|output| output.slice_rows(range.clone())).collect()
        })
        .collect())
}

/// The time split of a request that ran alone.
pub(crate) fn timings_alone(queue: Duration, compute: Duration, rows: usize) -> Timings {
    Timings { queue, compute, batch_rows: rows, ..Timings::default() }
}
