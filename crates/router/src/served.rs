//! One version that answers: its description, its queue, its metrics.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use outhaul_engine::LoadedModel;
use outhaul_monitor::{ModelMetrics, Monitor};
use outhaul_onnx::RowIndependence;
use outhaul_scheduler::{Levels, ModelQueue, QueueConfig, Rule, Share};
use outhaul_transform::Transform;
use outhaul_types::{
    BindError, BoundInputs, InstanceCount, Interface, ModelManifest, ModelName, ModelSignature,
    ModelVersion,
};

use crate::cached::{CacheSupport, VersionCache};
use crate::declared::{Declared, Reshapes};
use crate::default_answer::check_default;
use crate::preparing::InPreparation;
use crate::warmup::{WarmupError, warm_up};
use crate::{BatchMode, ModelDescription};

/// Everything that is known of a version before its threads start.
pub struct VersionPlan {
    /// Its name.
    pub name: ModelName,
    /// Its number.
    pub version: ModelVersion,
    /// What its file says of its inputs and outputs.
    pub signature: ModelSignature,
    /// What callers who send the model's own tensors see of them.
    pub declared: Declared,
    /// What stands between callers and these tensors; `None` where tensors go straight through.
    pub transform: Option<Transform>,
    /// Rows to try the model with: a JSON list of objects by input name.
    pub sample: Option<Arc<str>>,
    /// What its graph does to rows.
    pub rows: RowIndependence,
    /// Whether the cost of a run follows from the size of its inputs.
    pub cost_follows_size: bool,
    /// What the user declared.
    pub manifest: ModelManifest,
    /// The weights.
    pub model: Arc<dyn LoadedModel>,
    /// Why the engine that holds them was chosen.
    pub engine_reason: String,
    /// Cores that this process may use.
    pub cores: NonZeroUsize,
    /// What its cache needs, where it declares one.
    pub cache: CacheSupport,
}

impl VersionPlan {
    /// Runs the warm-up requests that the manifest declares, or a generated one, on this thread.
    ///
    /// # Errors
    ///
    /// Fails where a declared request fails, or one makes the engine panic. Fails too where the default answer
    /// that is declared does not fit the model: nobody would notice before it is needed.
    pub fn warm_up(&self) -> Result<(), WarmupError> {
        if let Some(fallback) = &self.manifest.fallback {
            let outer = self.transform.as_ref().map(Transform::outer);
            check_default(fallback, outer.unwrap_or(&self.declared.outer))?;
        }
        let requests = self.manifest.warmup.as_deref();
        let warmed = warm_up(self.model.as_ref(), &self.declared, requests)?;
        if let Some(note) = warmed.note {
            let (model, version) = (&self.name, self.version);
            tracing::warn!(%model, %version, %note, "the made-up warm-up request failed");
        }
        Ok(())
    }

    /// Returns the number of instances: as declared, or as many as the cores hold.
    pub fn instances(&self) -> usize {
        match self.manifest.instances.count {
            InstanceCount::Fixed(count) => count.get(),
            InstanceCount::Auto => {
                (self.cores.get() / self.manifest.instances.threads.get()).max(1)
            }
        }
    }
}

/// Why a version could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has no threads.
    #[error("the operating system refused a thread")]
    Thread(#[from] std::io::Error),
    /// Its cache is declared to be in Redis, and this process has none.
    #[error(
        "its cache is to be kept in Redis and the server is given none: set cache.redis \
         (OUTHAUL_CACHE_REDIS, --cache-redis), or cache.store = \"memory\" in model.toml"
    )]
    NoCacheStore,
}

/// What stands between callers and a model's tensors.
pub(crate) struct Transformed {
    pub(crate) transform: Arc<Transform>,
    /// The model's own tensors, as callers may send them.
    pub(crate) inner: ModelSignature,
    /// The same, where inputs that the transform can fill in may be left out.
    pub(crate) lenient: ModelSignature,
    /// How much of its work waits to be prepared.
    pub(crate) waiting: InPreparation,
}

