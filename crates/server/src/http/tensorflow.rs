//! TensorFlow Serving's REST API, with what KServe v1 and OpenAI ask of the same paths.

use std::sync::Arc;

use super::Shared;

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
}
