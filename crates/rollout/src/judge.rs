//! What the counts of a step say about each guard.
//!
//! A guard is *kept* or *breached* only where the evidence is clear (see [`evidence`](crate::evidence)), else it is
//! undecided: too few samples are no verdict. The roll-out's `false_alarm` is spread evenly over its guards and steps,
//! since each guard is tested anew at each step (Bonferroni): the probability that any of these tests is ever
//! wrong, in either direction, adds up to `false_alarm` at most.

use std::cmp::Ordering;
use std::time::Duration;

use outhaul_monitor::traffic::{ShadowCounts, VariantCounts};
use serde::{Deserialize, Serialize};

use crate::evidence::{ShareTest, quantile_interval};
use crate::guard::{ERROR_FLOOR, Guard};
use crate::world::Rollout;

/// Whether the candidate may be sent requests, over all replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Every replica has it in memory.
    Ready,
    /// At least one replica has not.
    #[default]
    Loading,
    /// A replica cannot load it, and why.
    Failed(String),
}

/// What was counted of one roll-out, over all replicas, since its step began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutObserved {
    /// Whether the candidate may be sent requests.
    pub ready: Readiness,
    /// Requests that the candidate got.
    pub candidate: VariantCounts,
    /// Requests that the route's other variants got, added up.
    pub other: VariantCounts,
    /// Copies that were sent to the candidate to compare answers.
    pub shadow: ShadowCounts,
}

/// What is known of one guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// The guard.
    pub guard: Guard,
    /// What follows for it.
    pub verdict: Verdict,
    /// The likeliest value: a share from 0 to 1, a latency in seconds, or a ratio. `None` without samples.
    pub estimate: Option<f64>,
    /// Where the true value lies, at all times at once, but for the false-alarm rate. `None` while it has no
    /// upper end.
    pub interval: Option<(f64, f64)>,
    /// The guard's limit, in the estimate's unit.
    pub limit: f64,
    /// The candidate's requests (or compared answers) that it rests on.
    pub samples: u64,
    /// All of it, for people.
    pub text: String,
}

/// What follows for a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is within the limit.
    Keeps,
    /// The whole interval is beyond the limit.
    Breached,
    /// The interval holds the limit: too few samples to tell.
    Undecided,
}

impl Verdict {
    /// Returns a stable lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Keeps => "keeps",
            Verdict::Breached => "breached",
            Verdict::Undecided => "undecided",
        }
    }
}

/// Judges each guard of a roll-out, in their order.
pub fn judge(rollout: &Rollout, observed: &RolloutObserved) -> Vec<Judgement> {
    let spec = &rollout.spec;
    let level = spec.false_alarm / (spec.guards.len() * spec.steps.len()).max(1) as f64;
    let judge_one = |guard: &Guard| {
        if guard.is_relative() && rollout.candidate_is_alone() {
            return kept_before(guard);
        }
        let reading = read(guard, observed, level);
        let unit = Unit::of(guard);
        Judgement {
            text: reading.describe(guard, unit),
            guard: guard.clone(),
            verdict: reading.verdict,
            estimate: reading.estimate,
            interval: reading.high.map(|high| (reading.low, high)),
            limit: guard.limit(),
            samples: reading.samples,
        }
    };
    spec.guards.iter().map(judge_one).collect()
}

/// What is left of a comparison when the candidate has all requests.
fn kept_before(guard: &Guard) -> Judgement {
    Judgement {
        guard: guard.clone(),
        verdict: Verdict::Keeps,
        estimate: None,
        interval: None,
        limit: guard.limit(),
        samples: 0,
        text: format!("{guard}: kept at the steps before, nothing is left to compare with"),
    }
}

/// A judgement in numbers.
struct Reading {
    verdict: Verdict,
    estimate: Option<f64>,
    low: f64,
    high: Option<f64>,
    samples: u64,
    /// The two sides of a comparison.
    sides: Option<(f64, f64)>,
}

fn read(guard: &Guard, observed: &RolloutObserved, level: f64) -> Reading {
    let candidate = &observed.candidate;
    match *guard {
        Guard::ErrorRate { below } => share(candidate.failed, candidate.judged(), (below, level)),
        Guard::Disagreement { below } => {
            let shadow = &observed.shadow;
            share(shadow.disagreed, shadow.compared, (below, level))
        }
        Guard::Latency { quantile, below } => latency(candidate, quantile, (below, level)),
        Guard::LatencyRatio { quantile, below } => {
            latency_ratio((candidate, &observed.other), quantile, (below, level))
        }
        Guard::ErrorRatio { below } => error_ratio((candidate, &observed.other), (below, level)),
    }
}

