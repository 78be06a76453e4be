//! Named columns to the model's inputs.
//!
//! Each column is an outer input of its own, one value a row: `FP64 [batch]` for numbers and truth
//! values, `BYTES [batch]` for texts, categories and dates. A value that is missing is NaN, or an empty
//! text; a column that is left out is missing in every row. Columns are written straight into the
//! tensors that the model takes, one beside the other in the order of their declaration.
//!
//! Invariant: what the model gets is what was sent, exactly, up to the rounding of its type. A number
//! that the type does not hold is an error of its row, never a neighbour of it.
//!
//! What one column does with one value stands in `column`, which column goes where in `fit`.

mod category;
mod cell;
mod column;
mod date;
mod fit;

use std::num::NonZeroUsize;

use bytes::Bytes;
use half::{bf16, f16};
use outhaul_types::{
    BindError, BoundInputs, Content, DataType, Dimension, Field, ModelSignature, Name, RowsInput,
    Shape, ShapePattern, Strings, Tensor, TensorSpec,
};
use smallvec::SmallVec;

use crate::build::Built;
use crate::{BuildError, Grouping, InputSide, Part, Prepared, TransformError};
use cell::{Cell, Truth};
use column::{Column, Target};

/// The key that errors of a declaration name.
const COLUMNS: &str = "input.columns";

/// The cells that are cheaper to turn into numbers at once than to hand to another thread.
const LIGHT_CELLS: usize = 2_000;

/// The rows that are prepared in one go.
const ROWS_IN_ONE_GO: usize = 8_192;

/// The input side of rows.
pub(crate) struct RowsSide {
    /// In the order of the outer inputs.
    columns: Vec<Column>,
    packs: Vec<Pack>,
    /// How many inputs the model has.
    inner: usize,
    /// How many rows it takes at a time, where its file fixes that.
    rows_at_once: Option<NonZeroUsize>,
}

type RowShape = SmallVec<[usize; 4]>;

/// One input of the model, made of columns.
struct Pack {
    /// Its place in the model's signature.
    input: usize,
    data_type: DataType,
    /// The shape of one row.
    row_shape: RowShape,
    /// The elements of one row.
    width: usize,
    /// The columns and where in a row each begins.
    members: Vec<(usize, usize)>,
}

impl RowsSide {
    pub(crate) fn build(
        spec: &RowsInput,
        inner: &ModelSignature,
    ) -> Result<Built<dyn InputSide>, BuildError> {
        let fit::Fitted { columns, packs, rows_at_once } = fit::fit(spec, inner)?;
        let side = RowsSide { columns, packs, inner: inner.inputs.len(), rows_at_once };
        let specs = side.columns.iter().map(outer_spec).collect();
        let fields = side.columns.iter().map(field).collect();
        Ok(Built { side: Box::new(side), specs, fields })
    }

    /// Returns how many rows all columns that are given agree on; `otherwise` where none is.
    fn rows(&self, inputs: &BoundInputs, otherwise: usize) -> Result<usize, TransformError> {
        let mut agreed: Option<(&Name, usize)> = None;
        for (column, tensor) in self.columns.iter().zip(inputs) {
            let Some(received) = tensor.as_ref().map(Tensor::len) else { continue };
            match agreed {
                None => agreed = Some((&column.name, received)),
                Some((_, expected)) if expected == received => {}
                Some((first, expected)) => {
                    let (name, first) = (column.name.clone(), first.clone());
                    return Err(BindError::RowsDiffer { name, received, first, expected }.into());
                }
            }
        }
        match agreed.map_or(otherwise, |(_, rows)| rows) {
            0 => Err(TransformError::NoRows),
            rows => Ok(rows),
        }
    }

    /// Returns how many rows each part has, but for the last.
    fn rows_a_part(&self, rows: usize, grouping: Grouping) -> Result<usize, TransformError> {
        match (self.rows_at_once, grouping) {
            (Some(fixed), _) if rows.is_multiple_of(fixed.get()) => Ok(fixed.get()),
            (Some(fixed), _) => Err(TransformError::Input {
                field: self.columns[0].name.clone(),
                problem: format!("has {rows} rows, where the model takes {fixed} at a time"),
            }),
            (None, Grouping::Alone) => Ok(1),
            (None, Grouping::Equal(most)) => Ok(most.get()),
            (None, Grouping::Together) => Ok(rows),
        }
    }

