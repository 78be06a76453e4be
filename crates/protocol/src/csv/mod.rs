//! Rows as lines of comma-separated values (RFC 4180), both ways.
//!
//! The first line is a header where one of its fields is a column's name and none is a number; then
//! columns may come in any order. Without a header the values come in the signature's order. A model
//! with one input `[batch, n]` takes n values a line. An empty field is a missing value. Fields may be
//! quoted, lines may end in CR LF, empty lines are skipped, and a byte order mark is ignored.
//!
//! Invariant: an error names the row (from 0, the header not counted), the line (from 1) and the column.

mod encode;
#[cfg(test)]
mod tests;

use csv_core::{ReadRecordResult, Reader};
use outhaul_types::{Content, DataType, Dimension, Field, ShapePattern, TensorSpec};

pub use encode::{encode, encode_lines};

use crate::error::excerpt;
use crate::rows::walk::Filling;
use crate::rows::{Given, Inputs, RowError, check_rows, names};
use crate::{DecodeLimits, ProtocolError, Schema};

/// Reads lines by what the model takes.
///
/// # Errors
///
/// Fails with the first thing that is wrong: no rows or more than [`DecodeLimits::max_rows`], a header
/// that names what is no column or leaves out one that is needed, a line with too few or too many
/// fields, a field that is missing or no value of its column.
pub fn decode(
    body: &[u8],
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Inputs, ProtocolError> {
    let mut lines = Lines::new(body);
    if !lines.next()? {
        return Err(ProtocolError::NoRows);
    }
    let first = lines.fields().map(str::trim).collect::<Vec<_>>();
    let given = Given::of_names(schema, &first);
    let header = is_header(&first, given).then(|| columns_of(&first, given, &lines)).transpose()?;
    // Each row takes a line; every line but the last has a line feed.
    let guess = body.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut table = Table::new(given, header, guess.min(limits.max_rows), limits)?;
    if table.header.is_none() {
        table.row(0, &lines)?;
    }
    let mut rows = usize::from(table.header.is_none());
    while lines.next()? {
        if rows < limits.max_rows {
            table.row(rows, &lines)?;
        }
        rows += 1;
    }
    check_rows(rows, limits)?;
    table.finish(rows)
}

/// The records of a body, one at a time.
struct Lines<'b> {
    body: &'b [u8],
    reader: Reader,
    /// Where the record and what follows it start.
    start: usize,
    next: usize,
    /// The record's fields without quotes, one after the other, and where each ends.
    text: String,
    buffer: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl<'b> Lines<'b> {
    fn new(body: &'b [u8]) -> Self {
        let mark = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Lines {
            body,
            reader: Reader::new(),
            start: mark,
            next: mark,
            text: String::new(),
            buffer: vec![0; 1 << 10],
            ends: vec![0; 64],
            count: 0,
        }
    }

    /// Reads the next record and returns whether there was one.
    fn next(&mut self) -> Result<bool, ProtocolError> {
        let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        self.next += self.body[self.next..].iter().take_while(blank).count();
        self.start = self.next;
        if self.start == self.body.len() {
            return Ok(false);
        }
        let (mut written, mut ended) = (0, 0);
        loop {
            let input = &self.body[self.next..];
            let (result, read, wrote, ends) = self.reader.read_record(
                input,
                &mut self.buffer[written..],
                &mut self.ends[ended..],
            );
            self.next += read;
            written += wrote;
            ended += ends;
            match result {
                ReadRecordResult::OutputFull => self.buffer.resize(2 * self.buffer.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                // Told by an empty input that nothing follows, the reader ends the last record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
        }
        self.count = ended;
        let bytes = &self.buffer[..written];
        self.text.clear();
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text.push_str(text),
            Err(error) => {
                let ends = &self.ends[..ended];
                let field = ends.iter().take_while(|&&end| end <= error.valid_up_to()).count();
                let problem = format!("field {field} (from 0) is not UTF-8");
                return Err(
                    RowError { line: Some(self.line()), problem, ..RowError::default() }.into()
                );
            }
        }
        Ok(true)
    }

    fn fields(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends[..self.count].iter().map(move |&end| {
            let field = self.text.get(start..end).unwrap_or("");
            start = end;
            field
        })
    }

    /// Returns the number of the line that the record starts on.
    #[cold]
    fn line(&self) -> u64 {
        self.body[..self.start].iter().filter(|&&byte| byte == b'\n').count() as u64 + 1
    }

    #[cold]
    fn error(&self, row: Option<usize>, field: Option<String>, problem: String) -> ProtocolError {
        RowError { row, line: Some(self.line()), field, problem, ..RowError::default() }.into()
    }
}

/// Returns whether a first line names columns.
fn is_header(fields: &[&str], given: Given<'_>) -> bool {
    let mut columns = given.inputs().filter(|(spec, _)| width(spec) == Some(Some(1)));
    columns.any(|(spec, _)| fields.contains(&&*spec.name))
        && fields.iter().all(|field| field.parse::<f64>().is_err())
}

/// Returns the input of each field of a header.
fn columns_of(
    fields: &[&str],
    given: Given<'_>,
    lines: &Lines<'_>,
) -> Result<Vec<usize>, ProtocolError> {
    let error = |field: &str, problem| Err(lines.error(None, Some(excerpt(field)), problem));
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        match given.signature.input_index(field) {
            None => {
                let names = names(given.signature);
                return error(field, format!("is no column of this model, which takes {names}"));
            }
            Some(index) if columns.contains(&index) => {
                return error(field, "is given twice".to_owned());
            }
            Some(index) => columns.push(index),
        }
    }
    for (index, (spec, _)) in given.inputs().enumerate() {
        if !spec.optional && !columns.contains(&index) {
            return error(&spec.name, "is missing from the header".to_owned());
        }
    }
    Ok(columns)
}

/// Returns how many fields of a line an input takes: `Some(None)` is any number, `None` is that lines
/// cannot hold it.
fn width(spec: &TensorSpec) -> Option<Option<usize>> {
    match &spec.shape {
        ShapePattern::AnyRank => Some(None),
        ShapePattern::Ranked(dimensions) => match &dimensions[..] {
            [_] => Some(Some(1)),
            [_, columns] => Some(Dimension::size(columns)),
            _ => None,
        },
    }
}

/// The inputs while their lines are read.
struct Table<'a> {
    inputs: Vec<Filling<'a>>,
    /// The input of each field, where there is a header.
    header: Option<Vec<usize>>,
    /// The fields of each input, in the order of the signature.
    widths: Vec<usize>,
    /// Whether an empty field is a text and no missing value.
    empty_is_text: Vec<bool>,
}

