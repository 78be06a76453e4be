//! Whole roll-outs against made-up traffic, a thousand times over: the promises of [`evidence`](crate::evidence) and
//! [`plan`](crate::plan) as measured rates.
//!
//! Requests arrive at random (Poisson), 200 a second; of the old version 0.3 % fail, answers take 12 ms by the median
//! with a log-normal tail (sigma 0.4, so that the p99 is 30 ms), and 1 % of compared answers disagree, since even
//! equal models differ in the last digits. Counts are drawn for each minute, not request by request; the roll-out is the
//! issue's own: steps of 1, 10, 50 and 100 %, every 10 minutes, four guards, 0.01 false alarms. Everything goes through
//! [`decide`].
//!
//! The rates are printed: `cargo nextest run -p outhaul-rollout simulation --no-capture`.

use std::time::Duration;

use outhaul_monitor::traffic::{ShadowCounts, VariantCounts};
use outhaul_types::ModelName;

use crate::plan::{Command, Input, Observed, Readiness, RolloutObserved, decide};
use crate::samples::Random;
use crate::world::{Phase, Rollout, Timestamp, World};

mod volume;

const RUNS: u64 = 1_000;
const RATE: f64 = 200.0;
const TICK: Duration = Duration::from_secs(60);
const GUARDS: [&str; 4] = ["error_rate<1%", "p99<50ms", "p99<1.2x", "disagreement<5%"];

/// How a version behaves.
#[derive(Clone)]
struct Behaviour {
    errors: f64,
    latencies: Vec<Piece>,
    disagreement: f64,
}

/// A share of all answers whose latencies are alike.
#[derive(Clone)]
struct Piece {
    share: f64,
    /// A quarter of them each.
    latencies: [Duration; 4],
}

impl Behaviour {
    fn old() -> Self {
        let median = Duration::from_millis(12);
        Behaviour { errors: 0.003, latencies: log_normal(median, 0.4), disagreement: 0.01 }
    }

    fn slower(mut self, factor: f64) -> Self {
        for piece in &mut self.latencies {
            piece.latencies = piece.latencies.map(|latency| latency.mul_f64(factor));
        }
        self
    }

    /// Counts `expected` requests, give or take.
    fn serve(&self, random: &mut Random, expected: f64, counts: &mut VariantCounts) {
        counts.failed += random.poisson(expected * self.errors);
        let answered = expected * (1.0 - self.errors);
        for piece in &self.latencies {
            let count = random.poisson(answered * piece.share);
            if count == 0 {
                continue;
            }
            // What does not go into quarters goes to neighbours, from anywhere.
            let first = random.next() % 4;
            for (quarter, latency) in (0..).zip(piece.latencies) {
                let more = u64::from((first + quarter) % 4 < count % 4);
                counts.latency.add(latency, count / 4 + more);
            }
        }
    }
}

/// A log-normal distribution in pieces: the fastest nine tenths as one, then steps of a tenth in how many are slower.
/// What guards on p99 see is the tail, where two neighbours of these latencies are 0.4 % apart.
fn log_normal(median: Duration, sigma: f64) -> Vec<Piece> {
    let at = |slower: f64| median.mul_f64(libm::exp(sigma * normal_quantile(slower)));
    let mut pieces = vec![Piece { share: 0.9, latencies: [at(0.5); 4] }];
    let mut slower = 0.1;
    while slower > 1e-4 {
        let latencies = [0.9875, 0.9625, 0.9375, 0.9125].map(|part| at(slower * part));
        pieces.push(Piece { share: slower * 0.1, latencies });
        slower *= 0.9;
    }
    pieces.push(Piece { share: slower, latencies: [at(slower / 2.0); 4] });
    pieces
}

