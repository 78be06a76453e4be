//! One request carried through a pipeline: what its plan says is done, all within the request's own future.
//!
//! Invariant: no step outlives the request, and a step that is given up is dropped at once. Tensors are handed on by
//! sharing.
//!
//! Where the time went is told along the longest way: of each step and of those that it waited for, the one that
//! ended last, and so on to the front. Time that several steps spent side by side is thus counted once.
//!
//! An answer to which a step's fallback contributed is a fallback's answer itself, and says so by the first such step.

use std::pin::Pin;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::FuturesUnordered;
use outhaul_pipeline::{Action, Outcome, Plan, Reference, Run, Slot};
use outhaul_types::{
    BoundInputs, CacheStatus, Destination, InferRequest, InferResponse, NamedTensor, Parameters,
    RequestContext, RequestedOutput, Tensor, Timings, VersionChoice, Via,
};
use smallvec::SmallVec;

use super::{PipelineError, Ready};
use crate::{Router, RouterError, classify};

type Answer = (usize, Result<InferResponse, RouterError>);

type Asking<'r> = Abortable<Pin<Box<dyn Future<Output = Answer> + Send + 'r>>>;

/// What a step gave.
struct Given {
    /// In the order of what is asked of it.
    tensors: Vec<Tensor>,
    /// Where the time went up to its end.
    way: Timings,
    ended: Instant,
    /// How the answer came about, where that is worth telling.
    via: Option<Box<Via>>,
}

struct Carrier<'r> {
    router: &'r Router,
    pipeline: &'r Ready,
    context: &'r RequestContext,
    parameters: Parameters,
    inputs: BoundInputs,
    given: Vec<Option<Given>>,
    failures: Vec<Option<PipelineError>>,
    running: FuturesUnordered<Asking<'r>>,
    handles: Vec<Option<AbortHandle>>,
    tokens: Option<usize>,
}

/// Carries a request through a pipeline; also returns its rows.
pub(super) async fn carry(
    router: &Router,
    pipeline: &Ready,
    request: InferRequest,
    context: &RequestContext,
) -> Result<(InferResponse, usize), RouterError> {
    let plan = &pipeline.planned.plan;
    let InferRequest { id, inputs, outputs, parameters, .. } = request;
    let wanted = plan.signature().select_outputs(outputs.iter().map(|output| &output.name))?;
    let inputs = plan.signature().bind(inputs)?;
    let rows = inputs.iter().flatten().find_map(|tensor| tensor.shape().rows()).unwrap_or(1);
    let present = inputs.iter().map(Option::is_some).collect();
    let mut run = plan.begin(present, wanted.to_vec());
    let mut carrier = Carrier {
        router,
        pipeline,
        context,
        parameters,
        inputs,
        given: plan.steps().iter().map(|_| None).collect(),
        failures: plan.steps().iter().map(|_| None).collect(),
        running: FuturesUnordered::new(),
        handles: plan.steps().iter().map(|_| None).collect(),
        tokens: None,
    };
    let taken = carrier.finish(&mut run).await?;
    let timings = Timings { batch_rows: rows, ..carrier.longest(taken.iter().copied()) };
    let named = carrier.name(&wanted, &taken, &outputs)?;
    let response = InferResponse {
        id,
        model: pipeline.name().clone(),
        version: super::VERSION,
        outputs: named,
        timings,
        tokens: carrier.tokens,
        cache: CacheStatus::Off,
        via: carrier.via(),
    };
    Ok((response, rows))
}

