//! Made-up traffic for tests: counts with the tails of real services, and random numbers that are small, seeded, and the
//! same on every machine.

use std::time::Duration;

use outhaul_monitor::traffic::VariantCounts;

/// `n` answers of which one in a hundred is slower than `p99` and one in ten thousand than three times that, and
/// `failed` failures.
pub(crate) fn counts(n: u64, p99: Duration, failed: u64) -> VariantCounts {
    let mut counts = VariantCounts { failed, ..VariantCounts::default() };
    let slower = |step: i32| (n as f64 * 0.8f64.powi(step)).round() as u64;
    for step in 0..60 {
        let latency = p99.mul_f64((0.01 / 0.8f64.powi(step)).powf(0.25));
        counts.latency.add(latency, slower(step) - slower(step + 1));
    }
    counts
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far apart.
        Random(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In (0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / 2f64.powi(53)
    }

    /// How many events come where `mean` are expected.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean >= 10.0 { self.many(mean) } else { self.few(mean) }
    }

    /// By multiplying (Knuth): one number for each event.
    fn few(&mut self, mean: f64) -> u64 {
        let end = libm::exp(-mean);
        let (mut product, mut count) = (self.unit(), 0);
        while product > end {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// By transformed rejection (Hörmann 1993, PTRS).
    fn many(&mut self, mean: f64) -> u64 {
        let root = mean.sqrt();
        let b = 0.931 + 2.53 * root;
        let a = -0.059 + 0.02483 * b;
        let inverse = 1.1239 + 1.1328 / (b - 3.4);
        let squeeze = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let edge = 0.5 - u.abs();
            let count = ((2.0 * a / edge + b) * u + mean + 0.43).floor();
            if edge >= 0.07 && v <= squeeze {
                return count as u64;
            }
            if count < 0.0 || (edge < 0.013 && v > edge) {
                continue;
            }
            let left = libm::log(v * inverse / (a / (edge * edge) + b));
            if left <= count * libm::log(mean) - mean - libm::lgamma(count + 1.0) {
                return count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_counts_have_their_mean_as_variance() {
        let mut random = Random::new(1);
        for mean in [0.01, 0.7, 9.9, 10.1, 200.0] {
            let counts: Vec<f64> = (0..20_000).map(|_| random.poisson(mean) as f64).collect();
            let average = counts.iter().sum::<f64>() / 20_000.0;
            let spread = counts.iter().map(|c| (c - average).powi(2)).sum::<f64>() / 20_000.0;
            let error = 4.0 * (mean / 20_000.0).sqrt();
            assert!((average - mean).abs() < error, "{mean}: {average}");
            assert!((spread / mean - 1.0).abs() < 0.1, "{mean}: {spread}");
        }
    }
}
