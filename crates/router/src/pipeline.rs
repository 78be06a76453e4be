//! Pipelines as models: found by name, described, listed and asked like any other.
//!
//! What the repository publishes is held against the models of its steps ([`table`]), which needs what these take and
//! give; it is done again when one of them changes, and costs a comparison otherwise. A request is carried through by
//! [`carry`], each step through [`Router::infer`]: routes, caches and fallbacks of a step are as for any request.
//!
//! Invariant: one deadline, one id and one trace hold for a request and all of its steps, and dropping its future
//! drops them all. A model comes before a pipeline of its name, so that asking a model costs nothing more.

mod carry;
mod table;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use outhaul_monitor::ModelStatistics;
use outhaul_pipeline::ConditionError;
use outhaul_repository::Problem;
use outhaul_types::{
    Classify, Deadline, ErrorKind, InferRequest, InferResponse, ModelName, ModelVersion, Name,
    RequestContext, Timings, VersionChoice,
};

use crate::fallback::Answering;
use crate::infer::asked_deadline;
use crate::{ModelDescription, Router, RouterError, Standing, VersionStatus};
pub(crate) use table::Pipelines;
use table::{Held, Planned, State, Table};

/// The version of every pipeline: what it answers by are its models' versions.
pub(crate) const VERSION: ModelVersion = ModelVersion(1);

/// How often a request wakes models that are taken out of memory again before it can ask them.
const MOST_WAKES: usize = 8;

/// Why a pipeline gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A step gave no answer.
    #[error("step '{step}': {error}")]
    Step {
        /// The step.
        step: Name,
        /// What its model said.
        error: Box<RouterError>,
    },
    /// A step's condition has no answer for this request.
    #[error("step '{step}': its condition: {error}")]
    Condition {
        /// The step.
        step: Name,
        /// Why.
        error: ConditionError,
    },
    /// A step's model, which lies on another server, does not answer as it is declared.
    #[error("step '{step}': its model gave {what}")]
    NotAsDeclared {
        /// The step.
        step: Name,
        /// What is not as it should be.
        what: String,
    },
    /// The time was up while steps were running.
    #[error("pipeline '{pipeline}' gave no answer before the request's deadline")]
    Late {
        /// The pipeline.
        pipeline: ModelName,
    },
    /// A pipeline takes no memory of its own.
    #[error("'{pipeline}' is a pipeline: unload the models that it asks, or remove its file")]
    NotUnloaded {
        /// The pipeline.
        pipeline: Name,
    },
    /// The plan came to no end, which it always does.
    #[error("pipeline '{pipeline}' came to a stop")]
    Stuck {
        /// The pipeline.
        pipeline: ModelName,
    },
}

impl Classify for PipelineError {
    fn kind(&self) -> ErrorKind {
        match self {
            // What a caller asked for is there; what the pipeline asks for is not.
            PipelineError::Step { error, .. } if error.kind() == ErrorKind::NotFound => {
                ErrorKind::NotReady
            }
            PipelineError::Step { error, .. } => error.kind(),
            PipelineError::Condition { .. } => ErrorKind::InvalidInput,
            PipelineError::NotAsDeclared { .. } => ErrorKind::EngineFailed,
            PipelineError::Late { .. } => ErrorKind::DeadlineExceeded,
            PipelineError::NotUnloaded { .. } => ErrorKind::Conflict,
            PipelineError::Stuck { .. } => ErrorKind::Internal,
        }
    }

