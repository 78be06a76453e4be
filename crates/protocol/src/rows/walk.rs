//! The values of one input, row after row, into its tensor.
//!
//! Sizes that the signature leaves open are those of the first row; every other row must agree.

use outhaul_types::{Content, Dimension, Field, NamedTensor, Shape, ShapePattern, TensorSpec};
use smallvec::SmallVec;

use super::fill::{Problem, Sink, sink};
use super::{JsonValue, RowError, check_rows};
use crate::{DecodeLimits, ProtocolError, TensorProblem, raw};

/// Elements that are reserved before any was read.
const RESERVED: usize = 1 << 16;

/// One input while its rows are read.
pub(crate) struct Filling<'a> {
    spec: &'a TensorSpec,
    field: &'a Field,
    limits: &'a DecodeLimits,
    sink: Box<dyn Sink>,
    /// The sizes of a row, by depth; `None` until a list of that depth was met. `rank` is `None` until
    /// the first row tells it, where the signature does not.
    sizes: SmallVec<[Option<usize>; 4]>,
    rank_known: bool,
    /// Elements so far.
    elements: usize,
    /// The first row that gave a value, and the first that gave none.
    given: Option<usize>,
    missing: Option<usize>,
    /// Whether the first dimension is walked as rows: a scalar has none.
    scalar: bool,
}

/// Returns whether a row of such an input is one value.
pub(crate) fn takes_one_value(shape: &ShapePattern) -> bool {
    match shape {
        ShapePattern::AnyRank => false,
        ShapePattern::Ranked(dimensions) => match &dimensions[..] {
            [] => false,
            [_, row @ ..] => row.iter().all(|dimension| dimension.size() == Some(1)),
        },
    }
}

/// Why a value cannot be taken, and where in the row it is, innermost index first.
pub(crate) struct Misfit {
    place: SmallVec<[usize; 4]>,
    problem: Problem,
}

impl From<Problem> for Misfit {
    #[cold]
    fn from(problem: Problem) -> Self {
        Misfit { place: SmallVec::new(), problem }
    }
}

impl<'a> Filling<'a> {
    pub(crate) fn new(
        spec: &'a TensorSpec,
        field: &'a Field,
        rows: usize,
        limits: &'a DecodeLimits,
    ) -> Result<Self, ProtocolError> {
        let (sizes, rank_known, scalar): (SmallVec<[Option<usize>; 4]>, _, _) = match &spec.shape {
            ShapePattern::AnyRank => (SmallVec::new(), false, false),
            ShapePattern::Ranked(dimensions) => {
                let row = dimensions.get(1..).unwrap_or(&[]);
                (row.iter().map(Dimension::size).collect(), true, dimensions.is_empty())
            }
        };
        let row: Option<usize> = sizes
            .iter()
            .copied()
            .try_fold(1_usize, |product, size| product.checked_mul(size.unwrap_or(1)));
        let capacity = row.and_then(|row| row.checked_mul(rows)).unwrap_or(0).min(RESERVED);
        let element_bytes = spec.data_type.size().unwrap_or(raw::SPAN);
        let filling = Filling {
            spec,
            field,
            limits,
            sink: sink(spec.data_type, field, capacity),
            sizes,
            rank_known,
            elements: 0,
            given: None,
            missing: None,
            scalar,
        };
        if rows.checked_mul(element_bytes).is_none_or(|bytes| bytes > limits.max_tensor_bytes) {
            return Err(filling.over_limit());
        }
        Ok(filling)
    }

    #[cold]
    fn over_limit(&self) -> ProtocolError {
        let problem = TensorProblem::OverLimit { limit: self.limits.max_tensor_bytes };
        ProtocolError::Input { input: self.spec.name.clone(), problem }
    }

    /// Checks that the input has a dimension that rows can be counted by.
    pub(crate) fn has_rows(&self) -> Result<(), ProtocolError> {
        if !self.scalar || self.spec.optional {
            return Ok(());
        }
        let problem = "is one value for the whole request and has no rows: send the whole tensors by \
                       input name in place of a list of rows";
        Err(self.error(None, problem.to_owned()))
    }

