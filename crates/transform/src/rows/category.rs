//! A list of texts, and the place of one in it.

use std::collections::HashMap;
use std::sync::Arc;

/// Values beyond this many, or this long, are not searched for what was meant: a request must not
/// cost more than its size calls for.
const MOST_COMPARED: usize = 1000;
const LONGEST_COMPARED: usize = 64;

/// How alike a suggestion must be.
const ALIKE: f64 = 0.6;

const MOST_SUGGESTED: usize = 3;

/// The characters of a wrong value that are told.
const LONGEST_TOLD: usize = 60;

/// The values that a category may have, in the model's order.
pub(super) struct Categories {
    places: HashMap<Box<[u8]>, usize>,
    values: Arc<[String]>,
}

impl Categories {
    /// Keeps the values.
    pub(super) fn new(values: &[String]) -> Result<Self, String> {
        if values.is_empty() {
            return Err("has no values".to_owned());
        }
        let mut places = HashMap::with_capacity(values.len());
        for (place, value) in values.iter().enumerate() {
            if value.is_empty() {
                return Err("has an empty value, which stands for one that is missing".to_owned());
            }
            if places.insert(value.as_bytes().into(), place).is_some() {
                return Err(format!("has the value '{value}' twice"));
            }
        }
        Ok(Categories { places, values: values.into() })
    }

    pub(super) fn values(&self) -> &Arc<[String]> {
        &self.values
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns the place of a value in the list.
    pub(super) fn place(&self, value: &[u8]) -> Option<usize> {
        self.places.get(value).copied()
    }

    /// Says that a value is not in the list, and what was probably meant.
    pub(super) fn unknown(&self, value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        let mut told: String = text.chars().take(LONGEST_TOLD).collect();
        if told.len() < text.len() {
            told.push_str("...");
        }
        let nearest = self.nearest(&text);
        if !nearest.is_empty() {
            let nearest = quoted(nearest.iter().copied());
            return format!("has the unknown value '{told}'; did you mean {nearest}?");
        }
        let first = quoted(self.values.iter().take(MOST_SUGGESTED + 1).map(String::as_str));
        let more = match self.len() {
            0..=4 => String::new(),
            all => format!(" and {} more", all - (MOST_SUGGESTED + 1)),
        };
        format!("has the unknown value '{told}'; the values are {first}{more}")
    }

    fn nearest(&self, wrong: &str) -> Vec<&str> {
        if wrong.len() > LONGEST_COMPARED || self.len() > MOST_COMPARED {
            return Vec::new();
        }
        let lower = wrong.to_lowercase();
        let comparable = self.values.iter().filter(|value| value.len() <= LONGEST_COMPARED);
        let mut near: Vec<(f64, &str)> = comparable
            .map(|value| {
                let alike = strsim::normalized_damerau_levenshtein(&value.to_lowercase(), &lower);
                (alike, value.as_str())
            })
            .filter(|(alike, _)| *alike >= ALIKE)
            .collect();
        near.sort_by(|(left, _), (right, _)| right.total_cmp(left));
        near.into_iter().take(MOST_SUGGESTED).map(|(_, value)| value).collect()
    }
}

fn quoted<'v>(values: impl Iterator<Item = &'v str>) -> String {
    values.map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categories(values: &[&str]) -> Result<Categories, String> {
        Categories::new(&values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_list_has_each_value_once_and_none_empty() {
        assert_eq!(categories(&[]).err().unwrap(), "has no values");
        assert_eq!(categories(&["a", "a"]).err().unwrap(), "has the value 'a' twice");
        assert!(categories(&["a", ""]).err().unwrap().starts_with("has an empty value"));
        let two = categories(&["b", "a"]).unwrap();
        assert_eq!([two.place(b"b"), two.place(b"a"), two.place(b"c")], [Some(0), Some(1), None]);
    }

    #[test]
    fn an_unknown_value_is_told_with_what_was_meant() {
        let cities = categories(&["Paris", "Porto", "Rome", "Oslo", "Bern"]).unwrap();
        let unknown = |value: &str| cities.unknown(value.as_bytes());
        assert_eq!(unknown("Pars"), "has the unknown value 'Pars'; did you mean 'Paris'?");
        assert_eq!(unknown("ROME"), "has the unknown value 'ROME'; did you mean 'Rome'?");
        assert_eq!(
            unknown("Vladivostok"),
            "has the unknown value 'Vladivostok'; the values are 'Paris', 'Porto', 'Rome', 'Oslo' \
             and 1 more"
        );
        let long = "x".repeat(100_000);
        assert!(unknown(&long).len() < 200, "a long value is told in part");
        assert!(cities.unknown(b"\xff").contains('\u{fffd}'));
        let many: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        let many = Categories::new(&many).unwrap();
        assert!(many.unknown(b"1x").ends_with("'0', '1', '2', '3' and 99996 more"));
    }
}
