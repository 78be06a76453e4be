//! Zipf's law: the model of rank r is asked for in proportion to 1 / r^s.

/// Which model is asked for how often. Ranks are spread over the models, so that no order of names is
/// also one of use.
pub(crate) struct Zipf {
    /// The share of all requests that is for the models up to each rank.
    cumulated: Vec<f64>,
    /// The model of each rank.
    models: Vec<usize>,
}

impl Zipf {
    /// Makes a law over `models`, at least one, with exponent `s`.
    pub(crate) fn new(models: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let shares = (1..=models).map(|rank| {
            sum += (rank as f64).powf(-s);
            sum
        });
        let mut cumulated: Vec<f64> = shares.collect();
        cumulated.iter_mut().for_each(|share| *share /= sum);
        let mut order: Vec<usize> = (0..models).collect();
        let mut chance = Chance(0);
        for place in (1..models).rev() {
            order.swap(place, (chance.next() * (place + 1) as f64) as usize);
        }
        Zipf { cumulated, models: order }
    }

    /// Returns endless draws, the same for the same seed.
    pub(crate) fn draws(&self, seed: u64) -> impl FnMut() -> usize + Send {
        let mut chance = Chance(seed.wrapping_add(1) << 32);
        move || {
            let drawn = chance.next();
            let rank = self.cumulated.partition_point(|share| *share < drawn);
            self.models[rank.min(self.models.len() - 1)]
        }
    }
}

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    /// Returns a number from 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_drawn_by_their_share() {
        let zipf = Zipf::new(100, 1.0);
        let mut counts = [0_usize; 100];
        let mut draw = zipf.draws(7);
        (0..100_000).for_each(|_| counts[draw()] += 1);
        counts.sort_by(|left, right| right.cmp(left));
        // The harmonic number of 100 is 5.187.
        let expected = |rank: f64| 100_000.0 / 5.187 / rank;
        assert!((counts[0] as f64 / expected(1.0) - 1.0).abs() < 0.05, "{}", counts[0]);
        assert!((counts[9] as f64 / expected(10.0) - 1.0).abs() < 0.1, "{}", counts[9]);
        assert!(counts[99] > 0);
    }

    #[test]
    fn draws_repeat() {
        let zipf = Zipf::new(1000, 1.0);
        let (mut first, mut second) = (zipf.draws(1), zipf.draws(1));
        assert!((0..1000).all(|_| first() == second()));
    }
}
