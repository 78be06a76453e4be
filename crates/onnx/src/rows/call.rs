//! One node as a transfer function sees it: its inputs' abstract values and its settings.

use std::collections::HashMap;

use smallvec::smallvec;

use super::numbers::Numbers;
use super::size::{Size, Symbols};
use super::value::{Dims, Reason, Result, Rows, Value, broadcast};
use crate::graph::Node;

/// What an operator makes, in the order of its outputs.
pub(super) type Made = Vec<Value>;

/// A node and what is known of its inputs, none of which is mixed.
pub(super) struct Call<'a> {
    pub(super) node: &'a Node,
    /// `None` where an optional input is left out.
    pub(super) inputs: Vec<Option<Value>>,
    /// The version of the operator set that the node's operator is from.
    pub(super) opset: i64,
    pub(super) symbols: &'a mut Symbols,
    /// Constant floats by the name of their value.
    pub(super) floats: &'a HashMap<&'a str, Vec<f32>>,
}

impl Call<'_> {
    /// Returns an input that may be left out.
    pub(super) fn optional(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// Returns an input that the operator cannot do without.
    pub(super) fn value(&self, index: usize) -> Result<&Value> {
        self.optional(index).ok_or_else(|| format!("lacks its input {index}"))
    }

    /// Returns the rows of an input, or `None` where it is the same for all requests. Fails where
    /// it depends on the number of rows in another way.
    pub(super) fn rows(&self, index: usize) -> Result<Option<&Rows>> {
        match self.value(index)? {
            Value::Rows(rows) => Ok(Some(rows)),
            value if value.is_batch_free() => Ok(None),
            _ => Err(uses_row_count()),
        }
    }

    /// Returns the dimensions of an input, which must not depend on the number of rows by its
    /// elements.
    pub(super) fn dims(&self, index: usize) -> Result<Dims> {
        let value = self.value(index)?;
        if !value.is_batch_free() && value.rows().is_none() {
            return Err(uses_row_count());
        }
        value.dims().ok_or_else(|| "takes a value whose shape is not known".to_owned())
    }

    /// Returns a tensor of numbers that is followed element by element.
    pub(super) fn numbers(&self, index: usize) -> Option<&Numbers> {
        match self.optional(index) {
            Some(Value::Numbers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// Returns an input whose elements are all known numbers.
    pub(super) fn known(&self, index: usize) -> Option<Vec<i64>> {
        self.numbers(index).and_then(Numbers::known)
    }

    /// Returns an input of constant floats.
    pub(super) fn known_floats(&self, index: usize) -> Option<&[f32]> {
        self.floats.get(self.node.input(index)?).map(Vec::as_slice)
    }

    /// Fails unless the inputs from `first` on are left out or the same for all requests.
    pub(super) fn only_constants_from(&self, first: usize) -> Result<()> {
        let mut rest = self.inputs.iter().skip(first).flatten();
        if rest.all(Value::is_batch_free) {
            Ok(())
        } else {
            Err("takes its settings or weights from the rows".to_owned())
        }
    }

    /// Fails unless these inputs are left out or the same for all requests.
    pub(super) fn only_constants(&self, indices: &[usize]) -> Result<()> {
        if indices.iter().all(|&index| self.optional(index).is_none_or(Value::is_batch_free)) {
            Ok(())
        } else {
            Err("takes its settings or weights from the rows".to_owned())
        }
    }

    /// Returns an axis counted from the front.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        normal_axis(axis, rank)
    }

    /// Returns the attribute `axis`, or its default, counted from the front.
    pub(super) fn axis_attribute(&self, default: i64, rank: usize) -> Result<usize> {
        normal_axis(self.node.int("axis").unwrap_or(default), rank)
    }

    /// Returns the common shape of several inputs.
    pub(super) fn broadcast_inputs(&mut self, indices: &[usize]) -> Result<Dims> {
        let mut common: Dims = smallvec![];
        for &index in indices {
            let dims = self.dims(index)?;
            common = broadcast(&common, &dims, self.symbols)?;
        }
        Ok(common)
    }

    /// Returns whether any input holds rows.
    pub(super) fn has_rows(&self) -> bool {
        self.inputs.iter().flatten().any(|value| value.rows().is_some())
    }

    /// Returns how many outputs the node asks for.
    pub(super) fn output_count(&self) -> usize {
        self.node.outputs.len()
    }

    /// Returns whether the node asks for an output.
    pub(super) fn wants(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(|name| !name.is_empty())
    }

    /// Returns a new dimension.
    pub(super) fn dimension(&mut self) -> Size {
        self.symbols.dimension()
    }
}

pub(super) fn normal_axis(axis: i64, rank: usize) -> Result<usize> {
    let signed_rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let counted = if axis < 0 { axis.checked_add(signed_rank) } else { Some(axis) };
    counted
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("names axis {axis} of {rank}"))
}

pub(super) fn uses_row_count() -> Reason {
    "computes with the number of rows".to_owned()
}

/// Wraps the only output.
pub(super) fn one(dims: Dims) -> Result<Made> {
    Ok(vec![Value::of(dims)?])
}

/// Wraps several outputs.
pub(super) fn several(all: impl IntoIterator<Item = Dims>) -> Result<Made> {
    all.into_iter().map(Value::of).collect()
}
