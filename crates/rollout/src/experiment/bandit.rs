//! Shares that learn: what each variant of a route should get, by the rewards so far.
//!
//! Invariant: [`shares`] is a pure function of policy and counts, so that replicas which hold the same counts advise the
//! same; its shares are at least [`FLOOR`] each (for up to 50 variants) and sum to one, so that no variant is ever
//! given up for good.
//!
//! Thompson sampling (Thompson 1933; Chapelle and Li, "An empirical evaluation of Thompson sampling", NIPS 2011) gives
//! each request to a variant with the probability that this variant is the best. Dealing by shares that equal
//! those probabilities is the same, as long as they are refreshed often against how fast they change (Google
//! Analytics' content experiments did so twice a day: Scott, "Multi-armed bandit experiments in the online service
//! economy", 2015). The probability is found by integration and not by drawing. The posterior of a mean reward is
//! `Beta(1 + S, 1 + n - S)`: exact for rewards of 0 and 1; for fractions, which vary less, it is wider
//! than need be and so explores a little more.
//!
//! Silence is no evidence: a variant from which few outcomes came gets no more than an even share, however likely
//! its prior makes it the best. Else one that never leads to an outcome would be given everything.

use outhaul_types::SplitPolicy;

use super::sequence::VariantStats;

/// The least share of a variant.
pub const FLOOR: f64 = 0.01;

/// The outcomes below which a variant gets at most an even share.
const FEW: u64 = 20;

/// Returns each variant's share, or `None` where the policy does not learn.
pub fn shares(policy: SplitPolicy, variants: &[VariantStats]) -> Option<Vec<f64>> {
    if variants.is_empty() {
        return None;
    }
    let wanted = match policy {
        SplitPolicy::Weights => return None,
        SplitPolicy::EpsilonGreedy { epsilon } => epsilon_greedy(epsilon, variants),
        SplitPolicy::Thompson => probabilities_of_best(variants),
    };
    Some(with_floor(with_even_cap(wanted, variants)))
}

/// The variant with the best mean gets all but `epsilon`, which is spread evenly.
fn epsilon_greedy(epsilon: f64, variants: &[VariantStats]) -> Vec<f64> {
    let even = 1.0 / variants.len() as f64;
    let means =
        variants.iter().enumerate().filter_map(|(index, stats)| Some((index, stats.mean()?)));
    // The first of equals.
    let best = means.reduce(|best, next| if next.1 > best.1 { next } else { best });
    let Some((best, _)) = best else { return vec![even; variants.len()] };
    let share = |index| epsilon * even + if index == best { 1.0 - epsilon } else { 0.0 };
    (0..variants.len()).map(share).collect()
}

/// Returns the probability of each variant to have the highest mean, the means being independent with Beta
/// posteriors: the integral of its density times all others' distribution functions.
fn probabilities_of_best(variants: &[VariantStats]) -> Vec<f64> {
    let posteriors: Vec<Beta> = variants.iter().map(Beta::of).collect();
    let points = points(&posteriors);
    let below: Vec<Vec<f64>> = posteriors.iter().map(|beta| beta.distribution(&points)).collect();
    let others = |index: usize, point: usize| -> f64 {
        let others = below.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, below)| below[point]).product()
    };
    let mut best: Vec<f64> = (0..below.len())
        .map(|index| {
            let (mut sum, mut before) = (0.0, others(index, 0));
            for point in 1..points.len() {
                let now = others(index, point);
                sum += (below[index][point] - below[index][point - 1]) * f64::midpoint(before, now);
                before = now;
            }
            sum
        })
        .collect();
    let sum: f64 = best.iter().sum();
    best.iter_mut().for_each(|share| *share /= sum);
    best
}

/// A Beta distribution.
struct Beta {
    alpha: f64,
    beta: f64,
}

impl Beta {
    /// The posterior of a mean after a uniform prior.
    fn of(stats: &VariantStats) -> Self {
        let n = stats.outcomes as f64;
        let sum = stats.sum.clamp(0.0, n);
        Beta { alpha: 1.0 + sum, beta: 1.0 + n - sum }
    }

    fn mean_and_deviation(&self) -> (f64, f64) {
        let sum = self.alpha + self.beta;
        let mean = self.alpha / sum;
        (mean, (mean * (1.0 - mean) / (sum + 1.0)).sqrt())
    }

