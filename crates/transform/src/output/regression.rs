//! Regression.

use outhaul_types::RegressionOutput;

use super::Context;
use crate::build::Built;
use crate::{BuildError, OutputSide};

pub(super) fn build(
    _spec: &RegressionOutput,
    _context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    Err(BuildError::Declared { key: "output.kind", problem: "is not there yet".to_owned() })
}
