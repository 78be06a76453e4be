//! What stands between callers and a model: texts, images and rows to tensors, and tensors to labels,
//! vectors and values.
//!
//! A [`Transform`] is built once, when a version is loaded, from what the user declared
//! ([`TransformSpec`]) and what the model's file says ([`ModelSignature`]). It then turns each request's
//! tensors of the *outer* signature (texts and pictures as `BYTES [batch]`, columns as `[batch]`) into
//! the model's own (the *inner* signature), and the model's outputs into the outer ones.
//!
//! The two sides are independent of each other: a request may send the model's own tensors and ask for
//! the transform's outputs ([`Transform::adopt`]), or the other way round.
//!
//! Invariants:
//! - everything that can be found wrong with a declaration is found by [`Transform::build`];
//! - [`Transform::prepare`] either prepares all rows of a request or says which row and which field
//!   it cannot take: nothing is half done;
//! - a row's answer does not depend on the other rows of its request: rows of different lengths go to
//!   the model in parts of their own ([`Part`]), and nothing is padded unless the caller asks for
//!   tensors of the whole request.
//!
//! Pure: beside the files that a declaration names, nothing is read; there is no async, no thread and
//! no log here. What a request must not cost is bounded before it is spent (pixels, tokens).

mod build;
mod error;
mod image;
mod output;
mod part;
mod rows;
mod text;

use std::ops::Range;

use outhaul_types::{
    BindError, BoundInputs, Interface, ModelSignature, Task, Tensor, Tensors, TransformSpec,
};
use smallvec::SmallVec;

pub use error::{BuildError, TransformError};
pub use part::{Grouping, Part, Prepared};

/// What stands between callers and one model version.
pub struct Transform {
    input: Option<Box<dyn InputSide>>,
    output: Option<Box<dyn OutputSide>>,
    outer: ModelSignature,
    interface: Interface,
}

/// From the outer inputs to the model's.
trait InputSide: Send + Sync {
    /// Turns a request's tensors, in the order of the outer inputs and bound to them, into parts of the
    /// model's inputs. All inputs agree on `rows`, which is at least 1.
    fn prepare(
        &self,
        inputs: &BoundInputs,
        rows: usize,
        grouping: Grouping,
    ) -> Result<Prepared, TransformError>;

    /// Whether preparing so many rows takes so long (20 microseconds and more) that it must not happen
    /// on a thread that serves connections.
    fn is_heavy(&self, rows: usize) -> bool;

    /// The most rows that are prepared in one go, so that a large request neither holds all of its
    /// tensors at once nor a thread for long. A multiple of the rows that the model's file fixes.
    fn rows_in_one_go(&self) -> usize;

    /// Whether rows may differ in the shape of their tensors.
    fn shapes_vary(&self) -> bool {
        false
    }

    /// Fills in what follows from the model's own inputs that a caller gave: the mask of token ids that
    /// come without one. `inputs` are in the model's order.
    fn complete(&self, inputs: BoundInputs) -> Result<BoundInputs, TransformError> {
        Ok(inputs)
    }

    /// Whether every input of the model that is required but these can be filled in by
    /// [`InputSide::complete`]; `index` is the model's input.
    fn completes(&self, _index: usize) -> bool {
        false
    }
}

/// From the model's outputs to the outer ones.
trait OutputSide: Send + Sync {
    /// Turns the model's outputs for one part, in the model's order, into the outer outputs: one row
    /// for each row of the part.
    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError>;

    /// Whether the parts must keep what the tokenizer said of their texts.
    fn needs_encodings(&self) -> bool {
        false
    }
}

impl Transform {
    /// Reads the files that a declaration names and fits it to the model's own signature. `None` where
    /// nothing is declared.
    ///
    /// # Errors
    ///
    /// Fails where a file cannot be read, or the declaration does not fit the model.
    pub fn build(
        spec: &TransformSpec,
        inner: &ModelSignature,
    ) -> Result<Option<Transform>, BuildError> {
        if spec.is_empty() {
            return Ok(None);
        }
        build::build(spec, inner).map(Some)
    }

    /// Returns what callers send and get.
    pub fn outer(&self) -> &ModelSignature {
        &self.outer
    }

    /// Returns what that means.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether [`Transform::prepare`] of so many rows is too slow for a thread that serves connections.
    pub fn is_heavy(&self, rows: usize) -> bool {
        self.input.as_ref().is_some_and(|input| input.is_heavy(rows))
    }

    /// Whether rows may become tensors of different shapes: texts do.
    pub fn shapes_vary(&self) -> bool {
        self.input.as_ref().is_some_and(|input| input.shapes_vary())
    }