impl<'a> Table<'a> {
    fn new(
        given: Given<'a>,
        header: Option<Vec<usize>>,
        rows: usize,
        limits: &'a DecodeLimits,
    ) -> Result<Self, ProtocolError> {
        let only = given.signature.inputs.len() == 1;
        let (inputs, widths, empty_is_text) = (Vec::new(), Vec::new(), Vec::new());
        let mut table = Table { inputs, header, widths, empty_is_text };
        for (spec, field) in given.inputs() {
            let filling = Filling::new(spec, field, rows, limits)?;
            match width(spec) {
                Some(Some(width)) => table.widths.push(width),
                // Set by the first line.
                Some(None) if only => table.widths.push(0),
                _ => {
                    let shape = &spec.shape;
                    let problem = format!("has shape {shape}, which lines of CSV cannot hold");
                    return Err(filling.error(None, problem));
                }
            }
            table.inputs.push(filling);
            table.empty_is_text.push(takes_empty_text(spec, field));
        }
        Ok(table)
    }

    fn row(&mut self, row: usize, lines: &Lines<'_>) -> Result<(), ProtocolError> {
        if let [0] = self.widths[..] {
            self.widths[0] = lines.count;
            self.inputs[0].set_width(lines.count);
        }
        let wanted = match &self.header {
            Some(header) => header.len(),
            None => self.widths.iter().sum(),
        };
        if lines.count != wanted {
            let (given, values) = (lines.count, if lines.count == 1 { "value" } else { "values" });
            let source = if self.header.is_some() { "the header has" } else { "the model takes" };
            let problem = format!("has {given} {values} where {source} {wanted}");
            return Err(lines.error(Some(row), None, problem));
        }
        let fields = lines.fields();
        match &self.header {
            Some(header) => {
                for (&index, field) in header.iter().zip(fields) {
                    let empty_is_text = self.empty_is_text[index];
                    put(&mut self.inputs[index], field, empty_is_text, (row, None, lines))?;
                }
                if header.len() < self.inputs.len() {
                    self.leave_out(row)?;
                }
            }
            None => {
                let mut fields = fields;
                for (index, input) in self.inputs.iter_mut().enumerate() {
                    let width = self.widths[index];
                    for place in 0..width {
                        let field = fields.next().unwrap_or("");
                        let place = (width > 1).then_some(place);
                        put(input, field, self.empty_is_text[index], (row, place, lines))?;
                    }
                }
            }
        }
        self.inputs.iter().try_for_each(Filling::check_size)
    }

    /// Leaves out the columns that the header does not name; all of them are optional.
    fn leave_out(&mut self, row: usize) -> Result<(), ProtocolError> {
        let header = self.header.as_deref().unwrap_or(&[]);
        for (index, input) in self.inputs.iter_mut().enumerate() {
            if !header.contains(&index) {
                input.miss(row, false)?;
            }
        }
        Ok(())
    }

    fn finish(self, rows: usize) -> Result<Inputs, ProtocolError> {
        let tensors = self.inputs.into_iter().map(|input| input.finish(Some(rows)));
        tensors.filter_map(Result::transpose).collect()
    }
}

fn takes_empty_text(spec: &TensorSpec, field: &Field) -> bool {
    let text = matches!(field.content, Content::Text | Content::Tensor);
    spec.data_type == DataType::Bytes && text && !spec.optional
}

/// Puts one field into its input. `place` is its row, its index in a packed input, and the line.
#[inline]
fn put(
    input: &mut Filling<'_>,
    field: &str,
    empty_is_text: bool,
    place: (usize, Option<usize>, &Lines<'_>),
) -> Result<(), ProtocolError> {
    let (row, index, lines) = place;
    let locate = |mut error: ProtocolError| {
        if let ProtocolError::Row(error) = &mut error {
            error.line = Some(lines.line());
            error.place.extend(index);
        }
        error
    };
    if field.is_empty() && !empty_is_text {
        return input.miss(row, false).map_err(locate);
    }
    input.text(row, field).map_err(locate)
}
