//! Arithmetic on small tensors of integers, as graphs do on shapes.
//!
//! Invariant: every element is either a [`Size`] or `None`, which stands for "depends on the number
//! of rows, and how is not followed".

use smallvec::SmallVec;

use super::size::{Size, Symbols};
use super::value::{Dims, Result};

/// An element.
pub(super) type Term = Option<Size>;

/// Larger tensors are not followed element by element.
pub(super) const MAX_TERMS: usize = 1024;

/// A small tensor of integers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    dims: SmallVec<[usize; 4]>,
    /// In row-major order.
    terms: Vec<Term>,
    /// Whether division keeps fractions.
    is_float: bool,
}

impl Numbers {
    /// Makes a tensor; `None` where it has not the elements that its dimensions call for, or too
    /// many.
    pub(super) fn new(dims: &[usize], terms: Vec<Term>) -> Option<Self> {
        let fits = count(dims) == Some(terms.len());
        fits.then(|| Numbers { dims: SmallVec::from_slice(dims), terms, is_float: false })
    }

    /// Makes a vector.
    pub(super) fn vector(terms: Vec<Term>) -> Option<Self> {
        Numbers::new(&[terms.len()], terms)
    }

    /// Makes a tensor of unknown numbers that do not depend on the rows.
    pub(super) fn unknown(dims: &Dims, symbols: &mut Symbols) -> Option<Self> {
        let dims: Option<SmallVec<[usize; 4]>> =
            dims.iter().map(|size| usize::try_from(size.number()?).ok()).collect();
        let dims = dims?;
        let terms = (0..count(&dims)?).map(|_| Some(symbols.number())).collect();
        Numbers::new(&dims, terms)
    }

    pub(super) fn with_float(mut self, is_float: bool) -> Self {
        self.is_float = is_float;
        self
    }

    pub(super) fn is_float(&self) -> bool {
        self.is_float
    }

    pub(super) fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub(super) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Returns the dimensions as sizes.
    pub(super) fn sizes(&self) -> Dims {
        #[allow(clippy::cast_possible_wrap, reason = "at most MAX_TERMS")]
        self.dims.iter().map(|&dim| Size::known(dim as i64)).collect()
    }

    pub(super) fn is_batch_free(&self) -> bool {
        self.terms.iter().all(|term| term.as_ref().is_some_and(Size::is_batch_free))
    }

    /// Returns the elements, where all are known numbers.
    pub(super) fn known(&self) -> Option<Vec<i64>> {
        self.terms.iter().map(|term| term.as_ref().and_then(Size::number)).collect()
    }

    /// Returns the only element of a scalar or a tensor of one.
    pub(super) fn single(&self) -> Option<&Term> {
        match &*self.terms {
            [term] => Some(term),
            _ => None,
        }
    }

