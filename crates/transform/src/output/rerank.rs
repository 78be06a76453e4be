//! Rerank.

use outhaul_types::RerankOutput;

use super::Context;
use crate::build::Built;
use crate::{BuildError, OutputSide};

pub(super) fn build(
    _spec: &RerankOutput,
    _context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    Err(BuildError::Declared { key: "output.kind", problem: "is not there yet".to_owned() })
}