impl Transformed {
    fn new(transform: Transform, inner: ModelSignature) -> Self {
        let mut lenient = inner.clone();
        for (index, input) in lenient.inputs.iter_mut().enumerate() {
            input.optional |= transform.fills_in(index);
        }
        let waiting = InPreparation::default();
        Transformed { transform: Arc::new(transform), inner, lenient, waiting }
    }
}

/// A version that answers. Dropping it lets its instances finish what waits.
pub struct ServedVersion {
    description: Arc<ModelDescription>,
    queue: Arc<ModelQueue>,
    metrics: Arc<ModelMetrics>,
    timeout: Duration,
    max_request_rows: usize,
    /// What the model itself takes and gives; requests are batched by it.
    inner: ModelSignature,
    reshapes: Reshapes,
    transform: Option<Transformed>,
    capacity: usize,
    cache: Option<VersionCache>,
}

impl ServedVersion {
    /// Starts the instances of a version.
    ///
    /// # Errors
    ///
    /// Fails where the operating system refuses a thread, and where the declared cache needs a Redis that
    /// the plan has not.
    pub fn start(plan: VersionPlan, monitor: &Monitor) -> Result<Self, StartError> {
        let cache = VersionCache::of(&plan, monitor)?;
        let batching = match &plan.declared.unbatched {
            Some(reason) => BatchMode::Off(reason.clone()),
            None => BatchMode::decide(&plan.rows, &plan.manifest.batching),
        };
        let max_rows = match batching {
            BatchMode::Exact | BatchMode::Inexact(_) => plan.manifest.batching.max_rows.get(),
            BatchMode::Off(_) => 1,
        };
        let config = QueueConfig {
            capacity: plan.manifest.queue.capacity.get(),
            rule: Rule { max_rows, max_delay: plan.manifest.batching.max_delay },
            instances: plan.instances(),
            inline: plan.cost_follows_size,
            levels: Levels::declared(&plan.manifest.queue),
        };
        let metrics = monitor.model(&plan.name, plan.version);
        let capacity = config.capacity;
        let (signature, mut interface) = match &plan.transform {
            Some(transform) => (transform.outer().clone(), transform.interface().clone()),
            None => {
                let interface = Interface::of_tensors(&plan.declared.outer);
                (plan.declared.outer.clone(), interface)
            }
        };
        interface.sample = plan.sample;
        let max_request_rows = plan.manifest.batching.max_request_rows;
        let description = ModelDescription {
            engine: plan.model.engine(),
            engine_reason: plan.engine_reason,
            batching,
            max_rows,
            max_delay: config.rule.max_delay,
            instances: config.instances,
            threads: plan.manifest.instances.threads.get(),
            name: plan.name,
            version: plan.version,
            signature,
            interface,
        };
        let inner = plan.declared.outer;
        let transform = plan.transform.map(|transform| Transformed::new(transform, inner));
        let queue =
            ModelQueue::spawn(description.name.as_str(), plan.model, config, Arc::clone(&metrics))?;
        Ok(ServedVersion {
            description: Arc::new(description),
            queue: Arc::new(queue),
            metrics,
            timeout: plan.manifest.queue.timeout,
            max_request_rows: max_request_rows.map_or(usize::MAX, NonZeroUsize::get),
            inner: plan.signature,
            reshapes: plan.declared.reshapes,
            transform,
            capacity,
            cache,
        })
    }

    /// Returns what callers may know of it.
    pub fn description(&self) -> &Arc<ModelDescription> {
        &self.description
    }

    /// Returns what it takes from callers and gives them.
    pub fn signature(&self) -> &ModelSignature {
        &self.description.signature
    }

    /// What stands between callers and the model's tensors.
    pub(crate) fn transform(&self) -> Option<&Transformed> {
        self.transform.as_ref()
    }

    /// The answers that are kept; `None` where none are.
    pub(crate) fn cache(&self) -> Option<&VersionCache> {
        self.cache.as_ref()
    }

    /// How many requests may wait.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The changes of shape between callers and the model.
    pub(crate) fn reshapes(&self) -> &Reshapes {
        &self.reshapes
    }

