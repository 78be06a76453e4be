//! One version that answers: its description, its queue, its metrics.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use outhaul_engine::LoadedModel;
use outhaul_monitor::{ModelMetrics, Monitor};
use outhaul_onnx::RowIndependence;
use outhaul_scheduler::{ModelQueue, QueueConfig, Rule};
use outhaul_types::{
    BindError, BoundInputs, InstanceCount, ModelManifest, ModelName, ModelSignature, ModelVersion,
};

use crate::{BatchMode, ModelDescription};

/// Everything that is known of a version before its threads start.
pub struct VersionPlan {
    /// Its name.
    pub name: ModelName,
    /// Its number.
    pub version: ModelVersion,
    /// What its file declares.
    pub signature: ModelSignature,
    /// What its graph does to rows.
    pub rows: RowIndependence,
    /// What the user declared.
    pub manifest: ModelManifest,
    /// The weights.
    pub model: Arc<dyn LoadedModel>,
    /// Why the engine that holds them was chosen.
    pub engine_reason: String,
    /// Cores that this process may use.
    pub cores: NonZeroUsize,
}

impl VersionPlan {
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

/// Why a version's threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the operating system refused a thread")]
pub struct StartError(#[from] std::io::Error);

/// A version that answers. Dropping it lets its instances finish what waits.
pub struct ServedVersion {
    description: Arc<ModelDescription>,
    queue: Arc<ModelQueue>,
    metrics: Arc<ModelMetrics>,
    timeout: Duration,
}

impl ServedVersion {
    /// Starts the instances of a version.
    ///
    /// # Errors
    ///
    /// Fails where the operating system refuses a thread.
    pub fn start(plan: VersionPlan, monitor: &Monitor) -> Result<Self, StartError> {
        let batching = BatchMode::decide(&plan.rows, &plan.manifest.batching);
        let max_rows = match batching {
            BatchMode::Exact | BatchMode::Inexact(_) => plan.manifest.batching.max_rows.get(),
            BatchMode::Off(_) => 1,
        };
        let config = QueueConfig {
            capacity: plan.manifest.queue.capacity.get(),
            rule: Rule { max_rows, max_delay: plan.manifest.batching.max_delay },
            instances: plan.instances(),
        };
        let metrics = monitor.model(&plan.name, plan.version);
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
            signature: plan.signature,
        };
        let queue =
            ModelQueue::spawn(description.name.as_str(), plan.model, config, Arc::clone(&metrics))?;
        Ok(ServedVersion {
            description: Arc::new(description),
            queue: Arc::new(queue),
            metrics,
            timeout: plan.manifest.queue.timeout,
        })
    }

    /// Returns what callers may know of it.
    pub fn description(&self) -> &Arc<ModelDescription> {
        &self.description
    }

    /// Returns what it takes and gives.
    pub fn signature(&self) -> &ModelSignature {
        &self.description.signature
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

    /// Whether its requests may be run together.
    pub(crate) fn gains_from_batches(&self) -> bool {
        self.description.max_rows > 1
    }

    /// Returns the rows of a request: what it adds to a batch, or, where nothing is batched, the
    /// size of its first dimension for the statistics.
    pub(crate) fn rows(&self, inputs: &BoundInputs) -> Result<usize, BindError> {
        if self.gains_from_batches() {
            return Ok(self.signature().rows(inputs)?.unwrap_or(1));
        }
        let first = inputs.iter().flatten().next();
        Ok(first.and_then(|tensor| tensor.shape().rows()).unwrap_or(1))
    }
}