    /// Returns the same elements under other dimensions.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        Some(Numbers::new(dims, self.terms.clone())?.with_float(self.is_float))
    }

    /// Returns the elements at `indices` along `axis`; `None` where an index is past the end.
    pub(super) fn select(&self, axis: usize, indices: &[usize]) -> Option<Self> {
        let length = *self.dims.get(axis)?;
        let outer: usize = self.dims[..axis].iter().product();
        let inner: usize = self.dims[axis + 1..].iter().product();
        if indices.iter().any(|&index| index >= length)
            || outer.checked_mul(indices.len())?.checked_mul(inner)? > MAX_TERMS
        {
            return None;
        }
        let mut terms = Vec::new();
        for block in 0..outer {
            for index in indices {
                let start = (block * length + index) * inner;
                terms.extend_from_slice(&self.terms[start..start + inner]);
            }
        }
        let mut dims = self.dims.clone();
        dims[axis] = indices.len();
        Some(Numbers::new(&dims, terms)?.with_float(self.is_float))
    }

    /// Joins tensors along `axis`.
    pub(super) fn concatenate(parts: &[Numbers], axis: usize) -> Option<Self> {
        let first = parts.first()?;
        let mut dims = first.dims.clone();
        *dims.get_mut(axis)? =
            parts.iter().map(|part| part.dims.get(axis)).sum::<Option<usize>>()?;
        let fits = |part: &Numbers| {
            part.dims.len() == dims.len()
                && (0..dims.len()).all(|other| other == axis || part.dims[other] == dims[other])
        };
        if !parts.iter().all(fits) || count(&dims)? > MAX_TERMS {
            return None;
        }
        let outer: usize = dims[..axis].iter().product();
        let mut terms = Vec::new();
        for block in 0..outer {
            for part in parts {
                let length: usize = part.dims[axis..].iter().product();
                terms.extend_from_slice(&part.terms[block * length..(block + 1) * length]);
            }
        }
        Some(Numbers::new(&dims, terms)?.with_float(first.is_float))
    }

    /// Swaps axes: axis `i` of the result is axis `order[i]` of this.
    pub(super) fn transposed(&self, order: &[usize]) -> Option<Self> {
        let dims: SmallVec<[usize; 4]> =
            order.iter().map(|&axis| self.dims.get(axis).copied()).collect::<Option<_>>()?;
        let mut terms = Vec::with_capacity(self.terms.len());
        for flat in 0..self.terms.len() {
            let mut place = vec![0; self.dims.len()];
            let mut rest = flat;
            for (axis, &dim) in dims.iter().enumerate().rev() {
                place[order[axis]] = rest % dim;
                rest /= dim;
            }
            let from = place.iter().zip(&self.dims).fold(0, |from, (at, dim)| from * dim + at);
            terms.push(self.terms[from].clone());
        }
        Some(Numbers::new(&dims, terms)?.with_float(self.is_float))
    }

    /// Repeats the elements up to these dimensions, as NumPy does.
    pub(super) fn broadcast_to(&self, dims: &[usize]) -> Option<Self> {
        let offset = dims.len().checked_sub(self.dims.len())?;
        let fits = self.dims.iter().zip(&dims[offset..]).all(|(&own, &dim)| own == dim || own == 1);
        if !fits {
            return None;
        }
        let terms = (0..count(dims)?)
            .map(|flat| {
                let (mut rest, mut from, mut stride) = (flat, 0, 1);
                for (axis, &dim) in dims.iter().enumerate().rev() {
                    let at = rest % dim;
                    rest /= dim;
                    if let Some(own) = axis.checked_sub(offset).map(|axis| self.dims[axis]) {
                        from += if own == 1 { 0 } else { at * stride };
                        stride *= own;
                    }
                }
                self.terms[from].clone()
            })
            .collect();
        Some(Numbers::new(dims, terms)?.with_float(self.is_float))
    }
}

fn count(dims: &[usize]) -> Option<usize> {
    let count = dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(dim))?;
    (count <= MAX_TERMS).then_some(count)
}

/// Applies an operator element by element.
pub(super) fn elementwise(
    operator: &str,
    operands: &[Numbers],
    symbols: &mut Symbols,
) -> Result<Numbers> {
    let too_large = || "computes with shapes in a way that is not followed".to_owned();
    let rank = operands.iter().map(|operand| operand.dims.len()).max().unwrap_or(0);
    let mut dims: SmallVec<[usize; 4]> = SmallVec::from_elem(1, rank);
    for operand in operands {
        let offset = rank - operand.dims.len();
        for (dim, &own) in dims[offset..].iter_mut().zip(&operand.dims) {
            if *dim == 1 {
                *dim = own;
            }
        }
    }
    let operands: Option<Vec<Numbers>> =
        operands.iter().map(|operand| operand.broadcast_to(&dims)).collect();
    let operands = operands.ok_or_else(too_large)?;
    // The condition of `Where` has no say in the type of its result.
    let is_float =
        operands.iter().skip(usize::from(operator == "Where")).any(|operand| operand.is_float);
    let terms = (0..count(&dims).ok_or_else(too_large)?)
        .map(|place| {
            let terms: Option<Vec<&Size>> =
                operands.iter().map(|operand| operand.terms[place].as_ref()).collect();
            match terms {
                Some(terms) => combine(operator, &terms, is_float, symbols),
                None => chosen_without_all(operator, &operands, place),
            }
        })
        .collect();
    let is_float = is_float && !is_comparison(operator);
    Ok(Numbers::new(&dims, terms).ok_or_else(too_large)?.with_float(is_float))
}