    fn client_message(&self) -> String {
        match self {
            PipelineError::Step { step, error } => {
                format!("step '{step}': {}", error.client_message())
            }
            PipelineError::Stuck { .. } => "internal error".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Router {
    /// Answers a request to a pipeline. Boxed, since its steps are requests again.
    pub(crate) fn infer_pipeline<'a>(
        &'a self,
        request: InferRequest,
        context: &'a RequestContext,
        started: Instant,
    ) -> Answering<'a> {
        Box::pin(async move {
            let limit = asked_deadline(&request.parameters, context, started)?;
            let held = self.planned(&request.model, &request.version, limit, started).await?;
            let own = held.planned.plan.outline().spec().timeout;
            let deadline = Deadline::earlier(Deadline::after(started, own), limit);
            let mut result = self.infer_planned(&held, request, context, deadline).await;
            let total = started.elapsed();
            match &mut result {
                Ok((response, rows)) => {
                    held.metrics().record_request(Ok(()), total, &response.timings, *rows);
                }
                Err(error) => {
                    let timings = Timings::default();
                    held.metrics().record_request(Err(error.kind()), total, &timings, 0);
                }
            }
            result.map(|(response, _)| response)
        })
    }

    async fn infer_planned(
        &self,
        held: &Ready,
        mut request: InferRequest,
        context: &RequestContext,
        deadline: Option<Deadline>,
    ) -> Result<(InferResponse, usize), RouterError> {
        // It holds for the whole, and is handed on as the deadline of each step.
        request.parameters.remove("timeout");
        let depth = context.depth.saturating_add(1);
        let of_steps =
            RequestContext { deadline, target: None, depth, is_part: true, ..context.clone() };
        let carried = carry::carry(self, held, request, &of_steps);
        match deadline {
            None => carried.await,
            Some(Deadline(at)) => {
                let late = || PipelineError::Late { pipeline: held.name().clone() };
                tokio::time::timeout_at(at.into(), carried).await.map_err(|_| late())?
            }
        }
    }

    /// Returns a pipeline that can run. Models that sleep are loaded, since what they take and give stands in
    /// their files.
    async fn planned(
        &self,
        model: &str,
        version: &VersionChoice,
        limit: Option<Deadline>,
        started: Instant,
    ) -> Result<Ready, RouterError> {
        for _ in 0..MOST_WAKES {
            let held = self.pipeline(model, version)?;
            match held.state() {
                State::Ready(planned) => {
                    let planned = Arc::clone(planned);
                    return Ok(Ready { planned, held });
                }
                State::Asleep(models) => {
                    let wake = models.iter().map(|(name, version)| async move {
                        self.awake(name.as_str(), version, limit, started).await
                    });
                    try_join_all(wake).await?;
                    // The table from before, which says that they sleep, is of no use now.
                    drop(self.all_pipelines());
                }
                State::Loading(reason) | State::Failed(reason, _) => {
                    let (model, reason) = (Name::from(model), reason.clone());
                    return Err(RouterError::NotReady { model, reason });
                }
            }
        }
        Err(RouterError::NotInTime { model: model.into() })
    }

    /// Returns a pipeline by its name and version.
    fn pipeline(&self, model: &str, version: &VersionChoice) -> Result<Arc<Held>, RouterError> {
        let held = self.pipelines.get(self, model);
        let held = held.ok_or_else(|| RouterError::UnknownModel { model: model.into() })?;
        match version {
            VersionChoice::Latest => Ok(held),
            VersionChoice::Exact(version) if *version == VERSION => Ok(held),
            VersionChoice::Exact(version) => {
                Err(RouterError::UnknownVersion { model: model.into(), version: *version })
            }
            VersionChoice::Label(label) => {
                Err(RouterError::UnknownLabel { model: model.into(), label: label.clone() })
            }
        }
    }

    /// Returns all pipelines, held against the models of now. May wait for whoever looks at them.
    fn all_pipelines(&self) -> Arc<Table> {
        self.pipelines.newest(self)
    }

    /// Looks at the pipelines where something has changed and nobody else does, so that what is wrong is told.
    pub(crate) fn look_at_pipelines(&self) {
        drop(self.pipelines.table(self));
    }

    /// Returns what a pipeline takes and gives, where that is known now.
    pub(crate) fn pipeline_description(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Option<Arc<ModelDescription>> {
        match self.pipeline(model, version).ok()?.state() {
            State::Ready(planned) => Some(Arc::clone(&planned.description)),
            State::Asleep(_) | State::Loading(_) | State::Failed(..) => None,
        }
    }

    pub(crate) async fn describe_pipeline(
        &self,
        model: &str,
        version: &VersionChoice,
        deadline: Option<Deadline>,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        let held = self.planned(model, version, deadline, Instant::now()).await?;
        Ok(Arc::clone(&held.planned.description))
    }

    pub(crate) fn pipeline_readiness(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<ModelName, RouterError> {
        let held = self.pipeline(model, version)?;
        match held.state() {
            State::Ready(_) | State::Asleep(_) => Ok(held.name().clone()),
            State::Loading(reason) | State::Failed(reason, _) => {
                Err(RouterError::NotReady { model: model.into(), reason: reason.clone() })
            }
        }
    }

    pub(crate) fn pipeline_versions(&self, model: &str) -> Result<Vec<ModelVersion>, RouterError> {
        let answers = |held: &Held| matches!(held.state(), State::Ready(_) | State::Asleep(_));
        let held = self.pipeline(model, &VersionChoice::Latest)?;
        Ok(answers(&held).then_some(VERSION).into_iter().collect())
    }

    /// Returns the statistics of the pipelines that answer.
    pub(crate) fn pipeline_statistics(&self) -> Vec<(ModelName, ModelVersion, ModelStatistics)> {
        let table = self.all_pipelines();
        let ready = table.all().filter(|held| matches!(held.state(), State::Ready(_)));
        ready.map(|held| numbers(held)).collect()
    }

    pub(crate) fn statistics_of_pipeline(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<Vec<(ModelName, ModelVersion, ModelStatistics)>, RouterError> {
        Ok(vec![numbers(&*self.pipeline(model, version)?)])
    }

    pub(crate) fn has_pipeline(&self, model: &str) -> bool {
        self.catalog.snapshot().pipelines().contains_key(model)
    }

    /// Returns the state of every pipeline, in order of name.
    pub(crate) fn pipeline_statuses(&self) -> Vec<VersionStatus> {
        self.all_pipelines().all().map(|held| status(held)).collect()
    }

    /// Returns what an operator has to mend of pipelines, beside what is wrong with their files: steps that do not
    /// fit their models, models that are missing.
    pub fn pipeline_problems(&self) -> Vec<Problem> {
        self.all_pipelines().all().flat_map(|held| held.problems()).collect()
    }

    /// Loads the models of a pipeline's steps that do not answer, and returns when they do.
    pub(crate) async fn load_pipeline(&self, model: &str) -> Result<(), RouterError> {
        // What the repository has just found counts.
        drop(self.all_pipelines());
        let held = self.pipeline(model, &VersionChoice::Latest)?;
        let repository = self.repository.as_ref().ok_or(RouterError::NoRepository)?;
        for (name, version) in held.models() {
            if self.model_readiness(name.as_str(), version).is_ok() {
                continue;
            }
            let exact = match version {
                VersionChoice::Exact(version) => Some(*version),
                VersionChoice::Latest | VersionChoice::Label(_) => None,
            };
            repository.load(name.as_str(), exact).await?;
        }
        drop(self.all_pipelines());
        self.pipeline_readiness(model, &VersionChoice::Latest).map(drop)
    }
}

/// A pipeline that can run.
pub(crate) struct Ready {
    planned: Arc<Planned>,
    held: Arc<Held>,
}

impl std::ops::Deref for Ready {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

fn numbers(held: &Held) -> (ModelName, ModelVersion, ModelStatistics) {
    (held.name().clone(), VERSION, held.metrics().statistics())
}

fn status(held: &Held) -> VersionStatus {
    let (standing, ready, reason) = match held.state() {
        State::Ready(planned) => {
            (Standing::Ready, Some(Arc::clone(&planned.description)), String::new())
        }
        State::Asleep(_) => {
            (Standing::Dormant, None, "its models are loaded on request".to_owned())
        }
        State::Loading(reason) => (Standing::Loading, None, reason.clone()),
        State::Failed(reason, _) => (Standing::Failed, None, reason.clone()),
    };
    let entry = held.entry();
    VersionStatus {
        name: held.name().clone(),
        version: VERSION,
        standing,
        labels: Vec::new(),
        ready,
        reason,
        memory: None,
        last_error: entry.last_error.clone(),
        source: (!entry.source.is_empty()).then(|| Arc::clone(&entry.source)),
    }
}
