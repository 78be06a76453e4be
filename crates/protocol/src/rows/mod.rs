//! Rows of named values to tensors and back: what every contract but the Open Inference Protocol has
//! in common.
//!
//! A row is an object by input name, or, where that leaves nothing open, a bare value: the only input's,
//! or a list of one value for each input in the signature's order. `{"b64": "..."}` is bytes. `null` or
//! no key at all is a missing value, where the model knows what to do without. Nested lists must be as
//! deep as the signature says and of one shape in all rows: nothing is padded or cut.
//!
//! Names that only the model's own signature has (where a transform stands before the model) make the
//! request one of tensors, as they do in the Open Inference Protocol.
//!
//! Invariant: an error names the row, counted from 0, and the field; a request is taken as a whole or
//! not at all.
//!
//! Start with [`decode_instances`]; [`encode_rows`] is the way back. Rows as text are in [`crate::csv`].

mod columns;
mod encode;
mod error;
pub(crate) mod fill;
mod json;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod walk;

use outhaul_types::{Content, Field, ModelSignature, NamedTensor, TensorSpec};
use smallvec::SmallVec;

pub use columns::decode_columns;
pub use encode::{RowWriter, encode_columns, encode_rows};
pub(crate) use encode::{Write, writer};
pub use error::RowError;
pub use json::{JsonValue, VALUE_BYTES, parse_json};

use self::fill::base64_of;
use self::walk::Filling;
pub(crate) use self::walk::takes_one_value;
use crate::error::excerpt;
use crate::{DecodeLimits, ProtocolError, Schema};

/// What a request of rows holds, ready for the router.
pub type Inputs = SmallVec<[NamedTensor; 2]>;

/// Reads a list of rows by what the model takes.
///
/// # Errors
///
/// Fails with the first thing that is wrong: rows that are none or more than
/// [`DecodeLimits::max_rows`], a key that is no input, a value that is missing, of the wrong kind, out of
/// range, or of another shape than the signature or the first row says.
pub fn decode_instances(
    rows: &JsonValue<'_>,
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Inputs, ProtocolError> {
    let JsonValue::List(rows) = rows else {
        let problem = format!("the rows must be a list, got {}", rows.kind());
        return Err(RowError { problem, ..RowError::default() }.into());
    };
    check_rows(rows.len(), limits)?;
    let given = Given::of(schema, &rows[0]);
    let mut inputs: Vec<Filling<'_>> = given
        .inputs()
        .map(|(spec, field)| Filling::new(spec, field, rows.len(), limits))
        .collect::<Result<_, _>>()?;
    for input in &inputs {
        input.has_rows()?;
    }
    let mut values: Vec<Option<&JsonValue<'_>>> = Vec::new();
    for (row, value) in rows.iter().enumerate() {
        values.clear();
        values.resize(inputs.len(), None);
        given.part(row, value, &mut values)?;
        for (input, value) in inputs.iter_mut().zip(&values) {
            input.row(row, *value)?;
        }
    }
    let tensors = inputs.into_iter().map(|input| input.finish(Some(rows.len())));
    tensors.filter_map(Result::transpose).collect()
}

/// Checks how many rows there are.
pub(crate) fn check_rows(rows: usize, limits: &DecodeLimits) -> Result<(), ProtocolError> {
    match rows {
        0 => Err(ProtocolError::NoRows),
        _ if rows > limits.max_rows => {
            Err(ProtocolError::TooManyRows { rows, limit: limits.max_rows })
        }
        _ => Ok(()),
    }
}

/// The inputs that a request can be about.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) signature: &'a ModelSignature,
    fields: &'a [Field],
}

const TENSOR: &Field = &Field { content: Content::Tensor, choices: None, unit: None };

impl<'a> Given<'a> {
    /// What callers see of a model.
    pub(crate) fn outer(schema: &Schema<'a>) -> Self {
        Given { signature: schema.signature, fields: &schema.interface.inputs }
    }

    /// Chooses between what callers see and the model's own inputs, by the keys of an object.
    pub(crate) fn of(schema: &Schema<'a>, value: &JsonValue<'_>) -> Self {
        match value.as_object() {
            Some(members) if schema.interface.inner.is_some() => {
                Given::of_names(schema, &members.iter().map(|(key, _)| &**key).collect::<Vec<_>>())
            }
            _ => Given::outer(schema),
        }
    }

