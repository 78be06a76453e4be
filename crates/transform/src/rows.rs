//! Rows to tensors.

use outhaul_types::{BoundInputs, ModelSignature, RowsInput};

use crate::build::Built;
use crate::{BuildError, Grouping, InputSide, Prepared, TransformError};

pub(crate) struct RowsSide {}

impl RowsSide {
    pub(crate) fn build(
        _spec: &RowsInput,
        _inner: &ModelSignature,
    ) -> Result<Built<dyn InputSide>, BuildError> {
        Ok(Built { side: Box::new(RowsSide {}), specs: Vec::new(), fields: Vec::new() })
    }
}

impl InputSide for RowsSide {
    fn prepare(
        &self,
        _inputs: &BoundInputs,
        _rows: usize,
        _grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        Err(TransformError::NoRows)
    }

    fn is_heavy(&self) -> bool {
        true
    }
}
