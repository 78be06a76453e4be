//! A request to a model with a transform: prepare, run its parts, finish, put the rows together.
//!
//! Inputs and outputs are looked at apart. Inputs that all have names of the outer signature are
//! transformed; those of the model's own names go to it as they are. Outputs may be asked for by either
//! kind of name, mixed at will; without names they are the outer ones.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use outhaul_scheduler::{Admission, QueueError};
use outhaul_transform::{Grouping, Part, Prepared, Transform, TransformError};
use outhaul_types::{
    BindError, BoundInputs, Deadline, InferRequest, InferResponse, ModelSignature, Name,
    NamedTensor, RequestedOutput, Tensor, Tensors, Timings,
};
use smallvec::SmallVec;

use crate::cached::Runs;
use crate::preparing::{Preparing, Turn};
use crate::served::Transformed;
use crate::{RouterError, ServedVersion, classify};

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

/// Some rows of the request, answered.
struct Done {
    /// The wanted outputs, in the order in which they are wanted; rows in the request's order.
    outputs: Vec<Tensor>,
    timings: Timings,
    tokens: Option<usize>,
}

/// What the request sends.
enum Given {
    /// Tensors of the outer signature, and how their rows may share a run.
    Outer(BoundInputs, Grouping),
    /// The model's own tensors.
    Inner(BoundInputs),
}

/// What the request sends, by the signature that it means.
enum Bound {
    Outer(BoundInputs),
    Inner(BoundInputs),
}

/// What is the same for all rows of a request.
struct Asked<'a> {
    preparing: &'a Preparing,
    served: &'a ServedVersion,
    transformed: &'a Transformed,
    admission: Admission,
    wanted: SmallVec<[Wanted; 4]>,
    /// What keeps the model's outputs, where they are kept.
    runs: Option<&'a Runs>,
}

/// Answers on a version that has a transform; also returns the rows answered. `runs` keeps what the model
/// gives, where that is wanted.
pub(crate) async fn answer_transformed(
    preparing: &Preparing,
    served: &ServedVersion,
    mut request: InferRequest,
    admission: Admission,
    runs: Option<&Runs>,
) -> Result<(InferResponse, usize), RouterError> {
    let transformed = served.transform().ok_or(RouterError::PreparingPanicked)?;
    let wanted = select(transformed, &request.outputs)?;
    let asked = Asked { preparing, served, transformed, admission, wanted, runs };
    let inputs = std::mem::take(&mut request.inputs);
    let (given, rows) = asked.bind(inputs)?;
    let (given, asked) = (Arc::new(given), &asked);
    let chunks = match &*given {
        Given::Outer(_, grouping) => transformed.transform.chunks(rows, *grouping),
        Given::Inner(_) => std::iter::once(0..rows).collect(),
    };
    // A large request is prepared while what came before it runs, and holds no more than that.
    let chunks = chunks.into_iter().map(|chunk| asked.answer(Arc::clone(&given), chunk));
    let done: Vec<Done> = stream::iter(chunks).buffered(2).try_collect().await?;
    let tokens = done.iter().try_fold(0, |sum, done| Some(sum + done.tokens?));
    let timings = done.iter().fold(Timings::default(), in_turn);
    let outputs = joined(done)?;
    let outputs = name(transformed, &asked.wanted, outputs, &request.outputs)?;
    let response = InferResponse {
        id: request.id,
        model: served.description().name.clone(),
        version: served.description().version,
        outputs,
        timings,
        tokens,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    };
    Ok((response, rows))
}

/// Checks a request as [`answer_transformed`] does before anything is prepared.
pub(crate) fn check_transformed(
    served: &ServedVersion,
    transformed: &Transformed,
    request: &InferRequest,
) -> Result<(), RouterError> {
    select(transformed, &request.outputs)?;
    bound(served, transformed, request.inputs.clone()).map(drop)
}

/// Runs the model on one part; also returns the part's rows.
pub(crate) async fn run_model(
    served: &ServedVersion,
    inputs: BoundInputs,
    admission: Admission,
) -> Result<(Tensors, Timings, usize), RouterError> {
    let inputs = served.reshapes().inward(inputs)?;
    let share = served.share(&inputs)?;
    let answer = served.queue().infer(inputs, share, admission).await?;
    Ok((served.reshapes().outward(answer.outputs)?, answer.timings, share.rows()))
}

