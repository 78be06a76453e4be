//! Image to tensors.

use outhaul_types::{BoundInputs, ImageInput, ModelSignature};

use crate::build::Built;
use crate::{BuildError, Grouping, InputSide, Prepared, TransformError};

pub(crate) struct ImageSide {}

impl ImageSide {
    pub(crate) fn build(
        _spec: &ImageInput,
        _inner: &ModelSignature,
    ) -> Result<Built<dyn InputSide>, BuildError> {
        Ok(Built { side: Box::new(ImageSide {}), specs: Vec::new(), fields: Vec::new() })
    }
}

impl InputSide for ImageSide {
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
