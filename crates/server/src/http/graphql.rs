//! GraphQL over the models' schemas.

use std::sync::Arc;

use super::Shared;

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
}