    /// Chooses between what callers see and the model's own inputs, by their names.
    pub(crate) fn of_names(schema: &Schema<'a>, names: &[&str]) -> Self {
        let outer = Given::outer(schema);
        let Some(inner) = &schema.interface.inner else {
            return outer;
        };
        let among = |signature: &ModelSignature| {
            names.iter().all(|name| signature.input_index(name).is_some())
        };
        match !names.is_empty() && !among(outer.signature) && among(inner) {
            true => Given { signature: inner, fields: &[] },
            false => outer,
        }
    }

    pub(crate) fn inputs(self) -> impl Iterator<Item = (&'a TensorSpec, &'a Field)> {
        let fields = self.fields.iter().chain(std::iter::repeat(TENSOR));
        self.signature.inputs.iter().zip(fields)
    }

    /// Parts one row into the values of its inputs.
    fn part<'v, 'j>(
        self,
        row: usize,
        value: &'v JsonValue<'j>,
        values: &mut [Option<&'v JsonValue<'j>>],
    ) -> Result<(), ProtocolError> {
        if let JsonValue::Object(members) = value
            && (base64_of(value).is_none() || self.signature.input_index("b64").is_some())
        {
            return self.part_object(row, members, values);
        }
        if let Some(only) = self.only_input(value) {
            values[only] = Some(value);
            return Ok(());
        }
        match value {
            JsonValue::List(items) if self.is_row_of_values() => {
                if items.len() != values.len() {
                    let (given, wanted) = (items.len(), values.len());
                    let names = names(self.signature);
                    let problem =
                        format!("has {given} values where the model takes {wanted}: {names}");
                    return Err(RowError::of_row(row, problem).into());
                }
                for (place, item) in values.iter_mut().zip(items) {
                    *place = Some(item);
                }
                Ok(())
            }
            other => {
                let (names, kind) = (names(self.signature), other.kind());
                let problem = format!("must be an object with {names}, got {kind}");
                Err(RowError::of_row(row, problem).into())
            }
        }
    }

    fn part_object<'v, 'j>(
        self,
        row: usize,
        members: &'v [(std::borrow::Cow<'j, str>, JsonValue<'j>)],
        values: &mut [Option<&'v JsonValue<'j>>],
    ) -> Result<(), ProtocolError> {
        let specs = &self.signature.inputs;
        for (position, (key, value)) in members.iter().enumerate() {
            // Rows usually name their fields in the signature's order.
            let here = specs.get(position).is_some_and(|spec| spec.name == **key);
            let index = if here { Some(position) } else { self.signature.input_index(key) };
            let Some(index) = index else {
                return Err(unknown(Some(row), key, self.signature));
            };
            values[index] = Some(value);
        }
        Ok(())
    }

    /// Returns the input that a bare value is for: the only one, or the only one that must be given.
    fn only_input(self, value: &JsonValue<'_>) -> Option<usize> {
        let specs = &self.signature.inputs;
        if specs.len() == 1 {
            return Some(0);
        }
        let mut required = (0..specs.len()).filter(|&index| !specs[index].optional);
        let only = required.next().filter(|_| required.next().is_none());
        only.filter(|_| !matches!(value, JsonValue::List(_)) || !self.is_row_of_values())
    }

    /// Returns whether each input takes one value a row.
    fn is_row_of_values(self) -> bool {
        self.signature.inputs.iter().all(|spec| walk::takes_one_value(&spec.shape))
    }
}

#[cold]
pub(crate) fn unknown(row: Option<usize>, key: &str, signature: &ModelSignature) -> ProtocolError {
    let problem = format!("is no input of this model, which takes {}", names(signature));
    let field = Some(excerpt(key));
    RowError { row, field, problem, ..RowError::default() }.into()
}

/// Returns the inputs' names in quotes, the first ones where they are many.
pub(crate) fn names(signature: &ModelSignature) -> String {
    const SHOWN: usize = 40;
    let specs = &signature.inputs;
    let shown = specs.iter().take(SHOWN).map(|spec| format!("'{}'", spec.name));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if specs.len() > SHOWN {
        text.push_str(&format!(" and {} more", specs.len() - SHOWN));
    }
    text
}