    /// Returns the distribution function at ascending points: the density's trapezoids, which need not be
    /// normalised before.
    fn distribution(&self, points: &[f64]) -> Vec<f64> {
        let log = |x: f64| (self.alpha - 1.0) * x.ln() + (self.beta - 1.0) * (-x).ln_1p();
        let logs: Vec<f64> = points.iter().map(|&x| log(x)).collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        let mut below = vec![0.0; points.len()];
        for point in 1..points.len() {
            let (left, right) = ((logs[point - 1] - largest).exp(), (logs[point] - largest).exp());
            sum += f64::midpoint(left, right) * (points[point] - points[point - 1]);
            below[point] = sum;
        }
        below.iter_mut().for_each(|part| *part /= sum);
        below
    }
}

/// Returns where to look: everywhere a little, and closely where one of the posteriors has its mass.
fn points(posteriors: &[Beta]) -> Vec<f64> {
    const EDGE: f64 = 1e-12;
    let everywhere = (0..=256).map(|step| f64::from(step) / 256.0);
    let close = posteriors.iter().flat_map(|posterior| {
        let (mean, deviation) = posterior.mean_and_deviation();
        (-120..=120).map(move |step| mean + deviation * f64::from(step) / 10.0)
    });
    let mut points: Vec<f64> = everywhere.chain(close).map(|x| x.clamp(EDGE, 1.0 - EDGE)).collect();
    points.sort_by(f64::total_cmp);
    points.dedup();
    points
}

/// Takes from variants with few outcomes what they have above an even share, and gives it to the others.
fn with_even_cap(mut shares: Vec<f64>, variants: &[VariantStats]) -> Vec<f64> {
    let even = 1.0 / shares.len() as f64;
    let is_young = |stats: &VariantStats| stats.outcomes < FEW;
    if variants.iter().all(is_young) {
        return vec![even; shares.len()];
    }
    let mut excess = 0.0;
    for (share, _) in shares.iter_mut().zip(variants).filter(|(_, stats)| is_young(stats)) {
        excess += (*share - even).max(0.0);
        *share = share.min(even);
    }
    let known = |share: (&f64, &VariantStats)| if is_young(share.1) { 0.0 } else { *share.0 };
    let sum: f64 = shares.iter().zip(variants).map(known).sum();
    let count = variants.iter().filter(|stats| !is_young(stats)).count() as f64;
    for (share, _) in shares.iter_mut().zip(variants).filter(|(_, stats)| !is_young(stats)) {
        *share += if sum > 0.0 { excess * *share / sum } else { excess / count };
    }
    shares
}

