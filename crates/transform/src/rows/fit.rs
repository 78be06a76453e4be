//! Which column is part of which input of the model.
//!
//! Invariant: each column is part of exactly one input, each input that the model needs is made of
//! columns, and a row has as many elements as the model's file fixes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use outhaul_types::{
    Column as Declared, Dimension, ModelSignature, RowsInput, ShapePattern, TensorSpec,
};
use smallvec::{SmallVec, smallvec};

use super::column::{Column, width, wrong};
use super::{COLUMNS, Pack, RowShape};
use crate::BuildError;

pub(super) struct Fitted {
    pub(super) columns: Vec<Column>,
    pub(super) packs: Vec<Pack>,
    /// How many rows the model takes at a time, where its file fixes that.
    pub(super) rows_at_once: Option<NonZeroUsize>,
}

pub(super) fn fit(spec: &RowsInput, inner: &ModelSignature) -> Result<Fitted, BuildError> {
    if spec.columns.is_empty() {
        let problem = "must name at least one column".to_owned();
        return Err(BuildError::Declared { key: COLUMNS, problem });
    }
    let inputs = inputs_of(&spec.columns, inner)?;
    let mut columns = Vec::with_capacity(spec.columns.len());
    let mut packs: BTreeMap<usize, Pack> = BTreeMap::new();
    for (index, (declared, &input)) in spec.columns.iter().zip(&inputs).enumerate() {
        if spec.columns[..index].iter().any(|earlier| earlier.name == declared.name) {
            return Err(wrong(&declared.name, "is there twice"));
        }
        let data_type = inner.inputs[input].data_type;
        columns.push(Column::build(declared, data_type)?);
        let pack = packs.entry(input).or_insert_with(|| Pack {
            input,
            data_type,
            row_shape: SmallVec::new(),
            width: 0,
            members: Vec::new(),
        });
        pack.members.push((index, pack.width));
        pack.width += width(declared, data_type);
    }
    let mut rows_at_once = None;
    for (index, input) in inner.inputs.iter().enumerate() {
        match packs.get_mut(&index) {
            Some(pack) => {
                let (rows, row_shape) = shape(input, pack.width)?;
                pack.row_shape = row_shape;
                if let (Some(first), Some(rows)) = (rows_at_once, rows)
                    && first != rows
                {
                    let problem = format!("takes {rows} rows at a time, another input {first}");
                    return Err(unfit(input, problem));
                }
                rows_at_once = rows_at_once.or(rows);
            }
            None if input.optional => {}
            None => {
                let problem = format!("make nothing of the model's input '{}'", input.name);
                return Err(BuildError::Declared { key: COLUMNS, problem });
            }
        }
    }
    Ok(Fitted { columns, packs: packs.into_values().collect(), rows_at_once })
}

/// Returns the input of the model for each column.
fn inputs_of(columns: &[Declared], inner: &ModelSignature) -> Result<Vec<usize>, BuildError> {
    let by_name: Vec<Option<usize>> = columns
        .iter()
        .map(|column| match &column.input {
            None => Ok(inner.input_index(&column.name)),
            Some(name) => inner.input_index(name).map(Some).ok_or_else(|| BuildError::Unknown {
                key: COLUMNS,
                name: name.clone(),
                expected: names(inner.inputs.iter()),
            }),
        })
        .collect::<Result<_, _>>()?;
    let unused = |optional: bool| {
        let inputs = inner.inputs.iter().enumerate();
        inputs
            .filter(|(index, input)| input.optional == optional && !by_name.contains(&Some(*index)))
            .map(|(index, _)| index)
            .collect::<Vec<usize>>()
    };
    let mut rest = unused(false);
    if rest.is_empty() {
        rest = unused(true);
    }
    let input_of = |(column, found): (&Declared, &Option<usize>)| match (found, rest.as_slice()) {
        (Some(index), _) => Ok(*index),
        (None, [only]) => Ok(*only),
        (None, []) => {
            let problem = "the model has no input that is left for it";
            Err(wrong(&column.name, problem))
        }
        (None, several) => {
            let several = names(several.iter().map(|&index| &inner.inputs[index]));
            Err(wrong(&column.name, format!("must say by input which of {several} it is part of")))
        }
    };
    columns.iter().zip(&by_name).map(input_of).collect()
}

/// Returns how many rows an input takes, where its file fixes that, and the shape of one of `width`
/// elements, as the file calls for it.
fn shape(input: &TensorSpec, width: usize) -> Result<(Option<NonZeroUsize>, RowShape), BuildError> {
    let unfit = |problem| unfit(input, problem);
    let dimensions = match &input.shape {
        ShapePattern::AnyRank => return Ok((None, smallvec![width])),
        ShapePattern::Ranked(dimensions) => dimensions,
    };
    let Some((rows, inside)) = dimensions.split_first() else {
        return Err(unfit("has no rows".to_owned()));
    };
    let none = || unfit("takes no rows at all".to_owned());
    let rows = rows.size().map(|rows| NonZeroUsize::new(rows).ok_or_else(none)).transpose()?;
    let fixed: usize = inside.iter().filter_map(Dimension::size).product();
    let open = inside.iter().filter(|dimension| dimension.size().is_none()).count();
    let declared = match width {
        1 => "1 is declared".to_owned(),
        _ => format!("{width} are declared"),
    };
    match open {
        0 if fixed == width => {}
        1 if fixed > 0 && width.is_multiple_of(fixed) => {}
        0 => return Err(unfit(format!("takes {fixed} columns, where {declared}"))),
        1 => return Err(unfit(format!("takes columns by {fixed}, where {declared}"))),
        _ => return Err(unfit("has more than one open size beside the rows".to_owned())),
    }
    let sizes = inside.iter().map(|dimension| dimension.size().unwrap_or(width / fixed));
    Ok((rows, sizes.collect()))
}

fn unfit(input: &TensorSpec, problem: String) -> BuildError {
    BuildError::Unfit {
        key: COLUMNS,
        name: input.name.clone(),
        data_type: input.data_type,
        shape: input.shape.clone(),
        problem,
    }
}

fn names<'s>(inputs: impl Iterator<Item = &'s TensorSpec>) -> String {
    inputs.map(|input| format!("'{}'", input.name)).collect::<Vec<_>>().join(", ")
}