    fn pack(
        &self,
        pack: &Pack,
        given: &BoundInputs,
        rows: usize,
    ) -> Result<Tensor, TransformError> {
        match pack.data_type {
            DataType::Bool => self.numbers::<Truth>(pack, given, rows),
            DataType::Uint8 => self.numbers::<u8>(pack, given, rows),
            DataType::Uint16 => self.numbers::<u16>(pack, given, rows),
            DataType::Uint32 => self.numbers::<u32>(pack, given, rows),
            DataType::Uint64 => self.numbers::<u64>(pack, given, rows),
            DataType::Int8 => self.numbers::<i8>(pack, given, rows),
            DataType::Int16 => self.numbers::<i16>(pack, given, rows),
            DataType::Int32 => self.numbers::<i32>(pack, given, rows),
            DataType::Int64 => self.numbers::<i64>(pack, given, rows),
            DataType::Fp16 => self.numbers::<f16>(pack, given, rows),
            DataType::Bf16 => self.numbers::<bf16>(pack, given, rows),
            DataType::Fp32 => self.numbers::<f32>(pack, given, rows),
            DataType::Fp64 => self.numbers::<f64>(pack, given, rows),
            DataType::Bytes => self.texts(pack, given, rows),
        }
    }

    fn numbers<T: Cell>(
        &self,
        pack: &Pack,
        given: &BoundInputs,
        rows: usize,
    ) -> Result<Tensor, TransformError> {
        let mut cells = vec![T::default(); rows * pack.width];
        for &(column, offset) in &pack.members {
            let mut target = Target { cells: &mut cells, width: pack.width, offset };
            self.columns[column].write(given[column].as_ref(), &mut target)?;
        }
        Ok(T::tensor(pack.shape(rows), cells))
    }

    fn texts(
        &self,
        pack: &Pack,
        given: &BoundInputs,
        rows: usize,
    ) -> Result<Tensor, TransformError> {
        let mut bytes = Vec::new();
        let mut spans = Vec::with_capacity(rows * pack.width);
        for row in 0..rows {
            for &(column, _) in &pack.members {
                let strings = given[column].as_ref().and_then(Tensor::as_strings);
                let value = strings.and_then(|strings| strings.get(row)).unwrap_or_default();
                let text = self.columns[column].text(row, value)?;
                let start = bytes.len();
                bytes.extend_from_slice(text.as_bytes());
                spans.push(start..bytes.len());
            }
        }
        let strings = Strings::from_spans(Bytes::from(bytes), spans);
        let strings = strings.expect("each span ends where the bytes ended");
        Ok(Tensor::from_strings(pack.shape(rows), strings)
            .expect("a pack has rows times width cells"))
    }
}

impl Pack {
    fn shape(&self, rows: usize) -> Shape {
        Shape::new(std::iter::once(rows).chain(self.row_shape.iter().copied()))
    }
}

impl InputSide for RowsSide {
    fn prepare(
        &self,
        inputs: &BoundInputs,
        rows: usize,
        grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        // Columns that may be missing do not count in the signature's own check.
        let rows = self.rows(inputs, rows)?;
        let most = self.rows_a_part(rows, grouping)?;
        let mut whole: BoundInputs = SmallVec::new();
        whole.resize(self.inner, None);
        for pack in &self.packs {
            whole[pack.input] = Some(self.pack(pack, inputs, rows)?);
        }
        if rows <= most {
            return Ok(Prepared::whole(whole, rows));
        }
        let part = |first: usize| {
            let taken = first..rows.min(first.saturating_add(most));
            let slice = |tensor: &Option<Tensor>| Some(tensor.as_ref()?.slice_rows(taken.clone()));
            Part {
                inputs: whole.iter().map(slice).collect(),
                rows: taken.clone().collect(),
                encodings: Vec::new(),
            }
        };
        let parts = (0..rows).step_by(most).map(part).collect();
        Ok(Prepared { parts, rows, tokens: None })
    }

    fn is_heavy(&self, rows: usize) -> bool {
        rows.saturating_mul(self.columns.len()) > LIGHT_CELLS
    }

    fn rows_in_one_go(&self) -> usize {
        let fixed = self.rows_at_once.map_or(1, NonZeroUsize::get);
        fixed.saturating_mul(ROWS_IN_ONE_GO.div_ceil(fixed))
    }
}

fn outer_spec(column: &Column) -> TensorSpec {
    TensorSpec {
        name: column.name.clone(),
        data_type: match column.content() {
            Content::Number | Content::Boolean => DataType::Fp64,
            _ => DataType::Bytes,
        },
        shape: ShapePattern::ranked([Dimension::Any]),
        optional: column.may_be_missing,
    }
}

fn field(column: &Column) -> Field {
    Field { choices: column.choices(), ..Field::of(column.content()) }
}

#[cfg(test)]
mod tests;
