//! The result: rows, medians, and the table that the README shows.

use serde::Serialize;

/// One comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) reference: String,
    pub(crate) outhaul: String,
    /// The slowest answer of all turns, in milliseconds.
    pub(crate) worst_ms: Option<f64>,
    pub(crate) result: String,
    pub(crate) goal: String,
    pub(crate) met: bool,
}

/// Returns the median; NaN of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

/// Returns the rows as a Markdown table.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["measured", "reference", "Outhaul", "worst answer", "result", "goal", "met"]);
    for row in rows {
        table.add_row([
            row.what.clone(),
            row.reference.clone(),
            row.outhaul.clone(),
            row.worst_ms.map(|worst| format!("{worst:.1} ms")).unwrap_or_default(),
            row.result.clone(),
            row.goal.clone(),
            if row.met { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
    }
}
