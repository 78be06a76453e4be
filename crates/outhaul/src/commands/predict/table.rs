//! The answer to rows, for people: a line each, or, for one row, a line for each output.

use outhaul::ModelDescription;
use outhaul::types::{Content, Field, InferResponse, Tensor};
use serde_json::Value as Json;

use super::values;

/// The classes of one row that are shown, best first.
const CLASSES: usize = 5;

/// Numbers of a vector that are shown.
const NUMBERS: usize = 4;

/// The longest list that is shown whole.
const SHORT: usize = 8;

/// Writes the rows of an answer, or `None` where its outputs have no rows in common.
pub(super) fn rows(response: &InferResponse, model: &ModelDescription) -> Option<String> {
    let count = response.outputs.first()?.tensor.shape().rows()?;
    let agree = |tensor: &Tensor| tensor.shape().rows() == Some(count);
    if !response.outputs.iter().all(|output| agree(&output.tensor)) {
        return None;
    }
    let plain = Field::default();
    let columns = response.outputs.iter().map(|output| {
        let index = model.signature.output_index(&output.name);
        let field = index.and_then(|index| model.interface.outputs.get(index)).unwrap_or(&plain);
        let cell = |row| cell(&output.tensor.slice_rows(row..row + 1), field);
        (output.name.to_string(), (0..count).map(cell).collect())
    });
    Some(written(&columns.collect::<Vec<_>>()))
}

/// Writes columns, each under its name; a single row is written downwards.
fn written(columns: &[(String, Vec<String>)]) -> String {
    let lines: Vec<Vec<&str>> = match columns.first().map_or(0, |(_, cells)| cells.len()) {
        1 => columns.iter().map(|(name, cells)| vec![name.as_str(), &cells[0]]).collect(),
        rows => {
            let header = columns.iter().map(|(name, _)| name.as_str()).collect();
            let row = |row: usize| columns.iter().map(|(_, cells)| cells[row].as_str()).collect();
            [header].into_iter().chain((0..rows).map(row)).collect()
        }
    };
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or(0);
            format!("{cell:width$}")
        });
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes one row of one output.
fn cell(row: &Tensor, field: &Field) -> String {
    let value = match values::json(row) {
        Json::Array(mut rows) if rows.len() == 1 => rows.remove(0),
        other => other,
    };
    let text = match (&value, &field.choices) {
        (Json::Array(scores), Some(classes))
            if field.content == Content::Score && scores.len() == classes.len() =>
        {
            ranked(scores, classes)
        }
        (Json::Array(numbers), _) if numbers.len() > SHORT => {
            let shown = numbers.iter().take(NUMBERS).map(|number| short(number, field));
            let shown = shown.collect::<Vec<_>>().join(", ");
            format!("[{shown}, ...] {} in all", numbers.len())
        }
        (Json::Array(items), _) => {
            let shown: Vec<String> = items.iter().map(|item| short(item, field)).collect();
            format!("[{}]", shown.join(", "))
        }
        (value, _) => short(value, field),
    };
    match &field.unit {
        Some(unit) => format!("{text} {unit}"),
        None => text,
    }
}

/// Writes the best classes with their scores.
fn ranked(scores: &[Json], classes: &[String]) -> String {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |index: usize| scores[index].as_f64().unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|&left, &right| score(right).total_cmp(&score(left)));
    let shown = order.iter().take(CLASSES);
    let shown: Vec<String> =
        shown.map(|&index| format!("{} {:.4}", classes[index], score(index))).collect();
    let dots = if order.len() > CLASSES { ", ..." } else { "" };
    format!("{}{dots}", shown.join(", "))
}

/// Writes one value on one line.
fn short(value: &Json, field: &Field) -> String {
    match value {
        Json::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Json::Number(number) if matches!(field.content, Content::Score | Content::Embedding) => {
            format!("{:.4}", number.as_f64().unwrap_or(f64::NAN))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(sizes: [usize; 2], elements: Vec<f32>) -> Tensor {
        Tensor::from_vec(sizes, elements).unwrap()
    }

    #[test]
    fn a_cell_says_what_a_value_means() {
        let classes = Field {
            choices: Some(["no".to_owned(), "yes".to_owned()].into()),
            ..Field::of(Content::Score)
        };
        let scores = tensor([1, 2], vec![0.25, 0.75]);
        assert_eq!(cell(&scores, &classes), "yes 0.7500, no 0.2500");
        assert_eq!(cell(&scores, &Field::of(Content::Score)), "[0.2500, 0.7500]");
        let vector = tensor([1, 9], vec![0.123_456; 9]);
        let expected = "[0.1235, 0.1235, 0.1235, 0.1235, ...] 9 in all";
        assert_eq!(cell(&vector, &Field::of(Content::Embedding)), expected);
        let price = Field { unit: Some("EUR".into()), ..Field::of(Content::Number) };
        assert_eq!(cell(&Tensor::from_vec([1], vec![12.5_f64]).unwrap(), &price), "12.5 EUR");
        let text = Tensor::from_strings([1], ["two\nlines"].iter().collect()).unwrap();
        assert_eq!(cell(&text, &Field::of(Content::Label)), "two lines");
    }

    #[test]
    fn one_row_goes_down_and_several_across() {
        let column = |name: &str, cells: &[&str]| {
            (name.to_owned(), cells.iter().map(|&cell| cell.to_owned()).collect())
        };
        let one = [column("label", &["yes"]), column("probabilities", &["yes 1"])];
        assert_eq!(written(&one), "label          yes\nprobabilities  yes 1\n");
        let two = [column("label", &["yes", "no"]), column("score", &["1", "0.75"])];
        assert_eq!(written(&two), "label  score\nyes    1\nno     0.75\n");
    }
}