fn share(hits: u64, n: u64, (limit, level): (f64, f64)) -> Reading {
    let test = ShareTest::around(limit, level);
    let (low, high) = test.interval(hits, n);
    Reading {
        verdict: verdict_of(test.side(hits, n, limit)),
        estimate: (n > 0).then(|| hits as f64 / n as f64),
        low,
        high: Some(high),
        samples: n,
        sides: None,
    }
}

fn latency(counts: &VariantCounts, quantile: f64, (limit, level): (Duration, f64)) -> Reading {
    let latency = &counts.latency;
    let slower = 1.0 - quantile;
    let side = ShareTest::around(slower, level).side(latency.above(limit), latency.total(), slower);
    let interval = quantile_interval(latency, quantile, level);
    Reading {
        verdict: verdict_of(side),
        estimate: latency.quantile(quantile).map(|estimate| estimate.as_secs_f64()),
        low: interval.low.as_secs_f64(),
        high: interval.high.map(|high| high.as_secs_f64()),
        samples: latency.total(),
        sides: None,
    }
}

/// Each side has its own interval, at half the level; where both hold, so does the interval of the ratio.
fn latency_ratio(
    (candidate, other): (&VariantCounts, &VariantCounts),
    quantile: f64,
    (limit, level): (f64, f64),
) -> Reading {
    let at = |counts: &VariantCounts| quantile_interval(&counts.latency, quantile, level / 2.0);
    let (ours, theirs) = (at(candidate), at(other));
    let low = theirs.high.map_or(0.0, |high| ours.low.as_secs_f64() / high.as_secs_f64());
    let high = ours.high.filter(|_| !theirs.low.is_zero());
    let sides = candidate.latency.quantile(quantile).zip(other.latency.quantile(quantile));
    let sides = sides.map(|(ours, theirs)| (ours.as_secs_f64(), theirs.as_secs_f64()));
    ratio(
        (low, high.map(|high| high.as_secs_f64() / theirs.low.as_secs_f64())),
        limit,
        Reading { samples: candidate.latency.total(), sides, ..Reading::nothing() },
    )
}

/// As above. Rates below [`ERROR_FLOOR`] count as the floor, on the other variant's side: were it not for that, two
/// variants without any error could never be told apart from two that differ tenfold, and a candidate with one
/// error in a million would be held against another with none.
fn error_ratio(
    (candidate, other): (&VariantCounts, &VariantCounts),
    (limit, level): (f64, f64),
) -> Reading {
    let test = ShareTest::around(USUAL_ERROR_RATE, level / 2.0);
    let at = |counts: &VariantCounts| test.interval(counts.failed, counts.judged());
    let rate = |counts: &VariantCounts| {
        (counts.judged() > 0).then(|| counts.failed as f64 / counts.judged() as f64)
    };
    let (ours, theirs) = (at(candidate), at(other));
    let interval = (ours.0 / theirs.1.max(ERROR_FLOOR), Some(ours.1 / theirs.0.max(ERROR_FLOOR)));
    let sides = rate(candidate).zip(rate(other));
    let estimate = sides.map(|(ours, theirs)| ours / theirs.max(ERROR_FLOOR));
    let samples = candidate.judged();
    ratio(interval, limit, Reading { samples, sides, estimate, ..Reading::nothing() })
}

/// Where the test of a ratio of error rates is fast: there is no limit to go by.
const USUAL_ERROR_RATE: f64 = 0.01;

fn ratio((low, high): (f64, Option<f64>), limit: f64, reading: Reading) -> Reading {
    let verdict = match high {
        _ if low > limit => Verdict::Breached,
        Some(high) if high <= limit => Verdict::Keeps,
        _ => Verdict::Undecided,
    };
    let estimate = reading.estimate.or(reading.sides.map(|(ours, theirs)| ours / theirs));
    Reading { verdict, estimate, low, high, ..reading }
}

fn verdict_of(side: Ordering) -> Verdict {
    match side {
        Ordering::Greater => Verdict::Breached,
        Ordering::Less => Verdict::Keeps,
        Ordering::Equal => Verdict::Undecided,
    }
}

