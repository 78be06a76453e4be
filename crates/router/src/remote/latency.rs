//! How long a remote usually takes: its slowest twentieth among the last answers.

use std::time::Duration;

/// Answers that are looked back on.
const KEPT: usize = 1_000;

/// Fewer answers than these say nothing.
const FEWEST: usize = 50;

/// The quantile is worked out anew after so many answers: the window moves slowly.
const EVERY: usize = 16;

/// The last latencies, and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// In microseconds, a ring once it is full.
    kept: Vec<u32>,
    next: usize,
    since: usize,
    p95: Option<Duration>,
}

impl Recent {
    pub(super) fn record(&mut self, latency: Duration) {
        let latency = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match self.kept.get_mut(self.next) {
            Some(oldest) => *oldest = latency,
            None => self.kept.push(latency),
        }
        self.next = (self.next + 1) % KEPT;
        self.since += 1;
        if self.kept.len() >= FEWEST && (self.since >= EVERY || self.p95.is_none()) {
            self.since = 0;
            self.p95 = Some(quantile(self.kept.clone()));
        }
    }

    /// Returns the latency that 95 of 100 answers did not exceed, where enough are known.
    pub(super) fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

fn quantile(mut latencies: Vec<u32>) -> Duration {
    let rank = (latencies.len() * 95).div_ceil(100) - 1;
    let (_, found, _) = latencies.select_nth_unstable(rank);
    Duration::from_micros(u64::from(*found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_needs_fifty_answers_and_forgets_old_ones() {
        let mut recent = Recent::default();
        (0..49).for_each(|_| recent.record(ms(1)));
        assert_eq!(recent.p95(), None);
        recent.record(ms(1));
        assert_eq!(recent.p95(), Some(ms(1)));
        (1..=1_000).for_each(|latency| recent.record(ms(latency)));
        let p95 = recent.p95().unwrap();
        assert!((ms(930)..=ms(951)).contains(&p95), "{p95:?}");
        (0..1_016).for_each(|_| recent.record(ms(2)));
        assert_eq!(recent.p95(), Some(ms(2)), "what is long ago is forgotten");
        assert_eq!(recent.kept.len(), KEPT);
        recent.record(Duration::MAX);
    }
}
