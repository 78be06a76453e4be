//! The result: rows, medians, and the table that the README shows.

use std::fmt;
use std::time::Duration;

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

/// Latencies in milliseconds: exact, since all of them are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latencies {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latencies {
    /// Sorts latencies; NaN of nothing.
    pub(crate) fn of(latencies: impl IntoIterator<Item = Duration>) -> Self {
        let milliseconds = |latency: Duration| latency.as_secs_f64() * 1000.0;
        let mut sorted: Vec<f64> = latencies.into_iter().map(milliseconds).collect();
        sorted.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let rank = (sorted.len() as f64 * share).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        let count = sorted.len();
        let (p50, p99, p999, max) = (quantile(0.5), quantile(0.99), quantile(0.999), quantile(1.0));
        Latencies { count, p50, p99, p999, max }
    }

    /// Returns the medians of several, and the largest of all.
    pub(crate) fn middle(several: impl Iterator<Item = Latencies> + Clone) -> Self {
        let middle = |of: fn(Latencies) -> f64| median(several.clone().map(of));
        Latencies {
            count: several.clone().map(|each| each.count).sum(),
            p50: middle(|each| each.p50),
            p99: middle(|each| each.p99),
            p999: middle(|each| each.p999),
            max: several.map(|each| each.max).fold(0.0, f64::max),
        }
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latencies { p50, p99, p999, .. } = self;
        write!(formatter, "p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2} ms")
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

    #[test]
    fn quantiles_are_ranks() {
        let latencies = Latencies::of((1..=1000).rev().map(Duration::from_millis));
        assert_eq!((latencies.p50, latencies.p99, latencies.p999), (500.0, 990.0, 999.0));
        assert_eq!((latencies.count, latencies.max), (1000, 1000.0));
        assert!(Latencies::of([]).p99.is_nan());
    }
}