impl Asked<'_> {
    /// Checks what was sent, and says how its rows may share a run; also returns them.
    fn bind(&self, inputs: SmallVec<[NamedTensor; 2]>) -> Result<(Given, usize), RouterError> {
        let (bound, rows) = bound(self.served, self.transformed, inputs)?;
        let given = match bound {
            Bound::Outer(bound) => Given::Outer(bound, self.grouping()),
            Bound::Inner(bound) => Given::Inner(bound),
        };
        Ok((given, rows))
    }

    fn grouping(&self) -> Grouping {
        let transform = &self.transformed.transform;
        let wants_inner = self.wanted.iter().any(|wanted| matches!(wanted, Wanted::Inner(_)));
        let needs_one_shape = wants_inner || transform.gives_tensors();
        match NonZeroUsize::new(self.served.description().max_rows) {
            _ if transform.shapes_vary() && needs_one_shape => Grouping::Together,
            Some(most) if most > NonZeroUsize::MIN => match transform.shapes_vary() {
                true => Grouping::Equal(most),
                // The rows of a request run in one piece, as they do where tensors are sent.
                false => Grouping::Together,
            },
            _ => Grouping::Alone,
        }
    }

    /// Answers some rows: prepares them, runs their parts beside each other, finishes each as it ends.
    async fn answer(&self, given: Arc<Given>, rows: Range<usize>) -> Result<Done, RouterError> {
        let begun = Instant::now();
        let prepared = self.prepare(given, rows).await?;
        let preparing = begun.elapsed();
        let Prepared { parts, rows, tokens } = prepared;
        // A request with many parts keeps the instances busy and the queue free for others.
        let window = 2 * self.served.description().instances;
        let run = parts.into_iter().map(|part| self.run(part));
        let parts: Vec<Ran> = stream::iter(run).buffer_unordered(window).try_collect().await?;
        let mut timings =
            parts.iter().fold(Timings::default(), |sum, ran| longest(sum, &ran.timings));
        let begun = Instant::now();
        let outputs = self.in_order(parts, rows)?;
        timings.transform += preparing + begun.elapsed().max(Duration::from_nanos(1));
        Ok(Done { outputs, timings, tokens })
    }

    async fn prepare(
        &self,
        given: Arc<Given>,
        rows: Range<usize>,
    ) -> Result<Prepared, RouterError> {
        let (bound, grouping) = match &*given {
            Given::Inner(bound) => return Ok(Prepared::whole(bound.clone(), rows.len())),
            Given::Outer(bound, grouping) => (bound, *grouping),
        };
        let transform = Arc::clone(&self.transformed.transform);
        if !transform.is_heavy(rows.len()) {
            return Ok(transform.prepare_rows(bound, rows, grouping)?);
        }
        let size = rows.len();
        let work = move || match &*given {
            Given::Outer(bound, grouping) => transform.prepare_rows(bound, rows, *grouping),
            Given::Inner(bound) => Ok(Prepared::whole(bound.clone(), rows.len())),
        };
        Ok(self.elsewhere(size, work).await??)
    }

    /// Does work for so many rows on the threads for it, unless the deadline passes before it has been
    /// done.
    async fn elsewhere<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RouterError> {
        let level = self.served.queue().levels().in_general(self.admission.level);
        let turn = Turn {
            waiting: &self.transformed.waiting,
            capacity: self.served.capacity(),
            admission: Admission { level, ..self.admission },
            rows,
        };
        let done = self.preparing.run(turn, work);
        match self.admission.deadline {
            None => done.await,
            Some(Deadline(at)) => tokio::time::timeout_at(at.into(), done)
                .await
                .map_err(|_| RouterError::Queue(QueueError::DeadlineExceeded))?,
        }
    }

    /// Runs one part as a request of its own, and turns its outputs into the wanted ones.
    async fn run(&self, part: Part) -> Result<Ran, RouterError> {
        // A clone shares the elements.
        let inputs = part.inputs.clone();
        let (own, mut timings) = match self.runs {
            Some(runs) => runs.run(inputs, self.admission).await?,
            None => {
                let (own, timings, _) = run_model(self.served, inputs, self.admission).await?;
                (own, timings)
            }
        };
        let begun = Instant::now();
        let transform = Arc::clone(&self.transformed.transform);
        let wanted = self.wanted.clone();
        let rows = part.rows.clone();
        let elements: usize = own.iter().map(Tensor::len).sum();
        let work = move || wanted_outputs(&transform, &part, &own, &wanted);
        let outputs = match elements > HEAVY_ELEMENTS {
            true => self.elsewhere(rows.len(), work).await??,
            false => work()?,
        };
        timings.transform = begun.elapsed();
        Ok(Ran { rows, outputs, timings })
    }

    /// Puts the rows of all parts into their order, output by output.
    fn in_order(&self, mut parts: Vec<Ran>, rows: usize) -> Result<Vec<Tensor>, RouterError> {
        if let [ran] = &mut parts[..]
            && ran.rows.iter().copied().eq(0..rows)
        {
            return Ok(ran.outputs.drain(..).collect());
        }
        // For each row: which part holds it, and where.
        let mut places = vec![None; rows];
        for (part, ran) in parts.iter().enumerate() {
            for (index, output) in ran.outputs.iter().enumerate() {
                if output.shape().rows() != Some(ran.rows.len()) {
                    return Err(RouterError::NoRowEach { output: self.output_name(index) });
                }
            }
            for (place, &row) in ran.rows.iter().enumerate() {
                places[row] = Some((part, place));
            }
        }
        let outputs = parts.first().map_or(0, |ran| ran.outputs.len());
        let output = |index: usize| {
            let row = |&(part, place): &(usize, usize)| {
                parts[part].outputs[index].slice_rows(place..place + 1)
            };
            let rows: Vec<Tensor> = places.iter().flatten().map(row).collect();
            let rows: Vec<&Tensor> = rows.iter().collect();
            Tensor::concatenate_rows(&rows).map_err(RouterError::Parts)
        };
        (0..outputs).map(output).collect()
    }

    fn output_name(&self, index: usize) -> Name {
        match self.wanted[index] {
            Wanted::Outer(index) => self.transformed.transform.outer().outputs[index].name.clone(),
            Wanted::Inner(index) => self.transformed.inner.outputs[index].name.clone(),
        }
    }
}