fn is_comparison(operator: &str) -> bool {
    matches!(
        operator,
        "Equal"
            | "Greater"
            | "GreaterOrEqual"
            | "Less"
            | "LessOrEqual"
            | "And"
            | "Or"
            | "Xor"
            | "Not"
    )
}

/// `Where` needs only the term that it picks.
fn chosen_without_all(operator: &str, operands: &[Numbers], place: usize) -> Term {
    let ("Where", [condition, yes, no]) = (operator, operands) else { return None };
    let condition = condition.terms[place].as_ref()?.number()?;
    (if condition != 0 { yes } else { no }).terms[place].clone()
}

/// Applies an operator to one element of each operand.
fn combine(operator: &str, terms: &[&Size], is_float: bool, symbols: &mut Symbols) -> Term {
    let exact = match (operator, terms) {
        ("Add" | "Sum", [left, right]) => match (left.number(), right.number()) {
            (Some(left), Some(right)) => left.checked_add(right).map(Size::known),
            (Some(0), None) => Some((*right).clone()),
            (None, Some(0)) => Some((*left).clone()),
            _ => None,
        },
        ("Sub", [left, right]) => match (left.number(), right.number()) {
            (Some(left), Some(right)) => left.checked_sub(right).map(Size::known),
            (None, Some(0)) => Some((*left).clone()),
            _ => (left == right).then(|| Size::known(0)),
        },
        ("Mul", [left, right]) => left.times(right),
        ("Div", [left, right]) => divide(left, right, is_float),
        ("Min" | "Max", terms) => {
            let known: Option<Vec<i64>> = terms.iter().map(|term| term.number()).collect();
            let pick = |known: Vec<i64>| {
                if operator == "Min" { known.into_iter().min() } else { known.into_iter().max() }
            };
            known.and_then(pick).map(Size::known)
        }
        ("Where", [condition, yes, no]) => match condition.number() {
            Some(0) => Some((*no).clone()),
            Some(_) => Some((*yes).clone()),
            None => (yes == no).then(|| (*yes).clone()),
        },
        ("Neg", [term]) => term.number().and_then(i64::checked_neg).map(Size::known),
        ("Abs", [term]) if term.is_dimension() => Some((*term).clone()),
        ("Not", [term]) => term.number().map(|value| Size::known(i64::from(value == 0))),
        ("And" | "Or", [left, right]) => logic(operator, left, right),
        // Numbers that are integers already; a symbol that is no dimension may be any number.
        ("Floor" | "Ceil" | "Round" | "Identity", [term]) if term.is_dimension() || !is_float => {
            Some((*term).clone())
        }
        (_, [left, right]) if is_comparison(operator) => compare(operator, left, right),
        _ => None,
    };
    exact.or_else(|| terms.iter().all(|term| term.is_batch_free()).then(|| symbols.number()))
}

fn divide(left: &Size, right: &Size, is_float: bool) -> Option<Size> {
    match (left.number(), right.number()) {
        // Integers are cut towards zero.
        (Some(left), Some(right)) if !is_float => left.checked_div(right).map(Size::known),
        _ => left.divided_by(right),
    }
}

fn logic(operator: &str, left: &Size, right: &Size) -> Option<Size> {
    let decisive = i64::from(operator == "Or");
    let truth = |size: &Size| size.number().map(|value| i64::from(value != 0));
    match (truth(left), truth(right)) {
        (Some(value), _) | (_, Some(value)) if value == decisive => Some(Size::known(decisive)),
        (Some(_), Some(_)) => Some(Size::known(1 - decisive)),
        _ => None,
    }
}

fn compare(operator: &str, left: &Size, right: &Size) -> Option<Size> {
    use std::cmp::Ordering;
    let negative = |size: &Size| size.number().is_some_and(|value| value < 0);
    let ordering = match (left.number(), right.number()) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ if left == right => Ordering::Equal,
        _ if negative(left) && right.is_dimension() => Ordering::Less,
        _ if negative(right) && left.is_dimension() => Ordering::Greater,
        _ => return None,
    };
    let holds = match operator {
        "Equal" => ordering.is_eq(),
        "Greater" => ordering.is_gt(),
        "GreaterOrEqual" => ordering.is_ge(),
        "Less" => ordering.is_lt(),
        "LessOrEqual" => ordering.is_le(),
        _ => return None,
    };
    Some(Size::known(i64::from(holds)))
}