    /// Whether the model's own outputs are what callers get, so that rows of different lengths have to
    /// be one tensor.
    pub fn gives_tensors(&self) -> bool {
        self.interface.task == Task::Tensors
    }

    /// Returns the rows of tensors that are bound to the outer signature.
    ///
    /// # Errors
    ///
    /// Fails where the inputs do not agree on them, and where there are none.
    pub fn rows(&self, inputs: &BoundInputs) -> Result<usize, TransformError> {
        let agreed = self.outer.rows(inputs)?;
        if self.input.is_none() {
            return Ok(agreed.unwrap_or(1));
        }
        // Columns that may be left out do not count in the signature's own check.
        let mut given = self
            .outer
            .inputs
            .iter()
            .zip(inputs)
            .filter_map(|(spec, tensor)| Some((&spec.name, tensor.as_ref()?.shape().rows()?)));
        let Some((first, rows)) = given.next() else { return Ok(1) };
        if let Some((name, received)) = given.find(|(_, own)| *own != rows) {
            let (name, first) = (name.clone(), first.clone());
            return Err(BindError::RowsDiffer { name, received, first, expected: rows }.into());
        }
        if rows == 0 { Err(TransformError::NoRows) } else { Ok(rows) }
    }

    /// Returns the rows in which a request is prepared, one range after the other.
    pub fn chunks(&self, rows: usize, grouping: Grouping) -> Vec<Range<usize>> {
        let in_one_go = match &self.input {
            Some(input) if !(input.shapes_vary() && grouping == Grouping::Together) => {
                input.rows_in_one_go()
            }
            Some(_) | None => rows,
        };
        let in_one_go = in_one_go.max(1);
        let chunk = |start: usize| start..rows.min(start.saturating_add(in_one_go));
        (0..rows).step_by(in_one_go).map(chunk).collect()
    }

    /// Turns tensors that are bound to the outer signature into the model's own.
    ///
    /// # Errors
    ///
    /// As [`Transform::rows`] and [`Transform::prepare_rows`].
    pub fn prepare(
        &self,
        inputs: &BoundInputs,
        grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        self.prepare_rows(inputs, 0..self.rows(inputs)?, grouping)
    }

    /// Turns some rows of tensors that are bound to the outer signature into the model's own. The rows
    /// of the parts count from the first of `rows`.
    ///
    /// # Errors
    ///
    /// Fails where a row cannot be taken, naming the row and the input.
    pub fn prepare_rows(
        &self,
        inputs: &BoundInputs,
        rows: Range<usize>,
        grouping: Grouping,
    ) -> Result<Prepared, TransformError> {
        let Some(input) = &self.input else {
            return Ok(Prepared::whole(inputs.clone(), rows.len()));
        };
        let is_all = |tensor: &Tensor| tensor.shape().rows() == Some(rows.len());
        let sliced = inputs.iter().map(|tensor| {
            let tensor = tensor.as_ref()?;
            Some(if is_all(tensor) { tensor.clone() } else { tensor.slice_rows(rows.clone()) })
        });
        let prepared = input.prepare(&sliced.collect(), rows.len(), grouping);
        prepared.map_err(|error| match error {
            TransformError::Row { row, field, problem } => {
                TransformError::Row { row: row + rows.start, field, problem }
            }
            error => error,
        })
    }

    /// Takes tensors in the model's own form, in the model's order, with `None` where the caller left
    /// one out. What follows from the others is filled in.
    ///
    /// # Errors
    ///
    /// Fails where a tensor is empty or longer than texts may be.
    pub fn adopt(&self, inputs: BoundInputs) -> Result<BoundInputs, TransformError> {
        let Some(input) = &self.input else { return Ok(inputs) };
        let inner = self.interface.inner.iter().flat_map(|inner| &inner.inputs);
        let mut given = inner.zip(&inputs);
        let is_empty = |tensor: &Option<Tensor>| tensor.as_ref().is_some_and(Tensor::is_empty);
        if let Some((spec, _)) = given.find(|(_, tensor)| is_empty(tensor)) {
            let problem = "has no elements".to_owned();
            return Err(TransformError::Input { field: spec.name.clone(), problem });
        }
        input.complete(inputs)
    }

    /// Whether a caller who sends the model's own tensors may leave out this one.
    pub fn fills_in(&self, index: usize) -> bool {
        self.input.as_ref().is_some_and(|input| input.completes(index))
    }

    /// Turns the model's outputs for one part, in the model's order, into the outer outputs of its
    /// rows.
    ///
    /// # Errors
    ///
    /// Fails where the model's outputs are not what its file promised, or where what was sent does not
    /// hold what the task needs.
    pub fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        match &self.output {
            Some(output) => output.finish(part, outputs),
            None => Ok(SmallVec::from(outputs)),
        }
    }
}
