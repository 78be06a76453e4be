//! What is known of a variant's mean reward, in a way that may be read after every outcome.
//!
//! Invariant: for rewards in `[0, 1]` with mean `mu`, whatever their distribution, the probability that there is
//! *ever* a moment at which [`lower`] or [`upper`] is on the wrong side of `mu` is at most the level asked for.
//! So a report may be read, and an experiment ended, at any time and for any reason. All is computed from the
//! number of outcomes, their sum and the sum of their squares: the order in which replicas wrote them cannot matter.
//!
//! # The method
//!
//! A confidence sequence by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
//! betting", JRSS-B 2024), with stakes mixed beforehand and not adapted to the data, so that it depends on the
//! three sums alone. Whoever doubts that the mean is at most `m` stakes a fraction `l` of what they have on each
//! outcome: their wealth `prod(1 + l (x_i - m))`, `0 <= l < 1/m`, is a non-negative supermartingale where the mean is
//! at most `m`, and by Ville's inequality it ever reaches `1/a` with probability `a` at most. A mixture over fixed
//! stakes, `sum_k w_k prod(1 + l_k (x_i - m))` with `sum w_k = 1`, is one too.
//!
//! The product needs every outcome; a bound from below does not. For `y >= -m` and `0 <= l < 1/m`
//! (Fan, Grama and Liu, "Exponential inequalities for martingales with applications", EJP 2015, proposition 4.1,
//! scaled by `m`; it is also the step behind the empirical-Bernstein sequences of Howard, Ramdas, McAuliffe and Sekhon,
//! "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 2021, theorem 4):
//!
//! ```text
//! 1 + l y >= exp(l y - psi y^2),    psi = (-ln(1 - m l) - m l) / m^2
//! ```
//!
//! With `y_i = x_i - m`, centred at the hypothesis and not at an estimate, `sum y_i = S - n m` and
//! `sum y_i^2 = Q - 2 m S + n m^2`: three sums. The doubt about `m` is the logarithm of the mixture of these bounds. Near
//! the mean `sum y_i^2` is about `n` times the variance, so the width follows the variance, as
//! Bernstein's inequality does, and is not that of the worst case.
//!
//! *Why any `m` that is doubted enough is a lower bound.* For `m >= mu` each factor `1 + l (x - m)` is at most
//! `1 + l (x - mu)`, the stakes being the same for all `m`, so `doubt` at `m` never exceeds the wealth at `mu`
//! (stakes of `1/m` and above, which `m` forbids, only add to the latter). One event of probability `a` thus covers
//! all `m >= mu` at once, and the search in [`lower`] need not be exact to be right: it returns an `m` that it
//! has seen doubted.
//!
//! *Upper bounds* are lower bounds of `1 - x`. *Two variants* are compared by one wealth that is staked on both:
//! see [`beats`].

use std::sync::LazyLock;

use serde::Serialize;

/// What is counted of one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct VariantStats {
    /// Answers that were remembered.
    pub predictions: u64,
    /// How many of them have an outcome.
    pub outcomes: u64,
    /// The sum of the rewards.
    pub sum: f64,
    /// The sum of the rewards' squares.
    pub sum_squares: f64,
}

impl VariantStats {
    /// Adds one reward.
    pub fn add(&mut self, reward: f64) {
        self.outcomes += 1;
        self.sum += reward;
        self.sum_squares += reward * reward;
    }

    /// Returns the mean reward, where there is one.
    pub fn mean(&self) -> Option<f64> {
        (self.outcomes > 0).then(|| (self.sum / self.outcomes as f64).clamp(0.0, 1.0))
    }

    /// The same outcomes as `1 - reward`.
    fn mirrored(&self) -> Self {
        let n = self.outcomes as f64;
        VariantStats {
            sum: n - self.sum,
            sum_squares: n - 2.0 * self.sum + self.sum_squares,
            ..*self
        }
    }
}

/// Stakes from 4 down by half octaves: each suits a number of outcomes, from a handful to some 10^13.
const STAKES: usize = 48;

/// The part that is staked on nothing. It keeps [`beats`] from losing on one variant, far from where it
/// matters, what it wins on the other.
const UNSTAKED: f64 = 0.05;

/// The stakes and the logarithms of their weights. The weights are largest around the stakes that suit some
/// thousand outcomes and fall with the square of the distance, which no number of outcomes is far behind.
static MIXTURE: LazyLock<[(f64, f64); STAKES]> = LazyLock::new(|| {
    let weight = |index: usize| 1.0 / (9.0 + (index as f64 - 9.0).powi(2));
    let sum: f64 = (0..STAKES).map(weight).sum();
    std::array::from_fn(|index| {
        let stake = 4.0 * 2f64.powf(-(index as f64) / 2.0);
        (stake, (weight(index) * (1.0 - UNSTAKED) / sum).ln())
    })
});

/// Doubt in statements about one variant's mean.
pub(crate) struct Doubt {
    stats: VariantStats,
}

impl Doubt {
    /// Doubts that the mean is at most something.
    pub(crate) fn of_at_most(stats: &VariantStats) -> Self {
        Doubt { stats: *stats }
    }

    /// Doubts that the mean of `1 - reward` is at most something, which is that the reward's mean is at least
    /// one minus it.
    pub(crate) fn of_at_least(stats: &VariantStats) -> Self {
        Doubt::of_at_most(&stats.mirrored())
    }

