//! Encoded rows to parts that go to the model in one piece.

use std::cmp::Reverse;
use std::mem;
use std::ops::Range;

use tokenizers::Encoding;

use super::inner::TokenInputs;
use super::{MASK, TEXT};
use crate::{Grouping, Part, TransformError};

/// The tokens of a request's rows, one after the other.
///
/// An [`Encoding`] takes 64 bytes a token beside its text, so it is kept only where the output side
/// needs it.
pub(super) struct Rows {
    ids: Vec<u32>,
    /// The text of the pair that each token is from; empty where the model does not take it.
    types: Vec<u32>,
    takes_types: bool,
    /// Where each row's tokens lie.
    spans: Vec<Range<usize>>,
    /// Empty where nobody needs them.
    encodings: Vec<Encoding>,
}

impl Rows {
    /// Makes room for so many rows.
    pub(super) fn new(rows: usize, takes_types: bool) -> Self {
        Rows {
            ids: Vec::new(),
            types: Vec::new(),
            takes_types,
            spans: Vec::with_capacity(rows),
            encodings: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, encoding: Encoding, keeps_encoding: bool) {
        let start = self.ids.len();
        self.ids.extend_from_slice(encoding.get_ids());
        if self.takes_types {
            self.types.extend_from_slice(encoding.get_type_ids());
        }
        self.spans.push(start..self.ids.len());
        if keeps_encoding {
            self.encodings.push(encoding);
        }
    }

    /// Returns the tokens of all rows.
    pub(super) fn tokens(&self) -> usize {
        self.ids.len()
    }

    fn lengths(&self) -> Vec<usize> {
        self.spans.iter().map(Range::len).collect()
    }

    /// Returns a row's ids and type ids.
    fn get(&self, row: usize) -> (&[u32], &[u32]) {
        let span = self.spans[row].clone();
        (&self.ids[span.clone()], self.types.get(span).unwrap_or_default())
    }

    fn part(&mut self, rows: Vec<usize>, inputs: &TokenInputs) -> Part {
        let longest = rows.iter().map(|&row| self.spans[row].len()).max().unwrap_or(0);
        let length = inputs.fixed_length().unwrap_or(longest);
        let tensors = inputs.fill(rows.iter().map(|&row| self.get(row)), length);
        let encodings = if self.encodings.is_empty() {
            Vec::new()
        } else {
            rows.iter().map(|&row| mem::take(&mut self.encodings[row])).collect()
        };
        Part { inputs: tensors, rows, encodings }
    }
}

/// The most tokens, padding included, of rows that go to a model in one piece because the caller asks
/// for its own tensors: a model of 1024 dimensions makes half a gigabyte of them.
const MAX_TOKENS_TOGETHER: usize = 1 << 17;

/// Parts rows as `grouping` says. Rows are filled up to the length that the model's file fixes, else to
/// the longest of their part, which for [`Grouping::Equal`] is no filling at all.
///
/// # Errors
///
/// Fails where rows of different lengths have to be together and the model could not tell what they
/// are filled up with.
pub(super) fn parts(
    mut rows: Rows,
    inputs: &TokenInputs,
    grouping: Grouping,
) -> Result<Vec<Part>, TransformError> {
    let mut lengths = rows.lengths();
    if let Some(fixed) = inputs.fixed_length() {
        lengths.fill(fixed);
    }
    if grouping == Grouping::Together
        && !inputs.takes_mask()
        && let (Some(shortest), Some(longest)) = (lengths.iter().min(), lengths.iter().max())
        && shortest != longest
    {
        let problem = format!(
            "has rows of {shortest} and of {longest} tokens, and the model takes no '{MASK}' that \
             would tell padding from tokens: send them apart"
        );
        return Err(TransformError::Input { field: TEXT, problem });
    }
    let longest = lengths.iter().max().copied().unwrap_or(0);
    if grouping == Grouping::Together && lengths.len().saturating_mul(longest) > MAX_TOKENS_TOGETHER
    {
        let problem = format!(
            "has {} rows of which the longest has {longest} tokens; as tensors of one shape that is \
             more than {MAX_TOKENS_TOGETHER}: ask for fewer rows at once",
            lengths.len()
        );
        return Err(TransformError::Input { field: TEXT, problem });
    }
    let groups = match inputs.fixed_rows() {
        None => groups(&lengths, grouping),
        Some(fixed) if lengths.len().is_multiple_of(fixed) => of_fixed_rows(&lengths, fixed)?,
        Some(fixed) => {
            let rows = lengths.len();
            let problem = format!("has {rows} rows where the model takes {fixed} at once");
            return Err(TransformError::Input { field: TEXT, problem });
        }
    };
    Ok(groups.into_iter().map(|group| rows.part(group, inputs)).collect())
}

/// Parts rows for a model that takes so many at once. They are filled up where its file fixes their
/// length, and have to be of one length where it does not.
fn of_fixed_rows(lengths: &[usize], fixed: usize) -> Result<Vec<Vec<usize>>, TransformError> {
    let order: Vec<usize> = (0..lengths.len()).collect();
    let groups: Vec<Vec<usize>> = order.chunks(fixed).map(<[usize]>::to_vec).collect();
    let differs = |group: &&Vec<usize>| group.iter().any(|&row| lengths[row] != lengths[group[0]]);
    match groups.iter().find(differs) {
        None => Ok(groups),
        Some(group) => {
            let problem = format!(
                "has rows of different lengths (row {} and the {} after it), and the model takes \
                 {fixed} rows of one length at once",
                group[0],
                fixed - 1
            );
            Err(TransformError::Input { field: TEXT, problem })
        }
    }
}

/// Parts rows of these lengths; each row is in exactly one group, and the rows of a group are in order.
/// The longest rows come first, since with several instances what starts last ends last.
fn groups(lengths: &[usize], grouping: Grouping) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    match grouping {
        Grouping::Alone => order.into_iter().map(|row| vec![row]).collect(),
        Grouping::Together => vec![order],
        Grouping::Equal(most) => {
            // Stable: rows of one length stay in order.
            order.sort_by_key(|&row| Reverse(lengths[row]));
            order
                .chunk_by(|&left, &right| lengths[left] == lengths[right])
                .flat_map(|equal| equal.chunks(most.get()).map(<[usize]>::to_vec))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_group_and_groups_are_what_they_promise(
            lengths in prop::collection::vec(1_usize..6, 1..40),
            most in 1_usize..9,
        ) {
            let most = NonZeroUsize::new(most).unwrap();
            for grouping in [Grouping::Alone, Grouping::Equal(most), Grouping::Together] {
                let groups = groups(&lengths, grouping);
                let mut all = groups.concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
                prop_assert!(groups.iter().all(|group| group.is_sorted() && !group.is_empty()));
                match grouping {
                    Grouping::Alone => prop_assert!(groups.iter().all(|group| group.len() == 1)),
                    Grouping::Together => prop_assert_eq!(groups.len(), 1),
                    Grouping::Equal(most) => {
                        let length = |group: &Vec<usize>| lengths[group[0]];
                        for group in &groups {
                            prop_assert!(group.len() <= most.get());
                            prop_assert!(group.iter().all(|&row| lengths[row] == length(group)));
                        }
                        prop_assert!(groups.is_sorted_by_key(|group| Reverse(length(group))));
                        // No more parts than needed.
                        let needed: usize = (1..6)
                            .map(|length| lengths.iter().filter(|&&own| own == length).count())
                            .map(|rows| rows.div_ceil(most.get()))
                            .sum();
                        prop_assert_eq!(groups.len(), needed);
                    }
                }
            }
        }
    }
}