/// One part of the request, answered.
struct Ran {
    /// Which rows these are, in order.
    rows: Vec<usize>,
    /// The wanted outputs of these rows.
    outputs: Tensors,
    timings: Timings,
}

fn wanted_outputs(
    transform: &Transform,
    part: &Part,
    own: &Tensors,
    wanted: &[Wanted],
) -> Result<Tensors, TransformError> {
    let outer = match wanted.iter().any(|wanted| matches!(wanted, Wanted::Outer(_))) {
        true => transform.finish(part, own)?,
        false => Tensors::new(),
    };
    let pick = |wanted: &Wanted| match *wanted {
        Wanted::Outer(index) => outer[index].clone(),
        Wanted::Inner(index) => own[index].clone(),
    };
    Ok(wanted.iter().map(pick).collect())
}

/// Parts wait and run beside each other, so the longest of each stage counts.
fn longest(sum: Timings, own: &Timings) -> Timings {
    Timings {
        transform: sum.transform.max(own.transform),
        queue: sum.queue.max(own.queue),
        assemble: sum.assemble.max(own.assemble),
        compute: sum.compute.max(own.compute),
        split: sum.split.max(own.split),
        batch_rows: sum.batch_rows.max(own.batch_rows),
        ..sum
    }
}

/// The pieces of a large request come one after the other, so their times add up.
fn in_turn(sum: Timings, done: &Done) -> Timings {
    let own = &done.timings;
    Timings {
        transform: sum.transform + own.transform,
        queue: sum.queue + own.queue,
        assemble: sum.assemble + own.assemble,
        compute: sum.compute + own.compute,
        split: sum.split + own.split,
        batch_rows: sum.batch_rows.max(own.batch_rows),
        ..sum
    }
}

/// Puts the pieces of a request one after the other, output by output.
fn joined(mut done: Vec<Done>) -> Result<Vec<Tensor>, RouterError> {
    if done.len() == 1 {
        return Ok(done.pop().map(|done| done.outputs).unwrap_or_default());
    }
    let outputs = done.first().map_or(0, |done| done.outputs.len());
    let output = |index: usize| {
        let pieces: Vec<&Tensor> = done.iter().map(|done| &done.outputs[index]).collect();
        Tensor::concatenate_rows(&pieces).map_err(RouterError::Parts)
    };
    (0..outputs).map(output).collect()
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
            (None, None) => match outer.select_outputs([name]) {
                // It says what there is.
                Err(unknown) => return Err(unknown.into()),
                Ok(_) => continue,
            },
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

/// Checks what was sent against the signature that it means; also returns its rows.
fn bound(
    served: &ServedVersion,
    transformed: &Transformed,
    inputs: SmallVec<[NamedTensor; 2]>,
) -> Result<(Bound, usize), RouterError> {
    let Transformed { transform, inner, lenient, .. } = transformed;
    let (bound, rows) = if are_inner(transform.outer(), inner, &inputs) {
        let bound = transform.adopt(lenient.bind(inputs)?)?;
        let rows = inner.rows(&bound)?.unwrap_or(1);
        (Bound::Inner(bound), rows)
    } else {
        let bound = transform.outer().bind(inputs)?;
        let rows = transform.rows(&bound)?;
        (Bound::Outer(bound), rows)
    };
    if rows > served.max_request_rows() {
        return Err(RouterError::TooManyRows { rows, most: served.max_request_rows() });
    }
    Ok((bound, rows))
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
