//! A request to a model with a transform: prepare, run its parts, finish, put the rows together.
//!
//! Inputs and outputs are looked at apart. Inputs that all have names of the outer signature are
//! transformed; those of the model's own names go to it as they are. Outputs may be asked for by either
//! kind of name, mixed at will; without names they are the outer ones.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use outhaul_scheduler::Admission;
use outhaul_transform::{Grouping, Part, Prepared, TransformError};
use outhaul_types::{
    BindError, InferRequest, InferResponse, ModelSignature, Name, NamedTensor, RequestContext,
    RequestedOutput, Tensor, Tensors, Timings,
};
use smallvec::SmallVec;

use crate::preparing::Preparing;
use crate::served::Transformed;
use crate::{Router, RouterError, ServedVersion, admission, classify};

/// Elements of a model's output from which turning them into the answer leaves the thread that serves
/// the connection: some 100 microseconds.
const HEAVY_ELEMENTS: usize = 1 << 18;

/// An output that a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The transform's, by its place.
    Outer(usize),
    /// The model's own, by its place.
    Inner(usize),
}

/// One part of the request, answered.
struct Done {
    part: Part,
    /// The model's own outputs, in the order of its signature.
    outputs: Tensors,
    timings: Timings,
}

impl Router {
    /// Answers on a version that has a transform; also returns the rows answered.
    pub(crate) async fn infer_transformed(
        &self,
        served: &ServedVersion,
        mut request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<(InferResponse, usize), RouterError> {
        let transformed = served.transform().ok_or(RouterError::PreparingPanicked)?;
        let wanted = select(transformed, &request.outputs)?;
        let admission = admission(served, &request.parameters, context, started)?;
        let inputs = std::mem::take(&mut request.inputs);
        let begun = Instant::now();
        let prepared = prepare(&self.preparing, served, transformed, inputs, &wanted).await?;
        let mut transform = begun.elapsed();
        let Prepared { parts, rows, tokens } = prepared;
        if rows > served.max_request_rows() {
            return Err(RouterError::TooManyRows { rows, most: served.max_request_rows() });
        }

        // A request with many parts keeps the instances busy and the queue free for others.
        let window = 2 * served.description().instances;
        let run = parts.into_iter().map(|part| run(served, part, admission));
        let done: Vec<Done> = stream::iter(run).buffer_unordered(window).try_collect().await?;

        let begun = Instant::now();
        let mut timings = done.iter().fold(Timings::default(), longest);
        let outputs = finish(&self.preparing, served, transformed, done, (&wanted, rows)).await?;
        transform += begun.elapsed();
        timings.transform = transform.max(Duration::from_nanos(1));
        let outputs = name(transformed, &wanted, outputs, &request.outputs)?;
        let response = InferResponse {
            id: request.id,
            model: served.description().name.clone(),
            version: served.description().version,
            outputs,
            timings,
            tokens,
        };
        Ok((response, rows))
    }
}

/// Finds the outputs that a request names, of either kind; all outer ones where it names none.
fn select(
    transformed: &Transformed,
    requested: &[RequestedOutput],
) -> Result<SmallVec<[Wanted; 4]>, RouterError> {
    let (outer, inner) = (transformed.transform.outer(), &transformed.inner);
    let mut wanted: SmallVec<[Wanted; 4]> = SmallVec::new();
    for RequestedOutput { name, .. } in requested {
        let found = match (outer.output_index(name), inner.output_index(name)) {
            (Some(index), _) => Wanted::Outer(index),
            (None, Some(index)) => Wanted::Inner(index),
            // Says what there is.
            (None, None) => {
                return Err(outer.select_outputs([name]).map(|_| ()).unwrap_err().into());
            }
        };
        if wanted.contains(&found) {
            return Err(BindError::DuplicateOutput { name: name.clone() }.into());
        }
        wanted.push(found);
    }
    if wanted.is_empty() {
        wanted.extend((0..outer.outputs.len()).map(Wanted::Outer));
    }
    Ok(wanted)
}

/// Whether all inputs have names of the model's own and not of the outer signature. Where a name is in
/// both, the type tells: a picture is `BYTES`, the tensor made of it is not.
fn are_inner(outer: &ModelSignature, inner: &ModelSignature, inputs: &[NamedTensor]) -> bool {
    let named = |signature: &ModelSignature| {
        inputs.iter().all(|input| signature.input_index(&input.name).is_some())
    };
    let typed = |signature: &ModelSignature| {
        let spec = |name: &Name| signature.input_index(name).map(|index| &signature.inputs[index]);
        inputs.iter().all(|input| {
            spec(&input.name).is_some_and(|spec| spec.data_type == input.tensor.data_type())
        })
    };
    !inputs.is_empty() && named(inner) && (!named(outer) || !typed(outer) && typed(inner))
}

async fn prepare(
    preparing: &Preparing,
    served: &ServedVersion,
    transformed: &Transformed,
    inputs: SmallVec<[NamedTensor; 2]>,
    wanted: &[Wanted],
) -> Result<Prepared, RouterError> {
    let transform = &transformed.transform;
    if are_inner(transform.outer(), &transformed.inner, &inputs) {
        let bound = transform.adopt(transformed.lenient.bind(inputs)?);
        let rows = transformed.inner.rows(&bound)?.unwrap_or(1);
        return Ok(Prepared::whole(bound, rows));
    }
    let bound = transform.outer().bind(inputs)?;
    let rows = transform.outer().rows(&bound)?.unwrap_or(1);
    if rows > served.max_request_rows() {
        return Err(RouterError::TooManyRows { rows, most: served.max_request_rows() });
    }
    let wants_inner = wanted.iter().any(|wanted| matches!(wanted, Wanted::Inner(_)));
    let grouping = match NonZeroUsize::new(served.description().max_rows) {
        _ if wants_inner || transform.gives_tensors() => Grouping::Together,
        Some(most) if most > NonZeroUsize::MIN => Grouping::Equal(most),
        _ => Grouping::Alone,
    };
    if !transform.is_heavy() {
        return Ok(transform.prepare(&bound, grouping)?);
    }
    let transform = Arc::clone(transform);
    let work = move || transform.prepare(&bound, grouping);
    Ok(preparing.run(served.capacity(), work).await??)
}

/// Runs one part as a request of its own.
async fn run(
    served: &ServedVersion,
    part: Part,
    admission: Admission,
) -> Result<Done, RouterError> {
    // A clone shares the elements.
    let inputs = served.reshapes().inward(part.inputs.clone())?;
    let share = served.share(&inputs)?;
    let answer = served.queue().infer(inputs, share, admission).await?;
    let outputs = served.reshapes().outward(answer.outputs)?;
    Ok(Done { part, outputs, timings: answer.timings })
}

/// The parts wait and run beside each other, so the longest of each stage counts.
fn longest(sum: Timings, done: &Done) -> Timings {
    let own = &done.timings;
    Timings {
        queue: sum.queue.max(own.queue),
        assemble: sum.assemble.max(own.assemble),
        compute: sum.compute.max(own.compute),
        split: sum.split.max(own.split),
        batch_rows: sum.batch_rows.max(own.batch_rows),
        ..sum
    }
}

/// Turns the parts' outputs into the wanted ones, rows in the request's order.
async fn finish(
    preparing: &Preparing,
    served: &ServedVersion,
    transformed: &Transformed,
    done: Vec<Done>,
    (wanted, rows): (&[Wanted], usize),
) -> Result<Vec<Tensor>, RouterError> {
    let elements: usize = done.iter().flat_map(|done| &done.outputs).map(Tensor::len).sum();
    let transform = Arc::clone(&transformed.transform);
    let wanted: SmallVec<[Wanted; 4]> = wanted.into();
    let work = move || {
        let each = done.into_iter().map(|done| {
            let outer = match wanted.iter().any(|wanted| matches!(wanted, Wanted::Outer(_))) {
                true => transform.finish(&done.part, &done.outputs)?,
                false => Tensors::new(),
            };
            let pick = |wanted: &Wanted| match *wanted {
                Wanted::Outer(index) => outer[index].clone(),
                Wanted::Inner(index) => done.outputs[index].clone(),
            };
            Ok((done.part.rows, wanted.iter().map(pick).collect::<Tensors>()))
        });
        let parts = each.collect::<Result<Vec<_>, TransformError>>()?;
        in_order(parts, rows)
    };
    match elements > HEAVY_ELEMENTS {
        true => preparing.run(served.capacity(), work).await?,
        false => work(),
    }
}

/// Puts the rows of all parts into the request's order, output by output.
fn in_order(
    mut parts: Vec<(Vec<usize>, Tensors)>,
    rows: usize,
) -> Result<Vec<Tensor>, RouterError> {
    if let [(order, outputs)] = &mut parts[..]
        && order.iter().copied().eq(0..rows)
    {
        return Ok(outputs.drain(..).collect());
    }
    // For each row of the request: which part holds it, and where.
    let mut places = vec![None; rows];
    for (part, (order, _)) in parts.iter().enumerate() {
        for (place, &row) in order.iter().enumerate() {
            places[row] = Some((part, place));
        }
    }
    let outputs = parts.first().map_or(0, |(_, outputs)| outputs.len());
    let output = |index: usize| {
        let row =
            |&(part, place): &(usize, usize)| parts[part].1[index].slice_rows(place..place + 1);
        let rows: Vec<Tensor> = places.iter().flatten().map(row).collect();
        let rows: Vec<&Tensor> = rows.iter().collect();
        Tensor::concatenate_rows(&rows).map_err(RouterError::Parts)
    };
    (0..outputs).map(output).collect()
}

/// Puts names to the outputs and applies what the request wants done to them.
fn name(
    transformed: &Transformed,
    wanted: &[Wanted],
    outputs: Vec<Tensor>,
    requested: &[RequestedOutput],
) -> Result<SmallVec<[NamedTensor; 2]>, RouterError> {
    let outer = transformed.transform.outer();
    let labels = transformed.transform.interface().labels();
    let mut named = SmallVec::new();
    for (position, (wanted, tensor)) in wanted.iter().zip(outputs).enumerate() {
        let name: &Name = match *wanted {
            Wanted::Outer(index) => &outer.outputs[index].name,
            Wanted::Inner(index) => &transformed.inner.outputs[index].name,
        };
        let tensor = match requested.get(position).and_then(|output| output.classification) {
            None => tensor,
            Some(classification) => {
                let labels = labels.map(|labels| &**labels);
                classify::top_classes(&tensor, classification, labels)
                    .map_err(|reason| RouterError::NotClassifiable { name: name.clone(), reason })?
            }
        };
        named.push(NamedTensor { name: name.clone(), tensor });
    }
    Ok(named)
}
