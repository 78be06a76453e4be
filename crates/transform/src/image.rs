//! Encoded pictures (JPEG, PNG, WebP) to one tensor of the model.
//!
//! Each element of the outer input `image` (`BYTES [batch]`) is a whole file. It becomes a row of
//! `[batch, channels, height, width]` or `[batch, height, width, channels]` in this order: told by its
//! first bytes, measured against the limits, decoded to 8 bits a channel, turned as its EXIF data
//! says, made grey where the model wants one channel, resized, cut out of the middle, and written as
//! `(value * scale - mean) / std`. That is the order of Pillow and torchvision, and the results are
//! theirs within the tolerance that `image/tests.rs` states.
//!
//! Invariants:
//! - every row of a model has the same size, which is known when the version is loaded ([`fit`]);
//! - nothing as large as a picture is allocated before its header has been measured ([`decode`]), nor
//!   anything larger than the pixels that are allowed, nor tensors beyond [`MAX_TENSOR_BYTES`] at once;
//! - the values are written once, straight into the tensor that the model gets ([`write`]).
//!
//! Colour profiles are not applied and transparency is dropped, as `Image.convert("RGB")` does.

mod decode;
mod exif;
mod fit;
mod jpeg;
mod orient;
mod png;
mod resize;
mod webp;
mod write;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use fast_image_resize::Resizer;
use outhaul_types::{
    BoundInputs, Content, DataType, Dimension, Element, Field, ImageInput, ImageLayout,
    ModelSignature, Name, ShapePattern, Strings, Tensor, TensorSpec,
};
use smallvec::SmallVec;

use self::decode::decode;
use self::fit::Fit;
use self::resize::Resizing;
use self::write::{Table, Tables, Writer};
use crate::build::Built;
use crate::{BuildError, Grouping, InputSide, Part, Prepared, TransformError};

/// The outer input.
const INPUT: &str = "image";

/// The pictures that are decoded in one go: some tens of milliseconds.
const ROWS_IN_ONE_GO: usize = 16;

/// The most bytes of tensors that are made in one go: a file of 70 bytes may become megabytes.
const MAX_TENSOR_BYTES: usize = 256 << 20;

/// The most bytes that are kept to work in between requests, for each thread that was ever at work.
const KEPT_BYTES: usize = 8 << 20;

/// Pictures to one input of a model.
pub(crate) struct ImageSide {
    fit: Fit,
    tables: Tables,
    /// What nobody works with just now. Their memory costs more to get anew than a row's values do.
    resizers: Mutex<Vec<Resizer>>,
}

impl ImageSide {
    /// Fits a declaration to the model's inputs.
    pub(crate) fn build(
        spec: &ImageInput,
        inner: &ModelSignature,
    ) -> Result<Built<dyn InputSide>, BuildError> {
        let (fit, data_type) = Fit::new(spec, inner)?;
        let tables = Tables::new(spec, data_type, &inner.inputs[fit.index])?;
        let side = ImageSide { fit, tables, resizers: Mutex::default() };
        let rows = side.fit.fixed_batch.unwrap_or(1);
        if side.row_bytes().saturating_mul(rows) > MAX_TENSOR_BYTES {
            let (height, width) = side.fit.geometry.size();
            let problem = format!(
                "gives {height} x {width} pixels, of which {rows} would be a tensor of more than \
                 {MAX_TENSOR_BYTES} bytes"
            );
            return Err(BuildError::Declared { key: "input.resize", problem });
        }
        let image = TensorSpec {
            name: INPUT.into(),
            data_type: DataType::Bytes,
            shape: ShapePattern::ranked([Dimension::Any]),
            optional: false,
        };
        Ok(Built {
            side: Box::new(side),
            specs: vec![image],
            fields: vec![Field::of(Content::Image)],
        })
    }

    /// Returns the rows of a part: as many as may share a run.
    fn rows_at_once(&self, rows: usize, grouping: Grouping) -> Result<usize, TransformError> {
        match (self.fit.fixed_batch, grouping) {
            (Some(fixed), _) if rows.is_multiple_of(fixed) => Ok(fixed),
            (Some(fixed), _) => {
                let problem = format!("has {rows} pictures where the model takes {fixed} at once");
                Err(TransformError::Input { field: INPUT.into(), problem })
            }
            (None, Grouping::Alone) => Ok(1),
            (None, Grouping::Equal(most)) => Ok(most.get()),
            (None, Grouping::Together) => Ok(rows),
        }
    }