    /// Returns the logarithm of the evidence against a mean of at most `m`. Where that is true, it ever
    /// reaches `ln(1/a)` with probability `a` at most.
    pub(crate) fn at(&self, m: f64) -> f64 {
        let (n, sum) = (self.stats.outcomes as f64, self.stats.sum);
        let centred = sum - n * m;
        let squares = (self.stats.sum_squares - 2.0 * m * sum + n * m * m).max(0.0);
        let terms = MIXTURE.map(|(stake, weight)| match stake * m < 1.0 {
            true => weight + stake * centred - psi(stake, m) * squares,
            false => f64::NEG_INFINITY,
        });
        let unstaked = UNSTAKED.ln();
        let largest = terms.iter().fold(unstaked, |largest, term| largest.max(*term));
        let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
        largest + (sum + (unstaked - largest).exp()).ln()
    }
}

/// `(-ln(1 - m l) - m l) / m^2`, at least 0.
fn psi(stake: f64, m: f64) -> f64 {
    let product = stake * m;
    if product < 1e-3 {
        // The series, where the difference above would cancel: what is left out is below 1e-12 of it.
        let series =
            0.5 + product * (1.0 / 3.0 + product * (0.25 + product * (0.2 + product / 6.0)));
        return stake * stake * series;
    }
    (-(-product).ln_1p() - product) / (m * m)
}

/// Returns a bound that the mean reward is ever below with probability `level` at most.
pub fn lower(stats: &VariantStats, level: f64) -> f64 {
    let Some(mean) = stats.mean() else { return 0.0 };
    let doubt = Doubt::of_at_most(stats);
    let enough = -level.ln();
    // Steps down from the mean, each twice the one before, until something is doubted enough.
    let mut far = mean / 2f64.powi(40);
    while doubt.at((mean - far).max(0.0)) < enough {
        if far >= mean {
            return 0.0;
        }
        far *= 2.0;
    }
    let (mut doubted, mut open) = ((mean - far).max(0.0), mean - far / 2.0);
    for _ in 0..30 {
        let middle = f64::midpoint(doubted, open);
        if doubt.at(middle) >= enough {
            doubted = middle;
        } else {
            open = middle;
        }
    }
    doubted
}

/// Returns a bound that the mean reward is ever above with probability `level` at most.
pub fn upper(stats: &VariantStats, level: f64) -> f64 {
    1.0 - lower(&stats.mirrored(), level)
}

/// Evaluations that one comparison may take; one that would need more is not certain.
const EVALUATIONS: u32 = 4_000;

/// The smallest part of the means' range that is looked at.
const FINEST: f64 = 1e-9;

/// Returns whether `better`'s mean exceeds `other`'s by more than `margin`. It is ever said wrongly with
/// probability `level` at most, over all margins together.
///
/// Let `a` and `b` be the means and suppose `a - b <= margin`. Whatever `b` is, the product of the evidence against
/// "`a` is at most `b + margin`" and of that against "`b` is at least `b`" is a supermartingale: each
/// outcome multiplies one of the two, in whatever order and however the traffic was split. So it is enough that this
/// product reaches `1/level` for *every* value `m` that `b` may have. It is shown interval by interval: on
/// `[low, high]` the first factor is at least its value at `high + margin`, the second at least its value at `low`
/// (as for bounds, see the module's front page). This takes half the outcomes that two separate intervals need to
/// part, since evidence of both variants adds up.
pub fn beats(better: &VariantStats, other: &VariantStats, margin: f64, level: f64) -> bool {
    let (Some(a), Some(b)) = (better.mean(), other.mean()) else { return false };
    if a - b <= margin {
        return false;
    }
    let (against_at_most, against_at_least) =
        (Doubt::of_at_most(better), Doubt::of_at_least(other));
    let enough = -level.ln();
    let shown = |low: f64, high: f64| {
        let first = against_at_most.at((high + margin).min(1.0));
        first + against_at_least.at(1.0 - low) >= enough
    };
    let mut open = vec![(0.0, 1.0)];
    let mut evaluations = 0;
    while let Some((low, high)) = open.pop() {
        evaluations += 1;
        if shown(low, high) {
            continue;
        }
        if evaluations >= EVALUATIONS || high - low < FINEST {
            return false;
        }
        let middle = f64::midpoint(low, high);
        // The half that is nearer to between the two means is looked at first: it fails soonest.
        let between = f64::midpoint(a - margin, b);
        let (first, second) = ((low, middle), (middle, high));
        open.extend(if between < middle { [second, first] } else { [first, second] });
    }
    true
}

/// Returns the largest margin, to three digits, by which `better` [`beats`] `other`; none where it does not.
pub fn lead(better: &VariantStats, other: &VariantStats, level: f64) -> Option<f64> {
    if !beats(better, other, 0.0, level) {
        return None;
    }
    let (mut shown, mut open) = (0.0, 1.0);
    for _ in 0..20 {
        let middle = f64::midpoint(shown, open);
        if beats(better, other, middle, level) {
            shown = middle;
        } else {
            open = middle;
        }
        if open - shown < open * 5e-4 {
            break;
        }
    }
    Some(shown)
}

#[cfg(test)]
mod tests;