    pub(crate) fn queue(&self) -> &Arc<ModelQueue> {
        &self.queue
    }

    pub(crate) fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
    }

    /// The longest that a request may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The most rows that one request may hold.
    pub(crate) fn max_request_rows(&self) -> usize {
        self.max_request_rows
    }

    /// Whether its requests may be run together.
    pub(crate) fn gains_from_batches(&self) -> bool {
        self.description.max_rows > 1
    }

    /// How a request shares a run: by its rows where requests are batched, unless it gives an
    /// optional input, which stands in for a constant of the graph and has no rows. `inputs` have the
    /// model's own shapes.
    pub(crate) fn share(&self, inputs: &BoundInputs) -> Result<Share, BindError> {
        if self.gains_from_batches() {
            let rows = self.inner.rows(inputs)?.unwrap_or(1);
            let alone = self.inner.overrides_default(inputs);
            return Ok(if alone { Share::Alone(rows) } else { Share::Joined(rows) });
        }
        // Nothing is batched; the first dimension counts in the statistics.
        let first = inputs.iter().flatten().next();
        Ok(Share::Alone(first.and_then(|tensor| tensor.shape().rows()).unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use outhaul_engine::{LoadError, Session};
    use outhaul_types::{DataType, Dimension, NamedTensor, ShapePattern, Tensor, TensorSpec};

    use super::*;

    struct NeverRun;

    impl LoadedModel for NeverRun {
        fn engine(&self) -> &'static str {
            "none"
        }

        fn session(&self) -> Result<Box<dyn Session>, LoadError> {
            Err(LoadError::Failed { engine: "none", reason: "it never runs".to_owned() })
        }
    }

    /// `y = x + b`, where `b` is 0 unless a request says otherwise.
    fn served(rows: RowIndependence) -> ServedVersion {
        let spec = |name: &str, shape: ShapePattern, optional| TensorSpec {
            name: name.into(),
            data_type: DataType::Fp32,
            shape,
            optional,
        };
        let row = || ShapePattern::ranked([Dimension::Any, Dimension::Fixed(2)]);
        let bias = ShapePattern::ranked([Dimension::Any]);
        let signature = ModelSignature {
            inputs: vec![spec("x", row(), false), spec("b", bias, true)],
            outputs: vec![spec("y", row(), false)],
        };
        let plan = VersionPlan {
            name: ModelName::new("sum").unwrap(),
            version: ModelVersion(1),
            declared: Declared::apply(&signature, &ModelManifest::default()).unwrap(),
            signature,
            rows,
            cost_follows_size: true,
            transform: None,
            sample: None,
            manifest: ModelManifest::default(),
            model: Arc::new(NeverRun),
            engine_reason: String::new(),
            cores: NonZeroUsize::MIN,
            cache: CacheSupport::default(),
        };
        ServedVersion::start(plan, &Monitor::new()).unwrap()
    }

    #[test]
    fn a_request_that_replaces_a_default_runs_alone() {
        let zeros = |name: &str, shape: &[usize]| NamedTensor {
            name: name.into(),
            tensor: Tensor::from_vec(shape, vec![0_f32; shape.iter().product()]).unwrap(),
        };
        let exact = served(RowIndependence::Exact);
        let share = |served: &ServedVersion, tensors: Vec<NamedTensor>| {
            served.share(&served.signature().bind(tensors).unwrap()).unwrap()
        };
        assert_eq!(share(&exact, vec![zeros("x", &[3, 2])]), Share::Joined(3));
        // Joined, two of these would be one bias of two columns.
        let replaced = vec![zeros("x", &[1, 2]), zeros("b", &[1])];
        assert_eq!(share(&exact, replaced), Share::Alone(1));
        let wider = vec![zeros("x", &[3, 2]), zeros("b", &[2])];
        assert_eq!(share(&exact, wider), Share::Alone(3), "it has no rows to differ");
        let off = served(RowIndependence::NoBatch { reason: String::new() });
        assert_eq!(share(&off, vec![zeros("x", &[3, 2])]), Share::Alone(3));
    }
}