    /// Takes the value of one row.
    pub(crate) fn row(
        &mut self,
        row: usize,
        value: Option<&JsonValue<'_>>,
    ) -> Result<(), ProtocolError> {
        match value {
            Some(value) if !value.is_null() => {
                if let Some(before) = self.missing.filter(|_| !self.may_miss()) {
                    let problem = format!("is given, but row {before} has none");
                    return Err(self.error(Some(row), problem));
                }
                self.given = self.given.or(Some(row));
                self.take(value).map_err(|misfit| self.error(Some(row), misfit))?;
                self.check_size()
            }
            value => self.miss(row, value.is_some()),
        }
    }

    /// Takes one value of a row as text.
    #[inline]
    pub(crate) fn text(&mut self, row: usize, text: &str) -> Result<(), ProtocolError> {
        if let Some(before) = self.missing.filter(|_| !self.may_miss()) {
            return Err(self.error(Some(row), format!("is given, but row {before} has none")));
        }
        self.given = self.given.or(Some(row));
        self.elements += 1;
        self.sink.text(text).map_err(|problem| self.error(Some(row), problem))
    }

    /// Says how many values a row has, where the signature leaves that open.
    pub(crate) fn set_width(&mut self, width: usize) {
        self.sizes = SmallVec::from_slice(&[Some(width)]);
        self.rank_known = true;
    }

    /// Takes a place where there is no value.
    pub(crate) fn miss(&mut self, row: usize, is_null: bool) -> Result<(), ProtocolError> {
        if !self.spec.optional {
            let problem = if is_null { "must not be null" } else { "is missing" };
            return Err(self.error(Some(row), problem.to_owned()));
        }
        self.missing = self.missing.or(Some(row));
        if self.may_miss() {
            self.sink.missing();
            return Ok(());
        }
        match self.given {
            Some(before) => {
                let problem = format!("is missing, but row {before} has it");
                Err(self.error(Some(row), problem))
            }
            None => Ok(()),
        }
    }

    /// Returns whether some rows may have a value and others none.
    fn may_miss(&self) -> bool {
        self.spec.optional
            && (self.field.content.is_column() || self.field.content == Content::Text)
    }

    /// Takes the whole tensor at once and returns its number of rows, `None` for a scalar.
    pub(crate) fn whole(&mut self, value: &JsonValue<'_>) -> Result<Option<usize>, ProtocolError> {
        if self.scalar || (!self.rank_known && !matches!(value, JsonValue::List(_))) {
            self.given = Some(0);
            self.take(value).map_err(|misfit| self.error(None, misfit))?;
            return Ok(None);
        }
        let JsonValue::List(rows) = value else {
            return Err(self.error(None, format!("must be a list, got {}", value.kind())));
        };
        if rows.is_empty() {
            return Err(self.error(None, "has no rows".to_owned()));
        }
        if self.field.content != Content::Tensor {
            check_rows(rows.len(), self.limits)?;
        }
        for (row, value) in rows.iter().enumerate() {
            self.row(row, Some(value))?;
        }
        Ok(Some(rows.len()))
    }

    /// Takes a whole value of a row.
    fn take(&mut self, value: &JsonValue<'_>) -> Result<(), Misfit> {
        if !self.rank_known {
            self.learn_rank(value)?;
        }
        if self.scalar {
            self.elements += 1;
            return Ok(self.sink.json(value)?);
        }
        let bare = !matches!(value, JsonValue::List(_));
        if bare && self.sizes.iter().all(|size| *size == Some(1)) {
            // One value, whether the model wants it in brackets or not.
            self.elements += 1;
            return Ok(self.sink.json(value)?);
        }
        match value {
            // A table of one column.
            JsonValue::List(items) if self.sizes.is_empty() && self.field.content.is_column() => {
                match &items[..] {
                    [only] => self.walk(only, 0),
                    _ => self.walk(value, 0),
                }
            }
            _ => self.walk(value, 0),
        }
    }

