//! Evidence that may be read at any time: how far a share or a quantile is known after so many requests.
//!
//! A roll-out is judged again and again while requests come in, and acts on the first judgement that is clear. A
//! test made for one look, repeated like that, raises a false alarm sooner or later with certainty. What is used
//! here is *time-uniform*: the probability that an interval is wrong **at any time, ever**, is at most its level.
//!
//! **Shares** (errors, disagreements, requests slower than a fixed latency) are tested by the beta-binomial
//! mixture (Robbins 1970, "Statistical methods related to the law of the iterated logarithm"; in today's terms
//! Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
//! Annals of Statistics 49). With `x` hits among `n` requests,
//!
//! ```text
//! M(p) = ∫ θ^x (1-θ)^(n-x) dBeta(θ; a, b) / (p^x (1-p)^(n-x))
//! ```
//!
//! is a martingale with mean 1 where `p` is the true share, so it ever reaches `1/level` with probability
//! `level` at most (Ville 1939). All `p` with `M(p) < 1/level` make the interval.
//!
//! **Which mixture.** `Beta(1, 1/s - 1)`, whose mean is the share `s` that the test is about (the guard's limit),
//! fixed before the first request. Its density falls like `exp(-θ/s)`: it puts its weight where candidates near
//! the limit are, on both sides, instead of spreading it from 0 to 1. Against 1 %, 2,645 requests tell 0.3 % from it,
//! 1,555 tell 2.3 %, 90 tell 10 %, and 7 failures in a row are enough (level 1/1600). A weaker or stronger
//! concentration (`a` of 1/2 or 2) changes these by a few percent.
//!
//! **Quantiles**: a quantile `q` is above a latency exactly where the share of slower requests is above `1 - q`.
//! That share's test is read at the end of each bucket (Howard and Ramdas 2022, "Sequential estimation of
//! quantiles with applications to A/B testing and best-arm identification", Bernoulli 28). No correction for the
//! number of buckets is needed: the interval is wrong only where the test at the one true quantile is, because the
//! count of slower requests never rises with the latency.
//!
//! **What is assumed**: that within a step each request fails (is slow, disagrees) with one probability,
//! independently of the others. See `docs/guide/rollouts-statistics.md` for what follows where that is not so.

use std::cmp::Ordering;
use std::time::Duration;

use libm::{lgamma, log, log1p};
use outhaul_monitor::LatencyCounts;

/// A family of time-uniform tests of a share.
#[derive(Clone, Copy, Debug)]
pub struct ShareTest {
    a: f64,
    b: f64,
    level: f64,
}

impl ShareTest {
    /// Makes the test that is fast around a share (above 0 and below 1). `level` is the probability that it is ever
    /// wrong.
    pub fn around(share: f64, level: f64) -> Self {
        ShareTest { a: 1.0, b: 1.0 / share - 1.0, level }
    }

    /// Returns the logarithm of the evidence that the true share is not `share` (above 0 and below 1), after
    /// `hits` of `n`.
    pub fn log_evidence(&self, hits: u64, n: u64, share: f64) -> f64 {
        self.log_mixture(hits, n) - log_likelihood(hits, n, share)
    }

    /// Returns where the true share lies for certain, seen from `share`: above, below, or neither.
    pub fn side(&self, hits: u64, n: u64, share: f64) -> Ordering {
        if self.log_evidence(hits, n, share) < -log(self.level) {
            return Ordering::Equal;
        }
        (hits as f64).total_cmp(&(n as f64 * share))
    }

    /// Returns the shares that the evidence does not speak against. From 0 to 1 without requests.
    pub fn interval(&self, hits: u64, n: u64) -> (f64, f64) {
        if n == 0 {
            return (0.0, 1.0);
        }
        let limit = self.log_mixture(hits, n) + log(self.level);
        let is_outside = |share: f64| log_likelihood(hits, n, share) <= limit;
        let likeliest = hits as f64 / n as f64;
        let low = if hits == 0 { 0.0 } else { boundary(likeliest, 0.0, is_outside) };
        let high = if hits == n { 1.0 } else { boundary(likeliest, 1.0, is_outside) };
        (low, high)
    }

    fn log_mixture(&self, hits: u64, n: u64) -> f64 {
        let (hits, misses) = (hits as f64, (n - hits) as f64);
        log_beta(self.a + hits, self.b + misses) - log_beta(self.a, self.b)
    }
}

fn log_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

fn log_likelihood(hits: u64, n: u64, share: f64) -> f64 {
    hits as f64 * log(share) + (n - hits) as f64 * log1p(-share)
}

/// Finds where `is_outside` begins between a share inside and an end of the range, to a ten-thousandth of its value.
/// It errs outwards.
fn boundary(mut inside: f64, mut outside: f64, is_outside: impl Fn(f64) -> bool) -> f64 {
    while (outside - inside).abs() > 1e-4 * outside.max(inside) {
        let middle = f64::midpoint(inside, outside);
        if is_outside(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    outside
}

/// Where a quantile lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantileInterval {
    /// It is above this.
    pub low: Duration,
    /// It is not above this. `None`: there are too few requests to tell.
    pub high: Option<Duration>,
}

/// Returns where a quantile (above 0 and below 1) of latencies lies, at all times at once but for `level`.
pub fn quantile_interval(counts: &LatencyCounts, quantile: f64, level: f64) -> QuantileInterval {
    let slower = 1.0 - quantile;
    let test = ShareTest::around(slower, level);
    let total = counts.total();
    let mut seen = 0;
    // At the end of each bucket: how many are slower. Falls, so each side begins at one place.
    let ends: Vec<(Duration, u64)> = counts
        .buckets()
        .map(|(end, count)| {
            seen += count;
            (end, total - seen)
        })
        .collect();
    let above = ends.partition_point(|&(_, n)| test.side(n, total, slower) == Ordering::Greater);
    let below = ends.partition_point(|&(_, n)| test.side(n, total, slower) != Ordering::Less);
    QuantileInterval {
        low: above.checked_sub(1).map_or(Duration::ZERO, |last| ends[last].0),
        high: ends.get(below).map(|&(end, _)| end),
    }
}

#[cfg(test)]
mod tests;