/// The point of the normal distribution that a share `slower` is above, by bisection.
fn normal_quantile(slower: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if 0.5 * libm::erfc(middle / std::f64::consts::SQRT_2) > slower {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// How a roll-out went.
struct Outcome {
    /// `None`: it was still held when the time was over.
    phase: Option<Phase>,
    /// The step it ended in.
    step: usize,
    after: Duration,
    /// Requests that the candidate got, of all.
    share: f64,
    reason: String,
}

/// Rolls a candidate out, for `longest` at most.
fn roll_out(candidate: &Behaviour, seed: u64, longest: Duration) -> Outcome {
    let (mut random, old) = (Random::new(seed), Behaviour::old());
    let route = ModelName::new("reviews").unwrap();
    let mut now = Timestamp(0);
    let start = Command::Start {
        route: route.clone(),
        spec: serde_json::from_value(serde_json::json!({
            "to": "reviews@2", "from": "reviews@1", "guards": GUARDS,
        }))
        .unwrap(),
        in_service: None,
    };
    let start = Input::Command { command: start, by: "simulation".to_owned() };
    let mut world = decide(&World::default(), &start, now).unwrap().unwrap().world;
    let fresh = || RolloutObserved { ready: Readiness::Ready, ..RolloutObserved::default() };
    let mut input = Input::Tick(Observed { rollouts: [(route.clone(), fresh())].into() });
    let (mut to_candidate, mut to_all) = (0.0, 0.0);
    loop {
        let decision = decide(&world, &input, now).unwrap();
        let Input::Tick(Observed { rollouts }) = &mut input else { unreachable!("it is a tick") };
        let seen = rollouts.get_mut(&route).unwrap();
        if let Some(decision) = decision {
            world = decision.world;
            *seen = fresh();
        }
        let rollout: &Rollout = &world.rollouts[&route];
        if !rollout.is_open() || now.since(Timestamp(0)) >= longest {
            return Outcome {
                phase: (!rollout.is_open()).then_some(rollout.phase),
                step: rollout.step,
                after: now.since(Timestamp(0)),
                share: to_candidate / to_all,
                reason: rollout.reason.clone(),
            };
        }
        let (requests, share) = (RATE * TICK.as_secs_f64(), rollout.share() / 100.0);
        candidate.serve(&mut random, requests * share, &mut seen.candidate);
        if share < 1.0 {
            old.serve(&mut random, requests * (1.0 - share), &mut seen.other);
        }
        let compared = requests * (1.0 - share) * rollout.spec.mirror;
        let disagreed = random.poisson(compared * candidate.disagreement);
        let agreed = random.poisson(compared * (1.0 - candidate.disagreement));
        seen.shadow.merge(&ShadowCounts {
            compared: disagreed + agreed,
            disagreed,
            ..ShadowCounts::default()
        });
        to_candidate += requests * share;
        to_all += requests;
        now.0 += TICK.as_millis() as i64;
    }
}

/// Many roll-outs of one candidate.
struct Outcomes(Vec<Outcome>);

impl Outcomes {
    fn of(candidate: &Behaviour, longest: Duration) -> Self {
        Outcomes((0..RUNS).map(|seed| roll_out(candidate, seed, longest)).collect())
    }

    fn rate(&self, which: impl Fn(&Outcome) -> bool) -> f64 {
        self.0.iter().filter(|outcome| which(outcome)).count() as f64 / RUNS as f64
    }

    /// The time that a share of the roll-outs took at most.
    fn time(&self, share: f64) -> Duration {
        let mut times: Vec<Duration> = self.0.iter().map(|outcome| outcome.after).collect();
        times.sort_unstable();
        times[((RUNS as f64 * share) as usize).min(times.len() - 1)]
    }

    fn print(&self, what: &str) {
        let back = self.rate(|outcome| outcome.phase == Some(Phase::RolledBack));
        let promoted = self.rate(|outcome| outcome.phase == Some(Phase::Promoted));
        let mean = self.0.iter().map(|outcome| outcome.share).sum::<f64>() / RUNS as f64;
        println!(
            "{what}: {RUNS} roll-outs, rolled back {back}, promoted {promoted}, median {}, 99 of 100 within {}, \
             {:.2} % of the traffic meanwhile",
            humantime::format_duration(self.time(0.5)),
            humantime::format_duration(self.time(0.99)),
            mean * 100.0,
        );
    }
}

/// A bad candidate is caught in its first step: it never has as much as a tenth of the traffic.
fn is_caught_early(candidate: &Behaviour, what: &str, guard: &str) {
    let outcomes = Outcomes::of(candidate, HOURS_12);
    outcomes.print(what);
    let early = outcomes.rate(|outcome| {
        let by_it = outcome.reason.contains(guard);
        outcome.phase == Some(Phase::RolledBack)
            && outcome.step == 0
            && outcome.share < 0.1
            && by_it
    });
    println!("{what}: caught at 1 % of the traffic by {guard} in {early}");
    assert!(early >= 0.99, "{what}: {early}");
}

const HOURS_12: Duration = Duration::from_secs(12 * 3_600);

#[test]
fn two_points_more_errors_are_caught() {
    let old = Behaviour::old();
    let errors = old.errors + 0.02;
    is_caught_early(&Behaviour { errors, ..old }, "errors +2 points", "error_rate<1%");
}

#[test]
fn a_latency_higher_by_30_percent_is_caught() {
    is_caught_early(&Behaviour::old().slower(1.3), "latency +30 %", "p99<1.2x");
}

#[test]
fn disagreement_of_10_percent_is_caught() {
    let candidate = Behaviour { disagreement: 0.1, ..Behaviour::old() };
    is_caught_early(&candidate, "disagreement 10 %", "disagreement<5%");
}

#[test]
fn an_equal_candidate_is_promoted() {
    let outcomes = Outcomes::of(&Behaviour::old(), HOURS_12);
    outcomes.print("equal");
    let wrong = outcomes.rate(|outcome| outcome.phase == Some(Phase::RolledBack));
    let promoted = outcomes.rate(|outcome| outcome.phase == Some(Phase::Promoted));
    assert!(wrong <= 0.01, "{wrong}");
    assert!(promoted >= 0.99, "{promoted}");
    assert!(outcomes.time(0.5) < Duration::from_secs(2 * 3_600), "{:?}", outcomes.time(0.5));
}

/// The worst case of the promise: a candidate exactly on the limits of three guards at once is looked at for hours.
#[test]
fn a_candidate_on_the_border_is_held_and_seldom_rolled_back() {
    let candidate = Behaviour { errors: 0.01, disagreement: 0.05, ..Behaviour::old() }.slower(1.2);
    let outcomes = Outcomes::of(&candidate, Duration::from_secs(2 * 3_600));
    outcomes.print("on the border");
    let wrong = outcomes.rate(|outcome| outcome.phase == Some(Phase::RolledBack));
    let passed = outcomes.rate(|outcome| outcome.step > 0);
    assert!(wrong <= 0.01, "{wrong}");
    assert!(passed <= 0.01, "{passed}");
}
