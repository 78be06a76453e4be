//! What there is and how it does: descriptions, readiness, listings, statistics; and asking the repository.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use outhaul_monitor::ModelStatistics;
use outhaul_repository::{AskError, ModelEntry, Snapshot, Unresolved, VersionState};
use outhaul_types::{Deadline, ModelName, ModelVersion, VersionChoice};

use crate::{
    Announced, ModelDescription, PipelineError, Router, RouterError, Served, VersionStatus,
};

impl Router {
    /// Announces a request whose body is still being read, so that a batch may wait for it. `None`
    /// where there is nothing to announce it to; reading goes on all the same.
    pub fn announce(&self, model: &str, version: &VersionChoice) -> Option<Announced> {
        if self.route_of(model, version).is_some() {
            // Which variant it will be is not decided yet.
            return None;
        }
        let served = self.catalog.resolve(model, version).ok()?;
        let arriving = served.gains_from_batches().then(|| served.queue().announce())?;
        Some(Announced { arriving, _served: served })
    }

    /// Describes the version that a request for `version` would reach. One that sleeps is loaded,
    /// since what it takes and gives stands in its file.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it does not answer before `deadline`.
    pub async fn describe(
        &self,
        model: &str,
        version: &VersionChoice,
        deadline: Option<Deadline>,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        if let Some(route) = self.route_of(model, version) {
            return self.describe_route(&route, deadline).await;
        }
        self.describe_model(model, version, deadline).await
    }

    /// Describes a model of this process, whatever routes say of its name.
    pub(crate) async fn describe_model(
        &self,
        model: &str,
        version: &VersionChoice,
        deadline: Option<Deadline>,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        let served = match self.catalog.resolve(model, version) {
            Err(Unresolved::Asleep(_)) => {
                self.awake(model, version, deadline, Instant::now()).await?
            }
            Err(Unresolved::UnknownModel) => {
                return self.describe_pipeline(model, version, deadline).await;
            }
            resolved => resolved.map_err(|reason| RouterError::unresolved(model, reason))?,
        };
        Ok(Arc::clone(served.description()))
    }