impl<'r> Carrier<'r> {
    fn plan(&self) -> &'r Plan {
        &self.pipeline.planned.plan
    }

    /// Does what is to be done until the request is over, and returns what it is answered with.
    async fn finish(&mut self, run: &mut Run<'_>) -> Result<Vec<Slot>, RouterError> {
        loop {
            let mut decided = false;
            for action in run.advance() {
                match action {
                    Action::Decide(step) => {
                        decided = true;
                        match self.decide(step) {
                            Ok(holds) => run.decided(step, holds),
                            Err(error) => self.fail(step, error, run),
                        }
                    }
                    Action::Start(step) => self.start(step, run),
                    Action::GiveUp(step) => {
                        self.handles[step].iter().for_each(AbortHandle::abort);
                    }
                }
            }
            match run.outcome() {
                Some(Outcome::Answered(taken)) => return Ok(taken),
                Some(Outcome::Failed(step)) => {
                    let error = self.failures[step].take();
                    return Err(error.unwrap_or_else(|| self.stuck()).into());
                }
                None if decided => {}
                None => match self.running.next().await {
                    Some(Ok((step, answer))) => self.note(step, answer, run),
                    // It was given up.
                    Some(Err(Aborted)) => {}
                    None => return Err(self.stuck().into()),
                },
            }
        }
    }

    fn stuck(&self) -> PipelineError {
        debug_assert!(false, "every plan comes to an end");
        PipelineError::Stuck { pipeline: self.pipeline.name().clone() }
    }

    fn tensor(&self, slot: Slot) -> Option<&Tensor> {
        match slot {
            Slot::Input(index) => self.inputs[index].as_ref(),
            Slot::Output { step, output } => self.given[step].as_ref()?.tensors.get(output),
        }
    }

    fn decide(&self, step: usize) -> Result<bool, PipelineError> {
        let Some(condition) = self.plan().condition(step) else { return Ok(true) };
        let planned = &self.plan().steps()[step];
        let look = |reference: &Reference| {
            let position = condition.looks_at().iter().position(|other| other == reference)?;
            self.tensor(planned.looks_at[position])
        };
        condition
            .decide(look)
            .map_err(|error| PipelineError::Condition { step: planned.name.clone(), error })
    }

    /// Asks the model of a step.
    fn start(&mut self, step: usize, run: &Run<'_>) {
        let planned = &self.plan().steps()[step];
        let fed = planned.feeds.iter().filter_map(|feed| {
            let tensor = self.tensor(run.take(&feed.from)?)?.clone();
            Some(NamedTensor { name: feed.input.clone(), tensor })
        });
        let asks = planned.asks.iter();
        let outputs =
            asks.map(|(name, _)| RequestedOutput { name: name.clone(), classification: None });
        let (model, version) = match &planned.model {
            Destination::Model { name, version } => (name.as_str().into(), version.clone()),
            Destination::Remote(url) => (url.clone(), VersionChoice::Latest),
        };
        let request = InferRequest {
            id: None,
            model,
            version,
            inputs: fed.collect(),
            outputs: outputs.collect(),
            parameters: self.parameters.clone(),
        };
        let (router, context) = (self.router, self.context);
        let asking: Pin<Box<dyn Future<Output = Answer> + Send + 'r>> = Box::pin(async move {
            let answer = match &planned.model {
                Destination::Model { .. } => router.infer(request, context).await,
                elsewhere => router.infer_at(elsewhere, request, context, Instant::now()).await,
            };
            (step, answer)
        });
        let (handle, registration) = AbortHandle::new_pair();
        self.handles[step] = Some(handle);
        self.running.push(Abortable::new(asking, registration));
    }

    /// Notes what a step's model said.
    fn note(&mut self, step: usize, answer: Result<InferResponse, RouterError>, run: &mut Run<'_>) {
        let name = || self.plan().steps()[step].name.clone();
        let given = match answer {
            Ok(response) => self.given_by(step, response),
            Err(error) => Err(PipelineError::Step { step: name(), error: Box::new(error) }),
        };
        match given {
            Ok(given) => {
                self.given[step] = Some(given);
                run.answered(step);
            }
            Err(error) => self.fail(step, error, run),
        }
    }

    fn fail(&mut self, step: usize, error: PipelineError, run: &mut Run<'_>) {
        self.failures[step] = Some(error);
        run.failed(step);
    }

    /// Takes from an answer what was asked for, and sees that it is what it ought to be.
    fn given_by(&mut self, step: usize, response: InferResponse) -> Result<Given, PipelineError> {
        let planned = &self.plan().steps()[step];
        let unlike =
            |what: String| PipelineError::NotAsDeclared { step: planned.name.clone(), what };
        let mut tensors = Vec::with_capacity(planned.asks.len());
        for (name, declared) in &planned.asks {
            let tensor = response.output(name).ok_or_else(|| unlike(format!("no '{name}'")))?;
            let data_type = tensor.data_type();
            if let Some(declared) = declared.filter(|declared| *declared != data_type) {
                return Err(unlike(format!(
                    "'{name}' as {data_type} where {declared} is declared"
                )));
            }
            tensors.push(tensor.clone());
        }
        if let Some(tokens) = response.tokens {
            *self.tokens.get_or_insert(0) += tokens;
        }
        let waited_for = planned.feeds.iter().flat_map(|feed| &feed.from).chain(&planned.looks_at);
        let way = sum(&self.longest(waited_for.copied()), &response.timings);
        Ok(Given { tensors, way, ended: Instant::now(), via: response.via })
    }

    /// Tells of the first step that somebody else answered in its model's place.
    fn via(&self) -> Option<Box<Via>> {
        let mut steps = self.plan().steps().iter().zip(&self.given);
        steps.find_map(|(step, given)| {
            let via = given.as_ref()?.via.as_ref()?;
            let fallback = format!("{}: {}", step.name, via.fallback.as_ref()?);
            let cause = via.cause;
            Some(Box::new(Via { fallback: Some(fallback.into()), cause, ..Via::default() }))
        })
    }

    /// Where the time went up to the last of these.
    fn longest(&self, slots: impl Iterator<Item = Slot>) -> Timings {
        let given = slots.filter_map(|slot| match slot {
            Slot::Input(_) => None,
            Slot::Output { step, .. } => self.given[step].as_ref(),
        });
        given.max_by_key(|given| given.ended).map(|given| given.way).unwrap_or_default()
    }

    /// Puts names to the outputs and applies what the request wants done to them.
    fn name(
        &self,
        wanted: &[usize],
        taken: &[Slot],
        requested: &[RequestedOutput],
    ) -> Result<SmallVec<[NamedTensor; 2]>, RouterError> {
        let mut named = SmallVec::new();
        for (position, (&output, &slot)) in wanted.iter().zip(taken).enumerate() {
            let name = self.plan().signature().outputs[output].name.clone();
            let tensor = self.tensor(slot).ok_or_else(|| self.stuck())?;
            let classification = requested.get(position).and_then(|output| output.classification);
            let tensor = match classification {
                None => tensor.clone(),
                Some(classification) => {
                    classify::top_classes(tensor, classification, None).map_err(|reason| {
                        RouterError::NotClassifiable { name: name.clone(), reason }
                    })?
                }
            };
            named.push(NamedTensor { name, tensor });
        }
        Ok(named)
    }
}

fn sum(left: &Timings, right: &Timings) -> Timings {
    Timings {
        load: left.load + right.load,
        transform: left.transform + right.transform,
        queue: left.queue + right.queue,
        assemble: left.assemble + right.assemble,
        compute: left.compute + right.compute,
        split: left.split + right.split,
        batch_rows: left.batch_rows.max(right.batch_rows),
    }
}