impl Reading {
    fn nothing() -> Self {
        Reading {
            verdict: Verdict::Undecided,
            estimate: None,
            low: 0.0,
            high: None,
            samples: 0,
            sides: None,
        }
    }

    fn describe(&self, guard: &Guard, unit: Unit) -> String {
        let of = match guard {
            Guard::Disagreement { .. } => "compared answers",
            _ => "requests",
        };
        let Some(estimate) = self.estimate else {
            return match self.samples {
                0 => format!("{guard}: no {of} yet"),
                n => format!("{guard}: {n} {of}, none yet to compare with"),
            };
        };
        let sides = self.sides.map(|(ours, theirs)| {
            let unit = Unit::of_sides(guard);
            format!(", {} against {}", unit.write(ours), unit.write(theirs))
        });
        let range = match self.high {
            Some(high) => format!("{} to {}", unit.write(self.low), unit.write(high)),
            None => format!("at least {}", unit.write(self.low)),
        };
        let (estimate, samples) = (unit.write(estimate), self.samples);
        format!("{guard}: {estimate} ({range}) of {samples} {of}{}", sides.unwrap_or_default())
    }
}

/// How a number is written.
#[derive(Clone, Copy)]
enum Unit {
    Share,
    Latency,
    Ratio,
}

impl Unit {
    fn of(guard: &Guard) -> Self {
        match guard {
            Guard::ErrorRate { .. } | Guard::Disagreement { .. } => Unit::Share,
            Guard::Latency { .. } => Unit::Latency,
            Guard::ErrorRatio { .. } | Guard::LatencyRatio { .. } => Unit::Ratio,
        }
    }

    /// Of what a ratio compares.
    fn of_sides(guard: &Guard) -> Self {
        match guard {
            Guard::LatencyRatio { .. } => Unit::Latency,
            _ => Unit::Share,
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{} %", digits(value * 100.0)),
            Unit::Ratio => format!("{}x", digits(value)),
            Unit::Latency if value < 1e-3 => format!("{}us", digits(value * 1e6)),
            Unit::Latency if value < 1.0 => format!("{}ms", digits(value * 1e3)),
            Unit::Latency => format!("{}s", digits(value)),
        }
    }
}