fn with_floor(shares: Vec<f64>) -> Vec<f64> {
    let count = shares.len() as f64;
    let floor = FLOOR.min(0.5 / count);
    shares.into_iter().map(|share| floor + (1.0 - count * floor) * share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Random;

    fn coin(successes: u64, outcomes: u64) -> VariantStats {
        let sum = successes as f64;
        VariantStats { predictions: outcomes, outcomes, sum, sum_squares: sum }
    }

    fn thompson(variants: &[VariantStats]) -> Vec<f64> {
        shares(SplitPolicy::Thompson, variants).unwrap()
    }

    #[test]
    fn the_probability_to_be_best_is_that_of_drawing() {
        // P(X > Y) of two Beta variables with whole parameters, as a sum (Cook, "Exact calculation of
        // beta inequalities", 2005): the sum over i < a of B(c + i, d + b) / ((b + i) B(1 + i, b) B(c, d)).
        let log_beta = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
        let exact = |x: VariantStats, y: VariantStats| -> f64 {
            let (x, y) = (Beta::of(&x), Beta::of(&y));
            let terms = (0..x.alpha as u64).map(|i| {
                let i = i as f64;
                let log = log_beta(y.alpha + i, x.beta + y.beta)
                    - (x.beta + i).ln()
                    - log_beta(1.0 + i, x.beta)
                    - log_beta(y.alpha, y.beta);
                log.exp()
            });
            terms.sum()
        };
        for (x, y) in [
            (coin(0, 0), coin(0, 0)),
            (coin(1, 3), coin(2, 3)),
            (coin(55, 100), coin(50, 100)),
            (coin(0, 0), coin(3, 1_000)),
            (coin(30, 1_000), coin(2, 100)),
            (coin(50_300, 100_000), coin(50_000, 100_000)),
        ] {
            let found = probabilities_of_best(&[x, y]);
            let expected = exact(x, y);
            assert!((found[0] - expected).abs() < 2e-3, "{x:?} {y:?}: {found:?} {expected}");
            assert!((found[0] + found[1] - 1.0).abs() < 1e-9);
        }
        let three = probabilities_of_best(&[coin(5, 10); 3]);
        assert!(three.iter().all(|share| (share - 1.0 / 3.0).abs() < 1e-6), "{three:?}");
    }

    #[test]
    fn shares_sum_to_one_and_starve_nobody() {
        let sure = coin(600_000_000, 1_000_000_000);
        let lists = [
            vec![coin(0, 0)],
            vec![coin(0, 0), coin(0, 0)],
            vec![coin(0, 1_000), coin(1_000, 1_000), coin(0, 0)],
            vec![sure, coin(500_000_000, 1_000_000_000)],
            vec![coin(500, 1_000); 60],
        ];
        let policies = [
            SplitPolicy::Thompson,
            SplitPolicy::EpsilonGreedy { epsilon: 0.1 },
            SplitPolicy::EpsilonGreedy { epsilon: 0.0 },
        ];
        for (variants, policy) in
            lists.iter().flat_map(|list| policies.map(|policy| (list, policy)))
        {
            let shares = shares(policy, variants).unwrap();
            let floor = FLOOR.min(0.5 / variants.len() as f64);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{policy:?} {shares:?}");
            assert!(shares.iter().all(|share| *share >= floor - 1e-12), "{policy:?} {shares:?}");
        }
        assert_eq!(shares(SplitPolicy::Weights, &lists[1]), None);
    }

    #[test]
    fn silence_is_no_evidence() {
        // A click rate of 3 %: the prior alone would make the silent one best almost surely.
        let shares = thompson(&[coin(30, 1_000), coin(0, 0)]);
        assert!(shares[1] <= 0.51, "{shares:?}");
        let shares = thompson(&[coin(30, 1_000), coin(0, 19)]);
        assert!(shares[1] <= 0.51, "{shares:?}");
        let shares = thompson(&[coin(30, 1_000), coin(10, 20)]);
        assert!(shares[1] > 0.95, "{shares:?}");
        let greedy = SplitPolicy::EpsilonGreedy { epsilon: 0.2 };
        let shares = super::shares(greedy, &[coin(30, 1_000), coin(0, 0)]).unwrap();
        assert!(shares[0] > 0.85 && shares[1] > 0.09, "{shares:?}");
    }

    /// Deals 20,000 requests to arms of these means, with shares refreshed each 200; returns what the best arm
    /// would have brought more, and the best arm's share at the end.
    fn regret(policy: SplitPolicy, means: &[f64], seed: u64) -> (f64, f64) {
        let mut random = Random::new(seed);
        let mut stats = vec![VariantStats::default(); means.len()];
        let best = means.iter().copied().fold(0.0, f64::max);
        let (mut lost, mut now) = (0.0, Vec::new());
        for _ in 0..100 {
            now = shares(policy, &stats).unwrap();
            for _ in 0..200 {
                let (mut left, mut arm) = (random.unit(), 0);
                while arm + 1 < now.len() && left > now[arm] {
                    left -= now[arm];
                    arm += 1;
                }
                stats[arm].add(f64::from(random.unit() < means[arm]));
                lost += best - means[arm];
            }
        }
        let index = means.iter().position(|mean| *mean == best).unwrap();
        (lost, now[index])
    }

    #[test]
    fn the_better_arm_is_found() {
        let means = [0.5, 0.5, 0.6, 0.5];
        // An even split for all 20,000 would lose 1,500.
        for (policy, most, least_share) in [
            (SplitPolicy::Thompson, 250.0, 0.9),
            (SplitPolicy::EpsilonGreedy { epsilon: 0.1 }, 450.0, 0.88),
        ] {
            let (mut lost, mut found) = (Vec::new(), 0);
            for seed in 0..8 {
                let (regret, share) = regret(policy, &means, seed);
                lost.push(regret);
                found += u32::from(share > least_share);
            }
            lost.sort_by(f64::total_cmp);
            println!("{policy:?} lost {lost:.0?} of 1,500, found it {found} times of 8");
            assert!(found >= 7, "{policy:?}: {found} of 8");
            assert!(lost[4] < most, "{policy:?}: {lost:?}");
        }
    }
}
