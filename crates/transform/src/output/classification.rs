//! Classification.

use outhaul_types::ClassificationOutput;

use super::Context;
use crate::build::Built;
use crate::{BuildError, OutputSide};

pub(super) fn build(
    _spec: &ClassificationOutput,
    _context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    Err(BuildError::Declared { key: "output.kind", problem: "is not there yet".to_owned() })
}
