//! Pages for people: the list of models and a page for each.

use std::sync::Arc;

use super::Shared;

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
}
