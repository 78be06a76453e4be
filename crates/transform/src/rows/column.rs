//! One column: what becomes of one value.

use std::sync::Arc;

use outhaul_types::{
    CategoryEncoding, Column as Declared, ColumnKind, Content, DataType, Missing, Name, Tensor,
    UnknownCategory,
};

use super::COLUMNS;
use super::category::Categories;
use super::cell::{Cell, holds, rule};
use super::date::Dates;
use crate::{BuildError, TransformError};

/// A column that is fitted to the model.
pub(super) struct Column {
    pub(super) name: Name,
    pub(super) may_be_missing: bool,
    /// What the model takes.
    data_type: DataType,
    kind: Kind,
}

/// How values become numbers, or stay texts.
enum Kind {
    Number {
        missing: Option<f64>,
    },
    Boolean {
        missing: Option<f64>,
    },
    Category {
        categories: Categories,
        one_hot: bool,
        missing: Option<Code>,
        unknown: Option<Code>,
    },
    Date {
        dates: Dates,
        missing: Option<f64>,
    },
    /// Text for a model that takes text; of a category, only the texts of its list.
    Text {
        categories: Option<Categories>,
        missing: Option<Box<str>>,
    },
}

/// What a category becomes.
#[derive(Clone, Copy)]
enum Code {
    /// The value at this place of the list.
    Place(usize),
    /// This number, in each of the cells.
    Number(f64),
}

/// The cells of a tensor that a column writes: those from `offset` of each row on.
pub(super) struct Target<'c, T> {
    pub(super) cells: &'c mut [T],
    pub(super) width: usize,
    pub(super) offset: usize,
}

/// Returns how many cells a column takes, for a model that takes this type.
pub(super) fn width(declared: &Declared, data_type: DataType) -> usize {
    match &declared.kind {
        ColumnKind::Category { values, encoding: CategoryEncoding::OneHot, .. }
            if data_type != DataType::Bytes =>
        {
            values.len()
        }
        _ => 1,
    }
}

impl Column {
    /// Fits a column to the type that the model takes.
    pub(super) fn build(declared: &Declared, data_type: DataType) -> Result<Self, BuildError> {
        let kind = kind(declared, data_type).map_err(|problem| wrong(&declared.name, problem))?;
        Ok(Column {
            name: declared.name.clone(),
            may_be_missing: declared.missing != Missing::Refuse,
            data_type,
            kind,
        })
    }

    pub(super) fn content(&self) -> Content {
        match &self.kind {
            Kind::Number { .. } => Content::Number,
            Kind::Boolean { .. } => Content::Boolean,
            Kind::Category { .. } | Kind::Text { categories: Some(_), .. } => Content::Category,
            Kind::Date { .. } => Content::Date,
            Kind::Text { categories: None, .. } => Content::Text,
        }
    }

    pub(super) fn choices(&self) -> Option<Arc<[String]>> {
        match &self.kind {
            Kind::Category { categories, .. } => Some(Arc::clone(categories.values())),
            Kind::Text { categories, .. } => Some(Arc::clone(categories.as_ref()?.values())),
            Kind::Number { .. } | Kind::Boolean { .. } | Kind::Date { .. } => None,
        }
    }

