//! What an experiment has shown so far.
//!
//! Invariant: two promises, each kept with 95 % over the whole life of the experiment and all readings of it: no interval
//! ever misses its variant's mean, and no variant is ever said to lead that does not. Levels are shared out evenly
//! (Bonferroni): among `k` variants each side of an interval has 5 % / 2k. A wrong lead needs one of `k`
//! true statements to be doubted (that the variant said to lead is no better than the best other one; where two
//! are equally good, that each of them is no better than the other), so each comparison has 5 % / k.

use std::fmt;

use outhaul_types::{Name, RouteSpec};
use serde::Serialize;

use super::sequence::{VariantStats, lead, lower, upper};

/// The probability that the intervals, and that the verdict, are ever wrong.
pub const ERROR: f64 = 0.05;

/// What an experiment has shown so far. It may be read at any time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExperimentReport {
    /// The route.
    pub route: String,
    /// With which probability all intervals are right, whenever they are read.
    pub confidence: f64,
    /// The route's targets, in their order.
    pub variants: Vec<VariantReport>,
    /// What follows.
    pub verdict: Verdict,
    /// The verdict as a sentence.
    pub text: String,
}

/// What is known of one variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VariantReport {
    /// The variant.
    pub variant: Name,
    /// Its part of the traffic now, 0 to 1.
    pub share: f64,
    /// Answers that were remembered.
    pub predictions: u64,
    /// How many of them have an outcome.
    pub outcomes: u64,
    /// The mean of their rewards.
    pub mean: Option<f64>,
    /// What the mean is at least and at most.
    pub interval: [f64; 2],
}

/// What follows from the outcomes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// Not known yet, or nothing to compare.
    Undecided,
    /// One variant has a higher mean reward than each other.
    Leads {
        /// Which one.
        variant: Name,
        /// The others.
        over: Vec<Name>,
        /// How much higher its mean is than each other's, at least.
        by_at_least: f64,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Undecided => f.write_str("no variant is known to lead"),
            Verdict::Leads { variant, over, by_at_least } => {
                write!(f, "{variant} leads {} by at least {by_at_least:.4}", over.join(", "))
            }
        }
    }
}

/// Reports on a route's variants. `stats` has one entry for each target, in their order.
pub fn report(route: &str, spec: &RouteSpec, stats: &[VariantStats]) -> ExperimentReport {
    let names: Vec<Name> = spec.targets.iter().map(|target| target.to.to_string().into()).collect();
    let side = ERROR / (2.0 * names.len().max(1) as f64);
    let variants = names.iter().zip(spec.shares()).zip(stats);
    let variants = variants.map(|((name, share), stats)| VariantReport {
        variant: name.clone(),
        share,
        predictions: stats.predictions,
        outcomes: stats.outcomes,
        mean: stats.mean(),
        interval: [lower(stats, side), upper(stats, side)],
    });
    let verdict = verdict(&names, stats);
    ExperimentReport {
        route: route.to_owned(),
        confidence: 1.0 - ERROR,
        variants: variants.collect(),
        text: verdict.to_string(),
        verdict,
    }
}

fn verdict(names: &[Name], stats: &[VariantStats]) -> Verdict {
    let means = stats.iter().enumerate().filter_map(|(index, stats)| Some((index, stats.mean()?)));
    let best = means.max_by(|left, right| left.1.total_cmp(&right.1));
    let (Some((best, _)), true) = (best, names.len() > 1) else { return Verdict::Undecided };
    let level = ERROR / names.len() as f64;
    let mut by_at_least = 1.0_f64;
    for (index, other) in stats.iter().enumerate().filter(|(index, _)| *index != best) {
        debug_assert!(index < names.len());
        match lead(&stats[best], other, level) {
            Some(margin) => by_at_least = by_at_least.min(margin),
            None => return Verdict::Undecided,
        }
    }
    let over = names.iter().enumerate().filter(|(index, _)| *index != best);
    let over = over.map(|(_, name)| name.clone()).collect();
    Verdict::Leads { variant: names[best].clone(), over, by_at_least }
}

#[cfg(test)]
mod tests {
    use outhaul_types::TargetSpec;

    use super::*;

    fn coin(successes: u64, outcomes: u64) -> VariantStats {
        let sum = successes as f64;
        VariantStats { predictions: 2 * outcomes, outcomes, sum, sum_squares: sum }
    }

    fn route(weights: &[f64]) -> RouteSpec {
        let target = |(index, weight): (usize, &f64)| TargetSpec {
            to: format!("reviews@{}", index + 1).parse().unwrap(),
            weight: *weight,
        };
        let targets = weights.iter().enumerate().map(target).collect();
        RouteSpec { targets, ..RouteSpec::to("reviews".parse().unwrap()) }
    }

    #[test]
    fn a_report_says_what_is_known() {
        let stats = [coin(5_000, 10_000), coin(5_600, 10_000)];
        let report = report("reviews", &route(&[3.0, 1.0]), &stats);
        let [old, new] = &report.variants[..] else { panic!("two variants") };
        assert_eq!((old.share, old.predictions, old.mean), (0.75, 20_000, Some(0.5)));
        let ([low, high], [new_low, new_high]) = (old.interval, new.interval);
        assert!(low < 0.5 && high < new_low && new_high < 0.6, "{report:?}");
        let Verdict::Leads { variant, over, by_at_least } = &report.verdict else {
            panic!("{report:?}")
        };
        assert_eq!((variant.as_str(), over.len()), ("reviews@2", 1));
        assert!((0.03..0.06).contains(by_at_least), "{by_at_least}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdict"]["kind"], "leads");
        assert_eq!(json["variants"][1]["variant"], "reviews@2");
        let text = json["text"].as_str().unwrap();
        assert!(text.starts_with("reviews@2 leads reviews@1 by at least 0.0"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        for (stats, what) in [
            (vec![coin(0, 0), coin(0, 0)], "nothing came yet"),
            (vec![coin(9, 10), coin(1, 10)][..1].to_vec(), "one variant"),
            (vec![coin(900, 1_000), coin(0, 0)], "one is silent"),
            (vec![coin(510, 1_000), coin(500, 1_000)], "too near"),
            (vec![coin(900, 1_000), coin(890, 1_000), coin(100, 1_000)], "two of three lead"),
        ] {
            let weights = vec![1.0; stats.len()];
            let report = report("reviews", &route(&weights), &stats);
            assert_eq!(report.verdict, Verdict::Undecided, "{what}");
            assert_eq!(report.text, "no variant is known to lead");
        }
    }
}
