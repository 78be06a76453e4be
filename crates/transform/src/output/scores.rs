//! Scores out of a model's numbers, one row at a time, where only some of them are wanted.
//!
//! A number that is not a number makes every share of its row one, as with numpy.

use std::cmp::Ordering;

/// What the shares of a row's numbers follow from: `exp(number - largest) / sum`.
pub(super) struct Softmax {
    largest: f32,
    sum: f64,
}

impl Softmax {
    /// Adds up a row.
    pub(super) fn of(row: &[f32]) -> Self {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = row.iter().map(|&number| f64::from((number - largest).exp())).sum();
        Softmax { largest, sum }
    }

    /// Returns the share of one of the row's numbers.
    pub(super) fn share(&self, number: f32) -> f32 {
        (f64::from((number - self.largest).exp()) / self.sum) as f32
    }
}

/// Returns 1 / (1 + e^-number).
pub(super) fn sigmoid(number: f32) -> f32 {
    1.0 / (1.0 + (-number).exp())
}

/// Returns the places of a row's `most` largest numbers, the largest first. Of equal ones the first
/// counts; what is not a number comes last.
pub(super) fn largest(row: &[f32], most: usize) -> Vec<usize> {
    let compare = |&left: &usize, &right: &usize| {
        let (left_number, right_number) = (row[left], row[right]);
        let by_number = match (left_number.is_nan(), right_number.is_nan()) {
            (false, false) => right_number.total_cmp(&left_number),
            (left_nan, right_nan) => left_nan.cmp(&right_nan),
        };
        by_number.then(left.cmp(&right))
    };
    let mut order: Vec<usize> = (0..row.len()).collect();
    if most < order.len() {
        order.select_nth_unstable_by(most, compare);
        order.truncate(most);
    }
    order.sort_unstable_by(compare);
    order
}

/// Returns the place of a row's largest number, the first of equal ones; 0 for an empty row.
pub(super) fn largest_one(row: &[f32]) -> usize {
    let greater = |best: usize, place: usize| {
        let ordering = row[place].partial_cmp(&row[best]);
        let is_greater =
            ordering == Some(Ordering::Greater) || (row[best].is_nan() && !row[place].is_nan());
        if is_greater { place } else { best }
    };
    (1..row.len()).fold(0, greater)
}

/// Adds a score to a JSON text: `null` where it is not a number, for which JSON has no word.
pub(super) fn push_json_number(json: &mut String, score: f32) {
    use std::fmt::Write as _;
    if score.is_finite() {
        write!(json, "{score}").expect("writing to a string does not fail");
    } else {
        json.push_str("null");
    }
}

/// Adds a text in quotes to a JSON text.
pub(super) fn push_json_string(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found_in_order() {
        let row = [0.5, f32::NAN, 2.0, -1.0, 2.0, f32::NEG_INFINITY];
        assert_eq!(largest(&row, 3), [2, 4, 0]);
        assert_eq!(largest(&row, 99), [2, 4, 0, 3, 5, 1]);
        assert_eq!(largest_one(&row), 2);
        assert_eq!(largest_one(&[f32::NAN, 1.0]), 1);
        assert_eq!(largest_one(&[f32::NAN]), 0);
    }

    #[test]
    fn shares_add_up_and_large_numbers_do_not_overflow() {
        let row = [1000.0, 1001.0, -1000.0];
        let softmax = Softmax::of(&row);
        let shares = row.map(|number| softmax.share(number));
        assert!((shares[1] - 0.731_058_6).abs() < 1e-6, "{shares:?}");
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(Softmax::of(&[f32::NAN, 0.0]).share(0.0).is_nan());
        assert!((sigmoid(1.0) - 0.731_058_6).abs() < 1e-6);
        assert_eq!((sigmoid(-1000.0), sigmoid(1000.0)), (0.0, 1.0));
    }

    #[test]
    fn json_is_valid_whatever_the_model_gave() {
        let mut json = String::new();
        push_json_number(&mut json, 0.1);
        json.push(',');
        push_json_number(&mut json, f32::NAN);
        json.push(',');
        push_json_number(&mut json, 1e-30);
        json.push(',');
        push_json_string(&mut json, "a\"b\\\u{1}\u{e9}");
        let parsed: serde_json::Value = serde_json::from_str(&format!("[{json}]")).unwrap();
        assert_eq!(parsed[0].as_f64().map(|number| number as f32), Some(0.1));
        assert!(parsed[1].is_null());
        assert_eq!(parsed[2].as_f64().map(|number| number as f32), Some(1e-30));
        assert_eq!(parsed[3], "a\"b\\\u{1}\u{e9}");
    }
}
