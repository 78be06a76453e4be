//! What a graph does to its rows: an abstract interpretation that compares a request run alone with
//! the same request joined with others.
//!
//! Each value is [`Value::Same`] in both runs, made of [`Value::Rows`], a few
//! [`Value::Numbers`] computed from shapes, or mixed. Every operator that may touch rows has a
//! transfer function (`elementwise`, `shape`, `linear`, `window`, `normalise`, `recurrent`,
//! `attention`, `classic`, `fused`); one that has none mixes rows as far as we know. What comes out as rows
//! throughout is exact.
//!
//! Invariant: "exact" is never a guess. Where a transfer function cannot tell, it says why, and that
//! reason is what the user reads.
//!
//! Not covered: a request that the model fails on also fails those that it is joined with, and
//! dimensions of size 0 other than the rows.

mod attention;
mod call;
mod classic;
mod elementwise;
mod evaluate;
mod fused;
mod linear;
mod normalise;
mod numbers;
mod recurrent;
mod reshape;
mod select;
mod shape;
mod size;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod window;

use std::collections::HashMap;

use outhaul_types::{Dimension, ModelSignature, ShapePattern, TensorSpec};

use crate::model::OnnxModel;
pub(crate) use evaluate::with_attributes;
use evaluate::{Evaluator, Scope};
use size::{Size, Symbols};
use value::{Dims, Value};

/// Whether requests can be joined along their first dimension, run together, and the answers parted
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowIndependence {
    /// Each request gets the answer that it would get alone, up to the rounding of matrix products
    /// that are blocked differently for another number of rows. This holds for requests that leave
    /// optional inputs out, whose inputs all have the same number of rows, and which agree in all
    /// other dimensions.
    Exact,
    /// An operator lets rows influence each other, or may do so for all that is known of it.
    Mixed {
        /// The node's name, or the value it makes where it has none.
        node: String,
        /// Its operator.
        operator: String,
        /// What it does.
        reason: String,
    },
    /// There is nothing to join along.
    NoBatch {
        /// Why.
        reason: String,
    },
}

/// Decides whether the rows of a model are independent of each other.
pub(crate) fn row_independence(model: &OnnxModel) -> RowIndependence {
    match analyse(model) {
        Ok(independence) => independence,
        Err(reason) => RowIndependence::NoBatch { reason },
    }
}

fn analyse(model: &OnnxModel) -> Result<RowIndependence, String> {
    outputs_may_have_rows(&model.signature)?;
    let batch = batch_name(&model.signature)?;
    let mut symbols = Symbols::default();
    let mut scope = Scope::default();
    let mut named = HashMap::new();
    for spec in model.signature.inputs.iter().filter(|spec| !spec.optional) {
        let dims = input_dims(spec, batch, &mut named, &mut symbols)?;
        scope.define(&spec.name, Value::of(dims)?);
    }
    let mut evaluator = Evaluator::new(model, &mut symbols);
    evaluator.graph(&model.graph, &mut scope);

    let mut first_mixed = None;
    for info in &model.graph.outputs {
        let name = &info.name;
        match scope.get(name) {
            Some(Value::Rows(rows)) if rows.axis() != 0 => {
                return Err(format!("output '{name}' has its rows along axis {}", rows.axis()));
            }
            Some(Value::Rows(rows)) if *rows.size() != Size::batch() => {
                return Err(format!("output '{name}' has more than one row for each of the input"));
            }
            Some(Value::Rows(_)) => {}
            Some(Value::Mixed(cause)) => {
                first_mixed.get_or_insert(cause.clone());
            }
            Some(Value::Same(_) | Value::Numbers(_)) | None => {
                return Err(format!("output '{name}' does not consist of rows"));
            }
        }
    }
    Ok(match first_mixed {
        None => RowIndependence::Exact,
        Some(cause) => RowIndependence::Mixed {
            node: cause.node.clone(),
            operator: cause.operator.clone(),
            reason: cause.reason.clone(),
        },
    })
}

/// Fails where an output declares that it has no rows.
fn outputs_may_have_rows(signature: &ModelSignature) -> Result<(), String> {
    if signature.outputs.is_empty() {
        return Err("the model has no outputs".to_owned());
    }
    for spec in &signature.outputs {
        if let ShapePattern::Ranked(dimensions) = &spec.shape {
            first_varies("output", spec, dimensions)?;
        }
    }
    Ok(())
}

/// Returns the name of the dimension that holds the rows, `None` where it has none.
fn batch_name(signature: &ModelSignature) -> Result<Option<&str>, String> {
    let mut names: Vec<&str> = Vec::new();
    let mut counted = 0;
    for spec in signature.inputs.iter().filter(|spec| !spec.optional) {
        let ShapePattern::Ranked(dimensions) = &spec.shape else {
            return Err(format!("input '{}' does not declare its dimensions", spec.name));
        };
        counted += 1;
        if let Some(name) = first_varies("input", spec, dimensions)?
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    match &*names {
        _ if counted == 0 => Err("the model takes no inputs".to_owned()),
        [first, second, ..] => {
            Err(format!("the inputs call their first dimension '{first}' and '{second}'"))
        }
        names => Ok(names.first().copied()),
    }
}

fn first_varies<'a>(
    side: &str,
    spec: &TensorSpec,
    dimensions: &'a [Dimension],
) -> Result<Option<&'a str>, String> {
    let name = &spec.name;
    match dimensions.first() {
        None => Err(format!("{side} '{name}' is a scalar")),
        Some(Dimension::Fixed(size)) => {
            Err(format!("{side} '{name}' has exactly {size} as its first dimension"))
        }
        Some(Dimension::Named(dimension)) => Ok(Some(dimension)),
        Some(Dimension::Any) => Ok(None),
    }
}

fn input_dims<'a>(
    spec: &'a TensorSpec,
    batch: Option<&str>,
    named: &mut HashMap<&'a str, Size>,
    symbols: &mut Symbols,
) -> Result<Dims, String> {
    let ShapePattern::Ranked(dimensions) = &spec.shape else { return Ok(Dims::new()) };
    let rest = dimensions.iter().skip(1).map(|dimension| match dimension {
        Dimension::Fixed(size) => {
            i64::try_from(*size).map(Size::known).map_err(|_| "a dimension is too large".to_owned())
        }
        Dimension::Named(name) if Some(name.as_str()) == batch => {
            Err(format!("input '{}' has dimension '{name}' in a second place", spec.name))
        }
        Dimension::Named(name) => {
            Ok(named.entry(name.as_str()).or_insert_with(|| symbols.dimension()).clone())
        }
        Dimension::Any => Ok(symbols.dimension()),
    });
    std::iter::once(Ok(Size::batch())).chain(rest).collect()
}