    /// Reads one value at a depth of the row. It calls itself once for each dimension at most.
    fn walk(&mut self, value: &JsonValue<'_>, depth: usize) -> Result<(), Misfit> {
        if depth == self.sizes.len() {
            self.elements += 1;
            return Ok(self.sink.json(value)?);
        }
        let JsonValue::List(items) = value else {
            let expected = match self.sizes[depth] {
                Some(size) => format!("a list of {size}"),
                None => "a list".to_owned(),
            };
            return Err(format!("must be {expected}, got {}", value.kind()).into());
        };
        match self.sizes[depth] {
            None => self.sizes[depth] = Some(items.len()),
            Some(size) if size == items.len() => {}
            Some(size) => return Err(self.wrong_size(depth, items.len(), size)),
        }
        for (index, item) in items.iter().enumerate() {
            if let Err(mut misfit) = self.walk(item, depth + 1) {
                misfit.place.push(index);
                return Err(misfit);
            }
        }
        Ok(())
    }

    #[cold]
    fn wrong_size(&self, depth: usize, received: usize, size: usize) -> Misfit {
        let fixed = match &self.spec.shape {
            ShapePattern::AnyRank => None,
            ShapePattern::Ranked(dimensions) => dimensions.get(depth + 1).and_then(Dimension::size),
        };
        let values = if received == 1 { "value" } else { "values" };
        match fixed {
            Some(_) => format!("has {received} {values} where the model takes {size}"),
            None => format!("has {received} {values} where the first has {size}"),
        }
        .into()
    }

    /// Takes the nesting of the first value as that of all.
    fn learn_rank(&mut self, value: &JsonValue<'_>) -> Result<(), Misfit> {
        let mut inside = value;
        while let JsonValue::List(items) = inside {
            if self.sizes.len() + 1 == self.limits.max_rank {
                let limit = self.limits.max_rank;
                return Err(format!("has more than {limit} dimensions").into());
            }
            self.sizes.push(None);
            match items.first() {
                Some(first) => inside = first,
                None => break,
            }
        }
        self.rank_known = true;
        Ok(())
    }

    /// Checks that the elements so far are no more than may be held.
    pub(crate) fn check_size(&self) -> Result<(), ProtocolError> {
        let element_bytes = self.spec.data_type.size().unwrap_or(raw::SPAN);
        match self.elements.checked_mul(element_bytes) {
            Some(bytes) if bytes <= self.limits.max_tensor_bytes => Ok(()),
            _ => Err(self.over_limit()),
        }
    }

    #[cold]
    pub(crate) fn error(&self, row: Option<usize>, misfit: impl Into<Misfit>) -> ProtocolError {
        let Misfit { mut place, problem } = misfit.into();
        place.reverse();
        let field = Some(self.spec.name.to_string());
        RowError { row, line: None, field, place: place.into_vec(), problem }.into()
    }

    /// Returns the tensor, or `None` where the input is left to its default. `rows` is `None` for an
    /// input without rows.
    pub(crate) fn finish(self, rows: Option<usize>) -> Result<Option<NamedTensor>, ProtocolError> {
        // A column says itself what a missing value becomes, once for each row.
        if self.given.is_none() && !self.field.content.is_column() {
            return Ok(None);
        }
        let Filling { spec, sink, sizes, .. } = self;
        // Lists of a depth that no row reached are empty.
        let row = sizes.into_iter().map(|size| size.unwrap_or(0));
        let shape = Shape::new(rows.into_iter().chain(row));
        match sink.finish(shape) {
            Ok(tensor) => Ok(Some(NamedTensor { name: spec.name.clone(), tensor })),
            Err(error) => {
                Err(ProtocolError::Input { input: spec.name.clone(), problem: raw::problem(error) })
            }
        }
    }
}