/// Writes a number with three significant digits at least, and no zeros at the end.
pub(crate) fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::counts;
    use crate::world::{Phase, RolloutSpec, Timestamp};

    fn rollout(guards: &[&str]) -> Rollout {
        let spec: RolloutSpec = serde_json::from_value(serde_json::json!({
            "to": "m@2", "guards": guards, "false_alarm": 0.01,
        }))
        .unwrap();
        Rollout {
            id: "m-1".to_owned(),
            spec,
            before: outhaul_types::RouteSpec::to("m@1".parse().unwrap()),
            phase: Phase::Stepping,
            step: 0,
            step_since: Timestamp(0),
            started_at: Timestamp(0),
            ended_at: None,
            reason: String::new(),
        }
    }

    fn one(guard: &str, observed: &RolloutObserved) -> Judgement {
        judge(&rollout(&[guard]), observed).remove(0)
    }

    #[test]
    fn verdicts() {
        use Verdict::{Breached, Keeps, Undecided};
        let ms = Duration::from_millis;
        // (guard, candidate: n, p99, failed; other: the same; verdict)
        for (guard, candidate, other, verdict) in [
            ("error_rate<1%", (100, 20, 0), (10_000, 20, 0), Undecided),
            ("error_rate<1%", (1_000, 20, 0), (0, 20, 0), Keeps),
            ("error_rate<1%", (1_000, 20, 40), (0, 20, 0), Breached),
            ("error_rate<1%", (0, 20, 20), (0, 20, 0), Breached),
            ("error_rate<1.5x", (0, 20, 0), (10_000, 20, 0), Undecided),
            ("error_rate<1.5x", (10_000, 20, 0), (100_000, 20, 0), Keeps),
            ("error_rate<1.5x", (10_000, 20, 300), (100_000, 20, 1_000), Breached),
            ("error_rate<1.5x", (10_000, 20, 100), (100_000, 20, 1_000), Undecided),
            ("error_rate<1.5x", (1_000_000, 20, 1_000), (9_000_000, 20, 9_000), Keeps),
            ("p99<50ms", (500, 20, 0), (0, 20, 0), Undecided),
            ("p99<50ms", (2_000, 20, 0), (0, 20, 0), Keeps),
            ("p99<50ms", (4_000, 60, 0), (0, 20, 0), Breached),
            ("p99<1.2x", (4_000, 20, 0), (100, 20, 0), Undecided),
            ("p99<1.2x", (12_000, 20, 0), (600_000, 20, 0), Keeps),
            ("p99<1.2x", (4_000, 32, 0), (100_000, 20, 0), Breached),
            ("p99<1.2x", (4_000, 30, 0), (0, 20, 0), Undecided),
        ] {
            let (n, p99, failed) = candidate;
            let (other_n, other_p99, other_failed) = other;
            let observed = RolloutObserved {
                candidate: counts(n, ms(p99), failed),
                other: counts(other_n, ms(other_p99), other_failed),
                ..RolloutObserved::default()
            };
            let found = one(guard, &observed);
            assert_eq!(found.verdict, verdict, "{candidate:?} against {other:?}: {}", found.text);
        }
        for (compared, disagreed, verdict) in
            [(0, 0, Undecided), (40, 1, Undecided), (1_000, 10, Keeps), (500, 60, Breached)]
        {
            let shadow = ShadowCounts { compared, disagreed, ..ShadowCounts::default() };
            let found =
                one("disagreement<5%", &RolloutObserved { shadow, ..RolloutObserved::default() });
            assert_eq!(found.verdict, verdict, "{}", found.text);
        }
    }

    const GUARDS: [&str; 5] =
        ["error_rate<1%", "error_rate<1.5x", "p99<50ms", "p99<1.2x", "disagreement<5%"];
    const TEXTS: [&str; 5] = [
        "error_rate<1%: 2.44 % (1.56 % to 3.6 %) of 4100 requests",
        "error_rate<1.5x: 8.15x (3.98x to 16x) of 4100 requests, 2.44 % against 0.299 %",
        "p99<50ms: 29.1ms (24.6ms to 36.7ms) of 4000 requests",
        "p99<1.2x: 1.5x (1.21x to 2x) of 4000 requests, 29.1ms against 19.4ms",
        "disagreement<5%: 12 % (6.84 % to 18.9 %) of 500 compared answers",
    ];

    #[test]
    fn judgements_say_what_they_rest_on() {
        let ms = Duration::from_millis;
        let observed = RolloutObserved {
            candidate: counts(4_000, ms(30), 100),
            other: counts(100_000, ms(20), 300),
            shadow: ShadowCounts { compared: 500, disagreed: 60, ..ShadowCounts::default() },
            ..RolloutObserved::default()
        };
        let guards = GUARDS.iter().map(|guard| one(guard, &observed).text);
        assert_eq!(guards.collect::<Vec<_>>(), TEXTS);
        let nothing = RolloutObserved::default();
        assert_eq!(one("p99<50ms", &nothing).text, "p99<50ms: no requests yet");
        assert_eq!(one("p99<50ms", &nothing).interval, None);
        let alone = RolloutObserved { candidate: counts(100, ms(1), 0), ..nothing };
        assert_eq!(
            one("p99<1.2x", &alone).text,
            "p99<1.2x: 100 requests, none yet to compare with"
        );
    }

    #[test]
    fn with_all_requests_comparisons_count_as_kept_and_limits_go_on() {
        let guards = ["p99<1.2x", "error_rate<1.5x", "disagreement<5%", "error_rate<1%"];
        let last = Rollout { step: 3, ..rollout(&guards) };
        let verdicts = judge(&last, &RolloutObserved::default()).into_iter().map(|j| j.verdict);
        let expected = [Verdict::Keeps, Verdict::Keeps, Verdict::Keeps, Verdict::Undecided];
        assert_eq!(verdicts.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn judgements_survive_json() {
        let observed = RolloutObserved {
            candidate: counts(500, Duration::from_millis(30), 5),
            ..RolloutObserved::default()
        };
        for judgement in judge(&rollout(&["p99<50ms", "p99<1.2x", "error_rate<1%"]), &observed) {
            let json = serde_json::to_string(&judgement).unwrap();
            let read: Judgement = serde_json::from_str(&json).unwrap();
            assert_eq!(read, judgement);
        }
    }
}
