//! What queries may know of the models and the server.

use outhaul_protocol::describe::ModelStatistics;
use outhaul_protocol::graphql::{Facts, LoadedFacts, ModelFacts};
use outhaul_router::{Router, Standing, VersionStatus};
use outhaul_types::{Label, ModelName, ModelVersion, VersionChoice};

use crate::describe::SERVER;
use crate::http::exchange::schema;

/// The numbers of each version in memory.
pub(super) type Counted = Vec<(ModelName, ModelVersion, ModelStatistics)>;

/// Returns the numbers of all versions in memory.
pub(super) fn statistics(router: &Router) -> Counted {
    // Without a model named, there is none that could be missing.
    let counted = router.statistics(None, &VersionChoice::Latest).unwrap_or_default();
    let counted = counted.into_iter().map(|(name, version, counted)| {
        let written = crate::describe::statistics(&name, version, &counted);
        (name, version, written)
    });
    counted.collect()
}

/// Puts together what an answer may tell.
pub(super) fn of<'a>(
    versions: &'a [VersionStatus],
    counted: &'a Counted,
    ready: bool,
) -> Facts<'a> {
    let models = versions.iter().map(|status| ModelFacts {
        name: status.name.as_str(),
        version: status.version,
        state: status.standing.as_str(),
        in_service: matches!(status.standing, Standing::Ready | Standing::Dormant),
        reason: &status.reason,
        labels: status.labels.iter().map(Label::as_str).collect(),
        memory: status.memory,
        loaded: status.ready.as_deref().map(|model| LoadedFacts {
            schema: schema(model),
            engine: model.engine,
            batching: model.batching.as_str(),
            max_rows: model.max_rows,
        }),
        statistics: counted
            .iter()
            .find(|(name, version, _)| *name == status.name && *version == status.version)
            .map(|(_, _, counted)| counted.clone()),
    });
    Facts { server: SERVER, ready, models: models.collect() }
}