    /// Writes the numbers of all rows. `values` is `None` where the column was left out.
    pub(super) fn write<T: Cell>(
        &self,
        values: Option<&Tensor>,
        target: &mut Target<'_, T>,
    ) -> Result<(), TransformError> {
        match &self.kind {
            Kind::Number { missing } => self.write_numbers(values, *missing, target),
            Kind::Boolean { missing } => {
                self.write_each(values, target, |number: Number| match number.0 {
                    value if value.is_nan() => missing.ok_or_else(is_missing),
                    value if value == 0.0 || value == 1.0 => Ok(value),
                    value => Err(format!("must be true or false (1 or 0), got {value}")),
                })
            }
            Kind::Date { dates, missing } => {
                self.write_each(values, target, |text: Text<'_>| match text.0 {
                    b"" => missing.ok_or_else(is_missing),
                    text => dates.number(text).ok_or_else(|| {
                        format!("must be {}, got '{}'", dates.rule(), shortened(text))
                    }),
                })
            }
            Kind::Category { categories, one_hot, missing, unknown } => {
                let code = |text: &[u8]| match categories.place(text) {
                    Some(place) => Ok(Code::Place(place)),
                    None if text.is_empty() => missing.ok_or_else(is_missing),
                    None => unknown.ok_or_else(|| categories.unknown(text)),
                };
                if *one_hot {
                    return self.write_one_hot(values, target, (categories.len(), code));
                }
                self.write_each(values, target, |text: Text<'_>| match code(text.0)? {
                    Code::Place(place) => Ok(place as f64),
                    Code::Number(number) => Ok(number),
                })
            }
            Kind::Text { .. } => Err(TransformError::Input {
                field: self.name.clone(),
                problem: "is a text where the model takes numbers".to_owned(),
            }),
        }
    }

    /// The usual case, without a step for each kind of value.
    fn write_numbers<T: Cell>(
        &self,
        values: Option<&Tensor>,
        missing: Option<f64>,
        target: &mut Target<'_, T>,
    ) -> Result<(), TransformError> {
        let Some(values) = values else { return self.write_missing(missing, target) };
        let values = values.elements_of::<f64>().unwrap_or_default();
        let rows = target.cells.chunks_exact_mut(target.width);
        for (row, (&value, cells)) in values.iter().zip(rows).enumerate() {
            let number = match missing {
                Some(number) if value.is_nan() => number,
                None if value.is_nan() => return Err(self.row(row, is_missing())),
                _ => value,
            };
            let Some(cell) = T::of(number) else { return Err(self.misfit(row, number)) };
            cells[target.offset] = cell;
        }
        Ok(())
    }

    fn write_missing<T: Cell>(
        &self,
        missing: Option<f64>,
        target: &mut Target<'_, T>,
    ) -> Result<(), TransformError> {
        let Some(number) = missing else { return Err(self.row(0, is_missing())) };
        let Some(cell) = T::of(number) else { return Err(self.misfit(0, number)) };
        for cells in target.cells.chunks_exact_mut(target.width) {
            cells[target.offset] = cell;
        }
        Ok(())
    }

    fn write_each<'v, V: Value<'v>, T: Cell>(
        &self,
        values: Option<&'v Tensor>,
        target: &mut Target<'_, T>,
        convert: impl Fn(V) -> Result<f64, String>,
    ) -> Result<(), TransformError> {
        let values = V::all(values);
        for (row, cells) in target.cells.chunks_exact_mut(target.width).enumerate() {
            let value = V::at(&values, row);
            let number = convert(value).map_err(|problem| self.row(row, problem))?;
            let Some(cell) = T::of(number) else { return Err(self.misfit(row, number)) };
            cells[target.offset] = cell;
        }
        Ok(())
    }

    fn write_one_hot<T: Cell>(
        &self,
        values: Option<&Tensor>,
        target: &mut Target<'_, T>,
        (count, code): (usize, impl Fn(&[u8]) -> Result<Code, String>),
    ) -> Result<(), TransformError> {
        let strings = values.and_then(Tensor::as_strings);
        for (row, cells) in target.cells.chunks_exact_mut(target.width).enumerate() {
            let cells = &mut cells[target.offset..target.offset + count];
            let text = strings.and_then(|strings| strings.get(row)).unwrap_or_default();
            // The cells are zeros so far.
            match code(text).map_err(|problem| self.row(row, problem))? {
                Code::Place(place) => cells[place] = self.cell(row, 1.0)?,
                Code::Number(number) => cells.fill(self.cell(row, number)?),
            }
        }
        Ok(())
    }

    fn cell<T: Cell>(&self, row: usize, number: f64) -> Result<T, TransformError> {
        T::of(number).ok_or_else(|| self.misfit(row, number))
    }

    /// Returns the text that a model takes for a value.
    pub(super) fn text<'v>(
        &'v self,
        row: usize,
        value: &'v [u8],
    ) -> Result<&'v str, TransformError> {
        let Kind::Text { categories, missing } = &self.kind else {
            return Err(self.row(row, "is no text, which the model takes".to_owned()));
        };
        if value.is_empty() {
            return missing.as_deref().ok_or_else(|| self.row(row, is_missing()));
        }
        if let Some(categories) = categories
            && categories.place(value).is_none()
        {
            return Err(self.row(row, categories.unknown(value)));
        }
        std::str::from_utf8(value).map_err(|_| self.row(row, "is not UTF-8".to_owned()))
    }

    fn misfit(&self, row: usize, number: f64) -> TransformError {
        self.row(row, format!("{}, got {number}", rule(self.data_type)))
    }

    fn row(&self, row: usize, problem: String) -> TransformError {
        TransformError::Row { row, field: self.name.clone(), problem }
    }
}

fn is_missing() -> String {
    "is missing".to_owned()
}

fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(60).collect()
}

/// A value of a row as its tensor holds it; what is left out is missing.
trait Value<'v> {
    type All;
    fn all(tensor: Option<&'v Tensor>) -> Self::All;
    fn at(all: &Self::All, row: usize) -> Self;
}

struct Number(f64);

impl<'v> Value<'v> for Number {
    type All = std::borrow::Cow<'v, [f64]>;

    fn all(tensor: Option<&'v Tensor>) -> Self::All {
        tensor.and_then(Tensor::elements_of::<f64>).unwrap_or_default()
    }

    fn at(all: &Self::All, row: usize) -> Self {
        Number(all.get(row).copied().unwrap_or(f64::NAN))
    }
}

