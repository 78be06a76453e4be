//! What is wrong with one row, by its place.

use std::fmt;

/// What is wrong with a value of a row. Its text names the row (counted from 0), for text formats the
/// line (counted from 1), and the field, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowError {
    /// The row of the request, from 0.
    pub row: Option<usize>,
    /// The line of the body, from 1, where the format has lines.
    pub line: Option<u64>,
    /// The input or column.
    pub field: Option<String>,
    /// The place inside of the field's value: an index for each list around it, from 0.
    pub place: Vec<usize>,
    /// What is wrong, continuing "row 3: 'age' ...".
    pub problem: String,
}

impl RowError {
    /// Says what is wrong with a whole row.
    pub fn of_row(row: usize, problem: impl Into<String>) -> Self {
        RowError { row: Some(row), problem: problem.into(), ..RowError::default() }
    }

    /// Says what is wrong with a field of a row.
    pub fn of_field(row: usize, field: &str, problem: impl Into<String>) -> Self {
        RowError { field: Some(field.to_owned()), ..RowError::of_row(row, problem) }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.row {
            write!(f, "row {row}")?;
        }
        match (self.row, self.line) {
            (Some(_), Some(line)) => write!(f, " (line {line})")?,
            (None, Some(line)) => write!(f, "line {line}")?,
            (_, None) => {}
        }
        let placed = self.row.is_some() || self.line.is_some();
        match &self.field {
            Some(field) => {
                write!(f, "{}'{field}'", if placed { ": " } else { "" })?;
                self.place.iter().try_for_each(|index| write!(f, "[{index}]"))?;
                write!(f, " {}", self.problem)
            }
            None if self.row.is_some() => write!(f, " {}", self.problem),
            None if placed => write!(f, ": {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for RowError {}