    /// Returns the name of a model that would answer a request for `version`, at once or once it is
    /// loaded for it.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it does not answer now.
    pub fn readiness(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<ModelName, RouterError> {
        if let Some(route) = self.route_of(model, version) {
            return self.route_readiness(&route);
        }
        self.model_readiness(model, version)
    }

    /// The same for a model of this process, whatever routes say of its name.
    pub(crate) fn model_readiness(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<ModelName, RouterError> {
        let snapshot = self.catalog.snapshot();
        match (snapshot.resolve(model, version), snapshot.model(model)) {
            (Ok(_) | Err(Unresolved::Asleep(_)), Some(entry)) => Ok(entry.name().clone()),
            (Err(Unresolved::UnknownModel), _) => self.pipeline_readiness(model, version),
            (Err(reason), _) => Err(RouterError::unresolved(model, reason)),
            (_, None) => Err(unknown(model)),
        }
    }

    /// Loads a model, or one version of it, and returns when it answers: see [`Handle::load`](outhaul_repository::Handle::load).
    ///
    /// # Errors
    ///
    /// Fails where it cannot be loaded, or there is no repository to ask.
    pub async fn load(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<(), RouterError> {
        let repository = self.repository.as_ref().ok_or(RouterError::NoRepository)?;
        match repository.load(model, version).await {
            // The look that this made may have found it.
            Err(AskError::UnknownModel(_)) if self.has_pipeline(model) => {
                self.load_pipeline(model).await
            }
            loaded => Ok(loaded?),
        }
    }

    /// Unloads a model: see [`Handle::unload`](outhaul_repository::Handle::unload).
    ///
    /// # Errors
    ///
    /// Fails where there is no such model, or no repository to ask.
    pub async fn unload(&self, model: &str) -> Result<(), RouterError> {
        let repository = self.repository.as_ref().ok_or(RouterError::NoRepository)?;
        if self.has_pipeline(model) {
            return Err(PipelineError::NotUnloaded { pipeline: model.into() }.into());
        }
        Ok(repository.unload(model).await?)
    }

    /// Returns the state of every version, in order of name and number.
    pub fn models(&self) -> Vec<VersionStatus> {
        let snapshot = self.catalog.snapshot();
        let status = |entry| {
            let versions = ModelEntry::versions(entry).iter();
            versions.map(move |version| VersionStatus::of(entry, version))
        };
        let mut all: Vec<_> = snapshot.models().into_iter().flat_map(status).collect();
        let pipelines = self.pipeline_statuses();
        if !pipelines.is_empty() {
            all.extend(pipelines);
            all.sort_by(|left, right| left.name.cmp(&right.name));
        }
        all
    }

    /// Returns the numbers of a model's versions that answer, at once or once they are loaded,
    /// ascending.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model.
    pub fn versions(&self, model: &str) -> Result<Vec<ModelVersion>, RouterError> {
        let snapshot = self.catalog.snapshot();
        let Some(entry) = snapshot.model(model) else {
            return self.pipeline_versions(model);
        };
        let answering = entry.versions().iter().filter(|entry| answers(&entry.state));
        Ok(answering.map(|entry| entry.version).collect())
    }

    /// Returns the statistics of versions in memory: of every model, of one model's versions, or of
    /// one version.
    ///
    /// # Errors
    ///
    /// Fails where the named model or version does not exist or is not in memory.
    pub fn statistics(
        &self,
        model: Option<&str>,
        version: &VersionChoice,
    ) -> Result<Vec<(ModelName, ModelVersion, ModelStatistics)>, RouterError> {
        let snapshot = self.catalog.snapshot();
        if let Some(model) = model
            && snapshot.model(model).is_none()
        {
            return self.statistics_of_pipeline(model, version);
        }
        let served = match (model, version) {
            (None, _) => ready_versions(&snapshot, None),
            (Some(model), VersionChoice::Latest) => ready_versions(&snapshot, Some(model)),
            (Some(model), VersionChoice::Exact(_) | VersionChoice::Label(_)) => {
                let served = snapshot.resolve(model, version);
                vec![Arc::clone(served.map_err(|reason| RouterError::unresolved(model, reason))?)]
            }
        };
        let numbers = |served: &Arc<Served>| {
            let description = served.description();
            (description.name.clone(), description.version, served.metrics().statistics())
        };
        let mut all: Vec<_> = served.iter().map(numbers).collect();
        if model.is_none() {
            all.extend(self.pipeline_statistics());
        }
        Ok(all)
    }

    /// Returns whether traffic may come: everything that was there at the start has been loaded or has
    /// failed, and something answers. A version that failed to load does not keep the others from
    /// being reached, nor does one that is loaded later.
    pub fn is_ready(&self) -> bool {
        if self.repository.as_ref().is_some_and(|repository| !repository.has_looked()) {
            return false;
        }
        // Whoever asks whether models are ready makes pipelines be looked at too: what is wrong is told early.
        self.look_at_pipelines();
        let snapshot = self.catalog.snapshot();
        let models = snapshot.models();
        let states = || models.iter().flat_map(|model| model.versions()).map(|entry| &entry.state);
        if !states().any(answers) && !models.is_empty() {
            return false;
        }
        let loading = states().any(|state| matches!(state, VersionState::Loading));
        if !loading {
            self.was_ready.store(true, Ordering::Relaxed);
        }
        !loading || self.was_ready.load(Ordering::Relaxed)
    }
}

fn unknown(model: &str) -> RouterError {
    RouterError::UnknownModel { model: model.into() }
}

/// Whether a request for this version is answered, at once or once it is loaded for it.
fn answers(state: &VersionState<Served>) -> bool {
    match state {
        VersionState::Ready(_) | VersionState::Dormant | VersionState::Waking => true,
        VersionState::Loading | VersionState::Failed(_) | VersionState::Unloaded => false,
    }
}

fn ready_versions(snapshot: &Snapshot<Served>, model: Option<&str>) -> Vec<Arc<Served>> {
    let wanted = |name: &ModelName| model.is_none_or(|model| model == name.as_str());
    let entries = snapshot.models().into_iter().filter(|entry| wanted(entry.name()));
    let states = entries.flat_map(|entry| entry.versions()).map(|entry| &entry.state);
    let ready = states.filter_map(|state| match state {
        VersionState::Ready(served) => Some(Arc::clone(served)),
        _ => None,
    });
    ready.collect()
}