struct Text<'v>(&'v [u8]);

impl<'v> Value<'v> for Text<'v> {
    type All = Option<&'v outhaul_types::Strings>;

    fn all(tensor: Option<&'v Tensor>) -> Self::All {
        tensor.and_then(Tensor::as_strings)
    }

    fn at(all: &Self::All, row: usize) -> Self {
        Text(all.and_then(|strings| strings.get(row)).unwrap_or_default())
    }
}

pub(super) fn wrong(name: &Name, problem: impl std::fmt::Display) -> BuildError {
    BuildError::Declared { key: COLUMNS, problem: format!("'{name}': {problem}") }
}

fn kind(declared: &Declared, data_type: DataType) -> Result<Kind, String> {
    let takes_text = data_type == DataType::Bytes;
    match &declared.kind {
        ColumnKind::Number | ColumnKind::Boolean | ColumnKind::Date { .. } if takes_text => {
            Err("the model takes a text; declare it as kind \"text\" or \"category\"".to_owned())
        }
        ColumnKind::Text if !takes_text => {
            Err(format!("is a text, but the model takes {data_type}"))
        }
        ColumnKind::Number => Ok(Kind::Number { missing: number(&declared.missing, data_type)? }),
        ColumnKind::Boolean => Ok(Kind::Boolean { missing: number(&declared.missing, data_type)? }),
        ColumnKind::Text => Ok(Kind::Text { categories: None, missing: text(&declared.missing)? }),
        ColumnKind::Date { format, unit } => {
            let dates = Dates::new(format.as_deref(), *unit)?;
            let missing = match &declared.missing {
                Missing::Text(text) => Some(dates.number(text.as_bytes()).ok_or_else(|| {
                    format!("the date for missing ones must be {}", dates.rule())
                })?),
                missing => number(missing, data_type)?,
            };
            Ok(Kind::Date { dates, missing })
        }
        ColumnKind::Category { values, encoding, unknown } if takes_text => {
            let categories = Categories::new(values)?;
            if *encoding == CategoryEncoding::OneHot || *unknown != UnknownCategory::Refuse {
                let problem = "the model takes the text itself; leave out encoding and unknown";
                return Err(problem.to_owned());
            }
            let missing = text(&declared.missing)?;
            if let Some(missing) = &missing
                && categories.place(missing.as_bytes()).is_none()
            {
                return Err(format!(
                    "the text for missing ones {}",
                    categories.unknown(missing.as_bytes())
                ));
            }
            Ok(Kind::Text { categories: Some(categories), missing })
        }
        ColumnKind::Category { values, encoding, unknown } => {
            category(Categories::new(values)?, (*encoding, *unknown), &declared.missing, data_type)
        }
    }
}

fn category(
    categories: Categories,
    (encoding, unknown): (CategoryEncoding, UnknownCategory),
    missing: &Missing,
    data_type: DataType,
) -> Result<Kind, String> {
    let one_hot = encoding == CategoryEncoding::OneHot;
    let last = if one_hot { 1 } else { categories.len() - 1 };
    if !holds(data_type, last as f64) {
        return Err(format!("has more values than {data_type} can tell apart"));
    }
    let missing = match missing {
        Missing::Text(text) => {
            Some(Code::Place(categories.place(text.as_bytes()).ok_or_else(|| {
                format!("the text for missing ones {}", categories.unknown(text.as_bytes()))
            })?))
        }
        missing => number(missing, data_type)?.map(Code::Number),
    };
    let unknown = match unknown {
        UnknownCategory::Refuse => None,
        UnknownCategory::Code(_) if one_hot => Some(Code::Number(0.0)),
        UnknownCategory::Code(code) if holds(data_type, code) => Some(Code::Number(code)),
        UnknownCategory::Code(code) => {
            return Err(format!("the number for unknown ones {}, got {code}", rule(data_type)));
        }
    };
    Ok(Kind::Category { categories, one_hot, missing, unknown })
}

/// Returns the number that stands for a missing value.
fn number(missing: &Missing, data_type: DataType) -> Result<Option<f64>, String> {
    let number = match missing {
        Missing::Refuse => return Ok(None),
        Missing::Nan => f64::NAN,
        Missing::Number(number) => *number,
        Missing::Text(_) => {
            return Err("the model takes a number for missing ones, not a text".to_owned());
        }
    };
    match holds(data_type, number) {
        true => Ok(Some(number)),
        false => Err(format!("the number for missing ones {}, got {number}", rule(data_type))),
    }
}

fn text(missing: &Missing) -> Result<Option<Box<str>>, String> {
    match missing {
        Missing::Refuse => Ok(None),
        Missing::Text(text) => Ok(Some(text.as_str().into())),
        Missing::Nan | Missing::Number(_) => {
            Err("the model takes a text for missing ones, not a number".to_owned())
        }
    }
}