    fn row_elements(&self) -> usize {
        let (height, width) = self.fit.geometry.size();
        self.fit.channels.count().saturating_mul(height as usize).saturating_mul(width as usize)
    }

    fn row_bytes(&self) -> usize {
        self.row_elements().saturating_mul(self.tables.element_size())
    }

    fn resizer(&self) -> Resizer {
        let mut resizers = self.resizers.lock().unwrap_or_else(PoisonError::into_inner);
        resizers.pop().unwrap_or_default()
    }

    fn keep(&self, resizer: Resizer) {
        if resizer.size_of_internal_buffers() <= KEPT_BYTES {
            self.resizers.lock().unwrap_or_else(PoisonError::into_inner).push(resizer);
        }
    }

    fn tensor(&self, files: &Strings, rows: Range<usize>) -> Result<Tensor, TransformError> {
        match &self.tables {
            Tables::Fp32(table) => self.tensor_of(files, rows, table),
            Tables::Fp16(table) => self.tensor_of(files, rows, table),
            Tables::Bf16(table) => self.tensor_of(files, rows, table),
            Tables::Uint8(table) => self.tensor_of(files, rows, table),
        }
    }

    fn tensor_of<T: Element + Send>(
        &self,
        files: &Strings,
        rows: Range<usize>,
        table: &Table<T>,
    ) -> Result<Tensor, TransformError> {
        let Fit { geometry, filter, channels, layout, max_pixels, .. } = self.fit;
        let writer = Writer { channels, layout, table };
        let mut resizing = Resizing { geometry, filter, max_pixels, resizer: self.resizer() };
        let mut elements = Vec::with_capacity(rows.len() * self.row_elements());
        for row in rows.clone() {
            let refused = |problem: decode::Refused| TransformError::Row {
                row,
                field: INPUT.into(),
                problem: problem.to_string(),
            };
            let file = files.get(row).unwrap_or_default();
            let picture = decode(file, max_pixels).map_err(refused)?;
            let picture = writer.prepare(picture);
            let picture = resizing.apply(picture).map_err(refused)?;
            writer.write(&picture, &mut elements);
        }
        self.keep(resizing.resizer);
        let (height, width) = geometry.size();
        let (height, width, count) = (height as usize, width as usize, channels.count());
        let shape = match layout {
            ImageLayout::Nchw => [rows.len(), count, height, width],
            ImageLayout::Nhwc => [rows.len(), height, width, count],
        };
        Tensor::from_vec(shape, elements).map_err(|error| TransformError::Input {
            field: INPUT.into(),
            problem: format!("cannot become a tensor: {error}"),
        })
    }
}

impl InputSide for ImageSide {
    fn prepare(
        &self,
        inputs: &BoundInputs,
        rows: usize,
        grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        let files = inputs.first().and_then(Option::as_ref).and_then(Tensor::as_strings);
        let Some(files) = files.filter(|files| files.len() == rows) else {
            let (field, problem) = (Name::from(INPUT), "must be BYTES [batch]".to_owned());
            return Err(TransformError::Input { field, problem });
        };
        let most = self.rows_at_once(rows, grouping)?;
        let part = |start: usize| {
            let rows = start..rows.min(start.saturating_add(most));
            let mut inputs: BoundInputs = SmallVec::from_elem(None, self.fit.inputs);
            inputs[self.fit.index] = Some(self.tensor(files, rows.clone())?);
            Ok(Part { inputs, rows: rows.collect(), encodings: Vec::new() })
        };
        let parts = (0..rows).step_by(most).map(part).collect::<Result<_, TransformError>>()?;
        Ok(Prepared { parts, rows, tokens: None })
    }

    fn is_heavy(&self, _rows: usize) -> bool {
        true
    }

    fn rows_in_one_go(&self) -> usize {
        let affordable = MAX_TENSOR_BYTES / self.row_bytes().max(1);
        let fixed = self.fit.fixed_batch.unwrap_or(1).max(1);
        fixed * (ROWS_IN_ONE_GO.min(affordable) / fixed).max(1)
    }
}
